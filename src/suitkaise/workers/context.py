"""The monitors and links that one incarnation has asked for (rule 60)."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from suitkaise.messaging.protocol import RequestKind
from suitkaise.messaging.refs import Down, Monitor
from suitkaise.messaging.router import router

if TYPE_CHECKING:
    from suitkaise.messaging.refs import WorkerRef

__all__ = ["WorkerLinks"]


class WorkerLinks:
    """What it has asked the hub for, which keeps them. `owner`: the incarnation."""

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self._monitors: set[Monitor] = set()
        self._numbers = itertools.count(1)

    def monitor(self, ref: WorkerRef) -> Monitor:
        """Have a `Down` delivered when the incarnation that `ref` names now has ended."""
        monitor = Monitor(ref.path, self._owner, next(self._numbers))
        self._monitors.add(monitor)
        router().request(RequestKind.MONITOR, ref.path, monitor).get()
        return monitor

    def demonitor(self, monitor: Monitor) -> None:
        """No `Down` of it will be delivered any more."""
        if monitor in self._monitors:
            self._monitors.discard(monitor)
            router().request(RequestKind.DEMONITOR, monitor.path, monitor).get()

    def link(self, ref: WorkerRef) -> None:
        """End together with another one."""
        router().request(RequestKind.LINK, ref.path, self._owner).get()

    def unlink(self, ref: WorkerRef) -> None:
        """Undo `link`."""
        router().request(RequestKind.UNLINK, ref.path, self._owner).get()

    def wants(self, signal: Any) -> bool:
        """Whether the monitor of a `Down` still stands; it is used up now."""
        if not isinstance(signal, Down) or signal.monitor is None:
            return True
        stands = signal.monitor in self._monitors
        self._monitors.discard(signal.monitor)
        return stands
