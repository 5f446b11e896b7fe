"""Decides when a keeper that does not answer has to be replaced."""

from __future__ import annotations

import time
from collections.abc import Callable

from suitkaise.platform.late_look import Extensions, is_late
from suitkaise.platform.locks import RLock
from suitkaise.platform.processes import is_at_work
from suitkaise.platform.reactor import Reactor

__all__ = ["PATIENCE", "KeeperLiveness"]

PATIENCE = 5.0
"""Seconds without any sign of life after which a keeper that owes an answer is replaced (it may be stopped)."""

EXTENSIONS = 10
"""How often in a row `PATIENCE` is extended for a silent keeper that is at work or waits for a processor."""

BOOT_PATIENCE = 60.0
"""`PATIENCE` for a keeper that is still starting: it imports the modules to be preloaded."""


class KeeperLiveness:
    """The deadline of a keeper that owes an answer.

    Why the keeper's liveness is watched: a keeper that has died is noticed by the end-of-file of its socket, but one
    that is stopped (SIGSTOP, a debugger, a frozen container) stays connected and silent, and without a deadline every
    start and every restart would wait for ever. A deadline alone would be wrong as well: a keeper that preloads slow
    modules, or gets no processor on a busy machine, is silent too, and killing it makes the machine busier. So a
    deadline runs only while an answer is owed, any sign of life renews it, a keeper that still starts has a longer
    one, one that is at work gets some extensions, and a deadline that this program itself checks late (because it was
    stopped or starved) is given once more. Only then is the keeper killed, and then it is replaced as any other keeper
    that has died.

    Args:
        reactor: calls `_check`.
        lock: is held during a check.
        owes_answer: returns whether the keeper owes an answer.
        pid: returns the keeper's process id.
        kill: kills the keeper.
    """

    def __init__(
        self,
        reactor: Reactor,
        lock: RLock,
        owes_answer: Callable[[], bool],
        pid: Callable[[], int],
        kill: Callable[[], None],
    ) -> None:
        self._reactor = reactor
        self._lock = lock
        self._owes_answer = owes_answer
        self._pid = pid
        self._kill = kill
        self._starting = True
        self._last_sign = time.monotonic()
        self._extensions = Extensions(EXTENSIONS)
        self._check_is_set = False

    def mark_starting(self) -> None:
        """Record that the keeper imports modules, so that it has more time."""
        self._starting = True
        self.mark_alive()

    def mark_ready(self) -> None:
        """Record that the keeper serves requests."""
        self._starting = False

    def mark_alive(self) -> None:
        """Record a sign that the keeper works."""
        self._last_sign = time.monotonic()

    def expect_reply(self) -> None:
        """Kill the keeper unless it answers in time."""
        if not self._check_is_set:
            self._check_is_set = True
            self.mark_alive()
            self._check_at(self._last_sign + PATIENCE)

    def expect_nothing(self) -> None:
        """Record that the keeper has died, so that the next one owes nothing."""
        self._check_is_set = False

    def _check_at(self, when: float) -> None:
        self._reactor.call_at(when, lambda: self._check(when))

    def _check(self, due: float) -> None:
        now = time.monotonic()
        with self._lock:
            if not self._owes_answer():
                self._check_is_set = False
                return
            deadline = self._last_sign + (BOOT_PATIENCE if self._starting else PATIENCE)
            if is_late(due, now, PATIENCE / 10):  # this program itself was stopped or starved: check once more
                deadline = max(deadline, now + PATIENCE)
            if now < deadline:
                self._check_at(min(deadline, now + PATIENCE))
                return
            if is_at_work(self._pid()) and self._extensions.grant(self._last_sign):
                self._check_at(now + PATIENCE)
                return
            self._check_is_set = False
            self._kill()  # the end-of-file of its socket does the rest
