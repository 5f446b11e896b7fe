"""Links and monitors (rule 60): who is told, or ends, when an incarnation ends. The hub keeps them.

A ref names a path, and survives restarts. A monitor or a link is about the incarnation that lives there now: when that
ends, in whatever way, the bond is used up, also if the worker is restarted.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from suitkaise.errors import ChildNotFound, WorkerDead
from suitkaise.exits import ExitReason, Lost
from suitkaise.messaging.identity import split_owner
from suitkaise.messaging.messages import Answer, Message, Payload
from suitkaise.messaging.refs import Down, Monitor

if TYPE_CHECKING:
    from suitkaise.messaging.address import Address
    from suitkaise.messaging.refs import WorkerRef
    from suitkaise.messaging.registry import Registry

__all__ = ["Links"]

logger: logging.Logger = logging.getLogger("suitkaise.links")

NOBODY = Lost("nobody was there")


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
            answer.settle(True, Payload(Down(self._ref(path), reason)))

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
        watcher, target = self._find(split_owner(monitor.watcher)[0]), self._find(monitor.path)
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
        path, serial = split_owner(owner)
        address = self._find(path)
        if address is None or address.presence.serial != serial:
            raise WorkerDead.just_ended(path)
        return address, serial

    def _find(self, path: str) -> Address | None:
        try:
            return self._registry.find(path)
        except ChildNotFound:
            return None

    def _ref(self, path: str) -> WorkerRef:
        from suitkaise.messaging.supervisor_ref import ref_to

        address = self._find(path)
        return ref_to(path, "process" if address is None else address.kind)


def _last(target: Address | None) -> ExitReason:
    return NOBODY if target is None or target.reason is None else target.reason


def _message(body: Any) -> Message:
    return Message("signal", Payload(body))
