"""What the policies of all supervisors share: the life of each child, the counting of restarts, the way to the end.

No clock, no thread, no I/O: time is an argument, and the same inputs always give the same actions. What takes
several steps is a job (see `jobs`). Rule numbers are those of the supervision reference.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from enum import Enum, auto
from itertools import takewhile
from typing import Any

from suitkaise import events
from suitkaise.errors import ChildNotFound, WorkerDead
from suitkaise.exits import ExitReason, GaveUp, Killed, Shutdown, StartFailure
from suitkaise.policy.actions import (
    Action,
    Begin,
    ChildRequest,
    Exited,
    Ignored,
    Input,
    Kill,
    KillAll,
    Previous,
    Publish,
    Ready,
    Refuse,
    Removed,
    SetTimer,
    Start,
    Started,
    Stop,
    StopAll,
    Terminated,
    Timer,
    TimerKey,
)
from suitkaise.policy.children import ChildInfo, ChildPhase, ChildState, count, leaf
from suitkaise.policy.jobs import Job, JobQueue
from suitkaise.specs import Child, SupervisorSpec
from suitkaise.status import Counts

__all__ = ["BasePolicy", "SupervisorPhase"]


class SupervisorPhase(Enum):
    """Where the supervisor itself stands."""

    NEW = auto()
    STARTING = auto()
    RUNNING = auto()
    STOPPING = auto()
    ENDED = auto()


class BasePolicy(ABC):
    """The decisions that no strategy changes."""

    def __init__(self, spec: SupervisorSpec, path: str, chance: Callable[[], float] | None = None) -> None:
        self.spec = spec
        self.path = path
        self.phase: SupervisorPhase = SupervisorPhase.NEW
        self.reason: ExitReason | None = None
        self._children = {child.id: ChildState(child) for child in spec.children}
        self._restarts: deque[float] = deque()
        self._retired = 0  # the highest incarnation number of children that were removed
        self._chance = chance if chance is not None else random.Random(path).random
        self._line = JobQueue()
        self._out: list[Action] = []
        self._now = 0.0

    # ------------------------------------------------------------ questions, answered at once
    def which_children(self) -> list[ChildInfo]:
        """All children in start order, the dead ones included (rule 20)."""
        return [child.info for child in list(self._children.values())]  # a copy: other threads may look

    def count_children(self) -> Counts:
        """How many children there are, and how many of them are alive (rule 21)."""
        return count(list(self._children.values()))

    def get_child_spec(self, id: str) -> Child:
        """The declaration of a child with its defaults filled in (rule 22)."""
        return self._find(id).spec

    def restarts_used(self, now: float) -> int:
        """How many of the allowed restarts the window holds at `now`."""
        before = now - self.spec.max_seconds
        return len(self._restarts) - sum(1 for _ in takewhile(lambda at: at < before, self._restarts))

    def child_info(self, id: str) -> ChildInfo | None:
        """One child's line of `which_children`; None if there is no such child."""
        child = self._children.get(id)
        return None if child is None else child.info

    def incarnation_of(self, id: str) -> int:
        """The number of a child's newest incarnation; 0 for none."""
        child = self._children.get(id)
        return 0 if child is None else child.incarnation

    def __contains__(self, id: object) -> bool:
        """Whether there is a child of that id, dead or alive."""
        return id in self._children

    def gone_for_good(self, down: set[str]) -> list[str]:
        """Which of the children that are `down` will not come back by themselves."""
        return [id for id in down if self.is_over(id)] if self.phase is SupervisorPhase.RUNNING else []

    def named(self, child: Child) -> Child:
        """A child that is to be added, under the id that it will have here; may be asked from any thread."""
        return child

    def inherit(self, before: BasePolicy) -> None:  # noqa: B027  (most have nothing of the kind)
        """Take over from the policy of the supervisor that was restarted what must not begin anew."""

    def is_over(self, id: str) -> bool:
        """Whether nothing but a request will start this child again."""
        child = self._children.get(id)
        return child is None or (child.at in (ChildPhase.STOPPED, ChildPhase.IGNORED) and not child.in_group_restart)

    # ------------------------------------------------------------ what happens
    def handle(self, event: Input, now: float) -> list[Action]:
        """Take in one event at time `now` (seconds, monotonic) and say what is to be done, in this order."""
        self._now = now
        match event:
            case Begin():
                if self.phase is SupervisorPhase.NEW:
                    self.phase = SupervisorPhase.STARTING
                    self._line.add(self._start_all())
            case Ready(id, incarnation, pid):
                self._on_ready(id, incarnation, pid)
            case Ignored(id, incarnation):
                self._on_ignored(id, incarnation)
            case Exited(id, incarnation, reason, abandoned):
                self._on_exited(id, incarnation, reason, abandoned)
            case Timer(key):
                self._on_time(key)
            case StopAll(reason):
                self._shut_down(reason)
            case KillAll(why):
                self._halt(why)
            case _:
                self._on_request(event)
        self._advance(event)
        actions, self._out = self._out, []
        return actions

    def _advance(self, event: Input) -> None:
        """Go on with the jobs that wait for what `event` may have brought."""
        self._line.advance()

    def _on_ready(self, id: str, incarnation: int, pid: int | None) -> None:
        child = self._current(id, incarnation)
        if child is None or child.at is not ChildPhase.STARTING:
            return
        child.at, child.pid, child.ready_at, child.abandoned = ChildPhase.RUNNING, pid, self._now, False
        took = self._now - child.ended_at if child.restarts and child.last_exit is not None else None
        self._emit(events.ChildStarted, child, pid=pid, restarts=child.restarts, took=took)

    def _on_ignored(self, id: str, incarnation: int) -> None:
        child = self._current(id, incarnation)
        if child is None or child.at not in (ChildPhase.STARTING, ChildPhase.STOPPING):
            return
        child.at = ChildPhase.IGNORED if child.at is ChildPhase.STARTING else ChildPhase.STOPPED
        if child.last_exit is None:
            child.ended_at = self._now
        self._emit(events.ChildIgnored, child)
        if child.at is ChildPhase.IGNORED and not self._keeps_spec(child):
            self._remove(child)

    def _on_exited(self, id: str, incarnation: int, reason: ExitReason, abandoned: bool) -> None:
        child = self._current(id, incarnation)
        if child is None or child.at not in (ChildPhase.STARTING, ChildPhase.RUNNING, ChildPhase.STOPPING):
            return
        was, child.at = child.at, ChildPhase.STOPPED
        child.last_exit, child.ended_at, child.abandoned = reason, self._now, abandoned
        child.stopped_on_request = was is ChildPhase.STOPPING
        backoff, up_since = child.spec.backoff, child.ready_at
        if backoff is not None and up_since is not None and self._now - up_since >= backoff.reset_after:
            child.attempt = 0
        if was is ChildPhase.STOPPING:
            expected = reason.clean or (child.spec.shutdown == "brutal_kill" and isinstance(reason, Killed))
            self._emit(events.ChildStopped if expected else events.ChildStopError, child, reason=reason)
        elif was is ChildPhase.STARTING:
            self._emit(events.ChildStartFailure, child, reason=reason)
            if child.restarts_alone and self.phase is SupervisorPhase.RUNNING:
                self._try_later(child)
        else:
            self._emit(events.ChildExited, child, reason=reason, pid=child.pid)
            if self.phase is not SupervisorPhase.STOPPING:
                child.at = ChildPhase.EXITED
                self._on_down(child)
        if abandoned:
            self._emit(events.ChildAbandoned, child)

    def _on_time(self, key: TimerKey) -> None:
        what, id, number = key
        child = self._current(id, number)
        if child is None:
            return
        if what == "kill" and child.at is ChildPhase.STOPPING:
            self._kill_late(child)
        elif what == "retry" and child.at is ChildPhase.RESTARTING and self.phase is SupervisorPhase.RUNNING:
            self._retry(child)

    def _kill_late(self, child: ChildState) -> None:
        self._out.append(Kill(child.spec.id, child.incarnation, "shutdown timeout"))

    def _on_request(self, request: ChildRequest) -> None:
        if self.phase in (SupervisorPhase.STOPPING, SupervisorPhase.ENDED):
            self._out.append(Refuse(request.request, self.stopping_error()))
        else:
            self._serve(request)

    # ------------------------------------------------------------ what the kinds of supervisors differ in
    @abstractmethod
    def _start_all(self) -> Job:
        """Start the declared children; then the supervisor is up."""

    @abstractmethod
    def _stop_children(self) -> Job:
        """Stop all children; afterwards the supervisor is over."""

    @abstractmethod
    def _serve(self, request: ChildRequest) -> None:
        """Begin to serve a request."""

    @abstractmethod
    def _keeps_spec(self, child: ChildState) -> bool:
        """Whether the declaration of this child is kept while it is down for good."""

    @abstractmethod
    def _on_down(self, child: ChildState) -> None:
        """A child that was up has ended by itself."""

    # ------------------------------------------------------------ restarts (rules 23-38)
    def _restart(self, child: ChildState) -> None:
        delay = self._delay(child)
        if self._count_restart(child, delay):
            self._restart_now(child, delay)

    def _restart_now(self, child: ChildState, delay: float) -> None:
        """Carry out a restart that is counted already; here that child alone (rule 31)."""
        if delay:
            self._wait_for_retry(child, delay, retry_counted=True)
        else:
            self._start(child, restarts_alone=True)

    def _retry(self, child: ChildState) -> None:
        """The time of a pending restart has come."""
        if child.retry_counted or self._count_restart(child):
            self._start(child, restarts_alone=True)

    def _count_restart(self, child: ChildState, delay: float = 0.0) -> bool:
        """Count one restart; False, and the supervisor is giving up, when it is one too many (rules 28-30)."""
        spec, now = self.spec, self._now
        if spec.max_restarts == float("inf"):
            self._restarts.clear()
        while self._restarts and self._restarts[0] < now - spec.max_seconds:
            self._restarts.popleft()
        self._restarts.append(now)
        used = len(self._restarts)
        if used <= spec.max_restarts:
            self._emit(events.ChildRestarting, child, delay=delay, used=used, allowed=spec.max_restarts)
            return True
        reason = child.last_exit
        assert reason is not None
        self._out.append(
            Publish(
                events.SupervisorGaveUp(
                    self.path,
                    now,
                    child=child.spec.id,
                    reason=reason,
                    max_restarts=spec.max_restarts,
                    max_seconds=spec.max_seconds,
                )
            )
        )
        child.at = ChildPhase.STOPPED
        self._shut_down(Shutdown(GaveUp(self._path(child), leaf(reason), spec.max_restarts, spec.max_seconds)))
        return False

    def _delay(self, child: ChildState) -> float:
        if child.spec.backoff is None:
            return 0.0
        child.attempt += 1
        return child.spec.backoff.delay(child.attempt, self._chance())

    def _try_later(self, child: ChildState) -> None:
        """A start failed during a restart: try again, behind whatever waits already (rule 35)."""
        self._wait_for_retry(child, self._delay(child), retry_counted=False)

    def _wait_for_retry(self, child: ChildState, delay: float, *, retry_counted: bool) -> None:
        child.at, child.retry_counted = ChildPhase.RESTARTING, retry_counted
        self._out.append(SetTimer(("retry", child.spec.id, child.incarnation), self._now + delay))

    # ------------------------------------------------------------ starting and stopping one child
    def _start(self, child: ChildState, *, restarts_alone: bool = False) -> None:
        starts = child.incarnation - child.before
        previous = Previous(starts, child.last_exit, child.ended_at) if starts else None
        child.incarnation += 1
        child.ready_at = None
        child.at, child.restarts_alone, child.in_group_restart = ChildPhase.STARTING, restarts_alone, False
        self._out.append(Start(child.spec, child.incarnation, previous))

    def _start_in_job(self, child: ChildState) -> Job:
        self._start(child)
        yield child

    def _stop(self, child: ChildState, *, for_good: bool = True) -> Job:
        """Stop a child by its shutdown, and wait until it is gone (rules 42-44); a temporary one is forgotten."""
        seconds = self._ask_to_stop(child)
        if seconds is not None:
            self._out.append(SetTimer(("kill", child.spec.id, child.incarnation), self._now + seconds))
        yield from self._await_exit(child, for_good=for_good)

    def _ask_to_stop(self, child: ChildState) -> float | None:
        """Begin its shutdown, if it is alive; returns after how many seconds it is to be killed, if at all."""
        if child.at not in (ChildPhase.RUNNING, ChildPhase.STARTING):
            return None
        child.at = ChildPhase.STOPPING
        shutdown = child.spec.shutdown
        if shutdown == "brutal_kill":
            self._out.append(Kill(child.spec.id, child.incarnation, "brutal_kill"))
            return None
        self._out.append(Stop(child.spec.id, child.incarnation))
        return None if isinstance(shutdown, str) else shutdown

    def _await_exit(self, child: ChildState, *, for_good: bool = True) -> Job:
        """Wait until a child is gone that was asked to stop."""
        if child.at is ChildPhase.STOPPING:
            yield child
        if child.at in (ChildPhase.EXITED, ChildPhase.RESTARTING):
            child.at = ChildPhase.STOPPED
        if for_good and not self._keeps_spec(child):
            self._remove(child)

    # ------------------------------------------------------------ the whole supervisor
    def _mark_running(self) -> None:
        self.phase = SupervisorPhase.RUNNING
        self._out.append(Publish(events.SupervisorStarted(self.path, self._now)))
        self._out.append(Started())

    def _shut_down(self, reason: ExitReason) -> None:
        if self.phase in (SupervisorPhase.STOPPING, SupervisorPhase.ENDED):
            return
        self.phase, self.reason = SupervisorPhase.STOPPING, reason
        for request in self._give_up_jobs():
            self._out.append(Refuse(request.request, self.stopping_error()))
        self._out.append(Publish(events.SupervisorStopping(self.path, self._now, why=str(reason))))
        self._line.add(self._stop_all())

    def _give_up_jobs(self) -> list[ChildRequest]:
        return self._line.clear()

    def _stop_all(self) -> Job:
        yield from self._stop_children()
        reason = self.reason
        assert reason is not None
        self.phase = SupervisorPhase.ENDED
        self._out.append(Publish(events.SupervisorStopped(self.path, self._now, reason=reason)))
        self._out.append(Terminated(reason))

    def _halt(self, why: str) -> None:
        """Kill all that is below (rule 65); a stop that was under way has come to nothing."""
        for child in reversed(list(self._children.values())):
            if child.at in (ChildPhase.STARTING, ChildPhase.RUNNING, ChildPhase.STOPPING):
                child.at = ChildPhase.STOPPING
                self._out.append(Kill(child.spec.id, child.incarnation, why))
        self._shut_down(Killed(why))
        if self.phase is SupervisorPhase.STOPPING and not isinstance(self.reason, Killed):
            self.reason = Killed(why)

    def abort(self, reason: ExitReason) -> None:
        """A fault in here, or in who carries it out: all below is killed, and nothing more is decided (rule 68)."""
        self.phase, self.reason = SupervisorPhase.ENDED, reason
        for child in self._children.values():
            if child.at not in (ChildPhase.NEW, ChildPhase.IGNORED, ChildPhase.STOPPED):
                child.at, child.stopped_on_request, child.last_exit = ChildPhase.STOPPED, True, Killed(str(reason))

    # ------------------------------------------------------------ small things
    def _current(self, id: str, incarnation: int) -> ChildState | None:
        child = self._children.get(id)
        return child if child is not None and child.incarnation == incarnation else None

    def _find(self, id: str) -> ChildState:
        try:
            return self._children[id]
        except KeyError:
            raise self.not_found(id) from None

    def not_found(self, id: str) -> ChildNotFound:
        """What everyone gets who asks for a child that is not there."""
        known = ", ".join(repr(name) for name in list(self._children)[:10]) or "none"
        return ChildNotFound(f"supervisor {self.path!r} has no child {id!r}; it has {known}", path=f"{self.path}/{id}")

    def stopping_error(self) -> WorkerDead:
        """What everyone gets who asks for something now that the supervisor stops or has stopped."""
        return WorkerDead(f"supervisor {self.path!r} is stopping: {self.reason}", path=self.path, reason=self.reason)

    def _remove(self, child: ChildState) -> None:
        if self._children.pop(child.spec.id, None) is not None:
            self._retired = max(self._retired, child.incarnation)
            self._out.append(Removed(child.spec.id))

    def _failure(self, child: ChildState) -> StartFailure:
        reason = child.last_exit
        assert reason is not None
        if isinstance(reason, Shutdown) and isinstance(reason.detail, StartFailure):
            return reason.detail
        return StartFailure(self._path(child), reason)

    def _path(self, child: ChildState) -> str:
        return f"{self.path}/{child.spec.id}"

    def _emit(self, event: Callable[..., events.Event], child: ChildState, **fields: Any) -> None:
        self._out.append(Publish(event(self._path(child), self._now, **fields)))
