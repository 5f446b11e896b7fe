"""Daemon threads that can be started also while a program ends, on Python 3.12 too; and the frames of all threads.

Python 3.12 refuses each new thread from the moment at which the main module is over, other versions only when all
functions of `atexit` have returned. A program may wait for its processes and tasks then, as long as these take:
supervisors restart workers, a storage is started, crash reports are written. So on 3.12 a program with trees keeps a
few idle threads, which run what new ones would have run.
"""

from __future__ import annotations

import contextlib
import gc
import queue
import sys
import threading
from collections.abc import Callable
from types import FrameType

from suitkaise.platform.flag import Flag
from suitkaise.platform.locks import RLock
from suitkaise.platform.processes import after_fork_in_child

__all__ = ["DaemonThread", "OwnThread", "Reserve", "current_frames", "is_end", "keep_reserve"]

IDLE = 8
"""Idle threads of a program. A thread that was lent is idle again when it has returned."""


def is_end(error: Exception) -> bool:
    """Return whether this is the error of Python that no thread is started any more, as the program ends."""
    return "at interpreter shutdown" in str(error)


class OwnThread(threading.Thread):
    """A daemon thread of this package, which starts also where Ctrl-C interrupts its starter.

    Python's waits for the new thread with an Event. An error of a signal handler, as Ctrl-C raises it, can leave the
    lock of that Event locked: then the new thread never begins, and who joins it waits for ever.
    """

    def __init__(self, target: Callable[..., object], name: str, args: tuple[object, ...] = ()) -> None:
        super().__init__(target=target, name=name, args=args, daemon=True)
        self._started = Flag()


class DaemonThread(OwnThread):
    """A daemon thread; where Python starts none any more, an idle one of the reserve runs in its place."""

    def __init__(self, target: Callable[..., object], name: str, args: tuple[object, ...] = ()) -> None:
        super().__init__(target, name, args)
        self._returned: Flag | None = None  # of a thread of the reserve
        self._lent: int | None = None  # the identity of that thread, while it runs in place of this one

    def start(self) -> None:
        """Start the thread.

        Raises:
            RuntimeError: that is not possible: no thread is left, or the program ends.
        """
        try:
            super().start()
        except RuntimeError as error:
            if _reserve is None or not is_end(error) or not _reserve.lend(self):
                raise

    def run_in(self, thread: threading.Thread) -> None:
        """Run in an idle thread, under the name of this one."""
        name, thread.name = thread.name, self.name
        self._lent = threading.get_ident()
        try:
            self.run()
        except BaseException:
            threading.excepthook(threading.ExceptHookArgs((*sys.exc_info(), self)))
        finally:
            thread.name = name
            self._lent = None

    def join(self, timeout: float | None = None) -> None:
        """Wait for the end of the thread, at most `timeout` seconds."""
        if self._returned is None:
            super().join(timeout)
        else:
            self._returned.wait(timeout)

    def is_current(self) -> bool:
        """Return whether this is the calling thread, or the calling one runs in its place."""
        return threading.get_ident() == (self.ident if self._lent is None else self._lent)

    def is_alive(self) -> bool:
        """Return whether the thread runs."""
        return super().is_alive() if self._returned is None else not self._returned.is_set()


class Reserve:
    """Idle threads."""

    def __init__(self, count: int) -> None:
        """Start `count` threads, or fewer if the system has no more."""
        self._lock = RLock()
        self._idle: list[_Idle] = []
        self._closed = False
        with contextlib.suppress(RuntimeError):
            for _ in range(count):
                thread = _Idle(self._take_back)
                thread.start()
                self._idle.append(thread)

    def lend(self, thread: DaemonThread) -> bool:
        """Have an idle thread run in place of `thread`; return False if there is none."""
        with self._lock:
            if not self._idle:
                return False
            idle = self._idle.pop()
        returned = thread._returned = Flag()
        idle.work.put((thread, returned))
        return True

    def close(self) -> None:
        """End the idle threads; those that are lent end when they return."""
        with self._lock:
            self._closed, idle, self._idle = True, self._idle, []
        for thread in idle:
            thread.work.put(None)
        for thread in idle:
            thread.join()

    def _take_back(self, idle: _Idle) -> bool:
        """Lend a thread that has returned again; return False if it is to end."""
        with self._lock:
            if not self._closed:
                self._idle.append(idle)
            return not self._closed


class _Idle(OwnThread):
    """Waits for a thread to run in place of."""

    def __init__(self, take_back: Callable[[_Idle], bool]) -> None:
        super().__init__(self._lend, "suitkaise-idle")
        self.work: queue.SimpleQueue[tuple[DaemonThread, Flag] | None] = queue.SimpleQueue()
        self._take_back = take_back

    def _lend(self) -> None:
        serves = True
        while serves and (work := self.work.get()) is not None:
            thread, returned = work
            thread.run_in(self)
            serves = self._take_back(self)
            returned.set()  # now: a thread that is started when this one has ended finds one


_ENDS_EARLY: bool = sys.version_info[:2] == (3, 12)
_reserve: Reserve | None = None


def keep_reserve() -> Callable[[], None]:
    """Keep idle threads for the end of this program, on Python 3.12; return what ends them."""
    global _reserve
    if not _ENDS_EARLY:
        return lambda: None
    reserve = _reserve = Reserve(IDLE)

    def close() -> None:
        _forget()
        reserve.close()

    return close


def _forget() -> None:
    global _reserve
    _reserve = None


_frames_lock = RLock()


def current_frames() -> dict[int, FrameType]:
    """Return the frame in which each thread is, by the thread's identity: what `sys._current_frames` returns.

    In Python 3.11 the garbage collector may run in there, and if it deletes a `threading.local`, all threads of the
    process wait for ever (python/cpython#106883).
    """
    if sys.version_info >= (3, 12):
        return sys._current_frames()
    with _frames_lock:
        collects = gc.isenabled()
        try:
            gc.disable()
            return sys._current_frames()
        finally:
            if collects:
                gc.enable()


def _reset() -> None:
    global _frames_lock
    _forget()
    _frames_lock = RLock()


after_fork_in_child(_reset)
