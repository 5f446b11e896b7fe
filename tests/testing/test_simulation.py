"""Whole trees on a virtual clock: a few schedules in detail. `test_schedules` plays random ones."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest

from suitkaise import Supervisor
from suitkaise.engines.engine import Launch
from suitkaise.engines.simulated import SimulatedHandle
from suitkaise.exits import Crashed, Killed, Shutdown, Signaled
from suitkaise.messaging.protocol import AdminAction
from suitkaise.specs import Child
from suitkaise.testing import Behaviour, Simulation


def work() -> None:
    """Never called: the simulated engine runs scripts."""


def test_children_start_in_order_and_stop_in_reverse() -> None:
    tree = Supervisor("app", *(Child(work, id=name) for name in "abc"))
    simulation = Simulation(tree, lambda launch: Behaviour(start_takes=1.0, stop_takes=1.0))
    simulation.run(until=10.0)
    simulation.stop()
    simulation.run(until=20.0)
    observed = [(event.kind, event.path[-1], event.at) for event in simulation.events if event.path != "app"]
    assert observed == [
        ("child_started", "a", 1.0), ("child_started", "b", 2.0), ("child_started", "c", 3.0),
        ("child_stopped", "c", 11.0), ("child_stopped", "b", 12.0), ("child_stopped", "a", 13.0),
    ]  # fmt: skip


def test_a_worker_that_ignores_a_stop_request_is_killed_after_its_shutdown_time() -> None:
    def stubborn(launch: Launch) -> Behaviour:
        return Behaviour(stop_takes=None)

    simulation = Simulation(Supervisor("app", Child(work, shutdown=2.0)), stubborn)
    simulation.run(until=1.0)
    simulation.stop()
    simulation.run(until=60.0)
    (event,) = (event for event in simulation.events if event.kind == "child_stop_error")
    assert event.at == 3.0
    assert event.reason == Killed("shutdown timeout")  # type: ignore[attr-defined]


def test_a_supervisor_that_gives_up_is_restarted_by_its_parent() -> None:
    def crash_early(launch: Launch) -> Behaviour:
        return Behaviour(lives=0.1 if launch.path.endswith("weak") else None, reason=Signaled(11))

    tree = Supervisor("app", Supervisor("inner", Child(work, id="weak"), max_restarts=1), max_restarts=2)
    simulation = Simulation(tree, crash_early)
    simulation.run(until=100.0)
    kinds = [event.kind for event in simulation.events]
    assert kinds.count("supervisor_gave_up") == 4  # inner three times, then the root
    assert str(simulation.reason).startswith("shutdown (gave up: 'app/inner'")


def test_s40_nothing_is_kept_of_a_child_that_replaced_a_declared_one() -> None:
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


def test_an_invalid_behaviour_is_refused_when_it_is_made() -> None:
    with pytest.raises(ValueError, match="start must be 'ok', 'fails' or 'ignores', not 'fail'"):
        Behaviour(start="fail")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="hangs_in must be 'loop', 'between_loops' or 'mailbox', not 'mail'"):
        Behaviour(hangs_in="mail")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["start_takes", "lives", "stop_takes", "hangs"])
@pytest.mark.parametrize("wrong", [-1.0, "1", float("nan"), True])
def test_a_time_of_a_behaviour_that_is_none_is_refused_when_it_is_made(name: str, wrong: Any) -> None:
    with pytest.raises(ValueError, match=f"Behaviour: {name} must be seconds >= 0, or None, not {wrong!r}"):
        Behaviour(**{name: wrong})


@pytest.mark.parametrize("name", ["reason", "stop_reason"])
@pytest.mark.parametrize("wrong", [ValueError("no"), Crashed, "crashed", None])
def test_a_reason_of_a_behaviour_that_is_none_is_refused_when_it_is_made(name: str, wrong: Any) -> None:
    says = f"Behaviour: {name} must be an exit reason, as Killed('script') or ExitCode(3), not {wrong!r}"
    with pytest.raises(ValueError, match=re.escape(says)):
        Behaviour(**{name: wrong})


@pytest.mark.parametrize("wrong", [lambda: 1, "app", Crashed])
def test_what_is_no_supervisor_is_not_simulated(wrong: Any) -> None:
    with pytest.raises(TypeError, match="Simulation takes a Supervisor, not "):
        Simulation(wrong)


def test_a_behaviour_for_all_launches_is_refused_with_what_to_write_instead() -> None:
    with pytest.raises(TypeError, match="behaviour must be a function of the launch, as lambda launch: Behaviour"):
        Simulation(Supervisor("app"), Behaviour())  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [None, 5, Behaviour])
def test_a_function_that_returns_no_behaviour_is_told(wrong: Any) -> None:
    simulation = Simulation(Supervisor("app", Child(work)), lambda launch: wrong)
    simulation.run(until=1.0)
    says = f"Simulation: behaviour must return a Behaviour(...), not {wrong!r}"
    assert says in str(simulation.reason)


@pytest.mark.parametrize("wrong", [math.nan, "10", None, True])
def test_a_time_that_is_no_number_is_refused_before_anything_happens(wrong: Any) -> None:
    simulation = Simulation(Supervisor("app", Child(work)))
    with pytest.raises(TypeError, match=f"run: until must be seconds, not {wrong!r}"):
        simulation.run(wrong)
    assert simulation.events == []
    with pytest.raises(TypeError, match="run: most must be a number of events, not '10'"):
        simulation.run(until=1.0, most="10")  # type: ignore[arg-type]
    assert simulation.events == []


@pytest.mark.parametrize("wrong", ["why", 5, Shutdown])
def test_a_simulation_stops_for_an_exit_reason_and_nothing_else(wrong: Any) -> None:
    simulation = Simulation(Supervisor("app", Child(work)))
    simulation.run(until=1.0)
    with pytest.raises(TypeError, match=r"stop: reason must be an exit reason, as Shutdown\('why'\), or None, not "):
        simulation.stop(wrong)
    simulation.stop(Shutdown("why"))
    simulation.run(until=2.0)
    assert simulation.reason == Shutdown("why")


def test_s79_each_order_to_kill_a_child_counts() -> None:
    """All three wait for the start of `slow`: between the two orders, the child is started again."""

    def behaviour(launch: Launch) -> Behaviour:
        return Behaviour(start_takes=1.0 if launch.path == "app/slow" else 0.0, stop_takes=None)

    simulation = Simulation(Supervisor("app", Child(work, id="a", shutdown=5.0)), behaviour)
    simulation.run(until=0.0)
    simulation.root.administer(AdminAction.START_CHILD, Child(work, id="slow"))
    for action in (AdminAction.KILL_CHILD, AdminAction.RESTART_CHILD, AdminAction.KILL_CHILD):
        simulation.root.administer(action, "a")

    simulation.run(until=2.0)

    assert [handle.ended_at for handle in simulation.engine.launched if handle.launch.path == "app/a"] == [1.0, 1.0]


def test_s79_an_order_to_kill_a_child_ends_a_stop_that_takes_long() -> None:
    simulation = Simulation(Supervisor("app", Child(work, id="a", shutdown=5.0)), lambda _: Behaviour(stop_takes=None))
    simulation.run(until=0.0)
    simulation.root.administer(AdminAction.TERMINATE_CHILD, "a")
    simulation.run(until=1.0)
    simulation.root.administer(AdminAction.KILL_CHILD, "a")

    simulation.run(until=2.0)

    assert [handle.ended_at for handle in simulation.engine.launched] == [1.0]
    assert [event.kind for event in simulation.events][-1] == "child_stopped"


def test_s79_an_order_to_kill_a_child_that_is_carried_out_says_nothing_about_the_next_stop() -> None:
    simulation = Simulation(Supervisor("app", Child(work, id="a", shutdown=5.0)), lambda _: Behaviour(stop_takes=1.0))
    simulation.run(until=0.0)
    for action in (AdminAction.KILL_CHILD, AdminAction.RESTART_CHILD, AdminAction.TERMINATE_CHILD):
        simulation.root.administer(action, "a")

    simulation.run(until=2.0)

    assert [handle.ended_at for handle in simulation.engine.launched] == [0.0, 1.0]


def test_s72_each_order_to_stop_a_child_has_its_own_drain(monkeypatch: pytest.MonkeyPatch) -> None:
    drains: list[float | None] = []
    stop = SimulatedHandle.stop

    def noted(self: SimulatedHandle, drain: float | None = None) -> None:
        drains.append(drain)
        stop(self, drain)

    monkeypatch.setattr(SimulatedHandle, "stop", noted)
    simulation = Simulation(Supervisor("app", Child(work, id="a")), lambda _: Behaviour(stop_takes=1.0))
    simulation.run(until=0.0)
    for drain in (3.0, 2.0, None):
        simulation.root.administer(AdminAction.TERMINATE_CHILD, ("a", drain))
        simulation.root.administer(AdminAction.RESTART_CHILD, "a")

    simulation.run(until=9.0)

    assert drains == [3.0, 2.0, None]
