"""Where workers are found: every path has one address, whichever incarnation answers there now.

The registry belongs to the program that owns the trees (the hub). It is also the one way in: `post` takes every
request that a ref can make, from the hub's own threads and, through the hub's socket, from workers.
"""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from suitkaise.errors import ChildNotFound, RuntimeGone, SuitkaiseError, WorkerDead, WorkerFailed
from suitkaise.exits import Crashed, ExitReason
from suitkaise.messaging.links import LinkedExit, Links, Presence, call_each
from suitkaise.messaging.messages import Answer, Message, Parcel
from suitkaise.messaging.parking import Parking
from suitkaise.statuses import Status

if TYPE_CHECKING:
    from suitkaise.messaging.refs import WorkerRef

__all__ = ["Address", "Keeping", "Post", "Registry", "Target"]

DEPARTED = 1_000
"""How many workers that are over and forgotten can still be asked for their result."""


class Target(Protocol):
    """One incarnation of a worker, as a receiver."""

    def deliver(self, message: Message, *, accepted: bool = False) -> None:
        """Hand the message over; never blocks. Raises MailboxFull, NotSerializable or WorkerDead.

        `accepted`: its sender was told that it is on its way, so it is not refused for want of room.
        """
        ...

    def kill(self, why: str) -> None:
        """End it now."""
        ...


class Keeping(Protocol):
    """What a supervisor offers to the refs of its children."""

    def status_of(self, id: str) -> Status:
        """The child's status, at once."""
        ...

    def order(self, what: str, id: str) -> Answer[Any]:
        """`kill`, `rejoin` or `recall` a child."""
        ...


@runtime_checkable
class Administered(Protocol):
    """A target that has children: a supervisor."""

    def administer(self, what: str, argument: Any) -> Answer[Any]:
        """Carry out what `Administration` asks for."""
        ...


class Post(Protocol):
    """Takes what refs ask for: the registry in the hub, a connection to it elsewhere."""

    def post(self, what: str, path: str, argument: Any = None) -> Answer[Any]:
        """Carry out a request and give the answer, when it is there."""
        ...

    def send(self, path: str, message: Message) -> None:
        """Send a message to the worker at `path`."""
        ...


class Address:
    """A path, and who answers there now."""

    def __init__(self, path: str, id: str, kind: str, keeping: Keeping) -> None:
        self.path = path
        self.id = id
        self.kind = kind
        self.pid: int | None = None
        self.incarnation: int = 0
        self.reason: ExitReason | None = None
        self.result: Parcel | None = None
        self.over: bool = False
        self.keeping = keeping
        self.presence: Presence = Presence()
        self.trap_exits: bool = False
        self._target: Target | None = None
        self._doomed: str | None = None
        self._parked = Parking(path)
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
        if not isinstance(target, Administered):
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
                raise WorkerDead(
                    f"{self.path!r} is over: {self.reason or 'stopped'}", path=self.path, reason=self.reason
                )
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
            self.signal(serial, Message("signal", Parcel(LinkedExit(other, reason))))
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

    def attach(self, target: Target) -> None:
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

    def up(self, target: Target, pid: int) -> None:
        """The incarnation is up; of one that was cut off (rule 59) this means nothing any more."""
        with self._lock:
            if self._target is target:
                self.pid = pid

    def detach(self, reason: ExitReason, result: Parcel | None) -> None:
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
            message.fail(
                WorkerDead(f"{self.path!r} is over: {self.reason or 'stopped'}", path=self.path, reason=self.reason)
            )
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


class Registry:
    """All addresses of a program."""

    def __init__(self) -> None:
        self.services: dict[str, Callable[[str, Any], Any]] = {}
        self._addresses: dict[str, Address] = {}
        self._departed: OrderedDict[str, Address] = OrderedDict()
        self._closed = False
        self._links = Links(self)

    def add(self, path: str, id: str, kind: str, keeping: Keeping) -> Address:
        """The address at `path`, kept by `keeping` from now on; one that is there already stays the same."""
        address = self._addresses.get(path)
        if address is None:
            address = self._addresses[path] = Address(path, id, kind, keeping)
            self._departed.pop(path, None)
        address.keeping = keeping
        return address

    def remove(self, path: str) -> None:
        """The path means nothing any more."""
        address = self._addresses.get(path)
        if address is not None:
            self._departed[path] = address  # first: whoever asks meanwhile finds it there
            del self._addresses[path]
            address.finish()
            if len(self._departed) > DEPARTED:
                self._departed.popitem(last=False)

    def find(self, path: str) -> Address:
        """The address at `path`.

        Raises:
            ChildNotFound: there is none.
        """
        try:
            return self._addresses[path]
        except KeyError:
            if self._closed:
                raise RuntimeGone(f"no tree runs in this program, so there is no worker {path!r}", path=path) from None
            raise ChildNotFound(f"no worker at {path!r}", path=path) from None

    def kind_of(self, path: str) -> str:
        """What is at `path`, or was until not long ago. Raises ChildNotFound."""
        return (self._departed.get(path) or self.find(path)).kind

    def close(self) -> None:
        """The program's last tree has ended; what its workers left behind can still be asked for."""
        self._closed = True
        self.services.clear()

    def __contains__(self, path: object) -> bool:
        return path in self._addresses

    def __len__(self) -> int:
        return len(self._addresses)

    def paths(self) -> list[str]:
        """All known paths."""
        return list(self._addresses)

    # ------------------------------------------------------------ Post
    def send(self, path: str, message: Message) -> None:
        """Send a message; raises what `Address.send` raises."""
        self.find(path).send(message)

    def post(self, what: str, path: str, argument: Any = None) -> Answer[Any]:
        """Carry out one request of a ref."""
        answer: Answer[Any] = Answer()
        try:
            if what in self.services:
                value = self.services[what](path, argument)
                if isinstance(value, Answer):
                    return value
                answer.set_result(value)
                return answer
            if what in ("down", "monitor", "demonitor", "link", "unlink"):
                return self._links.post(what, path, argument)
            gone = self._departed.get(path) if what in ("info", "join", "result") else None
            address = gone or self.find(path)
            match what:
                case "info":
                    answer.set_result((address.status, address.pid, address.incarnation, address.kind))
                case "find":
                    answer.set_result((address.path, address.kind))
                case "join" | "result":
                    settle = _settle_reason if what == "join" else _settle_result
                    callback = partial(settle, address, answer)
                    address.when_over(callback)
                    answer.add_done_callback(lambda done: address.forget(callback))  # cancelled, most likely
                case "kill" | "rejoin" | "recall":
                    return address.order(what)
                case "administer":
                    return address.administer(*argument)
                case _:
                    raise SuitkaiseError(f"nobody answers {what!r}")
        except Exception as error:
            answer.set_exception(error)
        return answer


def _settle_reason(address: Address, answer: Answer[Any]) -> None:
    answer.settle(True, Parcel(address.reason))


def _settle_result(address: Address, answer: Answer[Any]) -> None:
    reason = address.reason
    if address.result is not None:
        answer.settle(True, address.result)
        return
    traceback = reason.traceback if isinstance(reason, Crashed) else ""
    error = WorkerFailed(
        f"{address.path!r} ended without a result: {reason or 'it never ran'}",
        path=address.path, reason=reason, traceback=traceback,
    )  # fmt: skip
    answer.settle(False, Parcel(error))
