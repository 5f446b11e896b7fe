"""A condition, and a future made of it, that no signal handler leaves locked, whatever it raises.

Ctrl-C raises KeyboardInterrupt at the next call, or return, of a function that is written in Python. Those of
`threading.Condition` that take and release its lock are: interrupted there, a thread keeps the lock for ever.
"""

from __future__ import annotations

import concurrent.futures
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from suitkaise.platform.locks import RLock

__all__ = ["Condition", "OwnFuture"]

T = TypeVar("T")


class Condition(RLock):  # type: ignore[misc]  # final for type checkers alone
    """Does what `threading.Condition` does; it is itself the lock, which is faster, too.

    >>> condition, values = Condition(), []
    >>> with condition:
    ...     condition.wait_for(lambda: bool(values), timeout=0.01)
    False
    """

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: deque[threading.Lock] = deque()  # each is released to wake a thread

    def wait(self, timeout: float | None = None) -> bool:
        """Release the lock until another thread notifies this one, at most `timeout` seconds (None: for ever).

        Returns whether it was notified.
        """
        lock: Any = self
        if not lock._is_owned():
            raise RuntimeError("cannot wait on un-acquired lock")
        seconds = -1 if timeout is None else max(0.0, timeout)
        woken = threading.Lock()
        woken.acquire()
        self._waiting.append(woken)
        depth = 1, threading.get_ident()  # should a signal handler raise as soon as the lock is released
        try:
            depth = lock._release_save()
            woken.acquire(timeout=seconds)
        finally:
            lock._acquire_restore(depth)  # the first call: no signal handler runs before it
            try:
                self._waiting.remove(woken)
                notified = False
            except ValueError:
                notified = True
        return notified

    def wait_for(self, predicate: Callable[[], bool], timeout: float | None = None) -> bool:
        """Wait until `predicate()` is true, at most `timeout` seconds (None: for ever); return what it is then."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not (is_true := predicate()):
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                break
            self.wait(left)
        return is_true

    def notify(self, n: int = 1) -> None:
        """Wake `n` threads that wait, or as many as there are."""
        lock: Any = self
        if not lock._is_owned():
            raise RuntimeError("cannot notify on un-acquired lock")
        for _ in range(min(n, len(self._waiting))):
            self._waiting.popleft().release()

    def notify_all(self) -> None:
        """Wake all threads that wait."""
        self.notify(len(self._waiting))


class OwnFuture(concurrent.futures.Future[T], Generic[T]):
    """Does what `concurrent.futures.Future` does, with a `Condition` of this package; it is made faster, too."""

    def __init__(self) -> None:  # does all that of Future does
        self._condition: Any = Condition()
        self._state = "PENDING"
        self._result: Any = None
        self._exception: Any = None
        self._waiters: list[Any] = []
        self._done_callbacks: list[Any] = []
