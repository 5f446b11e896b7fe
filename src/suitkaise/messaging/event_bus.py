"""The event bus: everything that happens in the trees of a program, to everyone who listens."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator

from suitkaise.events import Event, SupervisorStopped
from suitkaise.messaging.messages import checked_timeout

__all__ = ["Bus", "Subscription"]

logger: logging.Logger = logging.getLogger("suitkaise.events")

BACKLOG = 10_000


class Subscription:
    """An iterator over events, from the moment of its making to the end of what it listens to.

    Close it if you leave earlier, or use it as a context manager.

    At most 10,000 events wait; beyond that the oldest are dropped, and `dropped` counts them.
    """

    def __init__(self, bus: Bus, prefix: str) -> None:
        self.dropped: int = 0
        self._bus = bus
        self._prefix = prefix
        self._events: deque[Event] = deque()
        self._condition = threading.Condition()
        self._closed = False

    def put(self, event: Event) -> None:
        """Add an event, if it belongs to this subscription's part of the tree."""
        if event.path != self._prefix and not event.path.startswith(self._prefix + "/"):
            return
        with self._condition:
            if len(self._events) >= BACKLOG:
                self._events.popleft()
                self.dropped += 1
            self._events.append(event)
            if isinstance(event, SupervisorStopped) and event.path == self._prefix:
                self._closed = True  # nothing can follow
                self._bus.unsubscribe(self.put)
            self._condition.notify_all()

    def get(self, timeout: float | None = None) -> Event | None:
        """The next event, waited for at most `timeout` seconds (None: for ever); None if none came, or when closed."""
        with self._condition:
            self._condition.wait_for(lambda: self._events or self._closed, checked_timeout(timeout))
            return self._events.popleft() if self._events else None

    def close(self) -> None:
        """Listen no more; an iteration over it ends after what has come."""
        self._bus.unsubscribe(self.put)
        with self._condition:
            self._closed = True
            self._condition.notify_all()

    def __iter__(self) -> Iterator[Event]:
        return self

    def __next__(self) -> Event:
        event = self.get()
        if event is None:
            raise StopIteration
        return event

    def __enter__(self) -> Subscription:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class Bus:
    """Calls every listener with every event, in the thread where it happened; a listener must not block."""

    def __init__(self) -> None:
        self._listeners: tuple[Callable[[Event], None], ...] = ()
        self._lock = threading.Lock()

    def subscribe(self, listener: Callable[[Event], None]) -> None:
        """Call `listener` with each event from now on."""
        with self._lock:
            self._listeners = (*self._listeners, listener)

    def unsubscribe(self, listener: Callable[[Event], None]) -> None:
        """Call it no more."""
        with self._lock:
            self._listeners = tuple(one for one in self._listeners if one != listener)

    def events(self, prefix: str) -> Subscription:
        """A subscription to the events of a path and everything below it."""
        subscription = Subscription(self, prefix)
        self.subscribe(subscription.put)
        return subscription

    def publish(self, event: Event) -> None:
        """Tell everyone."""
        for listener in self._listeners:
            try:
                listener(event)
            except Exception:
                logger.exception("a listener failed")
