"""The node's side of a worker on it: its handle, the orders of the program, and the reports to the program."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any, Protocol

from suitkaise.cluster.protocol import (
    Checkpoint,
    Deliver,
    DropUpTo,
    Exited,
    Finish,
    Inspect,
    Inspected,
    Kill,
    LinesRead,
    Listen,
    MessageDone,
    Pulse,
    ReadLines,
    Ready,
    Recycle,
    Returned,
    Room,
    Suspend,
    Trace,
    Traced,
    View,
)
from suitkaise.engines.engine import EngineContext, Exit, Launch
from suitkaise.engines.inspection import inspect
from suitkaise.engines.process_handle import ProcessHandle
from suitkaise.errors import MailboxFull, SuitkaiseError, WorkerDead
from suitkaise.exits import SHUTDOWN_TIMEOUT
from suitkaise.messaging import codec
from suitkaise.messaging.messages import Message, Payload
from suitkaise.messaging.portable_errors import portable_error
from suitkaise.platform.board import SlotView
from suitkaise.platform.reactor import Reactor
from suitkaise.platform.threads import OwnThread
from suitkaise.supervision.hang_detector import watch
from suitkaise.supervision.memory_limit import MemoryWatch

__all__ = ["NodeWorker"]


class NodeOfWorker(Protocol):
    """The node, as far as its workers know it."""

    context: EngineContext
    reactor: Reactor

    def send(self, frame: Any, payload: bytes = b"") -> None:
        """Send a frame to the program."""

    def dead_letter(self, path: str, why: str) -> None:
        """Have the program count a message that was told to the worker at `path`."""

    def forget(self, number: int) -> None:
        """Forget a worker that has ended."""


class NodeWorker:
    """A worker on this node: its handle, and the reports about it."""

    def __init__(self, node: NodeOfWorker, number: int, launch: Launch, handle: ProcessHandle) -> None:
        self.launch = launch
        self._node = node
        self._number = number
        self._handle = handle
        self._told: SlotView | None = None  # of the slot, to the program
        self._delivered = 0
        self._late: list[Message] = []  # came after its end; they are for the next incarnation
        handle.on_checkpoint = lambda payload: self._send(Checkpoint(number), payload.data)
        handle.ready.add_done_callback(lambda ready: self._show())
        handle.ready.add_done_callback(lambda ready: self._send(Ready(number, ready.result())))
        child, reactor = launch.child, node.reactor
        watch(child, handle, time.monotonic, reactor.call_at)
        if (limit := child.max_memory) is not None:
            MemoryWatch(
                limit, launch.path, handle, time.monotonic, reactor.call_at, node.context.publish,
                lambda: self._send(Recycle(number)),
            )  # fmt: skip
        if launch.incarnation.bounded:
            handle.on_room = self._report_room
            handle.inbox.want_room()
        handle.exited.add_done_callback(
            lambda exited: reactor.call_soon_threadsafe(lambda: self._report_exit(exited.result()))
        )

    def _send(self, frame: Any, payload: bytes = b"") -> None:
        self._node.send(frame, payload)

    def carry_out(self, frame: Any, payload: bytes) -> None:
        """Carry out an order."""
        handle = self._handle
        match frame:
            case Deliver():
                self._deliver(frame, payload)
            case Finish(_, drain):
                handle.stop(drain)
            case Suspend(_, on):
                handle.suspend(on)
            case Kill(_, why):
                handle.kill(why)
            case Trace(_, on):
                handle.trace((lambda fields: self._send(Traced(self._number, fields))) if on else None)
            case Listen(_, on):
                handle.listen(on)
            case DropUpTo(_, number):
                handle.inbox.drop_up_to(number)
            case ReadLines():
                handle.read_lines()
                self._send(LinesRead(self._number))
            case Inspect():
                OwnThread(self._inspect, "suitkaise-inspect", (frame,)).start()

    @property
    def pid(self) -> int | None:
        """The process of the worker, or the program of a command; None if there is none."""
        ready = self._handle.ready
        return ready.result() if ready.done() else self._handle.process.pid

    def _inspect(self, order: Inspect) -> None:
        """Carry out an order that takes a while."""
        ok, answer = True, None
        try:
            if (pid := self.pid) is None:
                raise SuitkaiseError(f"{self.launch.path!r} has no process yet")
            answer = inspect(self._node.context.directory, pid, order.what, order.arguments)
        except Exception as error:
            ok, answer = False, portable_error(error, self.launch.path)[0]
        self._send(Inspected(self._number, order.number, ok), codec.dumps(answer))

    def finish(self, most: float) -> None:
        """Ask the worker to finish, and kill it after its time, or after so many seconds."""
        self._handle.stop(0.0)
        seconds = min(self.launch.incarnation.grace, most)
        self._node.reactor.call_at(time.monotonic() + seconds, lambda: self._handle.kill(SHUTDOWN_TIMEOUT))

    def _deliver(self, frame: Deliver, payload: bytes) -> None:
        self._delivered += 1
        number = frame.number
        reply = None if number is None else _Reply(self, number)
        deadline = None if frame.left is None else time.monotonic() + frame.left
        message = Message(frame.kind, Payload(data=payload), reply, frame.sender, frame.carrier, deadline=deadline)
        try:
            self._handle.deliver(message, accepted=frame.accepted)
        except WorkerDead:
            self._late.append(message)
        except MailboxFull as error:
            if reply is None:
                self._node.dead_letter(self.launch.path, str(error))
            message.fail(error)

    def changed_view(self) -> View | None:
        """Return what the worker's slot shows; None if that is what was returned last, or if it has ended."""
        view = self._handle.snapshot()
        if view is None or view == self._told:
            return None
        self._told = view
        return self._in_ages(view)

    def _in_ages(self, view: SlotView) -> View:
        now = time.monotonic()
        return View(
            self._number, view.pid, view.phase, _age(view.since, now), view.loops, view.last_loop_time,
            view.total_loop_time, view.messages, view.queued, view.looping, _age(view.started, now), view.skipped,
            _age(view.oldest, now),
        )  # fmt: skip

    def show_start(self) -> None:
        """Tell the program that the worker starts still, if it does: an ask that follows may be blocked (rule 81)."""
        if not self._handle.ready.done():
            self._show()

    def _show(self) -> None:
        view = self.changed_view()
        if view is not None:
            self._send(Pulse([view], 0))

    def _report_room(self, dropped: int) -> None:
        """Tell the program, which sees no board here, what was taken out; have the next one told, too."""
        self._handle.inbox.want_room()  # first: what is taken out from now on is told
        self._send(Room(self._number, dropped, *self._handle.inbox.counts))

    def _report_exit(self, exit: Exit) -> None:
        for message in (*exit.returned, *self._late):
            number = message.reply.number if isinstance(message.reply, _Reply) else None
            self._send(Returned(self._number, message.kind, number, message.carrier), message.body.data)
        result = exit.result
        view = None if exit.view is None else self._in_ages(exit.view)
        plain = replace(exit, result=None, returned=(), view=None, unhandled=exit.unhandled + len(self._late))
        has_result = result is not None
        exited = Exited(self._number, codec.dumps(plain), has_result, view, self._delivered)
        self._send(exited, b"" if result is None else result.data)
        self._node.forget(self._number)

    def answer(self, number: int, ok: bool, payload: Payload) -> None:
        """Send the answer to a message; that it died without one the program says itself, when it knows of the end."""
        if not self._handle.is_over:
            self._send(MessageDone(self._number, number, ok), payload.data)


class _Reply:
    """Sends the answer to a message of the program."""

    __slots__ = ("_worker", "number")

    def __init__(self, worker: NodeWorker, number: int) -> None:
        self._worker = worker
        self.number = number

    def __call__(self, ok: bool, payload: Payload) -> None:
        self._worker.answer(self.number, ok, payload)


def _age(time_of: float | None, now: float) -> float | None:
    return max(0.0, now - time_of) if time_of else None
