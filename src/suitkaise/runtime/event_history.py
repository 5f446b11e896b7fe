"""The last events of a program, for observers that were not there when they happened."""

from __future__ import annotations

from collections import deque
from typing import Any

from suitkaise.crashes import CrashLog
from suitkaise.events import EndEvent, Event
from suitkaise.platform.locks import RLock

__all__ = ["KEPT", "EventHistory"]

KEPT = 1_000
"""How many events are kept; the oldest are dropped."""


class EventHistory:
    """Keeps events and numbers them from 1; an event is turned into plain values when it is asked for, not before."""

    def __init__(self, crashes: CrashLog) -> None:
        self._crashes = crashes
        self._lock = RLock()  # a signal handler may publish, too
        self._events: deque[Event] = deque(maxlen=KEPT)
        self._last = 0

    def put(self, event: Event) -> None:
        """Keep an event."""
        with self._lock:
            self._events.append(event)
            self._last += 1

    def after(self, number: int) -> dict[str, Any]:
        """Return the events that came after event `number`, and their crash reports; ready for JSON.

        Returns:
            `last`: the number of the newest event, which the next call is given. `events`: the newest last, each with
            its number, level and text. `reports`: the crash reports that these events name, as far as they are kept.
        """
        with self._lock:
            last = self._last
            new = min(max(0, last - number), len(self._events))
            events = [self._events[index] for index in range(len(self._events) - new, len(self._events))]
        told, reports = [], []
        for count, event in enumerate(events, last - new + 1):
            text = str(event).removeprefix(f"{event.path} ")
            told.append(event.to_dict() | {"number": count, "level": event.level, "text": text})
            if isinstance(event, EndEvent) and event.report:
                reports += [one.to_dict() for one in self._crashes.reports(event.path) if one.id == event.report]
        return {"last": last, "events": told, "reports": reports}
