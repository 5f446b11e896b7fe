"""One child as the policy of its supervisor sees it: its phase, its history, its status."""

from __future__ import annotations

import copy
from enum import Enum, auto

from suitkaise.errors import ChildStartFailed
from suitkaise.exits import Crashed, ExitReason, Hung, StartFailure
from suitkaise.policy.actions import Exited, Ignored
from suitkaise.policy.restart_window import RestartWindow
from suitkaise.records import dataclass
from suitkaise.specs import Child
from suitkaise.status import Status, status_after

__all__ = ["ChildInfo", "ChildPhase", "ChildState", "start_error"]


class ChildPhase(Enum):
    """The phase of a child. Jobs wait for the end of STARTING and of STOPPING."""

    NEW = auto()
    STARTING = auto()
    RUNNING = auto()
    STOPPING = auto()
    EXITED = auto()  # ended by itself; the policy has not decided yet what follows
    RESTARTING = auto()  # waits for its next start
    IGNORED = auto()
    STOPPED = auto()


@dataclass(frozen=True, slots=True)
class ChildInfo:
    """One line of `which_children` (rule 20).

    `at_rest`: the status without regard to an abandoned thread. `active`: `count_children` counts the child as alive.
    """

    id: str
    kind: str
    status: Status
    at_rest: Status
    restarts: int
    incarnation: int
    last_exit: ExitReason | None
    active: bool


@dataclass(slots=True)
class ChildState:
    """What the policy remembers of one child."""

    spec: Child
    phase: ChildPhase = ChildPhase.NEW
    incarnation: int = 0  # the number of the newest incarnation
    first_incarnation: int = 1
    attempt: int = 0  # restarts since the child was last stable, for the backoff
    retry_counted: bool = False  # the restart window holds the pending retry already
    restarts_alone: bool = False  # the child is restarted without a job
    stopped_on_request: bool = False  # the child has ended because the supervisor stopped it
    in_group_restart: bool = False  # a group restart has stopped the child and will start it again
    abandoned: bool = False
    given_up: bool = False  # it has needed more restarts than its own limit allows (rule 78)
    ordered_at: float = 0.0  # when the start of this incarnation was ordered
    ready_at: float | None = None  # when it became ready
    ended_at: float = 0.0
    last_exit: ExitReason | None = None
    pid: int | None = None
    window: RestartWindow | None = None  # of its own, if it has a `max_restarts` of its own

    def __post_init__(self) -> None:
        if self.spec.max_restarts is not None:
            self.window = RestartWindow(self.spec.max_restarts, self.spec.max_seconds)

    @property
    def position(self) -> tuple[str, bool]:
        """What it has in common with the other `copies` of its declaration, and with no other child (rule 82)."""
        copy = self.spec.copy
        return (self.spec.id, False) if copy is None else (self.spec.id.removesuffix(f"-{copy}"), True)

    @property
    def temporary(self) -> bool:
        """Whether it is never restarted (rule 26)."""
        return self.spec.restart == "temporary"

    @property
    def needs_restart(self) -> bool:
        """Whether its last exit calls for a restart (rules 23-26)."""
        assert self.last_exit is not None
        return self.spec.restart == "permanent" or (self.spec.restart == "transient" and not self.last_exit.clean)

    @property
    def starts(self) -> int:
        """How many times it was started."""
        return self.incarnation - self.first_incarnation + 1

    @property
    def restarts(self) -> int:
        """How many times it was started again."""
        return max(0, self.starts - 1)

    @property
    def active(self) -> bool:
        """Whether `count_children` counts it as alive."""
        return self.phase in (ChildPhase.RUNNING, ChildPhase.STOPPING) or (
            self.phase is ChildPhase.STARTING and not self.restarts_alone
        )

    def retry_pending(self, number: int) -> bool:
        """Return whether the retry after incarnation `number` is still to come."""
        return self.phase is ChildPhase.RESTARTING and self.incarnation == number

    @property
    def info(self) -> ChildInfo:
        """Its line in `which_children`."""
        spec = self.spec
        status = self.status
        at_rest = self.status_at_rest if status is Status.ABANDONED else status
        return ChildInfo(
            spec.id, spec.kind, status, at_rest, self.restarts, self.incarnation, self.last_exit, self.active
        )

    def info_after(self, end: Exited | Ignored | None) -> ChildInfo:
        """Return its line as it is when the policy has handled that end, for other threads that know of it already."""
        if end is None or self.incarnation != end.incarnation:
            return self.info
        ended = copy.copy(self)
        was = ended.phase
        if was not in (ChildPhase.STARTING, ChildPhase.RUNNING, ChildPhase.STOPPING):
            return ended.info  # it is handled
        match end:
            case Ignored():
                ended.phase = ChildPhase.IGNORED if was is ChildPhase.STARTING else ChildPhase.STOPPED
            case Exited():
                ended.last_exit, ended.abandoned = end.reason, end.abandoned
                ended.stopped_on_request = was is ChildPhase.STOPPING
                starting = was is ChildPhase.STARTING
                again = ended.restarts_alone if starting else was is ChildPhase.RUNNING and ended.needs_restart
                ended.phase = ChildPhase.RESTARTING if again else ChildPhase.STOPPED
        return ended.info

    @property
    def status(self) -> Status:
        """Its status as users see it."""
        match self.phase:
            case ChildPhase.NEW:
                return Status.CREATED
            case ChildPhase.STARTING:
                return Status.RESTARTING if self.restarts_alone else Status.STARTING
            case ChildPhase.RUNNING:
                return Status.RUNNING
            case ChildPhase.STOPPING:
                return Status.STOPPING
            case ChildPhase.RESTARTING:
                return Status.RESTARTING
            case ChildPhase.EXITED if self.needs_restart:
                return Status.RESTARTING
            case ChildPhase.IGNORED:
                return Status.IGNORED
        if self.abandoned:
            return Status.ABANDONED
        return self.status_at_rest

    @property
    def status_at_rest(self) -> Status:
        """Its status as its last exit has left it."""
        if self.stopped_on_request or self.last_exit is None:
            return Status.STOPPED
        return Status.FAILED if self.given_up else status_after(self.last_exit)


def start_error(failure: StartFailure) -> ChildStartFailed:
    """Return the error that a caller gets whose request led to a failed start."""
    cause = failure.reason
    traceback = cause.traceback if isinstance(cause, Crashed) else cause.stack if isinstance(cause, Hung) else ""
    return ChildStartFailed(str(failure), path=failure.path, reason=cause, traceback=traceback)
