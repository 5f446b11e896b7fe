"""One incarnation in a process: orders and messages go to it, and reports, output and its end come from it."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import TYPE_CHECKING

from suitkaise.crashes import CrashReport
from suitkaise.engines.engine import EngineContext, Exit, Launch, settle
from suitkaise.engines.forked_process import ForkedProcess
from suitkaise.engines.inspection import own_first
from suitkaise.engines.keeper_client import KeeperClient
from suitkaise.engines.protocol import (
    AcceptConnection,
    BackgroundReport,
    CheckpointReport,
    DeliverMessage,
    EndOfMessages,
    ExitReport,
    LogReport,
    MessageAnswered,
    MessageTraced,
    OutputReport,
    PreloadReport,
    ProcessContext,
    ReturnMessage,
    RoomReport,
    SetLogLevels,
    StartWorker,
    StopWorker,
    SuspendWorker,
    TailReport,
    TraceMessages,
    WorkerOrder,
    WorkerReady,
    WorkerReport,
)
from suitkaise.engines.spares import EncodedRecipe, context_for
from suitkaise.engines.worker_output import keep_lines, keep_output, keep_record
from suitkaise.engines.worker_signals import DUMP
from suitkaise.errors import WorkerDead
from suitkaise.escapes import shortened
from suitkaise.exits import (
    KILL_CHILD,
    KILL_REF,
    SHUTDOWN_TIMEOUT,
    Crashed,
    ExitCode,
    ExitReason,
    Hung,
    Killed,
    Lost,
    Signaled,
)
from suitkaise.messaging import codec, wire
from suitkaise.messaging.address import Connected, TraceReport
from suitkaise.messaging.bundle_tables import Known
from suitkaise.messaging.descriptor_codec import DescriptorOwner
from suitkaise.messaging.identity import current_path
from suitkaise.messaging.inbox import Inbox
from suitkaise.messaging.logs import CommandOutput
from suitkaise.messaging.mailbox import URGENT
from suitkaise.messaging.messages import Message, Payload
from suitkaise.messaging.pieces import Pieces
from suitkaise.platform.board import BELL, INCARNATION, LISTENING, MESSAGES, OWN, SlotView
from suitkaise.platform.condition import OwnFuture
from suitkaise.platform.connection_counts import ConnectionCounts
from suitkaise.platform.locks import RLock
from suitkaise.platform.log_levels import levels
from suitkaise.platform.log_queue import QueuedLogger
from suitkaise.platform.marks import worker_mark
from suitkaise.platform.preload import preload
from suitkaise.platform.processes import kill_marked, kill_where
from suitkaise.platform.reactor import TimerHandle
from suitkaise.platform.runtime_directory import stack_file, tail_file
from suitkaise.platform.sockets import socket_pair
from suitkaise.platform.tail import Printed, TailReader, last_lines
from suitkaise.platform.threads import DaemonThread
from suitkaise.workers.incarnation import Outcome

if TYPE_CHECKING:
    from suitkaise.platform.death_lock import DeathWatch

__all__ = ["ProcessHandle"]

logger: QueuedLogger = QueuedLogger("suitkaise.processes")

LINGER = 5.0
"""Seconds that a process may stay after its worker's exit report (threads that it did not end, exit handlers)."""

DUMP_TIME = 0.25
"""Seconds that a process that hangs, or has not stopped in time, gets to write its stacks to a file."""


_COUNTING = 0.1
"""Seconds for which an exit waits at most until others have counted what they have sent directly."""

_A_MOMENT = 0.0002
"""Seconds between two looks whether they have."""

_LONGEST_STACK = 1 << 20
_CORE_DUMPED = 0x80


class ProcessHandle:
    """One incarnation in a process. Any thread may send; the reactor's thread handles the frames of the process."""

    def __init__(self, context: EngineContext, launch: Launch, recipe: EncodedRecipe, keeper: KeeperClient) -> None:
        self.exited: Future[Exit] = OwnFuture()
        self.ready: Future[int] = OwnFuture()
        self.launch = launch
        self.checkpoint: Payload | None = None
        self.suspended: bool = False
        self._context = context
        self._recipe = recipe
        self._stops_last = bool(getattr(launch.recipe.target, "_stops_last", False))
        self._slot = context.board.take(launch.path)
        self._tail = tail_file(context.directory, launch.incarnation.serial)
        self._bell = self._slot.bytes[BELL : BELL + 1]
        self._ring = 1  # the value to which the next frame sets the bell
        self._lock = RLock()  # a signal handler may send a message, too
        self._numbers = itertools.count(1)
        self._asked: dict[int, Message] = {}
        self.known: Known = Known()
        self.inbox: Inbox = Inbox(self._slot)
        self._counts: ConnectionCounts | None = None  # once it has direct connections
        self.on_room: Callable[[int], None] = lambda dropped: None
        self.on_checkpoint: Callable[[Payload], None] = lambda checkpoint: None
        self._returned: list[Message] = []
        self._outcome: Outcome | None = None  # as the worker reported it
        self._linger_timer: TimerHandle | None = None
        self._kill_reason: ExitReason | None = None
        self._tracer: TraceReport | None = None
        self._exit_code: int | None = None
        self._end_by = 0.0  # monotonic
        self._over = False
        self.deaths: DeathWatch | None = None
        """Tells the end of the process early; None: the child is not restarted early."""
        self.process: ForkedProcess = ForkedProcess(
            context,
            keeper,
            launch.path,
            launch.incarnation.grace,
            self._stops_last,
            launch.child.keep_children,
            self,
            self._slot.index,
        )
        self._printed = TailReader(self._tail)
        if context.log_rings is not None:
            context.log_rings.attach(launch.path, self)

    # ------------------------------------------------------------ from any thread
    @property
    def is_over(self) -> bool:
        """Whether its process is gone and read out: what it has not answered fails now, and then `exited` is set."""
        return self._over

    @property
    def _ends(self) -> bool:
        """Whether the incarnation takes no message any more: it was killed, has reported its exit, or is gone."""
        return self._over or self.process.dead or self._kill_reason is not None or self._outcome is not None

    def deliver(self, message: Message, *, accepted: bool = False) -> None:
        """Encode the message and send it; see `Receiver.deliver`."""
        payload = message.body.parts_for(self.known)
        with self._lock:
            if self._ends:
                raise WorkerDead.just_ended(self.launch.path)
            number = None
            if message.reply is not None:
                number = next(self._numbers)
                self._asked[number] = message
            try:
                order = DeliverMessage(message.kind, number, message.carrier, message.deadline)
                if self._tracer is not None:
                    order.sender = message.asker or current_path()
                self._send(order, payload, force=accepted)
                self.inbox.delivered += 1
                self.known.note_sent(payload)
            except BaseException:
                if number is not None:
                    self._asked.pop(number, None)  # a signal handler may have raised when the answer has come already
                raise

    def trace(self, report: TraceReport | None) -> None:
        """Have each message reported that the worker handles from now on; None: no more."""
        with self._lock:
            self._tracer = report
            if not self._over:
                self._send(TraceMessages(report is not None), force=True)

    def connect(self, sender: str) -> Connected | None:
        """Make a connection for another worker, or a thread of this program; see `Connectable`."""
        with self._lock:
            if self._ends or not self.ready.done() or self.launch.child.kind != "process":
                return None
            try:
                if self._counts is None:
                    self._counts = self._context.board.new_counts(self._slot.index)
                    self._slot.words[INCARNATION] = self.launch.incarnation.serial
                ours, theirs = socket_pair()
            except OSError:  # no room is left on the board, or no descriptor
                return None
            with theirs:
                number = self._counts.add()
                if number is not None:
                    if self.process.pass_on(wire.encode(AcceptConnection(sender, number)), theirs.fileno()):
                        self._bell[0] = self._ring
                        return Connected(ours, self._slot.index, self.launch.incarnation.serial, number)
                    self._counts.close(number)
            ours.close()
            return None

    def catch_up(self) -> None:
        """Handle what the process has reported so far (reactor's thread)."""
        self.process.catch_up()

    def stop(self, drain: float | None = None) -> None:
        """Ask the worker to finish."""
        with self._lock:
            if not self._over:
                self._ring = URGENT
                self._send(StopWorker(self.launch.drain(drain)), force=True)
                process = self.process
                process.stopping = True  # no log record holds up its end
                self._context.reactor.call_soon_threadsafe(lambda: self._context.logs.release(process))

    def suspend(self, on: bool) -> None:
        """Suspend the worker after its current loop, or resume it."""
        with self._lock:
            if not self._over:
                self.suspended = on
                self._ring = URGENT if on else 1
                self._send(SuspendWorker(on), force=True)

    def set_log_levels(self, levels: dict[str, int]) -> None:
        """Have the worker's loggers use these levels."""
        with self._lock:
            if not self._over and self.process.is_requested:  # else its first frame will have them
                self._send(SetLogLevels(levels), force=True)

    def listen(self, on: bool) -> None:
        """Get each line that the worker prints at once, or no longer; see `messaging.log_rings.LineSource`."""
        with self._lock:
            if not self._over:
                self._slot.bytes[LISTENING] = on

    def read_lines(self) -> None:
        """Put what the worker has printed so far into the rings (reactor's thread)."""
        self._keep(self._printed.read())

    def _keep(self, lines: Sequence[Printed]) -> None:
        keep_lines(self._context, self.launch.path, self.launch.number, lines)

    def kill(self, why: str) -> None:
        """Send SIGKILL, now or as soon as the process exists, and to all that it has left behind.

        A worker that has not stopped in time writes its stacks first, which its crash report shows.
        """
        with self._lock:
            if self._over:
                return
            if self.process.dead:
                self.process.end_children()
                return
            by_hand = why in (KILL_CHILD, KILL_REF)
            if self._outcome is not None and self._kill_reason is None and not by_hand:
                logger.warning(
                    "%r has finished, but its process has not ended (a thread that is no daemon, a process that it has "
                    "started, an exit handler); it is killed: %s", self.launch.path, why,
                )  # fmt: skip
            first, self._kill_reason = self._kill_reason is None, self._kill_reason or Killed(why)
            if first and why == SHUTDOWN_TIMEOUT and self._outcome is None and self.launch.child.kind == "process":
                self._dump_and_kill()
            else:
                self.process.signal(signal.SIGKILL)

    def snapshot(self) -> SlotView | None:
        """Read the worker's slot on the status board; None after the process's end."""
        with self._lock:
            if self._over or self.process.dead:
                return None
            return self._slot.read(self._unhandled)

    @property
    def _unhandled(self) -> int:
        """How many messages wait: those that were delivered through the hub, and those that the worker has got else."""
        words, direct = self._slot.words, 0 if self._counts is None else self._counts.messages
        return max(0, self.inbox.delivered + direct + words[OWN] - words[MESSAGES])

    def kill_hung(self, hung: Hung) -> None:
        """Have the process write its stack to a file, where it still can, and kill it.

        A worker that has reported its exit cannot hang.
        """
        with self._lock:
            if self._ends:
                return
            self._kill_reason = hung
            self._dump_and_kill()

    def _dump_and_kill(self) -> None:
        self.process.signal(DUMP)
        self._context.reactor.call_at(time.monotonic() + DUMP_TIME, self._kill_dumped)

    def _kill_dumped(self) -> None:
        with self._lock:
            if isinstance(self._kill_reason, Hung):
                self._kill_reason = replace(self._kill_reason, stack=self._stack())
            self.process.signal(signal.SIGKILL)

    def _stack(self) -> str:
        """Return the stacks that the process has written to its file."""
        with contextlib.suppress(OSError), open(self._stack_file, encoding="utf-8", errors="replace") as file:
            return shortened(own_first(file.read(_LONGEST_STACK)))
        return ""

    @property
    def _stack_file(self) -> str:
        return stack_file(self._context.directory, self.process.pid or 0)  # without a process there is no file 0

    def _send(self, order: WorkerOrder, payload: bytes | Pieces = b"", *, force: bool = False) -> None:
        self.process.send(wire.frame(order, payload, long_header=True), force=force)
        self._bell[0] = self._ring

    def adopt(self, process: ForkedProcess, prepared: ProcessContext) -> bool:
        """Start the worker in a spare process, which has the recipe; return False if the process has ended."""
        if not process.hand_over(self):
            return False
        with self._lock:
            if not self._over:  # the process may end at this moment
                self.process = process
                self._slot.mark_started()
                self._send(self._start_order(prepared), force=True)
        return True

    # ------------------------------------------------------------ callbacks of its process (reactor's thread)
    def first_frame(self) -> tuple[bytes, list[DescriptorOwner]]:
        """Return the order to start the worker, with the recipe."""
        return wire.encode(self._start_order(), self._recipe.data, long_header=True), self._recipe.owners

    def _start_order(self, prepared: ProcessContext | None = None) -> StartWorker:
        """Return the order to start the worker; `prepared` is the context that its process has got before."""
        launch = self.launch
        context = context_for(
            launch.incarnation.owner, self.process.inherited, launch.child.env, self._context.surroundings
        )
        return StartWorker(
            codec.dumps(launch.incarnation), b"" if context.agrees_with(prepared) else codec.dumps(context),
            self._slot.index,
            levels(), self._stops_last, self._context.supervise_data, launch.carrier, launch.child.early_restart,
        )  # fmt: skip

    def on_flushed(self) -> None:
        """Ring the worker's bell: frames that waited are in its socket now."""
        self._bell[0] = self._ring

    def on_started(self) -> None:
        """Kill the process if that was requested before it existed."""
        with self._lock:
            if self._kill_reason is not None:
                self.process.signal(signal.SIGKILL)

    def on_spawn_failed(self, error: str) -> None:
        """Report that there is no process."""
        self._finish(Exit(Crashed("start", OSError(f"no process could be started: {error}"))))

    def on_frame(self, report: WorkerReport, payload: bytes) -> None:
        """Handle a frame of the process."""
        match report:
            case MessageAnswered():  # without patterns for its fields, which would take twice the time
                message = self._asked.pop(report.number, None)
                self.known.note_arrived(payload)
                if message is not None and message.reply is not None:
                    message.reply(report.ok, Payload(data=payload))
            case RoomReport(dropped):
                self.on_room(dropped)
            case MessageTraced(fields):
                tracer = self._tracer  # another thread may end the trace
                if tracer is not None:
                    tracer(fields)
            case LogReport(fields):
                keep_record(self._context, self.launch.path, self.launch.number, fields, self.process)
            case OutputReport():
                output = CommandOutput(self.launch.path, report.pid, report.program, report.runs)
                keep_output(self._context, self.launch.number, output, self.process)
            case TailReport(position, data):
                self._keep(self._printed.take(position, data))
            case BackgroundReport():
                news = codec.loads(payload)
                (self._context.report if isinstance(news, CrashReport) else self._context.publish)(news)
            case CheckpointReport():
                self.checkpoint = Payload(data=bytes(payload))
                self.on_checkpoint(self.checkpoint)
            case WorkerReady(pid):
                if not self.ready.done():
                    self._watch_end()
                    self.ready.set_result(pid)
            case PreloadReport(modules):
                preload(*modules)
            case ReturnMessage(kind, number, carrier):
                told = Message(kind, Payload(data=payload), carrier=carrier)
                returned = told if number is None else self._asked.pop(number, None)
                if returned is not None:
                    if payload:  # the array of a message in pieces may have changed meanwhile
                        returned = replace(returned, body=Payload(data=payload))
                    self._returned.append(returned)
            case ExitReport(reason, ignored, has_result, returns_messages):
                outcome = Outcome(codec.loads(reason), Payload(data=bytes(payload)) if has_result else None, ignored)
                with self._lock:  # messages from now on are for the next incarnation
                    self._outcome = outcome
                    if returns_messages:
                        self._send(EndOfMessages(), force=True)
                grace = self.launch.incarnation.grace
                linger = grace if grace < float("inf") else LINGER
                self._linger_timer = self._context.reactor.call_at(
                    time.monotonic() + max(linger, 1.0), lambda: self.kill("its process did not end")
                )

    def _watch_end(self) -> None:
        """Learn of the end of the process as soon as it can run no code any more, if its child is restarted early."""
        if self.deaths is None or self.process.pid is None:
            return
        reactor = self._context.reactor
        self.deaths.add(
            self._context.board.lock_address(self._slot.index),
            self.process.pid,
            lambda status: reactor.call_soon_threadsafe(lambda: self._on_early_end(status)),
        )

    def _on_early_end(self, status: int) -> None:
        """Report the end of the process, which can run no code any more, before the process is gone.

        Not where somebody waits until it is gone, or where the reason is not certain yet: a status of 0 may be one that
        could not be read.
        """
        ordered = self.process.stopping or not isinstance(self._kill_reason, Hung | None)
        if self._over or ordered or self.process.leaves_anything():
            return
        self.process.drain()
        if status or (self._outcome is not None and not self._outcome.reason.clean):
            self.process.end_early(os.waitstatus_to_exitcode(status & ~_CORE_DUMPED))

    def on_exit(self, code: int | None) -> None:
        """Report that the process is gone; without its keeper, first kill what it has left behind."""
        self._exit_code = code
        if code is not None or self.launch.child.keep_children:
            self._end()
            return

        def clean_up() -> None:
            if self.launch.child.kind == "command":
                kill_marked(f"{self._context.directory}:{self.launch.incarnation.owner}")
            else:
                kill_where(worker_mark(self._context.directory, self.process.number))
            self._context.reactor.call_soon_threadsafe(self._end)

        try:
            DaemonThread(target=clean_up, name="suitkaise-clean-up").start()
        except RuntimeError:  # no thread is left
            clean_up()

    def _end(self) -> None:
        """Report the exit, as soon as no sender counts any more what it has sent to the worker.

        From now on no sender uses the sockets. Those of a worker that is restarted early may be open still, and what
        they took would not be counted.
        """
        if not self._over:
            self._slot.words[INCARNATION] = 0
        now = time.monotonic()
        self._end_by = self._end_by or now + _COUNTING
        if self._counts is not None and self._counts.is_sent_to and now < self._end_by:
            self._context.reactor.call_at(now + _A_MOMENT, self._end)
            return
        reason = self._reason()
        if self._outcome is None or not reason.clean:
            self._finish(Exit(reason))
        else:
            self._finish(Exit(reason, self._outcome.result, self._outcome.ignored))

    def _reason(self) -> ExitReason:
        """Combine what the worker reported, why it was killed, and the exit code."""
        code = self._exit_code
        if self._outcome is not None:
            reported = self._outcome.reason
            if not reported.clean or code in (0, None) or self._kill_reason is not None:
                return reported
        elif self._kill_reason is not None and code in (-signal.SIGKILL, -DUMP, None):
            return self._kill_reason
        if code is None:
            return Lost("its exit status: the keeper was killed")
        return Signaled(-code) if code < 0 else ExitCode(code)

    def _finish(self, exit: Exit) -> None:
        with self._lock:
            if self._over:
                return
            self._over = True
            asked, self._asked = list(self._asked.values()), {}
        if self._linger_timer is not None:
            self._linger_timer.cancel()
        exit = replace(exit, unhandled=self._unhandled, returned=tuple(self._returned), view=self._slot.read())
        if not exit.reason.clean:
            exit = replace(exit, lines=last_lines(self._tail))
            if isinstance(exit.reason, (Signaled, Killed)):
                exit = replace(exit, stack=self._stack())
        if self._context.log_rings is not None:
            self._context.log_rings.detach(self.launch.path, self)
            self._keep(self._printed.read(all=True))
        for file in (self._tail, self._stack_file):
            with contextlib.suppress(OSError):
                os.unlink(file)
        if self.deaths is not None:
            self.deaths.remove(self._context.board.lock_address(self._slot.index))
        self._bell.release()
        if self._counts is not None:
            self._counts.release()
            self._counts = None
        self._slot.release()
        self._context.board.give_back(self._slot)
        for message in asked:
            message.fail(WorkerDead.unanswered(self.launch.path, exit.reason))
        settle(self.exited, exit)
