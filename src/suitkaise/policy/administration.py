"""How a supervisor serves requests about its children: rules 8-19, one job for each request."""

from __future__ import annotations

from typing import Any

from suitkaise.errors import (
    ChildAlreadyPresent,
    ChildAlreadyStarted,
    ChildRestarting,
    ChildRunning,
    MaxChildren,
    SpecError,
)
from suitkaise.policy.actions import ChildRequest, DeleteChild, Recall, RestartChild, StartChild, TerminateChild
from suitkaise.policy.base import BasePolicy
from suitkaise.policy.children import ChildPhase, ChildState, start_error
from suitkaise.policy.jobs import Job
from suitkaise.specs import Child, check_children

__all__ = ["RequestJobs"]


class RequestJobs:
    """Makes the jobs that serve requests. The jobs change children through the policy."""

    advice_if_present = "use restart_child, or delete_child first"
    advice_if_not_at_rest = "terminate_child and delete_child first"
    advice_if_running = "terminate_child first"

    def __init__(self, policy: BasePolicy) -> None:
        self._policy = policy
        self._children = policy.children
        self._actions = policy.actions

    def job_for(self, request: ChildRequest) -> Job:
        """Return the job that serves a request."""
        match request:
            case StartChild(answer, child):
                return self._start_child(answer, child)
            case TerminateChild(answer, id):
                return self._terminate_child(answer, id)
            case RestartChild(answer, id):
                return self._restart_child(answer, id)
            case DeleteChild(answer, id):
                return self._delete_child(answer, id)
            case Recall(answer, id, None):
                return self._recall(answer, id)
            case Recall(answer, id, incarnation):
                return self._recycle(answer, id, incarnation)

    # ------------------------------------------------------------ the jobs
    def _start_child(self, request: Any, spec: Child) -> Job:
        try:
            self.check(spec)
        except (ChildAlreadyStarted, ChildAlreadyPresent, MaxChildren, SpecError) as error:
            self._actions.refuse(request, error)
            return
        child = self._children.add(spec)
        yield from self._policy.start(child)
        if child.phase is ChildPhase.STOPPED:
            self._policy.forget(child)
            self._refuse_start(request, child)
        else:
            self._actions.respond(request, spec.id)

    def _terminate_child(self, request: Any, id: str) -> Job:
        child = self._children.get(id)
        if child is None:
            self._actions.refuse(request, self._children.not_found(id))
            return
        child.stopped_on_request = True
        self._policy.cancel_retry(child)
        child.in_group_restart = False
        yield from self._policy.stop(child)
        self._actions.respond(request)

    def _restart_child(self, request: Any, id: str) -> Job:
        child = self._find_at_rest(request, id)
        if child is not None:
            yield from self._policy.start(child)
            self.answer_start(request, child)

    def _delete_child(self, request: Any, id: str) -> Job:
        yield from ()
        child = self._find_at_rest(request, id)
        if child is not None:
            self._policy.forget(child)
            self._actions.respond(request)

    def _recall(self, request: Any, id: str) -> Job:
        child = self._children.get(id)
        if child is None:
            self._actions.refuse(request, self._children.not_found(id))
            return
        was_up = child.phase in (ChildPhase.RUNNING, ChildPhase.STARTING, ChildPhase.RESTARTING, ChildPhase.EXITED)
        if was_up:
            self._policy.cancel_retry(child)
            yield from self._policy.stop(child, for_good=False)
        yield from self._policy.start(child)
        if child.phase is ChildPhase.STOPPED and was_up and child.needs_restart:
            self._refuse_start(request, child)
            self._policy.retry_later(child)  # as after a crash: nobody has asked for its end (rule 80)
        else:
            self.answer_start(request, child)

    def _recycle(self, request: Any, id: str, incarnation: int | None) -> Job:
        child = self._children.get(id)
        if child is not None and child.incarnation == incarnation and child.phase is ChildPhase.RUNNING:
            yield from self._recall(request, id)
        else:
            self._actions.respond(request)

    # ------------------------------------------------------------ their parts
    def check(self, spec: Child) -> None:
        """Raise an error if this child may not be added."""
        supervisor = self._policy.spec
        check_children(f"Supervisor {supervisor.name!r}", (spec,), supervisor.auto_shutdown, supervisor.strategy)
        known = self._children.get(spec.id)
        if known is None:
            return
        path = self._policy.path_of(known)
        if known.phase is ChildPhase.RUNNING:
            raise ChildAlreadyStarted(f"{path!r} is running already", path=path)
        at_rest = known.phase in (ChildPhase.STOPPED, ChildPhase.IGNORED)
        advice = self.advice_if_present if at_rest else self.advice_if_not_at_rest
        raise ChildAlreadyPresent(f"{path!r} is there already, but {known.status}; {advice}", path=path)

    def _find_at_rest(self, request: Any, id: str) -> ChildState | None:
        """Return the child if it is stopped; else refuse the request (rules 17 and 19)."""
        child = self._children.get(id)
        if child is not None and child.phase in (ChildPhase.STOPPED, ChildPhase.IGNORED):
            return child
        if child is None:
            error: Exception = self._children.not_found(id)
        else:
            path, advice = self._policy.path_of(child), self.advice_if_running
            if child.phase is ChildPhase.RUNNING:
                error = ChildRunning(f"{path!r} is running; {advice}", path=path)
            else:
                error = ChildRestarting(f"{path!r} is being restarted; {advice}", path=path)
        self._actions.refuse(request, error)
        return None

    def answer_start(self, request: Any, child: ChildState) -> None:
        """Answer a request that has started a child again."""
        if child.phase is ChildPhase.STOPPED:
            self._refuse_start(request, child)
        else:
            self._actions.respond(request, child.spec.id)

    def _refuse_start(self, request: Any, child: ChildState) -> None:
        self._actions.refuse(request, start_error(self._policy.failure_of(child)))
