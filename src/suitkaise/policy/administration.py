"""How a supervisor serves those who administer it: rules 8-19, one job a request."""

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
from suitkaise.policy.actions import (
    ChildRequest,
    DeleteChild,
    Recall,
    Refuse,
    Respond,
    RestartChild,
    StartChild,
    TerminateChild,
)
from suitkaise.policy.base import BasePolicy
from suitkaise.policy.children import ChildPhase, ChildState, start_error
from suitkaise.policy.jobs import Job
from suitkaise.specs import Child, check_children

__all__ = ["AdministeredPolicy"]


class AdministeredPolicy(BasePolicy):
    """A policy that serves requests."""

    _if_present = "use restart_child, or delete_child first"
    _if_running = "terminate_child first"

    def _job_for(self, request: ChildRequest) -> Job:
        match request:
            case StartChild(_, child):
                return self._start_child(request.request, child)
            case TerminateChild(_, id):
                return self._terminate_child(request.request, id)
            case RestartChild(_, id):
                return self._restart_child(request.request, id)
            case DeleteChild(_, id):
                return self._delete_child(request.request, id)
            case Recall(_, id):
                return self._recall(request.request, id)

    def _serve(self, request: ChildRequest) -> None:
        self._line.add(self._job_for(request), request)

    def _check(self, spec: Child) -> None:
        """Raise what speaks against a new child."""
        check_children(f"Supervisor {self.spec.name!r}", (spec,), self.spec.auto_shutdown)
        known = self._children.get(spec.id)
        if known is not None and known.at is ChildPhase.RUNNING:
            raise ChildAlreadyStarted(f"{self._path(known)!r} is running already", path=self._path(known))
        if known is not None:
            raise ChildAlreadyPresent(
                f"{self._path(known)!r} is there already, but {known.status}; {self._if_present}",
                path=self._path(known),
            )

    def _start_child(self, request: Any, spec: Child) -> Job:
        try:
            self._check(spec)
        except (ChildAlreadyStarted, ChildAlreadyPresent, MaxChildren, SpecError) as error:
            self._out.append(Refuse(request, error))
            return
        # It numbers its incarnations on from where those of removed children ended: what is still under way for
        # an earlier child of this id (an exit, a timer) must not meet it.
        child = self._children[spec.id] = ChildState(spec, incarnation=self._retired, before=self._retired)
        yield from self._start_in_job(child)
        if child.at is ChildPhase.STOPPED:
            self._remove(child)
            self._refuse_start(request, child)
        else:
            self._out.append(Respond(request, spec.id))

    def _terminate_child(self, request: Any, id: str) -> Job:
        child = self._children.get(id)
        if child is None:
            self._out.append(Refuse(request, self.not_found(id)))
            return
        child.stopped_on_request = True
        self._cancel_retry(child)
        child.in_group_restart = False
        yield from self._stop(child)
        self._out.append(Respond(request))

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
            self._out.append(Respond(request))

    def _recall(self, request: Any, id: str) -> Job:
        child = self._children.get(id)
        if child is None:
            self._out.append(Refuse(request, self.not_found(id)))
            return
        if child.at in (ChildPhase.RUNNING, ChildPhase.STARTING, ChildPhase.RESTARTING, ChildPhase.EXITED):
            self._cancel_retry(child)
            yield from self._stop(child, for_good=False)
        yield from self._start_in_job(child)
        self._reply_started(request, child)

    def _cancel_retry(self, child: ChildState) -> None:
        """A request puts an end to the pending restart of this child."""

    def _at_rest(self, request: Any, id: str) -> ChildState | None:
        """The child if it is stopped; else the request is refused (rules 17 and 19)."""
        child = self._children.get(id)
        if child is not None and child.at in (ChildPhase.STOPPED, ChildPhase.IGNORED):
            return child
        if child is None:
            error: Exception = self.not_found(id)
        elif child.at is ChildPhase.RUNNING:
            error = ChildRunning(f"{self._path(child)!r} is running; {self._if_running}", path=self._path(child))
        else:
            error = ChildRestarting(
                f"{self._path(child)!r} is being restarted; {self._if_running}", path=self._path(child)
            )
        self._out.append(Refuse(request, error))
        return None

    def _reply_started(self, request: Any, child: ChildState) -> None:
        if child.at is ChildPhase.STOPPED:
            self._refuse_start(request, child)
        else:
            self._out.append(Respond(request, child.spec.id))

    def _refuse_start(self, request: Any, child: ChildState) -> None:
        self._out.append(Refuse(request, start_error(self._failure(child))))
