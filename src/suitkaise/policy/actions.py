"""The events that a policy handles and the actions that it returns: plain data, no behaviour."""

from __future__ import annotations

from typing import Any, TypeAlias

from suitkaise.events import Event
from suitkaise.exits import ExitReason
from suitkaise.records import dataclass
from suitkaise.specs import Child
from suitkaise.status import Status

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
    "Ping",
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


# ---------------------------------------------------------------- events
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
    """This incarnation has ended; before `Ready`, its start has failed. `unhandled`: messages that waited for it."""

    id: str
    incarnation: int
    reason: ExitReason
    abandoned: bool = False
    unhandled: int = 0


@dataclass(frozen=True, slots=True)
class Timer:
    """The time that was set with `SetTimer` has come."""

    key: TimerKey


@dataclass(frozen=True, slots=True)
class StopAll:
    """Stop the children in reverse order and end with `reason`."""

    reason: ExitReason


@dataclass(frozen=True, slots=True)
class KillAll:
    """Kill every child now and end: after a second signal, or when the parent kills the supervisor."""

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
    """Request: remove a stopped child with its spec (rule 19)."""

    request: Any
    id: str


@dataclass(frozen=True, slots=True)
class Recall:
    """Request: stop a child if it runs and start it again, that child alone; the restart window does not count it.

    With an `incarnation` only that one is meant: the request is void if it does not run any more.
    """

    request: Any
    id: str
    incarnation: int | None = None


@dataclass(frozen=True, slots=True)
class Ping:
    """Request: tell that the supervisor decides, whatever it is doing."""

    request: Any


ChildRequest: TypeAlias = StartChild | TerminateChild | RestartChild | DeleteChild | Recall
Input: TypeAlias = Begin | Ready | Ignored | Exited | Timer | StopAll | KillAll | Ping | ChildRequest


# ---------------------------------------------------------------- actions
@dataclass(frozen=True, slots=True)
class Previous:
    """The past of a restarted child: restarts so far, the last exit reason, and the time of that exit."""

    restarts: int
    reason: ExitReason | None
    ended_at: float


@dataclass(frozen=True, slots=True)
class Start:
    """Start a new incarnation of a child; the policy then expects `Ready`, `Ignored` or `Exited`."""

    child: Child
    incarnation: int
    previous: Previous | None = None


@dataclass(frozen=True, slots=True)
class Stop:
    """Ask an incarnation to finish; the policy then expects `Exited`."""

    id: str
    incarnation: int


@dataclass(frozen=True, slots=True)
class Kill:
    """End an incarnation now; the policy then expects `Exited`."""

    id: str
    incarnation: int
    why: str


@dataclass(frozen=True, slots=True)
class SetTimer:
    """Send `Timer(key)` at this time, never earlier; if it has passed, at once, but after the events that wait."""

    key: TimerKey
    at: float


@dataclass(frozen=True, slots=True)
class Respond:
    """Answer a request."""

    request: Any
    value: Any = None


@dataclass(frozen=True, slots=True)
class Refuse:
    """Answer a request with an error."""

    request: Any
    error: Exception


@dataclass(frozen=True, slots=True)
class Removed:
    """A child was removed with its spec; `status` is the last one that it had."""

    id: str
    status: Status


@dataclass(frozen=True, slots=True)
class Started:
    """The supervisor is running: all its children have started."""


@dataclass(frozen=True, slots=True)
class Publish:
    """Publish an event."""

    event: Event


@dataclass(frozen=True, slots=True)
class Terminated:
    """The supervisor has ended with this reason; all its children are gone."""

    reason: ExitReason


Action: TypeAlias = Start | Stop | Kill | SetTimer | Respond | Refuse | Removed | Started | Publish | Terminated
