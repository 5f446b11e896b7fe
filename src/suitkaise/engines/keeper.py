"""The keeper: a small single-threaded process that forks the workers, reaps them, and buries them.

It is started with `subprocess`, has our modules loaded already, and does nothing but wait. A request on its
socket carries the worker's end of a control connection, in which the recipe waits already; the worker itself tells
the hub that it is there. The keeper is the workers' parent, so it alone learns exit statuses. While there is
nothing to do it forks one process in reserve, so that the next worker need not wait for a fork. When the hub is
gone, it asks all workers to finish, waits, kills what is left, ends the storage last, and removes the program's
directory.

A program that has commands has a second keeper for them. It adopts what the guard of a command leaves behind, kills
it, and tells of the guard's end only then.

Requests and answers are single datagrams (SOCK_SEQPACKET) of msgpack tuples.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import socket
import sys
import threading
import time
from dataclasses import dataclass
from typing import Any, NoReturn

import msgspec

from suitkaise.platform.processes import (
    MARK,
    become_subreaper,
    children,
    has_ended,
    kill_group_of,
    kill_marked,
    set_process_name,
)
from suitkaise.platform.runtime_directory import STRAGGLERS, hold, remove_when_unused

__all__ = ["DECODE", "ENCODE", "MANY", "ForkedChild", "main"]

ENCODE = msgspec.msgpack.Encoder().encode
DECODE = msgspec.msgpack.Decoder(tuple).decode

MANY = 253
"""How many descriptors can go with one datagram."""

IDLE = 0.02
"""Seconds without a request after which a process is forked in reserve."""

_OURS = ("suitkaise", "suitkaise.engines.worker_main", "suitkaise.policy.actions")
_MAX_REQUEST = 1 << 16
_KILLED = float("inf")
_FULL = "the keeper has no file descriptor left"


def load(name: str) -> str:
    """Import a module before workers are forked; returns what is wrong with that, or nothing."""
    try:
        __import__(name)
    except BaseException as error:
        return f"{name} cannot be imported before the workers are forked: {type(error).__name__}: {error}"
    if threading.active_count() > 1:
        return f"{name} starts threads when it is imported, and a forked worker has none of them: better not preload it"
    return ""


@dataclass(slots=True)
class ForkedChild:
    """A worker process. `pid` is None for one that an earlier keeper forked. `last`: the storage."""

    number: int
    pidfd: int
    pid: int | None
    grace: float
    last: bool


@dataclass(slots=True)
class Standby:
    """A process that was forked in advance. It becomes a worker by a control connection on `sock`."""

    sock: socket.socket
    pid: int

    def assign(self, control: int) -> bool:
        """Make it a worker; False if it is no longer there."""
        with self.sock, contextlib.suppress(OSError):
            socket.send_fds(self.sock, [b"."], [control], socket.MSG_NOSIGNAL)
            return True
        os.waitpid(self.pid, 0)
        return False

    def dismiss(self) -> None:
        """It is not needed."""
        self.sock.close()
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


class Keeper:
    """The process's one loop."""

    def __init__(
        self, hub: socket.socket, directory: str, orphan_timeout: float, lock: int, for_commands: bool
    ) -> None:
        self._hub = hub
        self._directory = directory
        self._orphan_timeout = orphan_timeout
        self._lock = lock
        self._for_commands = for_commands
        self._kids: dict[int, ForkedChild] = {}
        self._orphans: dict[int, int] = {}  # by pidfd: what was killed, and is not gone yet
        self._immune: set[int] = set()
        self._ended: list[tuple[Any, ...]] = []  # what is told when no orphan is left
        self._reserve: Standby | None = None
        self._poll = select.poll()
        self._poll.register(hub, select.POLLIN)

    def run(self, names: list[str]) -> None:
        """Serve until the hub says `quit` or is gone; `names` are modules that the workers will need."""
        self._preload(names)
        rested = False
        while True:
            ready = self._poll.poll(None if rested or self._reserve is not None else IDLE * 1000)
            for descriptor, _ in ready:
                if descriptor != self._hub.fileno():
                    self._reap(descriptor)
                elif not self._serve():
                    return
            rested = not ready
            if rested:
                self._reserve = self._fork_in_reserve()  # if it cannot be: not again before something happens

    def _serve(self) -> bool:
        try:
            data, descriptors, _, _ = socket.recv_fds(self._hub, _MAX_REQUEST, MANY)
        except ConnectionError:
            data, descriptors = b"", []
        if not data:
            self._dismiss_reserve()
            self._shut_down_all()
            return False
        match DECODE(data):
            case ("spawn", int(number), float(grace), bool(last)):
                self._spawn(number, descriptors, grace, last)
            case ("adopt", list(about)):
                if len(descriptors) < len(about):
                    self._tell(("trouble", f"{_FULL}: some workers are not known to it"))
                for (grace, last), pidfd in zip(about, descriptors, strict=False):
                    self._keep(ForkedChild(0, pidfd, None, grace, last))
            case ("preload", list(path), list(names)):
                sys.path[:] = path
                self._preload(names)
            case ("quit",):
                self._dismiss_reserve()
                return False
        return True

    def _preload(self, names: list[str]) -> None:
        self._dismiss_reserve()
        for name in names:
            if trouble := load(name):
                self._tell(("trouble", trouble))
        gc.collect()
        gc.freeze()
        self._tell(("up",))

    def _spawn(self, number: int, controls: list[int], grace: float, last: bool) -> None:
        if not controls:
            self._tell(("failed", number, _FULL))
            return
        [control] = controls
        try:
            pid = self._fork(control)
        except OSError as error:
            self._tell(("failed", number, str(error)))
            return
        finally:
            os.close(control)
        try:
            pidfd = os.pidfd_open(pid)  # there is room for it: its control connection was closed
        except OSError as error:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            self._tell(("failed", number, str(error)))
        else:
            self._keep(ForkedChild(number, pidfd, pid, grace, last))

    def _fork(self, control: int) -> int:
        reserve, self._reserve = self._reserve, None
        if reserve is not None and reserve.assign(control):
            return reserve.pid
        pid = os.fork()
        if pid == 0:
            self._become_worker(control)
        return pid

    def _become_worker(self, control: int) -> NoReturn:
        from suitkaise.engines.worker_main import run_worker

        self._let_go()
        run_worker(control, self._directory, self._lock, self._orphan_timeout)

    def _fork_in_reserve(self) -> Standby | None:
        try:
            ours, theirs = socket.socketpair()
        except OSError:
            return None
        try:
            pid = os.fork()
        except OSError:  # who needs a process now will be told
            ours.close()
            theirs.close()
            return None
        if pid == 0:
            from suitkaise.engines.worker_main import run_standby

            ours.close()
            self._let_go()
            run_standby(theirs, self._directory, self._lock, self._orphan_timeout)
        theirs.close()
        return Standby(ours, pid)

    def _let_go(self) -> None:
        """In a forked process: close what is the keeper's."""
        self._hub.close()
        for descriptor in self._kids:
            os.close(descriptor)

    def _dismiss_reserve(self) -> None:
        reserve, self._reserve = self._reserve, None
        if reserve is not None:
            reserve.dismiss()

    def _keep(self, kid: ForkedChild) -> None:
        self._kids[kid.pidfd] = kid
        self._poll.register(kid.pidfd, select.POLLIN)

    def _reap(self, pidfd: int) -> None:
        self._poll.unregister(pidfd)
        os.close(pidfd)
        kid = self._kids.pop(pidfd, None)
        if kid is None:
            os.waitpid(self._orphans.pop(pidfd), 0)
        elif kid.pid is not None:
            _, status = os.waitpid(kid.pid, 0)
            self._ended.append(("exited", kid.number, os.waitstatus_to_exitcode(status)))
            if self._for_commands:
                self._tell(("burying", kid.number))
        if self._for_commands:
            self._kill_orphans()
        if not self._orphans:
            for message in self._ended:
                self._tell(message)
            self._ended.clear()

    def _kill_orphans(self) -> None:
        """Kill what has become a child of this process without being forked by it: a guard has left it behind.

        What those leave behind in turn comes to light when they are gone.
        """
        known = {kid.pid for kid in self._kids.values()} | set(self._orphans.values()) | self._immune
        if self._reserve is not None:
            known.add(self._reserve.pid)
        for pid in [pid for pid in children() if pid not in known]:
            if kill_group_of(pid):
                self._watch_orphan(pid)
            else:
                self._immune.add(pid)
                self._tell(("trouble", f"process {pid}, which a command has left, runs as somebody else: not killed"))

    def _watch_orphan(self, pid: int) -> None:
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:  # no descriptor is left: it was killed, so this does not take long
            os.waitpid(pid, 0)
            return
        self._orphans[pidfd] = pid
        self._poll.register(pidfd, select.POLLIN)

    def _tell(self, message: tuple[Any, ...]) -> None:
        with contextlib.suppress(ConnectionError):  # the hub is gone: its end-of-file follows
            self._hub.send(ENCODE(message), socket.MSG_NOSIGNAL)

    # ------------------------------------------------------------ the hub is gone
    def _shut_down_all(self) -> None:
        self._poll.unregister(self._hub)
        for kid in self._kids.values():
            if not kid.last:
                self._signal(kid, signal.SIGTERM)
        began = time.monotonic()
        deadlines = {
            kid.pidfd: began + min(kid.grace, self._orphan_timeout) for kid in self._kids.values() if not kid.last
        }
        while deadlines:
            nearest = min(deadlines.values())
            patience = None if nearest == _KILLED else max(0.0, nearest - time.monotonic()) * 1000
            for descriptor, _ in self._poll.poll(patience):
                deadlines.pop(descriptor, None)
                self._reap(descriptor)
            now = time.monotonic()
            for descriptor, deadline in deadlines.items():
                if deadline <= now:
                    self._signal(self._kids[descriptor], signal.SIGKILL)
                    deadlines[descriptor] = _KILLED
        for kid in list(self._kids.values()):
            self._signal(kid, signal.SIGKILL)
            has_ended(kid.pidfd, None)
            self._reap(kid.pidfd)
        while self._orphans:
            for descriptor, _ in self._poll.poll():
                self._reap(descriptor)
        if self._for_commands:
            kill_marked(self._directory)  # of guards that an earlier keeper has forked
        os.close(self._lock)
        remove_when_unused(self._directory, STRAGGLERS)

    @staticmethod
    def _signal(kid: ForkedChild, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(kid.pidfd, number)


def main(
    descriptor: int, directory: str, preload: list[str], orphan_timeout: float, for_commands: bool = False
) -> None:
    """The keeper's program. `preload`: modules that the workers will need, beyond what all of them need."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # a program that ignores it would leave nothing to wait for
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    set_process_name("keeper")
    lock = hold(directory)
    for name in _OURS:
        __import__(name)
    if for_commands:
        become_subreaper()
        os.environ[MARK] = directory
    Keeper(socket.socket(fileno=descriptor), directory, orphan_timeout, lock, for_commands).run(preload)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
