"""The policy of a `Supervisor`: its children have an order, and its strategy restarts some of them together.

The `copies` of one child are one position in that order: they start and stop at the same time (rule 82).

What takes several steps (stop these in reverse order, then start those in order) is a job. Jobs run one at a time, in
order. Where a restart concerns one child alone it is no job, so children are restarted independently of each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import groupby

from suitkaise.exits import Shutdown, SignificantFailure, origin
from suitkaise.policy.actions import ChildRequest
from suitkaise.policy.administration import RequestJobs
from suitkaise.policy.base import BasePolicy, SupervisorPhase
from suitkaise.policy.children import ChildPhase, ChildState
from suitkaise.policy.jobs import Job
from suitkaise.policy.strategy import restarted_together, restarts_alone
from suitkaise.specs import SupervisorSpec

__all__ = ["StaticPolicy"]


class StaticPolicy(BasePolicy):
    """The decisions of a `Supervisor`.

    >>> from suitkaise import Child, Supervisor
    >>> from suitkaise.policy.actions import Begin
    >>> def work() -> None: ...
    >>> policy = StaticPolicy(Supervisor("app", Child(work)), "app")
    >>> [type(action).__name__ for action in policy.handle(Begin(), now=0.0)]
    ['Start']
    """

    def __init__(self, spec: SupervisorSpec, path: str, chance: Callable[[], float] | None = None) -> None:
        super().__init__(spec, path, chance)
        self._request_jobs = RequestJobs(self)
        self._one_by_one = restarts_alone(spec.strategy)
        self._failures: dict[str, SignificantFailure] = {}  # of significant children that ended and were not restarted

    def _serve(self, request: ChildRequest) -> None:
        self._queue.add(self._request_jobs.job_for(request), request)

    def restarted_with(self, id: str) -> tuple[str, ...]:
        """Return the ids of the siblings that a restart of this child restarts, too (rules 31-33).

        Temporary ones are stopped with the group but not started again (rule 27).
        """
        child = self.children.find(id)
        return tuple(one.spec.id for one in self._group_of(child) if one is not child and not one.temporary)

    def _group_of(self, child: ChildState) -> list[ChildState]:
        return restarted_together(self.spec.strategy, child, self.children)

    @staticmethod
    def _positions(children: Iterable[ChildState]) -> list[list[ChildState]]:
        """Return the children by their position in the order of this supervisor (rule 82)."""
        return [list(ones) for _, ones in groupby(children, lambda child: child.position)]

    def _awaits(self, awaited: ChildState, child: ChildState) -> bool:
        alone = self._one_by_one and self.phase is SupervisorPhase.RUNNING  # such a restart is no job
        restarts = child.phase in (ChildPhase.EXITED, ChildPhase.RESTARTING)
        return self._queue.awaited.get(awaited.spec.id) is awaited and not (alone and restarts)

    # ------------------------------------------------------------ exits and restarts (rules 23-38)
    def _keeps_spec(self, child: ChildState) -> bool:
        return not child.temporary

    def _on_own_exit(self, child: ChildState) -> None:
        if self.phase is SupervisorPhase.RUNNING and self._one_by_one:
            self._after_exit(child)
        else:
            self._queue.add(self._exit_job(child, child.incarnation))

    def _exit_job(self, child: ChildState, incarnation: int) -> Job:
        yield from ()
        if child.phase is ChildPhase.EXITED and child.incarnation == incarnation:
            self._after_exit(child, in_job=True)

    def _after_exit(self, child: ChildState, *, in_job: bool = False) -> None:
        if child.needs_restart:
            self._restart(child)
            return
        child.phase = ChildPhase.STOPPED
        self._on_stays_down(child, in_job=in_job)

    def _on_stays_down(self, child: ChildState, *, in_job: bool = False) -> None:
        if not self._keeps_spec(child):
            self.forget(child)
        self._auto_shutdown(child, in_job)

    def _restart_now(self, child: ChildState, delay: float) -> None:
        if self._one_by_one:
            super()._restart_now(child, delay)
        else:
            self._queue.add_first(self._restart_group(child, delay))

    def _retry(self, child: ChildState) -> None:
        if self._one_by_one:
            super()._retry(child)
        else:
            self._queue.add(self._retry_job(child, child.incarnation))

    def _retry_job(self, child: ChildState, number: int) -> Job:
        if child.retry_pending(number) and (child.retry_counted or self._count_restart(child)):
            yield from self._restart_group(child, delay=0.0)

    def _restart_group(self, child: ChildState, delay: float) -> Job:
        """Stop the group of a child in reverse order, then start it in order; with a delay, start it later."""
        group = self._positions(self._group_of(child))
        for position in reversed(group):
            others = [member for member in reversed(position) if member is not child]
            yield from self._stop_for_restart(others)
        if delay:
            self._wait_for_retry(child, delay, retry_counted=True)
            return
        child.phase, child.in_group_restart = ChildPhase.STOPPED, True  # an earlier member may fail to start
        for position in group:
            # without temporary children, which were forgotten, and are not started again (rule 27)
            members = [member for member in position if member.spec.id in self.children]
            failed = yield from self.start(*members)
            if failed is not None:
                self.retry_later(failed)
                yield from self._stop_for_restart([member for member in reversed(members) if member is not failed])
                return

    def _stop_for_restart(self, members: Sequence[ChildState]) -> Job:
        """Stop children at the same time that a restart of their group starts again."""
        for member in members:
            member.in_group_restart = True
        yield from self.stop(*members)

    def cancel_retry(self, child: ChildState) -> None:
        """Cancel the pending restart of the child's group: the other members stay down (rules 16 and 38)."""
        if child.phase is ChildPhase.RESTARTING:
            for member in self.children:
                member.in_group_restart = False

    # ------------------------------------------------------------ the whole supervisor
    def _start_all(self) -> Job:
        for position in self._positions(self.children):
            failed = yield from self.start(*position)
            if failed is not None:
                self._shut_down(Shutdown(self.failure_of(failed)))
                return
        self._mark_running()

    def _stop_children(self) -> Job:
        for position in reversed(self._positions(self.children)):
            yield from self.stop(*reversed(position))

    def _auto_shutdown(self, child: ChildState, in_job: bool) -> None:
        """Shut down if the end of `child` calls for it (rules 47-49).

        `in_job`: the requests that came before that end have been served. Otherwise one of them may be starting or
        stopping another significant child, and the decision waits for them.
        """
        if not child.spec.significant or self.spec.auto_shutdown == "never":
            return
        reason = Shutdown(self._why_shut_down(child))
        if self.spec.auto_shutdown == "any_significant":
            self._shut_down(reason)
        elif in_job:
            self._queue.add_first(self._shut_down_after(child, child.incarnation, reason))
        else:
            self._queue.add(self._shut_down_after(child, child.incarnation, reason))

    def _why_shut_down(self, ended: ChildState) -> SignificantFailure | str:
        """Return why the end of `ended` shuts the supervisor down: a failure, its own or an earlier one (rule 71)."""
        id, reason = ended.spec.id, ended.last_exit
        assert reason is not None
        if origin(reason)[1].clean:
            self._failures.pop(id, None)
        else:
            self._failures[id] = SignificantFailure(self.path_of(ended), reason)
        failures = list(self._failures.values())
        return self._failures.get(id) or (failures[0] if failures else f"auto-shutdown: {id!r} has ended")

    def _shut_down_after(self, ended: ChildState, incarnation: int, reason: Shutdown) -> Job:
        """Shut down unless a significant child is active, or a request has stopped `ended` meanwhile (rule 15)."""
        significant = [child for child in self.children if child.spec.significant]
        by_itself = ended.incarnation == incarnation and not ended.stopped_on_request
        if by_itself and all(child.phase in (ChildPhase.STOPPED, ChildPhase.IGNORED) for child in significant):
            self._shut_down(reason)
        yield from ()
