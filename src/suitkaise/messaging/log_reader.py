"""Reads what workers of another program print and log: the last lines first, then each line soon after it is there.

`suitkaise logs`, the web page and `suitkaise top` read so. The program keeps nothing for a reader, which names how many
lines of each worker it has seen; what was dropped before the reader came to it is counted.
"""

from __future__ import annotations

import os
from typing import Any, NamedTuple

from suitkaise.messaging.answer import Answer
from suitkaise.messaging.log_rings import Line
from suitkaise.messaging.protocol import RequestKind
from suitkaise.messaging.router import HubClient

__all__ = ["LogReader", "News", "tagged"]


class News(NamedTuple):
    """What a reader gets. `skipped`: by path, how many lines were not kept. `ended`: the tree has ended."""

    lines: list[Line]
    skipped: dict[str, int]
    ended: bool


class LogReader:
    """Reads the lines of the worker at `path`, or of all below it.

    Args:
        client: the connection to the program.
        path: a worker, a supervisor, or a tree.
        last: how many of the last lines of each worker come first.
    """

    def __init__(self, client: HubClient, path: str, *, last: int) -> None:
        self._client = client
        self._path = path
        self._last = last
        self._id = os.urandom(8).hex()
        self._seen: dict[str, int] | None = None

    def request(self) -> Answer[Any]:
        """Ask for the next lines; the answer, which `take` takes, comes as soon as there are some.

        Cancel an answer that is not wanted any more. Raises RuntimeGone.
        """
        argument = {"last": self._last} if self._seen is None else {"seen": self._seen, "reader": self._id}
        return self._client.request(RequestKind.LOGS, self._path, argument)

    def take(self, answer: dict[str, Any]) -> News:
        """Return the news that an answer has brought."""
        self._seen = {**(self._seen or {}), **answer["seen"]}
        lines = [
            (path, incarnation, stream, when, text.removeprefix(f"{path}: "))
            for path, incarnation, stream, when, text in answer["lines"]
        ]
        return News(lines, answer["skipped"], answer["ended"])

    def read(self, timeout: float | None) -> News:
        """Wait for the next lines. Raises AskTimeout, RuntimeGone."""
        return self.take(self.request().get(timeout))


def tagged(stream: str, text: str) -> str:
    """Return a line as it is shown: with its stream in front, unless it was printed.

    >>> tagged("stdout", "it begins"), tagged("warning", "no input")
    ('it begins', 'warning: no input')
    """
    return text if stream in ("stdout", "stderr") else f"{stream}: {text}"
