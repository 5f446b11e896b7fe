"""The supervisor actor: a Pykka actor that gives one executor its turns."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any

from suitkaise.messaging.actor import Actor, envelope, untaken
from suitkaise.messaging.messages import Answer, Payload
from suitkaise.policy.actions import Input
from suitkaise.policy.base import SupervisorPhase
from suitkaise.supervision.executor import Executor

__all__ = ["SupervisorActor", "start_actor"]


class SupervisorActor(Actor):
    """Its inbox takes what happens, from any thread; each message is one step. It ends with its supervisor.

    Whoever asks it something gets an answer, also behind its last step, and when it fails itself.
    """

    def __init__(self, executor: Executor) -> None:
        super().__init__()
        self._executor = executor
        self._asked: set[Answer[Any]] = set()

    def on_receive(self, message: Any) -> None:
        """One step."""
        answer = _answer_to(message)
        if answer is not None:
            self._asked.add(answer)
            answer.add_done_callback(self._asked.discard)
        self._executor.step(message)
        if self._executor.policy.phase is SupervisorPhase.ENDED:
            self.end()

    def on_failure(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """A step has failed: end what is below, and fail for that reason, as OTP's supervisors do."""
        assert error is not None
        self._executor.abort(error)
        for answer in list(self._asked):
            _refuse(answer, self._executor)

    def on_end(self) -> None:
        """Refuse what came behind the last step."""
        _refuse_rest(self.actor_inbox, self._executor)


def start_actor(executor: Executor) -> Callable[[Input], None]:
    """Start an actor for `executor`; returns how to reach it."""
    ref = SupervisorActor.launch(executor, thread_name=f"suitkaise-{executor.path}")

    def tell(event: Input) -> None:
        ref.actor_inbox.put(envelope(event))
        if ref.actor_stopped.is_set():  # it may have looked for the last time just before
            _refuse_rest(ref.actor_inbox, executor)

    return tell


def _answer_to(message: Input) -> Answer[Any] | None:
    return getattr(message, "request", None)


def _refuse_rest(inbox: Any, executor: Executor) -> None:
    for message in untaken(inbox):
        answer = _answer_to(message)
        if answer is not None:
            _refuse(answer, executor)


def _refuse(answer: Answer[Any], executor: Executor) -> None:
    answer.settle(False, Payload(executor.policy.stopping_error()))
