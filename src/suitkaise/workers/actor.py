"""The private Pykka actor that drives a worker, so that user classes carry nothing of Pykka."""

from __future__ import annotations

from typing import Any

from suitkaise.errors import WorkerDead
from suitkaise.messaging.actor import Actor
from suitkaise.messaging.mailbox import ITERATE, STOP, Mailbox
from suitkaise.messaging.messages import Payload
from suitkaise.platform.board import Slot
from suitkaise.specs.recipe import Recipe
from suitkaise.workers.hooks import is_async
from suitkaise.workers.incarnation import Incarnation, Outcome
from suitkaise.workers.lifecycle import Lifecycle

__all__ = ["WorkerActor", "lifecycle_of"]


def lifecycle_of(recipe: Recipe, birth: Incarnation, mailbox: Mailbox, slot: Slot) -> Lifecycle:
    """The kind of life that the worker needs."""
    if is_async(recipe):
        from suitkaise.workers.async_lifecycle import AsyncLifecycle  # 35 ms, if it was not preloaded

        return AsyncLifecycle(recipe, birth, mailbox, slot)
    return Lifecycle(recipe, birth, mailbox, slot)


class WorkerActor(Actor):
    """Lives exactly as long as its worker. Its inbox, when no message waits, yields the next loops.

    `on_ready` is called when `on_start` has returned, `on_over` with the outcome when everything is done.
    """

    def __init__(self, life: Lifecycle, mailbox: Mailbox) -> None:
        super().__init__()
        self.actor_inbox = mailbox  # type: ignore[assignment]
        self._actor_ref.actor_inbox = mailbox  # type: ignore[assignment]
        self.life = life
        life.on_checkpoint = self.on_checkpoint
        self.mailbox = mailbox

    def on_ready(self) -> None:
        """The worker is up."""

    def on_checkpoint(self, parcel: Payload) -> None:
        """The worker wants this to be kept for its next incarnation."""

    def on_over(self, outcome: Outcome) -> None:
        """The worker is over."""

    def on_start(self) -> None:
        """Pykka's hook: runs the worker's own `on_start`."""
        self.life.start()
        if self.life.outcome is None:
            self.on_ready()
        self._end_if_over()

    def _handle_receive(self, message: Any) -> Any:
        if message is ITERATE:
            self.life.iterate()
        elif message is STOP:
            assert self.mailbox.stop_reason is not None
            self.life.finish(self.mailbox.stop_reason)
        else:
            self.life.receive(message)
        self._end_if_over()

    def _end_if_over(self) -> None:
        outcome = self.life.outcome
        if outcome is None:
            return
        self.end()
        self.life.leave()
        self.on_over(outcome)  # first: who gets to know of the end below may send the next message at once
        self.life.answer_failed_ask()
        for message in self.mailbox.drain():
            message.fail(WorkerDead.over(self.life.path, outcome.reason))
