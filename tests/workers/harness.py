"""Runs the life cycle of one worker in the test's own thread, with a real mailbox and a real slot of a board."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from suitkaise.messaging.answer import Answer
from suitkaise.messaging.mailbox import ThreadMailbox
from suitkaise.messaging.messages import Message, Payload
from suitkaise.messaging.protocol import MessageKind
from suitkaise.platform.board import Board
from suitkaise.specs import Recipe
from suitkaise.workers.actor import WorkerActor, lifecycle_of
from suitkaise.workers.incarnation import Incarnation, Outcome
from suitkaise.workers.worker import Worker

__all__ = ["Harness", "asynchronous", "harnesses"]


class _HarnessActor(WorkerActor):
    """Reports to the harness that the worker is ready, and its outcome."""

    def __init__(self, harness: Harness) -> None:
        super().__init__(harness.lifecycle, harness.mailbox)
        self._harness = harness

    def on_ready(self) -> None:
        self._harness.was_ready = True

    def on_over(self, outcome: Outcome) -> None:
        self._harness.outcome = outcome


class Harness:
    """One worker that is not started yet."""

    def __init__(self, board: Board, recipe: Recipe, *, path: str = "tree/worker", **incarnation: Any) -> None:
        self.slot = board.take(path)
        self.mailbox = ThreadMailbox(self.slot)
        self.lifecycle = lifecycle_of(recipe, Incarnation(path, 1, **incarnation), self.mailbox, self.slot)
        self.outcome: Outcome | None = None
        self.was_ready = False

    @property
    def worker(self) -> Any:
        return self.lifecycle._worker

    def run(self) -> Outcome:
        """Run the whole life cycle, as the worker's actor does."""
        _HarnessActor(self).run_here()
        assert self.outcome is not None
        return self.outcome

    def tell(self, body: Any, kind: MessageKind = "message") -> None:
        self.mailbox.put(Message(kind, Payload(body)))

    def ask(self, body: Any, kind: MessageKind = "message", deadline: float | None = None) -> Answer[Any]:
        answer: Answer[Any] = Answer()
        self.mailbox.put(Message(kind, Payload(body), answer.settle, deadline=deadline))
        return answer

    def call(self, name: str, *args: Any, **kwargs: Any) -> Answer[Any]:
        return self.ask((name, args, kwargs), "call")


def asynchronous(recipe: Recipe) -> Recipe:
    """The recipe of the same worker with all hooks as `async def`."""
    cls: Any = recipe.target
    if not isinstance(cls, type):
        return replace(recipe, target=_asynchronous(cls))
    body = {
        name: _asynchronous(found)
        for name in Worker._worker_hooks
        if callable(found := getattr(cls, name, None)) and found is not getattr(Worker, name, None)
    }
    return replace(recipe, target=type(cls)(cls.__name__, (cls,), body))


def _asynchronous(hook: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(hook)
    async def later(*args: Any, **kwargs: Any) -> Any:
        await asyncio.sleep(0)
        return hook(*args, **kwargs)

    return later


@contextmanager
def harnesses(folder: Path, change: Callable[[Recipe], Recipe] | None = None) -> Iterator[Any]:
    """Yield a function that makes harnesses on one board; `change` is applied to their recipes."""
    board = Board.create(str(folder / "board"))
    made: list[Harness] = []

    def make(what: Any, **incarnation: Any) -> Harness:
        recipe = what if isinstance(what, Recipe) else what.__recipe__
        made.append(Harness(board, recipe if change is None else change(recipe), **incarnation))
        return made[-1]

    try:
        yield make
    finally:
        for one in made:
            if one.outcome is None:
                one.lifecycle.close()
            one.mailbox.close()
            one.slot.release()
        board.close()
