"""The one I/O thread of a program, and threads for code that the I/O thread must not run itself."""

from __future__ import annotations

import contextlib
import errno
import heapq
import itertools
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable

from suitkaise.platform.locks import RLock
from suitkaise.platform.log_queue import QueuedLogger
from suitkaise.platform.selector import Callback, HasFileno, Selector, Source
from suitkaise.platform.threads import DaemonThread

__all__ = ["PATIENCE", "Reactor", "SerialExecutor", "TimerHandle", "in_io_thread"]

logger: QueuedLogger = QueuedLogger("suitkaise.reactor")

_LONGEST = 1e6
"""Seconds: longer waits are made in parts, since the kernel counts milliseconds in 32 bits."""

_ACCEPT_AGAIN = 0.5
"""Seconds until the next attempt after a connection could not be accepted."""

_FULL = (errno.ENOMEM, errno.ENOSPC)
"""Errors of `epoll_ctl`: no memory, or the user's limit (`/proc/sys/fs/epoll/max_user_watches`)."""

_WATCH_AGAIN = 0.1
"""Seconds until the next attempt after a source could not be watched."""

_NO_MEMORY_PAUSE = 0.01
"""Seconds until the thread goes on after Python had no memory."""

_ROOM = 64
"""How many timers may wait before the cancelled ones among them are removed."""


class TimerHandle:
    """A callback that is due at a set time."""

    __slots__ = ("_callback",)

    def __init__(self, callback: Callback) -> None:
        self._callback: Callback | None = callback

    @property
    def waits(self) -> bool:
        """Whether the callback was neither called nor cancelled."""
        return self._callback is not None

    def cancel(self) -> None:
        """Drop the callback."""
        self._callback = None

    def fire(self) -> None:
        """Run the callback once, unless it was cancelled."""
        callback, self._callback = self._callback, None
        if callback is not None:
            callback()


_current = threading.local()


def in_io_thread() -> bool:
    """Return whether the current thread is the one of a reactor: it must not wait for what comes through it."""
    return getattr(_current, "runs", False)


class Reactor:
    """Runs callbacks in a thread of its own, one at a time; an error in one is logged and harms no other.

    If an internal error ends the thread, `on_end` is called with that error. From then on no source and no timer is
    served, and `call_soon_threadsafe` runs callbacks in the thread of its caller.
    """

    def __init__(self) -> None:
        self.on_end: Callable[[BaseException], None] | None = None
        self._failed = False
        self._selector = Selector()
        self._unwatched: dict[Source, tuple[Callback, bool]] = {}  # sources that epoll has no room for now
        self._calls: deque[Callback] = deque()
        self._timers: list[tuple[float, int, TimerHandle]] = []
        self._room = _ROOM
        self._numbers = itertools.count()
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._bell_lock = RLock()  # a closed descriptor's number may be used again
        self._selector.add(self._bell, self._answer_bell)
        self._closed = False
        self._thread = DaemonThread(target=self._run, name="suitkaise-io")
        try:
            self._thread.start()
        except Exception:  # no thread is left
            self._close_descriptors()
            raise

    @property
    def in_thread(self) -> bool:
        """Whether the caller runs in the reactor's own thread."""
        return self._thread.is_current()

    # ------------------------------------------------------------ from any thread
    def call_soon_threadsafe(self, callback: Callback) -> None:
        """Run `callback` in the reactor's thread, soon."""
        self._calls.append(callback)
        if self._failed:
            self._run_calls()
        elif not self.in_thread:
            self._ring()

    def call_at(self, when: float, callback: Callback) -> TimerHandle:
        """Run `callback` at `when` (seconds, monotonic), or soon if that time has passed."""
        handle = TimerHandle(callback)
        entry = (when, next(self._numbers), handle)
        self.call_soon_threadsafe(lambda: self._push(entry))
        return handle

    def close(self) -> None:
        """Stop the thread and wait for its end; waiting callbacks are dropped."""
        if self._closed:
            return
        self._closed = True
        self._ring()
        if not self.in_thread:
            self._thread.join()

    def close_after_fork(self) -> None:
        """Close the descriptors in a forked child, where the thread does not exist."""
        self._closed, bell, self._bell = True, self._bell, -1
        self._bell_lock = RLock()
        self._selector.close()
        if bell >= 0:  # else the thread had ended, and has closed it
            os.close(bell)

    def add_reader(self, source: Source, callback: Callback) -> None:
        """Call `callback` whenever `source` is readable. The kernel tells a thread that waits already.

        A signal handler may come, and may raise; then `source` is added by the next call, as if there had been none.
        """
        try:
            self._selector.add(source, callback)
        except OSError as error:
            if error.errno not in _FULL:
                raise
            logger.error("events of a process or a connection are noticed later: epoll_ctl: %s", error)
            self._watch_later(source, callback, writes=False)

    # ------------------------------------------------------------ from the reactor's thread
    def set_writer(self, source: Source, callback: Callback, *, also: bool) -> None:
        """Call `callback` also when `source` can be written to; with `also=False`, only when it can be read.

        Raises:
            KeyError: `source` has no callback.
            ValueError: it is closed.
        """
        if source in self._unwatched:
            self._unwatched[source] = callback, also
            return
        if source not in self._selector:
            raise KeyError(source)
        self._selector.add(source, callback, writes=also)

    def remove_reader(self, source: Source) -> None:
        """Stop calling back for `source`; do nothing if it has no callback."""
        if self._unwatched.pop(source, None) is None:
            self._selector.remove(source)

    def accept_later(self, listener: HasFileno, accept: Callback) -> None:
        """Call `accept` again in a moment: most likely no descriptor is left now, and connections wait in the queue."""
        self.remove_reader(listener)

        def again() -> None:
            if listener.fileno() >= 0:
                self.add_reader(listener, accept)

        self.call_at(time.monotonic() + _ACCEPT_AGAIN, again)

    # ------------------------------------------------------------ sources for which the kernel has no room
    def _watch_later(self, source: Source, callback: Callback, *, writes: bool) -> None:
        """Try again in a moment; nothing is missed, since a source stays ready until it was read."""
        self._unwatched[source] = callback, writes
        self.call_at(time.monotonic() + _WATCH_AGAIN, lambda: self._watch_again(source))

    def _watch_again(self, source: Source) -> None:
        if source not in self._unwatched:  # it was removed
            return
        callback, writes = self._unwatched.pop(source)
        try:
            self._selector.add(source, callback, writes=writes)
        except ValueError:  # it was closed
            return
        except OSError as error:
            if error.errno not in _FULL:
                raise
            self._watch_later(source, callback, writes=writes)

    # ------------------------------------------------------------ the thread
    def _ring(self) -> None:
        with self._bell_lock:
            if self._bell >= 0:
                os.eventfd_write(self._bell, 1)

    def _answer_bell(self) -> None:
        os.eventfd_read(self._bell)

    def _run(self) -> None:
        _current.runs = True
        try:
            self._serve()
        except BaseException as error:
            self._failed, on_end, reason = True, self.on_end, error
            with contextlib.suppress(BaseException):  # logging may be broken, too
                logger.critical("the I/O thread has ended after an internal error: all trees end", exc_info=True)
            if on_end is not None:
                self._guard(lambda: on_end(reason))
            self._run_calls()
        self._close_descriptors()

    def _close_descriptors(self) -> None:
        self._selector.close()
        with self._bell_lock:
            os.close(self._bell)
            self._bell = -1

    def _run_calls(self) -> None:
        with contextlib.suppress(IndexError):  # another thread has run the last one
            while self._calls:
                self._guard(self._calls.popleft())

    def _serve(self) -> None:
        while not self._closed:
            try:
                self._serve_what_is_due()
            except MemoryError:  # nothing is lost: a source stays ready, and a timer waits until it fires
                time.sleep(_NO_MEMORY_PAUSE)

    def _serve_what_is_due(self) -> None:
        for source, callback in self._selector.select(self._patience()):
            if self._selector.watches(source, callback):  # an earlier callback may have removed it
                self._guard(callback)
        for _ in range(len(self._calls)):
            self._guard(self._calls.popleft())
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            fire = self._timers[0][2].fire
            heapq.heappop(self._timers)
            self._guard(fire)

    def _patience(self) -> float | None:
        if self._calls:
            return 0
        if not self._timers:
            return None
        return min(max(0.0, self._timers[0][0] - time.monotonic()), _LONGEST)

    def _push(self, entry: tuple[float, int, TimerHandle]) -> None:
        if len(self._timers) >= self._room:  # drop the cancelled ones each time their number has doubled
            self._timers = [one for one in self._timers if one[2].waits]
            heapq.heapify(self._timers)
            self._room = max(_ROOM, 2 * len(self._timers))
        heapq.heappush(self._timers, entry)

    def _guard(self, callback: Callback) -> None:
        try:
            callback()
        except BaseException:  # `sys.exit()` in a user's callback must not end the thread on which all trees depend
            with contextlib.suppress(BaseException):  # nor must an error in a log handler
                logger.exception("internal error in a callback")


PATIENCE = 5.0
"""Seconds for which `close` waits for callbacks that are under way."""


class SerialExecutor:
    """Runs callbacks in order in one thread, which the first `submit` starts; an error in a callback is logged.

    Only one thread, the I/O thread, may call `submit`; any thread may call the other methods.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._calls: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._thread: DaemonThread | None = None

    def submit(self, callback: Callable[[], object]) -> None:
        """Queue `callback` behind those that wait, without blocking.

        Raises:
            RuntimeError: no thread can be started; the callback is not queued.
        """
        if self._thread is None:
            thread = DaemonThread(target=self._run, name=self._name)
            thread.start()
            self._thread = thread
        self._calls.put(callback)

    def close(self, patience: float = PATIENCE) -> None:
        """Run the waiting callbacks and end the thread; do not wait longer than `patience` seconds for its end."""
        if self._thread is not None:
            self._calls.put(None)
            if not self._thread.is_current():
                self._thread.join(patience)

    def _run(self) -> None:
        while (callback := self._calls.get()) is not None:
            try:
                callback()
            except BaseException:  # `sys.exit()` in the user's code must not end this thread
                logger.exception("error in a queued callback")
