"""Whole trees on a virtual clock: random lives from a seed, checked against what must always hold."""

from __future__ import annotations

import random
from typing import Any

import pytest

from suitkaise.engines.engine import Launch
from suitkaise.exits import Crashed, Killed, Normal, Shutdown, Signaled
from suitkaise.specs import Child, Supervisor
from suitkaise.testing import Behaviour, Simulation

SEEDS = 1500


def work() -> None:
    """Never called: the simulated engine runs scripts."""


def random_tree(chance: random.Random, depth: int = 2, name: str = "root") -> Supervisor:
    children: list[Any] = []
    for number in range(chance.randint(1, 4)):
        if depth and chance.random() < 0.3:
            children.append(random_tree(chance, depth - 1, f"sup{number}"))
        else:
            restart = chance.choice(["permanent", "permanent", "transient", "temporary"])
            shutdown = chance.choice([0.5, 5.0, "brutal_kill"])
            children.append(Child(work, id=f"w{number}", restart=restart, shutdown=shutdown))
    return Supervisor(
        name, *children, strategy=chance.choice(["one_for_one", "one_for_all", "rest_for_one"]),
        max_restarts=chance.randint(0, 6), max_seconds=chance.choice([1.0, 5.0]),
    )  # fmt: skip


def random_behaviour(chance: random.Random) -> Behaviour:
    reason = chance.choice([Normal(), Shutdown(), Signaled(9), Crashed("loop", ValueError("x"))])
    return Behaviour(
        start=chance.choices(["ok", "fails", "ignores"], [20, 1, 1])[0],  # type: ignore[arg-type]
        start_takes=chance.choice([0.0, 0.1]),
        lives=chance.choice([None, None, None, 0.3, 2.0, chance.uniform(0, 20)]),
        reason=reason,
        stop_takes=chance.choice([0.0, 0.0, 0.2, 10.0, None]),
        stop_reason=chance.choice([Shutdown(), Signaled(15)]),
    )


def simulate(seed: int) -> Simulation:
    chance = random.Random(seed)
    simulation = Simulation(random_tree(chance), lambda launch: random_behaviour(chance))
    for until in (5.0, 20.0, 40.0):
        simulation.run(until)
        check_one_live_incarnation(simulation)
    simulation.stop()
    simulation.run(400.0)
    return simulation


def check_one_live_incarnation(simulation: Simulation) -> None:
    alive = [handle.launch.path for handle in simulation.alive()]
    assert len(alive) == len(set(alive)), f"two incarnations at once: {alive}"


def check_incarnations_follow_each_other(simulation: Simulation) -> None:
    """The next incarnation of a path began when the one before was over, never earlier."""
    last: dict[str, Any] = {}
    for handle in simulation.engine.launched:
        before = last.get(handle.launch.path)
        if before is not None:
            assert before.ended_at is not None
            assert before.ended_at <= handle.began, f"{handle.launch.path} began before its predecessor had ended"
        last[handle.launch.path] = handle


@pytest.mark.parametrize("block", range(3))
def test_random_lives_keep_what_must_always_hold(block: int) -> None:
    for seed in range(block * SEEDS // 3, (block + 1) * SEEDS // 3):
        try:
            simulation = simulate(seed)
            assert simulation.reason is not None, "it did not come to its end"
            assert simulation.alive() == []
            check_incarnations_follow_each_other(simulation)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error


def test_a_seed_replays_exactly() -> None:
    for seed in range(50):
        first, second = simulate(seed), simulate(seed)
        assert [str(event) for event in first.events] == [str(event) for event in second.events]
        assert str(first.reason) == str(second.reason)


def test_children_start_in_order_and_stop_in_reverse() -> None:
    tree = Supervisor("app", *(Child(work, id=name) for name in "abc"))
    simulation = Simulation(tree, lambda launch: Behaviour(start_takes=1.0, stop_takes=1.0))
    simulation.run(until=10.0)
    simulation.stop()
    simulation.run(until=20.0)
    told = [(event.kind, event.path[-1], event.at) for event in simulation.events if event.path != "app"]
    assert told == [
        ("child_started", "a", 1.0), ("child_started", "b", 2.0), ("child_started", "c", 3.0),
        ("child_stopped", "c", 11.0), ("child_stopped", "b", 12.0), ("child_stopped", "a", 13.0),
    ]  # fmt: skip


def test_a_worker_that_ignores_a_stop_is_killed_after_its_shutdown() -> None:
    def stubborn(launch: Launch) -> Behaviour:
        return Behaviour(stop_takes=None)

    simulation = Simulation(Supervisor("app", Child(work, shutdown=2.0)), stubborn)
    simulation.run(until=1.0)
    simulation.stop()
    simulation.run(until=60.0)
    (event,) = (event for event in simulation.events if event.kind == "child_stop_error")
    assert event.at == 3.0
    assert event.reason == Killed("shutdown timeout")  # type: ignore[attr-defined]


def test_a_supervisor_that_gives_up_is_restarted_by_its_own() -> None:
    def crash_early(launch: Launch) -> Behaviour:
        return Behaviour(lives=0.1 if launch.path.endswith("weak") else None, reason=Signaled(11))

    tree = Supervisor("app", Supervisor("inner", Child(work, id="weak"), max_restarts=1), max_restarts=2)
    simulation = Simulation(tree, crash_early)
    simulation.run(until=100.0)
    kinds = [event.kind for event in simulation.events]
    assert kinds.count("supervisor_gave_up") == 4  # inner three times, then the root
    assert str(simulation.reason).startswith("shutdown (gave up: 'app/inner'")


def test_s40_what_had_taken_the_place_of_a_declared_child_leaves_nothing_behind() -> None:
    def crash(launch: Launch) -> Behaviour:
        return Behaviour(lives=5.0 if launch.path == "app/inner/fragile" else None, reason=Signaled(11))

    inner = Supervisor("inner", Child(work), Child(work, id="fragile"), max_restarts=0)
    simulation = Simulation(Supervisor("app", inner), crash)
    simulation.run(until=1.0)
    executor = simulation.root.child("inner")
    assert executor is not None
    for what, argument in (("terminate", "work"), ("delete", "work"), ("start_child", Child(Supervisor("work", work)))):
        executor.administer(what, argument)
    simulation.run(until=2.0)
    assert simulation.registry.kind_of("app/inner/work") == "supervisor"

    simulation.run(until=6.0)

    assert simulation.registry.kind_of("app/inner/work") == "process"
    assert sorted(simulation.registry.paths()) == ["app", "app/inner", "app/inner/fragile", "app/inner/work"]
