"""The state of a ledger: children, requests, the group restart under way, the turn."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from suitkaise.crashes import CrashReport
from suitkaise.events import Event
from suitkaise.exits import ExitReason
from suitkaise.policy.actions import DeleteChild, Recall, RestartChild, StartChild, TerminateChild
from suitkaise.specs import Child

__all__ = ["EPSILON", "REQUEST_NAMES", "ChildRecord", "Group", "Ticket", "Turn"]

EPSILON = 1e-9


@dataclass(slots=True, eq=False)
class ChildRecord:
    """One child, as far as the events of its supervisor show."""

    spec: Child
    launches: int = 0
    alive: bool = False
    ready: bool = False
    settled: bool = False  # this incarnation has become ready, or has ignored its start
    alone: bool = False  # it is restarted by itself
    asked_at: float | None = None  # when its stop was requested
    up_at: float | None = None
    due: bool = False  # a restart of it alone was announced, without delay
    end: int = 0  # the turn of its own exit, if nothing was done about that yet; else 0
    retry: str = ""  # "failed": its start in a restart, not counted yet; "counted": it waits for its backoff
    retry_at: float = 0.0
    retry_called: int = 0  # the turn of its timer
    attempts: int = 0
    last_exit: ExitReason | None = None
    ended_at: float = 0.0
    ignored: bool = False
    ordered: bool = False
    excused: bool = False  # a request wanted it down, or has cancelled its restart
    restarts: list[float] = field(default_factory=list)  # in the window of its own, if it has one (rule 78)
    given_up: bool = False  # it has exceeded that window, and has not run since
    kill_by: float | None = None  # when an order has told to kill it (rule 79)
    held: bool = False  # a restart of its group has stopped it, and has not started it again yet

    @property
    def limited(self) -> bool:
        """Whether its restarts count in a window of its own (rule 78)."""
        return self.spec.max_restarts is not None

    @property
    def temporary(self) -> bool:
        return self.spec.restart == "temporary"

    @property
    def returns(self) -> bool:
        """Whether its last exit calls for a restart (rules 23-26)."""
        assert self.last_exit is not None
        return self.spec.restart == "permanent" or (self.spec.restart == "transient" and not self.last_exit.clean)

    @property
    def waits(self) -> bool:
        """Whether it will be started again without a request."""
        return bool(self.retry) or self.due or (self.end > 0 and self.returns)


@dataclass(slots=True, eq=False)
class Ticket:
    """A request that is not yet answered."""

    request: Any
    what: str
    id: str
    spec: Child | None
    turn: int  # in which the supervisor got it
    incarnation: int | None = None  # the only one that a recall is about (rule 83)
    stopped: bool = False
    launched: bool = False
    failed: bool = False
    was_up: bool = False  # for a recall: it has stopped the child, or has cancelled a restart of it


@dataclass(slots=True, eq=False)
class Group:
    """A group restart under way (rules 32-38)."""

    culprit: str
    members: list[str]
    delay: float | None  # if set, this restart only stops members; they are started after a backoff
    todo: list[str] | None = None  # members that are still to be started; None while members are being stopped
    last: ChildRecord | None = None
    failed: bool = False  # the start of a copy has failed, so the other copies are being stopped (rule 82)


REQUEST_NAMES: dict[type, str] = {
    StartChild: "start", TerminateChild: "terminate", RestartChild: "restart", DeleteChild: "delete", Recall: "recall",
}  # fmt: skip


@dataclass(slots=True)
class Turn:
    """All that has happened since the supervisor began to handle one event."""

    expected: tuple[type[Event], str, ExitReason | None] | None = None
    report: CrashReport | None = None  # of the end that is handled, which is to be an error
    reported: bool = False  # the event of that end is published
    verdicts: dict[str, str] = field(default_factory=dict)  # what a crash report has to tell, for each path
    given_up: ChildRecord | None = None  # a significant child
    killed: str | None = None
    refused: bool = False
    may_stop: set[str] = field(default_factory=set)
