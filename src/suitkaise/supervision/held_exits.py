"""Holds back the exits by SIGTERM until it is known whether the program itself was asked to stop (rule 69).

A service manager sends SIGTERM to all processes of a program (systemd by default), and so does `kill -TERM -PGID`. A
worker may then end before the program has handled its own signal. If the policy learnt of that exit at once, it would
tell a crash and start the worker again, just to stop it. The policy has no clock, so the exit waits here: until the
policy orders the child to stop, in which case the exit is the answer to the order, as `shutdown` is in OTP; or else
for a moment, after which the exit is one like any other.
"""

from __future__ import annotations

from suitkaise.exits import by_sigterm
from suitkaise.policy.actions import Exited
from suitkaise.policy.base import BasePolicy, SupervisorPhase
from suitkaise.status import Status

__all__ = ["PAUSE", "HeldExits"]

PAUSE = 0.1
"""Seconds for which an exit by SIGTERM waits for the program to be asked to stop."""


class HeldExits:
    """The exits that the policy of one supervisor is not told yet. Only the thread of the supervisor's actor calls it.

    Args:
        policy: decides about the children.
        above: those of the supervisor above, which stops before this one does; None for a root.
    """

    def __init__(self, policy: BasePolicy, above: HeldExits | None) -> None:
        self._policy = policy
        self._above = above
        self._exits: dict[str, Exited] = {}

    def hold(self, event: Exited) -> bool:
        """Hold this exit back if SIGTERM has ended a child that is not being stopped; return whether it is held."""
        if not by_sigterm(event.reason):
            return False
        child = self._policy.child_info(event.id)
        if child is None or child.incarnation != event.incarnation or child.status is Status.STOPPING:
            return False
        self._exits[event.id] = event
        return True

    def due(self, id: str, incarnation: int) -> Exited | None:
        """Return the exit of this incarnation now that its time is over; None while it is held.

        While this supervisor or one above it stops, the exit is held until the child's turn to be stopped.
        """
        event = self._exits.get(id)
        if event is None or event.incarnation != incarnation or self._stop_is_under_way():
            return None
        return self._exits.pop(id)

    def release(self, id: str) -> Exited | None:
        """Return the exit of a child that has just been ordered to stop, if its exit is held."""
        return self._exits.pop(id, None)

    def _stop_is_under_way(self) -> bool:
        stops = self._policy.phase is SupervisorPhase.STOPPING
        return stops or (self._above is not None and self._above._stop_is_under_way())
