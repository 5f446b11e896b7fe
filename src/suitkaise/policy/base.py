"""What the policies of all supervisors share: the phases of each child, restarts, stopping, the end.

No clock, no thread, no I/O: time is an argument, and the same inputs always give the same actions. What takes
several steps is a job (see `jobs`). Rule numbers are those of the supervision reference.
"""

from __future__ import annotations

import itertools
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from enum import Enum, auto
from typing import Literal

from suitkaise import events
from suitkaise.errors import ChildNotFound, WorkerDead
from suitkaise.exits import (
    KILL_CHILD,
    SHUTDOWN_TIMEOUT,
    ExitReason,
    GaveUp,
    Killed,
    Lost,
    Shutdown,
    StartFailure,
    by_sigterm,
    origin,
)
from suitkaise.policy.action_list import ActionList
from suitkaise.policy.actions import (
    Action,
    Begin,
    ChildRequest,
    Exited,
    Ignored,
    Input,
    KillAll,
    Ping,
    Ready,
    StopAll,
    Timer,
    TimerKey,
)
from suitkaise.policy.child_table import ChildTable
from suitkaise.policy.children import ChildInfo, ChildPhase, ChildState
from suitkaise.policy.jobs import Job, JobQueue
from suitkaise.policy.restart_window import RestartWindow
from suitkaise.specs import Child, SupervisorSpec
from suitkaise.status import Counts

__all__ = ["BasePolicy", "SupervisorPhase"]


_NO_ENDS: Mapping[str, Exited | Ignored] = {}
_DOWN = (ChildPhase.NEW, ChildPhase.EXITED, ChildPhase.RESTARTING, ChildPhase.IGNORED, ChildPhase.STOPPED)


class SupervisorPhase(Enum):
    """The phase of the supervisor itself."""

    NEW = auto()
    STARTING = auto()
    RUNNING = auto()
    STOPPING = auto()
    ENDED = auto()


class BasePolicy(ABC):
    """The decisions that static and dynamic supervisors have in common.

    Args:
        spec: the declaration of the supervisor.
        path: its path in the tree.
        chance: random numbers in [0, 1) for the jitter of the backoff; by default seeded with the path.
    """

    def __init__(self, spec: SupervisorSpec, path: str, chance: Callable[[], float] | None = None) -> None:
        self.spec = spec
        self.path = path
        self.phase: SupervisorPhase = SupervisorPhase.NEW
        self.reason: ExitReason | None = None
        self.children: ChildTable = ChildTable(path, spec.children)
        self.exits: dict[str, int] = {}  # of children, by the class of the reason; of all incarnations
        self.restarts_before: dict[str, int] = {}  # of children by id, under earlier incarnations of this supervisor
        self._window = RestartWindow(spec.max_restarts, spec.max_seconds)
        self._chance = chance if chance is not None else random.Random(path).random
        self._queue = JobQueue()
        self.actions: ActionList = ActionList(path)
        self.numbers: Iterator[int] = itertools.count(1)  # of children without an id, see `named`

    # ------------------------------------------------------------ questions, answered at once
    def which_children(self, ends: Mapping[str, Exited | Ignored] = _NO_ENDS) -> list[ChildInfo]:
        """Return a line about each child in start order, the dead ones included (rule 20).

        `ends`: ends of children that are known already, but that this policy may not have handled yet.
        """
        return self.children.which(ends)

    def count_children(self, ends: Mapping[str, Exited | Ignored] = _NO_ENDS) -> Counts:
        """Return how many children there are, and how many of them are alive (rule 21)."""
        return self.children.count(ends)

    def get_child_spec(self, id: str) -> Child:
        """Return the declaration of a child with its defaults filled in (rule 22)."""
        return self.children.find(id).spec

    def restarts_used(self, now: float) -> int:
        """Return how many restarts the window holds at time `now`."""
        return self._window.used(now)

    def window_of(self, id: str) -> RestartWindow:
        """Return the window in which the restarts of this child count: its own, or that of the supervisor."""
        child = self.children.get(id)
        return self._window if child is None or child.window is None else child.window

    def child_info(self, id: str, end: Exited | Ignored | None = None) -> ChildInfo | None:
        """Return the line of one child in `which_children`; None if there is no such child."""
        child = self.children.get(id)
        return None if child is None else child.info_after(end)

    def incarnation_of(self, id: str) -> int:
        """Return the number of a child's newest incarnation; 0 for none."""
        child = self.children.get(id)
        return 0 if child is None else child.incarnation

    def __contains__(self, id: object) -> bool:
        """Return whether there is a child with this id, dead or alive."""
        return id in self.children

    def gone_for_good(self, down: set[str]) -> list[str]:
        """Return those children in `down` that nothing but a request will start again."""
        return [id for id in down if self.is_over(id)] if self.phase is SupervisorPhase.RUNNING else []

    def is_over(self, id: str) -> bool:
        """Return whether nothing but a request will start this child again."""
        child = self.children.get(id)
        return child is None or (child.phase in (ChildPhase.STOPPED, ChildPhase.IGNORED) and not child.in_group_restart)

    def comes_back(self, id: str) -> bool:
        """Return whether this child is being started again, or will be without a request."""
        child = self.children.get(id)
        if child is None or self.phase in (SupervisorPhase.STOPPING, SupervisorPhase.ENDED):
            return False
        if child.phase is ChildPhase.EXITED:
            return child.needs_restart
        return child.phase in (ChildPhase.STARTING, ChildPhase.RESTARTING) or child.in_group_restart

    def comes_after(self, id: str, first: str) -> Literal["start", "stop"] | None:
        """Return for what of the child `first` a start of the child `id`, which is down, waits; None: it does not.

        For other threads too: each look is at one entry of a table, or at what is only ever replaced as a whole.
        """
        child, awaited = self.children.get(id), self.children.get(first)
        if child is None or awaited is None or child.phase not in _DOWN or not self._awaits(awaited, child):
            return None
        return {ChildPhase.STARTING: "start", ChildPhase.STOPPING: "stop"}.get(awaited.phase)  # type: ignore[return-value]

    @abstractmethod
    def _awaits(self, awaited: ChildState, child: ChildState) -> bool:
        """Return whether the start of `child`, which is down, waits for `awaited`, which starts or stops."""

    def restarted_with(self, id: str) -> tuple[str, ...]:
        """Return the ids of the siblings that a restart of this child restarts, too."""
        return ()

    def named(self, child: Child) -> Child:
        """Return a child that is to be added, under the id that it will have here; any thread may call this."""
        return child

    def not_found(self, id: str) -> ChildNotFound:
        """Return the error for a request about a child that does not exist."""
        return self.children.not_found(id)

    def stopping_error(self) -> WorkerDead:
        """Return the error for a request to a supervisor that is stopping or has stopped."""
        state = "has ended" if self.phase is SupervisorPhase.ENDED else "is stopping"
        return WorkerDead(f"supervisor {self.path!r} {state}: {self.reason}", path=self.path, reason=self.reason)

    # ------------------------------------------------------------ events
    def inherit(self, previous: BasePolicy) -> None:
        """Continue the numbers, so that no ref to an earlier child comes to mean another one, and the counts.

        The previous incarnation may have had another kind: a request may have put another supervisor into the place of
        the declared one, which a restart brings back.
        """
        self.numbers = previous.numbers
        self.exits = dict(previous.exits)
        before = {
            info.id: info.restarts + previous.restarts_before.get(info.id, 0) for info in previous.which_children({})
        }
        self.restarts_before = {id: number for id, number in before.items() if id in self}

    def handle(self, event: Input, now: float) -> list[Action]:
        """Process one event at time `now` (seconds, monotonic); return the actions to carry out, in order."""
        self.actions.now = now
        match event:
            case Begin():
                if self.phase is SupervisorPhase.NEW:
                    self.phase = SupervisorPhase.STARTING
                    self._queue.add(self._start_all())
            case Ready(id, incarnation, pid):
                self._on_ready(id, incarnation, pid)
            case Ignored(id, incarnation):
                self._on_ignored(id, incarnation)
            case Exited(id, incarnation):
                self._on_exited(id, incarnation, event)
            case Timer(key):
                self._on_timer(key)
            case StopAll(reason):
                self._shut_down(reason)
            case KillAll(why):
                self._kill_all(why)
            case Ping(request):
                self.actions.respond(request)
            case _:
                self._on_request(event)
        self._run_jobs(event)
        return self.actions.take()

    def abort(self, reason: ExitReason) -> None:
        """Stop deciding after an internal error of the policy or the executor, which kills all children (rule 68)."""
        self.phase, self.reason = SupervisorPhase.ENDED, reason
        for child in self.children:
            if child.phase not in (ChildPhase.NEW, ChildPhase.IGNORED, ChildPhase.STOPPED):
                child.phase, child.stopped_on_request = ChildPhase.STOPPED, True
                child.last_exit = Killed(str(reason))

    def _run_jobs(self, event: Input) -> None:
        """Continue the jobs that `event` may have unblocked."""
        self._queue.run(getattr(event, "id", None))

    def _on_ready(self, id: str, incarnation: int, pid: int | None) -> None:
        child = self.children.current(id, incarnation)
        if child is None or child.phase is not ChildPhase.STARTING:
            return
        child.phase, child.pid, child.ready_at, child.abandoned = ChildPhase.RUNNING, pid, self.actions.now, False
        child.given_up = False
        took = self.actions.now - child.ended_at if child.restarts and child.last_exit is not None else None
        startup = self.actions.now - child.ordered_at
        self.actions.publish(events.ChildStarted, child, pid=pid, restarts=child.restarts, took=took, startup=startup)

    def _on_ignored(self, id: str, incarnation: int) -> None:
        child = self.children.current(id, incarnation)
        if child is None or child.phase not in (ChildPhase.STARTING, ChildPhase.STOPPING):
            return
        child.phase = ChildPhase.IGNORED if child.phase is ChildPhase.STARTING else ChildPhase.STOPPED
        if child.last_exit is None:
            child.ended_at = self.actions.now
        self.actions.publish(events.ChildIgnored, child)
        if child.phase is ChildPhase.IGNORED and not self._keeps_spec(child):
            self.forget(child)

    def _on_exited(self, id: str, incarnation: int, event: Exited) -> None:
        reason, abandoned, unhandled = event.reason, event.abandoned, event.unhandled
        child = self.children.current(id, incarnation)
        if child is None or child.phase not in (ChildPhase.STARTING, ChildPhase.RUNNING, ChildPhase.STOPPING):
            return
        was, child.phase = child.phase, ChildPhase.STOPPED
        child.last_exit, child.ended_at, child.abandoned = reason, self.actions.now, abandoned
        child.stopped_on_request = was is ChildPhase.STOPPING
        kind_of_end = type(reason).__name__
        self.exits[kind_of_end] = self.exits.get(kind_of_end, 0) + 1
        backoff, up_since = child.spec.backoff, child.ready_at
        if backoff is not None and up_since is not None and self.actions.now - up_since >= backoff.reset_after:
            child.attempt = 0
        if was is ChildPhase.STOPPING:
            killed = child.spec.shutdown == "brutal_kill" and isinstance(reason, Killed)
            killed = killed or reason == Killed(KILL_CHILD)
            expected = reason.clean or killed or by_sigterm(reason)
            kind = events.ChildStopped if expected else events.ChildStopError
            self.actions.publish(kind, child, reason=reason, unhandled=unhandled)
        elif was is ChildPhase.STARTING:
            self.actions.publish(events.ChildStartFailure, child, reason=reason, unhandled=unhandled)
            if child.restarts_alone and self.phase is SupervisorPhase.RUNNING:
                self.retry_later(child)
        else:
            self.actions.publish(events.ChildExited, child, reason=reason, pid=child.pid, unhandled=unhandled)
            if self.phase is not SupervisorPhase.STOPPING:
                child.phase = ChildPhase.EXITED
                self._on_own_exit(child)
        if abandoned:
            self.actions.publish(events.ChildAbandoned, child)

    def _on_timer(self, key: TimerKey) -> None:
        what, id, number = key
        child = self.children.current(id, number)
        if child is None:
            return
        if what == "kill" and child.phase is ChildPhase.STOPPING:
            self._kill_late(child)
        elif what == "retry" and child.phase is ChildPhase.RESTARTING and self.phase is SupervisorPhase.RUNNING:
            self._retry(child)

    def _on_request(self, request: ChildRequest) -> None:
        if self.phase in (SupervisorPhase.STOPPING, SupervisorPhase.ENDED):
            self.actions.refuse(request.request, self.stopping_error())
        else:
            self._serve(request)

    # ------------------------------------------------------------ what static and dynamic supervisors do differently
    @abstractmethod
    def _start_all(self) -> Job:
        """Start the declared children and mark the supervisor as running."""

    @abstractmethod
    def _stop_children(self) -> Job:
        """Stop all children."""

    @abstractmethod
    def _serve(self, request: ChildRequest) -> None:
        """Queue the job that serves a request."""

    @abstractmethod
    def _keeps_spec(self, child: ChildState) -> bool:
        """Return whether the declaration of this child is kept while nothing will restart the child."""

    @abstractmethod
    def _on_own_exit(self, child: ChildState) -> None:
        """Decide what follows when a running child has ended by itself."""

    @abstractmethod
    def _on_stays_down(self, child: ChildState, *, in_job: bool = False) -> None:
        """Decide what follows when a child that has ended by itself is not restarted."""

    # ------------------------------------------------------------ restarts (rules 23-38)
    def _restart(self, child: ChildState) -> None:
        delay = self._delay(child)
        if self._count_restart(child, delay):
            self._restart_now(child, delay)

    def _restart_now(self, child: ChildState, delay: float) -> None:
        """Carry out a restart that the window holds already; here, restart that child alone (rule 31)."""
        if delay:
            self._wait_for_retry(child, delay, retry_counted=True)
        else:
            self.actions.start(child, restarts_alone=True)

    def _retry(self, child: ChildState) -> None:
        """Carry out a pending restart, now that its time has come."""
        if child.retry_counted or self._count_restart(child):
            self.actions.start(child, restarts_alone=True)

    def _count_restart(self, child: ChildState, delay: float = 0.0) -> bool:
        """Count one restart; if it is one too many, give up and return False (rules 28-30).

        A child with a `max_restarts` of its own is counted and given up alone (rule 78). The loss of a node counts
        for nothing: it says nothing about the child, and it ends many children at once.
        """
        window, now = child.window or self._window, self.actions.now
        if _lost_with_its_node(child) or window.add(now):
            used, allowed = window.used(now), window.max_restarts
            self.actions.publish(events.ChildRestarting, child, delay=delay, used=used, allowed=allowed)
            return True
        reason = child.last_exit
        assert reason is not None
        child.phase = ChildPhase.STOPPED
        limits = {"max_restarts": window.max_restarts, "max_seconds": window.max_seconds}
        if child.window is not None:
            child.given_up = True
            self.actions.publish(events.ChildGivenUp, child, reason=reason, **limits)
            self._on_stays_down(child)
        else:
            self.actions.publish(events.SupervisorGaveUp, child=child.spec.id, reason=reason, **limits)
            self._shut_down(Shutdown(GaveUp(self.path_of(child), origin(reason)[1], *limits.values())))
        return False

    def _delay(self, child: ChildState) -> float:
        if child.spec.backoff is None:
            return 0.0
        child.attempt += 1
        return child.spec.backoff.delay(child.attempt, self._chance())

    def retry_later(self, child: ChildState) -> None:
        """Start a child again whose start has failed during a restart, after the events that wait already (rule 35)."""
        self._wait_for_retry(child, self._delay(child), retry_counted=False)

    def _wait_for_retry(self, child: ChildState, delay: float, *, retry_counted: bool) -> None:
        child.phase, child.retry_counted = ChildPhase.RESTARTING, retry_counted
        self.actions.set_timer("retry", child, delay)

    def cancel_retry(self, child: ChildState) -> None:  # noqa: B027  (a restart of one child has nothing to undo)
        """Cancel what belongs to the pending restart of a child that a request stops or restarts."""

    # ------------------------------------------------------------ starting and stopping one child
    def start(self, *children: ChildState) -> Generator[Mapping[str, ChildState], ChildState, ChildState | None]:
        """Start children at the same time and wait until each is ready, or has ignored its start.

        Return at once when a start fails: the child, else None.
        """
        for child in children:
            self.actions.start(child)
        starting = {child.spec.id: child for child in children}
        while starting:
            child = yield starting
            if child.phase is ChildPhase.STOPPED:
                return child
            del starting[child.spec.id]
        return None

    def stop(self, *children: ChildState, for_good: bool = True) -> Job:
        """Stop children at the same time, by the shutdown of each, and wait for their exits (rules 42-44).

        Forget those whose spec is not kept.
        """
        for child in children:
            seconds = self.actions.stop(child)
            if seconds is not None:
                self.actions.set_timer("kill", child, seconds)
        yield from self._await_exits(children, for_good=for_good)

    def _await_exits(self, children: Sequence[ChildState], *, for_good: bool = True) -> Job:
        """Wait for the exits of children that are being stopped."""
        stopping = {child.spec.id: child for child in children if child.phase is ChildPhase.STOPPING}
        ended: Sequence[ChildState] = [child for child in children if child.spec.id not in stopping]
        while True:
            for child in ended:
                if child.phase in (ChildPhase.EXITED, ChildPhase.RESTARTING):
                    child.phase = ChildPhase.STOPPED
                if for_good and not self._keeps_spec(child):
                    self.forget(child)
            if not stopping:
                return
            child = yield stopping
            del stopping[child.spec.id]
            ended = (child,)

    def _kill_late(self, child: ChildState) -> None:
        self.actions.kill(child, SHUTDOWN_TIMEOUT)

    # ------------------------------------------------------------ the whole supervisor
    def _mark_running(self) -> None:
        self.phase = SupervisorPhase.RUNNING
        self.actions.publish(events.SupervisorStarted)
        self.actions.started()

    def _shut_down(self, reason: ExitReason) -> None:
        if self.phase in (SupervisorPhase.STOPPING, SupervisorPhase.ENDED):
            return
        self.phase, self.reason = SupervisorPhase.STOPPING, reason
        for request in self._drop_jobs():
            self.actions.refuse(request.request, self.stopping_error())
        self.actions.publish(events.SupervisorStopping, why=str(reason))
        self._queue.add(self._stop_all())

    def _drop_jobs(self) -> list[ChildRequest]:
        """Drop all jobs; return the requests among them, which still need an answer."""
        return self._queue.clear()

    def _stop_all(self) -> Job:
        yield from self._stop_children()
        reason = self.reason
        assert reason is not None
        self.phase = SupervisorPhase.ENDED
        self.actions.publish(events.SupervisorStopped, reason=reason)
        self.actions.terminated(reason)

    def _kill_all(self, why: str) -> None:
        """Kill all children (rule 65); a stop that is under way becomes a kill."""
        for child in reversed(self.children):
            if child.phase in (ChildPhase.STARTING, ChildPhase.RUNNING, ChildPhase.STOPPING):
                self.actions.kill(child, why)
        self._shut_down(Killed(why))
        if self.phase is SupervisorPhase.STOPPING and not isinstance(self.reason, Killed):
            self.reason = Killed(why)

    # ------------------------------------------------------------ small steps
    def forget(self, child: ChildState) -> None:
        """Remove a child with its spec."""
        if self.children.remove(child):
            self.actions.removed(child)

    def failure_of(self, child: ChildState) -> StartFailure:
        """Return why the start of a child has failed."""
        reason = child.last_exit
        assert reason is not None
        if isinstance(reason, Shutdown) and isinstance(reason.detail, StartFailure):
            return reason.detail
        return StartFailure(self.path_of(child), reason)

    def path_of(self, child: ChildState) -> str:
        """Return the path of a child."""
        return f"{self.path}/{child.spec.id}"


def _lost_with_its_node(child: ChildState) -> bool:
    return isinstance(child.last_exit, Lost) and bool(child.last_exit.node)
