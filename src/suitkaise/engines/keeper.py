"""The keeper: a small single-threaded process that forks the workers, reaps them, and ends them when the hub is gone.

Why a process of our own forks the workers: the hub cannot. It has threads, so a lock that another thread holds at the
moment of the fork would stay locked in the worker for ever; it is big, so a fork of it is slow; and a program that
dies could no longer end its workers. `multiprocessing`'s forkserver does not fit either: if it is killed, the sentinels
of living workers report exit code 255, so that two incarnations run at once. The keeper has no thread and has imported
what workers need, so a fork takes a millisecond; only the keeper is the workers' parent, so only the keeper reads exit
statuses; and its connection to the hub ends with the hub, however the hub ends. Everything is in one loop over one
`poll`, so no event interrupts the handling of another one. The keeper may die: the hub learns of deaths by pidfds,
and starts another keeper that adopts the living workers.

A request carries the worker's end of a control connection, over which the recipe follows while the keeper and the
process wake up; the worker itself announces to the hub that it exists. While there is nothing to do, the keeper forks
one process in reserve, so that the next worker need not wait for a fork. When the hub is gone, the keeper asks all
workers to finish, waits, kills those that are left, ends the storage last, and removes the program's directory.

The keeper adopts the processes that a worker leaves behind, ends them, and reports the worker's exit only then (see
`leftovers`). A program that has commands has a second keeper for them, and so has one that has changed its user.
"""

from __future__ import annotations

import contextlib
import gc
import marshal
import os
import select
import signal
import socket
import sys
import threading
import time

from suitkaise.engines.leftovers import Leftovers
from suitkaise.engines.protocol import (
    MAX_DATAGRAM,
    MAX_DESCRIPTORS,
    AdoptProcesses,
    GiveDirectory,
    KeeperAnswer,
    KeeperReady,
    KeeperWarning,
    PreloadModules,
    ProcessExited,
    QuitKeeper,
    SignalProcess,
    SpawnFailed,
    SpawnProcess,
    decode_keeper_request,
    encode,
)
from suitkaise.messaging.connection import when_there_is_memory
from suitkaise.platform.board import Board
from suitkaise.platform.descriptors import receive_descriptors
from suitkaise.platform.marks import Mark, program_number, worker_mark
from suitkaise.platform.processes import (
    GROUP_SIGNALS,
    MARK,
    OwnChildren,
    become_subreaper,
    has_ended,
    kill_marked,
    kill_where,
    set_process_name,
)
from suitkaise.platform.runtime_directory import STRAGGLERS, hold, remove_when_unused
from suitkaise.platform.sockets import blocking, socket_pair
from suitkaise.records import dataclass

__all__ = ["Keeper", "main"]

_WARM_UPS = 8  # with four a worker copies 30 pages more, with twelve none fewer
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

    def assign(self, control: int, mark: Mark) -> bool:
        """Make the process a worker; return False if it has ended."""
        mark.put_on(self.pid)
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
        board: the program's status board, whose memory the workers inherit.
        orphan_timeout: the longest time in seconds that a worker may take to finish when the hub is gone.
        lock: the descriptor that holds the directory.
        for_commands: whether the forked processes are the guards of commands.
    """

    def __init__(
        self, hub: socket.socket, directory: str, board: Board, orphan_timeout: float, lock: int, for_commands: bool
    ) -> None:
        self._hub = hub
        self._directory = directory
        self._board = board
        self._orphan_timeout = orphan_timeout
        self._lock = lock
        self._for_commands = for_commands
        self._children: dict[int, ForkedChild] = {}  # by pidfd
        self._program = program_number(directory)
        self._own_children = own = OwnChildren()
        self._leftovers = Leftovers(self._program, for_commands, self._forked, self._running, self._send, own)
        self._has_adopted = False
        self._reserve: Standby | None = None
        self._child_ended, self._wakeup = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._poll = select.poll()
        self._poll.register(hub, select.POLLIN)
        self._poll.register(self._child_ended, select.POLLIN)

    def run(self, modules: list[str]) -> None:
        """Serve until the hub sends `QuitKeeper` or is gone; import `modules` first."""
        signal.set_wakeup_fd(self._wakeup, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)  # adopted processes are no children to be waited for
        self._preload(modules)
        idle = False
        while True:
            ready = self._wait(None if idle or self._reserve is not None else 0.0)
            for descriptor in ready:
                if descriptor in self._children:
                    self._reap(descriptor)
                elif descriptor == self._hub.fileno() and not self._serve():
                    return
            self._settle()
            idle = not ready
            if idle and self._reserve is None:
                # It gets ready while the last worker runs. If the fork fails, try again only after the next event.
                self._reserve = self._fork_in_reserve()

    def _wait(self, seconds: float | None) -> list[int]:
        """Wait for an event, or until `_settle` is due; return the descriptors that are ready."""
        due = self._leftovers.deadline
        if due is not None:
            seconds = min(due - time.monotonic(), float("inf") if seconds is None else seconds)
        timeout = None if seconds is None else max(0.0, seconds) * 1000
        return [descriptor for descriptor, _ in self._poll.poll(timeout)]

    def _settle(self) -> None:
        """See to the adopted processes if a process has ended, or the time of one is over."""
        ended = False
        with contextlib.suppress(BlockingIOError):
            ended = bool(os.read(self._child_ended, 1 << 16))
        if ended or self._leftovers.deadline is not None:
            self._leftovers.look()

    def _serve(self) -> bool:
        try:
            data, descriptors = receive_descriptors(self._hub, MAX_DATAGRAM, MAX_DESCRIPTORS)
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
                self._has_adopted = True
                if len(descriptors) < len(processes):
                    self._send(KeeperWarning(f"{_NO_DESCRIPTOR}: some workers were not adopted"))
                for (grace, stops_last), pidfd in zip(processes, descriptors, strict=False):
                    self._add(ForkedChild(0, pidfd, None, grace, stops_last))
            case PreloadModules(search_path, modules):
                sys.path[:] = map(os.fsdecode, search_path)
                self._preload(modules)
            case SignalProcess(number, signal_number):
                child = next((child for child in self._children.values() if child.number == number), None)
                if child is not None:
                    self._signal(child, signal_number)
                else:
                    self._leftovers.kill(number)
            case GiveDirectory(uid, gid):
                with contextlib.suppress(PermissionError):  # the hub has not been root
                    for name in (".", *os.listdir(self._directory)):
                        os.chown(os.path.join(self._directory, name), uid, gid, follow_symlinks=False)
                for descriptor in descriptors:
                    os.close(descriptor)
            case QuitKeeper():
                self._dismiss_reserve()
                self._leftovers.kill_all()
                return False
        return True

    def _preload(self, modules: list[str]) -> None:
        self._dismiss_reserve()
        for name in modules:
            if warning := load(name):
                self._send(KeeperWarning(warning))
        self._leftovers.spare_strangers()
        gc.collect()
        gc.freeze()
        gc.enable()
        self._send(KeeperReady())

    def _spawn(self, request: SpawnProcess, controls: list[int]) -> None:
        number = request.number
        if not controls:
            self._send(SpawnFailed(number, _NO_DESCRIPTOR))
            return
        [control] = controls
        if request.slot >= 0:
            self._mark_started(request.slot)
        try:
            pid = self._fork(control, Mark(self._program, number, request.keep_children))
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

    def _mark_started(self, index: int) -> None:
        """Show the hub when the process was forked: one that stops before it announces itself has hung (rule 55)."""
        slot = self._board.slot(index)
        slot.mark_started()
        slot.release()

    def _fork(self, control: int, mark: Mark) -> int:
        reserve, self._reserve = self._reserve, None
        if reserve is not None and reserve.assign(control, mark):
            return reserve.pid
        pid = os.fork()
        if pid == 0:
            from suitkaise.engines.worker_main import run_worker

            self._close_after_fork()
            mark.put_on(0)
            run_worker(control, self._directory, self._board, self._lock, self._orphan_timeout)
        return pid

    def _fork_in_reserve(self) -> Standby | None:
        try:
            ours, theirs = socket_pair()
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
            run_standby(theirs, self._directory, self._board, self._lock, self._orphan_timeout)
        theirs.close()
        return Standby(ours, pid)

    def _close_after_fork(self) -> None:
        """In a forked process: close the keeper's descriptors, and undo its signal handler."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._hub.close()
        descriptors = (self._child_ended, self._wakeup, self._own_children.descriptor, *self._children)
        for descriptor in descriptors:
            if descriptor is not None:
                os.close(descriptor)

    def _forked(self) -> set[int]:
        forked = {child.pid for child in self._children.values() if child.pid is not None}
        return forked if self._reserve is None else forked | {self._reserve.pid}

    def _running(self) -> dict[int, bool]:
        return {child.number: child.stops_last for child in self._children.values()}

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
        child = self._children.pop(pidfd)
        if child.pid is not None:
            _, status = os.waitpid(child.pid, 0)
            code = os.waitstatus_to_exitcode(status)
            grace = 0.0 if code or self._for_commands else min(child.grace, self._orphan_timeout)
            self._leftovers.report(ProcessExited(child.number, code), grace)

    def _send(self, answer: KeeperAnswer) -> None:
        data = encode(answer)
        with contextlib.suppress(ConnectionError):  # the hub is gone: the end-of-file follows
            when_there_is_memory(lambda: self._hub.send(data, socket.MSG_NOSIGNAL))

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
            timeout = None if nearest == _KILLED else max(0.0, nearest - time.monotonic())
            for descriptor in self._wait(timeout):
                if descriptor in self._children:
                    deadlines.pop(descriptor, None)
                    self._reap(descriptor)
            self._settle()
            now = time.monotonic()
            for descriptor, deadline in deadlines.items():
                if deadline <= now:
                    self._signal(self._children[descriptor], signal.SIGKILL)
                    deadlines[descriptor] = _KILLED
        while self._leftovers.deadline is not None:
            self._wait(None)
            self._settle()
        for child in list(self._children.values()):
            self._signal(child, signal.SIGKILL)
            has_ended(child.pidfd, None)
            self._reap(child.pidfd)
        self._leftovers.kill_all()
        if self._has_adopted:
            kill_where(worker_mark(self._directory))  # left behind by workers that an earlier keeper has forked
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


def _prepare() -> None:
    """Import what workers need, and run the start of a worker a few times.

    Python specialises a function as it runs it, and from then on counts fewer references, those to the names of
    attributes among them. So each worker copies fewer of the pages that it shares with the keeper.
    """
    from suitkaise.engines.worker_main import warm_up

    # What these imports have left to collect is 3 % of the memory. It takes 10 ms to find, and lies in all pages: each
    # worker would put its first objects there, and copy a page for a few of them.
    gc.freeze()
    with contextlib.suppress(OSError):  # no file descriptor is left
        for _ in range(_WARM_UPS):
            warm_up(Board.in_memory())
    gc.collect()


def main(descriptor: int) -> None:
    """Run the keeper.

    Args:
        descriptor: the descriptor of the connection to the hub. Its first datagram has the settings: the program's
            runtime directory; modules that the workers will need, beyond those that all workers need; for the two
            others see `Keeper`. With it goes the descriptor of the status board.
    """
    for number in GROUP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # a program that ignores it would leave nothing to wait for
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    set_process_name("keeper")
    _prepare()
    hub = blocking(socket.socket(fileno=descriptor))
    hub.set_inheritable(False)
    data, descriptors = receive_descriptors(hub, MAX_DATAGRAM, 1)
    if not data or not descriptors:  # the hub is gone, or starts no tree
        os._exit(0)
    directory, preload, orphan_timeout, for_commands = marshal.loads(data)
    [board] = descriptors
    try:
        lock = hold(directory)
    except FileNotFoundError:  # the hub has ended meanwhile, and removed it
        os._exit(0)
    become_subreaper()
    if for_commands:
        os.environ[MARK] = directory
    Keeper(hub, directory, Board(board), orphan_timeout, lock, for_commands).run(preload)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
