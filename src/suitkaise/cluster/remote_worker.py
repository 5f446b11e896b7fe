"""The program's side of a worker that runs on a node: the handle that its supervisor has."""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

from suitkaise.cluster.node_logs import weight_of
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
    LogLines,
    LogOutput,
    LogRecord,
    MessageDone,
    ReadLines,
    Ready,
    Recycle,
    Returned,
    Room,
    Spawn,
    Suspend,
    Trace,
    Traced,
    View,
)
from suitkaise.engines.engine import EngineContext, Exit, Launch, settle
from suitkaise.engines.inspection import Inspection
from suitkaise.engines.worker_output import keep_lines, keep_output, keep_record
from suitkaise.errors import MailboxFull, SuitkaiseError, WorkerDead
from suitkaise.exits import ExitReason, Hung, Killed, Shutdown
from suitkaise.messaging import codec
from suitkaise.messaging.address import TraceReport
from suitkaise.messaging.answer import Answer
from suitkaise.messaging.connection import BACKLOG
from suitkaise.messaging.identity import current_path
from suitkaise.messaging.inbox import Inbox
from suitkaise.messaging.logs import CommandOutput
from suitkaise.messaging.messages import Message, Payload
from suitkaise.messaging.pieces import Pieces
from suitkaise.platform.board import DROPPED, MESSAGES, OWN, SLOT_BYTES, Phase, Slot, SlotView
from suitkaise.platform.condition import OwnFuture
from suitkaise.platform.locks import RLock

__all__ = ["RemoteWorker", "Sender"]


class Sender(Protocol):
    """The node that a worker runs on."""

    name: str

    @property
    def is_open(self) -> bool:
        """Whether it is not lost."""
        ...

    def withdraw(self, worker: RemoteWorker) -> bool:
        """Forget a worker that was not started yet; return False if it was."""
        ...

    def send(self, frame: Any, payload: bytes | Pieces = b"", *, force: bool = True) -> None:
        """Send a frame, or keep it until the node is connected. Raises MailboxFull, not with `force`."""
        ...

    def used_by(self, number: int) -> tuple[float | None, int] | None:
        """Return CPU and memory of a worker, as last told; None if they were not."""
        ...

    def logs_taken(self, weight: int) -> None:
        """Note that so much of what it has sent of its workers' logging is handled, or dropped (any thread)."""
        ...


class RemoteWorker:
    """One incarnation on a node. Any thread may call what its supervisor calls; the reactor's thread handles frames.

    Args:
        context: the program.
        launch: the order to start it.
        recipe: its encoded recipe.
    """

    stopping: bool = True
    """No log record holds up what a node reports: it is the node that sends no more than what the handlers take."""

    def __init__(self, context: EngineContext, launch: Launch, recipe: bytes) -> None:
        self.exited: Future[Exit] = OwnFuture()
        self.ready: Future[int] = OwnFuture()
        self.launch = launch
        self.checkpoint: Payload | None = None
        self.suspended: bool = False
        self.recycle: Callable[[], None] = lambda: None
        self.number: int = launch.incarnation.serial
        self.node: Sender | None = None
        self._context = context
        self._recipe = recipe
        self._lock = RLock()  # a signal handler may send a message, too
        self._waiting: list[tuple[Any, bytes | Pieces]] = []  # for a node to be found
        self._waiting_bytes = 0  # of messages
        self.inbox: RemoteInbox = RemoteInbox(self._drop_up_to)
        self.on_room: Callable[[int], None] = lambda dropped: None
        self._numbers = itertools.count(1)
        self._asked: dict[int, Message] = {}
        self._inspections: dict[int, Answer[Any]] = {}
        self._returned: list[Message] = []
        self._late_lines: deque[Future[None]] = deque()
        self._tracer: TraceReport | None = None
        self._shown: tuple[View, float] | None = None  # with the time when it came
        self.losing: ExitReason | None = None  # why its node, which is lost, may end it
        self._over = False
        if context.log_rings is not None:
            context.log_rings.attach(launch.path, self)

    # ------------------------------------------------------------ from any thread
    @property
    def where(self) -> str:
        """The name of its node; empty as long as none is found."""
        return "" if self.node is None else self.node.name

    @property
    def used(self) -> tuple[float | None, int] | None:
        """CPU (1.0: one core; None: not known yet) and memory in bytes of it and its processes, as last told."""
        return None if self.node is None else self.node.used_by(self.number)

    @property
    def is_lost(self) -> bool:
        """Whether its node is lost, so that it may run still, or not."""
        return self.losing is not None and not self._over

    def place(self, node: Sender) -> bool:
        """Start it on this node; what was sent to it so far follows. Return False if it was given up meanwhile."""
        launch = self.launch
        what = codec.dumps((launch.child.without_code(), launch.incarnation))
        order = Spawn(self.number, what, launch.carrier)
        with self._lock:
            if self._over:
                return False
            node.send(order, self._recipe)
            for frame, payload in self._waiting:
                node.send(frame, payload)
            self._waiting.clear()
            self.node = node
        return True

    def _send(self, frame: Any, payload: bytes | Pieces = b"", *, force: bool = True) -> None:
        if self.node is None:
            if not force and self._waiting_bytes and self._waiting_bytes + len(payload) > BACKLOG:
                raise MailboxFull(
                    f"{self._waiting_bytes} bytes already wait for a node for {self.launch.path!r}",
                    path=self.launch.path,
                )
            self._waiting.append((frame, bytes(payload)))
            self._waiting_bytes += len(payload)
        else:
            self.node.send(frame, payload, force=force)

    def deliver(self, message: Message, *, accepted: bool = False) -> None:
        """Encode the message and send it; see `Receiver.deliver`."""
        payload = message.body.parts
        with self._lock:
            if self._over or (self.node is not None and not self.node.is_open):
                raise WorkerDead.just_ended(self.launch.path)
            number = None
            if message.reply is not None:
                number = next(self._numbers)
                self._asked[number] = message
            left = None if message.deadline is None else message.deadline - time.monotonic()
            sender = (message.asker or current_path()) if self._tracer is not None else ""
            frame = Deliver(self.number, message.kind, number, accepted, message.carrier, left, sender)
            try:
                self._send(frame, payload, force=accepted)
                self.inbox.delivered += 1
            except BaseException:
                if number is not None:
                    del self._asked[number]
                raise

    def _drop_up_to(self, number: int) -> None:
        with self._lock:
            if not self._over:
                self._send(DropUpTo(self.number, number))

    def trace(self, report: TraceReport | None) -> None:
        """Have each message reported that the worker handles from now on; None: no more."""
        with self._lock:
            self._tracer = report
            if not self._over:
                self._send(Trace(self.number, report is not None))

    def stop(self, drain: float | None = None) -> None:
        """Ask the worker to finish."""
        with self._lock:
            if self._over:
                return
            if started := self._is_started():
                self._send(Finish(self.number, drain))
        if not started:
            self.lose(Shutdown())

    def suspend(self, on: bool) -> None:
        """Suspend the worker after its current loop, or resume it."""
        with self._lock:
            if not self._over:
                self.suspended = on
                self._send(Suspend(self.number, on))

    def kill(self, why: str) -> None:
        """Have the node end the worker now."""
        with self._lock:
            if self._over:
                return
            if started := self._is_started():
                self._send(Kill(self.number, why))
        if not started:
            self.lose(Killed(why))

    def _is_started(self) -> bool:
        """Return whether a node has the order to start it, or may have it; if not, it gets none any more."""
        return self.node is not None and not self.node.withdraw(self)

    def kill_hung(self, hung: Hung) -> None:
        """Have the node end the worker: it is the node that notices a worker that hangs."""
        self.kill(str(hung))

    def listen(self, on: bool) -> None:
        """Get each line that the worker prints at once, or no longer; see `messaging.log_rings.LineSource`."""
        with self._lock:
            if not self._over:
                self._send(Listen(self.number, on))

    def read_lines(self) -> Future[None] | None:
        """Have the node send what the worker has printed so far; return what is set when it has arrived."""
        with self._lock:
            if self._over or self.node is None:
                return None
            late: Future[None] = OwnFuture()
            self._late_lines.append(late)
            self._send(ReadLines(self.number))
            return late

    def inspect(self, what: Inspection, arguments: Sequence[float]) -> Answer[Any]:
        """Have the node ask the worker's process for something, see `engines.inspection`.

        Raises:
            SuitkaiseError: there is no process, or its node is lost.
        """
        path, answer = self.launch.path, Answer[Any]()
        with self._lock:
            if self._over or self.node is None:
                raise SuitkaiseError(f"{path!r} has no process now", path=path)
            if not self.node.is_open:
                raise SuitkaiseError(f"the node {self.node.name} of {path!r} is lost", path=path)
            number = next(self._numbers)
            self._inspections[number] = answer
            self._send(Inspect(self.number, number, what, list(arguments)))
        return answer

    def snapshot(self) -> SlotView | None:
        """Return the worker's slot on the status board of its node, as it was last told; None after its end."""
        return None if self._over else self._seen()

    def resume_reading(self) -> None:
        """Do nothing: one worker does not hold up the others of its node."""

    def pause_reading(self) -> None:
        """Do nothing."""

    # ------------------------------------------------------------ reports of the node (reactor's thread)
    def on_frame(self, frame: Any, payload: bytes) -> None:
        """Handle a report about this worker."""
        context, launch = self._context, self.launch
        match frame:
            case MessageDone():
                message = self._asked.pop(frame.number, None)
                if message is not None and message.reply is not None:
                    message.reply(frame.ok, Payload(data=payload))
            case LogRecord(_, fields):
                keep_record(context, launch.path, launch.number, fields, self, self._taken(frame))
            case LogLines(_, stream, when, lines):
                keep_lines(context, launch.path, launch.number, [(stream, when, line) for line in lines])
                self._taken(frame)()
            case LogOutput(_, pid, program, runs):
                output = CommandOutput(launch.path, pid, program, runs)
                keep_output(context, launch.number, output, self, self._taken(frame))
            case Inspected(_, number, ok):
                inspected = self._inspections.pop(number, None)
                if inspected is not None:
                    inspected.settle(ok, Payload(data=payload))
            case LinesRead():
                self._late_lines.popleft().set_result(None)
            case Checkpoint():
                self.checkpoint = Payload(data=bytes(payload))
            case Ready(_, pid):
                if not self.ready.done():
                    self.ready.set_result(pid)
            case Traced(_, fields):
                tracer = self._tracer  # another thread may end the trace
                if tracer is not None:
                    tracer(fields)
            case Room(_, dropped, taken, own):
                self.inbox.set_counts(taken, own)
                self.on_room(dropped)
            case Recycle():
                self.recycle()
            case Returned(_, kind, number, carrier):
                told = Message(kind, Payload(data=payload), carrier=carrier)
                returned = told if number is None else self._asked.pop(number, None)
                if returned is not None:
                    self._returned.append(replace(returned, body=Payload(data=payload)))
            case Exited(_, data, has_result, view, delivered):
                exit: Exit = codec.loads(data)
                if self.losing is not None and isinstance(exit.reason, (Shutdown, Killed)):
                    exit = replace(exit, reason=self.losing)
                result = Payload(data=bytes(payload)) if has_result else None
                seen = None if view is None else _view_of(view, time.monotonic())
                self._finish(replace(exit, result=result, view=seen), delivered)

    def _taken(self, frame: LogRecord | LogOutput | LogLines) -> Callable[[], None]:
        """Return what tells the node that the frame is handled."""
        assert self.node is not None
        return partial(self.node.logs_taken, weight_of(frame))

    def show(self, view: View, now: float) -> None:
        """Keep what the slot shows, as it has come; it is converted when it is read."""
        self._shown = view, now

    def _seen(self) -> SlotView | None:
        shown = self._shown
        return None if shown is None else _view_of(*shown)

    def lose(self, reason: ExitReason) -> None:
        """Report that the worker is over, without a report of its node."""
        self._finish(Exit(reason, view=self._seen()))

    def _finish(self, exit: Exit, delivered: int | None = None) -> None:
        """Tell the end; `delivered` messages have come to the node, and others have crossed its report."""
        with self._lock:
            if self._over:
                return
            self._over = True
            if delivered is not None:
                exit = replace(exit, unhandled=exit.unhandled + self.inbox.delivered - delivered)
            asked, self._asked = list(self._asked.values()), {}
            inspections, self._inspections = list(self._inspections.values()), {}
            self._waiting.clear()
        for late in self._late_lines:
            late.set_result(None)
        if self._context.log_rings is not None:
            self._context.log_rings.detach(self.launch.path, self)
        for inspection in inspections:
            inspection.settle(False, Payload(SuitkaiseError(f"{self.launch.path!r} has ended meanwhile")))
        for message in asked:
            message.fail(WorkerDead.unanswered(self.launch.path, exit.reason))
        settle(self.exited, replace(exit, returned=tuple(self._returned), node=self.where))


class RemoteInbox(Inbox):
    """What the worker has got and not taken out, as far as its node has told it: each time that it takes one out.

    Args:
        drop_up_to: has the node drop what the worker has got up to a number.
    """

    def __init__(self, drop_up_to: Callable[[int], None]) -> None:
        super().__init__(Slot(memoryview(bytearray(SLOT_BYTES))))
        self._drop_up_to = drop_up_to

    def set_counts(self, taken: int, own: int) -> None:
        """Take the counts of the node."""
        self._words[MESSAGES], self._words[OWN] = taken, own

    def drop_oldest(self) -> bool:
        """Drop the oldest one that is to be handled; return False if there is none."""
        dropped = super().drop_oldest()
        if dropped:
            self._drop_up_to(self._words[DROPPED])
        return dropped

    def want_room(self) -> None:
        """Do nothing: the node tells each message that is taken out."""


def _view_of(view: View, now: float) -> SlotView:
    """Return the view, which came at that time, with times of this machine's clock."""

    def when(age: float | None) -> float | None:
        return None if age is None else now - age

    return SlotView(
        view.pid, Phase(view.phase), when(view.since) or 0.0, view.loops, view.last_loop_time, view.total_loop_time,
        view.messages, view.queued, view.looping, when(view.started), view.skipped, when(view.oldest),
    )  # fmt: skip
