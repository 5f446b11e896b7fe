"""The policy of a `DynamicSupervisor`: children without order, each with a job queue of its own.

Requests about one child are served in order; those about different children do not wait for each other. A child that
nothing will restart is forgotten, so only the end of the supervisor looks at all children (rule 54); one that has
exceeded a limit of its own is kept as failed, until a request revives or removes it (rule 78).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from suitkaise.errors import MaxChildren, SpecError
from suitkaise.policy.actions import (
    Action,
    Begin,
    ChildRequest,
    Input,
    KillAll,
    Ping,
    StartChild,
    StopAll,
    Timer,
    TimerKey,
)
from suitkaise.policy.administration import RequestJobs
from suitkaise.policy.base import BasePolicy, SupervisorPhase
from suitkaise.policy.children import ChildPhase, ChildState
from suitkaise.policy.jobs import Job, JobQueue
from suitkaise.specs import Child, SupervisorSpec
from suitkaise.specs.supervisor import DynamicSupervisorSpec

__all__ = ["DynamicPolicy"]


class DynamicPolicy(BasePolicy):
    """The decisions of a `DynamicSupervisor`.

    >>> def work() -> None: ...
    >>> policy = DynamicPolicy(DynamicSupervisorSpec("pool"), "pool")
    >>> [type(action).__name__ for action in policy.handle(Begin(), now=0.0)]
    ['Publish', 'Started']
    >>> policy.handle(StartChild("request", Child(work)), now=0.0)[0].child.id
    'work-1'
    """

    def __init__(self, spec: SupervisorSpec, path: str, chance: Callable[[], float] | None = None) -> None:
        assert isinstance(spec, DynamicSupervisorSpec)
        super().__init__(spec, path, chance)
        self._request_jobs = _DynamicRequestJobs(self, spec.max_children)
        self._queues: dict[str | None, JobQueue] = {}
        self._given_up: set[str] = set()  # revived ones too

    # ------------------------------------------------------------ ids
    def named(self, child: Child) -> Child:
        """Return the child with a number if its declaration gives no id; no number is used again."""
        if child.id_given:
            return child
        id = next(name for number in self.numbers if (name := f"{child.id}-{number}") not in self.children)
        return child.renamed(id)

    # ------------------------------------------------------------ one job queue for each child
    def handle(self, event: Input, now: float) -> list[Action]:
        """Process one event: see `BasePolicy.handle`."""
        if isinstance(event, StartChild):
            event = StartChild(event.request, self.named(event.child))
        return super().handle(event, now)

    def _serve(self, request: ChildRequest) -> None:
        queue = self._queues.setdefault(_subject(request), JobQueue())
        queue.add(self._request_jobs.job_for(request), request)

    def _run_jobs(self, event: Input) -> None:
        super()._run_jobs(event)
        id = _subject(event)
        if id in self._queues and not self._queues[id].run(id):
            del self._queues[id]

    def _drop_jobs(self) -> list[ChildRequest]:
        queues, self._queues = list(self._queues.values()), {}
        return [request for queue in (self._queue, *queues) for request in queue.clear()]

    def _awaits(self, awaited: ChildState, child: ChildState) -> bool:
        return self.phase is SupervisorPhase.STOPPING  # else the children are independent of each other

    # ------------------------------------------------------------ exits
    def _keeps_spec(self, child: ChildState) -> bool:
        return False

    def _on_own_exit(self, child: ChildState) -> None:
        if child.needs_restart:
            self._restart(child)
        else:
            self._on_stays_down(child)

    def _on_stays_down(self, child: ChildState, *, in_job: bool = False) -> None:
        if child.given_up:
            self._given_up.add(child.spec.id)
        else:
            self.forget(child)

    def forget(self, child: ChildState) -> None:
        """Remove a child with its spec."""
        self._given_up.discard(child.spec.id)
        super().forget(child)

    def gone_for_good(self, down: set[str]) -> list[str]:
        """Return those that were given up: all others that are down are being restarted, or are forgotten already."""
        return [id for id in down & self._given_up if self.is_over(id)]

    @property
    def places_taken(self) -> int:
        """How many children count for `max_children`: all but those that were given up and are down (rule 53)."""
        return len(self.children) - sum(map(self.is_over, self._given_up))

    # ------------------------------------------------------------ the whole supervisor
    def _start_all(self) -> Job:
        yield from ()
        self._mark_running()

    def _stop_children(self) -> Job:
        """Stop all at once (rule 44), with one timer for all children that have the same time to stop."""
        children = list(self.children)
        for seconds in dict.fromkeys(map(self.actions.stop, children)):
            if seconds is not None:
                self.actions.set_timer_for_all("kill all", repr(seconds), seconds)
        for child in children:
            yield from self._await_exits((child,))

    def _on_timer(self, key: TimerKey) -> None:
        match key:
            case ("kill all", seconds, _):
                for child in self.children:
                    if child.phase is ChildPhase.STOPPING and repr(child.spec.shutdown) == seconds:
                        self._kill_late(child)
            case _:
                super()._on_timer(key)


class _DynamicRequestJobs(RequestJobs):
    """Requests to a dynamic supervisor: the number of children is limited, and only failed ones are kept when down."""

    advice_if_present = advice_if_not_at_rest = "terminate_child first"
    advice_if_running = (
        "a dynamic supervisor keeps only failed children: recall restarts it, terminate_child removes it"
    )

    def __init__(self, policy: DynamicPolicy, max_children: int | None) -> None:
        super().__init__(policy)
        self._dynamic = policy
        self._max_children = max_children

    def check(self, spec: Child) -> None:
        """Raise an error if this child may not be added (rules 50 and 53)."""
        if spec.significant:
            raise SpecError(
                f"DynamicSupervisor {self._policy.spec.name!r}: child {spec.id!r} is significant, but a dynamic "
                "supervisor does not end with its children; leave it out, or use a Supervisor (rule 50)"
            )
        super().check(spec)
        self._check_room()

    def _check_room(self) -> None:
        taken, path = self._dynamic.places_taken, self._policy.path
        if self._max_children is not None and taken >= self._max_children:
            has = f"{taken} {'child' if taken == 1 else 'children'}"
            raise MaxChildren(f"{path!r} has {has}, and max_children is {self._max_children} (rule 53)", path=path)

    def _restart_child(self, request: Any, id: str) -> Job:
        return self._revive(request, id, super()._restart_child(request, id))

    def _recall(self, request: Any, id: str) -> Job:
        return self._revive(request, id, super()._recall(request, id))

    def _revive(self, request: Any, id: str, job: Job) -> Job:
        """Carry out a job that may start a failed child, which takes a place again."""
        if id in self._children and self._policy.is_over(id):
            try:
                self._check_room()
            except MaxChildren as error:
                self._actions.refuse(request, error)
                return
        yield from job

    def answer_start(self, request: Any, child: ChildState) -> None:
        """Answer a request that has started a child again; if its start has failed, keep it only if it was given up."""
        super().answer_start(request, child)
        if child.phase is ChildPhase.STOPPED and not child.given_up:
            self._policy.forget(child)


def _subject(event: Input) -> str | None:
    """Return the id of the child whose jobs `event` may unblock."""
    match event:
        case Begin() | StopAll() | KillAll() | Ping() | Timer():
            return None
        case StartChild(_, child):
            return child.id
    return event.id
