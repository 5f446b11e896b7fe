"""A driver that believes nothing: it looks at every action of the policy, and leaves the engine to the test."""

from __future__ import annotations

from dataclasses import dataclass, field

from suitkaise.errors import ChildStartFailed
from suitkaise.events import SupervisorStopping
from suitkaise.policy.actions import (
    Action,
    Exited,
    Ignored,
    Input,
    Kill,
    Recall,
    Refuse,
    Respond,
    RestartChild,
    Start,
    StartChild,
    Stop,
    TerminateChild,
)
from tests.policy.driver import Driver, Life

__all__ = ["Witness"]


@dataclass
class Witness(Driver):
    """Nothing is answered at once: `lives` are those that the policy must take for alive."""

    highest: dict[str, int] = field(default_factory=dict)
    excused: set[str] = field(default_factory=set)  # nobody has to start these again
    told_to_stay: set[str] = field(default_factory=set)
    halted: bool = False

    def __post_init__(self) -> None:
        self.requests: dict[int, Input] = {}
        super().__post_init__()

    @property
    def stopping(self) -> bool:
        return bool(self.events_of(SupervisorStopping))

    @property
    def in_groups(self) -> bool:
        return self.spec.strategy != "one_for_one"

    def handle(self, event: Input) -> list[Action]:
        order, was_stopping = list(self.statuses()), self.stopping
        if isinstance(event, Ignored | Exited) and self._is(event):
            del self.lives[event.id]
        actions = super().handle(event)
        for action in actions:
            match action:
                case Start():
                    assert not was_stopping, f"{action} while it stops"
                case Stop(id) | Kill(id, _, "brutal_kill") if self.stopping and not self.halted:
                    later = order[order.index(id) + 1 :] if id in order else []
                    assert not set(later) & set(self.lives), f"{action}, but one after it is not gone: {later}"
                case Respond(request) | Refuse(request):
                    self._excuse(self.requests[request], action)
        return actions

    def _is(self, event: Ignored | Exited) -> bool:
        life = self.lives.get(event.id)
        return life is not None and life.incarnation == event.incarnation

    def _excuse(self, request: Input, answer: Respond | Refuse) -> None:
        """Whom a request allows to stay down, at the moment when it is answered."""
        down = {id for id in self.statuses() if id not in self.lives}
        match request, answer:
            case (TerminateChild(_, id), Respond()) | (Recall(_, id), Respond()):
                self.excused |= (down if self.in_groups else {id}) & down
            case (RestartChild(_, id) | Recall(_, id), Refuse(_, ChildStartFailed())):
                self.excused |= (down if self.in_groups else {id}) & down

    def _asked_to_start(self, id: str) -> bool:
        waiting = [request for number, request in self.requests.items() if number not in self.answers]
        return any(
            (isinstance(request, RestartChild | Recall) and request.id == id)
            or (isinstance(request, StartChild) and request.child.id == id)
            for request in waiting
        )

    def _carry_out(self, action: Action) -> None:
        if isinstance(action, Start):
            id, number = action.child.id, action.incarnation
            assert number > self.highest.get(id, 0), f"a number is used twice: {action}"
            self.highest[id] = number
            self.excused.discard(id)
            if not self.in_groups and id in self.told_to_stay:
                assert self._asked_to_start(id), f"it was told to stay down: {action}"
                self.told_to_stay.discard(id)
        elif isinstance(action, Stop | Kill):
            life = self.lives.get(action.id)
            assert life is not None, f"nobody of that name is alive: {action}"
            assert life.incarnation == action.incarnation, f"an incarnation that is over: {action}"
        elif isinstance(action, Respond):
            request = self.requests[action.request]
            if isinstance(request, TerminateChild):
                self.told_to_stay.add(request.id)
        super()._carry_out(action)

    def on_start(self, life: Life) -> None: ...

    def on_stop(self, life: Life) -> None: ...

    def on_kill(self, life: Life) -> None: ...
