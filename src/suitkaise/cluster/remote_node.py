"""The program's side of a node: its process, its connection, its workers, and the judgment that it is lost.

A node may be gone, or only out of reach. As long as its workers may still run, the program must not start them again
elsewhere: then two would do the same work. So a node that was lost is over

- when another node on the same machine has seen that nothing of it is left; or
- when its connection was closed by its machine, so its process has ended: after the time that its keeper gives to the
  workers then; or
- after the time of the lease and that time, where nothing is heard at all: by then it has ended by itself.

Until then its workers are neither dead nor replaced. What it sends late is not read.
"""

from __future__ import annotations

import platform
import socket
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from enum import Enum
from typing import Any, Protocol

import msgspec

from suitkaise.cluster.link import Link
from suitkaise.cluster.machines import Ended, Machine, NodeProcess
from suitkaise.cluster.node import Settings, pulse_of
from suitkaise.cluster.node_logs import WINDOW, weight_of
from suitkaise.cluster.protocol import (
    AnswerOfHub,
    Beat,
    Buried,
    Deliver,
    Figures,
    LogLevels,
    LogLines,
    LogOutput,
    LogRecord,
    LogsTaken,
    News,
    NodeFrame,
    Pulse,
    Quit,
    RequestOfWorker,
    StreamData,
    StreamEnd,
    StreamOpen,
    Welcome,
    WorkerGone,
    decode_node_frame,
)
from suitkaise.cluster.remote_worker import RemoteWorker
from suitkaise.cluster.tunnel import TunnelExit
from suitkaise.crashes import CrashReport
from suitkaise.engines.engine import EngineContext
from suitkaise.errors import MailboxFull, SuitkaiseError
from suitkaise.events import NodeLost, NodeReady
from suitkaise.exits import Crashed, ExitReason, Lost
from suitkaise.messaging import codec
from suitkaise.messaging.connection import BACKLOG
from suitkaise.messaging.pieces import Pieces
from suitkaise.messaging.protocol import Ask, HubAnswer, WorkerFrame
from suitkaise.platform.condition import OwnFuture
from suitkaise.platform.locks import RLock
from suitkaise.platform.log_levels import levels

__all__ = ["MARGIN", "NodeOwner", "RemoteNode", "RequestServer", "Serve"]

MARGIN = 1.0
"""Seconds that are added to each time after which a worker must be gone: clocks differ a little, machines are busy."""


_ENDED = "it was ended"


class RequestServer(Protocol):
    """Carries out the requests of one process; see `runtime.requests`."""

    def serve(self, frame: WorkerFrame, payload: bytes, sender: str) -> None:
        """Carry out a request of the worker at the path `sender`; an answer follows."""
        ...

    def close(self) -> None:
        """End the requests that are under way: the process is gone."""
        ...


class Serve(Protocol):
    """Makes a `RequestServer`, which sends its answers by `send`."""

    def __call__(self, send: Callable[[HubAnswer, bytes | Pieces], None]) -> RequestServer:
        """Make it."""
        ...


class NodeOwner(Protocol):
    """The engine, as far as its nodes know it. Called in the reactor's thread."""

    def on_ready(self, node: RemoteNode) -> None:
        """The node is connected."""

    def on_lost(self, node: RemoteNode) -> None:
        """The node is lost: no worker can be started there any more."""

    def on_over(self, node: RemoteNode) -> None:
        """Nothing of the node is left, and nothing of it will be heard."""

    def trees_of(self, node: RemoteNode) -> set[str]:
        """Return the names of the trees that have workers there."""
        ...

    def on_buried(self, directory: str) -> None:
        """Nothing is left of the node that had this directory."""


class _Phase(Enum):
    STARTING = 1
    READY = 2
    LOST = 3
    OVER = 4


class RemoteNode:
    """One node, from the request for its process on.

    Args:
        context: the program.
        settings: what the node is told.
        machine: where it runs; None: where the cluster has room for it.
        owner: is told what happens to it.
        serve: carries out the requests of its workers.
        storage: returns the directory of the program's storage; None while it does not run.
        start_timeout: seconds within which it must be connected.
        is_dedicated: whether it is there for one child alone.
    """

    stopping: bool = True  # as a source of log records: it is never paused

    def __init__(
        self,
        context: EngineContext,
        settings: Settings,
        machine: Machine | None,
        owner: NodeOwner,
        serve: Serve,
        storage: Callable[[], str | None],
        start_timeout: float,
        *,
        is_dedicated: bool,
    ) -> None:
        self.settings = settings
        self.machine_id: str | None = None if machine is None else machine.id
        self.is_dedicated = is_dedicated
        self.is_silent: bool = False
        self.gone: Future[None] = OwnFuture()
        self.name: str = "a node" if machine is None else _named(machine)
        self.directory: str | None = None
        self.home: str = ""
        self.pid: int | None = None
        self.figures: Figures | None = None
        self._used: tuple[Figures, dict[int, tuple[float | None, int]]] | None = None  # the same by worker
        self.workers: dict[int, RemoteWorker] = {}
        self._context = context
        self._owner = owner
        self._serve = serve
        self._process: NodeProcess | None = None
        self._link: Link | None = None
        self._phase = _Phase.STARTING
        self._lock = RLock()  # a signal handler may send a message, too
        self._waiting: list[tuple[Any, bytes | Pieces]] = []
        self._waiting_bytes = 0  # of messages
        self._taken = 0  # of its workers' logging, since the last time that it was told
        self._requests: dict[int, RequestServer] = {}
        self._tunnel = TunnelExit(context.reactor, self.send, self._has_room, storage)
        self._last_sent = time.monotonic()  # until then the node may have heard the program
        self._link_ended = False
        self._is_gone = False  # its process has ended for certain; its workers may be about to
        self._why = ""
        self._over_at = float("inf")
        self._start_timer = context.reactor.call_at(
            time.monotonic() + start_timeout,
            lambda: self.fail(SuitkaiseError(f"{self.name} of the cluster was not ready within {start_timeout:g} s")),
        )

    # ------------------------------------------------------------ from any thread
    @property
    def is_open(self) -> bool:
        """Whether workers can be started on it, or will be as soon as it is connected."""
        return self._phase in (_Phase.STARTING, _Phase.READY)

    @property
    def is_ready(self) -> bool:
        """Whether it is connected."""
        return self._phase is _Phase.READY

    def add(self, worker: RemoteWorker) -> bool:
        """Start a worker on it; return False if it was lost meanwhile."""
        with self._lock:
            if not self.is_open:
                return False
            self.workers[worker.number] = worker
            if not worker.place(self):
                del self.workers[worker.number]
            return True

    def withdraw(self, worker: RemoteWorker) -> bool:
        """Forget a worker that was not started yet; return False if it was."""
        with self._lock:
            if self._phase is not _Phase.STARTING:
                return False
            self.workers.pop(worker.number, None)
            return True

    def send(self, frame: Any, payload: bytes | Pieces = b"", *, force: bool = True) -> None:
        """Send a frame, or keep it until the node is connected; drop it if the node is lost.

        Raises:
            MailboxFull: too much waits already. Not with `force`.
        """
        with self._lock:
            if self._phase is _Phase.STARTING:
                if not force and self._waiting_bytes and self._waiting_bytes + len(payload) > BACKLOG:
                    raise MailboxFull(f"{self._waiting_bytes} bytes already wait for {self.name}")
                self._waiting.append((frame, bytes(payload)))
                if isinstance(frame, Deliver):
                    self._waiting_bytes += len(payload)
                return
            link = self._link
        if link is not None and not self._link_ended and not self.is_silent:
            link.send(frame, payload, force=force)

    def _has_room(self) -> bool:
        return self._link is None or self._link.has_room

    def runs_in(self, process: NodeProcess) -> None:
        """Take the process that runs it, or will run it."""
        self._process = process

        def ended(done: Any) -> None:
            self._context.reactor.call_soon_threadsafe(lambda: self._process_ended(process.ended.result()))

        process.ended.add_done_callback(ended)

    def kill(self) -> None:
        """Have its process killed."""
        if self._process is not None:
            self._process.kill()

    @property
    def facts(self) -> dict[str, Any] | None:
        """What it is and does, as plain values; None if it was ended in order."""
        if self._why == _ENDED:
            return None
        link, figures = self._link, self.figures
        return {
            "name": self.name,
            "machine": self.machine_id,
            "pid": self.pid,
            "status": "running" if self.is_ready else "starting" if self.is_open else "lost",
            "why": self._why,
            "dedicated": self.is_dedicated,
            "workers": len(self.workers),
            "silent": None if link is None else max(0.0, time.monotonic() - link.heard),
            "cpu": None if figures is None else figures.cpu,
            "cpus": None if figures is None else figures.cpus,
            "memory": None if figures is None else figures.memory,
            "memory_total": None if figures is None else figures.memory_total,
        }

    def used_by(self, number: int) -> tuple[float | None, int] | None:
        """Return CPU and memory of a worker, as last told; None if they were not. The table is made when it is read."""
        if (figures := self.figures) is None:
            return None
        if (used := self._used) is None or used[0] is not figures:
            used = self._used = figures, {worker: (cpu, memory) for worker, cpu, memory in figures.workers}
        return used[1].get(number)

    def quit(self) -> None:
        """Have it end: it has no workers any more."""
        self._context.reactor.call_soon_threadsafe(self._quit)

    # ------------------------------------------------------------ its connection (reactor's thread)
    def connected(self, sock: socket.socket) -> None:
        """Take its connection."""
        if self._phase is not _Phase.STARTING or self._link is not None:
            sock.close()
            return
        self._link = Link(self._context.reactor, sock, self.name, decode_node_frame, self._on_frame, self._on_link_end)
        self._link.on_room = self._tunnel.resume
        self._link.begin()

    def _welcome(self, welcome: Welcome) -> None:
        ours = self.settings.version, platform.python_version_tuple()[:2]
        if (welcome.version, tuple(welcome.python.split(".")[:2])) != ours:
            self.fail(
                SuitkaiseError(
                    f"{self.name} of the cluster has Python {welcome.python} and suitkaise {welcome.version}, and this "
                    f"program Python {platform.python_version()} and suitkaise {ours[0]}: both must be the same "
                    "everywhere (of Python, the first two numbers)"
                )
            )
            return
        self.directory, self.home, self.pid = welcome.directory, welcome.home, welcome.pid
        if self.machine_id is None:
            self.machine_id, self.name = welcome.machine, f"{welcome.host} ({welcome.machine[:8]})"
        self._start_timer.cancel()
        assert self._link is not None
        with self._lock:
            self._phase = _Phase.READY
            self._link.send(LogLevels(levels()))
            for frame, payload in self._waiting:
                if getattr(frame, "worker", None) in (None, *self.workers):  # others were given up meanwhile
                    self._link.send(frame, payload)
            self._waiting.clear()
        for tree in self._owner.trees_of(self):
            self._context.publish(NodeReady(tree, time.monotonic(), self.name))
        self._owner.on_ready(self)
        self._beat()

    def _beat(self) -> None:
        """Send a sign of life, and look when the node has sent the last one.

        To a node that is silent nothing is sent: its lease is to end at about the time of the judgment.
        """
        if self._phase is not _Phase.READY or self._link is None:
            return
        silence = time.monotonic() - self._link.heard
        if silence > self.settings.lease:
            self.is_silent = True
            self._lose(f"it was not heard for {silence:.1f} s")
            return
        if not self._link.is_held:
            self._last_sent = time.monotonic()
        if silence <= 2 * pulse_of(self.settings.lease):
            self._link.send(Beat())
        else:
            self._link.hold()
        self._context.reactor.call_at(time.monotonic() + pulse_of(self.settings.lease), self._beat)

    def _on_link_end(self, why: str, closed: bool) -> None:
        self._link_ended, self._is_gone = True, self._is_gone or closed
        if self._phase is _Phase.STARTING:
            self.fail(SuitkaiseError(f"{self.name} of the cluster could not be started: {why}"))
        elif self._why == _ENDED:
            self.bury()
        else:
            self._lose(why)

    def _process_ended(self, ended: Ended) -> None:
        self._is_gone = self._is_gone or ended.certain
        if self._phase is _Phase.STARTING:
            self.fail(SuitkaiseError(f"{self.name} of the cluster could not be started: {ended.why}"))
        elif self._why != _ENDED:
            self._lose(ended.why)

    # ------------------------------------------------------------ its end (reactor's thread)
    def _quit(self) -> None:
        if self._phase is _Phase.STARTING:
            self.fail(SuitkaiseError("the program ends"))
        elif self._phase is _Phase.READY:
            self.send(Quit())
            with self._lock:
                self._phase = _Phase.LOST
            self._why = _ENDED

    def fail(self, error: Exception) -> None:
        """Give up a node that could not be started."""
        if self._phase is _Phase.STARTING:
            self._end(Crashed("start", error))

    def _lose(self, why: str) -> None:
        """Start nothing more here; tell the end of the workers when they must be gone."""
        link = self._link
        if self._phase is _Phase.READY:
            if link is not None and not link.is_held:
                self._last_sent = time.monotonic()
            if link is not None and not self._link_ended:
                link.send_last(Quit())  # if it can still be heard there
            with self._lock:
                self._phase = _Phase.LOST
            self._why = why
            for worker in self._left():
                worker.losing = self._lost
            for tree in self._owner.trees_of(self):
                count = sum(one.launch.path.startswith(f"{tree}/") for one in self._left())
                self._context.publish(NodeLost(tree, time.monotonic(), self.name, why, count))
            if self._process is not None and (self._link_ended or self.is_silent):
                self._process.kill()
            self._owner.on_lost(self)
        self._end_if_over()
        if self._phase is _Phase.LOST:
            grace = max(min(one.launch.incarnation.grace, self.settings.orphan_timeout) for one in self._left())
            last = time.monotonic() if self._is_gone else self._last_sent + self.settings.lease
            over_at = max(time.monotonic(), last) + grace + MARGIN
            if over_at < self._over_at:
                self._over_at = over_at
                self._context.reactor.call_at(over_at, self.bury)

    def _left(self) -> list[RemoteWorker]:
        with self._lock:
            return list(self.workers.values())

    def _end_if_over(self) -> None:
        if self._phase is _Phase.LOST and not self._left():
            self.bury()

    def bury(self) -> None:
        """Report the end of its workers: they must be gone by now."""
        if self._phase is _Phase.LOST:
            self._end(self._lost)

    @property
    def _lost(self) -> Lost:
        return Lost(f"{self.name}: {self._why}", self.name)

    def _end(self, reason: ExitReason) -> None:
        self._start_timer.cancel()
        with self._lock:
            self._phase = _Phase.OVER
            workers, self.workers = self.workers, {}
            self._waiting.clear()
        if self._link is not None:
            self._link.close()
        self._tunnel.close()
        if self._process is not None and self._why != _ENDED:
            self._process.kill()
        self._owner.on_over(self)
        self.gone.set_result(None)
        for requests in self._requests.values():
            requests.close()
        for _, worker in sorted(workers.items()):  # in the order of their starts: see `docs`
            worker.lose(reason)

    # ------------------------------------------------------------ its reports (reactor's thread)
    def _on_frame(self, frame: NodeFrame, payload: bytes) -> None:
        match frame:
            case Pulse(views, dropped):
                if dropped:
                    self._context.logs.note_dropped(dropped)
                now = time.monotonic()
                for view in views:
                    worker = self.workers.get(view.worker)
                    if worker is not None:
                        worker.show(view, now)
            case Figures():
                self.figures = frame
            case RequestOfWorker():
                self._request(frame, payload)
            case WorkerGone(connection):
                requests = self._requests.pop(connection, None)
                if requests is not None:
                    requests.close()
            case News(age):
                news = codec.loads(payload)
                if isinstance(news, CrashReport):
                    self._context.report(news)
                else:
                    self._context.publish(replace(news, at=time.monotonic() - age))
            case StreamOpen() | StreamData() | StreamEnd():
                self._tunnel.on_frame(frame, payload)
            case Buried(directory):
                self._owner.on_buried(directory)
            case Welcome():
                self._welcome(frame)
            case LogRecord(0, fields):
                self._context.logs.put(fields, self)
            case _:
                worker = self.workers.get(frame.worker)
                if worker is not None:
                    worker.on_frame(frame, payload)
                    if worker.exited.done():
                        with self._lock:
                            self.workers.pop(frame.worker, None)
                        self._end_if_over()
                elif isinstance(frame, LogRecord | LogOutput | LogLines):  # of one that was given up
                    self.logs_taken(weight_of(frame))

    def logs_taken(self, weight: int) -> None:
        """Note that so much of what it has sent of its workers' logging is handled; tell it once in a while."""
        with self._lock:
            self._taken += weight
            if self._taken < WINDOW // 8:
                return
            taken, self._taken = self._taken, 0
        self.send(LogsTaken(taken))

    def _request(self, frame: RequestOfWorker, payload: bytes) -> None:
        requests = self._requests.get(frame.connection)
        if requests is None:
            number = frame.connection

            def answer(answer: HubAnswer, data: bytes | Pieces) -> None:
                self.send(AnswerOfHub(number, answer), data)

            requests = self._requests[number] = self._serve(answer)
        request = frame.request
        if isinstance(request, Ask) and request.deadline is not None:
            request = msgspec.structs.replace(request, deadline=time.monotonic() + request.deadline)
        requests.serve(request, payload, frame.path)

    def close_after_fork(self) -> None:
        """In a forked child of the program: close the socket, which is the parent's."""
        if self._link is not None:
            self._link.close_after_fork()
        self._tunnel.close_after_fork()

    def resume_reading(self) -> None:
        """Do nothing: a node is never paused."""

    def pause_reading(self) -> None:
        """Do nothing."""

    def __repr__(self) -> str:
        return f"RemoteNode({self.name!r}, {self._phase.name.lower()}, workers={len(self.workers)})"


def _named(machine: Machine) -> str:
    return machine.name if machine.name == machine.id else f"{machine.name} ({machine.id[:8]})"
