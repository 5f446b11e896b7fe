"""Dead letters: messages that nobody asked an answer for, and that could not be delivered. Each is counted.

Every one of a flood would be an event of its own; so there is one for the 1st, 2nd, 4th, 8th ... of each worker, with
their number so far.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

from suitkaise.events import DeadLetter, Event
from suitkaise.platform.locks import RLock

__all__ = ["DeadLetters"]

_PATHS = 1_000
"""For how many workers the numbers are kept; those of the workers that have lost messages longest ago are dropped."""


class DeadLetters:
    """Counts the dead letters of a program. `publish` takes the events."""

    def __init__(self, publish: Callable[[Event], None] = lambda event: None) -> None:
        self.publish: Callable[[Event], None] = publish
        self._counts: OrderedDict[str, int] = OrderedDict()
        self._lock = RLock()  # a signal handler may lose a message, too

    def add(self, path: str, why: str, number: int = 1) -> None:
        """Count messages to the worker at `path` that were not delivered, for the reason `why`."""
        with self._lock:
            before = self._counts.pop(path, 0)
            count = self._counts[path] = before + number
            if len(self._counts) > _PATHS:
                self._counts.popitem(last=False)
        if count.bit_length() > before.bit_length():
            self.publish(DeadLetter(path, time.monotonic(), count, why))

    def forget(self, path: str) -> None:
        """Count from zero again: another child has that path from now on."""
        with self._lock:
            self._counts.pop(path, None)

    def count(self, path: str) -> int:
        """Return how many messages to the worker at `path` were not delivered."""
        return self._counts.get(path, 0)
