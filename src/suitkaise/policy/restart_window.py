"""The restart window of a supervisor, or of one child: how many restarts there were in `max_seconds` (rules 28-30)."""

from __future__ import annotations

import math
from collections import deque
from itertools import takewhile

__all__ = ["RestartWindow"]


class RestartWindow:
    """Counts restarts in a sliding window of time; a restart at time t counts while `t >= now - max_seconds`.

    >>> window = RestartWindow(max_restarts=1, max_seconds=5.0)
    >>> window.add(now=10.0), window.add(now=12.0), window.add(now=20.0)
    (True, False, True)
    """

    def __init__(self, max_restarts: float, max_seconds: float) -> None:
        self.max_restarts: float = max_restarts
        self.max_seconds: float = max_seconds
        self._times: deque[float] = deque()

    def used(self, now: float) -> int:
        """Return how many restarts the window holds at time `now`."""
        begin = now - self.max_seconds
        return len(self._times) - sum(1 for _ in takewhile(lambda time: time < begin, tuple(self._times)))

    def add(self, now: float) -> bool:
        """Count a restart at time `now`; return False if it is one more than allowed."""
        if self.max_restarts == math.inf:
            self._times.clear()  # nothing is ever compared with the limit, so nothing needs to be remembered
        while self._times and self._times[0] < now - self.max_seconds:
            self._times.popleft()
        self._times.append(now)
        return len(self._times) <= self.max_restarts
