"""The simulated engine: each worker is a script of events on a virtual clock, so that a seed replays a tree's run."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from concurrent.futures import Future
from typing import Literal

from suitkaise.engines.engine import Exit, Launch, settle
from suitkaise.exits import ExitReason, Hung, Killed, Shutdown
from suitkaise.messaging.inbox import Inbox
from suitkaise.messaging.messages import Message, Payload
from suitkaise.platform.board import SLOT_BYTES, Phase, Slot, SlotView
from suitkaise.platform.condition import OwnFuture
from suitkaise.platform.reactor import TimerHandle
from suitkaise.records import dataclass, field
from suitkaise.specs import Child
from suitkaise.specs.options import is_number

__all__ = ["Behaviour", "SimulatedEngine", "SimulatedHandle", "VirtualClock"]


class VirtualClock:
    """A clock that a test advances. Callbacks run in the order of their times, then of the calls that set them."""

    def __init__(self) -> None:
        self.now: float = 0.0
        self._numbers = itertools.count()
        self._waiting: list[tuple[float, int, TimerHandle]] = []

    def __call__(self) -> float:
        return self.now

    def at(self, when: float, callback: Callable[[], None]) -> TimerHandle:
        """Run `callback` at `when`, not before now."""
        handle = TimerHandle(callback)
        heapq.heappush(self._waiting, (max(when, self.now), next(self._numbers), handle))
        return handle

    def soon(self, callback: Callable[[], None]) -> None:
        """Run `callback` now, behind the callbacks that are due already."""
        self.at(self.now, callback)

    def run(self, until: float = float("inf"), most: int = 1_000_000) -> int:
        """Advance the clock until no callback is due before `until`; return how many callbacks ran.

        Raises:
            RuntimeError: more than `most` callbacks ran: the simulation does not come to rest.
        """
        count = 0
        while self._waiting and self._waiting[0][0] <= until:
            when, _, handle = heapq.heappop(self._waiting)
            self.now = max(self.now, when)
            handle.fire()
            count += 1
            if count > most:
                raise RuntimeError(f"not at rest after {most} events")
        if until != float("inf"):
            self.now = max(self.now, until)
        return count


@dataclass(frozen=True, slots=True)
class Behaviour:
    """The script of one incarnation: its start, its run, and its answer to a stop request. Times are in seconds."""

    start: Literal["ok", "fails", "ignores"] = "ok"
    start_takes: float | None = 0.0
    """Seconds until `on_start` has returned or failed; None: never."""
    lives: float | None = None
    """Seconds from being ready until the incarnation ends by itself; None: it does not."""
    reason: ExitReason = field(default_factory=lambda: Killed("script"))
    """Why the incarnation ends, or fails to start."""
    stop_takes: float | None = 0.0
    """Seconds from a stop request to the end; None: the request is ignored."""
    stop_reason: ExitReason = field(default_factory=Shutdown)
    hangs: float | None = None
    """Seconds from being ready until the incarnation does nothing any more, and ignores stop requests; None: never."""
    hangs_in: Literal["loop", "between_loops", "mailbox"] = "loop"
    """Where it hangs: in `loop`; between two loops; or with a message that it does not read, which is judged by
    `receive_timeout`, the other two by `loop_timeout`."""

    def __post_init__(self) -> None:
        if self.start not in ("ok", "fails", "ignores"):
            raise ValueError(f"Behaviour: start must be 'ok', 'fails' or 'ignores', not {self.start!r}")
        if self.hangs_in not in ("loop", "between_loops", "mailbox"):
            raise ValueError(f"Behaviour: hangs_in must be 'loop', 'between_loops' or 'mailbox', not {self.hangs_in!r}")
        for name in ("start_takes", "lives", "stop_takes", "hangs"):
            seconds = getattr(self, name)
            if seconds is not None and not (is_number(seconds) and seconds >= 0):
                raise ValueError(f"Behaviour: {name} must be seconds >= 0, or None, not {seconds!r}")
        for name in ("reason", "stop_reason"):
            reason = getattr(self, name)
            if not isinstance(reason, ExitReason):
                takes = "an exit reason, as Killed('script') or ExitCode(3)"
                raise ValueError(f"Behaviour: {name} must be {takes}, not {reason!r}")


class SimulatedEngine:
    """Runs scripts instead of workers; `behaviour` returns the script for each launch."""

    def __init__(self, clock: VirtualClock, behaviour: Callable[[Launch], Behaviour]) -> None:
        self.clock = clock
        self.launched: list[SimulatedHandle] = []
        self._behaviour = behaviour

    def prepare(self, path: str, child: Child) -> None:
        """Do nothing: every child can be simulated."""

    def forget(self, path: str) -> None:
        """Do nothing: nothing is kept."""

    def abandoned(self) -> list[str]:
        """Return nothing: scripts can be killed."""
        return []

    def spawn(self, launch: Launch) -> SimulatedHandle:
        """Start one script."""
        behaviour = self._behaviour(launch)
        if not isinstance(behaviour, Behaviour):
            raise TypeError(f"Simulation: behaviour must return a Behaviour(...), not {behaviour!r}")
        handle = SimulatedHandle(self.clock, launch, behaviour)
        self.launched.append(handle)
        return handle

    def close(self) -> None:
        """Do nothing: nothing is held."""


class SimulatedHandle:
    """One scripted incarnation."""

    def __init__(self, clock: VirtualClock, launch: Launch, behaviour: Behaviour) -> None:
        self.exited: Future[Exit] = OwnFuture()
        self.ready: Future[int] = OwnFuture()
        self.checkpoint: Payload | None = None
        self.suspended: bool = False
        self.inbox: Inbox = Inbox(Slot(memoryview(bytearray(SLOT_BYTES))))
        self.on_room: Callable[[int], None] = lambda dropped: None
        self.launch = launch
        self.behaviour = behaviour
        self.began: float = clock.now
        self.stop_asked_at: float | None = None
        self.ended_at: float | None = None
        self.ready_at: float = clock.now
        self._clock = clock
        if behaviour.start_takes is not None:
            clock.at(clock.now + behaviour.start_takes, self._start)

    @property
    def alive(self) -> bool:
        """Whether this incarnation has not ended."""
        return self.ended_at is None

    @property
    def hanging_since(self) -> float | None:
        """When the incarnation has begun to hang; None if it has not."""
        hangs = self.behaviour.hangs
        if hangs is None or not self.ready.done() or self._clock.now < self.ready_at + hangs:
            return None
        since = self.ready_at + hangs
        return None if self.stop_asked_at is not None and self.stop_asked_at < since else since

    def _start(self) -> None:
        behaviour = self.behaviour
        if not self.alive or self.stop_asked_at is not None:
            return
        if behaviour.start == "fails":
            self._end(Exit(behaviour.reason))
        elif behaviour.start == "ignores":
            self._end(Exit(Shutdown(), ignored=True))
        else:
            self.ready_at = self._clock.now
            self.ready.set_result(0)
            if behaviour.lives is not None:
                self._clock.at(self._clock.now + behaviour.lives, lambda: self._end(Exit(behaviour.reason)))

    def deliver(self, message: Message, *, accepted: bool = False) -> None:
        """Ignore the message."""

    def stop(self, drain: float | None = None) -> None:
        """End after `stop_takes`, unless the script ignores the request."""
        self.stop_asked_at = self._clock.now
        if self.behaviour.stop_takes is not None and self.hanging_since is None:
            self._clock.at(
                self._clock.now + self.behaviour.stop_takes,
                lambda: self._end(Exit(self.behaviour.stop_reason)),
            )

    def suspend(self, on: bool) -> None:
        """Note it: a script has no loops."""
        self.suspended = on

    def snapshot(self) -> SlotView | None:
        """Return the phase that the script is in; None after its end."""
        if not self.alive:
            return None
        hanging_since, hangs_in = self.hanging_since, self.behaviour.hangs_in
        if not self.ready.done():
            phase, since = Phase.ON_START, self.began
        elif hanging_since is not None:
            phase, since = Phase.LOOP if hangs_in == "loop" else Phase.WAITING, hanging_since
        elif self.stop_asked_at is not None:
            phase, since = Phase.ON_FINISH, self.stop_asked_at
        else:
            phase, since = Phase.WAITING, self.ready_at
        unread = int(hanging_since is not None and hangs_in == "mailbox")
        looping = hanging_since is not None and hangs_in == "between_loops"
        return SlotView(0, phase, since, 0, 0.0, 0.0, 0, unread, looping, started=self.began)

    def kill_hung(self, hung: Hung) -> None:
        """End now, for that reason."""
        self._clock.soon(lambda: self._end(Exit(hung)))

    def kill(self, why: str) -> None:
        """End now."""
        self._clock.soon(lambda: self._end(Exit(Killed(why))))

    def _end(self, exit: Exit) -> None:
        if self.alive:
            self.ended_at = self._clock.now
            settle(self.exited, exit)
