"""Hang detection (rule 55): notices a phase that outlasts its limit, whatever the worker does meanwhile.

Nothing polls, and no message is sent when a phase begins. A worker writes its phase into its slot of the status board;
the detector looks there when the current phase would be over its limit, or when a phase that has begun since the last
look could be. Three states are no hook: a start, whose limit runs from the fork until the worker reports that it is
up; a worker with a loop that stands between two hooks; and a worker that leaves a message unread.
"""

from __future__ import annotations

from collections.abc import Callable

from suitkaise.engines.engine import WorkerHandle
from suitkaise.exits import Hung
from suitkaise.platform.board import Phase, SlotView
from suitkaise.platform.late_look import Extensions, is_late
from suitkaise.platform.reactor import TimerHandle
from suitkaise.specs import Child

__all__ = ["EXTENSIONS", "LATE", "limits_of", "watch"]

LATE = 0.05
"""Seconds: a look that comes that late proves nothing, since this program, and perhaps the worker, was starved."""

EXTENSIONS = 3
"""How often a phase over its limit gets the limit's time once more because the look came late."""


def limits_of(child: Child) -> dict[Phase, float]:
    """Return the limits that a child has, by phase, in seconds."""
    limits = {
        Phase.ON_START: child.start_timeout,
        Phase.BEFORE_LOOP: child.before_loop_timeout,
        Phase.LOOP: child.loop_timeout,
        Phase.AFTER_LOOP: child.after_loop_timeout,
        Phase.ON_RECEIVE: child.receive_timeout,
        Phase.HANDLE_TIMEOUT: child.receive_timeout,
        Phase.ON_FINISH: child.finish_timeout,
    }
    return {phase: limit for phase, limit in limits.items() if limit is not None}


def watch(
    child: Child,
    handle: WorkerHandle,
    clock: Callable[[], float],
    call_at: Callable[[float, Callable[[], None]], TimerHandle],
) -> None:
    """Watch one incarnation from now on, if its child has limits; call its `kill_hung` once if it hangs.

    Args:
        child: the declaration, with the limits.
        handle: the incarnation, which was ordered to start just now.
        clock: returns the time in seconds (monotonic).
        call_at: sets a timer.
    """
    limits = limits_of(child)
    if limits:
        _Watch(limits, handle, clock, call_at)


class _Watch:
    """The looks at one incarnation. They end with the incarnation."""

    def __init__(
        self,
        limits: dict[Phase, float],
        handle: WorkerHandle,
        clock: Callable[[], float],
        call_at: Callable[[float, Callable[[], None]], TimerHandle],
    ) -> None:
        self._limits = limits
        self._shortest = min(limits.values())
        self._handle = handle
        self._clock = clock
        self._call_at = call_at
        self._extensions = Extensions(EXTENSIONS)
        self._rest: object = None  # what the worker was seen at, while no hook runs
        self._rest_seen = 0.0
        self._look_at(clock() + self._shortest)
        handle.exited.add_done_callback(lambda exited: self._timer.cancel())

    def _look_at(self, when: float) -> None:
        self._timer = self._call_at(when, lambda: self._look(when))
        if self._handle.exited.done():  # the incarnation may have ended before the timer was set
            self._timer.cancel()

    def _look(self, due: float) -> None:
        starting = not self._handle.ready.done()  # first: the worker may report that it is up before the next line
        view, now = self._handle.snapshot(), self._clock()
        if view is None:
            return
        phase, since, limit = view.phase, view.since, self._limits.get(view.phase)
        if starting:  # whatever the process has come to
            phase, limit = Phase.ON_START, self._limits.get(Phase.ON_START)
            since = now if view.started is None else view.started
        elif phase is Phase.WAITING:
            since, limit = self._judge_rest(view, now)
        if limit is None or now < since + limit:
            soonest = now + self._shortest  # a phase that begins after this look cannot be over its limit before
            self._look_at(soonest if limit is None else min(since + limit, soonest))
        elif is_late(due, now, LATE) and self._extensions.grant(since):
            self._look_at(now + limit)  # the worker may not have had its time: it gets all of it once more
        else:
            self._handle.kill_hung(Hung(phase.hook, now - since))

    def _judge_rest(self, view: SlotView, now: float) -> tuple[float, float | None]:
        """Return since when a worker in no hook does nothing although it could, and the limit for that.

        One with a loop can always go on; one without can when a message waits for it.
        """
        limits = [self._limits.get(Phase.LOOP)] if view.looping else []
        if view.queued:
            limits.append(self._limits.get(Phase.ON_RECEIVE))
        given = [limit for limit in limits if limit is not None]
        if not given or self._handle.suspended:
            self._rest = None
            return now, None
        rest = view.since, view.messages, view.looping, bool(view.queued)
        if rest != self._rest:  # counted from this look: what the worker could do may have come just now
            self._rest, self._rest_seen = rest, now
        return self._rest_seen, min(given)
