"""A lock that the kernel releases at the very beginning of a process's end, before it frees the memory.

A pidfd tells a death only when the kernel has freed the memory of the process and closed its files: half a millisecond
later for a small process, 80 ms for one with 1 GiB. A *robust mutex* (`pthread_mutexattr_setrobust(3)`) in shared
memory that the main thread of a process holds is released earlier, when that thread gives its memory up: the kernel
sets a bit in the lock's word, and wakes a thread that waits for that word (`futex_waitv(2)`, Linux 5.16).

Three ends release the lock, and only one of them is the end of the process: the main thread may end while others run
on, and `execve` releases it too. So `status_at_end` looks at all threads of the process in `/proc`.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import itertools
import os
import platform
import threading
import time
from collections.abc import Callable
from typing import Any

from suitkaise.platform.locks import RLock
from suitkaise.platform.log_queue import QueuedLogger
from suitkaise.platform.threads import DaemonThread
from suitkaise.records import dataclass

__all__ = ["DeathWatch", "hold", "prepare", "refusal", "status_at_end"]

logger: QueuedLogger = QueuedLogger("suitkaise.processes")

MOST = 127
"""How many locks a thread can wait for at once, beside its bell."""

_WAITERS, _OWNER_DIED, _OWNER = 1 << 31, 1 << 30, (1 << 30) - 1  # parts of the word, `linux/futex.h`
_SHARED_32, _PRIVATE_32 = 2, 2 | 128  # flags of a word for `futex_waitv`
_WAITV = 449  # the number of the system call, on all architectures
_FUTEX = {"x86_64": 202, "aarch64": 98, "riscv64": 98, "ppc64le": 221, "s390x": 238}.get(platform.machine())
_WAKE_PRIVATE = 1 | 128
_SHARED, _ROBUST = 1, 1  # PTHREAD_PROCESS_SHARED, PTHREAD_MUTEX_ROBUST

_EXITING, _SIGNALED = 0x4, 0x400  # PF_EXITING, PF_SIGNALED: flags of a thread, `linux/sched.h`
_STATE, _FLAGS, _STATUS = 0, 6, 49  # fields of `stat` behind the name, see proc(5)

_FIRST_PAUSE, _LONGEST_PAUSE = 50e-6, 0.1
"""Seconds until the next look at a process whose lock is released; the pause doubles each time."""


@functools.cache
def _libc() -> Any:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    return libc


# ------------------------------------------------------------ in the process that is watched
@functools.cache
def prepare() -> Any:
    """Do what `hold` needs in advance; return the attributes of the lock."""
    attributes = ctypes.create_string_buffer(64)
    libc = _libc()
    libc.pthread_mutexattr_init(attributes)
    libc.pthread_mutexattr_setpshared(attributes, _SHARED)
    libc.pthread_mutexattr_setrobust(attributes, _ROBUST)
    return attributes


def hold(address: int) -> None:
    """Make a lock of the 64 bytes at `address`, and hold it in this thread until the thread ends.

    The calling thread must be the main one. Do nothing if the C library has no such locks, or others than glibc's.
    """
    libc, lock = _libc(), ctypes.c_void_p(address)
    try:
        libc.pthread_mutex_init(lock, prepare())
        libc.pthread_mutex_lock(lock)
    except AttributeError:
        return
    word = ctypes.c_uint32.from_address(address)
    if word.value == os.getpid():
        word.value |= _WAITERS  # without this bit the kernel wakes no thread


# ------------------------------------------------------------ in the process that watches
@functools.cache
def refusal() -> str:
    """Return why no death can be learnt from a lock here; empty if that is possible."""
    if _FUTEX is None:
        return f"not known for {platform.machine()}"
    _libc().syscall(_WAITV, None, 0, 0, None, 0)
    code = ctypes.get_errno()
    return "" if code == errno.EINVAL else f"futex_waitv: {os.strerror(code)}"


def status_at_end(pid: int) -> int | None:
    """Return the wait status of a process that can run no code any more; None if it can, or may be able to.

    The status is that of `waitpid` if the main thread was ended by a signal, as it is also when another thread ends the
    process. Else it is 0, for unknown: the main thread may have ended by itself, long before the process. It is 0 also
    where this program may not read it.

    A thread whose flags have PF_EXITING never returns to user mode, and no new one can be started once a signal has
    ended the process. Without such a signal, two looks have to show the same threads. If a thread is gone between two
    reads, nothing is known: a thread that calls `execve` takes over the number of the main thread. Nor is anything
    known while the threads have different statuses: one of them may just have ended by itself.
    """
    before: set[int] | None = None
    while True:
        try:
            threads = {int(name): _thread(pid, name) for name in os.listdir(f"/proc/{pid}/task")}
        except OSError:
            return None
        if pid not in threads or not all(flags & _EXITING for flags, _ in threads.values()):
            return None
        flags, status = threads[pid]
        if flags & _SIGNALED:
            return status if all(other == status for _, other in threads.values()) else None
        if before == threads.keys():
            return 0
        before = set(threads)


def _thread(pid: int, thread: str) -> tuple[int, int]:
    with open(f"/proc/{pid}/task/{thread}/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    if fields[_STATE] == b"X":
        raise ProcessLookupError
    return int(fields[_FLAGS]), int(fields[_STATUS])


class _Time(ctypes.Structure):
    """`struct timespec`."""

    _fields_ = [("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long)]

    @classmethod
    def of(cls, when: float) -> _Time:
        return cls(int(when), int(when % 1 * 1e9))


class _Word(ctypes.Structure):
    """What `futex_waitv` waits for: `struct futex_waitv`."""

    _fields_ = [("value", ctypes.c_uint64), ("address", ctypes.c_uint64), ("flags", ctypes.c_uint32),
                ("reserved", ctypes.c_uint32)]  # fmt: skip


@dataclass(slots=True)
class _Watched:
    address: int
    pid: int
    on_end: Callable[[int], None]
    pause: float = _FIRST_PAUSE


class DeathWatch:
    """Waits for the ends of processes that hold a lock, in a thread that runs while there are any.

    The lock is released by the main thread. The other threads of the process take note of a SIGKILL within
    microseconds, but on the processor on which each of them runs, and nothing tells when they have. So the thread looks
    at the process several times, for 0.2 s in all.

    It watches `MOST` processes at a time; of further ones, only the pidfd tells the end.
    """

    def __init__(self) -> None:
        self._lock = RLock()
        self._watched: dict[int, _Watched] = {}  # by the addresses of the locks
        self._thread: threading.Thread | None = None
        self._bell = ctypes.c_uint32()
        self._bell_address = ctypes.addressof(self._bell)
        self._numbers = itertools.count(1)

    def add(self, address: int, pid: int, on_end: Callable[[int], None]) -> bool:
        """Call `on_end` with the wait status when the process can run no code any more; return whether it is watched.

        It is called once at most, in another thread, and not if that cannot be known for certain.
        """
        if refusal() or ctypes.c_uint32.from_address(address).value & _OWNER != pid:
            return False
        with self._lock:
            if len(self._watched) >= MOST:
                return False
            self._watched[address] = _Watched(address, pid, on_end)
            if self._thread is None:
                thread = DaemonThread(target=self._run, name="suitkaise-deaths")
                try:
                    thread.start()
                except RuntimeError:  # no thread is left
                    del self._watched[address]
                    return False
                self._thread = thread
            else:
                self._ring()
        return True

    def remove(self, address: int) -> None:
        """Watch the process no longer that holds this lock; do nothing if it is not watched."""
        with self._lock:
            if self._watched.pop(address, None) is not None:
                self._ring()

    def close(self) -> None:
        """Watch nothing any more, and wait for the end of the thread."""
        with self._lock:
            self._watched.clear()
            self._ring()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _ring(self) -> None:
        self._bell.value = next(self._numbers) & 0xFFFFFFFF
        if self._thread is not None:
            _libc().syscall(_FUTEX, ctypes.c_void_p(self._bell_address), _WAKE_PRIVATE, 1, None, None, 0)

    def _run(self) -> None:
        libc, words = _libc(), (_Word * (MOST + 1))()
        ending: list[_Watched] = []
        while True:
            with self._lock:
                words[0] = _Word(self._bell.value, self._bell_address, _PRIVATE_32)
                watched = list(self._watched.values())
                if not watched and not ending:
                    self._thread = None
                    return
                released = []
                for number, one in enumerate(watched, 1):
                    value = ctypes.c_uint32.from_address(one.address).value
                    if value != one.pid | _WAITERS:
                        del self._watched[one.address]
                        if value & _OWNER_DIED:
                            released.append(one)
                    words[number] = _Word(one.pid | _WAITERS, one.address, _SHARED_32)
            ending = [one for one in (*ending, *released) if self._look(one)]
            if not watched and not ending:
                continue  # it has to end: the bell may not ring again
            until = None
            if ending:
                until = ctypes.byref(_Time.of(time.monotonic() + min(one.pause for one in ending)))
            if libc.syscall(_WAITV, words, len(watched) + 1, 0, until, time.CLOCK_MONOTONIC) < 0:
                code = ctypes.get_errno()
                if code not in (errno.EAGAIN, errno.EINTR, errno.ETIMEDOUT):
                    self._give_up(os.strerror(code))
                    return

    def _look(self, one: _Watched) -> bool:
        """Report the end if it is certain; return whether to look again."""
        try:
            status = status_at_end(one.pid)
            if status is None:
                one.pause *= 2
                return one.pause < _LONGEST_PAUSE
            one.on_end(status)
        except Exception:
            logger.exception("internal error at the end of process %d", one.pid)
        return False

    def _give_up(self, why: str) -> None:
        logger.warning("ends of processes are noticed later: futex_waitv: %s", why)
        with self._lock:
            self._watched.clear()
            self._thread = None
