"""Whole trees with dynamic supervisors on the simulated engine and its virtual clock."""

from __future__ import annotations

import functools
import math
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from suitkaise import Backoff, Child, DynamicSupervisor, MaxChildren, Supervisor
from suitkaise.engines.engine import Launch
from suitkaise.errors import SuitkaiseError
from suitkaise.exits import Killed, Shutdown, Signaled
from suitkaise.messaging.answer import Answer
from suitkaise.messaging.protocol import RequestKind
from suitkaise.supervision.interface import SupervisorInterface
from suitkaise.testing import Behaviour, Simulation
from tests.policy.test_is_a_function import calls_during


def work() -> None: ...


def pool_of(simulation: Simulation) -> SupervisorInterface:
    pool = simulation.root.child("pool")
    assert pool is not None
    return pool


def ask(
    simulation: Simulation, executor: SupervisorInterface, what: str, argument: Any, takes: float = 0.0
) -> Answer[Any]:
    answer = executor.administer(what, argument)
    simulation.run(simulation.clock.now + takes)
    return answer


def alive(simulation: Simulation) -> list[str]:
    return [handle.launch.path for handle in simulation.alive()]


def test_s53_slow_starts_run_side_by_side() -> None:
    simulation = Simulation(DynamicSupervisor("pool"), lambda launch: Behaviour(start_takes=10.0))
    simulation.run(0.0)

    answers = [ask(simulation, simulation.root, "start_child", Child(work)) for _ in range(100)]
    simulation.run(9.9)
    assert not any(answer.done() for answer in answers)
    simulation.run(10.0)

    assert [answer.get().path for answer in answers] == [f"pool/work-{number}" for number in range(1, 101)]


def test_s44_all_children_are_stopped_at_once_and_the_late_ones_are_killed_together() -> None:
    slow = Behaviour(stop_takes=2.0)
    deaf = Behaviour(stop_takes=None)
    simulation = Simulation(DynamicSupervisor("pool"), lambda launch: deaf if "deaf" in launch.path else slow)
    simulation.run(0.0)
    for number in range(50):
        ask(simulation, simulation.root, "start_child", Child(work, shutdown=3.0))
        ask(simulation, simulation.root, "start_child", Child(work, id=f"deaf-{number}", shutdown=3.0))

    simulation.stop()
    simulation.run(2.9)
    assert Counter(path[:9] for path in alive(simulation)) == {"pool/deaf": 50}
    simulation.run(3.0)

    assert simulation.reason == Shutdown("stop")
    assert len(simulation.registry) == 0


@pytest.mark.parametrize("strategy", ["one_for_all", "rest_for_one"])
def test_s40_a_restarted_dynamic_supervisor_is_empty_and_continues_its_numbers(strategy: Any) -> None:
    def behaviour(launch: Launch) -> Behaviour:
        dies = launch.path == "app/first" and launch.number == 1
        return Behaviour(lives=5.0 if dies else None, reason=Signaled(9))

    tree = Supervisor("app", Child(work, id="first"), DynamicSupervisor("pool"), strategy=strategy)
    simulation = Simulation(tree, behaviour)
    simulation.run(0.0)
    for _ in range(3):
        ask(simulation, pool_of(simulation), "start_child", Child(work))
    before = pool_of(simulation)

    simulation.run(6.0)

    assert pool_of(simulation) is not before
    assert alive(simulation) == ["app/first"]
    assert "app/pool/work-1" not in simulation.registry
    ref = ask(simulation, pool_of(simulation), "start_child", Child(work)).get()
    assert ref.path == "app/pool/work-4"


def test_s40_a_restart_brings_back_the_declared_supervisor_in_the_place_of_one_of_another_kind() -> None:
    declared = Supervisor("middle", DynamicSupervisor("pool"))
    simulation = Simulation(Supervisor("top", declared), lambda launch: Behaviour())
    simulation.run(0.0)
    middle = simulation.root.child("middle")
    assert middle is not None
    pool = middle.child("pool")
    assert pool is not None
    assert ask(simulation, pool, "start_child", Child(work)).get().path == "top/middle/pool/work-1"
    for what, argument in (
        ("terminate", "pool"),
        ("delete", "pool"),
        ("start_child", Child(Supervisor("pool", Child(work)), id="pool")),
    ):
        ask(simulation, middle, what, argument).get()

    assert ask(simulation, simulation.root, "recall", "middle", 1.0).get()

    middle = simulation.root.child("middle")
    assert middle is not None
    pool = middle.child("pool")
    assert pool is not None
    assert alive(simulation) == []  # a dynamic supervisor begins empty
    assert ask(simulation, pool, "start_child", Child(work)).get().path == "top/middle/pool/work-1"
    simulation.stop()


def test_s30_a_dynamic_supervisor_that_gives_up_is_restarted_empty_by_its_parent() -> None:
    simulation = Simulation(
        Supervisor("app", DynamicSupervisor("pool", max_restarts=1)),
        lambda launch: Behaviour(lives=1.0 if "bad" in launch.path else None),
    )
    simulation.run(0.0)
    ask(simulation, pool_of(simulation), "start_child", Child(work, id="good"))
    ask(simulation, pool_of(simulation), "start_child", Child(work, id="bad"))

    simulation.run(10.0)

    assert alive(simulation) == []
    assert simulation.root.status_of("pool") == "running"
    assert pool_of(simulation).which_children() == []
    kinds = [event.kind for event in simulation.events]
    assert kinds.count("supervisor_gave_up") == 1


def test_s53_a_terminated_supervisor_is_removed_with_all_its_descendants() -> None:
    simulation = Simulation(DynamicSupervisor("pool"))
    simulation.run(0.0)
    shop = Supervisor("shop", Child(work, id="till"), DynamicSupervisor("customers"))
    ask(simulation, simulation.root, "start_child", Child(shop))
    below = simulation.root.child("shop")
    assert below is not None
    customers = below.child("customers")
    assert customers is not None
    ask(simulation, customers, "start_child", Child(work))
    assert alive(simulation) == ["pool/shop/till", "pool/shop/customers/work-1"]

    ask(simulation, simulation.root, "terminate", "shop")

    assert alive(simulation) == []
    assert simulation.registry.paths() == ["pool"]


@pytest.mark.parametrize("seed", range(30))
def test_a_storm_of_crashes_and_requests_breaks_no_rule(seed: int) -> None:
    dice = random.Random(seed)

    def behaviour(launch: Launch) -> Behaviour:
        others = [handle for handle in simulation.alive() if handle.launch.path == launch.path]
        assert not others, f"a second incarnation of {launch.path}"
        return Behaviour(
            start=dice.choices(["ok", "fails", "ignores"], [20, 1, 1])[0],  # type: ignore[arg-type]
            start_takes=dice.choice([0.0, 0.0, 0.1, 3.0]),
            lives=dice.choice([None, None, 0.0, 0.5, 5.0, 50.0]),
            reason=dice.choice([Signaled(9), Shutdown()]),
            stop_takes=dice.choice([0.0, 0.1, 4.0, None]),
        )

    most = 12
    pool = DynamicSupervisor("pool", most, max_restarts=dice.choice([1, 5, 20, math.inf]), max_seconds=2.0)
    simulation = Simulation(Supervisor("app", pool, max_restarts=math.inf), behaviour)
    simulation.run(0.0)
    answers = []
    for _ in range(400):
        executor = simulation.root.child("pool")
        if executor is not None:
            ids = [info.id for info in executor.policy.which_children()] or ["nobody"]
            what = dice.choices(["start_child", "terminate", "recall", "restart"], [6, 1, 1, 1])[0]
            restart: Any = dice.choice(["permanent", "transient", "temporary"])
            child = Child(
                work,
                id=dice.choice([None, "a", "b", "work-7"]),
                restart=restart,
                shutdown=dice.choice([1.0, 2.0, "brutal_kill"]),
                backoff=None if restart == "temporary" else dice.choice([None, Backoff(0.5)]),
            )
            answers.append(executor.administer(what, child if what == "start_child" else dice.choice(ids)))
        simulation.run(simulation.clock.now + dice.choice([0.0, 0.0, 0.1, 1.0]))
        assert len(simulation.alive()) <= most

    simulation.stop()
    simulation.run(simulation.clock.now + 100.0)

    assert simulation.reason == Shutdown("stop")
    assert alive(simulation) == []
    assert len(simulation.registry) == 0
    assert all(answer.done() for answer in answers)
    refusals = Counter(type(answer.exception()) for answer in answers)
    assert all(issubclass(kind, SuitkaiseError) for kind in refusals if kind is not type(None))
    assert refusals[type(None)] > 20


ACTS: dict[str, Callable[[Simulation], object]] = {
    "start": lambda simulation: ask(simulation, simulation.root, "start_child", Child(work)),
    "find": lambda simulation: simulation.registry.request(RequestKind.FIND, "pool/w5").get(),
    "lose and restart": lambda simulation: lose(simulation, "pool/w5"),
    "lose for good": lambda simulation: lose(simulation, "pool/temporary"),
    "terminate": lambda simulation: ask(simulation, simulation.root, "terminate", "w5"),
    "recall": lambda simulation: ask(simulation, simulation.root, "recall", "w5"),
    "one too many": lambda simulation: refused(simulation),
}


def lose(simulation: Simulation, path: str) -> None:
    handle = next(handle for handle in simulation.engine.launched if handle.launch.incarnation.path == path)
    handle.kill("the test")
    simulation.run(simulation.clock.now)
    assert handle.exited.result().reason == Killed("the test")


def refused(simulation: Simulation) -> None:
    answer = ask(simulation, simulation.root, "start_child", Child(work, significant=True, restart="transient"))
    assert answer.exception() is not None


@pytest.mark.parametrize("act", ACTS)
def test_s54_each_operation_takes_the_same_steps_among_few_and_among_many_children(act: str) -> None:
    """Half of the children wait for their backoff."""
    costs = []
    for number in (20, 20, 400):  # the first time makes what is made once in a process
        simulation = Simulation(
            DynamicSupervisor("pool", max_restarts=math.inf),
            lambda launch: Behaviour(lives=1.0 if "ill" in launch.path else None),
        )
        simulation.run(0.0)
        for id in (*(f"w{one}" for one in range(number)), "temporary"):
            restart: Any = "temporary" if id == "temporary" else "permanent"
            ask(simulation, simulation.root, "start_child", Child(work, id=id, restart=restart))
        for one in range(number):
            ask(simulation, simulation.root, "start_child", Child(work, id=f"ill{one}", backoff=Backoff(1000.0, 1)))
        simulation.run(2.0)
        assert simulation.root.policy.count_children().active == number + 1
        costs.append(calls_during(functools.partial(ACTS[act], simulation)))

    assert costs[2] == costs[1]


def test_s53_a_refused_child_leaves_nothing_behind() -> None:
    simulation = Simulation(DynamicSupervisor("pool", 1))
    simulation.run(0.0)
    forgotten: list[str] = []
    simulation.engine.forget = forgotten.append  # type: ignore[method-assign]
    ask(simulation, simulation.root, "start_child", Child(work))

    refusal = ask(simulation, simulation.root, "start_child", Child(work))

    with pytest.raises(MaxChildren):
        refusal.get()
    assert set(forgotten) == {"pool/work-2"}
    assert simulation.registry.paths() == ["pool", "pool/work-1"]
