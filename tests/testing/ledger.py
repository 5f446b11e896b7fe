"""Checks the visible behaviour of one supervisor against the rules.

A ledger uses no policy. Its input is the events of its supervisor (exits, requests), the actions (starts, stops,
kills, answers, published events) and the time. Every action must have a reason that the rules name; every action that
the rules demand must have been done by the end of the turn, or be under way. Faults are passed to `wrong`, never
raised: the code under test itself calls most of these methods.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

from suitkaise import Supervisor, events
from suitkaise.crashes import CrashReport
from suitkaise.events import Event
from suitkaise.exits import (
    Crashed,
    ExitCode,
    ExitReason,
    GaveUp,
    Hung,
    Killed,
    Shutdown,
    Signaled,
    SignificantFailure,
    StartFailure,
    origin,
)
from suitkaise.messaging.answer import Answer
from suitkaise.policy.actions import (
    Begin,
    Exited,
    Ignored,
    Input,
    KillAll,
    Ready,
    Recall,
    StartChild,
    StopAll,
    Timer,
)
from suitkaise.policy.base import BasePolicy
from suitkaise.specs import Child
from suitkaise.workers.incarnation import Recalled
from tests.testing.records import EPSILON, REQUEST_NAMES, ChildRecord, Group, Ticket, Turn

__all__ = ["Ledger"]


class Ledger:
    """Checks one incarnation of a `Supervisor`."""

    def __init__(
        self, path: str, spec: Supervisor, policy: BasePolicy, now: Callable[[], float], wrong: Callable[[str], None]
    ) -> None:
        self.path = path
        self.spec = spec
        self.policy = policy
        self.phase = "new"
        self.records = {child.id: ChildRecord(child) for child in spec.children}
        self.tickets: list[Ticket] = []
        self.restarts: list[float] = []
        self.group: Group | None = None
        self.to_start = [child.id for child in spec.children]
        self.latest: ChildRecord | None = None  # the declared child that was started last
        self.failed: ChildRecord | None = None  # the one whose start failed
        self.significant_ends: dict[str, int] = {}
        self.failures: dict[str, str] = {}  # why the supervisor may end because of a significant child (rule 71)
        self.turns = 0
        self.turn = Turn()
        self.end_reason: ExitReason | None = None
        self.highest: dict[str, int] = {}
        self.kills: list[tuple[str, Answer[Any]]] = []  # the orders to kill children that are not answered (rule 79)
        self.asked_last = 0  # the turn of the last request
        self.grouped_last = 0  # the turn of the last group restart, which may have stopped the last significant child
        self.blocked: dict[tuple[str, str], int] = {}  # which start waits for which launch of another child (rule 81)
        self._clock = now
        self._wrong = wrong

    @property
    def now(self) -> float:
        return self._clock()

    def wrong(self, what: str) -> None:
        self._wrong(f"{self.path}: {what}")

    # ------------------------------------------------------------ overridden for dynamic supervisors
    def keeps(self, record: ChildRecord) -> bool:
        return not record.temporary

    @property
    def one_by_one(self) -> bool:
        """Whether children are restarted independently of each other."""
        return self.spec.strategy == "one_for_one"

    def head(self, id: str) -> Ticket | None:
        """Return the request that the supervisor serves now, if it is about this child."""
        return self.tickets[0] if self.tickets and self.tickets[0].id == id else None

    def heads(self) -> Iterable[Ticket]:
        """Return the requests that the supervisor must be serving."""
        return self.tickets[:1]

    def _copies(self, one: str, other: str) -> bool:
        """Return whether these are two copies of one child (rule 82)."""
        ones, others = self.records.get(one), self.records.get(other)
        if one == other or ones is None or others is None or None in (ones.spec.copy, others.spec.copy):
            return False
        return one.rpartition("-")[0] == other.rpartition("-")[0]

    def _unsettled(self, ids: Iterable[str]) -> list[str]:
        """Return those that are being started."""
        records = [self.records[id] for id in ids if id in self.records]
        return [record.spec.id for record in records if record.launches and record.alive and not record.settled]

    def _last_are_stopped(self, living: list[ChildRecord]) -> bool:
        """Return whether the last of these, and all living copies beside it, are being stopped."""
        last = living[-1].spec.id
        return all(one.asked_at is not None for one in living if one.spec.id == last or self._copies(one.spec.id, last))

    # ------------------------------------------------------------ events of the supervisor
    def handle(self, event: Input) -> None:
        self.turns += 1
        self.turn = Turn()
        match event:
            case Begin():
                self.phase = "starting"
            case Ready(id, number):
                record = self.records.get(id)
                self.highest[id] = number
                if record is not None and record.alive and not record.ready and record.asked_at is None:
                    record.ready = record.settled = True
                    record.up_at = self.now
                    record.given_up = False
                    self.turn.expected = (events.ChildStarted, id, None)
            case Ignored(id):
                record = self.records.get(id)
                if record is not None and record.alive:
                    self._handle_ignored(record)
            case Exited(id, number, reason):
                record = self.records.get(id)
                self.highest[id] = number  # the number of a supervisor is known only here
                if record is not None and record.alive:
                    self._handle_exit(record, reason)
            case Timer((what, id, number)):
                record = self.records.get(id)
                if what == "retry" and record is not None and record.retry and number == self.highest[id]:
                    record.retry_called = record.retry_called or self.turns  # the same timer may come twice
            case StopAll(reason):
                self.turn.may_stop.add(str(reason))
                self.end_reason = self.end_reason or reason
            case KillAll(why):
                self.turn.killed = why
                self.turn.may_stop.add(str(Killed(why)))
                if not isinstance(self.end_reason, Killed):
                    self.end_reason = Killed(why)
            case StartChild(request, child):
                self.tickets.append(Ticket(request, "start", child.id, child, self.turns))
                self.asked_last = self.turns
            case _:
                incarnation = event.incarnation if isinstance(event, Recall) else None
                what = REQUEST_NAMES[type(event)]
                self.tickets.append(Ticket(event.request, what, event.id, None, self.turns, incarnation))
                self.asked_last = self.turns
        self._settle_group()

    def _handle_ignored(self, record: ChildRecord) -> None:
        record.alive = record.ready = False
        self.turn.expected = (events.ChildIgnored, record.spec.id, None)
        if record.last_exit is None:
            record.ended_at = self.now
        if record.asked_at is not None:
            self._await_exit(record)
            return
        record.settled = record.ignored = True
        if not self.keeps(record):  # rule 12
            del self.records[record.spec.id]

    def _handle_exit(self, record: ChildRecord, reason: ExitReason) -> None:
        id, was_ready = record.spec.id, record.ready
        record.alive = record.ready = False
        record.last_exit, record.ended_at, record.ordered = reason, self.now, record.asked_at is not None
        backoff = record.spec.backoff
        if backoff is not None and record.up_at is not None and self.now - record.up_at >= backoff.reset_after:
            record.attempts = 0
        if record.asked_at is not None:
            killed = record.spec.shutdown == "brutal_kill" and isinstance(reason, Killed)
            fine = reason.clean or killed or reason in (Signaled(15), Killed("kill_child()"))
            self.turn.expected = (events.ChildStopped if fine else events.ChildStopError, id, reason)
            self._await_exit(record)
        elif was_ready:
            self.turn.expected = (events.ChildExited, id, reason)
            if self.phase in ("starting", "running"):
                record.end = self.turns
                if record.spec.significant and not record.returns:
                    self._note_significant_end(record)
        else:
            self.turn.expected = (events.ChildStartFailure, id, reason)
            self._handle_failure(record)

    def _note_significant_end(self, record: ChildRecord) -> None:
        id, reason = record.spec.id, record.last_exit
        assert reason is not None
        self.significant_ends[id] = self.turns
        self.failures.pop(id, None)
        if not origin(reason)[1].clean:
            self.failures[id] = str(Shutdown(SignificantFailure(f"{self.path}/{id}", reason)))

    def _handle_failure(self, record: ChildRecord) -> None:
        ticket = self.head(record.spec.id)
        if self.phase == "starting":
            self.failed = record
            detail = reason.detail if isinstance(reason := record.last_exit, Shutdown) else None
            self.end_reason = Shutdown(
                detail if isinstance(detail, StartFailure) else StartFailure(f"{self.path}/{record.spec.id}", reason)  # type: ignore[arg-type]
            )
            self.turn.may_stop.add(str(self.end_reason))
        elif self.phase != "running":
            return
        elif record.alone or self.group is not None:
            record.retry, record.retry_called = "failed", 0
            record.retry_at = self.now + self._delay(record)[0]
            self.group = None if self.group is None else self._stop_copies(self.group, record.spec.id)
        elif ticket is not None and ticket.launched:
            ticket.failed = True

    def _stop_copies(self, group: Group, failed: str) -> Group | None:
        """Return the copies whose restart ends because the start of one has failed; None if there are no others."""
        others = [one for one in group.members if self._copies(one, failed)]
        stopped = Group(failed, [*others, failed], None, failed=True)
        if any(self.records[one].alive for one in others):
            return stopped
        self._pass_members(stopped)
        return None

    def _delay(self, record: ChildRecord) -> tuple[float, float]:
        """Count an attempt; return the shortest and the longest delay that its backoff allows (rule 56)."""
        backoff = record.spec.backoff
        if backoff is None:
            return 0.0, 0.0
        record.attempts += 1
        plain = min(backoff.initial * backoff.factor ** (record.attempts - 1), backoff.maximum)
        return plain * (1 - backoff.jitter) - EPSILON, plain * (1 + backoff.jitter) + EPSILON

    def _await_exit(self, record: ChildRecord) -> None:
        """Handle the exit of a child that was being stopped: rules 14 and 27."""
        ticket = self.head(record.spec.id)
        recalled = ticket is not None and ticket.what == "recall" and ticket.stopped
        if self.phase in ("starting", "running") and not self.keeps(record) and not recalled:
            del self.records[record.spec.id]

    # ------------------------------------------------------------ actions of the supervisor
    def kill_child(self, id: str, order: Answer[Any]) -> None:
        """Note an order to kill a child, which the supervisor gets as one to terminate it."""
        self.kills = [*((one, other) for one, other in self.kills if not other.done()), (id, order)]
        record = self.records.get(id)
        if record is not None and record.alive and record.asked_at is not None:
            record.kill_by = self.now

    def is_to_be_killed(self, id: str) -> bool:
        return any(one == id and not order.done() for one, order in self.kills)

    def launch(self, spec: Child, incarnation: int | None, recalled: Recalled | None) -> None:
        id = spec.id
        record = self.records.get(id)
        if record is not None and record.alive:
            self.wrong(f"{id} is started while it is alive")
        alone = self._why_launch(id, spec)
        for (waiting, first), number in self.blocked.items():
            other = self.records.get(first)
            if waiting == id and other is not None and other.launches == number and self._is_busy(other):
                self.wrong(f"{id} is started, but it was to come after {first} (rule 81)")
        record = self.records.get(id)
        if record is None:
            self.records[id] = record = ChildRecord(spec)
        if record.spec is not spec:
            self.wrong(f"{id} is started by another declaration than its own")
        number = self.highest.get(id, 0) + 1 if incarnation is None else incarnation
        if number <= self.highest.get(id, 0):
            self.wrong(f"{id} is started as incarnation {number}, again")
        self.highest[id] = number
        if incarnation is not None:
            self._check_recalled(record, recalled)
        record.launches += 1
        record.alive, record.ready, record.settled, record.alone = True, False, False, alone
        record.asked_at = record.up_at = record.kill_by = None
        record.due, record.end, record.retry, record.retry_called = False, 0, "", 0
        record.ignored = record.excused = record.held = False
        if record.launches > 1:  # else an earlier child of this name has ended
            self.significant_ends.pop(id, None)
        if self.phase == "starting":
            self.latest = record
        elif self.group is not None:
            self.group.last = record

    def _check_recalled(self, record: ChildRecord, recalled: Recalled | None) -> None:
        expected = None
        if record.launches:
            expected = Recalled(record.launches, record.last_exit, self.now - record.ended_at)
        if recalled != expected:
            self.wrong(f"{record.spec.id} gets {recalled} as its past, which is {expected} (rule 57)")

    def _why_launch(self, id: str, spec: Child) -> bool:
        """Check that a start has a reason; return whether it is a restart of that child alone."""
        record = self.records.get(id)
        if self.phase == "starting":
            if self.failed is not None or not self.to_start or self.to_start.pop(0) != id:
                self.wrong(f"{id} is started out of turn (rules 1 and 2)")
            early = [one for one in self._unsettled(self.records) if not self._copies(one, id)]
            if early:
                self.wrong(f"{id} is started before {early} are ready (rule 1)")
            return False
        if self.phase != "running":
            self.wrong(f"{id} is started, but the supervisor is {self.phase}")
            return False
        ticket = self.head(id)
        self._begin_pending_group(ticket)
        if self.group is not None:
            self._launch_in_group(self.group, id)
            return False
        if record is not None and record.due:
            return True
        if ticket is not None and not ticket.launched and ticket.what in ("start", "restart", "recall"):
            self._launch_for(ticket, spec)
            return False
        if self.one_by_one and record is not None and record.retry == "counted" and self.now >= record.retry_at:
            return True
        self.wrong(f"{id} is started without a reason")
        return False

    def _launch_for(self, ticket: Ticket, spec: Child) -> None:
        ticket.launched = True
        self._in_turn(ticket.turn)
        record = self.records.get(ticket.id)
        match ticket.what:
            case "start":
                if record is not None:
                    self.wrong(f"{record.spec.id} is added, but it is there already (rules 8 and 9)")
                if ticket.spec is not spec:
                    self.wrong(f"{ticket.id} is not started as it was declared")
            case "restart":
                if record is None or record.waits:
                    self.wrong(f"{ticket.id} is started on request, but it is not at rest (rule 17)")
            case "recall":
                if ticket.incarnation is not None and not ticket.stopped:
                    self.wrong(f"{ticket.id} is started, but incarnation {ticket.incarnation} had ended (rule 83)")
                ticket.was_up = ticket.stopped or (record is not None and (record.waits or record.end > 0))
                if record is None:
                    self.wrong(f"{ticket.id} is recalled, but there is no such child")
                elif not self.one_by_one and record.retry:
                    self._excuse_those_down()

    def _in_turn(self, turn: int) -> None:
        """Check that all exits before `turn` are handled, since an event of that turn is."""
        for record in list(self.records.values()):
            if 0 < record.end < turn and not record.alive:
                self._finish_end(record)

    def _begin_pending_group(self, ticket: Ticket | None) -> None:
        """Begin a group restart whose backoff is over; only its stops and starts show that it has begun."""
        if self.one_by_one or self.group is not None:
            return
        called = [record for record in self.records.values() if record.retry == "counted" and record.retry_called]
        if not called:
            return
        first = min(called, key=lambda record: record.retry_called)
        if self.tickets and (self.tickets[0].stopped or self.tickets[0].launched):
            return
        if ticket is not None and ticket.turn < first.retry_called:
            return
        if self.now < first.retry_at:
            self.wrong(f"{first.spec.id} does not wait for its backoff (rule 56)")
        self.group, self.grouped_last = Group(first.spec.id, self._members(first.spec.id), None), self.turns

    def _members(self, culprit: str) -> list[str]:
        ids = list(self.records)
        if self.spec.strategy != "rest_for_one":
            return ids
        beside = [one for one in ids if self._copies(one, culprit)]
        after = [one for one in ids[ids.index(culprit) + 1 :] if one not in beside]
        held = [one for one in beside if self.records[one].held]
        return [one for one in ids if one in (culprit, *after, *held)]

    def _launch_in_group(self, group: Group, id: str) -> None:
        if group.todo is None:
            living = [one for one in group.members if one in self.records and self.records[one].alive]
            if living or group.delay is not None or group.failed:
                self.wrong(f"{id} is started again while {living} of its group are not gone (rules 32 and 33)")
            self._pass_members(group)
            culprit = self.records[group.culprit]
            culprit.end, culprit.retry, culprit.held = 0, "", True
            group.todo = [one for one in group.members if one in self.records]
        early = [one for one in self._unsettled(group.members) if not self._copies(one, id)]
        if early:
            self.wrong(f"{id} is started again before {early} are ready")
        if not group.todo or group.todo.pop(0) != id:
            self.wrong(f"{id} is started again out of turn; the group is {group.members} (rules 32-37)")

    def _pass_members(self, group: Group) -> None:
        """All members of the group are gone, so their own restarts are cancelled."""
        for id in group.members:
            record = self.records.get(id)
            if record is not None and id != group.culprit:
                record.end, record.retry, record.due, record.held = 0, "", False, True
                self.significant_ends.pop(id, None)
                if record.temporary:  # rule 27
                    del self.records[id]

    def _settle_group(self) -> None:
        group = self.group
        if group is None:
            return
        if group.todo is None:
            living = [one for one in group.members if one in self.records and self.records[one].alive]
            if not living and group.failed:
                self._pass_members(group)
                self.group = None
            elif not living and group.delay is not None:
                self._pass_members(group)
                culprit = self.records[group.culprit]
                culprit.retry, culprit.retry_at, culprit.retry_called = "counted", self.now + group.delay, 0
                self.group = None
        elif not group.todo and not self._unsettled(group.members):
            self.group = None

    def stop(self, id: str, *, brutal: bool = False, order: bool = False) -> None:
        record = self.records.get(id)
        if record is None or not record.alive or record.asked_at is not None:
            self.wrong(f"{id} is stopped, but it is not alive, or is being stopped already")
            return
        if brutal != (record.spec.shutdown == "brutal_kill"):
            self.wrong(f"{id} is ended in another way than by its shutdown {record.spec.shutdown!r} (rule 42)")
        if not brutal and order != self.is_to_be_killed(id):
            self.wrong(f"{id} is {'killed' if order else 'asked to finish'}, against the orders (rule 79)")
        self._why_stop(id)
        record.asked_at = self.now
        record.kill_by = self.now if order else None

    def _why_stop(self, id: str) -> None:
        ids = list(self.records)
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
            if self._is_void(ticket):
                self.wrong(f"{id} is stopped, but the request is about incarnation {ticket.incarnation} (rule 83)")
            self._in_turn(ticket.turn)
        else:
            self.wrong(f"{id} is stopped without a reason")

    def _is_void(self, ticket: Ticket) -> bool:
        """Return whether a request is about an incarnation that does not run any more (rule 83)."""
        id, record = ticket.id, self.records.get(ticket.id)
        runs = record is not None and record.alive and record.ready and record.asked_at is None
        return ticket.incarnation is not None and not (runs and self.highest[id] == ticket.incarnation)

    def _check_reverse(self, id: str, later: list[str]) -> None:
        living = [one for one in later if one in self.records and self.records[one].alive and not self._copies(one, id)]
        if living:
            self.wrong(f"{id} is stopped, but {living} after it are not gone (rule 44)")

    def kill(self, id: str, why: str) -> None:
        record = self.records.get(id)
        if record is None or not record.alive:
            self.wrong(f"{id} is killed, but it is not alive")
        elif why == self.turn.killed:
            record.asked_at = self.now if record.asked_at is None else record.asked_at
        elif why == "brutal_kill":
            self.stop(id, brutal=True)
        elif why == "kill_child()":
            self.stop(id, order=True)
        elif why != "shutdown timeout" or record.asked_at is None or not isinstance(record.spec.shutdown, float):
            self.wrong(f"{id} is killed ({why}) without a reason")
        elif self.now < record.asked_at + record.spec.shutdown - EPSILON:
            self.wrong(f"{id} is killed before its time to stop is over (rule 42)")

    # ------------------------------------------------------------ published events
    def publish(self, event: Event) -> None:
        id = event.path.rpartition("/")[2]
        if isinstance(event, events.ChildRestarting):
            self._restarting(event, id)
        elif isinstance(event, events.SupervisorGaveUp):
            self._gave_up(event)
        elif isinstance(event, events.ChildGivenUp):
            self._child_given_up(event, id)
        elif isinstance(event, events.SupervisorStopping):
            self._stopping(event)
        elif isinstance(event, events.SupervisorStarted):
            if self.to_start or self._unsettled(self.records) or self.phase != "starting":
                self.wrong("it publishes that it has started, but not all children have (rule 1)")
            self.phase = "running"
        elif isinstance(event, events.SupervisorStopped):
            living = [one.spec.id for one in self.records.values() if one.alive]
            if living or self.phase != "stopping":
                self.wrong(f"it publishes that it has stopped, but {living} are alive (rule 44)")
            if str(event.reason) != str(self.end_reason):
                self.wrong(f"it ends with {event.reason} instead of {self.end_reason}")
            self.phase = "ended"
        else:
            self._check_published(event, id)

    def _check_published(self, event: Event, id: str) -> None:
        reason = getattr(event, "reason", None)
        if self.turn.expected != (type(event), id, reason):
            self.wrong(f"it publishes {event!s}, instead of {self.turn.expected}")
        self.turn.expected = None
        record = self.records.get(id)
        if isinstance(event, events.ChildStarted) and record is not None:
            again = record.launches - 1
            took = self.now - record.ended_at if again and record.last_exit is not None else None
            if (event.restarts, event.took) != (again, took):
                self.wrong(f"it publishes {event!s}, but it is restart {again} after {took} s")
        elif isinstance(event, events.ChildExited | events.ChildStartFailure | events.ChildStopError):
            self._check_report(event)

    def report(self, crash: CrashReport) -> None:
        if self.turn.report is not None:
            self.wrong("two crash reports of one end (rule 58)")
        self.turn.report = crash

    def _check_report(self, event: events.EndEvent) -> None:
        """Check that there is a crash report of an end if it was abnormal (rule 58)."""
        report, self.turn.reported = self.turn.report, True
        assert event.reason is not None
        if isinstance(event, events.ChildStopError):
            self.turn.verdicts[event.path] = "is being stopped"
        expected = None if event.reason.clean else (event.path, type(event.reason).__name__)
        if (None if report is None else (report.path, report.reason_kind)) != expected:
            self.wrong(f"the crash report of {event!s} is {report} (rule 58)")

    def _check_verdict(self, report: CrashReport) -> None:
        """Check what a crash report tells of the decision, now that the turn is over."""
        id = report.path.rpartition("/")[2]
        record = self.records.get(id)
        right = self.turn.verdicts.get(report.path)
        if right is None:
            group = self.group is not None and id in self.group.members and record is not None and not record.temporary
            if group and self.group.culprit != id and report.verdict == "stays down":
                return  # another child has failed in the same turn, whose restart comes to this one later
            again = record is not None and (record.alive or record.waits or record.held or group)
            right = "restarts" if again and self.phase in ("starting", "running") else "stays down"
        if report.verdict != right:
            self.wrong(f"the crash report of {id} says that it {report.verdict}, but it {right} (rule 58)")
        elif record is not None and right in ("restarts", "gives up", "is given up"):
            limit = record.spec if record.limited else self.spec
            figures = (self._in_window(record), limit.max_restarts, limit.max_seconds)
            if limit.max_restarts != math.inf and (report.used, report.allowed, report.seconds) != figures:
                self.wrong(f"the crash report of {id} tells of {report.used} of {report.allowed} in {report.seconds} s")

    def _cause(self, id: str) -> ChildRecord | None:
        """Return the child if a restart of it may be counted now, else None."""
        record = self.records.get(id)
        if record is None or self.phase != "running" or self.group is not None:
            self.wrong(f"a restart of {id} is counted, but it is not its turn")
            return None
        ends = record.end > 0 and record.returns
        fails = record.retry == "failed" and record.retry_called > 0
        if not ends and not fails:
            self.wrong(f"a restart of {id} is counted, but it needs none (rules 23-26)")
            return None
        if fails and self.now < record.retry_at:
            self.wrong(f"{id} does not wait for its backoff (rule 56)")
        if not self.one_by_one:
            turn = record.end or record.retry_called
            for ticket in self.tickets:
                if ticket.turn < turn:
                    self.wrong(f"{id} is restarted before {ticket.what} {ticket.id} is served, which came first")
        return record

    def _in_window(self, record: ChildRecord) -> int:
        """Return how many restarts the window holds in which those of this child count (rules 28 and 78)."""
        restarts, seconds = self.restarts, self.spec.max_seconds
        if record.limited:
            restarts, seconds = record.restarts, record.spec.max_seconds
        restarts[:] = [at for at in restarts if at >= self.now - seconds]
        return len(restarts)

    def _count(self, record: ChildRecord) -> tuple[int, float, float]:
        """Count a restart; return how many the window holds now, and the limit: how many in how many seconds."""
        (record.restarts if record.limited else self.restarts).append(self.now)
        limit = record.spec if record.limited else self.spec
        assert limit.max_restarts is not None
        return self._in_window(record), limit.max_restarts, limit.max_seconds

    def _restarting(self, event: events.ChildRestarting, id: str) -> None:
        record = self._cause(id)
        if record is None:
            return
        used, allowed, seconds = self._count(record)
        if used > allowed:
            self.wrong(f"{id}: {used} restarts in {seconds} s, instead of giving up (rules 28 and 78)")
        if allowed != math.inf and (event.used, event.allowed) != (used, allowed):
            self.wrong(f"it publishes {event!s}, but {used} are used of {allowed}")
        low, high = self._delay(record) if record.end else (0.0, 0.0)
        if not low <= event.delay <= high:
            self.wrong(f"{id} is to wait for {event.delay} s, not for {low} to {high} s (rule 56)")
        record.end, record.retry, record.retry_called = 0, "", 0
        if not self.one_by_one:
            self.group, self.grouped_last = Group(id, self._members(id), event.delay or None), self.turns
            self._settle_group()
        elif event.delay:
            record.retry, record.retry_at = "counted", self.now + event.delay
        else:
            record.due = True

    def _gave_up(self, event: events.SupervisorGaveUp) -> None:
        record = self._cause(event.child)
        if record is None:
            return
        if record.limited:
            self.wrong(f"it gives up because of {event.child}, which has a limit of its own (rule 78)")
        self._check_limit(event, record)
        path = f"{self.path}/{event.child}"
        self.end_reason = Shutdown(
            GaveUp(path, origin(event.reason)[1], self.spec.max_restarts, self.spec.max_seconds)  # type: ignore[arg-type]
        )
        self.turn.may_stop.add(str(self.end_reason))
        self.turn.verdicts[path] = "gives up"

    def _check_limit(self, event: events.LimitEvent, record: ChildRecord) -> None:
        used, allowed, seconds = self._count(record)
        if used <= allowed:
            self.wrong(f"{event!s}, but it is restart {used} of {allowed} (rules 28 and 78)")
        if (event.max_restarts, event.max_seconds, event.reason) != (allowed, seconds, record.last_exit):
            self.wrong(f"{event!s}, but {allowed} in {seconds} s are allowed; the last exit is {record.last_exit}")

    def _child_given_up(self, event: events.ChildGivenUp, id: str) -> None:
        """Handle the end of a child that has exceeded a limit of its own: it stays down alone (rule 78)."""
        record = self._cause(id)
        if record is None:
            return
        if not record.limited:
            self.wrong(f"{id} is given up, but it has no limit of its own (rule 78)")
            return
        self._check_limit(event, record)
        if record.end:
            self._delay(record)  # its backoff grows with each end (rule 56)
        self.turn.verdicts[event.path] = "is given up"
        record.given_up = record.excused = True
        record.end, record.retry, record.retry_called = 0, "", 0
        if record.spec.significant:
            self._note_significant_end(record)
            self.turn.given_up = record

    def _stopping(self, event: events.SupervisorStopping) -> None:
        if self.phase not in ("starting", "running"):
            self.wrong("it stops twice")
        if event.why not in self.turn.may_stop:
            id = next((one for one in self.significant_ends if event.why in self._auto(one)), None)
            if id is None or self.spec.auto_shutdown == "never":
                self.wrong(f"it stops without a reason: {event.why}")
            elif self.spec.auto_shutdown == "all_significant" and not self._all_significant_down():
                self.wrong(f"it stops because of {id}, but it was not the last (rule 49)")
            self.end_reason = Shutdown(event.why.removeprefix("shutdown (")[:-1])
        self.phase, self.group = "stopping", None

    def _auto(self, id: str) -> list[str]:
        """Return what may be told when `id` was the last to end; a failure that a group restart has undone is none."""
        return [str(Shutdown(f"auto-shutdown: {id!r} has ended")), *self.failures.values()]

    def _all_significant_down(self) -> bool:
        return not any(record.spec.significant and (record.alive or record.waits) for record in self.records.values())

    # ------------------------------------------------------------ answers to requests
    def answered(self, request: Any, outcome: str) -> None:
        ticket = next((one for one in self.tickets if one.request is request), None)
        if ticket is None:
            self.wrong("an unknown request is answered")
            return
        if outcome == "WorkerDead":
            self.turn.refused = True
        elif ticket is not self.head(ticket.id):
            self.wrong(f"{ticket.what} {ticket.id} is answered out of turn")
        else:
            self._in_turn(ticket.turn)
            record = self.records.get(ticket.id)
            expected = self._right_answer(ticket, record)
            if outcome not in expected:
                self.wrong(f"{ticket.what} {ticket.id} is answered {outcome}, not {' or '.join(expected)}")
            if outcome in ("ok", "ChildStartFailed"):
                self._carry_out(ticket, record, outcome)
        self.tickets.remove(ticket)

    def _right_answer(self, ticket: Ticket, record: ChildRecord | None) -> tuple[str, ...]:
        if ticket.launched:
            if ticket.failed:
                return ("ChildStartFailed",)
            return ("ok",) if record is None or record.settled else ("nothing yet",)
        if not ticket.stopped and self._is_void(ticket):
            return ("ok",)
        if ticket.what == "start":
            refusal = self._refusal(ticket, record)
            return (refusal,) if refusal is not None else ("nothing yet",)
        if ticket.what == "terminate" and ticket.stopped:
            return ("ok",) if record is None or not record.alive else ("nothing yet",)
        if record is None:
            return ("ChildNotFound",)
        if ticket.what == "terminate":
            return ("ok",) if not record.alive else ("nothing yet",)
        if ticket.what == "recall":
            return ("nothing yet",)
        if record.alive:
            return ("ChildRunning",) if record.ready and record.asked_at is None else ("ChildRestarting",)
        if record.waits or record.end:
            return ("ChildRestarting",)
        return ("ok",) if ticket.what == "delete" else ("nothing yet",)

    def _refusal(self, ticket: Ticket, record: ChildRecord | None) -> str | None:
        """Return the error with which rules 7-9 and 50 refuse a start, or None."""
        assert ticket.spec is not None
        if ticket.spec.significant and self.spec.auto_shutdown == "never":
            return "SpecError"
        if ticket.spec.max_restarts is not None and not self.one_by_one:  # rule 78
            return "SpecError"
        if record is not None:
            running = record.alive and record.ready and record.asked_at is None
            return "ChildAlreadyStarted" if running else "ChildAlreadyPresent"
        return None

    def _carry_out(self, ticket: Ticket, record: ChildRecord | None, outcome: str) -> None:
        if record is None:
            if ticket.what == "terminate" and not ticket.stopped:
                self.wrong(f"terminate {ticket.id} is answered ok, but there is no such child (rule 14)")
            return
        if ticket.what == "delete" or (ticket.what == "start" and outcome == "ChildStartFailed"):
            self.records.pop(ticket.id, None)
        elif ticket.what == "terminate":
            if record.retry:
                self._excuse_those_down()
            record.ordered = record.excused = True
            record.end, record.retry, record.held = 0, "", False
            self.significant_ends.pop(ticket.id, None)
            if not self.keeps(record):
                self.records.pop(ticket.id, None)
        elif outcome == "ChildStartFailed" and ticket.was_up and record.returns:  # rule 80
            record.retry, record.retry_called = "failed", 0
            record.retry_at = self.now + self._delay(record)[0]
        elif outcome == "ChildStartFailed":
            record.excused = True
            if not self.keeps(record) and not record.given_up:
                self._recall_failed(record)

    def _recall_failed(self, record: ChildRecord) -> None:
        """Keep a temporary child in its position."""

    def _excuse_those_down(self) -> None:
        """Excuse all children that are down, since the restart of their group is cancelled (rules 16 and 38)."""
        for record in self.records.values():
            record.excused = record.excused or (not record.alive and not record.waits)
            record.held = False

    # ------------------------------------------------------------ the end of a turn
    def after(self, ended: bool) -> None:
        """Check that everything that the rules demand is done or under way."""
        if self.turn.expected is not None:
            self.wrong(f"it does not publish {self.turn.expected}")
        if self.turn.report is not None:
            if not self.turn.reported:
                self.wrong(f"a crash report of an end that is no error: {self.turn.report} (rule 58)")
            self._check_verdict(self.turn.report)
        if self.turn.refused and self.phase not in ("stopping", "ended"):
            self.wrong("it refuses as if it were stopping")
        if ended != (self.phase == "ended"):
            self.wrong(f"it is {self.phase}, and for its supervisor it has {'' if ended else 'not '}ended")
        if self.turn.killed is not None and any(
            record.alive and record.asked_at is None for record in self.records.values()
        ):
            self.wrong("it is killed, but not all of its children are")
        match self.phase:
            case "starting":
                if self.turn.may_stop or not self._unsettled(self.records):
                    self.wrong("it neither starts the next child nor stops")
                elif self.to_start and self.latest and self._copies(self.to_start[0], self.latest.spec.id):
                    self.wrong(f"{self.to_start[0]} is not started with {self.latest.spec.id} (rule 82)")
            case "running":
                if self.turn.may_stop:
                    self.wrong(f"it has to stop, but does not: {self.turn.may_stop}")
                self._check_progress()
            case "stopping":
                self._check_stopping()
        self._check_children()
        self._check_blocked()

    @staticmethod
    def _is_busy(record: ChildRecord) -> bool:
        return record.alive and (not record.settled or record.asked_at is not None)

    def _check_blocked(self) -> None:
        """Check which starts wait for which children: those of a start, and of a stop in reverse order, for sure."""
        busy = [one for one in self.records.values() if self._is_busy(one)]
        stopping = [one for one in busy if one.asked_at is not None]
        down = [one.spec.id for one in self.records.values() if not one.alive]
        waits = {(id, one.spec.id): self.policy.comes_after(id, one.spec.id) for one in busy for id in down}
        self.blocked = {pair: self.records[pair[1]].launches for pair, why in waits.items() if why is not None}
        for (id, first), why in waits.items():
            record = self.records[first]
            beside = all(one is record or self._copies(one.spec.id, first) for one in stopping)
            orderly = (
                self.phase == "stopping" and bool(stopping) and beside
            )  # else requests, or a kill, stop others too
            expected = "start" if self.phase == "starting" else "stop" if orderly else why
            if (record.asked_at is not None and why == "start") or (record.asked_at is None and why == "stop"):
                self.wrong(f"{id} waits for the {why} of {first}, which does something else (rule 81)")
            if why != expected and {id, first} <= {info.id for info in self.policy.which_children()}:
                self.wrong(f"{id} comes after {first}: {why} instead of {expected} (rule 81)")

    def _check_stopping(self) -> None:
        if self.tickets:
            self.wrong(f"{len(self.tickets)} requests are not answered, although it stops")
        living = [record for record in self.records.values() if record.alive]
        if not living or not self._last_are_stopped(living):
            self.wrong("it stops, but the last child is not being stopped")

    def _check_progress(self) -> None:
        group = self.group
        if self.turn.given_up is not None:
            self._check_auto_shutdown(self.turn.given_up, self.turns)
        for record in list(self.records.values()):
            if record.due:
                self.wrong(f"{record.spec.id} is to be restarted, but is not")
            if record.retry and not record.alive and record.retry_called == self.turns and self.one_by_one:
                self.wrong(f"it is time to retry {record.spec.id}, and nothing happens (rule 35)")
            if record.end and not record.alive and (self._idle() or (self.one_by_one and record.end == self.turns)):
                self._finish_end(record)
        if group is not None:
            if group.todo is None:
                living = [self.records[one] for one in group.members if one in self.records and self.records[one].alive]
                under_way = bool(living) and self._last_are_stopped(living)
            else:
                late = group.todo and group.last and self._copies(group.todo[0], group.last.spec.id)
                under_way = bool(self._unsettled(group.members)) and not late
            if not under_way:
                self.wrong(f"the restart of the group {group.members} does not go on")
            return
        for ticket in self.heads():
            asked = self.records.get(ticket.id)
            if asked is None or not asked.alive or (asked.settled and asked.asked_at is None):
                self.wrong(f"nothing is done about {ticket.what} {ticket.id}")

    def _idle(self) -> bool:
        return self.group is None and not self.tickets

    def _finish_end(self, record: ChildRecord) -> None:
        """Check an exit after which the child is not restarted (rules 24 and 26)."""
        id, turn, record.end = record.spec.id, record.end, 0
        if record.returns:
            self.wrong(f"{id} has ended with {record.last_exit}, and is not restarted (rules 23 and 25)")
        if not self.keeps(record):
            del self.records[id]
        self._check_auto_shutdown(record, turn)

    def _check_auto_shutdown(self, record: ChildRecord, turn: int) -> None:
        """Check that the end of a child that is not restarted has no auto-shutdown to follow."""
        id = record.spec.id
        if self.significant_ends.get(id) == turn:  # else an earlier child of this name has ended
            if self.spec.auto_shutdown == "any_significant":
                self.wrong(f"{id} was significant and has ended: there must be an auto-shutdown (rule 47)")
            if (
                self.spec.auto_shutdown == "all_significant"
                and self.asked_last < turn
                and self.grouped_last < turn
                and self._idle()
                and self._all_significant_down()
            ):
                self.wrong(f"{id} was the last significant one: there must be an auto-shutdown (rule 49)")

    # ------------------------------------------------------------ lists of children
    def _check_children(self) -> None:
        infos = self.policy.which_children()
        ids = [info.id for info in infos]
        if self.phase in ("stopping", "ended"):
            missing = [id for id, record in self.records.items() if record.alive and id not in ids]
            if missing:
                self.wrong(f"{missing} live, but are not listed")
        else:
            for id in [id for id, record in self.records.items() if record.end and not record.alive and id not in ids]:
                if not self.keeps(self.records[id]):
                    del self.records[id]  # its exit was handled before the present work
            right = [id for id in self.records if id in ids or not self._may_be_forgotten(id)]
            if ids != right:
                self.wrong(f"it has {ids} instead of {right}")
        active = supervisors = 0
        for info in infos:
            record = self.records.get(info.id)
            if record is None:
                continue
            supervisors += info.kind == "supervisor"
            active += record.alive and (record.settled or not record.alone or record.asked_at is not None)
            right = self._statuses(record)
            if info.status not in right:
                self.wrong(f"{info.id} is listed as {info.status}, but is {' or '.join(right)}")
            if info.restarts != max(0, record.launches - 1) or info.last_exit is not record.last_exit:
                self.wrong(
                    f"{info.id}: {info}, but it was started {record.launches} times, the last exit {record.last_exit}"
                )
        if self.phase in ("starting", "running"):
            counts = self.policy.count_children()
            found = (counts.specs, counts.active, counts.supervisors, counts.workers)
            if found != (len(ids), active, supervisors, len(ids) - supervisors):
                self.wrong(f"it counts {counts}, but {active} are active")

    def _may_be_forgotten(self, id: str) -> bool:
        """Return whether it is a temporary child that was down before its group was stopped (rule 27)."""
        group, record = self.group, self.records[id]
        return (
            group is not None and group.todo is None and id in group.members and record.temporary and not record.alive
        )

    def _statuses(self, record: ChildRecord) -> tuple[str, ...]:
        if record.alive:
            if record.asked_at is not None:
                return ("stopping",)
            if record.ready:
                return ("running",)
            return ("restarting",) if record.alone else ("starting",)
        if not record.launches:
            return ("created",) if self.phase in ("new", "starting") else ("created", "stopped")
        rest = self._at_rest(record)
        if self.phase in ("stopping", "ended"):
            return ("restarting", "stopped", rest)
        if record.waits or record.end:
            busy = self.group is not None and record.spec.id in self.group.members
            return ("restarting", rest) if busy else ("restarting",) if record.waits else (rest,)
        if self.group is not None and self.group.culprit == record.spec.id:
            return ("restarting", rest)
        return (rest,)

    def _at_rest(self, record: ChildRecord) -> str:
        if record.ignored:
            return "ignored"
        if record.ordered or record.last_exit is None:
            return "stopped"
        if record.given_up:
            return "failed"
        match record.last_exit:
            case Crashed() | ExitCode() | Signaled():
                return "crashed"
            case Killed():
                return "killed"
            case Hung():
                return "hung"
            case Shutdown(GaveUp() | SignificantFailure()):
                return "failed"
        return "finished" if record.last_exit.clean else "crashed"

    # ------------------------------------------------------------ at rest
    @property
    def at_rest(self) -> bool:
        """Whether nothing is under way in this supervisor."""
        if self.phase != "running":
            return self.phase == "ended"
        return not self.tickets and not any(
            record.waits or (record.alive and (not record.settled or record.asked_at is not None))
            for record in self.records.values()
        )

    def check_no_child_is_lost(self) -> None:
        """Check that each child runs or may be down."""
        for record in self.records.values():
            done = record.spec.restart == "transient" and record.last_exit is not None and record.last_exit.clean
            if not (record.alive or record.ignored or record.excused or done):
                self.wrong(f"{record.spec.id} is down after {record.last_exit}, and no rule allows that")
