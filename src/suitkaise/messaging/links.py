"""Links and monitors (rule 60): the end of one incarnation is reported to another one, or ends it. The hub keeps them.

A ref names a path, and survives restarts. A monitor or a link belongs to the incarnation that is at that path now:
when that incarnation ends, in whatever way, the monitor or link is used up, also if the worker is restarted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from suitkaise.errors import ChildNotFound, WorkerDead
from suitkaise.exits import ExitReason, Lost
from suitkaise.messaging.address import Address
from suitkaise.messaging.answer import Answer
from suitkaise.messaging.identity import split_owner
from suitkaise.messaging.messages import Message, Payload
from suitkaise.messaging.refs import Down, Monitor, WorkerRef

__all__ = ["Links"]

NOT_ALIVE = Lost("no incarnation was alive")


class Links:
    """Makes and removes links and monitors between addresses. Its methods may be called from any thread.

    Args:
        find: returns the address at a path; raises ChildNotFound.
        ref: makes the ref for a path and the kind of child there.
    """

    def __init__(self, find: Callable[[str], Address], ref: Callable[[str, str], WorkerRef]) -> None:
        self._find_address = find
        self._make_ref = ref

    def await_down(self, path: str, answer: Answer[Any]) -> None:
        """Settle `answer` with a `Down` when the incarnation at `path` ends; at once if there is none."""

        def report(reason: ExitReason) -> None:
            answer.settle(True, Payload(Down(self._ref(path), reason)))

        target, key = self._find(path), ("down", id(answer))
        if target is None or not target.watchers.add(key, report):
            report(_last_reason(target))
        else:
            watchers = target.watchers
            answer.when_done(lambda done: watchers.remove(key))  # cancelled, most likely

    def monitor(self, path: str, monitor: Monitor) -> None:
        """Send a `Down` to the watcher when the incarnation at `path` ends; at once if there is none."""
        watcher, serial = self._caller(monitor.watcher)
        target = self._find(path)

        def report(reason: ExitReason) -> None:
            watcher.watchers.remove(("own", monitor))
            watcher.signal(serial, _signal(Down(self._ref(path), reason, monitor)))

        def remove(reason: ExitReason) -> None:
            if target is not None:
                target.watchers.remove(monitor)

        if not watcher.watchers.add(("own", monitor), remove, serial):
            return  # the watcher has just ended
        if target is None or not target.watchers.add(monitor, report):
            report(_last_reason(target))

    def demonitor(self, monitor: Monitor) -> None:
        """Remove a monitor."""
        watcher, target = self._find(split_owner(monitor.watcher)[0]), self._find(monitor.path)
        if target is not None:
            target.watchers.remove(monitor)
        if watcher is not None:
            watcher.watchers.remove(("own", monitor))

    def link(self, path: str, owner: str) -> None:
        """Link the calling incarnation `owner` with the one at `path`; end the caller at once if there is none."""
        one, serial = self._caller(owner)
        if one.path == path:
            return
        other = self._find(path)
        other_serial = None if other is None else other.watchers.serial
        if other is None or other_serial is None:
            one.end_with(serial, self._ref(path), NOT_ALIVE)
            return

        def one_ended(reason: ExitReason) -> None:
            other.watchers.remove(("link", one.path))
            other.end_with(other_serial, self._ref(one.path), reason)

        def other_ended(reason: ExitReason) -> None:
            one.watchers.remove(("link", path))
            one.end_with(serial, self._ref(path), reason)

        if not one.watchers.add(("link", path), one_ended, serial):
            return  # the caller has just ended by itself
        if not other.watchers.add(("link", one.path), other_ended, other_serial):
            other_ended(NOT_ALIVE)

    def unlink(self, path: str, owner: str) -> None:
        """Remove the link between the calling incarnation `owner` and the one at `path`."""
        one, _ = self._caller(owner)
        other = self._find(path)
        one.watchers.remove(("link", path))
        if other is not None:
            other.watchers.remove(("link", one.path))

    def trap_exits(self, owner: str, on: bool) -> None:
        """Set whether the end of linked incarnations is delivered to the calling incarnation `owner`."""
        caller, _ = self._caller(owner)
        caller.trap_exits = on

    def _caller(self, owner: str) -> tuple[Address, int]:
        """Return the address of the calling worker, and the serial number of its incarnation."""
        path, serial = split_owner(owner)
        address = self._find(path)
        if address is None or address.watchers.serial != serial:
            raise WorkerDead.just_ended(path)
        return address, serial

    def _find(self, path: str) -> Address | None:
        try:
            return self._find_address(path)
        except ChildNotFound:
            return None

    def _ref(self, path: str) -> WorkerRef:
        address = self._find(path)
        return self._make_ref(path, "process" if address is None else address.kind)


def _last_reason(target: Address | None) -> ExitReason:
    return NOT_ALIVE if target is None or target.reason is None else target.reason


def _signal(body: Any) -> Message:
    return Message("signal", Payload(body))
