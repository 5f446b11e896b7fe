"""Which attributes of a worker may be assigned, and where.

A worker that is built where a tree is declared is a *recipe*: only its class and arguments matter, and each start
builds it anew. Attributes set from outside on a recipe would be lost, so that raises. What the runtime gives to a
worker can be assigned nowhere.
"""

from __future__ import annotations

import abc
import functools
import sys
import types
from collections.abc import Callable
from typing import Any, Generic, Never, Self, TypeVar, overload

from suitkaise.specs.recipe import Recipe, snapshot

__all__ = ["ReadOnly", "WorkerType", "check_attributes"]

T = TypeVar("T")


class WorkerType(abc.ABCMeta):
    """Calling a worker class makes a recipe: an instance that remembers how it was made and is then sealed."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        kept = (args, kwargs)
        if getattr(cls, "kind", "") in ("process", "command"):
            kept = (snapshot(args), snapshot(kwargs))
        worker = super().__call__(*args, **kwargs)
        check_attributes(worker)
        object.__setattr__(worker, "__recipe__", Recipe(cls, kept[0], kept[1], getattr(cls, "kind", "process")))
        object.__setattr__(worker, "__class__", _sealed(cls))
        return worker

    def mro(cls) -> list[type]:
        """The order of a recipe's class has the seal in front; a base class there would change the memory layout."""
        order = super().mro()
        return [cls, _RecipeGuard, *order[1:]] if "__sealed__" in vars(cls) else order


class _RecipeGuard:
    """What the class of a recipe has in front of the worker's own: assignments from outside raise."""

    __slots__ = ()

    def __init_subclass__(cls, **options: Any) -> None:
        """Sealing a class is no subclassing that its own `__init_subclass__` should hear of."""

    def __setattr__(self, name: str, value: Any) -> None:
        self.__own(name, sys._getframe(1))
        super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        self.__own(name, sys._getframe(1))
        super().__delattr__(name)

    def __own(self, name: str, caller: types.FrameType) -> None:
        """Let pass what the worker's own methods do, called directly: a unit test of the bare worker."""
        code = caller.f_code
        cls: Any = type(self)
        names = (*code.co_varnames[: min(code.co_argcount, 1)], *code.co_freevars)
        inside = any(code.co_qualname.startswith(f"{base.__qualname__}.") for base in cls.__mro__)
        if not inside or all(caller.f_locals.get(own) is not self for own in names):
            raise AttributeError(
                f"{cls.__name__}.{name}: this worker is a recipe, each start builds a new one from its constructor's "
                f"arguments, so the attribute would be lost; pass it to the constructor or set it in on_start"
            )
        if name in cls._reserved:
            _refuse(cls, name)


@functools.cache
def _sealed(cls: type) -> type:
    """The class that a recipe gets once it is made: the same, but for assignments from outside."""
    body = {"__sealed__": True, "__slots__": (), "__module__": cls.__module__, "__qualname__": cls.__qualname__,
            "__doc__": cls.__doc__}  # fmt: skip
    return type(cls)(cls.__name__, (cls,), body)


class ReadOnly(Generic[T]):
    """An attribute that the runtime gives: read by the decorated method, never assigned."""

    def __init__(self, read: Callable[[Any], T]) -> None:
        self._read = read
        self.__doc__ = read.__doc__
        self.__name__: str = read.__name__

    @overload
    def __get__(self, worker: None, cls: type) -> Self: ...

    @overload
    def __get__(self, worker: object, cls: type) -> T: ...

    def __get__(self, worker: object | None, cls: type) -> Self | T:
        return self if worker is None else self._read(worker)

    def __set__(self, worker: object, value: Any) -> Never:
        _refuse(type(worker), self.__name__)


def check_attributes(worker: Any) -> None:
    """Raise AttributeError if an attribute of the worker hides what the runtime gives it (`self.wait = ...`)."""
    for name in worker._reserved & worker.__dict__.keys():
        _refuse(type(worker), name)


def _refuse(cls: type, name: str) -> Never:
    raise AttributeError(f"{cls.__name__}.{name} is given by the runtime and cannot be set; choose another name")
