"""The supervisor actor: a Pykka actor that drives the executor of one supervisor."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any

from suitkaise.messaging.actor import Actor, drain, envelope
from suitkaise.messaging.answer import Answer
from suitkaise.messaging.identity import set_supervises
from suitkaise.messaging.messages import Payload
from suitkaise.policy.actions import Input
from suitkaise.policy.base import SupervisorPhase
from suitkaise.supervision.environment import Stepper

__all__ = ["SupervisorActor", "start_actor"]


class SupervisorActor(Actor):
    """Takes events from any thread and executes one step for each. It ends with its supervisor.

    Every request is answered: also one that arrives behind the last step, and one that is pending when a step fails.
    """

    def __init__(self, executor: Stepper) -> None:
        super().__init__()
        self._executor = executor
        self._asked: set[Answer[Any]] = set()

    def on_start(self) -> None:
        """Record what this thread is."""
        set_supervises()

    def on_receive(self, message: Any) -> None:
        """Execute one step."""
        answer = _answer_to(message)
        if answer is not None:
            self._asked.add(answer)
            answer.when_done(self._asked.discard)
        self._executor.step(message)
        if self._executor.policy.phase is SupervisorPhase.ENDED:
            self.end()

    def on_failure(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End everything below after a failed step, and fail for its reason, as OTP's supervisors do (rule 68)."""
        assert error is not None
        self._executor.abort(error)
        for answer in list(self._asked):
            _refuse(answer, self._executor)

    def on_end(self) -> None:
        """Refuse the requests behind the last step."""
        _refuse_rest(self.actor_inbox, self._executor)


def start_actor(executor: Stepper) -> Callable[[Input], None]:
    """Start an actor for `executor`; return the function that sends the actor an event."""
    ref = SupervisorActor.launch(executor, thread_name=f"suitkaise-{executor.path}")

    def tell(event: Input) -> None:
        ref.actor_inbox.put(envelope(event))
        if ref.actor_stopped.is_set():  # the actor may have emptied its inbox for the last time just before
            _refuse_rest(ref.actor_inbox, executor)

    return tell


def _answer_to(message: Input) -> Answer[Any] | None:
    return getattr(message, "request", None)


def _refuse_rest(inbox: Any, executor: Stepper) -> None:
    for message in drain(inbox):
        answer = _answer_to(message)
        if answer is not None:
            _refuse(answer, executor)


def _refuse(answer: Answer[Any], executor: Stepper) -> None:
    answer.settle(False, Payload(executor.policy.stopping_error()))
