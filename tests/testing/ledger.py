"""What one supervisor does, as seen from outside, against the rules.

A ledger knows nothing of policies. It sees what its supervisor hears (exits, requests), what it does (starts, stops,
kills, answers, events) and when. Everything done must have a reason that the rules name; everything that the rules
demand must have been done by the end of the turn, or be under way. What is wrong is told to `wrong`, never raised:
much of this is called from inside of what it watches.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from suitkaise import Supervisor, events
from suitkaise.crashes import CrashReport
from suitkaise.events import Event
from suitkaise.exits import Crashed, ExitCode, ExitReason, GaveUp, Hung, Killed, Shutdown, Signaled, StartFailure
from suitkaise.policy.actions import (
    Begin,
    DeleteChild,
    Exited,
    Ignored,
    Input,
    KillAll,
    Ready,
    Recall,
    RestartChild,
    StartChild,
    StopAll,
    TerminateChild,
    Timer,
)
from suitkaise.policy.base import BasePolicy
from suitkaise.specs import Child
from suitkaise.workers.incarnation import Recalled

__all__ = ["ForkedChild", "Ledger", "Ticket"]

EPSILON = 1e-9


@dataclass(slots=True, eq=False)
class ForkedChild:
    """One child, as far as its supervisor has heard."""

    spec: Child
    launches: int = 0
    alive: bool = False
    ready: bool = False
    settled: bool = False  # this incarnation came up, or chose not to
    alone: bool = False  # it is restarted by itself
    asked_at: float | None = None  # when it was told to end
    up_at: float | None = None
    due: bool = False  # a restart of it alone was announced, without delay
    end: int = 0  # when its own end was heard that nothing was done about yet; 0: there is none
    retry: str = ""  # "failed": its start in a restart, not counted yet; "counted": it waits for its backoff
    retry_at: float = 0.0
    retry_called: int = 0  # when its timer was heard
    attempts: int = 0
    last_exit: ExitReason | None = None
    ended_at: float = 0.0
    ignored: bool = False
    ordered: bool = False
    excused: bool = False  # somebody wanted it down, or what would have brought it back

    @property
    def temporary(self) -> bool:
        return self.spec.restart == "temporary"

    @property
    def returns(self) -> bool:
        """Rules 23-26."""
        assert self.last_exit is not None
        return self.spec.restart == "permanent" or (self.spec.restart == "transient" and not self.last_exit.clean)

    @property
    def waits(self) -> bool:
        """Nobody needs to ask for it to be started again."""
        return bool(self.retry) or self.due or (self.end > 0 and self.returns)


@dataclass(slots=True, eq=False)
class Ticket:
    """A request that was heard and not yet answered."""

    request: Any
    what: str
    id: str
    spec: Child | None
    heard: int
    stopped: bool = False
    launched: bool = False
    failed: bool = False


@dataclass(slots=True, eq=False)
class Group:
    """A group restart under way (rules 32-38)."""

    culprit: str
    members: list[str]
    delay: float | None  # only the stops: the rest follows after a backoff
    todo: list[str] | None = None  # whom to start yet; None while there are some to be stopped
    last: ForkedChild | None = None


_NAMES: dict[type, str] = {
    StartChild: "start", TerminateChild: "terminate", RestartChild: "restart", DeleteChild: "delete", Recall: "recall",
}  # fmt: skip


@dataclass(slots=True)
class _Turn:
    """What has happened since the supervisor began to deal with one event."""

    expected: tuple[type[Event], str, ExitReason | None] | None = None
    reports: int = 0
    halted: str | None = None
    refused: bool = False
    may_stop: set[str] = field(default_factory=set)


class Ledger:
    """One incarnation of a `Supervisor`, and what it owes."""

    def __init__(
        self, path: str, spec: Supervisor, policy: BasePolicy, now: Callable[[], float], wrong: Callable[[str], None]
    ) -> None:
        self.path = path
        self.spec = spec
        self.policy = policy
        self.phase = "new"
        self.kids = {child.id: ForkedChild(child) for child in spec.children}
        self.tickets: list[Ticket] = []
        self.restarts: list[float] = []
        self.group: Group | None = None
        self.to_start = [child.id for child in spec.children]
        self.latest: ForkedChild | None = None  # the declared child that was started last
        self.failed: ForkedChild | None = None  # the one whose start failed
        self.significant_ends: dict[str, int] = {}
        self.turns = 0
        self.turn = _Turn()
        self.end_reason: ExitReason | None = None
        self.highest: dict[str, int] = {}
        self.asked_last = 0  # when a request was heard last
        self.grouped_last = 0  # when a group was stopped last: that may have taken the last significant one along
        self._clock = now
        self._wrong = wrong

    @property
    def now(self) -> float:
        return self._clock()

    def wrong(self, what: str) -> None:
        self._wrong(f"{self.path}: {what}")

    # ------------------------------------------------------------ what differs in a dynamic supervisor
    def keeps(self, kid: ForkedChild) -> bool:
        return not kid.temporary

    @property
    def one_by_one(self) -> bool:
        """Its children come back independently of each other."""
        return self.spec.strategy == "one_for_one"

    def head(self, id: str) -> Ticket | None:
        """The request that it serves now, if it is about this child."""
        return self.tickets[0] if self.tickets and self.tickets[0].id == id else None

    def heads(self) -> Iterable[Ticket]:
        """The requests that it must be serving."""
        return self.tickets[:1]

    # ------------------------------------------------------------ what it hears
    def hear(self, event: Input) -> None:
        self.turns += 1
        self.turn = _Turn()
        match event:
            case Begin():
                self.phase = "starting"
            case Ready(id, number):
                kid = self.kids.get(id)
                self.highest[id] = number
                if kid is not None and kid.alive and not kid.ready and kid.asked_at is None:
                    kid.ready = kid.settled = True
                    kid.up_at = self.now
                    self.turn.expected = (events.ChildStarted, id, None)
            case Ignored(id):
                kid = self.kids.get(id)
                if kid is not None and kid.alive:
                    self._hear_ignored(kid)
            case Exited(id, number, reason):
                kid = self.kids.get(id)
                self.highest[id] = number  # that of a supervisor shows here only
                if kid is not None and kid.alive:
                    self._hear_exit(kid, reason)
            case Timer((what, id, number)):
                kid = self.kids.get(id)
                if what == "retry" and kid is not None and kid.retry and number == self.highest[id]:
                    kid.retry_called = self.turns
            case StopAll(reason):
                self.turn.may_stop.add(str(reason))
                self.end_reason = self.end_reason or reason
            case KillAll(why):
                self.turn.halted = why
                self.turn.may_stop.add(str(Killed(why)))
                if not isinstance(self.end_reason, Killed):
                    self.end_reason = Killed(why)
            case StartChild(request, child):
                self.tickets.append(Ticket(request, "start", child.id, child, self.turns))
                self.asked_last = self.turns
            case _:
                self.tickets.append(Ticket(event.request, _NAMES[type(event)], event.id, None, self.turns))
                self.asked_last = self.turns
        self._settle_group()

    def _hear_ignored(self, kid: ForkedChild) -> None:
        kid.alive = kid.ready = False
        self.turn.expected = (events.ChildIgnored, kid.spec.id, None)
        if kid.last_exit is None:
            kid.ended_at = self.now
        if kid.asked_at is not None:
            self._await_exit(kid)
            return
        kid.settled = kid.ignored = True
        if not self.keeps(kid):  # rule 12
            del self.kids[kid.spec.id]

    def _hear_exit(self, kid: ForkedChild, reason: ExitReason) -> None:
        id, was_ready = kid.spec.id, kid.ready
        kid.alive = kid.ready = False
        kid.last_exit, kid.ended_at, kid.ordered = reason, self.now, kid.asked_at is not None
        backoff = kid.spec.backoff
        if backoff is not None and kid.up_at is not None and self.now - kid.up_at >= backoff.reset_after:
            kid.attempts = 0
        if kid.asked_at is not None:
            fine = reason.clean or (kid.spec.shutdown == "brutal_kill" and isinstance(reason, Killed))
            self.turn.expected = (events.ChildStopped if fine else events.ChildStopError, id, reason)
            self._await_exit(kid)
        elif was_ready:
            self.turn.expected = (events.ChildExited, id, reason)
            if self.phase in ("starting", "running"):
                kid.end = self.turns
                if kid.spec.significant and not kid.returns:
                    self.significant_ends[id] = self.turns
        else:
            self.turn.expected = (events.ChildStartFailure, id, reason)
            self._hear_failure(kid)

    def _hear_failure(self, kid: ForkedChild) -> None:
        ticket = self.head(kid.spec.id)
        if self.phase == "starting":
            self.failed = kid
            detail = reason.detail if isinstance(reason := kid.last_exit, Shutdown) else None
            self.end_reason = Shutdown(
                detail if isinstance(detail, StartFailure) else StartFailure(f"{self.path}/{kid.spec.id}", reason)  # type: ignore[arg-type]
            )
            self.turn.may_stop.add(str(self.end_reason))
        elif self.phase != "running":
            return
        elif kid.alone or self.group is not None:
            kid.retry, kid.retry_called = "failed", 0
            kid.retry_at = self.now + self._delay(kid)[0]
            self.group = None
        elif ticket is not None and ticket.launched:
            ticket.failed = True

    def _delay(self, kid: ForkedChild) -> tuple[float, float]:
        """Count an attempt; between which delays its backoff lies now (rule 56)."""
        backoff = kid.spec.backoff
        if backoff is None:
            return 0.0, 0.0
        kid.attempts += 1
        plain = min(backoff.initial * backoff.factor ** (kid.attempts - 1), backoff.maximum)
        return plain * (1 - backoff.jitter) - EPSILON, plain * (1 + backoff.jitter) + EPSILON

    def _await_exit(self, kid: ForkedChild) -> None:
        """It was told to end, and has: rules 14 and 27."""
        ticket = self.head(kid.spec.id)
        recalled = ticket is not None and ticket.what == "recall" and ticket.stopped
        if self.phase in ("starting", "running") and not self.keeps(kid) and not recalled:
            del self.kids[kid.spec.id]

    # ------------------------------------------------------------ what it does
    def launch(self, spec: Child, incarnation: int | None, recalled: Recalled | None) -> None:
        id = spec.id
        kid = self.kids.get(id)
        if kid is not None and kid.alive:
            self.wrong(f"{id} is started while it is alive")
        alone = self._why_launch(id, spec)
        kid = self.kids.get(id)
        if kid is None:
            self.kids[id] = kid = ForkedChild(spec)
        if kid.spec is not spec:
            self.wrong(f"{id} is started by another declaration than its own")
        number = self.highest.get(id, 0) + 1 if incarnation is None else incarnation
        if number <= self.highest.get(id, 0):
            self.wrong(f"{id} is started as incarnation {number}, again")
        self.highest[id] = number
        if incarnation is not None:
            self._check_recalled(kid, recalled)
        kid.launches += 1
        kid.alive, kid.ready, kid.settled, kid.alone = True, False, False, alone
        kid.asked_at = kid.up_at = None
        kid.due, kid.end, kid.retry, kid.retry_called = False, 0, "", 0
        kid.ignored = kid.excused = False
        if kid.launches > 1:  # else the end was that of an earlier child of this name
            self.significant_ends.pop(id, None)
        if self.phase == "starting":
            self.latest = kid
        elif self.group is not None:
            self.group.last = kid

    def _check_recalled(self, kid: ForkedChild, recalled: Recalled | None) -> None:
        expected = None
        if kid.launches:
            expected = Recalled(kid.launches, kid.last_exit, self.now - kid.ended_at)
        if recalled != expected:
            self.wrong(f"{kid.spec.id} is told {recalled} of its past, which is {expected} (rule 57)")

    def _why_launch(self, id: str, spec: Child) -> bool:
        """Find the reason for a start; whether it is a restart of that child alone."""
        kid = self.kids.get(id)
        if self.phase == "starting":
            if self.failed is not None or not self.to_start or self.to_start.pop(0) != id:
                self.wrong(f"{id} is started out of turn (rules 1 and 2)")
            elif self.latest is not None and not self.latest.settled:
                self.wrong(f"{id} is started before {self.latest.spec.id} is ready (rule 1)")
            return False
        if self.phase != "running":
            self.wrong(f"{id} is started, but the supervisor is {self.phase}")
            return False
        ticket = self.head(id)
        self._begin_pending_group(ticket)
        if self.group is not None:
            self._launch_in_group(self.group, id)
            return False
        if kid is not None and kid.due:
            return True
        if ticket is not None and not ticket.launched and ticket.what in ("start", "restart", "recall"):
            self._launch_for(ticket, spec)
            return False
        if self.one_by_one and kid is not None and kid.retry == "counted" and self.now >= kid.retry_at:
            return True
        self.wrong(f"{id} is started without a reason")
        return False

    def _launch_for(self, ticket: Ticket, spec: Child) -> None:
        ticket.launched = True
        self._in_turn(ticket.heard)
        kid = self.kids.get(ticket.id)
        match ticket.what:
            case "start":
                if kid is not None:
                    self.wrong(f"{kid.spec.id} is added, but it is there already (rules 8 and 9)")
                if ticket.spec is not spec:
                    self.wrong(f"{ticket.id} is not started as it was declared")
            case "restart":
                if kid is None or kid.waits:
                    self.wrong(f"{ticket.id} is started on request, but it is not at rest (rule 17)")
            case "recall":
                if kid is None:
                    self.wrong(f"{ticket.id} is recalled, but there is no such child")
                elif not self.one_by_one and kid.retry:
                    self._excuse_those_down()

    def _in_turn(self, heard: int) -> None:
        """Something that came at `heard` is dealt with, so what came before that has been."""
        for kid in list(self.kids.values()):
            if 0 < kid.end < heard and not kid.alive:
                self._finish_end(kid)

    def _begin_pending_group(self, ticket: Ticket | None) -> None:
        """A group restart goes on after its backoff; nothing but its stops and starts tells that it does."""
        if self.one_by_one or self.group is not None:
            return
        called = [kid for kid in self.kids.values() if kid.retry == "counted" and kid.retry_called]
        if not called:
            return
        first = min(called, key=lambda kid: kid.retry_called)
        if self.tickets and (self.tickets[0].stopped or self.tickets[0].launched):
            return
        if ticket is not None and ticket.heard < first.retry_called:
            return
        if self.now < first.retry_at:
            self.wrong(f"{first.spec.id} does not wait for its backoff (rule 56)")
        self.group, self.grouped_last = Group(first.spec.id, self._members(first.spec.id), None), self.turns

    def _members(self, culprit: str) -> list[str]:
        ids = list(self.kids)
        return ids[ids.index(culprit) :] if self.spec.strategy == "rest_for_one" else ids

    def _launch_in_group(self, group: Group, id: str) -> None:
        if group.todo is None:
            living = [one for one in group.members if one in self.kids and self.kids[one].alive]
            if living or group.delay is not None:
                self.wrong(f"{id} is started again while {living} of its group are not gone (rules 32 and 33)")
            self._pass_members(group)
            culprit = self.kids[group.culprit]
            culprit.end, culprit.retry = 0, ""
            group.todo = [one for one in group.members if one in self.kids]
        if group.last is not None and not group.last.settled:
            self.wrong(f"{id} is started again before {group.last.spec.id} is ready")
        if not group.todo or group.todo.pop(0) != id:
            self.wrong(f"{id} is started again out of turn; the group is {group.members} (rules 32-37)")

    def _pass_members(self, group: Group) -> None:
        """Those of the group are gone now, and what they waited for with them."""
        for id in group.members:
            kid = self.kids.get(id)
            if kid is not None and id != group.culprit:
                kid.end, kid.retry, kid.due = 0, "", False
                self.significant_ends.pop(id, None)
                if kid.temporary:  # rule 27
                    del self.kids[id]

    def _settle_group(self) -> None:
        group = self.group
        if group is None:
            return
        if group.todo is None:
            living = [one for one in group.members if one in self.kids and self.kids[one].alive]
            if not living and group.delay is not None:
                self._pass_members(group)
                culprit = self.kids[group.culprit]
                culprit.retry, culprit.retry_at, culprit.retry_called = "counted", self.now + group.delay, 0
                self.group = None
        elif not group.todo and (group.last is None or group.last.settled):
            self.group = None

    def stop(self, id: str, *, brutal: bool = False) -> None:
        kid = self.kids.get(id)
        if kid is None or not kid.alive or kid.asked_at is not None:
            self.wrong(f"{id} is told to end, but it is not alive, or knows already")
            return
        if brutal != (kid.spec.shutdown == "brutal_kill"):
            self.wrong(f"{id} is ended in another way than by its shutdown {kid.spec.shutdown!r} (rule 42)")
        self._why_stop(id)
        kid.asked_at = self.now

    def _why_stop(self, id: str) -> None:
        ids = list(self.kids)
        if self.phase == "stopping":
            self._check_reverse(id, ids[ids.index(id) + 1 :])
            return
        ticket = self.head(id)
        self._begin_pending_group(ticket)
        if self.group is not None:
            members = self.group.members
            if id not in members or id == self.group.culprit or self.group.todo is not None:
                self.wrong(f"{id} is stopped, but it is not to be restarted with {self.group.culprit} (rules 31-33)")
            else:
                self._check_reverse(id, members[members.index(id) + 1 :])
        elif ticket is not None and ticket.what in ("terminate", "recall") and not ticket.stopped:
            ticket.stopped = True
            self._in_turn(ticket.heard)
        else:
            self.wrong(f"{id} is stopped without a reason")

    def _check_reverse(self, id: str, later: list[str]) -> None:
        living = [one for one in later if one in self.kids and self.kids[one].alive]
        if living:
            self.wrong(f"{id} is stopped, but {living} after it are not gone (rule 44)")

    def kill(self, id: str, why: str) -> None:
        kid = self.kids.get(id)
        if kid is None or not kid.alive:
            self.wrong(f"{id} is killed, but it is not alive")
        elif why == self.turn.halted:
            kid.asked_at = self.now if kid.asked_at is None else kid.asked_at
        elif why == "brutal_kill":
            self.stop(id, brutal=True)
        elif why != "shutdown timeout" or kid.asked_at is None or not isinstance(kid.spec.shutdown, float):
            self.wrong(f"{id} is killed ({why}) without a reason")
        elif self.now < kid.asked_at + kid.spec.shutdown - EPSILON:
            self.wrong(f"{id} is killed before its time to stop is over (rule 42)")

    # ------------------------------------------------------------ what it tells
    def publish(self, event: Event) -> None:
        id = event.path.rpartition("/")[2]
        if isinstance(event, events.ChildRestarting):
            self._restarting(event, id)
        elif isinstance(event, events.SupervisorGaveUp):
            self._gave_up(event)
        elif isinstance(event, events.SupervisorStopping):
            self._stopping(event)
        elif isinstance(event, events.SupervisorStarted):
            if self.to_start or (self.latest is not None and not self.latest.settled) or self.phase != "starting":
                self.wrong("it says that it has started, but not all children are up (rule 1)")
            self.phase = "running"
        elif isinstance(event, events.SupervisorStopped):
            living = [one.spec.id for one in self.kids.values() if one.alive]
            if living or self.phase != "stopping":
                self.wrong(f"it says that it has stopped, but {living} live on (rule 44)")
            if str(event.reason) != str(self.end_reason):
                self.wrong(f"it ends with {event.reason} instead of {self.end_reason}")
            self.phase = "ended"
        else:
            self._told(event, id)

    def _told(self, event: Event, id: str) -> None:
        reason = getattr(event, "reason", None)
        if self.turn.expected != (type(event), id, reason):
            self.wrong(f"it tells {event!s}, instead of {self.turn.expected}")
        self.turn.expected = None
        kid = self.kids.get(id)
        if isinstance(event, events.ChildStarted) and kid is not None:
            again = kid.launches - 1
            took = self.now - kid.ended_at if again and kid.last_exit is not None else None
            if (event.restarts, event.took) != (again, took):
                self.wrong(f"it tells {event!s}, but it is restart {again} after {took} s")
        elif isinstance(event, events.ChildExited | events.ChildStartFailure | events.ChildStopError):
            self.turn.reports -= not event.reason.clean  # type: ignore[union-attr]

    def report(self, crash: CrashReport) -> None:
        self.turn.reports += 1

    def _cause(self, id: str) -> ForkedChild | None:
        """The child, if it is time to count a restart for it; what it waited for is over."""
        kid = self.kids.get(id)
        if kid is None or self.phase != "running" or self.group is not None:
            self.wrong(f"a restart of {id} is counted, but it is not its turn")
            return None
        ends = kid.end > 0 and kid.returns
        fails = kid.retry == "failed" and kid.retry_called > 0
        if not ends and not fails:
            self.wrong(f"a restart of {id} is counted, but it needs none (rules 23-26)")
            return None
        if fails and self.now < kid.retry_at:
            self.wrong(f"{id} does not wait for its backoff (rule 56)")
        if not self.one_by_one:
            heard = kid.end or kid.retry_called
            for ticket in self.tickets:
                if ticket.heard < heard:
                    self.wrong(f"{id} is restarted before {ticket.what} {ticket.id} is served, which came first")
        return kid

    def _in_window(self) -> int:
        self.restarts = [at for at in self.restarts if at >= self.now - self.spec.max_seconds]
        return len(self.restarts)

    def _restarting(self, event: events.ChildRestarting, id: str) -> None:
        kid = self._cause(id)
        if kid is None:
            return
        self.restarts.append(self.now)
        used = self._in_window()
        if used > self.spec.max_restarts:
            self.wrong(f"{used} restarts in {self.spec.max_seconds} s, instead of giving up (rule 28)")
        if self.spec.max_restarts != math.inf and (event.used, event.allowed) != (used, self.spec.max_restarts):
            self.wrong(f"it tells {event!s}, but {used} are used of {self.spec.max_restarts}")
        low, high = self._delay(kid) if kid.end else (0.0, 0.0)
        if not low <= event.delay <= high:
            self.wrong(f"{id} is to wait for {event.delay} s, not for {low} to {high} s (rule 56)")
        kid.end, kid.retry, kid.retry_called = 0, "", 0
        if not self.one_by_one:
            self.group, self.grouped_last = Group(id, self._members(id), event.delay or None), self.turns
            self._settle_group()
        elif event.delay:
            kid.retry, kid.retry_at = "counted", self.now + event.delay
        else:
            kid.due = True

    def _gave_up(self, event: events.SupervisorGaveUp) -> None:
        kid = self._cause(event.child)
        if kid is None:
            return
        used = self._in_window()
        if used + 1 <= self.spec.max_restarts:
            self.wrong(f"it gives up after {used} of {self.spec.max_restarts} restarts (rule 28)")
        if event.reason != kid.last_exit:
            self.wrong(f"it gives up because of {event.reason} instead of {kid.last_exit}")
        inner: Any = kid.last_exit
        while isinstance(inner, Shutdown) and isinstance(inner.detail, GaveUp | StartFailure):
            inner = inner.detail.reason
        path, allowed = f"{self.path}/{event.child}", self.spec.max_restarts
        self.end_reason = Shutdown(GaveUp(path, inner, allowed, self.spec.max_seconds))
        self.turn.may_stop.add(str(self.end_reason))

    def _stopping(self, event: events.SupervisorStopping) -> None:
        if self.phase not in ("starting", "running"):
            self.wrong("it stops twice")
        if event.why not in self.turn.may_stop:
            id = next((one for one in self.significant_ends if event.why == self._auto(one)), None)
            if id is None or self.spec.auto_shutdown == "never":
                self.wrong(f"it stops without a reason: {event.why}")
            elif self.spec.auto_shutdown == "all_significant" and not self._all_significant_down():
                self.wrong(f"it stops because of {id}, but it was not the last (rule 49)")
            self.end_reason = Shutdown(event.why.removeprefix("shutdown (")[:-1])
        self.phase, self.group = "stopping", None

    def _auto(self, id: str) -> str:
        return str(Shutdown(f"auto-shutdown: {id!r} has ended"))

    def _all_significant_down(self) -> bool:
        return not any(kid.spec.significant and (kid.alive or kid.waits) for kid in self.kids.values())

    # ------------------------------------------------------------ what it answers
    def answered(self, request: Any, outcome: str) -> None:
        ticket = next((one for one in self.tickets if one.request is request), None)
        if ticket is None:
            self.wrong("something is answered that nobody has asked")
            return
        if outcome == "WorkerDead":
            self.turn.refused = True
        elif ticket is not self.head(ticket.id):
            self.wrong(f"{ticket.what} {ticket.id} is answered out of turn")
        else:
            self._in_turn(ticket.heard)
            kid = self.kids.get(ticket.id)
            expected = self._right_answer(ticket, kid)
            if outcome not in expected:
                self.wrong(f"{ticket.what} {ticket.id} is answered {outcome}, not {' or '.join(expected)}")
            if outcome in ("ok", "ChildStartFailed"):
                self._carry_out(ticket, kid, outcome)
        self.tickets.remove(ticket)

    def _right_answer(self, ticket: Ticket, kid: ForkedChild | None) -> tuple[str, ...]:
        if ticket.launched:
            if ticket.failed:
                return ("ChildStartFailed",)
            return ("ok",) if kid is None or kid.settled else ("nothing yet",)
        if ticket.what == "start":
            refusal = self._refusal(ticket, kid)
            return (refusal,) if refusal is not None else ("nothing yet",)
        if ticket.what == "terminate" and ticket.stopped:
            return ("ok",) if kid is None or not kid.alive else ("nothing yet",)
        if kid is None:
            return ("ChildNotFound",)
        if ticket.what == "terminate":
            return ("ok",) if not kid.alive else ("nothing yet",)
        if ticket.what == "recall":
            return ("nothing yet",)
        if kid.alive:
            return ("ChildRunning",) if kid.ready and kid.asked_at is None else ("ChildRestarting",)
        if kid.waits or kid.end:
            return ("ChildRestarting",)
        return ("ok",) if ticket.what == "delete" else ("nothing yet",)

    def _refusal(self, ticket: Ticket, kid: ForkedChild | None) -> str | None:
        """Rules 7-9 and 50."""
        assert ticket.spec is not None
        if ticket.spec.significant and self.spec.auto_shutdown == "never":
            return "SpecError"
        if kid is not None:
            running = kid.alive and kid.ready and kid.asked_at is None
            return "ChildAlreadyStarted" if running else "ChildAlreadyPresent"
        return None

    def _carry_out(self, ticket: Ticket, kid: ForkedChild | None, outcome: str) -> None:
        if kid is None:
            if ticket.what == "terminate" and not ticket.stopped:
                self.wrong(f"terminate {ticket.id} is answered ok, but there is no such child (rule 14)")
            return
        if ticket.what == "delete" or (ticket.what == "start" and outcome == "ChildStartFailed"):
            self.kids.pop(ticket.id, None)
        elif ticket.what == "terminate":
            if kid.retry:
                self._excuse_those_down()
            kid.ordered = kid.excused = True
            kid.end, kid.retry = 0, ""
            self.significant_ends.pop(ticket.id, None)
            if not self.keeps(kid):
                self.kids.pop(ticket.id, None)
        elif outcome == "ChildStartFailed":
            kid.excused = True
            if not self.keeps(kid):
                self._recall_failed(kid)

    def _recall_failed(self, kid: ForkedChild) -> None:
        """A temporary one keeps its place."""

    def _excuse_those_down(self) -> None:
        """The restart of their group is called off: rules 16 and 38."""
        for kid in self.kids.values():
            kid.excused = kid.excused or (not kid.alive and not kid.waits)

    # ------------------------------------------------------------ the end of a turn
    def after(self, ended: bool) -> None:
        """Everything that had to be done is done, or under way."""
        if self.turn.expected is not None:
            self.wrong(f"it does not tell {self.turn.expected}")
        if self.turn.reports:
            self.wrong(f"{self.turn.reports} crash reports too many (rule 58)")
        if self.turn.refused and self.phase not in ("stopping", "ended"):
            self.wrong("it refuses as if it were stopping")
        if ended != (self.phase == "ended"):
            self.wrong(f"it is {self.phase}, and for its supervisor it has {'' if ended else 'not '}ended")
        if self.turn.halted is not None and any(kid.alive and kid.asked_at is None for kid in self.kids.values()):
            self.wrong("it is killed, but not all of its children are")
        match self.phase:
            case "starting":
                if self.turn.may_stop or (self.latest is None or self.latest.settled):
                    self.wrong("it neither starts the next child nor stops")
            case "running":
                if self.turn.may_stop:
                    self.wrong(f"it has to stop, but does not: {self.turn.may_stop}")
                self._check_progress()
            case "stopping":
                self._check_stopping()
        self._check_children()

    def _check_stopping(self) -> None:
        if self.tickets:
            self.wrong(f"{len(self.tickets)} requests are not answered, though it stops")
        living = [kid for kid in self.kids.values() if kid.alive]
        if not living or living[-1].asked_at is None:
            self.wrong("it stops, but the last child is not told to end")

    def _check_progress(self) -> None:
        group = self.group
        for kid in list(self.kids.values()):
            if kid.due:
                self.wrong(f"{kid.spec.id} is to be restarted, but is not")
            if kid.retry and not kid.alive and kid.retry_called == self.turns and self.one_by_one:
                self.wrong(f"it is time to retry {kid.spec.id}, and nothing happens (rule 35)")
            if kid.end and not kid.alive and (self._idle() or (self.one_by_one and kid.end == self.turns)):
                self._finish_end(kid)
        if group is not None:
            if group.todo is None:
                living = [self.kids[one] for one in group.members if one in self.kids and self.kids[one].alive]
                under_way = bool(living) and living[-1].asked_at is not None
            else:
                under_way = group.last is not None and group.last.alive and not group.last.settled
            if not under_way:
                self.wrong(f"the restart of the group {group.members} does not go on")
            return
        for ticket in self.heads():
            asked = self.kids.get(ticket.id)
            if asked is None or not asked.alive or (asked.settled and asked.asked_at is None):
                self.wrong(f"nothing is done about {ticket.what} {ticket.id}")

    def _idle(self) -> bool:
        return self.group is None and not self.tickets

    def _finish_end(self, kid: ForkedChild) -> None:
        """Its own end was dealt with: it is for good (rules 24 and 26)."""
        id, heard, kid.end = kid.spec.id, kid.end, 0
        if kid.returns:
            self.wrong(f"{id} has ended with {kid.last_exit}, and is not restarted (rules 23 and 25)")
        if not self.keeps(kid):
            del self.kids[id]
        if self.significant_ends.get(id) == heard:  # else that was an earlier child of this name
            if self.spec.auto_shutdown == "any_significant":
                self.wrong(f"{id} was significant and has ended: there must be an auto-shutdown (rule 47)")
            if (
                self.spec.auto_shutdown == "all_significant"
                and self.asked_last < heard
                and self.grouped_last < heard
                and self._idle()
                and self._all_significant_down()
            ):
                self.wrong(f"{id} was the last significant one: there must be an auto-shutdown (rule 49)")

    # ------------------------------------------------------------ what it says of its children
    def _check_children(self) -> None:
        infos = self.policy.which_children()
        ids = [info.id for info in infos]
        if self.phase in ("stopping", "ended"):
            missing = [id for id, kid in self.kids.items() if kid.alive and id not in ids]
            if missing:
                self.wrong(f"{missing} live, but are not listed")
        else:
            for id in [id for id, kid in self.kids.items() if kid.end and not kid.alive and id not in ids]:
                if not self.keeps(self.kids[id]):
                    del self.kids[id]  # it was dealt with, before what is under way now
            right = [id for id in self.kids if id in ids or not self._may_be_forgotten(id)]
            if ids != right:
                self.wrong(f"it has {ids} instead of {right}")
        active = supervisors = 0
        for info in infos:
            kid = self.kids.get(info.id)
            if kid is None:
                continue
            supervisors += info.kind == "supervisor"
            active += kid.alive and (kid.settled or not kid.alone or kid.asked_at is not None)
            right = self._statuses(kid)
            if info.status not in right:
                self.wrong(f"{info.id} is said to be {info.status}, but is {' or '.join(right)}")
            if info.restarts != max(0, kid.launches - 1) or info.last_exit is not kid.last_exit:
                self.wrong(f"{info.id}: {info}, but it was started {kid.launches} times, the last exit {kid.last_exit}")
        if self.phase in ("starting", "running"):
            counts = self.policy.count_children()
            told = (counts.specs, counts.active, counts.supervisors, counts.workers)
            if told != (len(ids), active, supervisors, len(ids) - supervisors):
                self.wrong(f"it counts {counts}, but {active} are active")

    def _may_be_forgotten(self, id: str) -> bool:
        """A temporary one that was down already when its group began to be stopped (rule 27)."""
        group, kid = self.group, self.kids[id]
        return group is not None and group.todo is None and id in group.members and kid.temporary and not kid.alive

    def _statuses(self, kid: ForkedChild) -> tuple[str, ...]:
        if kid.alive:
            if kid.asked_at is not None:
                return ("stopping",)
            if kid.ready:
                return ("running",)
            return ("restarting",) if kid.alone else ("starting",)
        if not kid.launches:
            return ("created",) if self.phase in ("new", "starting") else ("created", "stopped")
        rest = self._at_rest(kid)
        if self.phase in ("stopping", "ended"):
            return ("restarting", "stopped", rest)
        if kid.waits or kid.end:
            busy = self.group is not None and kid.spec.id in self.group.members
            return ("restarting", rest) if busy or not kid.waits else ("restarting",)
        if self.group is not None and self.group.culprit == kid.spec.id:
            return ("restarting", rest)
        return (rest,)

    def _at_rest(self, kid: ForkedChild) -> str:
        if kid.ignored:
            return "ignored"
        if kid.ordered or kid.last_exit is None:
            return "stopped"
        match kid.last_exit:
            case Crashed() | ExitCode() | Signaled():
                return "crashed"
            case Killed():
                return "killed"
            case Hung():
                return "hung"
        return "finished" if kid.last_exit.clean else "crashed"

    # ------------------------------------------------------------ when all is quiet
    @property
    def at_rest(self) -> bool:
        """Nothing is under way here."""
        if self.phase != "running":
            return self.phase == "ended"
        return not self.tickets and not any(
            kid.waits or (kid.alive and (not kid.settled or kid.asked_at is not None)) for kid in self.kids.values()
        )

    def check_nobody_is_lost(self) -> None:
        """Everyone runs, or has a reason not to."""
        for kid in self.kids.values():
            done = kid.spec.restart == "transient" and kid.last_exit is not None and kid.last_exit.clean
            if not (kid.alive or kid.ignored or kid.excused or done):
                self.wrong(f"{kid.spec.id} is down after {kid.last_exit}, and nobody wanted that")
