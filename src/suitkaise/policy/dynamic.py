"""The pure policy of a dynamic supervisor: children without order, each in a line of its own.

Requests about one child are served in the order they came; those about different children do not wait for each
other. A child that is down for good is forgotten, so nothing here ever looks at all children but the end (rule 54).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

from suitkaise.errors import MaxChildren, SpecError
from suitkaise.policy.actions import (
    Action,
    Begin,
    ChildRequest,
    Input,
    KillAll,
    SetTimer,
    StartChild,
    StopAll,
    Timer,
    TimerKey,
)
from suitkaise.policy.administration import AdministeredPolicy
from suitkaise.policy.base import BasePolicy
from suitkaise.policy.children import ChildPhase, ChildState
from suitkaise.policy.jobs import Job, JobQueue
from suitkaise.specs import Child, SupervisorSpec
from suitkaise.specs.supervisor import DynamicSupervisorSpec

__all__ = ["DynamicPolicy"]


class DynamicPolicy(AdministeredPolicy):
    """The decisions of a `DynamicSupervisor`.

    >>> def work() -> None: ...
    >>> policy = DynamicPolicy(DynamicSupervisorSpec("pool"), "pool")
    >>> [type(action).__name__ for action in policy.handle(Begin(), now=0.0)]
    ['Publish', 'Started']
    >>> policy.handle(StartChild("request", Child(work)), now=0.0)[0].child.id
    'work-1'
    """

    _if_present = "terminate_child first"
    _if_running = "a dynamic supervisor has no stopped children: recall restarts it, terminate_child removes it"

    def __init__(self, spec: SupervisorSpec, path: str, chance: Callable[[], float] | None = None) -> None:
        assert isinstance(spec, DynamicSupervisorSpec)
        super().__init__(spec, path, chance)
        self._most = spec.max_children
        self._lines: dict[str | None, JobQueue] = {}
        self._numbers = itertools.count(1)

    # ------------------------------------------------------------ ids
    def named(self, child: Child) -> Child:
        """A child that nobody has given an id gets a number; no number is used again."""
        if child.id_given:
            return child
        id = next(name for number in self._numbers if (name := f"{child.id}-{number}") not in self._children)
        return child.renamed(id)

    def inherit(self, before: BasePolicy) -> None:
        """The numbers go on, so that no ref to an earlier child comes to mean another one."""
        assert isinstance(before, DynamicPolicy)
        self._numbers = before._numbers

    # ------------------------------------------------------------ one line a child
    def handle(self, event: Input, now: float) -> list[Action]:
        """See `BasePolicy.handle`."""
        if isinstance(event, StartChild):
            event = StartChild(event.request, self.named(event.child))
        return super().handle(event, now)

    def _serve(self, request: ChildRequest) -> None:
        self._lines.setdefault(_subject(request), JobQueue()).add(self._job_for(request), request)

    def _advance(self, event: Input) -> None:
        super()._advance(event)
        id = _subject(event)
        if id in self._lines and not self._lines[id].advance():
            del self._lines[id]

    def _give_up_jobs(self) -> list[ChildRequest]:
        lines, self._lines = list(self._lines.values()), {}
        return [request for line in (self._line, *lines) for request in line.clear()]

    # ------------------------------------------------------------ what becomes of a child
    def _check(self, spec: Child) -> None:
        if spec.significant:
            raise SpecError(
                f"DynamicSupervisor {self.spec.name!r}: child {spec.id!r} is significant, but a dynamic supervisor "
                "does not end with its children; leave it out, or use a Supervisor (rule 50)"
            )
        super()._check(spec)
        if self._most is not None and len(self._children) >= self._most:
            raise MaxChildren(
                f"{self.path!r} has {len(self._children)} children, and max_children is {self._most} (rule 53)",
                path=self.path,
            )

    def _keeps_spec(self, child: ChildState) -> bool:
        return False

    def _on_down(self, child: ChildState) -> None:
        if child.comes_back:
            self._restart(child)
        else:
            self._remove(child)

    def _reply_started(self, request: object, child: ChildState) -> None:
        super()._reply_started(request, child)
        if child.at is ChildPhase.STOPPED:
            self._remove(child)

    def gone_for_good(self, down: set[str]) -> list[str]:
        """None: those that are down are being restarted, the others are forgotten already."""
        return []

    # ------------------------------------------------------------ the whole supervisor
    def _start_all(self) -> Job:
        yield from ()
        self._mark_running()

    def _stop_children(self) -> Job:
        """All at once (rule 44), with one timer for all that have the same time to stop."""
        children = list(self._children.values())
        for seconds in dict.fromkeys(map(self._ask_to_stop, children)):
            if seconds is not None:
                self._out.append(SetTimer(("kill all", repr(seconds), 0), self._now + seconds))
        for child in children:
            yield from self._await_exit(child)

    def _on_time(self, key: TimerKey) -> None:
        match key:
            case ("kill all", seconds, _):
                for child in self._children.values():
                    if child.at is ChildPhase.STOPPING and repr(child.spec.shutdown) == seconds:
                        self._kill_late(child)
            case _:
                super()._on_time(key)


def _subject(event: Input) -> str | None:
    """The child whose line `event` may set going."""
    match event:
        case Begin() | StopAll() | KillAll() | Timer():
            return None
        case StartChild(_, child):
            return child.id
    return event.id
