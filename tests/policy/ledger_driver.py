"""Runs a policy whose every action a ledger checks, and leaves the engine to the test."""

from __future__ import annotations

from dataclasses import dataclass

from suitkaise.events import EndEvent
from suitkaise.policy.actions import Action, Exited, Ignored, Input, Kill, Publish, Ready, Refuse, Respond, Start, Stop
from suitkaise.workers.incarnation import Recalled
from tests.policy.driver import Driver, Instance
from tests.testing.ledger import Ledger

__all__ = ["LedgerDriver"]


class _LedgerWithoutReports(Ledger):
    """Crash reports are written by the executor, which is not here."""

    def _check_report(self, event: EndEvent) -> None: ...


@dataclass
class LedgerDriver(Driver):
    """Answers nothing by itself. `instances` holds the incarnations whose exit the policy has not handled."""

    def __post_init__(self) -> None:
        self.requests: dict[int, Input] = {}
        self.faults: list[str] = []
        super().__post_init__()
        self.ledger = _LedgerWithoutReports(
            self.spec.name, self.spec, self.policy, lambda: self.now, self.faults.append
        )

    def handle(self, event: Input) -> list[Action]:
        if isinstance(event, Ready | Ignored | Exited) and not self._is_current(event):
            assert self.policy.handle(event, self.now) == [], f"{event} is about an incarnation that has ended"
            return []
        if isinstance(event, Ignored | Exited):
            del self.instances[event.id]
        self.ledger.handle(event)
        actions = super().handle(event)
        self.ledger.after(self.ended is not None)
        self.check()
        return actions

    def check(self) -> None:
        assert not self.faults, self.faults[0]

    def _is_current(self, event: Ready | Ignored | Exited) -> bool:
        instance = self.instances.get(event.id)
        return instance is not None and instance.incarnation == event.incarnation

    def _carry_out(self, action: Action) -> None:
        super()._carry_out(action)
        match action:
            case Start(spec, incarnation, previous):
                recalled = None
                if previous is not None:
                    recalled = Recalled(previous.restarts, previous.reason, self.now - previous.ended_at)
                self.ledger.launch(spec, incarnation, recalled)
            case Stop(id, incarnation) | Kill(id, incarnation):
                assert id in self.instances, f"{action}, but no incarnation is alive"
                assert self.instances[id].incarnation == incarnation, f"{action} is about an incarnation that has ended"
                if isinstance(action, Kill):
                    self.ledger.kill(id, action.why)
                else:
                    self.ledger.stop(id)
            case Publish(event):
                self.ledger.publish(event)
            case Respond(request):
                self.ledger.answered(request, "ok")
            case Refuse(request, error):
                self.ledger.answered(request, type(error).__name__)

    def on_start(self, instance: Instance) -> None: ...

    def on_stop(self, instance: Instance) -> None: ...

    def on_kill(self, instance: Instance) -> None: ...
