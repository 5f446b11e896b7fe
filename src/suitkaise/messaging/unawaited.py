"""Messages that were sent through the hub, and whose acceptance only `flush` waits for."""

from __future__ import annotations

import concurrent.futures
import math
import time
from typing import Any

from suitkaise.messaging.answer import Answer

__all__ = ["Unawaited"]


class Unawaited:
    """The answers of the hub that have not come yet. Its methods may be called from any thread."""

    def __init__(self) -> None:
        self._open: dict[Answer[bool], None] = {}

    def add(self, accepted: Answer[bool]) -> None:
        """Add the hub's answer to a message."""
        self._open[accepted] = None
        accepted.when_done(self._forget)

    def _forget(self, accepted: Any) -> None:
        self._open.pop(accepted, None)

    def wait(self, until: float) -> int:
        """Wait until each was answered, or for that time (monotonic); return how many were not."""
        left = None if until == math.inf else max(0.0, until - time.monotonic())
        return len(concurrent.futures.wait(list(self._open), left).not_done)
