"""Recipes: how a worker is built anew at each start. A class and arguments, or a function."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, TypeAlias

from suitkaise.errors import SpecError

__all__ = [
    "Kind",
    "Recipe",
    "Startable",
    "check_arguments",
    "check_recipe",
    "is_async_function",
    "snapshot",
    "with_arguments",
]

Kind: TypeAlias = Literal["process", "thread", "command", "supervisor"]


_ANSWERS = ("on_receive", "result", "__result__")
"""The hooks whose value somebody gets, whatever it is."""


class Startable:
    """What a child can be started from. Workers derive from it; users derive from workers."""

    kind: ClassVar[Kind]
    hooks: ClassVar[tuple[str, ...]] = ()
    __recipe__: Recipe


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to build a worker: a class and arguments, or a function to be called once a loop."""

    target: Callable[..., Any]
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    kind: Kind = "process"

    @property
    def name(self) -> str:
        """The name of the class or function."""
        target = self.target
        while isinstance(target, functools.partial):
            target = target.func
        return getattr(target, "__name__", None) or type(target).__name__


def snapshot(value: Any) -> Any:
    """A copy of the plain containers in `value`; everything else stays what it is.

    >>> inner = [1]
    >>> copy = snapshot({"a": inner})
    >>> inner.append(2)
    >>> copy
    {'a': [1]}
    """
    return _snapshot(value, {})


def _snapshot(value: Any, seen: dict[int, Any]) -> Any:
    kind = type(value)
    if kind not in (list, dict, set, tuple, bytearray):
        return value
    if id(value) in seen:
        return seen[id(value)]
    if kind is tuple:
        return tuple(_snapshot(part, seen) for part in value)
    copy: Any = kind()
    seen[id(value)] = copy
    if kind is list:
        copy.extend(_snapshot(part, seen) for part in value)
    elif kind is dict:
        copy.update((key, _snapshot(part, seen)) for key, part in value.items())
    elif kind is set:
        copy.update(value)
    else:
        copy += value
    return copy


def with_arguments(recipe: Recipe, args: Any, kwargs: Any) -> Recipe:
    """The recipe with the arguments of a `Child(..., args=, kwargs=)`; raises SpecError if they do not fit."""
    check_arguments(recipe.target, args, kwargs)
    if recipe.kind == "command":  # its constructor checks them
        built: Startable = recipe.target(*args, **(kwargs or {}))
        return built.__recipe__
    copy = snapshot if recipe.kind == "process" else lambda value: value
    changed = Recipe(recipe.target, copy(tuple(args)), copy(dict(kwargs or {})), recipe.kind)
    check_recipe(changed)
    return changed


def check_arguments(what: Any, args: Any, kwargs: Any) -> None:
    """Raise SpecError unless `args` and `kwargs` have the right shape and `what` can take any."""
    if not isinstance(args, (tuple, list)):
        raise SpecError(f"Child: args must be a tuple of positional arguments, not {args!r}; for one: args=({args!r},)")
    if kwargs is not None and not (isinstance(kwargs, Mapping) and all(isinstance(key, str) for key in kwargs)):
        raise SpecError(f"Child: kwargs must be a dict with names as keys, or None, not {kwargs!r}")
    takes_any = not isinstance(what, Startable) and (callable(what) or isinstance(what, Recipe))
    if (args or kwargs) and not takes_any:
        raise SpecError(f"Child: args and kwargs go with a class or function, not with what was built: {what!r}")


def check_recipe(recipe: Recipe) -> None:
    """Raise SpecError if the target is an async generator, or cannot be called with these arguments."""
    target = recipe.target
    hooks = target.hooks if isinstance(target, type) and issubclass(target, Startable) else ()
    for hook in hooks:
        if inspect.isasyncgenfunction(_bare(getattr(target, hook, None))):
            raise SpecError(f"{recipe.name}.{hook} is an async generator; a hook is awaited, so it must not yield")
        if inspect.isgeneratorfunction(_bare(getattr(target, hook, None))) and hook not in _ANSWERS:
            raise SpecError(
                f"{recipe.name}.{hook} is a generator; calling it would run none of it, so it must not yield"
            )
    if not hooks and inspect.isasyncgenfunction(_bare(target)):
        raise SpecError(f"{recipe.name} is an async generator; a worker's function is awaited, so it must not yield")
    try:
        signature = _signature_of(target)
    except (ValueError, TypeError):
        return
    try:
        signature.bind(*recipe.args, **recipe.kwargs)
    except TypeError as error:
        raise SpecError(
            f"{recipe.name}{signature}: {error}; got args={recipe.args!r}, kwargs={dict(recipe.kwargs)!r}"
        ) from None


def _signature_of(target: Any) -> inspect.Signature:
    """What it can be called with; the metaclass of workers takes anything, so there the constructor is asked."""
    if isinstance(target, type) and type(target).__call__ is not type.__call__:
        constructor: Any = target
        signature = inspect.signature(constructor.__init__)
        return signature.replace(parameters=list(signature.parameters.values())[1:])
    return inspect.signature(target)


def is_async_function(function: Any) -> bool:
    """Whether calling it makes a coroutine, as far as can be seen."""
    bare = _bare(function)
    return inspect.iscoroutinefunction(bare) or (callable(bare) and inspect.iscoroutinefunction(type(bare).__call__))


def _bare(function: Any) -> Any:
    while isinstance(function, (functools.partial, functools.partialmethod)):
        function = function.func
    return function
