"""The keeper: a small single-threaded process that forks the workers, reaps them, and ends them when the hub is gone.

Why a process of our own forks the workers: the hub cannot. It has threads, so a lock that another thread holds at the
moment of the fork would stay locked in the worker for ever; it is big, so a fork of it is slow; and a program that
dies could no longer end its workers. `multiprocessing`'s forkserver does not fit either: if it is killed, the sentinels
of living workers report exit code 255, so that two incarnations run at once. The keeper has no thread and has imported
what workers need, so a fork takes a millisecond; only the keeper is the workers' parent, so only the keeper reads exit
statuses; and its connection to the hub ends with the hub, however the hub ends. Everything is in one loop over one
`poll`, so no event interrupts the handling of another one. The keeper may die: the hub learns of deaths by pidfds,
and starts another keeper that adopts the living workers.

A request carries the worker's end of a control connection, in which the recipe waits already; the worker itself
announces to the hub that it exists. While there is nothing to do, the keeper forks one process in reserve, so that the
next worker need not wait for a fork. When the hub is gone, the keeper asks all workers to finish, waits, kills those
that are left, ends the storage last, and removes the program's directory.

A program that has commands has a second keeper for them. It adopts the processes that the guard of a command leaves
behind, kills them, and reports the guard's exit only then.
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

from suitkaise.engines.protocol import (
    MAX_DATAGRAM,
    MAX_DESCRIPTORS,
    AdoptProcesses,
    CleaningUp,
    KeeperAnswer,
    KeeperReady,
    KeeperWarning,
    PreloadModules,
    ProcessExited,
    QuitKeeper,
    SpawnFailed,
    SpawnProcess,
    decode_keeper_request,
    encode,
)
from suitkaise.platform.processes import (
    GROUP_SIGNALS,
    MARK,
    become_subreaper,
    children,
    has_ended,
    kill_group_of,
    kill_marked,
    set_process_name,
)
from suitkaise.platform.runtime_directory import STRAGGLERS, hold, remove_when_unused

__all__ = ["Keeper", "main"]

IDLE = 0.02
"""Seconds without a request after which a process is forked in reserve."""

_OURS = ("suitkaise", "suitkaise.engines.worker_main", "suitkaise.policy.actions")
_KILLED = float("inf")
_NO_DESCRIPTOR = "the keeper has no file descriptor left"


@dataclass(slots=True)
class ForkedChild:
    """A process that the keeper has forked or adopted."""

    number: int
    pidfd: int
    pid: int | None  # None: an earlier keeper has forked it
    grace: float
    stops_last: bool


@dataclass(slots=True)
class Standby:
    """A process that was forked in advance. It becomes a worker when it gets a control connection over `sock`."""

    sock: socket.socket
    pid: int

    def assign(self, control: int) -> bool:
        """Make the process a worker; return False if it has ended."""
        with self.sock, contextlib.suppress(OSError):
            socket.send_fds(self.sock, [b"."], [control], socket.MSG_NOSIGNAL)
            return True
        os.waitpid(self.pid, 0)
        return False

    def dismiss(self) -> None:
        """Kill the process and reap it."""
        self.sock.close()
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


class Keeper:
    """The keeper's loop, see the module.

    Args:
        hub: the connection to the hub.
        directory: the program's runtime directory.
        orphan_timeout: the longest time in seconds that a worker may take to finish when the hub is gone.
        lock: the descriptor that holds the directory.
        for_commands: whether to adopt and kill the processes that the forked processes leave behind.
    """

    def __init__(
        self, hub: socket.socket, directory: str, orphan_timeout: float, lock: int, for_commands: bool
    ) -> None:
        self._hub = hub
        self._directory = directory
        self._orphan_timeout = orphan_timeout
        self._lock = lock
        self._for_commands = for_commands
        self._children: dict[int, ForkedChild] = {}  # by pidfd
        self._orphans: dict[int, int] = {}  # pids by pidfd: killed, but not gone yet
        self._immune: set[int] = set()
        self._ended: list[ProcessExited] = []  # sent when no orphan is left
        self._reserve: Standby | None = None
        self._poll = select.poll()
        self._poll.register(hub, select.POLLIN)

    def run(self, modules: list[str]) -> None:
        """Serve until the hub sends `QuitKeeper` or is gone; import `modules` first."""
        self._preload(modules)
        idle = False
        while True:
            ready = self._poll.poll(None if idle or self._reserve is not None else IDLE * 1000)
            for descriptor, _ in ready:
                if descriptor != self._hub.fileno():
                    self._reap(descriptor)
                elif not self._serve():
                    return
            idle = not ready
            if idle:
                self._reserve = self._fork_in_reserve()  # if that fails, try again only after the next event

    def _serve(self) -> bool:
        try:
            data, descriptors, _, _ = socket.recv_fds(self._hub, MAX_DATAGRAM, MAX_DESCRIPTORS)
        except ConnectionError:
            data, descriptors = b"", []
        if not data:
            self._dismiss_reserve()
            self._shut_down_all()
            return False
        match decode_keeper_request(data):
            case SpawnProcess() as request:
                self._spawn(request, descriptors)
            case AdoptProcesses(processes):
                if len(descriptors) < len(processes):
                    self._send(KeeperWarning(f"{_NO_DESCRIPTOR}: some workers were not adopted"))
                for (grace, stops_last), pidfd in zip(processes, descriptors, strict=False):
                    self._add(ForkedChild(0, pidfd, None, grace, stops_last))
            case PreloadModules(search_path, modules):
                sys.path[:] = search_path
                self._preload(modules)
            case QuitKeeper():
                self._dismiss_reserve()
                return False
        return True

    def _preload(self, modules: list[str]) -> None:
        self._dismiss_reserve()
        for name in modules:
            if warning := load(name):
                self._send(KeeperWarning(warning))
        gc.collect()
        gc.freeze()
        self._send(KeeperReady())

    def _spawn(self, request: SpawnProcess, controls: list[int]) -> None:
        number = request.number
        if not controls:
            self._send(SpawnFailed(number, _NO_DESCRIPTOR))
            return
        [control] = controls
        try:
            pid = self._fork(control)
        except OSError as error:
            self._send(SpawnFailed(number, str(error)))
            return
        finally:
            os.close(control)
        try:
            pidfd = os.pidfd_open(pid)  # takes the number of the control connection that was just closed
        except OSError as error:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            self._send(SpawnFailed(number, str(error)))
        else:
            self._add(ForkedChild(number, pidfd, pid, request.grace, request.stops_last))

    def _fork(self, control: int) -> int:
        reserve, self._reserve = self._reserve, None
        if reserve is not None and reserve.assign(control):
            return reserve.pid
        pid = os.fork()
        if pid == 0:
            from suitkaise.engines.worker_main import run_worker

            self._close_after_fork()
            run_worker(control, self._directory, self._lock, self._orphan_timeout)
        return pid

    def _fork_in_reserve(self) -> Standby | None:
        try:
            ours, theirs = socket.socketpair()
        except OSError:
            return None
        try:
            pid = os.fork()
        except OSError:  # the next request for a process tries again, and reports the error
            ours.close()
            theirs.close()
            return None
        if pid == 0:
            from suitkaise.engines.worker_main import run_standby

            ours.close()
            self._close_after_fork()
            run_standby(theirs, self._directory, self._lock, self._orphan_timeout)
        theirs.close()
        return Standby(ours, pid)

    def _close_after_fork(self) -> None:
        """In a forked process: close the keeper's descriptors."""
        self._hub.close()
        for descriptor in self._children:
            os.close(descriptor)

    def _dismiss_reserve(self) -> None:
        reserve, self._reserve = self._reserve, None
        if reserve is not None:
            reserve.dismiss()

    def _add(self, child: ForkedChild) -> None:
        self._children[child.pidfd] = child
        self._poll.register(child.pidfd, select.POLLIN)

    def _reap(self, pidfd: int) -> None:
        self._poll.unregister(pidfd)
        os.close(pidfd)
        child = self._children.pop(pidfd, None)
        if child is None:
            os.waitpid(self._orphans.pop(pidfd), 0)
        elif child.pid is not None:
            _, status = os.waitpid(child.pid, 0)
            self._ended.append(ProcessExited(child.number, os.waitstatus_to_exitcode(status)))
            if self._for_commands:
                self._send(CleaningUp(child.number))
        if self._for_commands:
            self._kill_orphans()
        if not self._orphans:
            for answer in self._ended:
                self._send(answer)
            self._ended.clear()

    def _kill_orphans(self) -> None:
        """Kill every child of this process that this process has not forked: a guard has left it behind.

        Processes that an orphan leaves behind in turn become children of this process when the orphan is gone.
        """
        known = {child.pid for child in self._children.values()} | set(self._orphans.values()) | self._immune
        if self._reserve is not None:
            known.add(self._reserve.pid)
        for pid in [pid for pid in children() if pid not in known]:
            if kill_group_of(pid):
                self._watch_orphan(pid)
            else:
                self._immune.add(pid)
                self._send(KeeperWarning(f"process {pid}, left behind by a command, runs as another user: not killed"))

    def _watch_orphan(self, pid: int) -> None:
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:  # no descriptor is left; the process was killed, so this takes no time
            os.waitpid(pid, 0)
            return
        self._orphans[pidfd] = pid
        self._poll.register(pidfd, select.POLLIN)

    def _send(self, answer: KeeperAnswer) -> None:
        with contextlib.suppress(ConnectionError):  # the hub is gone: the end-of-file follows
            self._hub.send(encode(answer), socket.MSG_NOSIGNAL)

    # ------------------------------------------------------------ the hub is gone
    def _shut_down_all(self) -> None:
        self._poll.unregister(self._hub)
        began = time.monotonic()
        deadlines: dict[int, float] = {}
        for child in self._children.values():
            if not child.stops_last:
                self._signal(child, signal.SIGTERM)
                deadlines[child.pidfd] = began + min(child.grace, self._orphan_timeout)
        while deadlines:
            nearest = min(deadlines.values())
            timeout = None if nearest == _KILLED else max(0.0, nearest - time.monotonic()) * 1000
            for descriptor, _ in self._poll.poll(timeout):
                deadlines.pop(descriptor, None)
                self._reap(descriptor)
            now = time.monotonic()
            for descriptor, deadline in deadlines.items():
                if deadline <= now:
                    self._signal(self._children[descriptor], signal.SIGKILL)
                    deadlines[descriptor] = _KILLED
        for child in list(self._children.values()):
            self._signal(child, signal.SIGKILL)
            has_ended(child.pidfd, None)
            self._reap(child.pidfd)
        while self._orphans:
            for descriptor, _ in self._poll.poll():
                self._reap(descriptor)
        if self._for_commands:
            kill_marked(self._directory)  # left behind by guards that an earlier keeper has forked
        os.close(self._lock)
        remove_when_unused(self._directory, STRAGGLERS)

    @staticmethod
    def _signal(child: ForkedChild, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(child.pidfd, number)


def load(name: str) -> str:
    """Import a module before workers are forked; return a warning, or nothing."""
    try:
        __import__(name)
    except BaseException as error:
        return f"{name} cannot be imported before the workers are forked: {type(error).__name__}: {error}"
    if threading.active_count() > 1:
        return f"{name} starts threads when it is imported, and a forked worker has none of them: do not preload it"
    return ""


def main(
    descriptor: int, directory: str, preload: list[str], orphan_timeout: float, for_commands: bool = False
) -> None:
    """Run the keeper. `preload`: modules that the workers will need, beyond those that all workers need."""
    for number in GROUP_SIGNALS:
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
