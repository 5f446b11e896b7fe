"""Links and monitors (rule 60): who is told, or ends, when an incarnation ends. The hub keeps them.

A ref names a path, and survives restarts. A monitor or a link is about the incarnation that lives there now: when that
ends, in whatever way, the bond is used up, also if the worker is restarted.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from suitkaise.errors import ChildNotFound, WorkerDead
from suitkaise.exits import ExitReason, Lost
from suitkaise.messaging.messages import Answer, Message, Parcel

if TYPE_CHECKING:
    from suitkaise.messaging.refs import WorkerRef
    from suitkaise.messaging.registry import Address, Registry

__all__ = ["Down", "LinkedExit", "Links", "Monitor", "Presence", "call_each"]

logger: logging.Logger = logging.getLogger("suitkaise.links")

NOBODY = Lost("nobody was there")


@dataclass(frozen=True, slots=True)
class Monitor:
    """What `self.monitor(ref)` returns: which one a `Down` belongs to, and what `self.demonitor` takes."""

    path: str
    watcher: str
    number: int


@dataclass(frozen=True, slots=True)
class Down:
    """The message that a monitor delivers, exactly once: the incarnation that `ref` named has ended.

    `reason` is its exit reason; `Lost` if nobody was there. `monitor` is None where a program asked, not a worker.
    """

    ref: WorkerRef
    reason: ExitReason
    monitor: Monitor | None = None


@dataclass(frozen=True, slots=True)
class LinkedExit:
    """The message that a worker with `trap_exits` gets when one that it is linked to has ended (`{'EXIT', ...}`)."""

    ref: WorkerRef
    reason: ExitReason


class Presence:
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


class Links:
    """Makes and unmakes the bonds between the addresses of a registry. May be called from any thread."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def post(self, what: str, path: str, argument: Any) -> Answer[Any]:
        """Carry out what a ref or a worker asks for."""
        answer: Answer[Any] = Answer()
        match what:
            case "down":
                self._await_down(path, answer)
                return answer
            case "monitor":
                self._monitor(path, argument)
            case "demonitor":
                self._demonitor(argument)
            case "link":
                self._link(path, argument)
            case "unlink":
                self._unlink(path, argument)
        answer.set_result(None)
        return answer

    def _await_down(self, path: str, answer: Answer[Any]) -> None:
        def tell(reason: ExitReason) -> None:
            answer.settle(True, Parcel(Down(self._ref(path), reason)))

        target, key = self._find(path), ("down", id(answer))
        if target is None or not target.presence.at_end(key, tell):
            tell(_last(target))
        else:
            presence = target.presence
            answer.add_done_callback(lambda done: presence.forget(key))  # cancelled, most likely

    def _monitor(self, path: str, monitor: Monitor) -> None:
        watcher, serial = self._caller(monitor.watcher)
        target = self._find(path)

        def tell(reason: ExitReason) -> None:
            watcher.presence.forget(("own", monitor))
            watcher.signal(serial, _message(Down(self._ref(path), reason, monitor)))

        def leave(reason: ExitReason) -> None:
            if target is not None:
                target.presence.forget(monitor)

        if not watcher.presence.at_end(("own", monitor), leave, serial):
            return  # the watcher has just ended
        if target is None or not target.presence.at_end(monitor, tell):
            tell(_last(target))

    def _demonitor(self, monitor: Monitor) -> None:
        watcher, target = self._find(monitor.watcher.rpartition("#")[0]), self._find(monitor.path)
        if target is not None:
            target.presence.forget(monitor)
        if watcher is not None:
            watcher.presence.forget(("own", monitor))

    def _link(self, path: str, owner: str) -> None:
        one, serial = self._caller(owner)
        if one.path == path:
            return
        other = self._find(path)
        there = None if other is None else other.presence.serial
        if other is None or there is None:
            one.end_with(serial, self._ref(path), NOBODY)
            return

        def one_ends(reason: ExitReason) -> None:
            other.presence.forget(("link", one.path))
            other.end_with(there, self._ref(one.path), reason)

        def other_ends(reason: ExitReason) -> None:
            one.presence.forget(("link", path))
            one.end_with(serial, self._ref(path), reason)

        if not one.presence.at_end(("link", path), one_ends, serial):
            return  # it has just ended by itself
        if not other.presence.at_end(("link", one.path), other_ends, there):
            other_ends(NOBODY)

    def _unlink(self, path: str, owner: str) -> None:
        one, _ = self._caller(owner)
        other = self._find(path)
        one.presence.forget(("link", path))
        if other is not None:
            other.presence.forget(("link", one.path))

    def _caller(self, owner: str) -> tuple[Address, int]:
        """The address of the worker that asks, and which incarnation it is."""
        path, _, serial = owner.rpartition("#")
        address = self._find(path)
        if address is None or address.presence.serial != int(serial):
            raise WorkerDead(f"{path!r} has just ended", path=path)
        return address, int(serial)

    def _find(self, path: str) -> Address | None:
        try:
            return self._registry.find(path)
        except ChildNotFound:
            return None

    def _ref(self, path: str) -> WorkerRef:
        from suitkaise.messaging.administration import ref_to

        address = self._find(path)
        return ref_to(path, "process" if address is None else address.kind)


def _last(target: Address | None) -> ExitReason:
    return NOBODY if target is None or target.reason is None else target.reason


def _message(body: Any) -> Message:
    return Message("signal", Parcel(body))
