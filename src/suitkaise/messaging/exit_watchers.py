"""Who is told of the end of an incarnation, and the ends that links make of it, which come after it."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from functools import partial

from suitkaise.exits import ExitReason
from suitkaise.platform.locks import RLock
from suitkaise.platform.log_queue import QueuedLogger

__all__ = ["ExitWatchers", "after_its_cause", "call_each", "cause_first"]

logger: QueuedLogger = QueuedLogger("suitkaise.links")


class ExitWatchers:
    """The serial number of the incarnation at an address, and the callbacks for the end of that incarnation."""

    def __init__(self) -> None:
        self.serial: int | None = None
        self._callbacks: dict[Hashable, Callable[[ExitReason], None]] = {}
        self._lock = RLock()  # a signal handler may monitor, too

    def begin(self, serial: int) -> None:
        """Set the serial number of the next incarnation, which is alive from now on."""
        with self._lock:
            self.serial = serial

    def end(self) -> list[Callable[[ExitReason], None]]:
        """Record that the incarnation has ended; return the callbacks."""
        with self._lock:
            self.serial = None
            callbacks, self._callbacks = self._callbacks, {}
        return list(callbacks.values())

    def add(self, key: Hashable, callback: Callable[[ExitReason], None], serial: int | None = None) -> bool:
        """Call back when the incarnation (the one of that `serial`) ends; return False if it is not alive."""
        with self._lock:
            if self.serial is None or serial not in (None, self.serial):
                return False
            self._callbacks[key] = callback
            return True

    def remove(self, key: Hashable) -> None:
        """Remove the callback of that key, if there is one."""
        with self._lock:
            self._callbacks.pop(key, None)

    def __len__(self) -> int:
        return len(self._callbacks)


_ends = threading.local()


@contextlib.contextmanager
def cause_first() -> Iterator[None]:
    """Let the ends that links make of an end come at the end of the block, in which the supervisor is told of that one.

    Each of them may make more: those come after it, one by one, so a long chain of links does not exhaust the stack.
    """
    if hasattr(_ends, "waiting"):
        yield
        return
    waiting: deque[Callable[[], None]] = deque()
    _ends.waiting = waiting
    try:
        try:
            yield
        finally:
            while waiting:
                _call(waiting.popleft())
    finally:
        del _ends.waiting


def after_its_cause(end: Callable[[], None]) -> None:
    """End an incarnation because of a link, after what the link is about (`cause_first`)."""
    waiting: deque[Callable[[], None]] | None = getattr(_ends, "waiting", None)
    if waiting is None:
        end()
    else:
        waiting.append(end)


def call_each(callbacks: Iterable[Callable[[ExitReason], None]], reason: ExitReason) -> None:
    """Call the callbacks of an incarnation that has ended."""
    with cause_first():
        for callback in callbacks:
            _call(partial(callback, reason))


def _call(callback: Callable[[], None]) -> None:
    try:
        callback()
    except Exception:
        logger.exception("the end of a worker could not be reported to a link or monitor")
