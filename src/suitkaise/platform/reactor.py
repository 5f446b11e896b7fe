"""The program's one I/O thread, and threads for what the I/O thread must not run itself."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import logging
import os
import queue
import selectors
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

__all__ = ["PATIENCE", "Reactor", "SerialExecutor", "TimerHandle"]

logger: logging.Logger = logging.getLogger("suitkaise.reactor")

_LONGEST = 1e6
"""Seconds: longer waits are made in parts, since the kernel counts milliseconds in 32 bits."""

_ROOM = 64
"""So many timers may wait before a look is taken for those that were cancelled."""

Callback = Callable[..., None]


class HasFileno(Protocol):
    """Anything with a file descriptor."""

    def fileno(self) -> int:
        """The descriptor."""
        ...


class TimerHandle:
    """A callback that waits for its time."""

    __slots__ = ("_callback",)

    def __init__(self, callback: Callback) -> None:
        self._callback: Callback | None = callback

    @property
    def waits(self) -> bool:
        """Whether it was neither called nor cancelled."""
        return self._callback is not None

    def cancel(self) -> None:
        """Do not call it any more."""
        self._callback = None

    def fire(self) -> None:
        """Call it, once, unless it was cancelled."""
        callback, self._callback = self._callback, None
        if callback is not None:
            callback()


class Reactor:
    """Callbacks run in the reactor's thread, one at a time; an error in one is logged and harms no other.

    Should an error of its own end the thread, `on_end` is called with it. No source and no timer is served from
    then on; what is handed to `call` runs in the caller's thread.
    """

    def __init__(self) -> None:
        self.on_end: Callable[[BaseException], None] | None = None
        self._failed = False
        self._selector = selectors.DefaultSelector()
        self._calls: deque[Callback] = deque()
        self._timers: list[tuple[float, int, TimerHandle]] = []
        self._room = _ROOM
        self._numbers = itertools.count()
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._bell_lock = threading.RLock()  # once closed, its number may be somebody else's descriptor
        self._selector.register(self._bell, selectors.EVENT_READ, self._answer_bell)
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="suitkaise-io", daemon=True)
        self._thread.start()

    @property
    def in_thread(self) -> bool:
        """Whether the caller is the reactor's own thread."""
        return threading.get_ident() == self._thread.ident

    # ------------------------------------------------------------ from any thread
    def call_soon_threadsafe(self, callback: Callback) -> None:
        """Run `callback` in the reactor's thread, soon."""
        self._calls.append(callback)
        if self._failed:
            self._run_calls()
        elif not self.in_thread:
            self._ring()

    def call_at(self, when: float, callback: Callback) -> TimerHandle:
        """Run `callback` at `when` (seconds, monotonic), or soon if that has passed."""
        handle = TimerHandle(callback)
        entry = (when, next(self._numbers), handle)
        self.call_soon_threadsafe(lambda: self._push(entry))
        return handle

    def close(self) -> None:
        """Stop the thread and wait for it; callbacks that wait are not called."""
        if self._closed:
            return
        self._closed = True
        self._ring()
        if not self.in_thread:
            self._thread.join()

    def close_after_fork(self) -> None:
        """In a forked child: let go of the descriptors; the thread is the parent's."""
        self._closed, bell, self._bell = True, self._bell, -1
        self._bell_lock = threading.RLock()
        self._selector.close()
        os.close(bell)

    # ------------------------------------------------------------ from the reactor's thread
    def add_reader(self, source: HasFileno | int, callback: Callback) -> None:
        """Call `callback` whenever `source` is readable."""
        self._selector.register(source, selectors.EVENT_READ, callback)

    def set_writer(self, source: HasFileno | int, callback: Callback, *, also: bool) -> None:
        """Also call `callback` when `source` can be written to; or, with `also=False`, no longer."""
        events = selectors.EVENT_READ | selectors.EVENT_WRITE if also else selectors.EVENT_READ
        self._selector.modify(source, events, callback)

    def remove_reader(self, source: HasFileno | int) -> None:
        """No longer call back for `source`; no error if it is not watched."""
        try:
            self._selector.unregister(source)
        except (KeyError, ValueError):
            return

    # ------------------------------------------------------------ the thread
    def _ring(self) -> None:
        with self._bell_lock:
            if self._bell >= 0:
                os.eventfd_write(self._bell, 1)

    def _answer_bell(self) -> None:
        os.eventfd_read(self._bell)

    def _run(self) -> None:
        try:
            self._serve()
        except BaseException as error:
            self._failed, on_end, reason = True, self.on_end, error
            with contextlib.suppress(BaseException):  # whatever else is broken
                logger.critical("the I/O thread has ended by an error of its own: all trees end", exc_info=True)
            if on_end is not None:
                self._guard(lambda: on_end(reason))
            self._run_calls()
        self._selector.close()
        with self._bell_lock:
            os.close(self._bell)
            self._bell = -1

    def _run_calls(self) -> None:
        with contextlib.suppress(IndexError):  # another thread has taken the last one
            while self._calls:
                self._guard(self._calls.popleft())

    def _serve(self) -> None:
        while not self._closed:
            for key, _ in self._selector.select(self._patience()):
                current = self._selector.get_map().get(key.fd)
                if current is not None and current.data is key.data:  # not unwatched by a callback before
                    self._guard(key.data)
            for _ in range(len(self._calls)):
                self._guard(self._calls.popleft())
            now = time.monotonic()
            while self._timers and self._timers[0][0] <= now:
                self._guard(heapq.heappop(self._timers)[2].fire)

    def _patience(self) -> float | None:
        if self._calls:
            return 0
        if not self._timers:
            return None
        return min(max(0.0, self._timers[0][0] - time.monotonic()), _LONGEST)

    def _push(self, entry: tuple[float, int, TimerHandle]) -> None:
        if len(self._timers) >= self._room:  # twice as many as last time: those that were cancelled go
            self._timers = [one for one in self._timers if one[2].waits]
            heapq.heapify(self._timers)
            self._room = max(_ROOM, 2 * len(self._timers))
        heapq.heappush(self._timers, entry)

    def _guard(self, callback: Any) -> None:
        try:
            callback()
        except BaseException:  # a `sys.exit()` in a user's callback must not end the thread that all depend on
            with contextlib.suppress(BaseException):  # nor a handler of the log's
                logger.exception("internal error in a callback")


PATIENCE = 5.0
"""Seconds that `flush` and `close` wait for errands that are under way."""


class SerialExecutor:
    """Callbacks run in order, in a thread that begins with the first one; an error in one is logged.

    `call` is for one thread, the I/O thread; the others may be called from any.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._calls: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def submit(self, callback: Callable[[], object]) -> None:
        """Run `callback` after those that wait; never blocks."""
        self._calls.put(callback)
        if self._thread is None:
            thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            thread.start()
            self._thread = thread

    def __len__(self) -> int:
        """How many wait."""
        return self._calls.qsize()

    def flush(self, patience: float = PATIENCE) -> bool:
        """Wait until what was called for so far has run, at most so many seconds; whether it has."""
        if self._thread is None or self._thread is threading.current_thread():
            return self._thread is None
        done = threading.Event()
        self._calls.put(done.set)
        return done.wait(patience)

    def close(self, patience: float = PATIENCE) -> None:
        """Run what waits and end the thread; one that takes longer is left behind, and ends when it is done."""
        if self._thread is not None:
            self._calls.put(None)
            if self._thread is not threading.current_thread():
                self._thread.join(patience)

    def _run(self) -> None:
        while (callback := self._calls.get()) is not None:
            try:
                callback()
            except BaseException:  # a `sys.exit()` in code of the user's must not end it for the others
                logger.exception("error in code that was called")
