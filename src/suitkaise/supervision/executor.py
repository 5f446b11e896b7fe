"""Carries out what the policy of one supervisor decides: starts, stops, timers, answers, events.

It has no thread of its own. The supervisor actor gives it its turns in a running program, a simulation in a test.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from suitkaise.engines.engine import Engine, Exit, Handle, Launch, settle
from suitkaise.errors import ChildAlreadyStarted, ChildNotFound, Reject, SuitkaiseError
from suitkaise.events import Event
from suitkaise.exits import Crashed, ExitReason, Shutdown
from suitkaise.messaging.messages import Answer, Message, Parcel
from suitkaise.messaging.refs import WorkerRef
from suitkaise.messaging.registry import Address, Registry
from suitkaise.specs import Child, Supervisor
from suitkaise.statuses import Status
from suitkaise.supervision.policy import ChildInfo, Counts, Phase, Policy
from suitkaise.supervision.steps import (
    Begin,
    DeleteChild,
    Emit,
    End,
    Exited,
    Halt,
    Ignored,
    Input,
    Kill,
    Ready,
    Recall,
    Refuse,
    Removed,
    Reply,
    RestartChild,
    Start,
    StartChild,
    Started,
    Stop,
    StopAll,
    TerminateChild,
    Timer,
    Wake,
)

__all__ = ["Executor", "Surroundings"]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a supervisor finds around it; a simulation brings its own."""

    registry: Registry
    engines: Mapping[str, Engine]
    clock: Callable[[], float]
    at: Callable[[float, Callable[[], None]], Any]
    publish: Callable[[Event], None]
    on_gone: Callable[[str], None]
    serials: Iterator[int]
    """Numbers that grow with each incarnation in the program, so that an owner's name is never used again."""
    employ: Callable[[Executor], Callable[[Input], None]]
    """Gives a new executor its turns; returns how to reach it from any thread."""


class Executor:
    """One supervisor at work. It is also the handle by which its own supervisor knows it.

    `tell` may be called from any thread, `step` only by whoever gives the turns.
    """

    def __init__(self, spec: Supervisor, path: str, around: Surroundings, before: Executor | None = None) -> None:
        self.spec = spec
        self.path = path
        self.policy: Policy = Policy(spec, path)
        self.exited: Future[Exit] = Future()
        self.ready: Future[int] = Future()
        self._around = around
        self._handles: dict[str, Handle] = {}
        self._addresses: dict[str, Address] = {}
        self._down: set[str] = set()  # ended, and it is not yet known whether for good
        self._below: dict[str, Executor] = {}  # the newest of each child that is a supervisor, ended or not
        self.tell: Callable[[Input], None] = around.employ(self)
        for child in spec.children:
            self._address(child)
        if before is not None:
            self._inherit(before)

    # ------------------------------------------------------------ as a handle
    def deliver(self, message: Message) -> None:
        """Supervisors answer no messages."""
        message.fail(Reject(f"{self.path!r} is a supervisor; it takes no messages").error)

    def stop(self) -> None:
        """Stop the children in order, then end."""
        self.tell(StopAll(Shutdown()))

    def kill(self, why: str) -> None:
        """Kill everything below, then end."""
        self.tell(Halt(why))

    # ------------------------------------------------------------ questions and orders, from any thread
    def status_of(self, id: str) -> Status:
        """The status of a child, at once."""
        return self.policy.status_of(id)

    def which_children(self) -> list[ChildInfo]:
        """The children in start order (rule 20)."""
        return self.policy.which_children()

    def count_children(self) -> Counts:
        """How many there are (rule 21)."""
        return self.policy.count_children()

    def order(self, what: str, id: str) -> Answer[Any]:
        """Carry out an administration request, or a fault."""
        answer: Answer[Any] = Answer()
        match what:
            case "terminate":
                self.tell(TerminateChild(answer, id))
            case "restart":
                self.tell(RestartChild(answer, id))
            case "delete":
                self.tell(DeleteChild(answer, id))
            case "recall":
                self.tell(Recall(answer, id))
            case "rejoin":
                self.tell(TerminateChild(Answer[Any](), id))
                answer.set_result(None)
            case "kill":
                handle = self._handles.get(id)
                if handle is not None:
                    handle.kill("ref.kill()")
                answer.set_result(None)
            case _:
                raise SuitkaiseError(f"{what!r} is no order for a supervisor")
        return answer

    def start_child(self, child: Child) -> Answer[Any]:
        """Add a child and start it."""
        answer: Answer[Any] = Answer()
        self.tell(StartChild(answer, child))
        return answer

    def child(self, id: str) -> Executor | None:
        """The executor of a child that is a supervisor and alive."""
        handle = self._handles.get(id)
        return handle if isinstance(handle, Executor) else None

    # ------------------------------------------------------------ a turn
    def step(self, event: Input) -> None:
        """Let the policy decide about one event, and carry out what it says."""
        if isinstance(event, (Exited, Ignored)):
            self._lose(event)
        for action in self.policy.handle(event, self._around.clock()):
            match action:
                case Start(child, incarnation, previous):
                    serial = next(self._around.serials)
                    self._start(Launch(f"{self.path}/{child.id}", child, incarnation, serial, previous))
                case Stop(id, _) if id in self._handles:  # else its start has failed, and Exited is on its way
                    self._handles[id].stop()
                case Kill(id, _, why) if id in self._handles:
                    self._handles[id].kill(why)
                case Wake(key, at):
                    self._wake(Timer(key), at)
                case Emit(happened):
                    self._around.publish(happened)
                case Started():
                    self.ready.set_result(os.getpid())
                case Reply(answer, value):
                    answer.set_result(WorkerRef(f"{self.path}/{value}") if isinstance(value, str) else value)
                case Refuse(answer, error):
                    if isinstance(error, ChildAlreadyStarted) and error.path is not None:
                        error.ref = WorkerRef(error.path)
                    answer.set_exception(error)
                case Removed(id):
                    self._forget(id)
                case End(reason):
                    self._end(reason)
        if self.policy.phase is Phase.RUNNING:
            for id in [id for id in self._down if self.policy.is_over(id)]:
                self._down.discard(id)
                self._addresses[id].finish()
                if id in self._below:
                    self._below.pop(id).retire()

    def _start(self, launch: Launch) -> None:
        address = self._address(launch.child)
        spec = launch.child.what
        handle: Handle
        try:
            if isinstance(spec, Supervisor):
                handle = Executor(spec, launch.path, self._around, self._below.get(launch.child.id))
                self._below[launch.child.id] = handle
            else:
                handle = self._around.engines[launch.child.kind].spawn(launch)
        except Exception as error:
            self.tell(Exited(launch.child.id, launch.incarnation, Crashed("start", error)))
            return
        self._handles[launch.child.id] = handle
        self._down.discard(launch.child.id)
        address.attach(handle)
        id, incarnation = launch.child.id, launch.incarnation

        def on_ready(ready: Future[int]) -> None:
            address.pid = ready.result()
            self.tell(Ready(id, incarnation, ready.result()))

        def on_exit(exited: Future[Exit]) -> None:
            over = exited.result()
            address.detach(over.reason, over.result)
            self._around.on_gone(launch.birth.owner)
            self.tell(
                Ignored(id, incarnation) if over.ignored else Exited(id, incarnation, over.reason, over.abandoned)
            )

        handle.ready.add_done_callback(on_ready)
        handle.exited.add_done_callback(on_exit)
        if isinstance(handle, Executor):
            handle.tell(Begin())

    def _wake(self, timer: Timer, at: float) -> None:
        if at <= self._around.clock():
            self.tell(timer)
        else:
            self._around.at(at, lambda: self.tell(timer))

    def _lose(self, event: Exited | Ignored) -> None:
        info = self.policy.incarnation_of(event.id)
        if info == event.incarnation:
            self._handles.pop(event.id, None)
            self._down.add(event.id)

    def _address(self, child: Child) -> Address:
        address = self._addresses.get(child.id)
        if address is None:
            path = f"{self.path}/{child.id}"
            address = self._addresses[child.id] = self._around.registry.add(path, child.id, child.kind, self)
        return address

    def _inherit(self, before: Executor) -> None:
        """This supervisor was restarted: refs to its declared children stay good, the others' mean nothing now."""
        for id in list(before._addresses):
            if id in self._addresses:
                below = before._below.get(id)
                if below is not None:
                    self._below[id] = below
            else:
                before._forget(id)

    def retire(self) -> None:
        """It has ended and will not come back: so have all refs to what was below it."""
        for id in list(self._addresses):
            self._forget(id)

    def _forget(self, id: str) -> None:
        self._down.discard(id)
        address = self._addresses.pop(id, None)
        if address is not None:
            self._around.registry.remove(address.path)
        if id in self._below:
            self._below.pop(id).retire()
        for engine in self._around.engines.values():
            engine.forget(f"{self.path}/{id}")

    def _end(self, reason: ExitReason) -> None:
        if "/" not in self.path:
            self.retire()
        settle(self.exited, Exit(reason, Parcel(None)))

    def spec_of(self, id: str) -> Child:
        """The declaration of a child with its defaults filled in (rule 22)."""
        return self.policy.get_child_spec(id)

    def __contains__(self, id: object) -> bool:
        try:
            self.policy.get_child_spec(str(id))
        except ChildNotFound:
            return False
        return True
