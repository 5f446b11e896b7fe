"""What can be asked of a supervisor, from any thread: what is known is answered at once, the rest becomes a step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self, assert_never

from suitkaise.engines.engine import Handle
from suitkaise.errors import SuitkaiseError
from suitkaise.exits import Shutdown
from suitkaise.messaging.messages import Answer, Message
from suitkaise.messaging.protocol import AdminAction, ControlKind, RequestKind
from suitkaise.messaging.supervisor_ref import ChildLine, ref_to
from suitkaise.policy.actions import (
    DeleteChild,
    Input,
    KillAll,
    Recall,
    RestartChild,
    StartChild,
    StopAll,
    TerminateChild,
)
from suitkaise.policy.base import BasePolicy, SupervisorPhase
from suitkaise.policy.children import ChildInfo
from suitkaise.specs import Child
from suitkaise.status import Status
from suitkaise.supervision.environment import Environment, prepare, unprepare

__all__ = ["RootParent", "SupervisorInterface"]

_OF_PHASE = {
    SupervisorPhase.NEW: Status.CREATED,
    SupervisorPhase.STARTING: Status.STARTING,
    SupervisorPhase.RUNNING: Status.RUNNING,
    SupervisorPhase.STOPPING: Status.STOPPING,
    SupervisorPhase.ENDED: Status.STOPPED,
}


class SupervisorInterface:
    """The part of an executor that others see; the rest of it fills in what it knows."""

    def __init__(self, policy: BasePolicy, path: str, env: Environment) -> None:
        self.path: str = path
        self.policy: BasePolicy = policy
        self.tell: Callable[[Input], None]
        self._env = env
        self._handles: dict[str, Handle] = {}
        self._suspended: set[str] = set()

    # ------------------------------------------------------------ as its own supervisor sees it
    def deliver(self, message: Message, *, accepted: bool = False) -> None:
        """Supervisors take no messages; their addresses say so before it comes to this."""
        raise SuitkaiseError(f"{self.path!r} is a supervisor; it takes no messages", path=self.path)

    def suspend(self, on: bool) -> None:
        """Let all workers below rest, or go on."""
        for id in list(self._handles):
            self._suspend(id, on)

    def stop(self) -> None:
        """Stop the children in order, then end."""
        self.tell(StopAll(Shutdown()))

    def kill(self, why: str) -> None:
        """Kill everything below, then end."""
        self.tell(KillAll(why))

    # ------------------------------------------------------------ as refs and administrators see it
    @property
    def status(self) -> Status:
        """What the supervisor itself does, at once."""
        return _OF_PHASE[self.policy.phase]

    def status_of(self, id: str) -> Status:
        """The status of a child, at once. Raises ChildNotFound."""
        info = self.policy.child_info(id)
        if info is None:
            raise self.policy.not_found(id)
        return self._status(info)

    def _status(self, info: ChildInfo) -> Status:
        if info.status is Status.ABANDONED and not self._left(info.id):
            return info.at_rest
        below = self.child(info.id)
        if info.status is Status.RUNNING and below is not None:
            return (
                info.status if below.policy.phase is SupervisorPhase.RUNNING else Status.STOPPING
            )  # by itself: it gave up, say
        return Status.SUSPENDED if info.status is Status.RUNNING and info.id in self._suspended else info.status

    def which_children(self) -> list[ChildLine]:
        """The children in start order (rule 20)."""
        return [
            ChildLine(
                info.id, info.kind, self._status(info), ref_to(f"{self.path}/{info.id}", info.kind), info.restarts,
                info.last_exit, self._left(info.id),
            )
            for info in self.policy.which_children()
        ]  # fmt: skip

    def _left(self, id: str) -> int:
        """How many threads of a child were cut off and still run (rule 59)."""
        path = f"{self.path}/{id}"
        return sum(engine.abandoned().count(path) for engine in self._env.engines.values())

    def administer(self, action: AdminAction, argument: Any) -> Answer[Any]:
        """Carry out what `Administration` asks for."""
        answer: Answer[Any] = Answer()
        try:
            match action:
                case AdminAction.START_CHILD:
                    self._start_child(answer, self.policy.named(argument))
                case AdminAction.TERMINATE_CHILD:
                    self.tell(TerminateChild(answer, argument))
                case AdminAction.RESTART_CHILD:
                    self.tell(RestartChild(answer, argument))
                case AdminAction.DELETE_CHILD:
                    self.tell(DeleteChild(answer, argument))
                case AdminAction.RECALL_CHILD:
                    return self.control(RequestKind.RECALL, argument)
                case AdminAction.SUSPEND | AdminAction.RESUME:
                    self.policy.get_child_spec(argument)
                    self._suspend(argument, action == AdminAction.SUSPEND)
                    answer.set_result(None)
                case AdminAction.WHICH_CHILDREN:
                    answer.set_result(self.which_children())
                case AdminAction.COUNT_CHILDREN:
                    answer.set_result(self.policy.count_children())
                case AdminAction.GET_CHILD_SPEC:
                    answer.set_result(self.policy.get_child_spec(argument))
                case _:
                    assert_never(action)
        except Exception as error:
            answer.set_exception(error)
        return answer

    def _start_child(self, answer: Answer[Any], child: Child) -> None:
        if child.id not in self.policy:
            answer.add_done_callback(lambda done: self._unprepare(child) if done.exception() is not None else None)
            prepare(self._env.engines, f"{self.path}/{child.id}", child.what, child)
        self.tell(StartChild(answer, child))

    def _unprepare(self, child: Child) -> None:
        """It was not started, so what the engines have prepared is not needed."""
        if child.id not in self.policy:
            unprepare(self._env.engines, f"{self.path}/{child.id}", child.what)

    def _suspend(self, id: str, on: bool) -> None:
        handle = self._handles.get(id)
        if handle is None:
            return
        if on and not isinstance(handle, SupervisorInterface):
            self._suspended.add(id)
        else:
            self._suspended.discard(id)
        handle.suspend(on)

    def control(self, kind: ControlKind, id: str) -> Answer[Any]:
        """Carry out what a ref of a child asks for: an order, or a fault."""
        answer: Answer[Any] = Answer()
        match kind:
            case RequestKind.RECALL:
                self.tell(Recall(answer, id))
            case RequestKind.REJOIN:
                self.tell(TerminateChild(Answer[Any](), id))
                answer.set_result(None)
            case RequestKind.KILL:
                handle = self._handles.get(id)
                if handle is not None:
                    handle.kill("ref.kill()")
                answer.set_result(None)
            case _:
                assert_never(kind)
        return answer

    def child(self, id: str) -> Self | None:
        """The executor of a child that is a supervisor and alive."""
        handle = self._handles.get(id)
        return handle if isinstance(handle, type(self)) else None


class RootParent:
    """What keeps a root: it has no supervisor."""

    def __init__(self, root: SupervisorInterface) -> None:
        self._root = root

    def status_of(self, id: str) -> Status:
        return self._root.status

    def control(self, kind: ControlKind, id: str) -> Answer[Any]:
        answer: Answer[Any] = Answer()
        match kind:
            case RequestKind.REJOIN:
                self._root.stop()
                answer.set_result(None)
            case RequestKind.KILL:
                self._root.kill("ref.kill()")
                answer.set_result(None)
            case RequestKind.RECALL:
                answer.set_exception(SuitkaiseError(f"{id!r} is a root, so no supervisor could {kind} it", path=id))
            case _:
                assert_never(kind)
        return answer
