"""The work of a policy grows with the number of its children, not with its square: counted in lines that run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from suitkaise import DynamicSupervisor, Supervisor
from suitkaise.exits import Lost
from suitkaise.specs import Child
from suitkaise.testing import Behaviour, Simulation
from tests.support import lines_run


def work() -> None:
    """Never called: the simulated engine runs scripts."""


def grows_as_the_children(phase: Callable[[Simulation], object], make: Callable[[int], Simulation]) -> None:
    few, many = make(50), make(200)
    assert lines_run(lambda: phase(many)) < 6 * lines_run(lambda: phase(few))  # 16 times as much would be the square


def copies(count: int) -> Simulation:
    def behaviour(launch: Any) -> Behaviour:
        lost = Behaviour(lives=5.0, reason=Lost("a node: it was lost", "a node"))
        return lost if launch.number == 1 else Behaviour()

    return Simulation(Supervisor("app", Child(work, copies=count)), behaviour)


def separate(count: int) -> Simulation:
    return Simulation(Supervisor("app", *(Child(work, id=f"work-{number}") for number in range(count))))


def dynamic(count: int) -> Simulation:
    simulation = Simulation(DynamicSupervisor("app"))
    simulation.run(until=0.0)
    for _ in range(count):
        simulation.root.administer("start_child", Child(work))  # type: ignore[arg-type]
    return simulation


@pytest.mark.parametrize("make", [copies, separate, dynamic])
def test_the_work_of_a_start_grows_as_the_children(make: Callable[[int], Simulation]) -> None:
    grows_as_the_children(lambda simulation: simulation.run(until=1.0), make)


@pytest.mark.parametrize("make", [copies, separate, dynamic])
def test_the_work_of_a_stop_grows_as_the_children(make: Callable[[int], Simulation]) -> None:
    def started(count: int) -> Simulation:
        simulation = make(count)
        simulation.run(until=1.0)
        simulation.stop()
        return simulation

    grows_as_the_children(lambda simulation: simulation.run(until=9.0), started)


def test_the_work_of_a_loss_of_all_grows_as_the_children() -> None:
    def started(count: int) -> Simulation:
        simulation = copies(count)
        simulation.run(until=1.0)
        return simulation

    grows_as_the_children(lambda simulation: simulation.run(until=9.0), started)
