"""The answer that one thread waits for: quicker to make, and to wait for, than an `Answer`, which is a future."""

from __future__ import annotations

import threading

from suitkaise.errors import AskTimeout
from suitkaise.messaging.answer import STEP
from suitkaise.messaging.deadlocks import await_answer
from suitkaise.messaging.messages import Outcome, Payload

__all__ = ["Awaited"]


class Awaited:
    """Takes the answer to one message, as its `reply`, in any thread."""

    __slots__ = ("_missing", "outcome")

    def __init__(self) -> None:
        self.outcome: Outcome | None = None
        self._missing = threading.Lock()  # released when the answer is there
        self._missing.acquire()

    def __call__(self, ok: bool, payload: Payload) -> None:
        """Set the answer, or the error if not `ok`; ignore a second answer."""
        if self.outcome is None:
            self.outcome = ok, payload
            try:
                self._missing.release()
            except RuntimeError:  # another thread was faster
                return

    def come(self, seconds: float) -> bool:
        """Wait at most `seconds` for the answer; return whether it is there."""
        return self.outcome is not None or self._missing.acquire(timeout=seconds)

    def wait(self, path: str, timeout: float | None, began: float) -> Outcome:
        """Wait at most `timeout` seconds for the answer of the worker at `path`, asked at the time `began` (monotonic).

        Raises:
            AskTimeout: it has not come in time.
            DeadlockError: it cannot come.
        """
        if not self._missing.acquire(timeout=STEP if timeout is None or timeout > STEP else max(0.0, timeout)):
            left = None if timeout is None else max(0.0, timeout - STEP)
            if not await_answer("asks", path, left, self.come, began, 0.0):
                raise AskTimeout(f"{path!r} did not answer within {timeout} s", path=path)
        assert self.outcome is not None
        return self.outcome
