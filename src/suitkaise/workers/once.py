"""The workers that run a function once, for `running.task`. A worker's process imports this module, so it is small."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from suitkaise.exits import Normal
from suitkaise.specs.signatures import is_async_function
from suitkaise.workers.incarnation import ExitWith
from suitkaise.workers.worker import Process

__all__ = ["Once", "OnceAsync", "once"]


class Once(Process):
    """Calls a function once. Its exit reason is `Normal` only if the function has returned."""

    restart: str = "temporary"

    def __init__(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        self.function: Callable[..., Any] = function
        self.arguments: tuple[tuple[Any, ...], Mapping[str, Any]] = (args, kwargs)

    def loop(self) -> Any:
        """Call the function, and end with its value, also if an order to stop has come meanwhile."""
        args, kwargs = self.arguments
        raise ExitWith(Normal(), self.function(*args, **kwargs))


class OnceAsync(Once):
    """Awaits an async function once."""

    async def loop(self) -> Any:
        """Await the function, and end with its value."""
        args, kwargs = self.arguments
        raise ExitWith(Normal(), await self.function(*args, **kwargs))


def once(function: Callable[..., Any]) -> type[Once]:
    """Return the class of the worker for a function."""
    return OnceAsync if is_async_function(function) else Once
