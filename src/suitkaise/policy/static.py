"""The pure policy of one supervisor: what happens goes in, what is to be done comes out.

No clock, no thread, no I/O: time is an argument, and the same inputs always give the same actions. What takes
several steps (stop these in reverse order, then start those in order) is a job. Jobs run one at a time, in the
order they came; under `one_for_one` a restart is no job, so children come back independently of each other.
Rule numbers are those of the supervision reference.
"""

from __future__ import annotations

from suitkaise.exits import Shutdown
from suitkaise.policy.administration import AdministeredPolicy
from suitkaise.policy.base import SupervisorPhase
from suitkaise.policy.children import ChildPhase, ChildState
from suitkaise.policy.jobs import Job

__all__ = ["Policy"]


class Policy(AdministeredPolicy):
    """The decisions of a `Supervisor`: its children have an order, and a strategy.

    >>> from suitkaise import Child, Supervisor
    >>> from suitkaise.policy.actions import Begin
    >>> def work() -> None: ...
    >>> policy = Policy(Supervisor("app", Child(work)), "app")
    >>> [type(action).__name__ for action in policy.handle(Begin(), now=0.0)]
    ['Start']
    """

    # ------------------------------------------------------------ exits and restarts (rules 23-38)
    def _keeps_spec(self, child: ChildState) -> bool:
        return not child.temporary

    def _on_down(self, child: ChildState) -> None:
        if self.phase is SupervisorPhase.RUNNING and self.spec.strategy == "one_for_one":
            self._after_exit(child)
        else:
            self._line.add(self._exit_job(child, child.incarnation))

    def _exit_job(self, child: ChildState, incarnation: int) -> Job:
        yield from ()
        if child.at is ChildPhase.EXITED and child.incarnation == incarnation:
            self._after_exit(child, in_turn=True)

    def _after_exit(self, child: ChildState, *, in_turn: bool = False) -> None:
        if child.comes_back:
            self._restart(child)
            return
        child.at = ChildPhase.STOPPED
        if not self._keeps_spec(child):
            self._remove(child)
        self._auto_shutdown(child, in_turn)

    def _restart_now(self, child: ChildState, delay: float) -> None:
        if self.spec.strategy == "one_for_one":
            super()._restart_now(child, delay)
        else:
            self._line.add_first(self._restart_group(child, delay))

    def _retry(self, child: ChildState) -> None:
        if self.spec.strategy == "one_for_one":
            super()._retry(child)
        else:
            self._line.add(self._retry_job(child, child.incarnation))

    def _retry_job(self, child: ChildState, number: int) -> Job:
        if child.retry_pending(number) and (child.retry_counted or self._count_restart(child)):
            yield from self._restart_group(child, delay=0.0)

    def _restart_group(self, child: ChildState, delay: float) -> Job:
        group = list(self._children.values())
        if self.spec.strategy == "rest_for_one":
            group = group[group.index(child) :]
        for member in reversed(group):
            if member is not child:
                member.in_group_restart = True
                yield from self._stop(member)
        if delay:
            self._wait_for_retry(child, delay, retry_counted=True)
            return
        child.at, child.in_group_restart = ChildPhase.STOPPED, True  # its turn may not come, if an earlier one fails
        for member in group:
            if member.spec.id not in self._children:
                continue  # a temporary one (rule 27)
            yield from self._start_in_job(member)
            if member.at is ChildPhase.STOPPED:
                self._try_later(member)
                return

    def _cancel_retry(self, child: ChildState) -> None:
        """The pending restart of its group goes with it: the others stay down (rules 16 and 38)."""
        if child.at is ChildPhase.RESTARTING:
            for member in self._children.values():
                member.in_group_restart = False

    # ------------------------------------------------------------ the whole supervisor
    def _start_all(self) -> Job:
        for child in list(self._children.values()):
            yield from self._start_in_job(child)
            if child.at is ChildPhase.STOPPED:
                self._shut_down(Shutdown(self._failure(child)))
                return
        self._mark_running()

    def _stop_children(self) -> Job:
        for child in reversed(list(self._children.values())):
            yield from self._stop(child)

    def _auto_shutdown(self, child: ChildState, in_turn: bool) -> None:
        """Rules 47-49; `child` has just ended by itself and stays so. `in_turn`: no request came before that."""
        if not child.spec.significant or self.spec.auto_shutdown == "never":
            return
        reason = Shutdown(f"auto-shutdown: {child.spec.id!r} has ended")
        if self.spec.auto_shutdown == "any_significant":
            self._shut_down(reason)
        elif in_turn:
            self._line.add_first(self._shut_down_after(child, child.incarnation, reason))
        else:  # requests that came before may be starting or stopping another one
            self._line.add(self._shut_down_after(child, child.incarnation, reason))

    def _shut_down_after(self, ended: ChildState, incarnation: int, reason: Shutdown) -> Job:
        """Unless a significant child is active, or it is down by now because of a request (rule 15)."""
        significant = [child for child in self._children.values() if child.spec.significant]
        by_itself = ended.incarnation == incarnation and not ended.stopped_on_request
        if by_itself and all(child.at in (ChildPhase.STOPPED, ChildPhase.IGNORED) for child in significant):
            self._shut_down(reason)
        yield from ()
