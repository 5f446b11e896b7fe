"""One child as its supervisor's policy knows it: where it stands, what it went through, what can be said of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from suitkaise.errors import ChildStartFailed
from suitkaise.exits import Crashed, ExitCode, ExitReason, GaveUp, Hung, Killed, Shutdown, Signaled, StartFailure
from suitkaise.specs import Child
from suitkaise.status import Counts, Status

__all__ = ["ChildInfo", "ChildPhase", "ChildState", "count", "leaf", "start_error"]


class ChildPhase(Enum):
    """Where a child stands. STARTING and STOPPING are the two that a job waits for."""

    NEW = auto()
    STARTING = auto()
    RUNNING = auto()
    STOPPING = auto()
    EXITED = auto()  # it ended, and that is not dealt with yet
    RESTARTING = auto()  # waits for its next try
    IGNORED = auto()
    STOPPED = auto()


@dataclass(frozen=True, slots=True)
class ChildInfo:
    """One line of `which_children` (rule 20). `at_rest`: its status without regard to a thread that it left behind."""

    id: str
    kind: str
    status: Status
    at_rest: Status
    restarts: int
    incarnation: int
    last_exit: ExitReason | None


@dataclass(slots=True)
class ChildState:
    """What the policy remembers of one child."""

    spec: Child
    at: ChildPhase = ChildPhase.NEW
    incarnation: int = 0
    before: int = 0  # the number before its first incarnation
    attempt: int = 0  # restarts since it was last stable, for the backoff
    retry_counted: bool = False  # the pending retry is counted already
    restarts_alone: bool = False  # it is being restarted by itself, not by a job
    stopped_on_request: bool = False  # its last end was an order
    in_group_restart: bool = False  # a group restart has stopped it and will start it again
    abandoned: bool = False
    ready_at: float | None = None  # when this incarnation came up
    ended_at: float = 0.0
    last_exit: ExitReason | None = None
    pid: int | None = None

    @property
    def temporary(self) -> bool:
        """Whether it is never restarted (rule 26)."""
        return self.spec.restart == "temporary"

    @property
    def comes_back(self) -> bool:
        """Whether it is to be restarted after the exit that it has just made (rules 23-26)."""
        assert self.last_exit is not None
        return self.spec.restart == "permanent" or (self.spec.restart == "transient" and not self.last_exit.clean)

    @property
    def restarts(self) -> int:
        """How many times it was started again."""
        return max(0, self.incarnation - self.before - 1)

    @property
    def active(self) -> bool:
        """Whether `count_children` counts it as alive."""
        return self.at in (ChildPhase.RUNNING, ChildPhase.STOPPING) or (
            self.at is ChildPhase.STARTING and not self.restarts_alone
        )

    def retry_pending(self, number: int) -> bool:
        """Whether the retry that was announced after incarnation `number` is still to come."""
        return self.at is ChildPhase.RESTARTING and self.incarnation == number

    @property
    def info(self) -> ChildInfo:
        """Its line in `which_children`."""
        spec = self.spec
        status = self.status
        at_rest = self.status_at_rest if status is Status.ABANDONED else status
        return ChildInfo(spec.id, spec.kind, status, at_rest, self.restarts, self.incarnation, self.last_exit)

    @property
    def status(self) -> Status:
        """What it is doing, as it is told to the world."""
        match self.at:
            case ChildPhase.NEW:
                return Status.CREATED
            case ChildPhase.STARTING:
                return Status.RESTARTING if self.restarts_alone else Status.STARTING
            case ChildPhase.RUNNING:
                return Status.RUNNING
            case ChildPhase.STOPPING:
                return Status.STOPPING
            case ChildPhase.EXITED | ChildPhase.RESTARTING:
                return Status.RESTARTING
            case ChildPhase.IGNORED:
                return Status.IGNORED
        if self.abandoned:
            return Status.ABANDONED
        return self.status_at_rest

    @property
    def status_at_rest(self) -> Status:
        """What its last end has made of it."""
        if self.stopped_on_request or self.last_exit is None:
            return Status.STOPPED
        return _status_after(self.last_exit)


def start_error(failure: StartFailure) -> ChildStartFailed:
    """What is raised where a start that failed was asked for."""
    cause = failure.reason
    traceback = cause.traceback if isinstance(cause, Crashed) else ""
    return ChildStartFailed(str(failure), path=failure.path, reason=cause, traceback=traceback)


def count(children: list[ChildState]) -> Counts:
    """How many there are, and how many of them are alive (rule 21)."""
    supervisors = sum(child.spec.kind == "supervisor" for child in children)
    active = sum(child.active for child in children)
    return Counts(len(children), active, supervisors, len(children) - supervisors)


def leaf(reason: ExitReason) -> ExitReason:
    """The innermost reason, where a supervisor ended because of one of its own children."""
    while isinstance(reason, Shutdown) and isinstance(reason.detail, (GaveUp, StartFailure)):
        reason = reason.detail.reason
    return reason


def _status_after(reason: ExitReason) -> Status:
    match reason:
        case Crashed() | ExitCode() | Signaled():
            return Status.CRASHED
        case Killed():
            return Status.KILLED
        case Hung():
            return Status.HUNG
    return Status.FINISHED if reason.clean else Status.CRASHED
