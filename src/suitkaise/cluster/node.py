"""A node: the process on a machine of the cluster that runs workers for a program on another machine.

It has what a program of one machine has below its supervisors: a private directory, a status board, the engine for
processes with its keeper, and a socket for the requests of workers. Supervisors, refs and the storage are the
program's. If the program is gone, or was not heard for the time of the lease, the node ends at once; then its keeper
does what it does when a program is gone: it asks the workers to finish, and kills what is left after their time.
"""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextvars import copy_context
from dataclasses import replace
from typing import Any

from suitkaise.cluster.link import Link, connect
from suitkaise.cluster.protocol import (
    AnswerOfHub,
    Beat,
    Buried,
    Bury,
    Checkpoint,
    Deliver,
    DropUpTo,
    Exited,
    Finish,
    Forget,
    HubFrame,
    Kill,
    LinesRead,
    Listen,
    LogLevels,
    LogLines,
    LogOutput,
    LogRecord,
    MessageDone,
    News,
    Pulse,
    Quit,
    ReadLines,
    Ready,
    Recycle,
    Returned,
    Room,
    Spawn,
    StreamData,
    StreamEnd,
    Suspend,
    Trace,
    Traced,
    View,
    Welcome,
    decode_hub_frame,
)
from suitkaise.cluster.relay import Relay
from suitkaise.cluster.tunnel import TunnelEntry
from suitkaise.crashes import CrashReport
from suitkaise.engines.engine import EngineContext, Exit, Launch, Surroundings
from suitkaise.engines.processes import ProcessEngine, ProcessHandle
from suitkaise.errors import MailboxFull, WorkerDead
from suitkaise.events import Event
from suitkaise.messaging import codec
from suitkaise.messaging.log_rings import LogRings, Run
from suitkaise.messaging.logs import CommandOutput, Forwarded, ForwardingHandler, LogSource
from suitkaise.messaging.messages import Answer, Message, Payload, crash
from suitkaise.messaging.protocol import RequestKind
from suitkaise.messaging.tracing import enter
from suitkaise.platform.board import Board, SlotView
from suitkaise.platform.log_levels import apply_levels
from suitkaise.platform.log_queue import LogQueue, QueuedLogger
from suitkaise.platform.reactor import Reactor
from suitkaise.platform.runtime_directory import BOARD, HUB_SOCKET, RuntimeDirectory, remove_when_unused, sweep
from suitkaise.records import dataclass
from suitkaise.specs import Child
from suitkaise.supervision.background import BackgroundSupervisor
from suitkaise.supervision.hang_detector import watch
from suitkaise.supervision.memory_limit import MemoryWatch

__all__ = ["Node", "Settings", "pulse_of", "version"]

logger: QueuedLogger = QueuedLogger("suitkaise.cluster")

STORAGE = "storage"
"""The folder in a node's directory that leads to the program's storage."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What a node is told at its start.

    Args:
        address: host and port at which the program listens.
        key: the program's key.
        name: the node's name for the program.
        version: of suitkaise, in the program.
        lease: seconds without a sign of life after which the program is taken to be gone.
        orphan_timeout: the longest time in seconds that a worker may take to finish then.
        surroundings: what workers take over of the program.
    """

    address: tuple[str, int]
    key: bytes
    name: bytes
    version: str
    lease: float
    orphan_timeout: float
    surroundings: Surroundings


def version() -> str:
    """Return the version of suitkaise here."""
    return str(sys.modules["suitkaise"].__version__)


def pulse_of(lease: float) -> float:
    """Return the seconds between two signs of life."""
    return min(1.0, lease / 4)


class Node:
    """The node in this process, on the machine of that id; `run` serves until the end."""

    def __init__(self, settings: Settings, machine: str) -> None:
        self._settings = settings
        self._workers: dict[int, _Worker] = {}
        self._newest: dict[str, int] = {}  # by path
        self._tunnel: TunnelEntry | None = None  # to the storage, if a worker uses it
        self._children: dict[str, tuple[Child, bytes]] = {}
        self._heard = time.monotonic()
        self._over = threading.Event()
        self._quits = False
        sweep()
        with contextlib.ExitStack() as made:
            self._home = RuntimeDirectory()
            made.callback(self._home.remove)
            board = Board.create(os.path.join(self._home.path, BOARD))
            made.callback(board.close)
            log_queue = LogQueue()
            made.callback(log_queue.close)
            self.reactor: Reactor = Reactor()
            made.callback(self.reactor.close)
            self.context: EngineContext = EngineContext(
                self._home.path, board, self.reactor, settings.orphan_timeout, log_queue=log_queue,
                publish=self._send_news, report=self._send_news, supervise=BackgroundSupervisor,
                log_rings=_Rings(self), surroundings=_surroundings(settings.surroundings),
            )  # fmt: skip
            self.context.logs = _Logs(self)
            self._relay = Relay(
                self.context.file(HUB_SOCKET), self.reactor, lambda pid: self.context.paths_by_pid.get(pid, ""),
                lambda frame, payload: self.link.send(frame, payload, force=False),
                {RequestKind.STORAGE: self._storage},
            )  # fmt: skip
            made.callback(self._relay.close)
            made.callback(self.reactor.close)
            processes = ProcessEngine(self.context)
            made.callback(processes.close)
            commands = ProcessEngine(self.context, for_commands=True)
            made.callback(commands.close)
            self.engines: dict[str, ProcessEngine] = {"process": processes, "command": commands}
            sock = connect(settings.address, settings.key, settings.name)
            self.link: Link = Link(self.reactor, sock, "program", decode_hub_frame, self._on_frame, self._end_now)
            self._made = made.pop_all()
        self.reactor.on_end = lambda error: self._end_now(f"internal error: {error!r}")
        self.link.send(
            Welcome(
                socket.gethostname(),
                machine,
                os.getpid(),
                self._home.path,
                _home(),
                version(),
                platform.python_version(),
            )
        )
        own = logging.getLogger("suitkaise")
        own.addHandler(ForwardingHandler(lambda fields: self.link.send(LogRecord(0, fields))))
        own.propagate = False
        self.reactor.call_soon_threadsafe(self.link.begin)
        self.reactor.call_soon_threadsafe(self._pulse)

    def run(self) -> None:
        """Serve until the program orders the end; a process whose program is gone is ended in here."""
        self._over.wait()
        self._made.close()
        self.link.close()  # last: the program takes it for the end of all

    # ------------------------------------------------------------ the lease
    def _pulse(self) -> None:
        self._check_lease()
        views = [worker.view() for worker in self._workers.values()]
        self.link.send(Pulse([view for view in views if view is not None]))
        self.reactor.call_at(time.monotonic() + pulse_of(self._settings.lease), self._pulse)

    def _check_lease(self) -> None:
        """End if the program was not heard for too long. It may have given this node up, even if it is heard again."""
        silence = time.monotonic() - self._heard
        if silence > self._settings.lease:
            self._end_now(f"the program was not heard for {silence:.1f} s")

    def _end_now(self, why: str, closed: bool = False) -> None:
        """End this process without touching its workers: the keeper sees to them, as when a program is gone."""
        if not self._over.is_set():
            sys.stderr.write(f"suitkaise node {os.getpid()}: the end, {why}\n")
            sys.stderr.flush()
        os._exit(0)

    def _quit(self) -> None:
        """Have the workers finish, and end after the last one."""
        self._quits = True
        for worker in list(self._workers.values()):
            worker.finish(self._settings.orphan_timeout)
        self._end_if_over()

    def _end_if_over(self) -> None:
        if self._quits and not self._workers:
            self._over.set()

    def _bury(self, directory: str) -> None:
        """Report that nothing uses the directory of a former node any more; it is removed by then."""
        remove_when_unused(directory, self._settings.orphan_timeout)
        if not os.path.exists(directory):
            self.link.send(Buried(directory))

    # ------------------------------------------------------------ orders of the program (reactor's thread)
    def _on_frame(self, frame: HubFrame, payload: bytes) -> None:
        self._check_lease()
        match frame:
            case Beat():
                self._heard = time.monotonic()
            case Spawn():
                self._spawn(frame, payload)
            case AnswerOfHub():
                self._relay.answer(frame, payload)
            case LogLevels(levels):
                apply_levels(levels)
                self.engines["process"].set_log_levels(levels)
            case Forget(path):
                self._children.pop(path, None)
                for engine in self.engines.values():
                    engine.forget(path)
            case StreamData() | StreamEnd():
                if self._tunnel is not None:
                    self._tunnel.on_frame(frame, payload)
            case Quit():
                self._quit()
            case Bury(directory):
                threading.Thread(target=self._bury, args=(directory,), name="suitkaise-bury", daemon=True).start()
            case _:
                worker = self._workers.get(frame.worker)
                if worker is not None:  # else it has ended, and the program learns that in a moment
                    worker.carry_out(frame, payload)

    def _spawn(self, order: Spawn, recipe: bytes) -> None:
        child, incarnation = codec.loads(order.what)
        leave = enter(order.carrier)
        launch = Launch(self._child(incarnation.path, child, bytes(recipe)), incarnation, copy_context())
        try:
            handle = self.engines[launch.child.kind].spawn(launch)
        except Exception as error:
            exit = Exit(crash("start", error, launch.path))
            self.link.send(Exited(order.worker, codec.dumps(exit), False, None))
            return
        finally:
            leave()
        self._newest[launch.path] = order.worker
        self._workers[order.worker] = _Worker(self, order.worker, launch, handle)

    def _child(self, path: str, child: Child, recipe: bytes) -> Child:
        """Return the declaration, the same object as at the last start if it is the same declaration."""
        known = self._children.get(path)
        if known is not None and known == (child, recipe):
            return known[0]
        self._children[path] = child, recipe
        self.engines[child.kind].accept(path, child, recipe)
        return child

    def forget(self, number: int) -> None:
        """Forget a worker that has ended."""
        worker = self._workers.pop(number)
        if self._newest.get(worker.launch.path) == number:
            del self._newest[worker.launch.path]
        self._end_if_over()

    def _storage(self) -> Answer[str]:
        """Return the directory that leads to the program's storage, which is started if it does not run."""
        answer: Answer[str] = Answer()

        def found(done: Any) -> None:
            try:
                answer.set_result(self._tunnel_to(origin.result(0)))
            except Exception as error:
                answer.set_exception(error)

        origin: Answer[str] = self._relay.request(RequestKind.STORAGE)
        origin.when_done(found)
        return answer

    def _tunnel_to(self, origin: str) -> str:
        if self._tunnel is None:
            self._tunnel = TunnelEntry(self.context.file(STORAGE), self.reactor, self.link.send, origin)
        return self._tunnel.directory

    # ------------------------------------------------------------ news
    def worker_at(self, path: str) -> int | None:
        """Return the number of the newest worker at a path."""
        return self._newest.get(path)

    def _send_news(self, news: Event | CrashReport) -> None:
        age = max(0.0, time.monotonic() - news.at) if isinstance(news, Event) else 0.0
        self.link.send(News(age), codec.dumps(news))


class _Worker:
    """A worker on this node: its handle, and the reports about it."""

    def __init__(self, node: Node, number: int, launch: Launch, handle: ProcessHandle) -> None:
        self.launch = launch
        self._node = node
        self._number = number
        self._handle = handle
        self._suspended = False
        self._late: list[Message] = []  # came after its end; they are for the next incarnation
        handle.on_checkpoint = lambda payload: self._send(Checkpoint(number), payload.data)
        handle.ready.add_done_callback(lambda ready: self._send(Ready(number, ready.result())))
        child, reactor = launch.child, node.reactor
        watch(child, handle, time.monotonic, reactor.call_at, lambda: self._suspended)
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
        self._node.link.send(frame, payload)

    def carry_out(self, frame: Any, payload: bytes) -> None:
        """Carry out an order."""
        handle = self._handle
        match frame:
            case Deliver():
                self._deliver(frame, payload)
            case Finish(_, drain):
                handle.stop(drain)
            case Suspend(_, on):
                self._suspended = on
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

    def finish(self, most: float) -> None:
        """Ask the worker to finish, and kill it after its time, or after so many seconds."""
        self._handle.stop(0.0)
        seconds = min(self.launch.incarnation.grace, most)
        self._node.reactor.call_at(time.monotonic() + seconds, lambda: self._handle.kill("shutdown timeout"))

    def _deliver(self, frame: Deliver, payload: bytes) -> None:
        number = frame.number
        reply = None if number is None else _Reply(self._send, self._number, number)
        deadline = None if frame.left is None else time.monotonic() + frame.left
        message = Message(frame.kind, Payload(data=payload), reply, frame.sender, frame.carrier, deadline=deadline)
        try:
            self._handle.deliver(message, accepted=frame.accepted)
        except WorkerDead:
            self._late.append(message)
        except MailboxFull as error:
            if reply is None:
                logger.warning("a message to %r is dropped: %s", self.launch.path, error)
            message.fail(error)

    def view(self, view: SlotView | None = None) -> View | None:
        """Return what the worker's slot shows, in ages; None if it has ended."""
        if view is None:
            view = self._handle.snapshot()
            if view is None:
                return None
        now = time.monotonic()
        return View(
            self._number, view.pid, view.phase, _age(view.since, now), view.loops, view.last_loop_time,
            view.total_loop_time, view.messages, view.queued, view.looping, _age(view.started, now), view.skipped,
            _age(view.oldest, now),
        )  # fmt: skip

    def _report_room(self, dropped: int) -> None:
        """Tell the program, which sees no board here, what was taken out; have the next one told, too."""
        self._handle.inbox.want_room()  # first: what is taken out from now on is told
        self._send(Room(self._number, dropped, *self._handle.inbox.counts))

    def _report_exit(self, exit: Exit) -> None:
        for message in (*exit.returned, *self._late):
            number = message.reply.number if isinstance(message.reply, _Reply) else None
            self._send(Returned(self._number, message.kind, number, message.carrier), message.body.data)
        result = exit.result
        view = None if exit.view is None else self.view(exit.view)
        plain = replace(exit, result=None, returned=(), view=None, unhandled=exit.unhandled + len(self._late))
        has_result = result is not None
        self._send(Exited(self._number, codec.dumps(plain), has_result, view), b"" if result is None else result.data)
        self._node.forget(self._number)


class _Reply:
    """Sends the answer to a message of the program."""

    __slots__ = ("_send", "_worker", "number")

    def __init__(self, send: Callable[[Any, bytes], None], worker: int, number: int) -> None:
        self._send = send
        self._worker = worker
        self.number = number

    def __call__(self, ok: bool, payload: Payload) -> None:
        self._send(MessageDone(self._worker, self.number, ok), payload.data)


class _Rings(LogRings):
    """Passes on what workers print; their log records go another way."""

    def __init__(self, node: Node) -> None:
        super().__init__()
        self._node = node

    def put(self, path: str, run: Run) -> None:
        """Send the lines to the program."""
        number = self._node.worker_at(path)
        if number is not None and run.stream in ("stdout", "stderr"):
            self._node.link.send(LogLines(number, run.stream, run.time, list(run.texts)))


class _Logs(Forwarded):
    """Passes on the log records of workers and the output of commands."""

    def __init__(self, node: Node) -> None:
        super().__init__(node.reactor, node.context.log_queue)
        self._node = node

    def put(self, fields: dict[str, Any], source: LogSource) -> None:
        """Send a record to the program."""
        path = self._node.context.paths_by_pid.get(getattr(source, "pid", None) or 0, "")
        number = self._node.worker_at(path)
        if number is not None:
            self._node.link.send(LogRecord(number, fields))

    def put_output(self, output: CommandOutput, source: LogSource) -> None:
        """Send some output of a command to the program."""
        number = self._node.worker_at(output.path)
        if number is not None:
            self._node.link.send(LogOutput(number, output.pid, output.program, list(output.runs)))


def _home() -> str:
    """Return what names this running system, and the part of its file system that this process sees."""
    with open("/proc/sys/kernel/random/boot_id") as file:
        return f"{file.read().strip()} {os.stat('/proc/self/ns/mnt').st_ino} {os.stat('/proc/self/ns/pid').st_ino}"


def _age(time_of: float | None, now: float) -> float | None:
    return max(0.0, now - time_of) if time_of else None


def _surroundings(theirs: Surroundings) -> Surroundings:
    """Return what workers here take over of the program: of its directories those that this machine has, too."""
    try:
        own = os.getcwd()
    except FileNotFoundError:
        own = os.sep
    directory = theirs.directory if os.path.isdir(theirs.directory) else own
    shared = [one for one in theirs.search_path if not one or os.path.exists(one)]
    search_path = shared + [one for one in sys.path if one not in shared]
    return theirs._replace(directory=directory, search_path=search_path)
