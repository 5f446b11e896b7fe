"""Serves the last lines of workers to other programs, and the next lines as soon as there are some.

A reader that follows asks for the lines behind those that it has seen, and the answer comes when there are some. So the
program keeps nothing for a reader, however slowly it reads.
"""

from __future__ import annotations

import time
from concurrent.futures import Future, wait
from typing import Any

from suitkaise.messaging.answer import Answer
from suitkaise.messaging.log_rings import LogRings, is_below
from suitkaise.messaging.messages import Payload
from suitkaise.platform.condition import Condition
from suitkaise.platform.reactor import Reactor
from suitkaise.platform.threads import DaemonThread

__all__ = ["MOST", "LogRequests"]

MOST = 1_000
"""How many lines an answer has, at most."""

READER_IS_GONE = 10.0
"""Seconds after its last request, and after that answer, when a reader is forgotten that asks for nothing more."""

LATE_LINES = 1.0
"""Seconds, at most, for which lines are waited for that come from other machines."""

LAST_LINES = 0.5
"""Seconds, at most, for which the end of a tree waits until its readers have got the last lines."""


class LogRequests:
    """Serves the requests, in the reactor's thread; `end` is called from any other thread."""

    def __init__(self, rings: LogRings, reactor: Reactor) -> None:
        self._rings = rings
        self._reactor = reactor
        self._lock = Condition()
        self._readers: dict[str, _Reader] = {}
        self._ended: set[str] = set()
        self._called = False

    def serve(self, path: str, argument: dict[str, Any]) -> Any:
        """Return lines at `path` and below it.

        `argument` has either `last`: how many lines of each worker are wanted, at once; or `seen`: how many lines of
        each worker the reader has seen, for an answer that comes when there are more, and `reader`: an id of its own.

        Returns:
            A dict. `lines`: path, incarnation, stream, Unix time and text of each, in the order of time. `seen`: the
            lines of each worker so far. `skipped`: how many lines of which workers are not kept any more. `ended`: the
            tree has ended; there will be no more lines.
        """
        seen = argument.get("seen")
        if seen is None:
            return self._last(path, int(argument["last"]), self._rings.read_lines(path))
        reader = _Reader(path, seen, Answer())
        with self._lock:
            is_new = argument["reader"] not in self._readers
            self._readers[argument["reader"]] = reader
            reader.answer.when_done(lambda done: self._forget_gone(argument["reader"], reader, done.cancelled()))
        if is_new:
            self._listen()
            self._rings.read_lines(path)
        self._answer()
        return reader.answer

    def _last(self, path: str, most: int, late: list[Future[None]]) -> Answer[Any]:
        """Make the answer in a thread of its own: a large tree has many lines."""
        answer: Answer[Any] = Answer()

        def make() -> None:
            wait(late, LATE_LINES)
            lines, seen = self._rings.last(path, most)
            value = {"lines": lines, "seen": seen, "skipped": {}, "ended": False}
            answer.settle(True, Payload(value))

        DaemonThread(target=make, name="suitkaise-last-lines").start()
        return answer

    def _listen(self) -> None:
        with self._lock:
            paths = {reader.path for reader in self._readers.values()}
            self._rings.on_lines = self._on_lines if paths else None  # lines cost nothing without readers
        self._rings.listen(sorted(paths))

    def _forget_gone(self, id: str, reader: _Reader, cancelled: bool) -> None:
        """Forget a reader whose connection is closed; or one that has its answer, if it does not ask again."""
        if cancelled:
            self._forget(id, reader)
        else:
            self._reactor.call_at(time.monotonic() + READER_IS_GONE, lambda: self._forget(id, reader))

    def _forget(self, id: str, reader: _Reader) -> None:
        with self._lock:
            if self._readers.get(id) is not reader:
                return
            del self._readers[id]
            self._lock.notify_all()
        self._listen()

    # ------------------------------------------------------------ answers
    def _on_lines(self) -> None:
        """Have the readers answered, soon, for whom the new lines may be."""
        if not self._called:
            self._called = True
            self._reactor.call_soon_threadsafe(self._answer)

    def _answer(self) -> None:
        """Answer the readers that wait, and for whom there are lines."""
        self._called = False
        with self._lock:
            waiting = [reader for reader in self._readers.values() if not reader.answer.done()]
        for reader in waiting:
            ended = reader.path.partition("/")[0] in self._ended
            if ended or self._rings.has_after(reader.path, reader.seen):
                lines, seen, skipped = self._rings.after(reader.path, reader.seen, MOST)
                over = ended and not lines
                reader.told_end = over
                value = {"lines": lines, "seen": seen, "skipped": skipped, "ended": over}
                reader.answer.settle(True, Payload(value))
                if over:
                    with self._lock:
                        self._lock.notify_all()

    def end(self, tree: str) -> None:
        """Tell the readers of a tree that it has ended, after the last lines; wait a moment until they have them."""
        with self._lock:
            self._ended.add(tree)
        self._reactor.call_soon_threadsafe(self._answer)
        with self._lock:
            self._lock.wait_for(
                lambda: not any(is_below(one.path, tree) and not one.told_end for one in self._readers.values()),
                LAST_LINES,
            )
        self._rings.forget(tree)

    def begin(self, tree: str) -> None:
        """Serve the readers of a tree of that name from now on."""
        with self._lock:
            self._ended.discard(tree)


class _Reader:
    """A reader that follows: what it has seen, and the answer that it waits for."""

    def __init__(self, path: str, seen: dict[str, int], answer: Answer[Any]) -> None:
        self.path = path
        self.seen = seen
        self.answer = answer
        self.told_end = False
