"""Processes below this one that nobody is to outlive: what a command has started, however it tried to get away.

A process that has adopted (`become_subreaper`) becomes the parent of every orphan below it, also of one that has left
its session or forked twice. So what still lives when the command has ended is a child of ours, or will be as soon
as its own parent is killed. Should nobody be left to adopt them, they are known by a mark in their environment.
"""

from __future__ import annotations

import contextlib
import functools
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator, Set
from typing import Any

__all__ = [
    "MARK",
    "after_fork_in_child",
    "become_subreaper",
    "children",
    "die_with_parent",
    "environment_of",
    "has_ended",
    "is_at_work",
    "kill_children",
    "kill_group_of",
    "kill_marked",
    "set_process_name",
]

MARK = "SUITKAISE_COMMAND"
"""The environment variable that a command and all that it starts bear: `directory:path#serial`."""

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_EXEC, _SIZELESS = 1.0, 0.05  # seconds that a process without environment is taken to be in the midst of `exec`
_adopted = False


def become_subreaper() -> None:
    """From now on every orphan below this process becomes its child."""
    global _adopted
    if _prctl()(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError("prctl(PR_SET_CHILD_SUBREAPER) is refused: commands need Linux 3.4 or later")
    _adopted = True


def die_with_parent() -> None:
    """To be called between fork and exec, by who has adopted: the kernel kills this process when its parent is gone."""
    _prctl()(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


@functools.cache
def _prctl() -> Any:
    import ctypes  # for the processes of commands alone

    return ctypes.CDLL(None).prctl


def children() -> Iterator[int]:
    """The children of this process, those that have ended and were not reaped included."""
    me = os.getpid()
    for thread in os.listdir("/proc/self/task"):
        try:
            with open(f"/proc/self/task/{thread}/children", "rb") as file:
                yield from map(int, file.read().split())
        except FileNotFoundError:
            if os.path.exists(f"/proc/self/task/{thread}/stat"):  # the kernel was built without such lists
                yield from (pid for pid in _processes() if _parent_of(pid) == me)
                return


def kill_children() -> None:
    """Kill all children of this process, if it has adopted, and theirs, and reap them; back when none is left."""
    if not _adopted:
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
    """SIGKILL for a child of this process that was not reaped, and for its group; False if that is not permitted.

    The whole group at one go: what forks faster than it is killed one by one does not get away.
    """
    try:
        group = os.getpgid(pid)
        if group != os.getpgid(0):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(group, signal.SIGKILL)
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:  # reaped by another thread of this process
        return True
    except PermissionError:  # it runs as somebody else (sudo)
        return False
    return True


def kill_marked(mark: str) -> None:
    """Kill every process with that mark, or of that `directory`, whoever its parent is; back when none is left."""
    wanted = f"{MARK}={mark}".encode()
    while found := [pidfd for pid in _processes() if (pidfd := _marked(pid, wanted)) is not None]:
        for pidfd in found:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        for pidfd in found:
            poll = select.poll()
            poll.register(pidfd, select.POLLIN)
            poll.poll()
            os.close(pidfd)


def _marked(pid: int, wanted: bytes) -> int | None:
    """A descriptor of the process if it bears the mark, lives, and may be killed."""
    if pid == os.getpid():
        return None
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return None
    with contextlib.suppress(OSError):  # it has ended, is somebody else's, or a thread of the kernel
        marks = (entry for entry in environment_of(pid).split(b"\0") if entry.startswith(wanted))
        if any(entry == wanted or entry.startswith(wanted + b":") for entry in marks):
            signal.pidfd_send_signal(pidfd, 0)
            return pidfd
    os.close(pidfd)
    return None


def environment_of(pid: int) -> bytes:
    """What the process was started with, as the kernel keeps it; of one in the midst of `exec`, what it will have.

    For some 50 microseconds of `exec` a process has a program, but no environment yet, or none that has a size.

    Raises:
        OSError: it has no program (any more), or must not be looked at.
    """
    began = time.monotonic()
    while not (environment := _of(pid, "environ")):
        os.readlink(f"/proc/{pid}/exe")
        start, end = _of(pid, "stat").split()[-3:-1]
        if time.monotonic() - began > (_SIZELESS if start == end != b"0" else _EXEC):
            break  # it was given an empty one
        time.sleep(0.0001)
    return environment


def _of(pid: int, name: str) -> bytes:
    with open(f"/proc/{pid}/{name}", "rb") as file:
        return file.read()


def _processes() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]


def _parent_of(pid: int) -> int | None:
    try:
        return int(_of(pid, "stat").rpartition(b")")[2].split()[1])
    except OSError:
        return None


def after_fork_in_child(settle: Callable[[], object], *, signals: Callable[[], Set[int]]) -> None:
    """From now on, call `settle` in every child that this process forks (`os.fork`, multiprocessing).

    Until then the child holds back the `signals`, whose handlers `settle` may replace: Python forgets what has come
    for a handler of the parent's, so who terminates a process that was forked this moment would wait for ever. What
    comes for the parent itself meanwhile is handled once it has forked, where no error that the handler raises gets
    out: `signals`, which is asked before each fork, names none whose handler would raise one.
    """
    thread = threading.local()

    def hold() -> None:
        wanted = signals()
        thread.held = wanted - signal.pthread_sigmask(signal.SIG_BLOCK, wanted)

    def release() -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, getattr(thread, "held", ()))  # unless this began within the fork

    def begin() -> None:
        try:
            settle()
        finally:
            release()

    os.register_at_fork(before=hold, after_in_parent=release, after_in_child=begin)


def has_ended(pidfd: int, patience: float | None = 0.0) -> bool:
    """Whether a process ends within `patience` seconds; None: wait for it."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(None if patience is None else patience * 1000))


def set_process_name(name: str) -> None:
    """Give the process a name that `ps -e`, `top` and `killall` show; the kernel keeps 15 bytes of it."""
    with contextlib.suppress(OSError), open("/proc/self/comm", "wb") as file:
        file.write(f"sk:{name}".encode()[:15])


def is_at_work(pid: int) -> bool:
    """Whether that process computes, or would if it got a processor: it neither waits nor is stopped."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] == b"R"
    except OSError:
        return False
