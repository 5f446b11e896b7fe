"""Messages that were sent through the hub although nobody waits until it has accepted them: a refusal is logged."""

from __future__ import annotations

import concurrent.futures
import math
import time
from typing import Any

from suitkaise.messaging.answer import Answer
from suitkaise.platform.log_queue import QueuedLogger

__all__ = ["Unawaited"]

logger: QueuedLogger = QueuedLogger("suitkaise.messages")


class Unawaited:
    """The answers of the hub that have not come yet. Its methods may be called from any thread."""

    def __init__(self) -> None:
        self._open: dict[Answer[bool], None] = {}

    def add(self, path: str, accepted: Answer[bool]) -> None:
        """Add the hub's answer to a message for the worker at `path`."""
        self._open[accepted] = None

        def report(done: Any) -> None:
            self._open.pop(accepted, None)
            if not done.cancelled() and (error := done.exception()) is not None:
                logger.warning("a message for %r is dropped: %s", path, error)

        accepted.when_done(report)

    def wait(self, until: float) -> int:
        """Wait until each was answered, or for that time (monotonic); return how many were not."""
        left = None if until == math.inf else max(0.0, until - time.monotonic())
        return len(concurrent.futures.wait(list(self._open), left).not_done)
