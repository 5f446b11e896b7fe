"""Trees of many workers on the simulated engine: single deaths, the loss of a node with all of its workers, a stop."""

from __future__ import annotations

from collections import Counter

import pytest

from suitkaise import Supervisor
from suitkaise.engines.engine import Launch
from suitkaise.exits import Lost, Signaled
from suitkaise.specs import Child
from suitkaise.testing import Behaviour, Simulation


def work() -> None:
    """Never called: the simulated engine runs scripts."""


def play(teams: int, members: int) -> None:
    """Run one team on each node: at 5 s one worker of each team dies, at 10 s the node of team 7 is lost."""

    def behaviour(launch: Launch) -> Behaviour:
        if launch.number == 1 and launch.path.endswith("/work-3"):
            return Behaviour(lives=5.0, reason=Signaled(9))
        if launch.number <= 2 and launch.path.startswith("app/team-7/"):
            left = 10.0 if launch.number == 1 else 5.0 if launch.path.endswith("/work-3") else None
            return Behaviour(lives=left, reason=Lost("node-7: it was not heard", "node-7"))
        return Behaviour()

    teams_of_copies = (Supervisor(f"team-{number}", Child(work, copies=members)) for number in range(teams))
    simulation = Simulation(Supervisor("app", *teams_of_copies), behaviour)
    most = 20 * teams * members
    simulation.run(until=4.0, most=most)
    assert len(simulation.alive()) == teams * members
    simulation.run(until=9.0, most=most)
    assert len(simulation.alive()) == teams * members
    assert Counter(report.reason_kind for report in simulation.crashes) == {"Signaled": teams}
    simulation.run(until=14.0, most=most)
    assert len(simulation.alive()) == teams * members
    assert Counter(report.reason_kind for report in simulation.crashes) == {"Signaled": teams, "Lost": members}
    lost = [event for event in simulation.events if event.kind == "child_exited" and event.at == 10.0]
    assert {event.path.rpartition("/")[0] for event in lost} == {"app/team-7"}
    assert "supervisor_gave_up" not in {event.kind for event in simulation.events}
    simulation.stop()
    simulation.run(until=99.0, most=most)
    assert not simulation.alive()
    assert str(simulation.reason) == "shutdown (stop)"
    assert simulation.registry.paths() == []


def test_a_tree_of_a_thousand_workers_loses_a_node_and_stops() -> None:
    play(50, 20)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_tree_of_a_hundred_thousand_workers_loses_a_node_and_stops() -> None:
    play(1_000, 100)


def test_a_simulation_that_does_not_come_to_rest_is_refused() -> None:
    tree = Supervisor("app", Child(work), max_restarts=float("inf"))
    simulation = Simulation(tree, lambda launch: Behaviour(lives=0.0))
    with pytest.raises(RuntimeError, match="not at rest after 100 events"):
        simulation.run(until=1.0, most=100)
