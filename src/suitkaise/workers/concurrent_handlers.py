"""Several messages handled at once, each in a task of the worker's event loop (Ray's `max_concurrency`).

The messages are taken in their order, and their handlers start in that order. A handler that runs when `limit` of them
run already does not exist: the next message stays in the inbox. The board shows `on_receive` since the start of the
oldest handler that runs, so hang detection judges each handler by its own time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from functools import partial
from typing import Any, Protocol

from suitkaise.messaging.messages import Message
from suitkaise.workers.event_loop import take_cancellation

__all__ = ["CURRENT", "Handlers", "Host"]

CURRENT: ContextVar[list[Message] | None] = ContextVar("suitkaise_message", default=None)
"""The message whose handler has started this task, or is it; none when the handler has ended."""


class Host(Protocol):
    """What the handlers need of the life cycle of their worker."""

    def is_over(self) -> bool:
        """Return whether the worker has ended, so that its tasks are cancelled."""

    def handle(self, message: Message) -> Any:
        """Call the handler of a message; return its value, which may be a coroutine."""

    def answer(self, message: Message, value: Any) -> None:
        """Answer with the value that the handler has returned."""

    def refused(self, message: Message, error: BaseException) -> bool:
        """Answer if the error is of the message alone; return False if it ends the worker."""

    def changed(self) -> None:
        """Called when a handler has begun or ended."""

    def failed(self) -> None:
        """Called when the first handler has failed; the worker is to end, and to look at `Handlers.failure`."""


class Handlers:
    """The handlers of one worker that run, at most `limit` of them. All methods are for the thread of the worker.

    Args:
        limit: how many may run at a time.
        host: the worker's life cycle.
        create_task: starts a task in the worker's event loop.
        stopping: is done as soon as the worker is asked to stop.
    """

    def __init__(
        self,
        limit: int,
        host: Host,
        create_task: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        stopping: asyncio.Future[None],
    ) -> None:
        self.failure: tuple[Message, BaseException] | None = None
        """The first message whose handler has failed, and the error."""
        self._limit = limit
        self._host = host
        self._create_task = create_task
        self._stopping = stopping
        self._running: dict[Message, float] = {}  # with the time (monotonic) of their start, the oldest first
        self._tasks: set[asyncio.Task[None]] = set()
        self._left: list[Message] = []  # whose handlers have ended with the worker

    def start(self, message: Message) -> None:
        """Start the handler of a message, in a task."""
        self._running[message] = time.monotonic()
        task = self._create_task(self._handle(message))
        self._tasks.add(task)
        task.add_done_callback(partial(self._forget, message))

    def _forget(self, message: Message, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if self._running.pop(message, None) is not None:  # it was cancelled before its first step
            self._end_with(message, asyncio.CancelledError())
            self._host.changed()

    async def _handle(self, message: Message) -> None:
        current = [message]
        CURRENT.set(current)
        self._running[message] = time.monotonic()  # another task may have kept the loop from starting this one
        self._host.changed()
        try:
            value = self._host.handle(message)
            if isinstance(value, Coroutine):
                value = await value
            await take_cancellation()
            self._host.answer(message, value)
        except BaseException as error:
            self._end_with(message, error)
        finally:
            current.clear()  # tasks that the handler has started go on
            del self._running[message]
            self._host.changed()

    def _end_with(self, message: Message, error: BaseException) -> None:
        if self._host.refused(message, error):
            return
        if self.failure is not None or self._host.is_over():
            self._left.append(message)
            return
        self.failure = message, error
        self._host.failed()

    @property
    def oldest(self) -> float | None:
        """When the oldest handler that runs has begun (monotonic); None while none runs."""
        return next(iter(self._running.values()), None)

    @property
    def full(self) -> bool:
        """Whether no other handler may start now."""
        return len(self._running) >= self._limit

    async def wait_for_room(self) -> None:
        """Return when another handler may start, when one has failed, or when the worker is asked to stop just now."""
        stop_ends_the_wait = not self._stopping.done()
        while self.full and self.failure is None and not (stop_ends_the_wait and self._stopping.done()):
            ends = [self._stopping] if stop_ends_the_wait else []
            await asyncio.wait([*self._tasks, *ends], return_when=asyncio.FIRST_COMPLETED)

    async def wait_for_all(self) -> None:
        """Return when no handler runs any more, or when one has failed."""
        while self._running and self.failure is None:
            await asyncio.wait(list(self._tasks), return_when=asyncio.FIRST_COMPLETED)

    def unanswered(self) -> list[Message]:
        """Return the messages whose handlers run, or have ended with the worker."""
        return [*self._left, *self._running]
