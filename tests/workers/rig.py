"""Drives one worker's life in the test's own thread: a real mailbox and a real board slot, no tree, no process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from suitkaise.messaging.mailbox import ThreadMailbox
from suitkaise.messaging.messages import Answer, Kind, Message, Parcel
from suitkaise.observe.board import Board
from suitkaise.specs import Recipe
from suitkaise.workers.lifecycle import Birth, Outcome
from suitkaise.workers.shell import Shell, life_of

__all__ = ["Rig", "rigged"]


class _Shell(Shell):
    """Tells the rig when the worker was ready and when it was over."""

    def __init__(self, rig: Rig) -> None:
        super().__init__(rig.life, rig.mailbox)
        self._rig = rig

    def on_ready(self) -> None:
        self._rig.was_ready = True

    def on_over(self, outcome: Outcome) -> None:
        self._rig.outcome = outcome


class Rig:
    """One worker, not started yet."""

    def __init__(self, board: Board, what: Any, *, path: str = "tree/worker", **birth: Any) -> None:
        recipe = what if isinstance(what, Recipe) else what.__recipe__
        self.slot = board.take(path)
        self.mailbox = ThreadMailbox(self.slot)
        self.life = life_of(recipe, Birth(path, 1, **birth), self.mailbox, self.slot)
        self.outcome: Outcome | None = None
        self.was_ready = False

    @property
    def worker(self) -> Any:
        return self.life._worker

    def run(self) -> Outcome:
        """The whole life, as its actor lives it."""
        _Shell(self).run_here()
        assert self.outcome is not None
        return self.outcome

    def tell(self, body: Any, kind: Kind = "message") -> None:
        self.mailbox.put(Message(kind, Parcel(body)))

    def ask(self, body: Any, kind: Kind = "message") -> Answer[Any]:
        answer: Answer[Any] = Answer()
        self.mailbox.put(Message(kind, Parcel(body), answer.settle))
        return answer

    def call(self, name: str, *args: Any, **kwargs: Any) -> Answer[Any]:
        return self.ask((name, args, kwargs), "call")


@contextmanager
def rigged(folder: Path) -> Iterator[Any]:
    """Gives a function that makes rigs, all on one board."""
    board = Board(str(folder / "board"), create=True)
    made: list[Rig] = []

    def make(what: Any, **birth: Any) -> Rig:
        made.append(Rig(board, what, **birth))
        return made[-1]

    try:
        yield make
    finally:
        for one in made:
            one.mailbox.close()
            one.slot.release()
        board.close()
