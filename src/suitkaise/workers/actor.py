"""The private Pykka actor that drives a worker, so that user classes carry nothing of Pykka."""

from __future__ import annotations

import sys
from typing import Any

from suitkaise.errors import SuitkaiseError, WorkerDead
from suitkaise.messaging.actor import Actor
from suitkaise.messaging.held_back import send_held
from suitkaise.messaging.mailbox import IDLE, ITERATE, STOP, Mailbox
from suitkaise.messaging.messages import Message, Payload
from suitkaise.messaging.portable_errors import crash, text_of
from suitkaise.platform.board import Slot
from suitkaise.specs.recipe import Recipe
from suitkaise.workers.hooks import is_async
from suitkaise.workers.incarnation import Incarnation, Outcome
from suitkaise.workers.lifecycle import Lifecycle

__all__ = ["WorkerActor", "lifecycle_class", "lifecycle_of"]


def lifecycle_class(recipe: Recipe) -> type[Lifecycle]:
    """Return the kind of life cycle that the worker needs."""
    if is_async(recipe):
        from suitkaise.workers.async_lifecycle import AsyncLifecycle  # 35 ms, unless it is preloaded

        return AsyncLifecycle
    return Lifecycle


def lifecycle_of(recipe: Recipe, incarnation: Incarnation, mailbox: Mailbox, slot: Slot) -> Lifecycle:
    """Make the kind of life cycle that the worker needs."""
    return lifecycle_class(recipe)(recipe, incarnation, mailbox, slot)


class WorkerActor(Actor):
    """Runs as long as its worker. When no message waits, its inbox yields the next loops.

    The engines override `on_ready`, `on_checkpoint` and `on_over`.
    """

    def __init__(self, lifecycle: Lifecycle, mailbox: Mailbox) -> None:
        super().__init__()
        self.actor_inbox = mailbox  # type: ignore[assignment]
        self._actor_ref.actor_inbox = mailbox  # type: ignore[assignment]
        self.lifecycle = lifecycle
        lifecycle.context.on_checkpoint = self.on_checkpoint
        self.mailbox = mailbox
        self._reported = False

    def on_ready(self) -> None:
        """Called when the worker's `on_start` has returned."""

    def on_checkpoint(self, payload: Payload) -> None:
        """Called with each checkpoint, to be kept for the next incarnation."""

    def on_over(self, outcome: Outcome) -> None:
        """Called with the outcome when the last hook has returned; takes the messages that are to be handed over."""

    def on_start(self) -> None:
        """Run the worker's own `on_start`; Pykka calls this in the actor's thread."""
        self.lifecycle.start()
        if self.lifecycle.outcome is None:
            send_held()  # its siblings may start now
            self.on_ready()
        self._end_if_over()

    def _handle_receive(self, message: Any) -> Any:
        lifecycle = self.lifecycle
        try:
            if type(message) is Message:
                lifecycle.receive(message)
            elif message is ITERATE:
                lifecycle.iterate()
            elif message is STOP:
                assert self.mailbox.stop_reason is not None
                lifecycle.finish(self.mailbox.stop_reason)
            else:
                assert message is IDLE
                lifecycle.idle()
            if lifecycle.outcome is not None:
                self._end_if_over()
        except BaseException:
            self._handle_failure(*sys.exc_info())

    def _actor_loop(self) -> None:
        try:
            super()._actor_loop()
        except BaseException:  # another thread may raise one in this thread, at any place
            self._handle_failure(*sys.exc_info())

    def _handle_failure(self, exception_type: Any, exception_value: Any, traceback: Any) -> None:
        """Make an internal error the crash of the worker, which would else seem to run."""
        if self._reported:
            super()._handle_failure(exception_type, exception_value, traceback)
            return
        self.end()
        text = text_of(exception_value)
        error = SuitkaiseError(f"internal error: {exception_type.__name__}{text and f': {text}'}")
        reason = crash(self.lifecycle.phase, error.with_traceback(traceback), self.lifecycle.path)
        try:
            self.lifecycle.close()
        finally:
            self._report(Outcome(reason))

    def _end_if_over(self) -> None:
        outcome = self.lifecycle.outcome
        if outcome is None:
            return
        self.end()
        self.lifecycle.close()
        self._report(outcome)

    def _report(self, outcome: Outcome) -> None:
        self._reported = True
        send_held()
        self.on_over(outcome)  # before the answers below: an asker may send its next message at once
        self.lifecycle.answer_failed_ask()
        for message in self.lifecycle.unanswered():
            message.fail(WorkerDead.unanswered(self.lifecycle.path, outcome.reason))
        for message in self.mailbox.take_unhandled():
            message.fail(WorkerDead.unhandled(self.lifecycle.path, outcome.reason))
