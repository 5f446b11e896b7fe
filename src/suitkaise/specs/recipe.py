"""Recipes: how each start builds a new worker, from a class and its arguments or from a function.

A worker instance that a declaration holds is a recipe: a start builds another instance from its class and its
constructor's arguments. An attribute that is assigned to the declared instance would therefore be lost. So the
constructor's attributes are recorded (`record`) and compared where the declaration is made (`recipe_of`) and once more
at the start (`check_unchanged`).
"""

from __future__ import annotations

import contextlib
import functools
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal, TypeAlias

from suitkaise.errors import SpecError
from suitkaise.records import dataclass, field
from suitkaise.specs.signatures import (
    bare,
    is_async_generator_function,
    is_generator_function,
    signature_of,
    surely_takes,
)
from suitkaise.specs.spellings import spelling_in

__all__ = [
    "DERIVE",
    "Kind",
    "Recipe",
    "Startable",
    "check_arguments",
    "check_function",
    "check_recipe",
    "check_unchanged",
    "if_called",
    "overrides",
    "recipe_of",
    "record",
    "snapshot",
    "with_arguments",
    "without_parameters",
]

Kind: TypeAlias = Literal["process", "thread", "command", "supervisor"]


DERIVE = "derive it from suitkaise.Process or suitkaise.Thread"
"""What follows in an error about a class: threading and multiprocessing have a Thread and a Process, too."""

_ANSWERS = ("on_receive", "result")
"""The hooks whose return value is an answer, so that it may be a generator."""

_GETS = {"on_receive": ("message",), "on_failure": ("error",)}
"""What the hooks are called with that are called with arguments."""

_ATTRIBUTES = "__constructed__"
"""The name under which a worker instance keeps the attributes that its constructor set."""


class Startable:
    """The base of all classes that a child can be started from. Workers derive from it; users derive from workers."""

    _worker_kind: ClassVar[Kind]
    _worker_hooks: ClassVar[tuple[str, ...]] = ()
    _worker_settings: ClassVar[tuple[str, ...]] = ()
    """The names of its own that a class reads, beside the options of `Child`: a misspelt one is told, too."""
    _public_names: ClassVar[Mapping[str, str]] = {}
    """The names that users have set, by the attribute that keeps the value."""
    __recipe__: Recipe

    @classmethod
    def _check_options(cls, title: str, options: Mapping[str, Any]) -> None:
        """Raise SpecError if an option of the child makes no sense for this class."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to build a worker: a class and arguments, or a function that is called once a loop.

    `worker` is the instance that was declared, if there is one; it is neither compared nor sent.
    """

    target: Callable[..., Any]
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    kind: Kind = "process"
    worker: Startable | None = field(default=None, compare=False, repr=False)

    def __reduce__(self) -> tuple[Any, ...]:
        return Recipe, (self.target, self.args, self.kwargs, self.kind)

    @property
    def name(self) -> str:
        """The name of the class or function."""
        target = self.target
        while isinstance(target, functools.partial):
            target = target.func
        return getattr(target, "__name__", None) or type(target).__name__


def record(worker: Startable, recipe: Recipe) -> None:
    """Attach a recipe and the attributes that the constructor has set to a worker instance."""
    attributes = _attributes_of(worker)
    vars(worker).update({"__recipe__": recipe, _ATTRIBUTES: attributes})


def recipe_of(worker: Startable) -> Recipe:
    """Return the recipe of a worker instance for a declaration; raise SpecError if an attribute was changed since."""
    made = worker.__recipe__
    recipe = Recipe(made.target, made.args, made.kwargs, made.kind, worker)
    check_unchanged(recipe)
    return recipe


def check_unchanged(recipe: Recipe) -> None:
    """Raise SpecError if an attribute of the declared instance was set, changed or deleted after its construction.

    Attributes are compared by identity: the contents of a list belong to the caller that has passed the list, and a
    comparison of values would call code of the user. A `functools.cached_property` may store its value.
    """
    worker = recipe.worker
    if worker is None:
        return
    before: dict[str, Any] = vars(worker)[_ATTRIBUTES]
    now = _attributes_of(worker)
    if list(now) == list(before) and list(map(id, now.values())) == list(map(id, before.values())):
        return
    for name in {**before, **now}:
        if name not in before:
            if isinstance(_static(type(worker), name), functools.cached_property):
                continue
            change = "set"
        elif name not in now:
            change = "deleted"
        elif now[name] is not before[name]:
            change = "changed"
        else:
            continue
        cls = type(worker)
        raise SpecError(
            f"{cls.__name__}.{cls._public_names.get(name, name)} was {change} after the constructor had returned. The "
            f"declared worker is a recipe: each start builds a new worker from the constructor's arguments, so the "
            f"attribute would be lost; pass it to the constructor or set it in on_start"
        )


def _attributes_of(worker: Startable) -> dict[str, Any]:
    """Return all attributes of an instance, those in slots included, without those that `record` has attached."""
    attributes = vars(worker).copy()
    attributes.pop("__recipe__", None)
    attributes.pop(_ATTRIBUTES, None)
    attributes.pop("__orig_class__", None)  # which `Box[int](...)` sets
    cls: Any = type(worker)
    for name, slot in _slots_of(cls):
        with contextlib.suppress(AttributeError):  # the slot is empty
            attributes[name] = slot.__get__(worker)
    return attributes


@functools.cache
def _slots_of(cls: type) -> tuple[tuple[str, types.MemberDescriptorType], ...]:
    found = (item for base in cls.__mro__ for item in vars(base).items())
    return tuple((name, value) for name, value in found if isinstance(value, types.MemberDescriptorType))


def snapshot(value: Any) -> Any:
    """Return a copy of the plain containers in `value`; all other objects are shared.

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


def without_parameters(what: Any) -> Any:
    """Return the class for a generic class with type parameters (`Box` for `Box[int]`); else what was given."""
    origin = typing.get_origin(what)
    return origin if isinstance(origin, type) else what


def with_arguments(recipe: Recipe, args: Any, kwargs: Any) -> Recipe:
    """Return the recipe with the arguments of a `Child(..., args=, kwargs=)`; raise SpecError if they do not fit."""
    check_arguments(recipe.target, args, kwargs)
    if recipe.kind == "command":  # the constructor of `Command` checks its arguments
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
        raise SpecError(
            f"Child: args and kwargs go with a class or function, not with an instance: {what!r}{if_called(what)}"
        )


def if_called(what: Any) -> str:
    """Return what follows in an error about None, which most functions return, and about what only a call makes."""
    made = what is None or isinstance(what, (types.CoroutineType, types.GeneratorType, types.AsyncGeneratorType))
    return " (was a function called instead of being passed?)" if made else ""


def check_recipe(recipe: Recipe) -> None:
    """Raise SpecError if the target is no function or worker class, or cannot be called with these arguments."""
    target: Any = recipe.target
    if not callable(target):
        raise SpecError(f"Child: {recipe.kind.capitalize()}.of takes a function, not {target!r}{if_called(target)}")
    if isinstance(target, type) and not issubclass(target, Startable):
        raise SpecError(f"Child: {recipe.name} is a class but not a worker; {DERIVE}")
    hooks: tuple[str, ...] = ()
    if isinstance(target, type) and issubclass(target, Startable):
        if missing := getattr(target, "__abstractmethods__", ()):
            raise SpecError(
                f"Child: {recipe.name} is abstract, so no worker can be made of it; it does not define "
                f"{', '.join(sorted(missing))}"
            )
        hooks = target._worker_hooks
        for hook in hooks:
            _check_hook(target, hook)
    if not hooks:
        check_function(target, recipe.kind)
    is_class = isinstance(target, type) and type(target).__call__ is not type.__call__  # the metaclass takes anything
    called, given = (target.__init__, (None, *recipe.args)) if is_class else (target, recipe.args)
    if surely_takes(called, given, recipe.kwargs):
        return
    try:
        signature = signature_of(called)
        if is_class:
            signature = signature.replace(parameters=list(signature.parameters.values())[1:])
    except (ValueError, TypeError):
        return
    try:
        signature.bind(*recipe.args, **recipe.kwargs)
    except TypeError as error:
        raise SpecError(
            f"{recipe.name}{signature}: {error}; got args={recipe.args!r}, kwargs={dict(recipe.kwargs)!r}"
        ) from None


def overrides(cls: type[Startable], hook: str) -> bool:
    """Return whether a worker class has a hook of its own in place of the default."""
    base = next(one for one in cls.__mro__ if "_worker_hooks" in vars(one))
    default = vars(base).get(hook)
    return default is None or getattr(cls, hook) is not default


def check_function(function: Any, kind: str) -> None:
    """Raise SpecError if the function is an async generator, or one for a process, which could not send it."""
    if is_async_generator_function(function):
        name = Recipe(function).name
        raise SpecError(f"{name} is an async generator; a worker's function is awaited, so it must not yield")
    if kind == "process" and is_generator_function(function):
        name = Recipe(function).name
        raise SpecError(f"{name} is a generator; a call would run none of it, so a process's function must not yield")


def _check_hook(cls: type, hook: str) -> None:
    """Raise SpecError if a hook is no method, is a generator, or takes other arguments than it is called with."""
    found = getattr(cls, hook, None)
    if found is not None and not callable(found) and hook != "result":  # which may be a value
        name = f"{cls.__name__}.{spelling_in(cls, hook)}"
        raise SpecError(f"{name} must be a method, not {found!r}: it is a hook; something else needs another name")
    function = bare(found)
    if is_async_generator_function(function):
        name = f"{cls.__name__}.{spelling_in(cls, hook)}"
        raise SpecError(f"{name} is an async generator; a hook is awaited, so it must not yield")
    if is_generator_function(function) and hook not in _ANSWERS:
        name = f"{cls.__name__}.{spelling_in(cls, hook)}"
        raise SpecError(f"{name} is a generator; calling it would run none of it, so it must not yield")
    if isinstance(function, types.FunctionType) and function is _static(cls, hook):
        _check_hook_arguments(cls, hook, function)


def _check_hook_arguments(cls: type, hook: str, function: Callable[..., Any]) -> None:
    if (function.__module__ or "").partition(".")[0] == "suitkaise":
        return
    gets = _GETS.get(hook, ())
    if surely_takes(function, (None, *gets), {}):
        return
    signature = signature_of(function)
    try:
        signature.bind(None, *gets)
    except TypeError as error:
        name = f"{cls.__name__}.{spelling_in(cls, hook)}"
        what = f"with one argument, the {gets[0]}" if gets else "without arguments"
        why = error if signature.parameters else "self is missing"
        raise SpecError(
            f"{name}{signature}: {why}; {hook} is a hook, which is called {what}; a method for something else needs "
            "another name"
        ) from None


def _static(cls: type, name: str) -> Any:
    """Return what the class or a base has under this name, before any descriptor is asked."""
    return next((vars(base)[name] for base in cls.__mro__ if name in vars(base)), None)
