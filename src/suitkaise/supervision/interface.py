"""What can be asked of a supervisor, from any thread."""

from __future__ import annotations

import contextvars
import copy
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Literal, assert_never

from suitkaise.engines.engine import Exit, Handle
from suitkaise.errors import SuitkaiseError
from suitkaise.exits import KILL_CHILD, KILL_REF, ExitReason, Shutdown, StartFailure
from suitkaise.messaging.answer import Answer
from suitkaise.messaging.messages import Message
from suitkaise.messaging.protocol import AdminAction, ControlKind, RequestKind
from suitkaise.messaging.supervisor_ref import ChildLine, ref_to
from suitkaise.platform.condition import OwnFuture
from suitkaise.platform.flag import Flag
from suitkaise.policy.actions import (
    Begin,
    DeleteChild,
    Exited,
    Ignored,
    Input,
    KillAll,
    Ping,
    Recall,
    RestartChild,
    StartChild,
    StopAll,
    TerminateChild,
)
from suitkaise.policy.base import BasePolicy, SupervisorPhase
from suitkaise.policy.children import ChildInfo, start_error
from suitkaise.specs import Child, SupervisorSpec
from suitkaise.status import Status, status_after
from suitkaise.supervision.environment import Environment, prepare, unprepare
from suitkaise.supervision.pending_orders import PendingOrders

__all__ = ["RootParent", "SupervisorInterface"]

_STATUS_OF = {
    SupervisorPhase.NEW: Status.CREATED,
    SupervisorPhase.STARTING: Status.STARTING,
    SupervisorPhase.RUNNING: Status.RUNNING,
    SupervisorPhase.STOPPING: Status.STOPPING,
    SupervisorPhase.ENDED: Status.STOPPED,
}


class SupervisorInterface:
    """One supervisor as others see it; the methods may be called from any thread.

    Its parent uses it as a `Handle`, the addresses of its children as their `Parent`, refs and the running tree to
    administer it. Questions are answered at once from what the policy knows; everything else becomes an event for the
    executor.
    """

    def __init__(
        self, spec: SupervisorSpec, path: str, policy: BasePolicy, env: Environment, context: contextvars.Context
    ) -> None:
        self.path: str = path
        self.spec: SupervisorSpec = spec
        self.policy: BasePolicy = policy
        self.exited: Future[Exit] = OwnFuture()
        self.ready: Future[int] = OwnFuture()
        self.tell: Callable[[Input], None]  # set by the executor, which starts the actor
        self.handles: dict[str, Handle] = {}  # of the children that are alive
        self.ends: dict[str, Exited | Ignored] = {}  # that others may know of, and that the policy has not handled yet
        self.suspended: bool = False
        self.context: contextvars.Context = context  # of the caller that has started this supervisor
        self.contexts: dict[str, contextvars.Context] = {}  # of the callers of `start_child`
        self._callers: dict[int, contextvars.Context] = {}  # of requests that wait, by the `id()` of their declaration
        self._drain: float | None = None  # of an order to stop all children
        self._drains: PendingOrders[float] = PendingOrders()  # of orders to stop one child
        self._kills: PendingOrders[str] = PendingOrders()  # why orders are about to stop a child by a kill
        self._env = env

    # ------------------------------------------------------------ as its parent sees it
    def deliver(self, message: Message, *, accepted: bool = False) -> None:
        """Refuse a message: supervisors take none."""
        raise SuitkaiseError(f"{self.path!r} is a supervisor; it takes no messages", path=self.path)

    def suspend(self, on: bool) -> None:
        """Suspend or resume all workers below this supervisor."""
        for id in list(self.handles):
            self._suspend(id, on)

    def begin(self, wait: Callable[[Flag], object] = Flag.wait) -> None:
        """Start the children, and `wait` until they are up; what `wait` raises leaves the tree as it is.

        Raises:
            ChildStartFailed: the start of a child failed; everything is stopped again.
        """
        up = Flag()
        self.ready.add_done_callback(lambda done: up.set())
        self.exited.add_done_callback(lambda done: up.set())
        self.tell(Begin())
        wait(up)
        if not self.ready.done():
            raise _start_error(self.exited.result().reason)

    def end_interrupted(self) -> None:
        """Stop the tree, unless it has ended, and wait for its end: its start was interrupted, at whatever moment."""
        if not self.exited.done():
            self.tell(StopAll(Shutdown("its start was interrupted")))
            self.exited.result()

    def stop(self, drain: float | None = None, why: str | None = None) -> None:
        """Stop the children in reverse start order, then end; workers handle messages first for `drain` seconds."""
        self._drain = drain
        self.tell(StopAll(Shutdown(why)))

    def kill(self, why: str) -> None:
        """Kill everything below, then end."""
        self.tell(KillAll(why))

    def ping(self) -> Answer[None]:
        """Ask whether the supervisor decides and carries out; it answers at once, whatever it is doing."""
        answer: Answer[None] = Answer()
        self.tell(Ping(answer))
        return answer

    # ------------------------------------------------------------ as refs and administrators see it
    @property
    def status(self) -> Status:
        """What the supervisor itself is doing; `failed` if it has given up, or ended with a significant child."""
        phase, reason = self.policy.phase, self.policy.reason
        if phase is SupervisorPhase.ENDED and reason is not None and status_after(reason) is Status.FAILED:
            return Status.FAILED
        return _STATUS_OF[phase]

    def status_of(self, id: str) -> Status:
        """Return the status of a child. Raises ChildNotFound."""
        end = self.ends.get(id)  # first: it is removed when the policy has handled it
        info = self.policy.child_info(id, end)
        if info is None:
            raise self.policy.not_found(id)
        return self._status(info)

    def _status(self, info: ChildInfo) -> Status:
        if info.status is Status.ABANDONED and not self._abandoned()[f"{self.path}/{info.id}"]:
            return info.at_rest
        below = self.child(info.id)
        if info.status is Status.RUNNING and below is not None:
            # Below a running one, a supervisor may be stopping by itself: it gave up, for example.
            return info.status if below.policy.phase is SupervisorPhase.RUNNING else Status.STOPPING
        handle = self.handles.get(info.id)
        suspended = info.status is Status.RUNNING and handle is not None and handle.suspended
        return Status.SUSPENDED if suspended else info.status

    def which_children(self) -> list[ChildLine]:
        """Return the children in start order (rule 20)."""
        abandoned = self._abandoned()
        return [
            ChildLine(
                info.id, info.kind, self._status(info), ref_to(f"{self.path}/{info.id}", info.kind), info.restarts,
                info.last_exit, abandoned[f"{self.path}/{info.id}"],
            )
            for info in self.policy.which_children(dict(self.ends))
        ]  # fmt: skip

    def _abandoned(self) -> Counter[str]:
        """Return how many threads of each path were abandoned and still run (rule 59)."""
        return Counter(path for engine in self._env.engines.values() for path in engine.abandoned())

    def comes_after(self, id: str, first: str) -> Literal["start", "stop"] | None:
        """Return for what of the child `first` a start of the child `id`, which is down, waits; None: it does not."""
        return self.policy.comes_after(id, first)

    def administer(self, action: AdminAction, argument: Any) -> Answer[Any]:
        """Carry out one request of `Administration`."""
        answer: Answer[Any] = Answer()
        try:
            match action:
                case AdminAction.START_CHILD:
                    self._start_child(answer, self.policy.named(argument))
                case AdminAction.TERMINATE_CHILD:
                    self._terminate(answer, *(argument if isinstance(argument, tuple) else (argument, None)))
                case AdminAction.KILL_CHILD:
                    self._kill(answer, argument)
                case AdminAction.RESTART_CHILD:
                    self.tell(RestartChild(answer, argument))
                case AdminAction.DELETE_CHILD:
                    self.tell(DeleteChild(answer, argument))
                case AdminAction.RECALL_CHILD:
                    return self.control(RequestKind.RECALL, argument)
                case AdminAction.SUSPEND | AdminAction.RESUME:
                    self.policy.get_child_spec(argument)
                    if self.exited.done():
                        raise self.policy.stopping_error()
                    self._suspend(argument, action == AdminAction.SUSPEND)
                    answer.set_result(None)
                case AdminAction.WHICH_CHILDREN:
                    answer.set_result(self.which_children())
                case AdminAction.COUNT_CHILDREN:
                    answer.set_result(self.policy.count_children(dict(self.ends)))
                case AdminAction.GET_CHILD_SPEC:
                    answer.set_result(self.policy.get_child_spec(argument))
                case _:
                    assert_never(action)
        except Exception as error:
            if answer.done():  # a signal handler has raised it
                raise
            answer.set_exception(error)
        return answer

    def _terminate(self, answer: Answer[Any], id: str, drain: float | None) -> None:
        if drain is not None:
            self._drains.add(id, drain, answer)
        self.tell(TerminateChild(answer, id))

    def _kill(self, answer: Answer[Any], id: str) -> None:
        self._kills.add(id, KILL_CHILD, answer)
        self.tell(TerminateChild(answer, id))
        handle, info = self.handles.get(id), self.policy.child_info(id)
        if handle is not None and info is not None and info.status is Status.STOPPING:
            handle.kill(KILL_CHILD)  # an earlier order to stop may take long

    def stop_child(self, id: str) -> None:
        """Carry out an order to stop a child: ask it to finish, or kill it."""
        why = self._kills.first(id)
        if why is not None:
            self.handles[id].kill(why)
        else:
            self.handles[id].stop(self.drain_of(id))

    def note_caller(self, child: Child) -> None:
        """Keep the context variables of the caller whose request to start this child is being served, if one is."""
        caller = self._callers.get(id(child))
        if caller is not None:
            self.contexts[child.id] = caller

    def context_of(self, id: str) -> contextvars.Context:
        """Return the context variables of the caller that has started this child, alone or with the supervisor."""
        return self.contexts.get(id, self.context)

    def drain_of(self, id: str) -> float | None:
        """Return the seconds for which an order to stop this child lets it handle messages first; None: its own."""
        drain = self._drains.first(id)
        return self._drain if drain is None else drain

    def _start_child(self, answer: Answer[Any], child: Child) -> None:
        child = copy.copy(child)  # its own: several requests with one id, or one declaration, may wait
        self._callers[id(child)] = contextvars.copy_context()
        answer.when_done(lambda done: self._callers.pop(id(child), None))
        if child.id not in self.policy and not self.exited.done():  # else it will be refused, and no engine is needed
            answer.when_done(lambda done: self._unprepare(child) if done.exception() is not None else None)
            prepare(self._env, f"{self.path}/{child.id}", child.what, child)
        self.tell(StartChild(answer, child))

    def _unprepare(self, child: Child) -> None:
        """Make the engines forget what was prepared for a child that was not started."""
        if child.id not in self.policy:
            unprepare(self._env, f"{self.path}/{child.id}", child.what)

    def _suspend(self, id: str, on: bool) -> None:
        handle = self.handles.get(id)
        if handle is not None:
            handle.suspend(on)

    def control(self, kind: ControlKind, id: str, drain: float | None = None) -> Answer[Any]:
        """Carry out a request of a ref of the child: `kill`, `rejoin` or `recall`."""
        answer: Answer[Any] = Answer()
        match kind:
            case RequestKind.RECALL:
                self.tell(Recall(answer, id))
            case RequestKind.REJOIN:
                self._terminate(Answer[Any](), id, drain)
                answer.set_result(None)
            case RequestKind.KILL:
                handle = self.handles.get(id)
                if handle is not None:
                    handle.kill(KILL_REF)
                answer.set_result(None)
            case _:
                assert_never(kind)
        return answer

    def recycle(self, id: str, incarnation: int) -> None:
        """Restart that incarnation of a child as a recall does; do nothing if it does not run any more."""
        self.tell(Recall(Answer[Any](), id, incarnation))

    def child(self, id: str) -> SupervisorInterface | None:
        """Return the child `id` if it is a supervisor and alive; else None."""
        handle = self.handles.get(id)
        return handle if isinstance(handle, SupervisorInterface) else None


def _start_error(reason: ExitReason) -> SuitkaiseError:
    failure = reason.detail if isinstance(reason, Shutdown) else None
    if not isinstance(failure, StartFailure):
        return SuitkaiseError(f"the tree ended while it started: {reason}", reason=reason)
    return start_error(failure)


class RootParent:
    """The `Parent` of a root's address: a root has no supervisor, so it cannot be recalled."""

    def __init__(self, root: SupervisorInterface) -> None:
        self._root = root

    def status_of(self, id: str) -> Status:
        return self._root.status

    def control(self, kind: ControlKind, id: str, drain: float | None = None) -> Answer[Any]:
        answer: Answer[Any] = Answer()
        match kind:
            case RequestKind.REJOIN:
                self._root.stop(drain)
                answer.set_result(None)
            case RequestKind.KILL:
                self._root.kill(KILL_REF)
                answer.set_result(None)
            case RequestKind.RECALL:
                answer.set_exception(SuitkaiseError(f"{id!r} is a root, so no supervisor could {kind} it", path=id))
            case _:
                assert_never(kind)
        return answer
