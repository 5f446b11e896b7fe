"""An event for which a thread waits while its signal handlers may set it, or wait for it as well."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

__all__ = ["Flag"]


class Flag:
    """Does what `threading.Event` does, without its lock.

    The thread that waits for an Event has the lock for a moment, at the begin and at the end of its wait. If a signal
    handler interrupts it there, and sets or awaits the same Event, it waits for ever.

    >>> flag = Flag()
    >>> flag.wait(0.01), flag.is_set()
    (False, False)
    >>> flag.set()
    >>> flag.wait(), flag.is_set()
    (True, True)
    """

    def __init__(self) -> None:
        self._is_set = False
        self._waiting: list[Callable[[], object]] = []  # each wakes a thread

    def is_set(self) -> bool:
        """Return whether it is set."""
        return self._is_set

    def set(self) -> None:
        """Set it, and wake all that wait."""
        self._is_set = True
        for wake in tuple(self._waiting):
            with contextlib.suppress(RuntimeError):  # another thread has released the lock
                wake()

    @contextlib.contextmanager
    def waking(self, wake: Callable[[], object]) -> Iterator[None]:
        """Have `wake()` called in the block once it is set, by the thread that sets it, or now if it is set already."""
        self._waiting.append(wake)  # first: who sets it from now on calls it
        try:
            if self._is_set:
                wake()
            yield
        finally:
            self._waiting.remove(wake)

    def clear(self) -> None:
        """Reset it."""
        self._is_set = False

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is set, at most `timeout` seconds (None: for ever); return whether it was."""
        if self._is_set:
            return True
        woken = threading.Lock()
        woken.acquire()
        self._waiting.append(woken.release)  # first: who sets it from now on wakes this thread
        try:
            seconds = -1 if timeout is None else min(max(0.0, timeout), threading.TIMEOUT_MAX)
            return self._is_set or woken.acquire(timeout=seconds) or self._is_set
        finally:
            self._waiting.remove(woken.release)

    def _at_fork_reinit(self) -> None:
        """Forget who waits, in a forked child; threading calls it for the Flag of a thread."""
        self._waiting = []
