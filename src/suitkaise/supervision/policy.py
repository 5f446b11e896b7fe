"""The pure policy of one supervisor: what happens goes in, what is to be done comes out.

No clock, no thread, no I/O: time is an argument, and the same inputs always give the same actions. What takes
several steps (stop these in reverse order, then start those in order) is a *job*: a generator that yields the
child it waits for. Jobs run one at a time, in the order they came; under `one_for_one` a restart is no job, so
children come back independently of each other. Rule numbers are those of the supervision reference.
"""

from __future__ import annotations

import inspect
import random
from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, TypeAlias

from suitkaise import events
from suitkaise.errors import (
    ChildAlreadyPresent,
    ChildAlreadyStarted,
    ChildNotFound,
    ChildRestarting,
    ChildRunning,
    ChildStartFailed,
    SpecError,
    WorkerDead,
)
from suitkaise.exits import (
    Crashed,
    ExitCode,
    ExitReason,
    GaveUp,
    Hung,
    Killed,
    Shutdown,
    Signaled,
    StartFailure,
)
from suitkaise.specs import Child, Supervisor, check_children
from suitkaise.statuses import Status
from suitkaise.supervision.steps import (
    Action,
    Begin,
    DeleteChild,
    Emit,
    End,
    Exited,
    Halt,
    Ignored,
    Input,
    Kill,
    Previous,
    Ready,
    Recall,
    Refuse,
    Removed,
    Reply,
    Request,
    RestartChild,
    Start,
    StartChild,
    Started,
    Stop,
    StopAll,
    TerminateChild,
    Timer,
    Wake,
)

__all__ = ["ChildInfo", "Counts", "Phase", "Policy"]


class Phase(Enum):
    """Where the supervisor itself stands."""

    NEW = auto()
    STARTING = auto()
    RUNNING = auto()
    STOPPING = auto()
    ENDED = auto()


class _At(Enum):
    """Where a child stands. STARTING and STOPPING are the two that a job waits for."""

    NEW = auto()
    STARTING = auto()
    RUNNING = auto()
    STOPPING = auto()
    DOWN = auto()  # it ended, and that is not dealt with yet
    RESTARTING = auto()  # waits for its next try
    IGNORED = auto()
    STOPPED = auto()


@dataclass(frozen=True, slots=True)
class ChildInfo:
    """One line of `which_children` (rule 20)."""

    id: str
    kind: str
    status: Status
    restarts: int
    incarnation: int
    last_exit: ExitReason | None


@dataclass(frozen=True, slots=True)
class Counts:
    """The answer of `count_children` (rule 21); all but `active` include children that are not alive."""

    specs: int
    active: int
    supervisors: int
    workers: int


@dataclass(slots=True)
class _Child:
    spec: Child
    at: _At = _At.NEW
    incarnation: int = 0
    before: int = 0  # the number before its first incarnation
    attempt: int = 0  # restarts since it was last stable, for the backoff
    counted: bool = False  # the pending retry is counted already
    alone: bool = False  # it is being restarted by itself, not by a job
    ordered: bool = False  # its last end was an order
    returning: bool = False  # a group restart has stopped it and will start it again
    abandoned: bool = False
    ready_at: float | None = None  # when this incarnation came up
    ended_at: float = 0.0
    last_exit: ExitReason | None = None
    pid: int | None = None

    @property
    def temporary(self) -> bool:
        return self.spec.restart == "temporary"

    @property
    def restarts(self) -> int:
        return max(0, self.incarnation - self.before - 1)


Job: TypeAlias = Generator["_Child", None, None]


class Policy:
    """The decisions of one supervisor.

    >>> def work() -> None: ...
    >>> policy = Policy(Supervisor("app", Child(work)), "app")
    >>> [type(action).__name__ for action in policy.handle(Begin(), now=0.0)]
    ['Start']
    """

    def __init__(self, spec: Supervisor, path: str, chance: Callable[[], float] | None = None) -> None:
        self.spec = spec
        self.path = path
        self.phase: Phase = Phase.NEW
        self.reason: ExitReason | None = None
        self._children = {child.id: _Child(child) for child in spec.children}
        self._restarts: deque[float] = deque()
        self._retired = 0  # the highest incarnation number of children that were removed
        self._chance = chance if chance is not None else random.Random(path).random
        self._jobs: deque[tuple[Request | None, Job]] = deque()
        self._job: Job | None = None
        self._request: Request | None = None
        self._awaited: _Child | None = None
        self._out: list[Action] = []
        self._now = 0.0

    # ------------------------------------------------------------ questions, answered at once
    def which_children(self) -> list[ChildInfo]:
        """All children in start order, the dead ones included (rule 20)."""
        return [
            ChildInfo(
                child.spec.id,
                child.spec.kind,
                self._status(child),
                child.restarts,
                child.incarnation,
                child.last_exit,
            )
            for child in list(self._children.values())  # a copy: other threads may look
        ]

    def count_children(self) -> Counts:
        """How many children there are, and how many of them are alive (rule 21)."""
        children = list(self._children.values())
        supervisors = sum(child.spec.kind == "supervisor" for child in children)
        active = sum(
            child.at in (_At.RUNNING, _At.STOPPING) or (child.at is _At.STARTING and not child.alone)
            for child in children
        )
        return Counts(len(children), active, supervisors, len(children) - supervisors)

    def get_child_spec(self, id: str) -> Child:
        """The declaration of a child with its defaults filled in (rule 22)."""
        return self._find(id).spec

    def restarts_used(self, now: float) -> int:
        """How many of the allowed restarts the window holds at `now`."""
        return sum(at >= now - self.spec.max_seconds for at in self._restarts)

    def status_of(self, id: str, *, gone: bool = False) -> Status:
        """The status of one child; `gone`: a thread of it that was abandoned is not there any more."""
        return self._status(self._find(id), gone)

    def incarnation_of(self, id: str) -> int:
        """The number of a child's newest incarnation; 0 for none."""
        child = self._children.get(id)
        return 0 if child is None else child.incarnation

    def is_over(self, id: str) -> bool:
        """Whether nothing but a request will start this child again."""
        child = self._children.get(id)
        return child is None or (child.at in (_At.STOPPED, _At.IGNORED) and not child.returning)

    # ------------------------------------------------------------ what happens
    def handle(self, event: Input, now: float) -> list[Action]:
        """Take in one event at time `now` (seconds, monotonic) and say what is to be done, in this order."""
        self._now = now
        match event:
            case Begin():
                if self.phase is Phase.NEW:
                    self.phase = Phase.STARTING
                    self._queue(self._start_all())
            case Ready(id, incarnation, pid):
                self._on_ready(id, incarnation, pid)
            case Ignored(id, incarnation):
                self._on_ignored(id, incarnation)
            case Exited(id, incarnation, reason, abandoned):
                self._on_exited(id, incarnation, reason, abandoned)
            case Timer(("kill", id, number)):
                child = self._children.get(id)
                if child is not None and child.incarnation == number and child.at is _At.STOPPING:
                    self._out.append(Kill(id, number, "shutdown timeout"))
            case Timer((_, id, number)):
                self._on_retry(id, number)
            case StopAll(reason):
                self._shut_down(reason)
            case Halt(why):
                self._halt(why)
            case _:
                self._on_request(event)
        self._advance()
        actions, self._out = self._out, []
        return actions

    def _on_ready(self, id: str, incarnation: int, pid: int | None) -> None:
        child = self._current(id, incarnation)
        if child is None or child.at is not _At.STARTING:
            return
        child.at, child.pid, child.ready_at, child.abandoned = _At.RUNNING, pid, self._now, False
        took = self._now - child.ended_at if child.restarts and child.last_exit is not None else None
        self._emit(events.ChildStarted, child, pid=pid, restarts=child.restarts, took=took)

    def _on_ignored(self, id: str, incarnation: int) -> None:
        child = self._current(id, incarnation)
        if child is None or child.at not in (_At.STARTING, _At.STOPPING):
            return
        child.at = _At.IGNORED if child.at is _At.STARTING else _At.STOPPED
        if child.last_exit is None:
            child.ended_at = self._now
        self._emit(events.ChildIgnored, child)
        if child.temporary and child.at is _At.IGNORED:
            self._remove(child)

    def _on_exited(self, id: str, incarnation: int, reason: ExitReason, abandoned: bool) -> None:
        child = self._current(id, incarnation)
        if child is None or child.at not in (_At.STARTING, _At.RUNNING, _At.STOPPING):
            return
        was, child.at = child.at, _At.STOPPED
        child.last_exit, child.ended_at, child.abandoned = reason, self._now, abandoned
        child.ordered = was is _At.STOPPING
        backoff, up_since = child.spec.backoff, child.ready_at
        if backoff is not None and up_since is not None and self._now - up_since >= backoff.reset_after:
            child.attempt = 0
        if was is _At.STOPPING:
            expected = reason.clean or (child.spec.shutdown == "brutal_kill" and isinstance(reason, Killed))
            self._emit(events.ChildStopped if expected else events.ChildStopError, child, reason=reason)
        elif was is _At.STARTING:
            self._emit(events.ChildStartFailure, child, reason=reason)
            if child.alone and self.phase is Phase.RUNNING:
                self._try_later(child)
        else:
            self._emit(events.ChildExited, child, reason=reason, pid=child.pid)
            if self.phase is not Phase.STOPPING:
                child.at = _At.DOWN
                if self.phase is Phase.RUNNING and self.spec.strategy == "one_for_one":
                    self._after_exit(child)
                else:
                    self._queue(self._exit_job(child, incarnation))
        if abandoned:
            self._emit(events.ChildAbandoned, child)

    def _on_retry(self, id: str, number: int) -> None:
        child = self._children.get(id)
        if child is None or self.phase is not Phase.RUNNING or not self._retry_pending(child, number):
            return
        if self.spec.strategy != "one_for_one":
            self._queue(self._retry_job(child, number))
        elif child.counted or self._count_restart(child):
            self._start(child, alone=True)

    def _on_request(self, request: Request) -> None:
        if self.phase in (Phase.STOPPING, Phase.ENDED):
            self._out.append(Refuse(request.request, self.stopping_error()))
            return
        match request:
            case StartChild(_, child):
                job = self._start_child(request.request, child)
            case TerminateChild(_, id):
                job = self._terminate_child(request.request, id)
            case RestartChild(_, id):
                job = self._restart_child(request.request, id)
            case DeleteChild(_, id):
                job = self._delete_child(request.request, id)
            case Recall(_, id):
                job = self._recall(request.request, id)
        self._queue(job, request)

    # ------------------------------------------------------------ exits and restarts (rules 23-38)
    def _after_exit(self, child: _Child, *, in_turn: bool = False) -> None:
        assert child.last_exit is not None
        if child.temporary:
            self._remove(child)
            self._auto_shutdown(child, in_turn)
        elif child.spec.restart == "transient" and child.last_exit.clean:
            child.at = _At.STOPPED
            self._auto_shutdown(child, in_turn)
        else:
            self._restart(child)

    def _restart(self, child: _Child) -> None:
        delay = self._delay(child)
        if not self._count_restart(child, delay):
            return
        if self.spec.strategy != "one_for_one":
            self._jobs.appendleft((None, self._restart_group(child, delay)))
        elif delay:
            self._wait_for_retry(child, delay, counted=True)
        else:
            self._start(child, alone=True)

    def _count_restart(self, child: _Child, delay: float = 0.0) -> bool:
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
            Emit(
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
        child.at = _At.STOPPED
        self._shut_down(Shutdown(GaveUp(self._path(child), _leaf(reason), spec.max_restarts, spec.max_seconds)))
        return False

    def _delay(self, child: _Child) -> float:
        if child.spec.backoff is None:
            return 0.0
        child.attempt += 1
        return child.spec.backoff.delay(child.attempt, self._chance())

    def _try_later(self, child: _Child) -> None:
        """A start failed during a restart: try again, behind whatever waits already (rule 35)."""
        self._wait_for_retry(child, self._delay(child), counted=False)

    def _wait_for_retry(self, child: _Child, delay: float, *, counted: bool) -> None:
        child.at, child.counted = _At.RESTARTING, counted
        self._out.append(Wake(("retry", child.spec.id, child.incarnation), self._now + delay))

    def _retry_pending(self, child: _Child, number: int) -> bool:
        return child.at is _At.RESTARTING and child.incarnation == number

    def _exit_job(self, child: _Child, incarnation: int) -> Job:
        yield from ()
        if child.at is _At.DOWN and child.incarnation == incarnation:
            self._after_exit(child, in_turn=True)

    def _retry_job(self, child: _Child, number: int) -> Job:
        if self._retry_pending(child, number) and (child.counted or self._count_restart(child)):
            yield from self._restart_group(child, delay=0.0)

    def _restart_group(self, child: _Child, delay: float) -> Job:
        group = list(self._children.values())
        if self.spec.strategy == "rest_for_one":
            group = group[group.index(child) :]
        for member in reversed(group):
            if member is not child:
                member.returning = True
                yield from self._stop(member)
        if delay:
            self._wait_for_retry(child, delay, counted=True)
            return
        child.at, child.returning = _At.STOPPED, True  # its turn may not come, if an earlier one fails
        for member in group:
            if member.spec.id not in self._children:
                continue  # a temporary one (rule 27)
            yield from self._start_in_job(member)
            if member.at is _At.STOPPED:
                self._try_later(member)
                return

    # ------------------------------------------------------------ starting and stopping one child
    def _start(self, child: _Child, *, alone: bool = False) -> None:
        starts = child.incarnation - child.before
        previous = Previous(starts, child.last_exit, child.ended_at) if starts else None
        child.incarnation += 1
        child.ready_at = None
        child.at, child.alone, child.returning = _At.STARTING, alone, False
        self._out.append(Start(child.spec, child.incarnation, previous))

    def _start_in_job(self, child: _Child) -> Job:
        self._start(child)
        yield child

    def _stop(self, child: _Child, *, for_good: bool = True) -> Job:
        """Stop a child by its shutdown, and wait until it is gone (rules 42-44); a temporary one is forgotten."""
        if child.at in (_At.RUNNING, _At.STARTING):
            child.at = _At.STOPPING
            shutdown = child.spec.shutdown
            if shutdown == "brutal_kill":
                self._out.append(Kill(child.spec.id, child.incarnation, "brutal_kill"))
            else:
                self._out.append(Stop(child.spec.id, child.incarnation))
                if not isinstance(shutdown, str):
                    self._out.append(Wake(("kill", child.spec.id, child.incarnation), self._now + shutdown))
        if child.at is _At.STOPPING:
            yield child
        if child.at in (_At.DOWN, _At.RESTARTING):
            child.at = _At.STOPPED
        if child.temporary and for_good:
            self._remove(child)

    # ------------------------------------------------------------ the whole supervisor
    def _start_all(self) -> Job:
        for child in list(self._children.values()):
            yield from self._start_in_job(child)
            if child.at is _At.STOPPED:
                assert child.last_exit is not None
                self._shut_down(Shutdown(self._failure(child)))
                return
        self.phase = Phase.RUNNING
        self._out.append(Emit(events.SupervisorStarted(self.path, self._now)))
        self._out.append(Started())

    def _shut_down(self, reason: ExitReason) -> None:
        if self.phase in (Phase.STOPPING, Phase.ENDED):
            return
        self.phase, self.reason = Phase.STOPPING, reason
        waiting = [self._request, *(request for request, _ in self._jobs)]
        if self._job is not None and inspect.getgeneratorstate(self._job) != inspect.GEN_RUNNING:
            self._job.close()
        self._job = self._request = None
        self._jobs.clear()
        for request in waiting:
            if request is not None:
                self._out.append(Refuse(request.request, self.stopping_error()))
        self._out.append(Emit(events.SupervisorStopping(self.path, self._now, why=str(reason))))
        self._queue(self._stop_all(reason))

    def _stop_all(self, reason: ExitReason) -> Job:
        for child in reversed(list(self._children.values())):
            yield from self._stop(child)
        self.phase = Phase.ENDED
        self._out.append(Emit(events.SupervisorStopped(self.path, self._now, reason=reason)))
        self._out.append(End(reason))

    def _halt(self, why: str) -> None:
        for child in reversed(list(self._children.values())):
            if child.at in (_At.STARTING, _At.RUNNING, _At.STOPPING):
                child.at = _At.STOPPING
                self._out.append(Kill(child.spec.id, child.incarnation, why))
        self._shut_down(Killed(why))

    def _auto_shutdown(self, child: _Child, in_turn: bool) -> None:
        """Rules 47-49; `child` has just ended by itself and stays so. `in_turn`: no request came before that."""
        if not child.spec.significant or self.spec.auto_shutdown == "never":
            return
        reason = Shutdown(f"auto-shutdown: {child.spec.id!r} has ended")
        if self.spec.auto_shutdown == "any_significant":
            self._shut_down(reason)
        elif in_turn:
            self._jobs.appendleft((None, self._shut_down_unless_significant(reason)))
        else:  # requests that came before may be starting or stopping another one
            self._queue(self._shut_down_unless_significant(reason))

    def _shut_down_unless_significant(self, reason: ExitReason) -> Job:
        significant = [child for child in self._children.values() if child.spec.significant]
        if all(child.at in (_At.STOPPED, _At.IGNORED) for child in significant):
            self._shut_down(reason)
        yield from ()

    # ------------------------------------------------------------ administration (rules 8-19)
    def _start_child(self, request: Any, spec: Child) -> Job:
        try:
            check_children(f"Supervisor {self.spec.name!r}", (spec,), self.spec.auto_shutdown)
            known = self._children.get(spec.id)
            if known is not None and known.at is _At.RUNNING:
                raise ChildAlreadyStarted(f"{self._path(known)!r} is running already", path=self._path(known))
            if known is not None:
                raise ChildAlreadyPresent(
                    f"{self._path(known)!r} is there already, but {self._status(known)}; "
                    "use restart_child, or delete_child first",
                    path=self._path(known),
                )
        except (ChildAlreadyStarted, ChildAlreadyPresent, SpecError) as error:
            self._out.append(Refuse(request, error))
            return
        # It numbers its incarnations on from where those of removed children ended: what is still under way for
        # an earlier child of this id (an exit, a timer) must not meet it.
        child = self._children[spec.id] = _Child(spec, incarnation=self._retired, before=self._retired)
        yield from self._start_in_job(child)
        if child.at is _At.STOPPED:
            self._remove(child)
            self._refuse_start(request, child)
        else:
            self._out.append(Reply(request, spec.id))

    def _terminate_child(self, request: Any, id: str) -> Job:
        child = self._children.get(id)
        if child is None:
            self._out.append(Refuse(request, self._not_found(id)))
            return
        child.ordered = True
        self._cancel_retry(child)
        child.returning = False
        yield from self._stop(child)
        self._out.append(Reply(request))

    def _restart_child(self, request: Any, id: str) -> Job:
        child = self._at_rest(request, id)
        if child is not None:
            yield from self._start_in_job(child)
            self._reply_started(request, child)

    def _delete_child(self, request: Any, id: str) -> Job:
        yield from ()
        child = self._at_rest(request, id)
        if child is not None:
            self._remove(child)
            self._out.append(Reply(request))

    def _recall(self, request: Any, id: str) -> Job:
        child = self._children.get(id)
        if child is None:
            self._out.append(Refuse(request, self._not_found(id)))
            return
        if child.at in (_At.RUNNING, _At.STARTING, _At.RESTARTING, _At.DOWN):
            self._cancel_retry(child)
            yield from self._stop(child, for_good=False)
        yield from self._start_in_job(child)
        self._reply_started(request, child)

    def _cancel_retry(self, child: _Child) -> None:
        """The pending restart of its group goes with it: the others stay down (rules 16 and 38)."""
        if child.at is _At.RESTARTING:
            for member in self._children.values():
                member.returning = False

    def _at_rest(self, request: Any, id: str) -> _Child | None:
        """The child if it is stopped; else the request is refused (rules 17 and 19)."""
        child = self._children.get(id)
        if child is not None and child.at in (_At.STOPPED, _At.IGNORED):
            return child
        if child is None:
            error: Exception = self._not_found(id)
        elif child.at is _At.RUNNING:
            error = ChildRunning(f"{self._path(child)!r} is running; terminate_child first", path=self._path(child))
        else:
            error = ChildRestarting(
                f"{self._path(child)!r} is being restarted; terminate_child first", path=self._path(child)
            )
        self._out.append(Refuse(request, error))
        return None

    def _reply_started(self, request: Any, child: _Child) -> None:
        if child.at is _At.STOPPED:
            self._refuse_start(request, child)
        else:
            self._out.append(Reply(request, child.spec.id))

    def _refuse_start(self, request: Any, child: _Child) -> None:
        failure = self._failure(child)
        self._out.append(Refuse(request, ChildStartFailed(str(failure), path=failure.path, reason=failure.reason)))

    # ------------------------------------------------------------ small things
    def _queue(self, job: Job, request: Request | None = None) -> None:
        self._jobs.append((request, job))

    def _advance(self) -> None:
        """Run jobs, one after the other, until one has to wait for a child."""
        while True:
            if self._job is None:
                if not self._jobs:
                    return
                self._request, self._job = self._jobs.popleft()
            elif self._awaited is not None and self._awaited.at in (_At.STARTING, _At.STOPPING):
                return
            job = self._job
            self._awaited = None
            try:
                awaited = next(job)
            except StopIteration:
                if self._job is job:
                    self._job = self._request = None
            else:
                if self._job is job:
                    self._awaited = awaited

    def _current(self, id: str, incarnation: int) -> _Child | None:
        child = self._children.get(id)
        return child if child is not None and child.incarnation == incarnation else None

    def _find(self, id: str) -> _Child:
        try:
            return self._children[id]
        except KeyError:
            raise self._not_found(id) from None

    def _not_found(self, id: str) -> ChildNotFound:
        known = ", ".join(repr(name) for name in list(self._children)[:10]) or "none"
        return ChildNotFound(f"supervisor {self.path!r} has no child {id!r}; it has {known}", path=f"{self.path}/{id}")

    def stopping_error(self) -> WorkerDead:
        """What everyone gets who asks for something now that the supervisor stops or has stopped."""
        return WorkerDead(f"supervisor {self.path!r} is stopping: {self.reason}", path=self.path, reason=self.reason)

    def _remove(self, child: _Child) -> None:
        if self._children.pop(child.spec.id, None) is not None:
            self._retired = max(self._retired, child.incarnation)
            self._out.append(Removed(child.spec.id))

    def _failure(self, child: _Child) -> StartFailure:
        reason = child.last_exit
        assert reason is not None
        if isinstance(reason, Shutdown) and isinstance(reason.detail, StartFailure):
            return reason.detail
        return StartFailure(self._path(child), reason)

    def _path(self, child: _Child) -> str:
        return f"{self.path}/{child.spec.id}"

    def _emit(self, event: Callable[..., events.Event], child: _Child, **fields: Any) -> None:
        self._out.append(Emit(event(self._path(child), self._now, **fields)))

    def _status(self, child: _Child, gone: bool = False) -> Status:
        match child.at:
            case _At.NEW:
                return Status.CREATED
            case _At.STARTING:
                return Status.RESTARTING if child.alone else Status.STARTING
            case _At.RUNNING:
                return Status.RUNNING
            case _At.STOPPING:
                return Status.STOPPING
            case _At.DOWN | _At.RESTARTING:
                return Status.RESTARTING
            case _At.IGNORED:
                return Status.IGNORED
        if child.abandoned and not gone:
            return Status.ABANDONED
        if child.ordered or child.last_exit is None:
            return Status.STOPPED
        return _status_after(child.last_exit)


def _status_after(reason: ExitReason) -> Status:
    match reason:
        case Crashed() | ExitCode() | Signaled():
            return Status.CRASHED
        case Killed():
            return Status.KILLED
        case Hung():
            return Status.HUNG
    return Status.FINISHED if reason.clean else Status.CRASHED


def _leaf(reason: ExitReason) -> ExitReason:
    """The innermost reason, where a supervisor ended because of one of its own children."""
    while isinstance(reason, Shutdown) and isinstance(reason.detail, (GaveUp, StartFailure)):
        reason = reason.detail.reason
    return reason
