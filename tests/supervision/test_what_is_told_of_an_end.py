"""After a `Down` was delivered, all answers about the child agree with it, also if its supervisor is still busy."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from suitkaise import Child, DynamicSupervisor, Supervisor
from suitkaise.engines.engine import Launch
from suitkaise.exits import ExitReason, Normal, Signaled
from suitkaise.messaging.protocol import AdminAction
from suitkaise.messaging.refs import Down, WorkerRef
from suitkaise.messaging.router import set_router
from suitkaise.policy.actions import Input
from suitkaise.specs import SupervisorSpec
from suitkaise.supervision.environment import Stepper
from suitkaise.testing import Behaviour, Simulation

KILLED = Signaled(9)


def work() -> None: ...


class Busy(Simulation):
    """A simulation in which the supervisors at the paths in `busy` handle no event."""

    def __init__(self, tree: SupervisorSpec, behaviour: Callable[[Launch], Behaviour]) -> None:
        self.busy: set[str] = set()
        self.waiting: deque[tuple[str, Callable[[], None]]] = deque()
        super().__init__(tree, behaviour)

    def _start_actor(self, executor: Stepper) -> Callable[[Input], None]:
        path = executor.path

        def tell(event: Input) -> None:
            self.waiting.append((path, lambda: executor.step(event)))
            self.clock.soon(self.work)

        return tell

    def work(self) -> None:
        kept = [one for one in self.waiting if one[0] in self.busy]
        due = [step for path, step in self.waiting if path not in self.busy]
        self.waiting = deque(kept)
        for step in due:
            step()

    def go_on(self) -> None:
        self.busy.clear()
        self.clock.soon(self.work)
        self.run(until=self.clock.now)


@pytest.fixture
def trees() -> Iterator[Callable[[SupervisorSpec, ExitReason], Busy]]:
    """Start trees whose children end with a reason after a second, while their supervisor is busy."""

    def start(tree: SupervisorSpec, reason: ExitReason) -> Busy:
        simulation = Busy(tree, lambda launch: ends_with(launch, reason))
        set_router(simulation.registry)
        simulation.run(until=0.5)
        return simulation

    yield start
    set_router(None)


def ends_with(launch: Launch, reason: ExitReason) -> Behaviour:
    return Behaviour(lives=1.0, reason=reason) if launch.number == 1 else Behaviour()


def lines(simulation: Busy) -> dict[str, Any]:
    return {line.id: line for line in simulation.root.which_children()}


def active(simulation: Busy) -> int:
    return int(simulation.root.administer(AdminAction.COUNT_CHILDREN, None).get().active)


@pytest.mark.parametrize(
    "restart, reason, status",
    [
        ("permanent", KILLED, "restarting"),
        ("permanent", Normal(), "restarting"),
        ("transient", Normal(), "finished"),
        ("temporary", KILLED, "crashed"),
        ("temporary", Normal(), "finished"),
    ],
)
def test_a_child_whose_end_was_told_is_not_alive_for_anyone(
    trees: Callable[..., Busy], restart: Any, reason: ExitReason, status: str
) -> None:
    tree = trees(Supervisor("top", Child(work, id="a", restart=restart), max_restarts=9), reason)
    ref = WorkerRef("top/a")
    assert (ref.is_alive(), active(tree)) == (True, 1)
    down = ref.monitor()

    tree.busy.add("top")
    tree.run(until=2.0)

    assert down.get(0) == Down(ref, reason)
    assert (ref.is_alive(), ref.status, ref.pid) == (False, status, None)
    assert (lines(tree)["a"].status, lines(tree)["a"].last_exit, active(tree)) == (status, reason, 0)

    tree.go_on()
    assert ref.is_alive() is (status == "restarting")


def test_a_child_of_a_dynamic_supervisor_whose_end_was_told_is_not_alive(trees: Callable[..., Busy]) -> None:
    tree = trees(DynamicSupervisor("top"), KILLED)
    tree.root.administer(AdminAction.START_CHILD, Child(work, id="a", restart="temporary"))
    tree.run(until=0.75)
    ref = WorkerRef("top/a")
    down = ref.monitor()

    tree.busy.add("top")
    tree.run(until=2.0)

    assert down.done()
    assert (ref.is_alive(), ref.status, active(tree)) == (False, "crashed", 0)


def test_a_child_that_was_stopped_and_whose_end_was_told_is_stopped(trees: Callable[..., Busy]) -> None:
    tree = trees(Supervisor("top", Child(work, id="a")), KILLED)
    ref = WorkerRef("top/a")
    down = ref.monitor()
    ref.rejoin()
    tree.work()
    tree.busy.add("top")
    tree.run(until=0.75)

    assert down.done()
    assert (ref.is_alive(), ref.status, active(tree)) == (False, "stopped", 0)


def test_a_nested_supervisor_whose_end_was_told_is_not_alive(trees: Callable[..., Busy]) -> None:
    nested = Supervisor("nested", Child(work, id="a"), max_restarts=0)
    tree = trees(Supervisor("top", nested), KILLED)
    ref = WorkerRef("top/nested")
    assert ref.is_alive()
    down = ref.monitor()

    tree.busy.add("top")
    tree.run(until=2.0)

    assert down.done()
    assert (ref.is_alive(), ref.status, active(tree)) == (False, "restarting", 0)
    tree.go_on()
    assert (ref.is_alive(), active(tree)) == (True, 1)
