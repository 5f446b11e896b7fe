"""Hang detection (rule 55): a phase that outlasts its limit is noticed, whatever the worker does meanwhile.

Nothing polls and nobody is told when a phase begins. A worker writes what it does on the status board, and a look is
due when the current phase would be over its limit, or when one that has begun since the last look could be.
"""

from __future__ import annotations

from collections.abc import Callable

from suitkaise.engines.engine import WorkerHandle
from suitkaise.exits import Hung
from suitkaise.platform.board import Phase
from suitkaise.platform.reactor import TimerHandle
from suitkaise.specs import Child

__all__ = ["DOUBTS", "LATE", "limits_of", "watch"]

LATE = 0.05
"""Seconds: when a look itself comes that late, this program was stopped or starved, and perhaps the worker, too."""

DOUBTS = 3
"""How often a phase over its limit is given one more limit's time because the look came late."""


def limits_of(child: Child) -> dict[Phase, float]:
    """The limits that a child has, by phase, in seconds."""
    limits = {
        Phase.ON_START: child.start_timeout,
        Phase.BEFORE_LOOP: child.before_loop_timeout,
        Phase.LOOP: child.loop_timeout,
        Phase.AFTER_LOOP: child.after_loop_timeout,
        Phase.ON_RECEIVE: child.receive_timeout,
        Phase.ON_FINISH: child.finish_timeout,
    }
    return {phase: limit for phase, limit in limits.items() if limit is not None}


def watch(
    child: Child,
    handle: WorkerHandle,
    clock: Callable[[], float],
    at: Callable[[float, Callable[[], None]], TimerHandle],
) -> None:
    """Look after one incarnation from now on, if its child has limits; it is called `hang` at most once."""
    limits = limits_of(child)
    if limits:
        _Watch(limits, handle, clock, at)


class _Watch:
    """One incarnation under watch. It ends when there is nothing to look at any more."""

    def __init__(
        self,
        limits: dict[Phase, float],
        handle: WorkerHandle,
        clock: Callable[[], float],
        at: Callable[[float, Callable[[], None]], TimerHandle],
    ) -> None:
        self._limits = limits
        self._least = min(limits.values())
        self._handle = handle
        self._clock = clock
        self._at = at
        self._doubts = 0
        self._doubted: float | None = None  # when the phase began that the doubts are about
        self._look_at(clock() + self._least)
        handle.exited.add_done_callback(lambda exited: self._timer.cancel())

    def _look_at(self, when: float) -> None:
        self._timer = self._at(when, lambda: self._look(when))
        if self._handle.exited.done():  # it may have ended meanwhile
            self._timer.cancel()

    def _look(self, due: float) -> None:
        view, now = self._handle.snapshot(), self._clock()
        if view is None:
            return
        phase, since = view.phase, view.since
        if phase is Phase.BOOT:  # the way to on_start is a part of the start; before its birth it can do nothing
            phase, since = Phase.ON_START, since or now
        limit = self._limits.get(phase)
        if limit is None or now < since + limit:
            soonest = now + self._least  # a phase that begins after this look cannot be over its limit before
            self._look_at(soonest if limit is None else min(since + limit, soonest))
        elif now - due > LATE and self._doubt(since):
            self._look_at(now + limit)  # it may not have had its time: it gets all of it once more
        else:
            self._handle.kill_hung(Hung(phase.hook, now - since))

    def _doubt(self, since: float) -> bool:
        """Whether the phase that began then may be doubted once more; of one that began later it is the first time."""
        self._doubts = self._doubts + 1 if since == self._doubted else 1
        self._doubted = since
        return self._doubts <= DOUBTS
