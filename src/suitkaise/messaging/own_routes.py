"""The direct connections of the program's own threads to workers in processes: those of `direct`, made here.

A message of the program goes straight into the worker's control connection, so a tell needs no other one. But an answer
that comes by it wakes the I/O thread, and that wakes the thread that asks. So a thread that asks a worker again and
again gets a connection, and reads its answers itself. From then on all its messages to this worker go over it, in their
order. Threads on which trees depend make none: an end of the connection would have them wait for the I/O thread.
"""

from __future__ import annotations

import contextlib
import queue
from collections.abc import Callable
from typing import Any, Protocol

from suitkaise.errors import SuitkaiseError, WorkerDead
from suitkaise.messaging.address import Connected
from suitkaise.messaging.answer import Answer
from suitkaise.messaging.dead_letters import DeadLetters
from suitkaise.messaging.direct import Routes
from suitkaise.messaging.identity import current_path, supervises
from suitkaise.messaging.messages import Message
from suitkaise.messaging.protocol import RequestKind
from suitkaise.messaging.route import PATIENCE, Connection, Route
from suitkaise.platform.board import Board
from suitkaise.platform.reactor import Reactor, in_io_thread

__all__ = ["OwnRoutes"]


class Hub(Protocol):
    """What these connections need of the registry."""

    dead_letters: DeadLetters

    def connect(self, path: str, sender: str, on_detached: Callable[[str], None] | None = None) -> Connected | None:
        """Make a direct connection to the worker at `path`, if that is possible now."""
        ...

    def request(self, kind: RequestKind, path: str, argument: Any = None) -> Answer[Any]:
        """Carry out a request about the worker at `path`."""
        ...

    def post(self, path: str, message: Message, *, waits: bool) -> Answer[bool] | None:
        """Send a message without waiting."""
        ...


class OwnRoutes:
    """The direct connections of this program's threads.

    Args:
        registry: passes on what does not go over them.
        board: the status board of the workers.
        reactor: the thread that handles the reports of the workers.
    """

    def __init__(self, registry: Hub, board: Board, reactor: Reactor) -> None:
        self._registry = registry
        self._reactor = reactor
        self._closed = False
        self._routes = Routes(self, board.marks, lambda: not supervises() and not in_io_thread())
        self.find: Callable[[str], Route | None] = self._routes.find  # itself, since every ask passes here
        """Return this thread's connection to the worker at a path, if there is one or one can be made."""
        self.holds_back: Callable[[str, Any], bool] = self._routes.holds_back
        """Hold back what this thread tells the worker at a path, if it belongs to a burst."""

    def send(self, path: str, message: Message) -> bool:
        """Send a message over this thread's connection to the worker at `path`; return False if there is none.

        Raises what `Route.send` raises.
        """
        route = self._routes.known(path)
        return route is not None and route.send(message)

    def in_use(self) -> list[str]:
        """Return the paths of the workers to which this thread has to send itself; see `Routes.in_use`."""
        return self._routes.in_use()

    def send_to(self, owner: str, message: Message, most: int) -> bool:
        """Send a message over this thread's connection to the incarnation `owner`; see `Routes.send_to`."""
        return self._routes.send_to(owner, message, most)

    def send_held(self) -> None:
        """Send what all threads hold back, unless this one must not wait for the others."""
        if not supervises() and not in_io_thread():
            self._routes.send_held()

    def leave(self, path: str) -> None:
        """Send nothing more directly to the worker at `path`, which is being killed; see `Routes.leave`."""
        if not supervises() and not in_io_thread():
            self._routes.leave(path)

    def close(self) -> None:
        """Close all connections."""
        self._closed = True
        self._routes.close()

    # ------------------------------------------------------------ what the connections need of the hub
    def connect(self, path: str) -> Answer[Connection | None]:
        """Make a connection to the worker at `path`; None if that is not possible now."""
        answer: Answer[Connection | None] = Answer()
        made = None if self._closed else self._registry.connect(path, current_path(), self._routes.close_ended)
        answer.set_result(None if made is None else Connection(made.end.detach(), *made[1:]))
        return answer

    def request(self, kind: RequestKind, path: str, argument: Any = None) -> Answer[Any]:
        """Carry out a request about the worker at `path` in the thread that handles its reports, and wait for that."""
        carried_out: queue.SimpleQueue[Answer[Any]] = queue.SimpleQueue()
        self._reactor.call_soon_threadsafe(lambda: carried_out.put(self._registry.request(kind, path, argument)))
        with contextlib.suppress(queue.Empty):
            return carried_out.get(timeout=0.0 if self._closed else PATIENCE)
        answer: Answer[Any] = Answer()
        answer.set_exception(WorkerDead(f"{path!r} has ended", path=path))
        return answer

    def post_unawaited(self, path: str, message: Message) -> None:
        """Send a message otherwise; one that is refused fails, or is a dead letter."""
        try:
            self._registry.post(path, message, waits=False)
        except SuitkaiseError as error:
            if message.reply is None:
                self._registry.dead_letters.add(path, str(error))
            message.fail(error)
