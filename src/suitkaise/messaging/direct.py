"""Direct connections to workers in processes: the sender's side; for the receiver's side see `incoming`.

A message through the hub wakes the hub's I/O thread twice. So a thread of a worker that sends to another worker again
and again has a connection to its process. The hub makes it (`Connect`): a pair of sockets, one end for each side. No
third process can reach it, and the other end reaches the receiver behind all that the hub has accepted for it before.
Threads of the program itself have such connections, too (see `own_routes`).

These rules keep what a ref promises:

- All messages of one thread to one worker go one way at a time, so they keep their order. The way is changed from the
  hub to a connection by `Connect`, which keeps the order, and back only when the receiver has cut the connection, or
  has read all that was sent over it.
- A signal handler that interrupts a thread which is sending makes no connection: the message that it interrupts, on its
  way through the hub, could be overtaken by later ones. Nor is one used that was being made while a handler sent. A
  question of the handler itself goes through the hub if it interrupts a write: it must not wait for that, and may so
  overtake what was sent before.
- What the hub delivers for a thread, to a group or a topic, goes the same way: the hub leaves to the thread the workers
  with which it has a connection in use.
- The receiver cuts it at its end. A message that was sent as a whole before is then the receiver's (it handles it, or
  reports it, or hands it over to its next incarnation); any other is the sender's, and goes through the hub.
- The later messages of a burst are held back for a moment, and sent together; see `held_back`.
- While an ask is unanswered somebody reads: the asking thread itself, or, for a future, this process's I/O thread.
- Nothing blocks in sending: what the socket does not take is sent by the I/O thread, up to `BACKLOG` bytes.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any, TypeVar

from suitkaise.errors import AskTimeout, SuitkaiseError, WorkerDead
from suitkaise.messaging.held_back import holders, send_held
from suitkaise.messaging.identity import set_reads_answers, split_owner
from suitkaise.messaging.messages import Message
from suitkaise.messaging.protocol import RequestKind
from suitkaise.messaging.route import PATIENCE, Hub, Route
from suitkaise.platform.board import SenderMarks
from suitkaise.platform.locks import RLock
from suitkaise.platform.processes import after_fork_in_child
from suitkaise.platform.reactor import Reactor

__all__ = ["Routes", "sends"]

F = TypeVar("F", bound=Callable[..., Any])

MOST = 64
"""Connections that a process has at a time; messages to further workers go through the hub."""

UNUSED = 1.0
"""Seconds without a message after which a connection may be closed, if there are `MOST`."""

_PATHS = 1024
"""Paths that a thread remembers without a connection."""

PAUSE = 0.25
"""Seconds until a thread tries again to connect with a worker with which it could not."""

_sending: set[CodeType] = set()


def sends(function: F) -> F:
    """Mark a function in which a thread sends, perhaps through the hub: what interrupts it makes no connection."""
    _sending.add(function.__code__)
    return function


def _is_nested() -> bool:
    """Return whether this thread was about to send already: this is a signal handler, or a `__del__`."""
    frame: FrameType | None = sys._getframe(1)
    number = 0
    while frame is not None and number < 2:
        number += frame.f_code in _sending
        frame = frame.f_back
    return number > 1


class _Making(float):
    """Stands for a connection that is being made, until the time (monotonic) of the next attempt."""

    is_passed = False
    """Whether a signal handler may have sent through the hub meanwhile."""


def _note_other_way(known: Route | float | None) -> None:
    """Record that this thread sends through the hub to a worker without a connection."""
    if type(known) is _Making:
        known.is_passed = True


class _AtThreadEnd:
    """Sends what a thread holds back when the thread ends; `Thread.join` returns after that.

    In a forked child another thread, the one that has forked, ends the data of all the others: it must send nothing.
    """

    def __init__(self) -> None:
        self._thread = threading.get_ident()

    def __del__(self) -> None:
        if holders and threading.get_ident() == self._thread:  # None at the end of the interpreter
            send_held()


class Routes:
    """The direct connections of this process: one for each thread and each worker to which that thread sends.

    Args:
        hub: makes the connections.
        marks_of: returns what a sender writes of the status board, for a slot and the number of a connection.
        may_wait: returns whether the calling thread may wait until the hub has made a connection.
    """

    def __init__(self, hub: Hub, marks_of: Callable[[int, int], SenderMarks], may_wait: Callable[[], bool]) -> None:
        self.hub = hub
        self._marks_of = marks_of
        self._may_wait = may_wait
        self._begin()
        _in_this_process.add(self)

    def _begin(self) -> None:
        self._of_thread = threading.local()
        self._ends = threading.local()
        self._all: dict[weakref.ref[Route], None] = {}
        self._close_unused_at = 0.0
        self._reactor: Reactor | None = None
        self._lock = RLock()  # a signal handler may need the I/O thread, too

    def close(self) -> None:
        """Close all connections; asks that were not answered fail."""
        routes = self._open()
        for route in routes:
            route.give_up()
        if self._reactor is not None:
            self._reactor.close()
        for route in routes:
            route.close()

    def close_after_fork(self) -> None:
        """In a forked child: leave the connections to the parent."""
        for route in self._open():
            route.close_after_fork()
        if self._reactor is not None:
            self._reactor.close_after_fork()
        self._begin()

    @property
    def reactor(self) -> Reactor:
        """The I/O thread, which the first connection starts."""
        with self._lock:
            if self._reactor is None:
                self._reactor = Reactor()
                self._reactor.call_soon_threadsafe(set_reads_answers)
            return self._reactor

    def _has_reactor(self) -> bool:
        """Start the I/O thread; return False if that is not possible now.

        A connection needs it when its receiver ends or does not read: too late to find that no thread or descriptor is
        left. Without a connection, messages go through the hub.
        """
        try:
            _ = self.reactor
        except (OSError, RuntimeError):
            return False
        return True

    def flush(self, until: float) -> int:
        """Wait until all messages have left this process, or for that time (monotonic); return how many have not."""
        send_held()  # first: what a thread sends in between may need another connection's lock
        return sum(route.flush(until) for route in self._open())

    def send_held(self) -> None:
        """Send what all threads hold back."""
        for route in self._open():
            route.send_held()

    def finish(self, seconds: float) -> None:
        """Wait until all messages have left this process; after `seconds`, the others are dead letters."""
        if not self.flush(time.monotonic() + seconds):
            return
        for route in self._open():
            if left := route.drop():
                why = f"it has not taken them in {seconds:g} s, and their sender has ended"
                with contextlib.suppress(SuitkaiseError):  # the program is gone
                    self.hub.request(RequestKind.DEAD_LETTER, route.path, (why, left))

    def confirm(self, path: str, until: float) -> bool:
        """Wait until all that this thread has told the worker at `path` is accepted; return False after that time.

        Raises:
            WorkerDead, MailboxFull: the last of it was refused.
        """
        route = self._of_thread.__dict__.get(path)
        return type(route) is not Route or route.confirm(until)

    def holds_back(self, path: str, value: Any) -> bool:
        """Hold back what this thread tells the worker at `path`, if it belongs to a burst over their connection.

        Raises:
            NotSerializable: it cannot be sent.
        """
        route = self._of_thread.__dict__.get(path)
        return type(route) is Route and route.holds_back(value)

    def known(self, path: str) -> Route | None:
        """Return this thread's connection to the worker at `path`, if there is one."""
        known = self._of_thread.__dict__.get(path)
        if type(known) is not Route:
            _note_other_way(known)
            return None
        if known.broken:
            known.await_settled()
            return None
        return known

    def find(self, path: str) -> Route | None:
        """Return this thread's connection to the worker at `path`, if there is one or one can be made.

        The first message to a worker goes through the hub: a single one is not worth a connection.
        """
        routes: dict[str, Route | float] = self._of_thread.__dict__
        known = routes.get(path)
        if type(known) is Route:
            if not known.broken:
                return known
            known.await_settled()
            known = 0.0
        if not self._may_wait():
            return None
        if known is None:
            if len(routes) >= _PATHS:
                _forget_unconnected(routes)
            routes[path] = 0.0
            return None
        now = time.monotonic()
        if now < known:  # type: ignore[operator]
            _note_other_way(known)
            return None
        if _is_nested():
            return None
        if len(self._all) >= MOST:
            self._close_unused(now)
            if len(self._all) >= MOST:
                return None
        routes[path] = making = _Making(now + PAUSE)  # first: a signal handler that sends meanwhile finds it
        route = self._connect(path)
        if route is None:
            return None
        if making.is_passed:
            route.close_if_idle()
            return None
        routes[path] = route  # without a call since that look, so no signal handler has come in between
        return route

    def _close_unused(self, now: float) -> None:
        """Close the connections of all threads over which nothing was sent between two calls, `UNUSED` apart."""
        if now >= self._close_unused_at:
            self._close_unused_at = now + UNUSED
            for route in self._open():
                if not route.used:
                    route.close_if_idle()
                route.used = False

    def close_ended(self, path: str) -> None:
        """Close the connections to the worker at `path`, whose incarnation has ended, without waiting.

        A connection over which an answer is to come is closed after that.
        """
        for route in self._open():
            if route.path == path:
                route.close_ended()

    def in_use(self) -> list[str]:
        """Close the idle connections of this thread; return the paths of the workers at the other ones.

        What the hub would deliver to these workers for this thread, the thread has to send itself. To all others the
        hub's way is free: nothing is on its way to them over a connection.
        """
        paths = []
        for path, known in list(self._of_thread.__dict__.items()):
            if type(known) is not Route:
                _note_other_way(known)
                continue
            if known.broken:
                known.await_settled()
                continue
            known.close_if_idle()
            if not known.broken:
                paths.append(path)
        return paths

    def send_to(self, owner: str, message: Message, most: int) -> bool:
        """Send a message over this thread's connection to the incarnation `owner`; return False if there is none.

        Raises:
            MailboxFull: `most` messages wait to be sent already, or too many bytes.
        """
        path, serial = split_owner(owner)
        route = self.known(path)
        if route is None:
            return False
        if route.serial != serial:
            route.await_end()
            return False
        return route.send(message, most)

    def leave(self, path: str) -> None:
        """Send nothing more over the connections to the worker at `path`, which is being killed.

        Waits for its end if this thread has one; those of other threads are closed if nobody waits for an answer.
        """
        route = self.known(path)
        if route is not None:
            route.await_end()
        self.close_ended(path)

    def forget(self, route: Route) -> None:
        """Count a connection no longer: it is closed."""
        self._forget(weakref.ref(route))

    def _forget(self, route: weakref.ref[Route]) -> None:
        self._all.pop(route, None)

    def _open(self) -> list[Route]:
        """Return the connections of all threads. The copy is made at once: any thread adds and removes some."""
        return [route for one in list(self._all) if (route := one()) is not None]

    def _connect(self, path: str) -> Route | None:
        answer = self.hub.connect(path)
        try:
            made = answer.get(PATIENCE)
        except AskTimeout:
            answer.when_done(_discard)
            return None
        except WorkerDead:
            return None
        if made is None:
            return None
        if not self._has_reactor():
            os.close(made.descriptor)
            return None
        self._ends.sends = _AtThreadEnd()
        route = Route(self, path, made, self._marks_of(made.slot, made.number))
        self._all[weakref.ref(route, self._forget)] = None
        return route


_in_this_process: weakref.WeakSet[Routes] = weakref.WeakSet()


def _close_after_fork() -> None:
    holders.clear()
    for routes in list(_in_this_process):
        routes.close_after_fork()


after_fork_in_child(_close_after_fork)
os.register_at_fork(before=send_held)


def _forget_unconnected(routes: dict[str, Route | float]) -> None:
    """Remove the paths without an open connection: their next message is a first one again."""
    for path, known in list(routes.items()):
        if type(known) is not Route or known.closed:
            routes.pop(path, None)


def _discard(answer: Any) -> None:
    """Close a connection that has come too late."""
    if answer.exception() is None and answer.result() is not None:
        os.close(answer.result().descriptor)
