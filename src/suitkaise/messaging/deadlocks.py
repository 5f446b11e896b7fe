"""Deadlocks: workers that wait for each other's answers in a circle, found long before their time-outs.

A worker whose own thread waits for an answer, or whose async hook awaits one, handles no message meanwhile. If the
worker that it has asked waits in the same way for a third one, and so on back to the first, none of them gets an
answer. An answer that comes within `STEP` costs nothing here. A worker that waits longer tells the hub
(`RequestKind.WAIT`), and the hub looks for a circle.

What the hub knows may be out of date: a wait may be over, and the news still on its way. So a circle is only suspected
first. The hub sends all its members the same token. Each sends it back if it still waits for the same answer: then all
of them have waited at the moment at which the token was made. An answer that was sent before may have been on its way
at that moment. It goes the way of the next token, and ahead of it, so a circle that stands after `ROUNDS` of them is a
deadlock. The worker that has asked last gets the error.

Background threads take part under their own paths, with the serial number of the worker whose threads they are. The hub
does not know their incarnations; one that is abandoned sends no token back.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from suitkaise.errors import DeadlockError, SuitkaiseError
from suitkaise.messaging.answer import STEP, Answer
from suitkaise.messaging.identity import current_owner, handles_alone, own_thread_of, owner_of, split_owner
from suitkaise.messaging.messages import Payload
from suitkaise.messaging.protocol import RequestKind
from suitkaise.platform.locks import RLock
from suitkaise.records import dataclass

if TYPE_CHECKING:
    import asyncio

__all__ = ["LONG", "ROUNDS", "Edge", "Token", "Wait", "Waits", "Watch", "await_answer"]

LONG = 1e6
"""Seconds of a wait in which nothing is to be looked for."""

ROUNDS = 2

Token = tuple[int, int]
"""Number and round of a suspicion; (0, 0): none."""


class Wait:
    """One wait of the current thread for an answer, in steps.

    Args:
        verb: what the thread does to the worker at `path`.
        path: the path of that worker.
        since: when the answer was asked for (monotonic).
    """

    def __init__(self, verb: str, path: str, since: float) -> None:
        self._verb = verb
        self._path = path
        self._since = since
        self._told: Answer[Token] | None = None
        self._watched: bool = handles_alone() is not None and current_owner() is not None

    def look(self) -> float:
        """Tell the hub of the wait; return the seconds for which to wait now.

        The caller has just seen that the answer is not there.

        Raises:
            DeadlockError: the answer cannot come.
        """
        if not self._watched:
            return LONG
        try:
            if not handles_alone():
                if self._told is not None and self._told.done():
                    self._told = None  # a token, or an error, of a time when this thread alone could answer
            elif self._told is None:
                self._tell((0, 0))
            elif self._told.done():
                self._tell(self._told.result(0))
        except DeadlockError:
            self._told = None
            raise
        except SuitkaiseError:  # the hub is gone: the answer will be an error, too
            self._watched = False
        return STEP

    def _tell(self, token: Token) -> None:
        from suitkaise.messaging.router import router  # which imports this module, by `direct`

        _, serial = split_owner(current_owner() or "")
        argument = owner_of(own_thread_of(), serial), self._verb, self._since, token
        self._told = router().request(RequestKind.WAIT, self._path, argument)

    def end(self) -> None:
        """Tell the hub that the wait is over."""
        if self._told is not None:
            self._told.cancel()


class Watch:
    """Looks for a deadlock while the own task of an async worker awaits an answer.

    Args:
        come: what the task waits for; it gets the DeadlockError.
        answer: what is to come; it is set before `come` is, which only the event loop does.
        path: the path of the worker that was asked.
    """

    def __init__(self, come: asyncio.Future[None], answer: Answer[Any], path: str) -> None:
        self._come = come
        self._answer = answer
        self._path = path
        self._began = time.monotonic() if answer.began is None else answer.began
        self._wait: Wait | None = None
        self._timer = come.get_loop().call_later(STEP, self._look)

    def _look(self) -> None:
        if self._come.done() or self._answer.done():
            return
        try:
            self._wait = self._wait or Wait("asks", self._path, self._began)
            seconds = self._wait.look()
        except DeadlockError as error:
            self._come.set_exception(error)
        else:
            self._timer = self._come.get_loop().call_later(seconds, self._look)

    def end(self) -> None:
        """Look no more: the wait is over."""
        self._timer.cancel()
        if self._wait is not None:
            self._wait.end()


def await_answer(
    verb: str,
    path: str,
    timeout: float | None,
    step: Callable[[float], bool],
    began: float | None,
    seconds: float = STEP,
) -> bool:
    """Wait by `step(seconds)`, which returns whether the answer is there; return False after the timeout.

    `began`: when it was asked for; None: now. `seconds`: how long to wait before the first look.

    Raises:
        DeadlockError: the answer cannot come.
    """
    now = time.monotonic()
    until = float("inf") if timeout is None else now + timeout
    wait: Wait | None = None
    try:
        while True:
            left = max(0.0, until - time.monotonic())
            if step(min(left, seconds)):
                return True
            if left <= seconds:
                return False
            wait = wait or Wait(verb, path, now if began is None else began)
            seconds = wait.look()
    finally:
        if wait is not None:
            wait.end()


@dataclass(frozen=True, slots=True, eq=False)
class Edge:
    """The worker, or background thread, at `path` waits for the one at `target`; it has sent this token back.

    `serial`: the number of the incarnation, of a background thread that of its worker.
    """

    path: str
    serial: int
    verb: str
    target: str
    since: float
    token: Token
    answer: Answer[Token]


class Waits:
    """What the hub knows of the workers that wait now, in any thread.

    `is_current` returns whether the incarnation of that serial number is the one that answers at a path, or whose
    background threads do.
    """

    def __init__(self, is_current: Callable[[str, int], bool]) -> None:
        self._is_current = is_current
        self._edges: dict[str, list[Edge]] = {}
        self._tokens = itertools.count(1)
        self._lock = RLock()

    def add(self, target: str, argument: Any, answer: Answer[Token]) -> None:
        """Record that a worker waits, until the answer is cancelled or set: to the next token, or to the error."""
        owner, verb, since, (number, round_) = argument
        path, serial = split_owner(owner)
        edge = Edge(path, serial, verb, target, since, (number, round_), answer)
        with self._lock:
            self._edges.setdefault(path, []).append(edge)
            circle = self.find_circle(edge)
        answer.when_done(lambda done: self._remove(edge))
        if circle:
            self._judge(circle)

    def _remove(self, edge: Edge) -> None:
        with self._lock:
            edges = self._edges.get(edge.path, [])
            if edge in edges:
                edges.remove(edge)
            if not edges:
                self._edges.pop(edge.path, None)

    def find_circle(self, edge: Edge) -> list[Edge]:
        """Return the waits from this one on that lead back to it; empty if they do not."""
        circle: list[Edge] = []
        current: Edge | None = edge
        while current is not None and current not in circle:
            circle.append(current)
            current = self._wait_of(current.target)
        return circle if current is edge else []

    def _wait_of(self, path: str) -> Edge | None:
        """Return the wait of the incarnation that is at `path` now; of several, one in a signal handler, the last."""
        for edge in reversed(self._edges.get(path, [])):
            if self._is_current(path, edge.serial):
                return edge
        return None

    def _judge(self, circle: list[Edge]) -> None:
        number, round_ = circle[0].token
        if {edge.token for edge in circle} != {(number, round_)} or not number:
            number, round_ = next(self._tokens), 0
        if round_ < ROUNDS:
            for edge in circle:
                edge.answer.settle(True, Payload((number, round_ + 1)))
            return
        first = min(range(len(circle)), key=lambda index: circle[index].since)
        ordered = circle[first:] + circle[:first]
        last = max(circle, key=lambda edge: edge.since)
        text = " ".join(f"{edge.path} {edge.verb}" for edge in ordered)
        error = DeadlockError(f"deadlock: {text} {ordered[0].path}; none of them can answer", path=last.target)
        last.answer.settle(False, Payload(error))

    def __len__(self) -> int:
        return len(self._edges)
