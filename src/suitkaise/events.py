"""The events of a tree, as typed values: each prints itself for people and converts to a dict for machines.

`at` is in seconds on the monotonic clock of the program that owns the tree; `wall` is the same moment as Unix time.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import re
import time
from typing import Any, ClassVar, Self

from suitkaise.escapes import LONGEST_LINE, figure, one_line, shortened
from suitkaise.exits import ExitReason, Normal
from suitkaise.records import dataclass, field

__all__ = [
    "ChildAbandoned",
    "ChildExited",
    "ChildGivenUp",
    "ChildIgnored",
    "ChildOverMemory",
    "ChildRestarting",
    "ChildStartFailure",
    "ChildStarted",
    "ChildStopError",
    "ChildStopped",
    "DeadLetter",
    "EndEvent",
    "Event",
    "KeeperLost",
    "LimitEvent",
    "NodeLost",
    "NodeReady",
    "SupervisorGaveUp",
    "SupervisorStarted",
    "SupervisorStopped",
    "SupervisorStopping",
]


_offset = 0.0  # Unix time less monotonic time
_SMALL = 1e-4  # seconds


def _unix_time(at: float) -> float:
    """Return a monotonic time as Unix time, in the same order: so small differences of the clocks are left out."""
    global _offset
    if abs(time.time() - time.monotonic() - _offset) > _SMALL:
        offset = _measured_offset()  # the clock was set; or this thread was held up between its two looks
        if abs(offset - _offset) > _SMALL:
            _offset = offset
    return at + _offset


def _measured_offset() -> float:
    """Return how far the clocks differ, by the quickest of a few looks at both."""
    looks = []
    for _ in range(5):
        before, wall = time.monotonic(), time.time()
        looks.append((time.monotonic() - before, wall - before))
    return min(looks)[1]


@dataclass(frozen=True, slots=True)
class Event:
    """The base of all events; `path` names the worker or supervisor. Its text is one line, of at most 4 KiB.

    `wall` is the time of the event in seconds of Unix time, by the clock of that moment: setting the clock later, or
    suspending the machine, does not change it.
    """

    _level: ClassVar[str] = "info"
    _report_type: ClassVar[str] = "notice"

    path: str
    at: float
    wall: float = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "wall", _unix_time(self.at))

    @property
    def level(self) -> str:
        """The level of the event in the log: `info`, `warning` or `error`; that of a crash is `error`."""
        return self._level

    @property
    def report_type(self) -> str:
        """What the event reports: `progress`, `exit`, `crash`, `restart`, `shutdown`, `gave_up` or `notice`.

        >>> SupervisorStarted("app", 0.0).report_type
        'progress'
        """
        return self._report_type

    @property
    def kind(self) -> str:
        """The event's name in snake case: `child_exited`.

        >>> SupervisorStarted("app", 0.0).kind
        'supervisor_started'
        """
        return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(self).__name__).lower()

    @property
    def depth(self) -> int:
        """The depth of `path` in the tree; the root has depth 0."""
        return self.path.count("/")

    def to_dict(self) -> dict[str, Any]:
        """Return the event as plain values, ready for JSON; infinity, which JSON does not have, is None."""
        fields = {one.name: getattr(self, one.name) for one in dataclasses.fields(self)}
        fields["at"] = fields.pop("wall")
        return {"event": self.kind, **{name: _plain(value) for name, value in fields.items()}}

    def record_fields(self) -> dict[str, Any]:
        """Return the attributes of the event's log record, beside `event`: its report type and its own fields."""
        fields = self.to_dict()
        return {"report_type": self.report_type, **{name: fields[name] for name in fields.keys() - {"event", "at"}}}

    def __str__(self) -> str:
        return f"{self.path} {one_line(shortened(self._text(), LONGEST_LINE))}"

    def _text(self) -> str:
        raise NotImplementedError(f"{type(self).__name__} defines no _text")


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, (tuple, list)):
        return [_plain(part) for part in value]
    return str(value)


def _left(unhandled: int) -> str:
    messages = "1 message was" if unhandled == 1 else f"{unhandled} messages were"
    return f"; {messages} not handled" if unhandled else ""


@dataclass(frozen=True, slots=True)
class ChildStarted(Event):
    """A child is running: its `on_start` has returned.

    `took`: seconds since its previous incarnation ended. `startup`: seconds since the order to start this one.
    """

    _report_type: ClassVar[str] = "progress"
    pid: int | None = None
    restarts: int = 0
    took: float | None = None
    startup: float = field(default=0.0, compare=False)

    def _text(self) -> str:
        pid = f" (pid {self.pid})" if self.pid is not None else ""
        if not self.restarts:
            return f"started{pid}"
        took = f" {self.took * 1000:.1f} ms after its end" if self.took is not None else ""
        return f"is back{pid}{took}, restart {self.restarts}"


@dataclass(frozen=True, slots=True)
class ChildIgnored(Event):
    """A child's `on_start` raised `Ignore`: the child declines to run, which is no failure (rule 11)."""

    _report_type: ClassVar[str] = "progress"

    def _text(self) -> str:
        return "declines to run (Ignore)"


@dataclass(frozen=True, slots=True)
class EndEvent(Event):
    """The base of the events of an end that was not ordered, or went wrong.

    Args:
        reason: the exit reason. If it is an exception, the log record has it as its `exc_info`.
        unhandled: the messages that waited for the child (rule 72).
        where: the file and line of a crash, `app.py:31`; empty if they are unknown.
        report: the id of the crash report; empty if there is none.
    """

    _report_type: ClassVar[str] = "crash"
    _level: ClassVar[str] = "error"
    reason: ExitReason | None = None
    unhandled: int = 0
    where: str = ""
    report: str = ""

    def with_report(self, report: str, where: str) -> Self:
        """Return the same event, at the same time, with the report's id and the place of the crash."""
        event = copy.copy(self)
        object.__setattr__(event, "report", report)
        object.__setattr__(event, "where", where)
        return event

    def _end(self) -> str:
        where = f" (at {self.where})" if self.where else ""
        report = f"; see `suitkaise crashes {self.report}`" if self.report else ""
        return f"{self.reason}{where}{_left(self.unhandled)}{report}"


@dataclass(frozen=True, slots=True)
class ChildStartFailure(EndEvent):
    """A child failed to start."""

    def _text(self) -> str:
        early = "it ended before it was up: " if self.reason == Normal() else ""
        return f"failed to start: {early}{self._end()}"


@dataclass(frozen=True, slots=True)
class ChildExited(EndEvent):
    """A running child ended without a stop request."""

    pid: int | None = None

    @property
    def report_type(self) -> str:
        """`crash`, or `exit` for a clean end."""
        return "exit" if self.level == "info" else "crash"

    @property
    def level(self) -> str:
        """`error` for a crash, `info` for a clean end."""
        return "info" if self.reason is None or self.reason.clean else "error"

    def _text(self) -> str:
        pid = f" (pid {self.pid})" if self.pid is not None else ""
        return f"ended{pid}: {self._end()}"


@dataclass(frozen=True, slots=True)
class ChildRestarting(Event):
    """A child will be restarted after `delay` seconds; `used` of the `allowed` restarts in the window are spent."""

    _report_type: ClassVar[str] = "restart"
    _level: ClassVar[str] = "warning"
    delay: float = 0.0
    used: int = 0
    allowed: float = 0

    def _text(self) -> str:
        delay = f" in {figure(self.delay)} s" if self.delay else ""
        allowed = figure(self.allowed, 6)
        budget = "any number is allowed" if self.allowed == math.inf else f"{self.used} of {allowed} in the window"
        return f"restarts{delay} ({budget})"


@dataclass(frozen=True, slots=True)
class LimitEvent(Event):
    """More restarts would be needed than `max_restarts` in `max_seconds`: the base of the two events that say so."""

    _report_type: ClassVar[str] = "gave_up"
    _level: ClassVar[str] = "error"
    reason: ExitReason | None = None
    max_restarts: float = 0
    max_seconds: float = 0

    def _limit(self) -> str:
        restarts = f"{figure(self.max_restarts, 6)} restart{'s' * (self.max_restarts != 1)}"
        return f"more than {restarts} in {figure(self.max_seconds, 6)} s; last reason: {self.reason}"


@dataclass(frozen=True, slots=True)
class ChildGivenUp(LimitEvent):
    """A child with a `max_restarts` of its own would need more restarts than that; it stays down alone (rule 78)."""

    def _text(self) -> str:
        return f"is given up: it would need {self._limit()}"


@dataclass(frozen=True, slots=True)
class ChildStopped(Event):
    """A child was asked to stop, and ended as expected. `unhandled`: the messages that were dropped (rule 72)."""

    _report_type: ClassVar[str] = "shutdown"
    reason: ExitReason | None = None
    unhandled: int = 0

    def _text(self) -> str:
        return f"stopped: {self.reason}{_left(self.unhandled)}"


@dataclass(frozen=True, slots=True)
class ChildStopError(EndEvent):
    """A child was asked to stop and ended abnormally, or had to be killed (rules 42 and 43)."""

    def _text(self) -> str:
        return f"did not stop cleanly: {self._end()}"


@dataclass(frozen=True, slots=True)
class ChildAbandoned(Event):
    """A thread hung or did not stop in time; since threads cannot be killed, it is abandoned (rule 59)."""

    _level: ClassVar[str] = "error"

    def _text(self) -> str:
        return "is abandoned: its thread cannot be killed, and runs on"


@dataclass(frozen=True, slots=True)
class ChildOverMemory(Event):
    """A child uses more memory than its `max_memory` (both in bytes), and is restarted for that (rule 83)."""

    _level: ClassVar[str] = "warning"
    memory: int = 0
    max_memory: int = 0

    def _text(self) -> str:
        used, allowed = self.memory / 2**20, self.max_memory / 2**20
        return f"uses {used:.1f} MiB, more than its max_memory of {figure(allowed, 4)} MiB: it is restarted"


@dataclass(frozen=True, slots=True)
class SupervisorStarted(Event):
    """All children of a supervisor have started."""

    _report_type: ClassVar[str] = "progress"

    def _text(self) -> str:
        return "supervisor started"


def _briefly(reason: str) -> str:
    """Leave out of a supervisor's reason what the line that it gives up has just told."""
    return "shutdown (gave up)" if reason.startswith("shutdown (gave up: ") else reason


@dataclass(frozen=True, slots=True)
class SupervisorStopping(Event):
    """A supervisor starts to stop its children, in reverse start order."""

    _report_type: ClassVar[str] = "shutdown"
    why: str = ""

    def _text(self) -> str:
        return f"supervisor stops its children: {_briefly(self.why)}"


@dataclass(frozen=True, slots=True)
class SupervisorGaveUp(LimitEvent):
    """A supervisor would need more restarts than its intensity allows (rule 28)."""

    child: str = ""

    def _text(self) -> str:
        return f"supervisor gives up: {self.child!r} would need {self._limit()}"


@dataclass(frozen=True, slots=True)
class SupervisorStopped(Event):
    """A supervisor and all its children have ended."""

    _report_type: ClassVar[str] = "shutdown"
    reason: ExitReason | None = None

    def _text(self) -> str:
        return f"supervisor stopped: {_briefly(str(self.reason))}"


@dataclass(frozen=True, slots=True)
class KeeperLost(Event):
    """The keeper, which forks the worker processes, died; a new keeper takes over, and no worker is lost."""

    _level: ClassVar[str] = "warning"

    def _text(self) -> str:
        return "died; a new one takes over"


@dataclass(frozen=True, slots=True)
class NodeReady(Event):
    """A node of the cluster is connected, and workers can be started there."""

    node: str

    def _text(self) -> str:
        return f"node {self.node} is ready"


@dataclass(frozen=True, slots=True)
class NodeLost(Event):
    """A node of the cluster is lost; `workers` is the number of workers that ran there.

    They are told to be lost, and started elsewhere, as soon as they must be gone.
    """

    _level: ClassVar[str] = "warning"

    node: str
    why: str
    workers: int

    def _text(self) -> str:
        return f"node {self.node} is lost, with {self.workers} worker{'' if self.workers == 1 else 's'}: {self.why}"


@dataclass(frozen=True, slots=True)
class DeadLetter(Event):
    """A message that was told, and not asked, could not be delivered to the worker at `path`.

    `count` is the number of such messages to this worker so far. There is an event for the 1st, 2nd, 4th, 8th ... of
    them. `why` tells what happened to the last one.
    """

    _level: ClassVar[str] = "warning"
    count: int = 1
    why: str = ""

    def _text(self) -> str:
        messages = "1 message was" if self.count == 1 else f"{self.count} messages were"
        return f"{messages} not delivered; the last one: {self.why}"
