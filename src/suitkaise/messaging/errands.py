"""A thread for what the I/O thread must not do itself, since it runs code of the user's, which may block."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable

__all__ = ["PATIENCE", "Errands"]

logger: logging.Logger = logging.getLogger("suitkaise.errands")

PATIENCE = 5.0
"""Seconds that `flush` and `close` wait for errands that are under way."""


class Errands:
    """Callbacks run in order, in a thread that begins with the first one; an error in one is logged.

    `call` is for one thread, the I/O thread; the others may be called from any.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._calls: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def call(self, callback: Callable[[], object]) -> None:
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
