"""Rule 58: a crash report tells what the supervisor has decided about the end of that child."""

from __future__ import annotations

from typing import Any

import pytest

from suitkaise import Child, DynamicSupervisor, Supervisor
from suitkaise.engines.engine import Launch
from suitkaise.exits import Killed, Shutdown
from suitkaise.testing import Behaviour, Simulation


def work() -> None: ...


def verdicts(simulation: Simulation) -> list[tuple[str, str]]:
    return [(report.path, report.verdict) for report in simulation.crashes]


@pytest.mark.parametrize("strategy", ["one_for_one", "one_for_all", "rest_for_one"])
def test_s58_a_temporary_child_that_crashes_while_its_supervisor_starts_stays_down(strategy: Any) -> None:
    tree = Supervisor("app", Child(work, id="short", restart="temporary"), Child(work, id="slow"), strategy=strategy)
    simulation = Simulation(
        tree, lambda launch: Behaviour(start_takes=2.0) if launch.path == "app/slow" else Behaviour(lives=1.0)
    )
    simulation.run(until=1.5)

    assert verdicts(simulation) == [("app/short", "stays down")]
    assert simulation.root.status_of("short") == "killed"


def test_s58_a_child_that_is_started_again_after_an_earlier_one_of_its_group_restarts() -> None:
    tree = Supervisor("app", Child(work, id="a", restart="transient"), Child(work, id="b"), strategy="one_for_all")

    def behaviour(launch: Launch) -> Behaviour:
        if launch.path == "app/a":
            return Behaviour(lives=0.5, reason=Shutdown(), start_takes=0.25)
        return Behaviour(lives=1.0 if launch.number == 1 else None)

    simulation = Simulation(tree, behaviour)
    simulation.run(until=3.0)

    (report,) = simulation.crashes
    assert (report.path, report.verdict, report.used, report.together) == ("app/b", "restarts", 1, ("a",))


@pytest.mark.parametrize("kind", [Supervisor, DynamicSupervisor])
def test_s58_s78_a_child_with_a_limit_of_its_own_is_given_up(kind: Any) -> None:
    poison = Child(work, id="poison", max_restarts=1, max_seconds=2.0)
    simulation = Simulation(
        Supervisor("app", poison, max_restarts=0) if kind is Supervisor else DynamicSupervisor("app", max_restarts=0),
        lambda launch: Behaviour(lives=1.0),
    )
    simulation.run(until=0.0)
    if kind is DynamicSupervisor:
        simulation.root.administer("start_child", poison)  # type: ignore[arg-type]

    simulation.run(until=3.0)

    told = [(one.verdict, one.used, one.allowed, one.seconds) for one in simulation.crashes]
    assert told == [("restarts", 1, 1, 2.0), ("is given up", 2, 1, 2.0)]
    assert simulation.root.status_of("poison") == "failed"


def test_s58_the_report_of_a_child_that_was_stopped_tells_nothing_of_another_one() -> None:
    """`a` is stopped on request; only then the supervisor decides about the crash of `b`, and gives up."""
    tree = Supervisor("app", Child(work, id="a"), Child(work, id="b"), strategy="one_for_all", max_restarts=0)
    simulation = Simulation(
        tree,
        lambda launch: (
            Behaviour(stop_takes=1.0, stop_reason=Killed("x")) if launch.path == "app/a" else Behaviour(lives=1.0)
        ),
    )
    simulation.run(until=0.5)
    simulation.root.administer("terminate", "a")  # type: ignore[arg-type]

    simulation.run(until=3.0)

    assert verdicts(simulation) == [("app/b", "restarts"), ("app/a", "is being stopped")]
    assert str(simulation.reason).startswith("shutdown (gave up: 'app/b'")
