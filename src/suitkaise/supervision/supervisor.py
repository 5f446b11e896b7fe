"""The supervisor actor: a Pykka actor that gives one executor its turns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pykka import ActorDeadError

from suitkaise.messaging.actors import Actor
from suitkaise.supervision.base import Phase
from suitkaise.supervision.executor import Executor
from suitkaise.supervision.steps import Input

__all__ = ["SupervisorActor", "employ"]


class SupervisorActor(Actor):
    """Its inbox takes what happens, from any thread; each message is one step. It ends with its supervisor."""

    def __init__(self, executor: Executor) -> None:
        super().__init__()
        self._executor = executor

    def on_receive(self, message: Any) -> None:
        """One step."""
        self._executor.step(message)
        if self._executor.policy.phase is Phase.ENDED:
            self.end()


def employ(executor: Executor) -> Callable[[Input], None]:
    """Start an actor for `executor`; returns how to reach it."""
    actor = SupervisorActor.launch(executor, thread_name=f"suitkaise-{executor.path}")

    def tell(event: Input) -> None:
        try:
            actor.tell(event)
        except ActorDeadError:  # it has ended; whoever asks it something still gets an answer
            request = getattr(event, "request", None)
            if request is not None:
                request.set_exception(executor.policy.stopping_error())

    return tell
