"""The event bus of the concept's examples: a queue that another thread empties."""

from __future__ import annotations

import queue
import threading


class EventBus:
    def __init__(self) -> None:
        self.events: queue.Queue[str] = queue.Queue()
        self.seen: list[str] = []
        threading.Thread(target=self.work, daemon=True).start()

    def work(self) -> None:
        while True:
            self.seen.append(self.events.get())


def create_event_bus() -> EventBus:
    return EventBus()
