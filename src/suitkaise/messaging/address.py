"""A path of a tree: the incarnation that answers there now, the messages that wait for it, and its end."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Hashable, Iterable
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from suitkaise.errors import ChildNotFound, MailboxFull, SuitkaiseError, WorkerDead
from suitkaise.exits import ExitReason
from suitkaise.messaging.links import logger
from suitkaise.messaging.messages import Answer, Message, Payload
from suitkaise.messaging.refs import LinkedExit
from suitkaise.status import Status

if TYPE_CHECKING:
    from suitkaise.messaging.refs import WorkerRef

__all__ = ["MOST", "MOST_BYTES", "Address", "ExitWatchers", "Parent", "PendingMessages", "Receiver", "call_each"]

MOST = 10_000
"""How many messages may wait for a worker that is being restarted."""

MOST_BYTES = 64 << 20
"""And how many bytes, if it is in a process of its own. (To a thread the values themselves go, not copies.)"""


class PendingMessages:
    """What waits for the worker at `path`. The caller sees to it that one thread at a time uses it."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._waiting: deque[tuple[Message, int]] = deque()
        self._bytes = 0

    def add(self, message: Message, *, accepted: bool = False) -> None:
        """Keep a message behind the others.

        Raises:
            MailboxFull: too many wait, or too much; this one is not kept. Not if it was `accepted` already.
        """
        size = message.body.size
        if not accepted:
            if len(self._waiting) >= MOST:
                self._refuse(f"{MOST} messages wait")
            if self._waiting and self._bytes + size > MOST_BYTES:  # a single one may have any size
                self._refuse(f"{self._bytes} bytes of messages wait")
        self._waiting.append((message, size))
        self._bytes += size

    def _refuse(self, what: str) -> None:
        raise MailboxFull(f"{what} already for {self._path!r} to come back", path=self._path)

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def first(self) -> Message:
        """The one that has waited longest."""
        return self._waiting[0][0]

    def drop_first(self) -> None:
        """It waits no more."""
        self._bytes -= self._waiting.popleft()[1]

    def drop_signals(self) -> None:
        """What links and monitors tell is for one incarnation alone."""
        self._waiting = deque(one for one in self._waiting if one[0].kind != "signal")
        self._bytes = sum(size for _, size in self._waiting)

    def take_all(self) -> list[Message]:
        """All that wait; none does any more."""
        messages = [message for message, _ in self._waiting]
        self._waiting.clear()
        self._bytes = 0
        return messages


class ExitWatchers:
    """Whether an incarnation lives at an address, and what is to be done when it ends."""

    def __init__(self) -> None:
        self.serial: int | None = None
        self._ends: dict[Hashable, Callable[[ExitReason], None]] = {}
        self._lock = threading.Lock()

    def begin(self, serial: int) -> None:
        """A new incarnation lives."""
        with self._lock:
            self.serial = serial

    def end(self) -> list[Callable[[ExitReason], None]]:
        """It is gone; those who asked for it, whom `call_each` tells with the reason."""
        with self._lock:
            self.serial = None
            ends, self._ends = self._ends, {}
        return list(ends.values())

    def at_end(self, key: Hashable, callback: Callable[[ExitReason], None], serial: int | None = None) -> bool:
        """Call back when the incarnation (the one of that `serial`) ends; False if it does not live."""
        with self._lock:
            if self.serial is None or serial not in (None, self.serial):
                return False
            self._ends[key] = callback
            return True

    def forget(self, key: Hashable) -> None:
        """Do not call back."""
        with self._lock:
            self._ends.pop(key, None)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._ends

    def __len__(self) -> int:
        return len(self._ends)


_turn = threading.local()


def call_each(callbacks: Iterable[Callable[[ExitReason], None]], reason: ExitReason) -> None:
    """Call those who asked for an end.

    That may cause the next end, and so on: inside of such a call, those of the next end are called after it, so that
    a long chain of links does not exhaust the stack.
    """
    waiting: deque[tuple[Callable[[ExitReason], None], ExitReason]] | None = getattr(_turn, "waiting", None)
    if waiting is not None:
        waiting.extend((callback, reason) for callback in callbacks)
        return
    _turn.waiting = waiting = deque((callback, reason) for callback in callbacks)
    try:
        while waiting:
            callback, why = waiting.popleft()
            try:
                callback(why)
            except Exception:
                logger.exception("one that is linked to a worker, or monitors it, could not be told of its end")
    finally:
        del _turn.waiting


class Receiver(Protocol):
    """One incarnation of a worker, as a receiver."""

    def deliver(self, message: Message, *, accepted: bool = False) -> None:
        """Hand the message over; never blocks. Raises MailboxFull, NotSerializable or WorkerDead.

        `accepted`: its sender was told that it is on its way, so it is not refused for want of room.
        """
        ...

    def kill(self, why: str) -> None:
        """End it now."""
        ...


class Parent(Protocol):
    """What a supervisor offers to the refs of its children."""

    def status_of(self, id: str) -> Status:
        """The child's status, at once."""
        ...

    def order(self, what: str, id: str) -> Answer[Any]:
        """`kill`, `rejoin` or `recall` a child."""
        ...


@runtime_checkable
class HasChildren(Protocol):
    """A target that has children: a supervisor."""

    def administer(self, what: str, argument: Any) -> Answer[Any]:
        """Carry out what `Administration` asks for."""
        ...


class Address:
    """A path, and who answers there now."""

    def __init__(self, path: str, id: str, kind: str, keeping: Parent) -> None:
        self.path = path
        self.id = id
        self.kind = kind
        self.pid: int | None = None
        self.incarnation: int = 0
        self.reason: ExitReason | None = None
        self.result: Payload | None = None
        self.over: bool = False
        self.keeping = keeping
        self.presence: ExitWatchers = ExitWatchers()
        self.trap_exits: bool = False
        self._target: Receiver | None = None
        self._doomed: str | None = None
        self._parked = PendingMessages(path)
        self._waiters: dict[Callable[[], None], None] = {}
        self._lock = threading.RLock()

    @property
    def status(self) -> Status:
        """What the child does now."""
        try:
            return self.keeping.status_of(self.id)
        except ChildNotFound:  # a temporary one, or deleted
            return Status.STOPPED if self.reason is None or self.reason.clean else Status.CRASHED

    def order(self, what: str) -> Answer[Any]:
        """Pass an order on to the supervisor."""
        return self.keeping.order(what, self.id)

    def administer(self, what: str, argument: Any) -> Answer[Any]:
        """Pass a request on to the supervisor that answers here.

        Raises:
            ChildNotFound: a worker answers here, or nobody at the moment.
        """
        target: Any = self._target
        if not isinstance(target, HasChildren):
            trouble = "it is a worker" if self.kind != "supervisor" else f"it is {self.status}"
            raise ChildNotFound(f"no running supervisor at {self.path!r}: {trouble}", path=self.path)
        return target.administer(what, argument)

    def send(self, message: Message) -> None:
        """Deliver a message now, or keep it until the worker is back."""
        if self.kind == "supervisor":
            raise SuitkaiseError(f"{self.path!r} is a supervisor; it takes no messages", path=self.path)
        if self.kind in ("process", "command"):
            message.body.data  # noqa: B018  (encoded here: the sender gets the error, and nobody waits for the lock)
        with self._lock:
            if self._target is not None:
                try:
                    self._target.deliver(message)
                    return
                except WorkerDead:  # it has just ended, which its supervisor is about to hear
                    self._target = None
            if self.over:
                raise WorkerDead.over(self.path, self.reason)
            self._parked.add(message)

    def begin(self, serial: int, *, trap_exits: bool = False) -> None:
        """A new incarnation is on its way: others can be bound to it, and it to others."""
        with self._lock:
            self.trap_exits, self._doomed = trap_exits, None
        self.presence.begin(serial)

    def signal(self, serial: int, message: Message) -> None:
        """Deliver to that incarnation only, if it lives."""
        with self._lock:
            if self.presence.serial != serial:
                return
            if self._target is None:
                self._parked.add(message, accepted=True)
                return
            with contextlib.suppress(WorkerDead):
                self._target.deliver(message, accepted=True)

    def end_with(self, serial: int, other: WorkerRef, reason: ExitReason) -> None:
        """That incarnation is linked to another one, which has ended: it is told, or ends, too (rule 60)."""
        if self.trap_exits:
            self.signal(serial, Message("signal", Payload(LinkedExit(other, reason))))
        elif not reason.clean:
            why = f"linked to {other.path!r}, which ended: {reason}"
            with self._lock:
                target = self._target
                if self.presence.serial != serial:
                    return
                if target is None:
                    self._doomed = why
            if target is not None:
                target.kill(why)

    def attach(self, target: Receiver) -> None:
        """A new incarnation answers here from now on; what waited goes to it first."""
        with self._lock:
            self._target = target
            self.incarnation += 1
            self.over, self.pid = False, None
            if self._doomed is not None:
                target.kill(self._doomed)
            while self._parked:
                try:
                    target.deliver(self._parked.first, accepted=True)
                except WorkerDead:  # it has just ended: they wait for the next one
                    self._target = None
                    return
                except SuitkaiseError as error:
                    self._parked.first.fail(error)
                self._parked.drop_first()

    def up(self, target: Receiver, pid: int) -> None:
        """The incarnation is up; of one that was cut off (rule 59) this means nothing any more."""
        with self._lock:
            if self._target is target:
                self.pid = pid

    def detach(self, reason: ExitReason, result: Payload | None) -> None:
        """The incarnation is gone; messages wait for the next one, if there will be one."""
        with self._lock:
            self._target, self.pid = None, None
            self.reason, self.result = reason, result
            bonds = self.presence.end()
            self._parked.drop_signals()  # those were for this one
        call_each(bonds, reason)

    def finish(self) -> None:
        """There will be no next one: those who wait get to know."""
        with self._lock:
            if self.over:
                return
            self.over, self._target, self.pid = True, None, None
            parked = self._parked.take_all()
            waiters, self._waiters = self._waiters, {}
        for message in parked:
            message.fail(WorkerDead.over(self.path, self.reason))
        for waiter in waiters:
            waiter()

    def when_over(self, callback: Callable[[], None]) -> None:
        """Call back when the last incarnation is gone; at once if it is."""
        with self._lock:
            if not self.over:
                self._waiters[callback] = None
                return
        callback()

    def forget(self, callback: Callable[[], None]) -> None:
        """Do not call it back any more."""
        with self._lock:
            self._waiters.pop(callback, None)
