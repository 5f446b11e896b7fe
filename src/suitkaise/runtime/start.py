"""Starting a tree from an event loop, which goes on meanwhile: `async with tree.start_async() as running`."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Generator
from types import TracebackType
from typing import Any, TypeVar

from suitkaise.runtime.running_tree import RunningTree, start
from suitkaise.specs import Supervisor

__all__ = ["AsyncStart", "run_in_thread_shielded", "wait_until_done"]


class AsyncStart:
    """What `Supervisor.start_async` returns: enter it, or await it; the tree starts then.

    Threads of the loop's default executor wait for the start and for the stop.
    """

    def __init__(self, tree: Supervisor) -> None:
        self._tree = tree
        self._running: RunningTree | None = None
        self._given_up = False
        self._up: threading.Event | None = None

    async def __aenter__(self) -> RunningTree:
        starting = asyncio.ensure_future(asyncio.to_thread(start, self._tree, self._wait))
        try:
            self._running = await asyncio.shield(starting)
        except asyncio.CancelledError:
            self._give_up()
            await wait_until_done(starting)
            if not starting.cancelled() and starting.exception() is None:  # it was up already
                await wait_until_done(asyncio.ensure_future(asyncio.to_thread(starting.result().stop)))
            raise
        return self._running

    def __await__(self) -> Generator[Any, None, RunningTree]:
        return self.__aenter__().__await__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._running is not None
        await self._running.__aexit__(kind, error, traceback)

    def _wait(self, up: threading.Event) -> None:
        """In a thread: wait until the tree is up, or nobody wants it any more."""
        self._up = up
        if not self._given_up:
            up.wait()
        if self._given_up:
            raise _GivenUp

    def _give_up(self) -> None:
        self._given_up = True
        if self._up is not None:
            self._up.set()


class _GivenUp(Exception):
    """Whoever wanted the tree was cancelled."""


T = TypeVar("T")


async def run_in_thread_shielded(function: Callable[..., T], *args: Any) -> T:
    """Call it in a thread of the loop's default executor. Cancelled, this raises once the call has returned."""
    call = asyncio.ensure_future(asyncio.to_thread(function, *args))
    try:
        return await asyncio.shield(call)
    except asyncio.CancelledError:
        await wait_until_done(call)
        raise


async def wait_until_done(future: asyncio.Future[Any]) -> None:
    """Wait until it is done, also when that is cancelled again: what was begun is undone first."""
    while not future.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait([future])
