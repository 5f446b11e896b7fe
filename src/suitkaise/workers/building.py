"""From a recipe to the worker that lives in a process or thread of its own: what the runtime must know of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from suitkaise.recipes import Recipe, is_async_function
from suitkaise.workers.sealing import check_attributes
from suitkaise.workers.worker import ALIASES, Process, Thread, Worker

if TYPE_CHECKING:
    from suitkaise.workers.lifecycle import Life

__all__ = ["build", "hook_of", "is_async"]


def build(recipe: Recipe, life: Life) -> Any:
    """Make the live worker of a recipe, inside its own process or thread."""
    cls: Any = recipe.target
    args, kwargs = recipe.args, recipe.kwargs
    if not isinstance(cls, type):
        cls, args, kwargs = _FunctionWorker, (recipe,), {}
    worker = cls.__new__(cls, *args, **kwargs)
    worker.__dict__["_life"] = life
    cls.__init__(worker, *args, **kwargs)
    check_attributes(worker)
    return worker


class _FunctionWorker(Worker):
    """The worker around a plain function."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self._function = recipe.target
        self._arguments: tuple[tuple[Any, ...], Mapping[str, Any]] = (recipe.args, recipe.kwargs)

    def loop(self) -> Any:
        args, kwargs = self._arguments
        return self._function(*args, **kwargs)


def hook_of(worker: Any, name: str) -> Callable[..., Any] | None:
    """The worker's own hook of that name, or None where only the empty default is there."""
    for candidate in (name, *ALIASES.get(name, ())):
        found = getattr(type(worker), candidate, None)
        if found is not None and found is not getattr(Worker, candidate, None):
            hook: Callable[..., Any] = getattr(worker, candidate)
            return hook
    return None


_OURS = {*Process.__mro__, *Thread.__mro__}


def is_async(recipe: Recipe) -> bool:
    """Whether the worker has an async hook or public method, or is an async function: it needs an event loop then."""
    cls = recipe.target
    if not isinstance(cls, type):
        return is_async_function(cls)
    found: dict[str, Any] = {}
    for base in cls.__mro__:
        if base not in _OURS:
            found = {**vars(base), **found}
    return any(
        is_async_function(getattr(value, "__func__", value))
        for name, value in found.items()
        if name in Worker.hooks or not name.startswith("_")
    )
