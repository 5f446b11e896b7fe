"""The hub's side of the keeper: requests, answers, and a new keeper when the keeper dies or stops answering."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import time
from collections.abc import Callable
from typing import Protocol

import msgspec

from suitkaise.engines import keeper_liveness
from suitkaise.engines.engine import EngineContext
from suitkaise.engines.keeper_liveness import KeeperLiveness
from suitkaise.engines.keeper_process import search_path, start_keeper
from suitkaise.engines.protocol import (
    MAX_DATAGRAM,
    MAX_DESCRIPTORS,
    AdoptProcesses,
    CleaningUp,
    GiveDirectory,
    KeeperAnswer,
    KeeperReady,
    KeeperRequest,
    KeeperWarning,
    PreloadModules,
    ProcessExited,
    QuitKeeper,
    SignalProcess,
    SpawnFailed,
    SpawnProcess,
    decode_keeper_answer,
    encode,
)
from suitkaise.messaging.connection import takes_more_later
from suitkaise.platform.flag import Flag
from suitkaise.platform.inheritance import Inheritance, User
from suitkaise.platform.locks import RLock
from suitkaise.platform.log_queue import QueuedLogger
from suitkaise.platform.preload import listeners, wanted
from suitkaise.platform.processes import has_ended
from suitkaise.platform.reactor import TimerHandle

__all__ = ["KeeperClient", "SpawnRequest"]

logger: QueuedLogger = QueuedLogger("suitkaise.keeper")

_FAILURES = 5
"""How many keepers in a row may end without an answer before the next one is tried only after a pause."""

_PAUSE = 0.1
_LONGEST_PAUSE = 30.0
"""Seconds after which a keeper that could not be started is tried again: doubled each time, up to these."""


_numbers = itertools.count(1)
"""Of all requests of this program, since the mark of a process (`platform.marks`) holds the number."""


class SpawnRequest(Protocol):
    """A process that the keeper is to fork, or has forked. All but `start` is called by the client alone."""

    grace: float
    keep_children: bool
    number: int
    pid: int | None
    pidfd: int | None
    slot: int
    stops_last: bool
    dead: bool

    def start(self) -> None:
        """Ask the client to spawn the process; a failure is reported by `spawn_failed`."""

    def connect(self) -> socket.socket:
        """Make the control connection; return the process's end."""
        ...

    def send_first_frame(self) -> None:
        """Send the first frame, with the recipe."""

    def resume_reading(self) -> None:
        """Start to read the control connection."""

    def cancel_spawn(self) -> bool:
        """Return whether the dead keeper has forked no process for this request that could still start."""
        ...

    def spawn_failed(self, error: str) -> None:
        """There is no process, and there will be none."""

    def exit_status(self, code: int) -> None:
        """The keeper has read the process's exit status: negative for a signal."""

    def exit_status_lost(self) -> None:
        """The keeper is gone, so the process's exit status will never be known."""

    def kill_unwatched(self) -> None:
        """The I/O thread has ended: kill the process, and report its end without waiting for an event."""

    def close_after_fork(self) -> None:
        """In a forked child of the hub: close the descriptors, which are the parent's."""


class KeeperClient:
    """Starts the keeper, sends it requests, and replaces it when it dies or stops answering.

    For each start that a dead keeper has not answered, exactly one question decides: has the process announced itself
    to the hub? If so, the process is alive, and the new keeper adopts it. If not, its connection is shut down, so that
    it can never announce itself and ends, and the start is requested again from the new keeper.

    Args:
        context: the program.
        on_lost: called in the reactor's thread after a keeper has died and the next one was started, if possible.
        for_commands: whether the keeper adopts and kills what commands leave behind.
    """

    def __init__(self, context: EngineContext, on_lost: Callable[[], None], *, for_commands: bool = False) -> None:
        self._context = context
        self._on_lost = on_lost
        self._for_commands = for_commands
        self._lock = RLock()
        self._requests: dict[int, SpawnRequest] = {}  # of this keeper, until their exit status is known
        self._adopted: set[SpawnRequest] = set()  # processes that an earlier keeper has forked
        self._cleaning_up: set[int] = set()
        self._backlog: list[tuple[bytes, list[int]]] = []
        self._waiting_to_send = False
        self._closed = False
        self._failures = 0
        self._down = ""  # why there is no keeper
        self._outage = False  # from then on until the next keeper sends something
        self._pause = _PAUSE
        self._retry: TimerHandle | None = None
        self._liveness = KeeperLiveness(context.reactor, self._lock, self._owes_answer, lambda: self.pid, self._kill)
        self.inherited: Inheritance = {}
        self._start()
        listeners.append(self._preload)

    @property
    def pid(self) -> int:
        """The keeper's process id."""
        return self._program.pid

    # ------------------------------------------------------------ from any thread
    def spawn(self, request: SpawnRequest) -> None:
        """Request a process.

        Raises:
            OSError: there will be none: there is no keeper, or no file descriptor is left. The caller closes the
                request then.
        """
        with self._lock:
            if self._closed:
                raise ChildProcessError("the keeper is gone, and there will be no other")
            if self._down:
                try:
                    self._start()
                except OSError as error:
                    raise ChildProcessError(f"there is no keeper: {error}") from error
            request.number = number = next(_numbers)
            theirs = self._context.reserve.call(request.connect).detach()
            self._requests[number] = request
            self._send(
                SpawnProcess(number, request.grace, request.stops_last, request.keep_children, request.slot), theirs
            )
            self.expect_reply()
            self._context.reserve.call(request.send_first_frame)
            self._context.reactor.call_soon_threadsafe(request.resume_reading)

    def signal(self, number: int, signal_number: int) -> None:
        """Have the keeper send a signal to the process of that request, or kill what the process has left behind."""
        with self._lock:
            if not (self._down or self._closed):
                self._send(SignalProcess(number, signal_number))

    def give_directory_to(self, user: User) -> None:
        """Have the keeper, which may be root still, make that user the owner of the runtime directory."""
        (_, uid, _), (_, gid, _), _ = user
        done, theirs = os.pipe2(os.O_CLOEXEC)
        with self._lock:
            if self._down or self._closed:
                os.close(theirs)
            else:
                self._send(GiveDirectory(uid, gid), theirs)
        has_ended(done, keeper_liveness.PATIENCE)
        os.close(done)

    def forget(self, request: SpawnRequest) -> None:
        """Drop a request whose process has ended and was reported."""
        self._adopted.discard(request)

    def expect_reply(self) -> None:
        """Expect an answer from the keeper; replace the keeper if none comes in time."""
        with self._lock:
            if not self._closed:
                self._liveness.expect_reply()

    def mark_alive(self) -> None:
        """Record a sign that the keeper works."""
        self._liveness.mark_alive()

    def _owes_answer(self) -> bool:
        """Return whether a process was not announced yet, or its exit status not reported after its death."""
        unanswered = (request for number, request in self._requests.items() if number not in self._cleaning_up)
        return not self._closed and any(request.pid is None or request.dead for request in unanswered)

    def _kill(self) -> None:
        self._program.kill()

    def _modules(self) -> list[str]:
        """Return the modules to be preloaded; commands need none of the user's."""
        return ["suitkaise.workers.command"] if self._for_commands else wanted()

    def _preload(self) -> None:
        """Pass on the modules that `preload` has added; until they are imported the keeper counts as starting."""
        if self._for_commands:
            return
        with self._lock:
            if not (self._down or self._closed):
                self._liveness.mark_starting()
                self._send(PreloadModules([*map(os.fsencode, search_path())], wanted()))

    def _send(self, request: KeeperRequest, *descriptors: int) -> None:
        self._backlog.append((encode(request), list(descriptors)))
        self._flush()

    def _flush(self) -> None:
        """Send the datagrams that wait, in order, and close the descriptors that went with them."""
        with self._lock:
            while self._backlog:
                data, descriptors = self._backlog[0]
                try:
                    socket.send_fds(self._sock, [data], descriptors, socket.MSG_NOSIGNAL)
                except OSError as error:
                    if takes_more_later(error):
                        break
                    return  # the keeper is dead: its end-of-file starts a new one, and the requests are repeated
                del self._backlog[0]
                for descriptor in descriptors:
                    os.close(descriptor)
            waiting = bool(self._backlog)
            if waiting is not self._waiting_to_send:
                self._waiting_to_send = waiting
                self._context.reactor.call_soon_threadsafe(self._set_writer)

    def _set_writer(self) -> None:
        with contextlib.suppress(KeyError, ValueError):  # closed
            self._context.reactor.set_writer(self._sock, self._on_event, also=self._waiting_to_send)

    # ------------------------------------------------------------ the keeper's start
    def _start(self) -> None:
        """Start a keeper.

        Raises:
            OSError: that is not possible now.
        """
        context = self._context
        self._program, self._sock, self.inherited = start_keeper(
            context.directory,
            context.board.descriptor,
            self._modules(),
            context.orphan_timeout,
            for_commands=self._for_commands,
        )
        self._waiting_to_send = False
        self._down = ""
        self._liveness.mark_starting()
        if self._retry is not None:
            self._retry.cancel()
        context.reactor.call_soon_threadsafe(self._hand_over)

    def _hand_over(self) -> None:
        """Listen to a new keeper, and have it adopt the live processes (reactor's thread, which learns of exits)."""
        self._context.reactor.add_reader(self._sock, self._on_event)
        alive = [(request, request.pidfd) for request in self._adopted if request.pidfd is not None]
        for some in (alive[start : start + MAX_DESCRIPTORS] for start in range(0, len(alive), MAX_DESCRIPTORS)):
            request = AdoptProcesses([(process.grace, process.stops_last) for process, _ in some])
            with contextlib.suppress(OSError):  # the keeper is dead already; its socket has room for thousands
                socket.send_fds(self._sock, [encode(request)], [pidfd for _, pidfd in some])

    def _retry_later(self, error: OSError) -> None:
        """Go without a keeper, and so without new processes, until a timer or a request has started one."""
        if not self._outage:
            logger.warning("no process can be started now, because there is no keeper: %s", error)
        self._outage = True
        self._down = f"there is no keeper: {error}"
        self._retry = self._context.reactor.call_at(time.monotonic() + self._pause, self._try_again)
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)

    def _try_again(self) -> None:
        with self._lock:
            if self._down and not self._closed:
                try:
                    self._start()
                except OSError as error:
                    self._retry_later(error)

    # ------------------------------------------------------------ its answers (reactor's thread)
    def _on_event(self) -> None:
        if self._backlog:
            self._flush()
        while True:
            try:
                data = self._sock.recv(MAX_DATAGRAM)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self._replace()
                return
            try:
                answer = decode_keeper_answer(data)
            except msgspec.MsgspecError as error:
                logger.error("invalid data from the keeper (pid %s), which is replaced: %s", self.pid, error)
                self._program.kill()
                self._replace()
                return
            self._failures, self._pause = 0, _PAUSE
            self.mark_alive()
            if self._outage:
                self._outage = False
                logger.warning("the keeper is back: processes can be started again")
            self._handle(answer)

    def _handle(self, answer: KeeperAnswer) -> None:
        match answer:
            case ProcessExited(number, code):
                self._cleaning_up.discard(number)
                if number in self._requests:
                    self._requests.pop(number).exit_status(code)
            case SpawnFailed(number, error):
                if number in self._requests:
                    self._requests.pop(number).spawn_failed(error)
            case CleaningUp(number):
                self._cleaning_up.add(number)
            case KeeperReady():
                self._liveness.mark_ready()
            case KeeperWarning(text):
                logger.warning("%s", text)

    def _replace(self) -> None:
        """Start a new keeper after the end of the old one, and repeat the requests that were not answered."""
        with self._lock:
            self._context.reactor.remove_reader(self._sock)
            self._sock.close()
            self._program.wait()
            if self._closed:
                return
            self._discard_backlog()
            requests, self._requests = list(self._requests.values()), {}
            self._adopted.update(requests)
            self._cleaning_up.clear()
            self._liveness.expect_nothing()
            self._failures += 1
            try:
                if self._failures > _FAILURES:
                    code = self._program.returncode
                    raise ChildProcessError(f"{self._failures} keepers ended in a row, the last one with code {code}")
                self._start()
            except OSError as error:
                self._retry_later(error)
            down = self._down
        # Without the lock: their owners have locks, which they hold while they call this client.
        unanswered = [request for request in requests if request.pid is None and request.cancel_spawn()]
        self._adopted.difference_update(request for request in requests if request.pidfd is None)
        for request in requests:
            if request not in unanswered:
                request.exit_status_lost()
        for request in unanswered:
            if down:
                request.spawn_failed(down)
            else:
                request.start()
        self._on_lost()

    def _discard_backlog(self) -> None:
        for _, descriptors in self._backlog:
            for descriptor in descriptors:
                os.close(descriptor)
        self._backlog.clear()

    # ------------------------------------------------------------ the end
    def close(self) -> None:
        """End the keeper and wait for it."""
        done = Flag()

        def end() -> None:
            with self._lock:
                self._closed = True
                self._send(QuitKeeper())
                self._context.reactor.remove_reader(self._sock)
                self._sock.close()
                self._discard_backlog()
            done.set()

        if self._closed:
            return
        listeners.remove(self._preload)
        self._context.reactor.call_soon_threadsafe(end)
        done.wait()
        self._wait_for_exit()

    def kill_all(self) -> None:
        """End the keeper and all processes without the I/O thread, which has ended; report all as ended."""
        with self._lock:
            self._closed = True
            self._sock.close()
            self._discard_backlog()
            requests = {*self._requests.values(), *self._adopted}
        if self._preload in listeners:
            listeners.remove(self._preload)
        for request in requests:
            request.kill_unwatched()
        self._wait_for_exit()

    def _wait_for_exit(self) -> None:
        if self._program.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):  # where SIGCHLD is ignored nothing waits to be reaped
            pidfd = os.pidfd_open(self._program.pid)
            if not has_ended(pidfd, keeper_liveness.PATIENCE):
                self._program.kill()
            os.close(pidfd)
        self._program.wait()

    def close_after_fork(self) -> None:
        """In a forked child of the hub: close the descriptors, which are the parent's."""
        listeners.remove(self._preload)
        self._sock.close()
        self._discard_backlog()
        for request in {*self._requests.values(), *self._adopted}:
            request.close_after_fork()

    def __repr__(self) -> str:
        return f"KeeperClient(pid={self._program.pid}, workers={len(self._requests)})"
