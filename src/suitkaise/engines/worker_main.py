"""The main program of a worker's process: all that runs between the keeper's fork and the end of the process."""

from __future__ import annotations

import _thread
import contextlib
import gc
import os
import select
import socket
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from suitkaise.engines.protocol import (
    AcceptConnection,
    Announce,
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
    PrepareSpare,
    ProcessContext,
    ReturnMessage,
    RoomReport,
    SetLogLevels,
    SpareReady,
    StartWorker,
    StopWorker,
    SuspendWorker,
    TailReport,
    TraceMessages,
    WorkerOrder,
    WorkerReady,
    WorkerReport,
    decode_worker_order,
)
from suitkaise.engines.shared_tracker import share_tracker
from suitkaise.engines.worker_end import end_process, hold, let_go
from suitkaise.engines.worker_signals import HANDLED, WorkerSignals, ignore_signals, restore_signals
from suitkaise.engines.worker_terminal import refuse_terminal
from suitkaise.errors import MailboxFull
from suitkaise.escapes import encodable
from suitkaise.exits import ExitReason, Lost, Normal, Shutdown, Signaled
from suitkaise.messaging import codec, definitions, wire
from suitkaise.messaging.bundle_tables import Known, behind_table
from suitkaise.messaging.child_processes import share_definitions
from suitkaise.messaging.connection import FrameWriter, when_there_is_memory
from suitkaise.messaging.descriptor_codec import loads_with_descriptors
from suitkaise.messaging.held_back import send_held
from suitkaise.messaging.identity import set_owner
from suitkaise.messaging.inbox import Taken
from suitkaise.messaging.logs import end_forwarding, forward_all
from suitkaise.messaging.messages import MOST, MOST_BYTES, Message, Payload
from suitkaise.messaging.pieces import Pieces, is_in_pieces
from suitkaise.messaging.portable_errors import crash
from suitkaise.messaging.router import FLUSH_TIME, HubClient, set_router
from suitkaise.messaging.socket_mailbox import SocketMailbox
from suitkaise.messaging.tracing import enter
from suitkaise.platform.board import LISTENING, PHASE, SLOT_BYTES, Board, Phase, Slot
from suitkaise.platform.connection_counts import COUNTS_BYTES, ConnectionCounts
from suitkaise.platform.descriptors import receive_descriptors
from suitkaise.platform.inheritance import apply
from suitkaise.platform.log_levels import apply_levels
from suitkaise.platform.preload import listeners, preload, wanted
from suitkaise.platform.processes import after_fork_in_child, set_process_name
from suitkaise.platform.runtime_directory import HUB_SOCKET, tail_file
from suitkaise.platform.sockets import blocking, socket_pair
from suitkaise.platform.tail import Tail
from suitkaise.records import compile_now
from suitkaise.specs.recipe import Recipe
from suitkaise.specs.users import User
from suitkaise.storage.connect import attach
from suitkaise.workers.actor import WorkerActor, lifecycle_class, lifecycle_of
from suitkaise.workers.background import ThreadSupervisor
from suitkaise.workers.incarnation import Incarnation, Outcome
from suitkaise.workers.lifecycle import Lifecycle
from suitkaise.workers.output import Runs
from suitkaise.workers.worker import Process

if TYPE_CHECKING:
    from suitkaise.crashes import CrashReport
    from suitkaise.events import Event
    from suitkaise.workers.message_trace import MessageTrace

__all__ = ["run_standby", "run_worker", "warm_up"]

_FIRST_READ = 1 << 16
_MAX_SOCKETS = 250
_INTERNAL_ERROR = 70  # EX_SOFTWARE


def run_standby(keeper: socket.socket, directory: str, board: Board, lock: int, orphan_timeout: float) -> NoReturn:
    """Wait for a control connection from the keeper, then run a worker. End when the keeper is gone."""
    process = WorkerProcess(directory, board, orphan_timeout)
    descriptors: list[int] = []
    try:
        gc.enable()
        set_process_name("reserve")
        process.prepare()
        warm_up(board)
        watch = _HubWatch()
        gc.freeze()
        with keeper:
            _, descriptors = receive_descriptors(keeper, 1, 1)
    except BaseException:
        try:
            sys.excepthook(*sys.exc_info())
        finally:  # the keeper may have given it a worker already, whose start has failed
            os._exit(_INTERNAL_ERROR)
    if not descriptors:
        os._exit(0)
    _run(process, descriptors[0], lock, watch)


def run_worker(control: int, directory: str, board: Board, lock: int, orphan_timeout: float) -> NoReturn:
    """Run a worker, or a spare, until its end, and end the process.

    Args:
        control: the descriptor of the control connection.
        directory: the program's runtime directory.
        board: the program's status board.
        lock: the descriptor that holds the directory.
        orphan_timeout: the longest time in seconds that the worker may take to finish when the program is gone.
    """
    _run(WorkerProcess(directory, board, orphan_timeout), control, lock)


def _run(process: WorkerProcess, control: int, lock: int, watch: _HubWatch | None = None) -> NoReturn:
    code = _INTERNAL_ERROR
    try:
        gc.enable()
        hold(process.directory, lock, control)
        if watch is None:  # it was not in reserve
            process.prepare()
            watch = _HubWatch()
        process.connect(blocking(socket.socket(fileno=control)))
        code = process.run(watch)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        end_process(code)


class _HubWatch:
    """The thread that waits for the hub's end, from `begin` on. A process in reserve starts it in advance."""

    def __init__(self) -> None:
        self._watch: Callable[[], None] | None = None
        self._began = _thread.allocate_lock()
        self._began.acquire()
        _thread.start_new_thread(self._run, ())  # not `threading.Thread.start`, which waits until the thread runs

    def begin(self, watch: Callable[[], None]) -> None:
        """Run `watch` in the thread."""
        self._watch = watch
        self._began.release()

    def _run(self) -> None:
        self._began.acquire()
        assert self._watch is not None
        self._watch()


class WorkerProcess:
    """The hub's orders carried out in the worker's process: the control connection, the mailbox, the life cycle.

    Args:
        directory: the program's runtime directory.
        board: the program's status board.
        orphan_timeout: the longest time in seconds that the worker may take to finish when the program is gone.
    """

    _sock: socket.socket
    _writer: FrameWriter

    def __init__(self, directory: str, board: Board, orphan_timeout: float) -> None:
        self.directory: str = directory
        self._board = board
        self._orphan_timeout = orphan_timeout
        self._parser = wire.Parser(max_header=wire.MAX_PAYLOAD, decode=decode_worker_order, lends=True)
        self._frames: list[wire.Frame] = []  # received together with the first frame
        self.known: Known = Known()
        self._mailbox: SocketMailbox | None = None
        self._has_all_messages = False
        self._lifecycle: Lifecycle | None = None
        self._message_trace: MessageTrace | None = None
        self._traces_from_start = False
        self._not_traced = 0

    def prepare(self) -> None:
        """Set up what is the same for all workers, and leaves nothing behind: a process in reserve does it, too."""
        self._hub = HubClient(os.path.join(self.directory, HUB_SOCKET), self._board)
        set_router(self._hub)
        listeners.append(self._report_preload)
        share_tracker()
        share_definitions()
        self._tail = Tail()
        self._tail.send = self._send_printed
        self._tail.record_output()
        forward_all(self._send_log)
        _reseed()

    def connect(self, sock: socket.socket) -> None:
        """Use this control connection."""
        self._sock = sock
        self._writer = FrameWriter(sock)

    def run(self, watch: _HubWatch) -> int:
        """Run the worker from the first frame to the exit report; return the exit code."""
        if not self.announce() or (first := self.receive_first()) is None:
            return 0
        order, recipe_data, descriptors = first
        recipe: Recipe | None = None
        if isinstance(order, PrepareSpare):
            recipe = self._stand_by(order, recipe_data, descriptors)
            self.send(SpareReady())
            frame = self._receive()
            if frame is None:
                return 0
            order, _ = frame
        if not isinstance(order, StartWorker):
            raise wire.WireError(f"expected an order to start a worker, got {type(order).__name__}")
        incarnation: Incarnation = codec.loads(order.incarnation)
        if order.context:
            self._enter(codec.loads(order.context))
        if recipe is None:
            self._set_up(incarnation.path)
        self._begin(incarnation, order.log_levels)
        slot = self._board.slot(order.slot)
        slot.seconds[PHASE] = Phase.BOOT.mark + time.monotonic()
        if order.tells_end:
            from suitkaise.platform import death_lock  # few workers need it

            death_lock.hold(self._board.lock_address(order.slot))
        self._tail.listening = listening = slot.bytes[LISTENING : LISTENING + 1]
        counts = self._board.counts(order.slot)
        self._mailbox = mailbox = SocketMailbox(slot, counts, self._sock, self.handle)
        signals = self._signals
        signals.finish_with(mailbox, ignore_sigterm=order.stops_last)
        after_fork_in_child(self._close_after_fork, signals=lambda: HANDLED)
        mailbox.adopt(self._parser, self._frames)
        watch.begin(partial(self._watch_hub, mailbox, incarnation.grace, order.stops_last))
        try:
            if recipe is None:
                recipe = loads_with_descriptors(recipe_data, descriptors)
            if incarnation.user is not None:
                self._become(incarnation.user)
        except BaseException as error:
            self.report_exit(Outcome(crash("start", error, incarnation.path)))
            mailbox.cut()
            self.return_messages(mailbox, incarnation)
            return 0
        enter(order.carrier)
        self._lifecycle = lifecycle = lifecycle_of(recipe, incarnation, mailbox, slot)
        if incarnation.bounded:
            lifecycle.taken = Taken(slot, lambda dropped: self.send(RoomReport(dropped)))
        if self._traces_from_start:
            self._trace(True)
        lifecycle.context.append_output = self._tail.write
        lifecycle.context.add_to_stacks = signals.add_to_stacks
        lifecycle.context.on_crash = _call_excepthook
        lifecycle.context.output = _OutputSender(self._sock, self._writer, listening)
        lifecycle.context.background.supervise = partial(self._supervise, lifecycle, order.supervise)
        if lifecycle.has_tasks:
            signals.add_to_stacks(lifecycle.stacks)
        _ProcessActor(lifecycle, mailbox, self).run_here()
        mailbox.disconnect()
        self._hub.finish(min(incarnation.grace, FLUSH_TIME))
        return 0

    # ------------------------------------------------------------ the first frames
    def announce(self) -> bool:
        """Report to the hub that this process exists; return False if the hub does not need it any more.

        By this one system call the process either exists for the hub or does not, whatever happens to the keeper.
        """
        pid = os.getpid()
        pidfd = os.pidfd_open(pid)
        try:
            frame = wire.encode(Announce(pid))
            when_there_is_memory(lambda: socket.send_fds(self._sock, [frame], [pidfd], socket.MSG_NOSIGNAL))
        except OSError:
            return False
        finally:
            os.close(pidfd)
        return True

    def receive_first(self) -> tuple[WorkerOrder, bytes, list[int]] | None:
        """Return the first order, its payload, and the descriptors that came with it; None if the hub is gone."""
        try:
            data, descriptors = receive_descriptors(self._sock, _FIRST_READ, _MAX_SOCKETS)
        except ConnectionError:  # the hub has given up the start, or has ended, before it read the announcement
            return None
        self._frames = self._parser.feed(data) if data else []
        frame = self._receive()
        return None if frame is None else (*frame, descriptors)

    def _receive(self) -> wire.Frame | None:
        """Return the next frame; None if the hub is gone."""
        while not self._frames:
            try:
                self._frames = self._parser.receive(self._sock)
            except (wire.PeerClosed, OSError):
                return None
        return self._frames.pop(0)

    def _stand_by(self, order: PrepareSpare, data: bytes, descriptors: list[int]) -> Recipe:
        """Do in advance all that any incarnation of the child has to do first; return the recipe."""
        ignore_signals(*HANDLED)
        context = codec.loads(order.context)
        self._enter(context)
        set_owner(context.owner, whole_process=True)
        self._set_up(context.owner)
        apply_levels(order.log_levels)
        set_process_name("spare")
        recipe: Recipe = loads_with_descriptors(data, descriptors)
        lifecycle_class(recipe)
        if order.tells_end:
            from suitkaise.platform import death_lock

            death_lock.prepare()
        warm_up(self._board)
        return recipe

    # ------------------------------------------------------------ setting up the process
    def _enter(self, context: ProcessContext) -> None:
        with contextlib.suppress(OSError):  # the hub's working directory may be gone
            os.chdir(context.directory)
        apply(context.changed)
        sys.path[:] = context.search_path
        sys.argv[:] = context.argv
        definitions.enter_program(context.program, context.main_names)

    def _report_preload(self) -> None:
        self.send(PreloadReport(wanted()))

    def _set_up(self, path: str) -> None:
        """Set up what is the same for all incarnations at that path."""
        self._signals = WorkerSignals(self.directory)
        self._allow_terminal = refuse_terminal(path)

    def _begin(self, incarnation: Incarnation, log_levels: dict[str, int]) -> None:
        """Let the process be that of one incarnation."""
        set_owner(incarnation.owner, whole_process=True)
        set_process_name(incarnation.path.rpartition("/")[2])
        self._tail.begin(tail_file(self.directory, incarnation.serial))
        apply_levels(log_levels)

    def _become(self, user: User) -> None:
        """Change the user of this process, after all that the new user is not allowed to open is open.

        Raises:
            PermissionError: this process is not root's.
        """
        if os.geteuid() != 0 and user.uid != os.geteuid():
            raise PermissionError(f"user={user}: only root may run a worker as another user")
        self._tail.write("")
        attach().open()
        groups = [user.gid] if user.name is None else os.getgrouplist(user.name, user.gid)
        if os.geteuid() == 0:
            os.setgroups(groups)
        os.setresgid(user.gid, user.gid, user.gid)
        os.setresuid(user.uid, user.uid, user.uid)
        os.environ.update(user.environment)

    def _close_after_fork(self) -> None:
        """In a process that the worker forks (`os.fork`, multiprocessing): close or renew the worker's resources."""
        restore_signals()
        self._allow_terminal()
        end_forwarding()
        self._writer = FrameWriter(self._sock)  # the worker's may have been in the middle of a frame
        self._tail.detach()
        self._sock.close()
        if self._mailbox is not None:
            self._mailbox.disconnect()
        let_go()

    # ------------------------------------------------------------ orders and reports
    def handle(self, frame: wire.Frame) -> None:
        """Carry out an order of the hub."""
        order, payload = frame
        assert self._mailbox is not None
        match order:
            case DeliverMessage():  # without patterns for its fields, which would take twice the time
                self.known.note_arrived(payload)
                if order.kind == "signal":  # the report of an end goes behind the last messages of the ended worker
                    self._mailbox.take_direct()
                reply = None if order.number is None else _AnswerSender(self, order.number)
                self._mailbox.put(
                    Message(
                        order.kind, Payload(data=payload), reply, order.sender, order.carrier, deadline=order.deadline
                    )
                )
            case StopWorker(drain):
                self._mailbox.order_stop(Shutdown(), drain)
            case SuspendWorker(on):
                self._mailbox.suspend(on)
            case SetLogLevels(levels):
                apply_levels(levels)
            case AcceptConnection(sender, connection):
                self._mailbox.accept(sender, connection)
            case TraceMessages(on):
                self._trace(on)
            case EndOfMessages():
                self._has_all_messages = True

    def _trace(self, on: bool) -> None:
        """Report the messages that the worker handles, or no more."""
        if self._lifecycle is None:
            self._traces_from_start = on
            return
        if self._message_trace is None:
            from suitkaise.workers.message_trace import MessageTrace  # few workers are ever traced

            assert self._mailbox is not None
            self._message_trace = MessageTrace(self._lifecycle, self._mailbox, self._send_trace)
        (self._message_trace.on if on else self._message_trace.off)()

    def _send_trace(self, fields: dict[str, Any]) -> None:
        """Send a report; leave it out, and count it, if the hub reads slowly, or if this interrupts another frame."""
        writer = self._writer
        with contextlib.suppress(OSError):
            if not writer.interrupted:
                writer.flush()
            if writer.interrupted or writer.waiting:
                self._not_traced += 1 + fields["skipped"]
                return
            fields["skipped"] += self._not_traced
            self._not_traced = 0
            writer.offer(MessageTraced(fields), long_header=True)

    def _supervise(self, lifecycle: Lifecycle, data: bytes, on_end: Callable[[ExitReason], None]) -> ThreadSupervisor:
        """Make the supervisor of the worker's background threads, which run in this process."""
        from suitkaise.engines.engine import EngineContext  # which `supervise` loads, too
        from suitkaise.engines.threads import ThreadEngine
        from suitkaise.platform.reactor import Reactor

        supervise = codec.loads(data)
        preload(supervise.__module__)  # the next process has it at once
        send = self._send_news
        context = EngineContext(
            self.directory, Board.in_memory(), Reactor(), publish=send, report=send, supervise=supervise
        )
        incarnation = lifecycle.incarnation

        def ended(reason: ExitReason) -> None:
            on_end(reason)
            if incarnation.grace < float("inf"):
                context.reactor.call_at(time.monotonic() + incarnation.grace, lambda: self._end_now(lifecycle))

        engine = ThreadEngine(context, incarnation.owner)
        engine.supervisor = supervisor = supervise(context, engine, incarnation.path, ended)
        return supervisor  # type: ignore[no-any-return]

    def _send_news(self, news: Event | CrashReport) -> None:
        self.send(BackgroundReport(), codec.dumps(news))

    def _end_now(self, lifecycle: Lifecycle) -> None:
        """End the process of a worker whose background threads have given up, and which stays in a hook."""
        failure = lifecycle.context.background.failure
        if lifecycle.outcome is None and failure is not None:
            self.report_exit(Outcome(crash("background", failure, lifecycle.path)))
            end_process(_INTERNAL_ERROR, wait=False)

    def send(self, report: WorkerReport, payload: bytes | Pieces = b"") -> None:
        """Send one frame to the hub; do nothing if the hub is gone."""
        send_held()
        with contextlib.suppress(OSError):
            self._writer.write(report, payload, long_header=True)

    def _send_log(self, fields: dict[str, Any]) -> None:
        self._tail.write(f"{fields['levelname'].lower()}: {fields['msg']}\n")
        self.send(LogReport(fields))

    def _send_printed(self, position: int, data: bytes) -> None:
        self.send(TailReport(position, data))

    def report_exit(self, outcome: Outcome) -> None:
        """Send the last frame: how the incarnation ended, and its result."""
        reason, result = outcome.reason, b""
        if outcome.result is not None:
            try:
                result = outcome.result.data
            except BaseException as error:
                reason = crash("result", error, "result")
        report = ExitReport(codec.dumps(reason), outcome.ignored, outcome.result is not None, outcome.hands_over)
        self.send(report, result)

    def return_messages(self, mailbox: SocketMailbox, incarnation: Incarnation) -> None:
        """Send the messages that were not handled back to the hub, for the next incarnation.

        The hub may have sent some more before it got the exit report; `EndOfMessages` follows them.
        """
        path, until = incarnation.path, time.monotonic() + incarnation.grace
        count = size = 0
        poll = select.poll()
        while True:
            for message in mailbox.take_unhandled():
                count, size = count + 1, size + message.body.size
                if count > MOST or size > MOST_BYTES:  # the hub would not keep more for a worker that is restarting
                    message.fail(MailboxFull(f"too many messages wait for {path!r}", path=path))
                elif isinstance(message.reply, _AnswerSender):
                    data = message.body.data
                    kept = data if is_in_pieces(behind_table(data)) else b""
                    self.send(ReturnMessage(message.kind, message.reply.number), kept)
                elif message.origin is None or not message.origin.send_back(message):
                    self.send(ReturnMessage(message.kind, None, message.carrier), message.body.data)
            left = until - time.monotonic()
            if self._has_all_messages or left <= 0 or (control := mailbox.descriptor) is None:
                return
            poll.register(control, select.POLLIN)
            poll.poll(min(left, 3600.0) * 1000)

    def _watch_hub(self, mailbox: SocketMailbox, grace: float, stops_last: bool) -> None:
        """Wait for the hub's end; then ask the worker to finish, and end the process when its grace is over."""
        poll = select.poll()
        poll.register(self._sock, select.POLLRDHUP)
        poll.poll()
        if stops_last:  # the storage ends by itself after all others; if it does not, the keeper ends it
            mailbox.ring()
            time.sleep(self._orphan_timeout + 1.0)
        else:
            mailbox.order_stop(Shutdown("the program that owned it is gone"), 0.0)
            time.sleep(min(grace, self._orphan_timeout))
        end_process(_INTERNAL_ERROR, wait=False)


class _AnswerSender:
    """Sends the answer to a message to the hub."""

    __slots__ = ("_process", "number")

    def __init__(self, process: WorkerProcess, number: int) -> None:
        self._process = process
        self.number: int = number

    def __call__(self, ok: bool, payload: Payload) -> None:
        known = self._process.known
        data = payload.parts_for(known)
        self._process.send(MessageAnswered(self.number, ok), data)
        known.note_sent(data)


class _OutputSender:
    """Sends the output of a command to the hub, without waiting; does nothing if the hub is gone."""

    def __init__(self, sock: socket.socket, writer: FrameWriter, listening: memoryview[int]) -> None:
        self._sock = sock
        self._writer = writer
        self._listening = listening

    @property
    def wanted(self) -> bool:
        return bool(self._listening[0])

    @property
    def blocked(self) -> bool:
        return self._writer.waiting

    def fileno(self) -> int:
        return self._sock.fileno()

    def send(self, pid: int, program: str, runs: Runs) -> None:
        with contextlib.suppress(OSError):
            self._writer.offer(OutputReport(pid, encodable(program), runs), long_header=True)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._writer.flush()


class _ProcessActor(WorkerActor):
    """Runs the worker in this process, and reports to the hub."""

    def __init__(self, lifecycle: Lifecycle, mailbox: SocketMailbox, process: WorkerProcess) -> None:
        super().__init__(lifecycle, mailbox)
        self._mailbox = mailbox
        self._process = process

    def on_ready(self) -> None:
        self._process.send(WorkerReady(self.lifecycle.context.pid))

    def on_checkpoint(self, payload: Payload) -> None:
        self._process.send(CheckpointReport(), payload.data)

    def on_over(self, outcome: Outcome) -> None:
        self._process.report_exit(outcome)
        self._mailbox.cut()
        if outcome.hands_over:
            self._process.return_messages(self._mailbox, self.lifecycle.incarnation)


def _call_excepthook(error: BaseException) -> None:
    """Show the crash to the program's own `sys.excepthook`; Python's own would only print what the log has."""
    if sys.excepthook is not sys.__excepthook__:
        sys.excepthook(type(error), error, error.__traceback__)


class _Nothing(Process):
    """A worker whose loop does nothing, for the warm-up."""

    def loop(self) -> None: ...


def _reseed() -> None:
    """Seed numpy's global generator, if numpy is preloaded, as the random module seeds its own after a fork.

    Otherwise all workers would draw the same numbers.
    """
    generator = sys.modules.get("numpy.random.mtrand")
    if generator is not None:
        generator.seed()


def warm_up(board: Board) -> None:
    """Run the life cycle of a worker that does nothing, from its announcement to its first loop.

    A forked process copies each page of memory when it first writes to it. Most of the pages that the start of a
    worker writes to are copied here, while no start waits for it. Those of a worker's end are not: nothing waits for
    an end, and a worker that is killed needs none of them.
    """
    ours, theirs = socket_pair()
    with ours, theirs:
        ours.sendall(_FIRST_FRAME)
        process = WorkerProcess("", board, 0.0)
        process.connect(theirs)
        if process.announce() and (received := process.receive_first()) is not None:
            order, recipe_data, _ = received
            assert isinstance(order, StartWorker)
            slot = Slot(memoryview(bytearray(SLOT_BYTES)))
            counts = ConnectionCounts(memoryview(bytearray(COUNTS_BYTES)))
            mailbox = SocketMailbox(slot, counts, theirs, process.handle)
            incarnation = codec.loads(order.incarnation)
            codec.loads(order.context)
            lifecycle = Lifecycle(loads_with_descriptors(recipe_data, []), incarnation, mailbox, slot)
            _ProcessActor(lifecycle, mailbox, process).on_start()
            mailbox.get()
            lifecycle.iterate()
            lifecycle.close()
            mailbox.close()


compile_now(Incarnation, Lost, Message, Normal, Outcome, ProcessContext, Recipe, Signaled)

_FIRST_FRAME = wire.encode(
    StartWorker(
        codec.dumps(Incarnation("", 0)), codec.dumps(ProcessContext("", os.sep, [], [], "", {}, {})), 0, {}, False
    ),
    codec.dumps(Recipe(_Nothing)),
)
"""What the hub would send to the worker of the warm-up."""
