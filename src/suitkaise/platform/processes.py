"""Other processes: find and kill all that a command has started, and ask the kernel for facts about a process.

A subreaper (`become_subreaper`) becomes the parent of every orphan below it, also of one that has left its session or
forked twice. So a process that still runs when the command has ended is a child of the subreaper, or becomes one as
soon as its own parent is killed. If no subreaper is left, these processes are found by a mark in their environment.

psutil is used where it does what is needed, and imported there only: its import takes 20 ms, which the start and the
end of the keeper and of commands must not take longer. Three things are read from `/proc` directly. The children of
this process: the kernel keeps a list, while psutil reads the state of every process of the machine. The environment in
the midst of `exec`: psutil reports an empty one. The list of pids: `kill_marked` needs it at the end of each program
that runs commands, and it is the listing of one directory.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Set
from typing import Any

from suitkaise.platform.flag import Flag

__all__ = [
    "GROUP_SIGNALS",
    "MARK",
    "OwnChildren",
    "after_fork_in_child",
    "become_subreaper",
    "children",
    "descendants",
    "die_with_parent",
    "environment_of",
    "finish_interpreter",
    "has_default_action",
    "has_ended",
    "in_other_sessions",
    "is_at_work",
    "kill_children",
    "kill_group_of",
    "kill_marked",
    "kill_where",
    "memory_of",
    "processes_where",
    "reap_adopted",
    "request_end",
    "set_process_name",
    "signal_groups",
    "was_interrupted",
    "was_reaped",
]

GROUP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1)
"""The signals that terminals, service managers and people send to a whole group of processes."""

MARK = "SUITKAISE_COMMAND"
"""The environment variable that marks a command and all that it starts: `directory:path#serial`."""

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_EXEC, _SIZELESS = 1.0, 0.05  # seconds for which a process without environment may be in the midst of `exec`
_READINGS = 4  # of all descendants, at most: a program may start processes all the time
_subreaper = 0  # the pid of the process that became one: a forked child does not inherit that


def become_subreaper() -> None:
    """Make this process the parent of every orphan below it, from now on."""
    global _subreaper
    if _prctl()(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError("prctl(PR_SET_CHILD_SUBREAPER) failed: suitkaise needs Linux 5.4 or later")
    _subreaper = os.getpid()


def die_with_parent(number: int = signal.SIGKILL) -> None:
    """Let the kernel send this process a signal when its parent ends (the thread of the parent that has started it)."""
    _prctl()(_PR_SET_PDEATHSIG, number, 0, 0, 0)


@functools.cache
def _prctl() -> Any:
    import ctypes  # only the processes of commands need it

    return ctypes.CDLL(None).prctl


def children(pid: int | None = None) -> Iterator[int]:
    """Yield the children of a process (default: this one), including those that have ended and were not reaped.

    They may be killed. So the kernel is asked which process this one is, not `os.getpid`, which users may have patched.
    """
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # the process has ended
        parent = int(os.readlink("/proc/self")) if pid is None else pid
        for thread in os.listdir(f"/proc/{parent}/task"):
            try:
                with open(f"/proc/{parent}/task/{thread}/children", "rb") as file:
                    yield from map(int, file.read().split())
            except FileNotFoundError:
                if os.path.exists(f"/proc/{parent}/task/{thread}/stat"):  # a kernel that was built without these lists
                    yield from (pid for pid in _pids() if _parent_of(pid) == parent)
                    return


class OwnChildren:
    """The children of this process, those of its main thread, read from a file that stays open.

    That takes a tenth of the time of `children`. The processes that the kernel gives to a subreaper are children of
    its main thread.
    """

    def __init__(self) -> None:
        self.descriptor: int | None = None
        """The descriptor of the file; None: the kernel was built without these lists."""
        pid = os.readlink("/proc/self")
        with contextlib.suppress(FileNotFoundError):
            self.descriptor = os.open(f"/proc/{pid}/task/{pid}/children", os.O_RDONLY | os.O_CLOEXEC)

    def are(self, pids: set[int]) -> bool:
        """Return whether they are exactly these; False, too, if they are too many to be read at once."""
        if self.descriptor is None:
            return False
        data = os.pread(self.descriptor, 1 << 16, 0)  # the kernel gives no more than a page at once
        return set(map(int, data.split())) == pids and not os.pread(self.descriptor, 1, len(data))


def descendants(pid: int | None = None) -> set[int]:
    """Return all processes below another one (default: this one).

    The processes are read again until no new one is found: the children of a process that ends meanwhile move to
    another parent, whose children may have been read before.
    """
    found: set[int] = set()
    for _ in range(_READINGS):
        seen: set[int] = set()
        parents = [pid]
        while parents:
            below = [pid for pid in children(parents.pop()) if pid not in seen]
            seen.update(below)
            parents += below
        if seen <= found:
            break
        found |= seen
    return found


def in_other_sessions(pids: Iterable[int]) -> Iterator[int]:
    """Yield the processes that are in another session than this one, and exist.

    If a program was started in a session of its own, these are the program and all that it has started: a process
    begins in the session of its parent, and can leave it only for a new one. What this process itself has started
    besides is left out.
    """
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            if os.getsid(pid) != os.getsid(0):
                yield pid


def reap_adopted(program: int) -> None:
    """Reap the children that have ended and that the program has left behind (see `in_other_sessions`)."""
    for pid in in_other_sessions(children()):
        if pid != program:
            with contextlib.suppress(ChildProcessError):  # reaped by another thread of this process
                os.waitpid(pid, os.WNOHANG)


def signal_groups(pids: Iterable[int], *numbers: int) -> None:
    """Send signals to the process groups of these processes, each signal once to each group, where that is allowed."""
    groups = set()
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            groups.add(os.getpgid(pid))
    for group in groups:
        for number in numbers:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(group, number)


def request_end(pid: int) -> None:
    """Ask a process to end, with SIGTERM; a stopped one is continued, or it could not."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGTERM)
        os.kill(pid, signal.SIGCONT)


def was_reaped(pid: int, patience: float = 0.0) -> bool:
    """Reap a child of this process if it ends within `patience` seconds; return whether it is gone."""
    try:
        if patience > 0.0:
            pidfd = os.pidfd_open(pid)
            try:
                has_ended(pidfd, patience)
            finally:
                os.close(pidfd)
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except (ChildProcessError, ProcessLookupError):  # reaped by another thread of this process
        return True


def kill_children() -> None:
    """Kill and reap all children of this process, and theirs, until none is left; do nothing if it is no subreaper."""
    if _subreaper != os.getpid():
        return
    immune: set[int] = set()
    while left := [pid for pid in children() if pid not in immune]:
        for pid in left:
            if not kill_group_of(pid):
                immune.add(pid)
        for pid in left:
            if pid not in immune:
                with contextlib.suppress(ChildProcessError):  # reaped by another thread of this process
                    os.waitpid(pid, 0)


def kill_group_of(pid: int) -> bool:
    """Send SIGKILL to a child of this process that was not reaped, and to its group; return False if not permitted.

    The whole group is killed at once: processes that fork faster than they are killed one by one do not escape.
    """
    try:
        group = os.getpgid(pid)
        if group != os.getpgid(0):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(group, signal.SIGKILL)
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:  # reaped by another thread of this process
        return True
    except PermissionError:  # the child runs as another user (sudo)
        return False
    return True


def kill_marked(mark: str) -> None:
    """Kill every process with this `MARK` (a whole one, or its `directory` part); return when none is left."""
    wanted = f"{MARK}={mark}".encode()

    def has_mark(pid: int) -> bool:
        marks = (entry for entry in environment_of(pid).split(b"\0") if entry.startswith(wanted))
        return any(entry == wanted or entry.startswith(wanted + b":") for entry in marks)

    kill_where(has_mark)


def kill_where(has_mark: Callable[[int], bool]) -> None:
    """Kill every process for which `has_mark(pid)` is true and that may be killed; return when none is left."""
    while found := [pidfd for pid in _pids() if (pidfd := _marked(pid, has_mark)) is not None]:
        for pidfd in found:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        for pidfd in found:
            has_ended(pidfd, None)
            os.close(pidfd)


def processes_where(has_mark: Callable[[int], bool]) -> Iterator[int]:
    """Yield the processes of the machine for which `has_mark(pid)` is true, without this one."""
    for pid in _pids():
        if pid != os.getpid() and has_mark(pid):
            yield pid


def _marked(pid: int, has_mark: Callable[[int], bool]) -> int | None:
    """Return a pidfd of the process if it has the mark, is alive, and may be killed."""
    if pid == os.getpid():
        return None
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return None
    with contextlib.suppress(OSError):  # the process has ended, belongs to another user, or is a thread of the kernel
        if has_mark(pid) and not has_ended(pidfd):
            signal.pidfd_send_signal(pidfd, 0)
            return pidfd
    os.close(pidfd)
    return None


def environment_of(pid: int) -> bytes:
    """Return the environment with which the process was started; in the midst of `exec`, the one that it will have.

    For some 50 microseconds of `exec` a process has a program, but no environment yet, or none that has a size.

    Raises:
        OSError: it has no program (any more), or may not be read.
    """
    began = time.monotonic()
    while not (environment := _of(pid, "environ")):
        os.readlink(f"/proc/{pid}/exe")
        start, end = _of(pid, "stat").split()[-3:-1]
        if time.monotonic() - began > (_SIZELESS if start == end != b"0" else _EXEC):
            break  # the process has an empty environment
        time.sleep(0.0001)
    return environment


def _of(pid: int, name: str) -> bytes:
    with open(f"/proc/{pid}/{name}", "rb") as file:
        return file.read()


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]


def _parent_of(pid: int) -> int | None:
    import psutil  # see the head of this module

    try:
        return psutil.Process(pid).ppid()
    except psutil.Error:
        return None


def after_fork_in_child(reset: Callable[[], object], *, signals: Callable[[], Set[int]] | None = None) -> None:
    """Call `reset` in every child that this process forks from now on (`os.fork`, multiprocessing).

    Args:
        reset: closes or renews what belongs to the parent.
        signals: returns the signals whose handlers `reset` may replace; called before each fork. The child blocks
            them until `reset` has returned: Python forgets a signal that has arrived for a handler of the parent, so
            a process that terminates the child right after the fork would wait for ever. The parent blocks them during
            the fork, and an error that a handler raises then gets lost: `signals` must return none whose handler
            raises one.
    """
    if signals is None:
        os.register_at_fork(after_in_child=reset)
        return
    thread = threading.local()

    def block() -> None:
        wanted = signals()
        thread.blocked = wanted - signal.pthread_sigmask(signal.SIG_BLOCK, wanted)

    def unblock() -> None:
        # The attribute is missing where `after_fork_in_child` was called during the fork.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, getattr(thread, "blocked", ()))

    def reset_and_unblock() -> None:
        try:
            reset()
        finally:
            unblock()

    os.register_at_fork(before=block, after_in_parent=unblock, after_in_child=reset_and_unblock)


def has_default_action(number: int, pid: int | None = None) -> bool:
    """Return whether nothing in a process (None: this one) handles or ignores a signal; `faulthandler` is seen too.

    Of another process that cannot be looked at, True is returned.
    """
    with contextlib.suppress(OSError), open(f"/proc/{pid or 'self'}/status", "rb") as file:
        masks = dict(line.split(b":", 1) for line in file if line.startswith((b"SigIgn:", b"SigCgt:")))
        return not any(int(mask, 16) >> (number - 1) & 1 for mask in masks.values())
    return pid is not None or signal.getsignal(number) is signal.SIG_DFL


def finish_interpreter(*, wait: bool = True) -> None:
    """Do what Python does at the end of a program, before `os._exit`: join threads, run exit handlers, flush."""
    if wait:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()


_end_has_begun = Flag()
_end_was_interrupted = Flag()


def _watch_the_end() -> None:
    """Note each Ctrl-C that Python prints and drops from now on: in its wait for threads, in functions of `atexit`."""
    print_error = sys.unraisablehook

    def note(unraisable: sys.UnraisableHookArgs) -> None:
        if issubclass(unraisable.exc_type, KeyboardInterrupt):
            _end_was_interrupted.set()
        print_error(unraisable)

    sys.unraisablehook = note
    _end_has_begun.set()


try:
    threading._register_atexit(_watch_the_end)  # type: ignore[attr-defined]
except RuntimeError:  # this module is imported as the program ends
    _watch_the_end()


def was_interrupted() -> bool:
    """Return whether Ctrl-C has ended the main program: it is not to wait for what else runs then.

    For functions of `atexit`. Before these, Python waits for the threads that are no daemons. If Ctrl-C comes then,
    Python prints the `KeyboardInterrupt`, drops it, and goes on to `atexit`: `_watch_the_end` was not called, or has
    seen it.
    """
    kind = type(sys.last_exc) if hasattr(sys, "last_exc") else getattr(sys, "last_type", None)
    if isinstance(kind, type) and issubclass(kind, KeyboardInterrupt):
        return True
    return not _end_has_begun.is_set() or _end_was_interrupted.is_set()


def has_ended(pidfd: int, patience: float | None = 0.0) -> bool:
    """Wait up to `patience` seconds for the end of a process, or for ever if None; return whether it has ended."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(None if patience is None else patience * 1000))


def set_process_name(name: str) -> None:
    """Set the name of this process that `ps -e`, `top` and `killall` show; the kernel keeps 15 bytes of it."""
    with contextlib.suppress(OSError), open("/proc/self/comm", "wb", buffering=0) as file:
        file.write(f"sk:{name}".encode()[:15])


def memory_of(pid: int) -> int:
    """Return the bytes of memory (RSS) that a process and all below it have now; 0 for one that has ended."""
    pages = 0
    for one in {pid, *descendants(pid)}:
        with contextlib.suppress(OSError):  # it has ended
            pages += int(_of(one, "statm").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def is_at_work(pid: int) -> bool:
    """Return whether a process computes, or would if it got a processor: it neither waits nor is stopped."""
    import psutil  # see the head of this module

    try:
        return psutil.Process(pid).status() == psutil.STATUS_RUNNING
    except psutil.Error:
        return False
