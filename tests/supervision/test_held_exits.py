"""Rule 69: the verdict on an exit by SIGTERM waits until it is known whether the program was asked to stop."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from suitkaise import Child, DynamicSupervisor, Supervisor
from suitkaise.engines.engine import Launch
from suitkaise.exits import Crashed, ExitCode, ExitReason, Killed, Shutdown, Signaled
from suitkaise.supervision.held_exits import PAUSE
from suitkaise.testing import Behaviour, Simulation

SIGTERM = Signaled(15)


def work() -> None: ...


def scripts(by_path: Mapping[str, Behaviour]) -> Callable[[Launch], Behaviour]:
    """Return what runs these scripts in the first incarnations, and workers that do nothing else."""
    return lambda launch: by_path.get(launch.path, Behaviour()) if launch.number == 1 else Behaviour()


def ends(at: float = 1.0, reason: ExitReason = SIGTERM) -> Behaviour:
    return Behaviour(lives=at, reason=reason)


def told(simulation: Simulation, *kinds: str) -> list[tuple[str, str, float]]:
    events = [event for event in simulation.events if event.kind.startswith("child") and event.at > 0]
    return [(event.kind, event.path, round(event.at, 3)) for event in events if not kinds or event.kind in kinds]


@pytest.mark.parametrize("reason", [SIGTERM, ExitCode(143)], ids=str)
def test_s69_a_single_worker_ended_by_sigterm_is_restarted_after_a_moment(reason: ExitReason) -> None:
    simulation = Simulation(Supervisor("app", Child(work)), scripts({"app/work": ends(reason=reason)}))

    simulation.run(until=5.0)

    assert told(simulation) == [
        ("child_exited", "app/work", 1.0 + PAUSE),
        ("child_restarting", "app/work", 1.0 + PAUSE),
        ("child_started", "app/work", 1.0 + PAUSE),
    ]
    assert [(crash.path, crash.reason) for crash in simulation.crashes] == [("app/work", str(reason))]


@pytest.mark.parametrize(
    "reason",
    [Signaled(9), Signaled(2), ExitCode(15), Crashed("loop", ValueError()), Killed("why"), Shutdown()],
    ids=str,
)
def test_s69_all_other_exits_are_decided_at_once(reason: ExitReason) -> None:
    simulation = Simulation(Supervisor("app", Child(work)), scripts({"app/work": ends(reason=reason)}))

    simulation.run(until=5.0)

    assert [at for _, _, at in told(simulation)] == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("stop_at", [0.999, 1.0, 1.0 + PAUSE / 2])
def test_s69_where_the_program_is_asked_to_stop_an_exit_by_sigterm_is_its_answer(stop_at: float) -> None:
    tree = Supervisor("app", Child(work, copies=16))
    simulation = Simulation(tree, lambda launch: ends(1.0 + 0.0001 * launch.child.copy))

    simulation.run(until=stop_at)
    simulation.stop(Shutdown("signal 15"))
    simulation.run(until=5.0)

    assert [kind for kind, _, _ in told(simulation)] == ["child_stopped"] * 16
    assert len(simulation.engine.launched) == 16
    assert simulation.crashes == []
    assert simulation.reason == Shutdown("signal 15")


def test_s69_an_exit_waits_while_a_supervisor_above_stops_others_first() -> None:
    inner = Supervisor("inner", Supervisor("deep", Child(work)))
    slow = Child(work, id="slow", shutdown="infinity")
    simulation = Simulation(
        Supervisor("app", inner, slow),
        scripts({"app/inner/deep/work": ends(), "app/slow": Behaviour(stop_takes=60.0)}),
    )

    simulation.run(until=1.05)
    simulation.stop()
    simulation.run(until=100.0)

    assert told(simulation) == [
        ("child_stopped", "app/slow", 61.05),
        ("child_stopped", "app/inner/deep/work", 61.05),
        ("child_stopped", "app/inner/deep", 61.05),
        ("child_stopped", "app/inner", 61.05),
    ]
    assert simulation.crashes == []


def test_s69_a_worker_that_ends_by_sigterm_before_its_turn_to_be_stopped_is_told_as_stopped() -> None:
    simulation = Simulation(
        Supervisor("app", Child(work, id="first"), Child(work, id="last")),
        scripts({"app/first": ends(2.0), "app/last": Behaviour(stop_takes=3.0)}),
    )

    simulation.run(until=1.0)
    simulation.stop()
    simulation.run(until=100.0)

    assert told(simulation) == [("child_stopped", "app/last", 4.0), ("child_stopped", "app/first", 4.0)]


def test_s69_an_exit_with_another_reason_while_the_program_stops_is_told_as_what_it_is() -> None:
    simulation = Simulation(
        Supervisor("app", Child(work, id="first"), Child(work, id="last")),
        scripts({"app/first": ends(2.0, Signaled(11)), "app/last": Behaviour(stop_takes=3.0)}),
    )

    simulation.run(until=1.0)
    simulation.stop()
    simulation.run(until=100.0)

    assert told(simulation) == [("child_exited", "app/first", 2.0), ("child_stopped", "app/last", 4.0)]


def test_s69_a_request_about_a_child_whose_exit_waits_is_served_at_once() -> None:
    simulation = Simulation(Supervisor("app", Child(work)), scripts({"app/work": ends()}))

    simulation.run(until=1.05)
    answer = simulation.root.administer("terminate", "work")  # type: ignore[arg-type]
    simulation.run(until=1.06)

    assert answer.done()
    assert told(simulation) == [("child_stopped", "app/work", 1.05)]
    simulation.run(until=5.0)
    assert len(told(simulation)) == 1


def test_s69_a_start_that_sigterm_ends_has_not_failed_where_the_program_is_asked_to_stop() -> None:
    dies = Behaviour(start="fails", start_takes=1.0, reason=SIGTERM)
    simulation = Simulation(Supervisor("app", Child(work)), scripts({"app/work": dies}))

    simulation.run(until=1.05)
    simulation.stop()
    simulation.run(until=5.0)

    assert told(simulation) == [("child_stopped", "app/work", 1.05)]
    assert simulation.crashes == []


def test_s69_a_start_that_sigterm_ends_has_failed_a_moment_later() -> None:
    dies = Behaviour(start="fails", start_takes=1.0, reason=SIGTERM)
    simulation = Simulation(Supervisor("app", Child(work)), scripts({"app/work": dies}))

    simulation.run(until=5.0)

    assert told(simulation) == [("child_start_failure", "app/work", 1.0 + PAUSE)]


def test_s69_a_supervisor_that_is_killed_waits_for_no_verdict() -> None:
    simulation = Simulation(Supervisor("app", Child(work)), scripts({"app/work": ends()}))

    simulation.run(until=1.05)
    simulation.root.kill("a second signal")
    simulation.run(until=1.06)

    assert simulation.reason == Killed("a second signal")


def test_s69_the_children_of_a_dynamic_supervisor_are_waited_for_too() -> None:
    pool = DynamicSupervisor("pool")
    simulation = Simulation(Supervisor("app", pool), lambda launch: ends(1.0))
    simulation.run(until=0.5)
    below = simulation.root.child("pool")
    assert below is not None
    for _ in range(3):
        below.administer("start_child", Child(work))  # type: ignore[arg-type]

    simulation.run(until=1.55)
    simulation.stop()
    simulation.run(until=5.0)

    assert [kind for kind, _, _ in told(simulation, "child_exited", "child_stopped")] == ["child_stopped"] * 4
    assert simulation.crashes == []
