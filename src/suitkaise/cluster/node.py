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
import time
from contextvars import copy_context
from typing import Any

from suitkaise.cluster.link import Link, connect
from suitkaise.cluster.meter import measure
from suitkaise.cluster.node_logs import NodeLogs, NodeRings
from suitkaise.cluster.node_worker import NodeWorker
from suitkaise.cluster.protocol import (
    AnswerOfHub,
    Beat,
    Buried,
    Bury,
    Exited,
    Forget,
    HubFrame,
    LogLevels,
    LogRecord,
    LogsTaken,
    News,
    Pulse,
    Quit,
    RequestOfWorker,
    Spawn,
    StreamData,
    StreamEnd,
    Welcome,
    WorkerGone,
    decode_hub_frame,
)
from suitkaise.cluster.relay import Relay
from suitkaise.cluster.tunnel import TunnelEntry
from suitkaise.crashes import CrashReport
from suitkaise.engines.engine import EngineContext, Exit, Launch, Surroundings
from suitkaise.engines.processes import ProcessEngine
from suitkaise.events import Event
from suitkaise.messaging import codec
from suitkaise.messaging.answer import Answer
from suitkaise.messaging.logs import ForwardingHandler
from suitkaise.messaging.portable_errors import crash
from suitkaise.messaging.protocol import RequestKind
from suitkaise.messaging.tracing import enter
from suitkaise.platform.board import Board
from suitkaise.platform.flag import Flag
from suitkaise.platform.log_levels import apply_levels
from suitkaise.platform.log_queue import LogQueue, QueuedLogger
from suitkaise.platform.reactor import Reactor
from suitkaise.platform.runtime_directory import BOARD, HUB_SOCKET, RuntimeDirectory, remove_when_unused, sweep
from suitkaise.platform.threads import OwnThread
from suitkaise.records import dataclass
from suitkaise.specs import Child
from suitkaise.supervision.background import BackgroundSupervisor

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
        self._workers: dict[int, NodeWorker] = {}
        self._newest: dict[str, int] = {}  # by path
        self._tunnel: TunnelEntry | None = None  # to the storage, if a worker uses it
        self._children: dict[str, tuple[Child, bytes]] = {}
        self._over = Flag()
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
            rings = NodeRings()
            self.context: EngineContext = EngineContext(
                self._home.path, board, self.reactor, settings.orphan_timeout, log_queue=log_queue,
                publish=self._send_news, report=self._send_news, supervise=BackgroundSupervisor,
                log_rings=rings, surroundings=_surroundings(settings.surroundings),
            )  # fmt: skip
            self.context.logs = self._logs = rings.logs = NodeLogs(
                self.reactor, log_queue, lambda frame: self.link.send(frame),  # noqa: PLW0108  (it is made below)
                lambda pid: self._newest.get(self.context.paths_by_pid.get(pid, "")), self._newest.get,
            )  # fmt: skip
            self._relay = Relay(
                self.context.file(HUB_SOCKET), self.reactor, self.context.path_of,
                self._pass_on, {RequestKind.STORAGE: self._storage},
            )  # fmt: skip
            made.callback(self._relay.close)
            made.callback(self.reactor.close)
            processes = ProcessEngine(self.context)
            made.callback(processes.close)
            processes.keeper  # noqa: B018  (it starts before the first worker, and removes the directory at the end)
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
        meter = OwnThread(measure, "suitkaise-meter", (self._pids, self.link.send, self._over))
        meter.start()

    def run(self) -> None:
        """Serve until the program orders the end; a process whose program is gone is ended in here."""
        self._over.wait()
        self._made.close()
        self.link.close()  # last: the program takes it for the end of all

    # ------------------------------------------------------------ the lease
    def _pulse(self) -> None:
        self._check_lease()
        views = [worker.changed_view() for worker in self._workers.values()]
        self.link.send(Pulse([view for view in views if view is not None], self._logs.take_dropped()))
        self.reactor.call_at(time.monotonic() + pulse_of(self._settings.lease), self._pulse)

    def _pids(self) -> dict[int, int]:
        return {pid: number for number, worker in list(self._workers.items()) if (pid := worker.pid) is not None}

    def _check_lease(self) -> None:
        """End if the program was not heard for too long. It may have given this node up, even if it is heard again.

        Whatever is heard is a sign of life: a beat may wait for long behind a large message.
        """
        silence = max(self.link.longest_silence, time.monotonic() - self.link.heard)
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
                pass  # it was heard
            case Spawn():
                self._spawn(frame, payload)
            case AnswerOfHub():
                self._relay.answer(frame, payload)
            case LogLevels(levels):
                apply_levels(levels)
                self.engines["process"].set_log_levels(levels)
            case LogsTaken(weight):
                self._logs.taken(weight)
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
                OwnThread(self._bury, "suitkaise-bury", (directory,)).start()
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
        self._workers[order.worker] = NodeWorker(self, order.worker, launch, handle)

    def _child(self, path: str, child: Child, recipe: bytes) -> Child:
        """Return the declaration, the same object as at the last start if it is the same declaration."""
        known = self._children.get(path)
        if known is not None and known == (child, recipe):
            return known[0]
        self._children[path] = child, recipe
        self.engines[child.kind].accept(path, child, recipe)
        return child

    def send(self, frame: Any, payload: bytes = b"") -> None:
        """Send a frame to the program, from any thread."""
        self.link.send(frame, payload)

    def dead_letter(self, path: str, why: str) -> None:
        """Have the program count a message that was told to the worker at `path` (reactor's thread)."""
        self._relay.dead_letter(path, why)

    def forget(self, number: int) -> None:
        """Forget a worker that has ended."""
        worker = self._workers.pop(number)
        if self._newest.get(worker.launch.path) == number:
            del self._newest[worker.launch.path]
        self._end_if_over()

    def _pass_on(self, frame: RequestOfWorker | WorkerGone, payload: bytes, *, force: bool) -> None:
        """Send what a process of a worker requests; the program then knows whether the worker starts still."""
        if isinstance(frame, RequestOfWorker) and (number := self._newest.get(frame.path)) is not None:
            self._workers[number].show_start()
        self.link.send(frame, payload, force=force)

    def _storage(self) -> Answer[str]:
        """Return the directory that leads to the program's storage, which is started if it does not run."""
        answer: Answer[str] = Answer()

        def started(done: Any) -> None:
            self._relay.request(RequestKind.STORAGE_ADDRESS).when_done(found)

        def found(address: Any) -> None:
            try:
                answer.set_result(self._tunnel_to(origin.result(0), address.result()))
            except Exception as error:
                answer.set_exception(error)

        origin: Answer[str] = self._relay.request(RequestKind.STORAGE)
        origin.when_done(started)
        return answer

    def _tunnel_to(self, origin: str, address: bytes | None) -> str:
        if self._tunnel is None:
            link = self.link
            self._tunnel = TunnelEntry(
                self.context.file(STORAGE), self.reactor, link.send, lambda: link.has_room, origin, address
            )
            link.on_room = self._tunnel.resume
        return self._tunnel.directory

    # ------------------------------------------------------------ news
    def _send_news(self, news: Event | CrashReport) -> None:
        age = max(0.0, time.monotonic() - news.at) if isinstance(news, Event) else 0.0
        self.link.send(News(age), codec.dumps(news))


def _home() -> str:
    """Return what names this running system, and the part of its file system that this process sees."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return f"{file.read().strip()} {os.stat('/proc/self/ns/mnt').st_ino} {os.stat('/proc/self/ns/pid').st_ino}"


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
