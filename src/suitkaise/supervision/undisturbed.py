"""What an event loop waits for to its end, even if whoever waits is cancelled: a tree must not be left half stopped."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["in_a_thread", "whatever_comes"]

T = TypeVar("T")


async def in_a_thread(function: Callable[..., T], *args: Any) -> T:
    """Call it in a thread of the loop's default executor. Cancelled, this raises once the call has returned."""
    call = asyncio.ensure_future(asyncio.to_thread(function, *args))
    try:
        return await asyncio.shield(call)
    except asyncio.CancelledError:
        await whatever_comes(call)
        raise


async def whatever_comes(future: asyncio.Future[Any]) -> None:
    """Wait until it is done, also when that is cancelled again: what was begun is undone first."""
    while not future.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait([future])
