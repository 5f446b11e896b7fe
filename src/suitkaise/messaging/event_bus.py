"""The event bus: passes all events of a program's trees to all listeners."""

from __future__ import annotations

import contextlib
import functools
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from typing import NoReturn

from suitkaise.events import Event, SupervisorStopped
from suitkaise.messaging.answer import checked_timeout
from suitkaise.platform.flag import Flag
from suitkaise.platform.locks import RLock
from suitkaise.platform.log_queue import QueuedLogger

__all__ = ["Bus", "Subscription"]

logger: QueuedLogger = QueuedLogger("suitkaise.events")

BACKLOG = 10_000
"""How many events of a subscription may wait."""


class Subscription:
    """An iterator over the events of a part of a tree, from now until that part stops.

    In an event loop, `async for event in events:` waits without blocking it. Close it to end it earlier, or use it as a
    context manager.

    At most 10,000 events wait; beyond that the oldest are dropped, and `dropped` counts them.

    >>> from suitkaise import Supervisor, Thread
    >>> class Job(Thread):
    ...     restart = "temporary"
    ...
    ...     def on_receive(self, message: str) -> None:
    ...         self.rejoin()
    >>> with Supervisor("app", Job, Supervisor("others")).start() as running, running.events() as events:
    ...     running["job"].tell("end")
    ...     for event in events:
    ...         print(event.kind, "-", event.path, "-", event.reason)
    ...         break
    child_exited - app/job - normal
    """

    def __init__(self, bus: Bus, prefix: str) -> None:
        self.dropped: int = 0
        self._bus = bus
        self._prefix = prefix
        self._events: deque[Event] = deque()
        self._lock = RLock()
        self._closed = False
        self._awaiting: list[Callable[[], object]] = []  # each wakes a thread or a task

    def __reduce__(self) -> NoReturn:
        raise TypeError("the events of a tree are read in the program that runs it; send the events")

    def put(self, event: Event) -> None:
        """Add an event, if it belongs to the subscription's part of the tree."""
        if event.path != self._prefix and not event.path.startswith(self._prefix + "/"):
            return
        with self._lock:
            if len(self._events) >= BACKLOG:
                with contextlib.suppress(IndexError):  # another thread has just taken the last one
                    self._events.popleft()
                    self.dropped += 1
            self._events.append(event)
            if isinstance(event, SupervisorStopped) and event.path == self._prefix:
                self._closed = True  # nothing can follow
                self._bus.unsubscribe(self.put)
            self._wake()

    def get(self, timeout: float | None = None) -> Event | None:
        """Return the next event; None after `timeout` seconds (None: for ever) or if the subscription is closed."""
        seconds = checked_timeout(timeout)
        deadline = None if seconds is None else time.monotonic() + seconds
        while True:
            woken = Flag()  # what is put from now on, also by a signal handler of this thread, ends the wait
            self._awaiting.append(woken.set)
            try:
                closed = self._closed  # first: what was put before the end is got
                with contextlib.suppress(IndexError):
                    return self._events.popleft()
                left = None if deadline is None else deadline - time.monotonic()
                if closed or (left is not None and left <= 0):
                    return None
                woken.wait(left)
            finally:
                self._awaiting.remove(woken.set)

    def close(self) -> None:
        """End the subscription; an iteration over it ends after the events that wait."""
        self._bus.unsubscribe(self.put)
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        for wake in tuple(self._awaiting):
            with contextlib.suppress(RuntimeError):  # its event loop has ended
                wake()

    def __iter__(self) -> Iterator[Event]:
        return self

    def __next__(self) -> Event:
        event = self.get()
        if event is None:
            raise StopIteration
        return event

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        import asyncio  # takes 35 ms: only an event loop pays for it

        loop = asyncio.get_running_loop()
        while True:
            woken = asyncio.Event()
            wake = functools.partial(loop.call_soon_threadsafe, woken.set)
            self._awaiting.append(wake)  # first, as above
            try:
                closed = self._closed
                with contextlib.suppress(IndexError):
                    return self._events.popleft()
                if closed:
                    raise StopAsyncIteration
                await woken.wait()
            finally:
                self._awaiting.remove(wake)

    def __enter__(self) -> Subscription:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class Bus:
    """Calls all listeners with each event, in the thread of the event; a listener must not block."""

    def __init__(self) -> None:
        self._listeners: list[Callable[[Event], None]] = []  # without a lock: a signal handler may subscribe, too

    def subscribe(self, listener: Callable[[Event], None]) -> None:
        """Call `listener` with each event from now on."""
        self._listeners.append(listener)

    def unsubscribe(self, listener: Callable[[Event], None]) -> None:
        """Stop calling `listener`."""
        with contextlib.suppress(ValueError):
            self._listeners.remove(listener)

    def events(self, prefix: str) -> Subscription:
        """Return a subscription to the events of the path `prefix` and all paths below it."""
        subscription = Subscription(self, prefix)
        self.subscribe(subscription.put)
        return subscription

    def publish(self, event: Event) -> None:
        """Call all listeners with `event`."""
        for listener in tuple(self._listeners):
            try:
                listener(event)
            except Exception:
                logger.exception("a listener raised an exception")
