"""Collects the actions with which a policy answers one event."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from suitkaise.events import Event
from suitkaise.exits import ExitReason
from suitkaise.policy.actions import (
    Action,
    Kill,
    Previous,
    Publish,
    Refuse,
    Removed,
    Respond,
    SetTimer,
    Start,
    Started,
    Stop,
    Terminated,
)
from suitkaise.policy.children import ChildPhase, ChildState

__all__ = ["ActionList"]


class ActionList:
    """The actions of one supervisor so far, in order. What an action means for the phase of a child is noted with it.

    `now` is the time of the event, in seconds (monotonic).
    """

    def __init__(self, path: str) -> None:
        self.now: float = 0.0
        self._path = path
        self._actions: list[Action] = []

    def take(self) -> list[Action]:
        """Return the actions so far and begin a new list."""
        actions, self._actions = self._actions, []
        return actions

    # ------------------------------------------------------------ children
    def start(self, child: ChildState, *, restarts_alone: bool = False) -> None:
        """Start a new incarnation of a child."""
        previous = Previous(child.starts, child.last_exit, child.ended_at) if child.starts else None
        child.incarnation += 1
        child.ready_at, child.ordered_at = None, self.now
        child.phase, child.restarts_alone, child.in_group_restart = ChildPhase.STARTING, restarts_alone, False
        self._actions.append(Start(child.spec, child.incarnation, previous))

    def stop(self, child: ChildState) -> float | None:
        """Begin to stop a child if it is alive; return the seconds after which it is to be killed, if at all."""
        if child.phase not in (ChildPhase.RUNNING, ChildPhase.STARTING):
            return None
        child.phase = ChildPhase.STOPPING
        shutdown = child.spec.shutdown
        if shutdown == "brutal_kill":
            self.kill(child, "brutal_kill")
            return None
        self._actions.append(Stop(child.spec.id, child.incarnation))
        return None if isinstance(shutdown, str) else shutdown

    def kill(self, child: ChildState, why: str) -> None:
        """Kill a child."""
        child.phase = ChildPhase.STOPPING
        self._actions.append(Kill(child.spec.id, child.incarnation, why))

    def set_timer(self, what: str, child: ChildState, delay: float) -> None:
        """Ask for a timer about this incarnation of a child, `delay` seconds from now."""
        self._actions.append(SetTimer((what, child.spec.id, child.incarnation), self.now + delay))

    def set_timer_for_all(self, what: str, about: str, delay: float) -> None:
        """Ask for a timer that is not about a single child, `delay` seconds from now."""
        self._actions.append(SetTimer((what, about, 0), self.now + delay))

    def removed(self, child: ChildState) -> None:
        """Report that a child was removed with its spec."""
        self._actions.append(Removed(child.spec.id, child.status_at_rest))

    # ------------------------------------------------------------ requests
    def respond(self, request: Any, value: Any = None) -> None:
        """Answer a request."""
        self._actions.append(Respond(request, value))

    def refuse(self, request: Any, error: Exception) -> None:
        """Answer a request with an error."""
        self._actions.append(Refuse(request, error))

    # ------------------------------------------------------------ the supervisor
    def started(self) -> None:
        """Report that the supervisor is running."""
        self._actions.append(Started())

    def terminated(self, reason: ExitReason) -> None:
        """Report that the supervisor has ended."""
        self._actions.append(Terminated(reason))

    def publish(self, event: Callable[..., Event], about: ChildState | None = None, /, **fields: Any) -> None:
        """Publish an event about a child, or about the supervisor itself."""
        path = self._path if about is None else f"{self._path}/{about.spec.id}"
        self._actions.append(Publish(event(path, self.now, **fields)))
