"""What goes into the policy and what comes out of it: plain data, no behaviour."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

from suitkaise.events import Event
from suitkaise.exits import ExitReason
from suitkaise.specs import Child

__all__ = [
    "Action",
    "Begin",
    "ChildRequest",
    "DeleteChild",
    "Exited",
    "Ignored",
    "Input",
    "Kill",
    "KillAll",
    "Previous",
    "Publish",
    "Ready",
    "Recall",
    "Refuse",
    "Removed",
    "Respond",
    "RestartChild",
    "SetTimer",
    "Start",
    "StartChild",
    "Started",
    "Stop",
    "StopAll",
    "TerminateChild",
    "Terminated",
    "Timer",
    "TimerKey",
]

TimerKey: TypeAlias = tuple[str, str, int]


# ---------------------------------------------------------------- what happens to a supervisor
@dataclass(frozen=True, slots=True)
class Begin:
    """Start the children."""


@dataclass(frozen=True, slots=True)
class Ready:
    """The `on_start` of this incarnation has returned."""

    id: str
    incarnation: int
    pid: int | None = None


@dataclass(frozen=True, slots=True)
class Ignored:
    """The `on_start` of this incarnation raised `Ignore`."""

    id: str
    incarnation: int


@dataclass(frozen=True, slots=True)
class Exited:
    """This incarnation is over; before `Ready` that is a failed start."""

    id: str
    incarnation: int
    reason: ExitReason
    abandoned: bool = False


@dataclass(frozen=True, slots=True)
class Timer:
    """The time asked for with `Wake` has come."""

    key: TimerKey


@dataclass(frozen=True, slots=True)
class StopAll:
    """Stop the children in reverse order and end with `reason`."""

    reason: ExitReason


@dataclass(frozen=True, slots=True)
class KillAll:
    """Kill every child now and end; for a second signal, or a parent's kill."""

    why: str


@dataclass(frozen=True, slots=True)
class StartChild:
    """Request: add a child and start it (rules 8-12)."""

    request: Any
    child: Child


@dataclass(frozen=True, slots=True)
class TerminateChild:
    """Request: stop a child and keep it stopped (rules 14-16)."""

    request: Any
    id: str


@dataclass(frozen=True, slots=True)
class RestartChild:
    """Request: start a stopped child (rules 17-18)."""

    request: Any
    id: str


@dataclass(frozen=True, slots=True)
class DeleteChild:
    """Request: forget a stopped child (rule 19)."""

    request: Any
    id: str


@dataclass(frozen=True, slots=True)
class Recall:
    """Request: stop a child if it runs, start it again, alone and not counted."""

    request: Any
    id: str


ChildRequest: TypeAlias = StartChild | TerminateChild | RestartChild | DeleteChild | Recall
Input: TypeAlias = Begin | Ready | Ignored | Exited | Timer | StopAll | KillAll | ChildRequest


# ---------------------------------------------------------------- what a supervisor is to do
@dataclass(frozen=True, slots=True)
class Previous:
    """What a restarted child may know of its past: restarts so far, the last exit reason, and when that was."""

    restarts: int
    reason: ExitReason | None
    ended_at: float


@dataclass(frozen=True, slots=True)
class Start:
    """Start a new incarnation of a child; answer with `Ready`, `Ignored` or `Exited`."""

    child: Child
    incarnation: int
    previous: Previous | None = None


@dataclass(frozen=True, slots=True)
class Stop:
    """Ask an incarnation to finish; answer with `Exited`."""

    id: str
    incarnation: int


@dataclass(frozen=True, slots=True)
class Kill:
    """End an incarnation now; answer with `Exited`."""

    id: str
    incarnation: int
    why: str


@dataclass(frozen=True, slots=True)
class SetTimer:
    """Send `Timer(key)` at this time, never earlier; at once when it has passed, but behind what waits already."""

    key: TimerKey
    at: float


@dataclass(frozen=True, slots=True)
class Respond:
    """The answer to a request."""

    request: Any
    value: Any = None


@dataclass(frozen=True, slots=True)
class Refuse:
    """The error that answers a request."""

    request: Any
    error: Exception


@dataclass(frozen=True, slots=True)
class Removed:
    """A child's spec is gone for good."""

    id: str


@dataclass(frozen=True, slots=True)
class Started:
    """The supervisor is up: all its children are."""


@dataclass(frozen=True, slots=True)
class Publish:
    """Tell the world."""

    event: Event


@dataclass(frozen=True, slots=True)
class Terminated:
    """Nothing of the supervisor is left; it ends with this reason."""

    reason: ExitReason


Action: TypeAlias = Start | Stop | Kill | SetTimer | Respond | Refuse | Removed | Started | Publish | Terminated
