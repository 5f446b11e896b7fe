"""Finds the part of a value that cannot be pickled, and the path to it (`value['jobs'][3].lock`).

The search goes where pickle would go and tries each part by itself, until it finds a part that fails although all of
its own parts succeed. It is limited in depth and in trials, and handles cycles.
"""

from __future__ import annotations

import copyreg
import dataclasses
import functools
import itertools
import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from suitkaise.messaging.definitions import is_module_by_value
from suitkaise.records import dataclass

__all__ = ["Culprit", "find_culprit"]

_MAX_DEPTH = 50
_MAX_TRIALS = 10_000
_ATOMS = frozenset({type(None), bool, int, float, complex, str, bytes, bytearray})
_ADVICE = "make it where it is used, or leave it out in __getstate__"
_ADVICE_MULTIPROCESSING = (
    "only a process that multiprocessing itself starts can inherit it; send messages, share a value in the storage, or "
    "pass the end of a Pipe or the proxy of a Manager to the constructor of the worker"
)


def _advice_about(value: object) -> str:
    if isinstance(value, types.CoroutineType):
        return f"was an `await` forgotten, before {value.__name__}()?"
    if isinstance(value, types.GeneratorType):
        return "make a list or a tuple of what it yields"
    return _ADVICE


def _advice_about_code(part: Any, path: str, owner: str) -> str | None:
    """Return what to do about a part of `__main__` that holds what cannot be sent; None if that depends on its owner.

    Args:
        part: a global variable that a function uses, or the class of an object: else there is nothing to say.
        path: of the part.
        owner: the path of what it is a part of.
    """
    is_global = path.startswith(f"{owner}.__globals__[")
    if callable(part) and isinstance(getattr(part, "__name__", None), str):
        is_class = path == f"type({owner})"
        return f"put {part.__name__!r} into a module, which each process imports" if is_global or is_class else None
    return _advice_about_variable(part) if is_global else None


def _advice_about_variable(value: object) -> str:
    """Return how to use the object of a global variable that a module has, too: modules go by name."""
    places = [
        (module.__name__, name)
        for module in list(sys.modules.values())
        if isinstance(module, types.ModuleType)
        for name, one in list(vars(module).items())
        if one is value and not is_module_by_value(module.__name__)
    ]
    if not places:
        return ""
    module, name = min(places, key=lambda place: len(".".join(place)))
    return f"use `{module}.{name}`, after `import {module}`: each process then has its own"


@dataclass(frozen=True, slots=True)
class Culprit:
    """The part that could not be pickled: its path and its error."""

    path: str
    value: object
    error: BaseException
    advice: str | None = None

    @property
    def message(self) -> str:
        """One line for the user: the path, the error, and what to do."""
        if isinstance(self.error, RecursionError) or "deep recursion" in str(self.error):
            return f"{self.path}: cannot pickle a value that is nested this deep; send it as a flat list of its parts"
        text = str(self.error)
        if "pickle" not in text.lower():
            what = type(self.value).__qualname__
            text = f"cannot pickle {what!r} object: {type(self.error).__name__}: {text}"
        advice = self.advice or _advice_about(self.value)
        if "through inheritance" in text:
            advice = _ADVICE_MULTIPROCESSING
        return f"{self.path}: {text}; {advice}"


def find_culprit(value: object, root: str, error: BaseException, attempt: Callable[[object], object]) -> Culprit:
    """Return the part of `value` that cannot be pickled.

    Args:
        value: the value that could not be pickled.
        root: the name of `value` in paths.
        error: the exception of pickling `value`.
        attempt: pickles a part, or raises.
    """
    if isinstance(error, RecursionError) or "deep recursion" in str(error):
        return Culprit(root, value, error)
    search = _Search(attempt)
    culprit = search.explore(root, value, error, depth=0) or search.deepest or Culprit(root, value, error)
    _leave_out(error, culprit.error)
    return culprit


class _Search:
    def __init__(self, attempt: Callable[[object], object]) -> None:
        self._attempt = attempt
        self._trials = _MAX_TRIALS
        self._alive: list[object] = []  # ids are unique only while their objects are alive
        self._visited: set[int] = set()
        self._failed: set[int] = set()
        self._deepest_depth = -1
        self.deepest: Culprit | None = None

    def explore(self, path: str, value: object, error: BaseException, depth: int) -> Culprit | None:
        """Return the culprit in `value`, which failed with `error`; None if it is only contained in a culprit."""
        self._mark(value, failed=True)
        if depth > self._deepest_depth:
            self._deepest_depth, self.deepest = depth, Culprit(path, value, error)
        to_blame = True
        if depth < _MAX_DEPTH:
            for part_path, part in _parts(path, value):
                if type(part) in _ATOMS:
                    continue
                if id(part) in self._visited:
                    to_blame = to_blame and id(part) not in self._failed
                    continue
                if self._trials == 0:
                    return None
                self._trials -= 1
                self._mark(part, failed=False)
                failure = self._error_of(part)
                if failure is not None:
                    found = self.explore(part_path, part, failure, depth + 1)
                    if found is not None:
                        if found.advice is None:
                            found = replace(found, advice=_advice_about_code(part, part_path, path))
                        return found
                    to_blame = False
        return Culprit(path, value, error) if to_blame else None

    def _error_of(self, part: object) -> Exception | None:
        """Return the error of a part. It is handled no longer while others are tried: each would hold all before it."""
        try:
            self._attempt(part)
        except Exception as error:
            return error
        return None

    def _mark(self, value: object, *, failed: bool) -> None:
        self._alive.append(value)
        self._visited.add(id(value))
        if failed:
            self._failed.add(id(value))


def _leave_out(handled: BaseException, error: BaseException) -> None:
    """Take out of the chain of `error` what was handled when it was raised: that is the error of the whole value."""
    while error.__context__ is not None:
        if error.__context__ is handled:
            error.__context__ = handled.__context__
            return
        error = error.__context__


def _parts(path: str, value: Any) -> Iterator[tuple[str, object]]:
    """Yield the parts that pickle would send for `value`, with their paths."""
    match value:
        case dict() if type(value) is dict:
            yield from _items(path, value.items())
        case list() | tuple() if type(value) in (list, tuple):
            yield from ((f"{path}[{index}]", part) for index, part in enumerate(value))
        case set() | frozenset() if type(value) in (set, frozenset):
            yield from ((f"list({path})[{index}]", part) for index, part in enumerate(value))
        case types.FunctionType():
            yield from _function_parts(path, value)
        case types.MethodType():
            yield f"{path}.__self__", value.__self__
            yield f"{path}.__func__", value.__func__
        case functools.partial():
            yield f"{path}.func", value.func
            yield from ((f"{path}.args[{index}]", part) for index, part in enumerate(value.args))
            yield from _items(f"{path}.keywords", value.keywords.items())
            yield from _attributes(path, vars(value))
        case type():
            yield from ((f"{path}.__bases__[{index}]", base) for index, base in enumerate(value.__bases__))
            yield from _attributes(path, vars(value))
        case staticmethod() | classmethod():
            yield f"{path}.__func__", value.__func__
        case property():
            yield from ((f"{path}.{name}", getattr(value, name)) for name in ("fget", "fset", "fdel"))
        case _:
            yield from _reduced_parts(path, value)


def _function_parts(path: str, function: types.FunctionType) -> Iterator[tuple[str, object]]:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield f"{path}.__closure__[{name!r}]", cell.cell_contents
        except ValueError:  # the variable has no value yet
            continue
    for index, default in enumerate(function.__defaults__ or ()):
        yield f"{path}.__defaults__[{index}]", default
    yield from _items(f"{path}.__kwdefaults__", (function.__kwdefaults__ or {}).items())
    yield from _attributes(path, vars(function))
    for name in _names_used(function.__code__):
        if name in function.__globals__:
            yield f"{path}.__globals__[{name!r}]", function.__globals__[name]


def _names_used(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names_used(constant)


def _reduced_parts(path: str, value: Any) -> Iterator[tuple[str, object]]:
    """Yield the parts of an instance that its `__reduce_ex__` returns."""
    try:
        reducer = copyreg.dispatch_table.get(type(value))
        reduced: Any = reducer(value) if reducer else value.__reduce_ex__(5)
    except Exception:
        return  # the instance itself cannot be pickled
    if not isinstance(reduced, tuple):
        return
    make, args, state, items, pairs = itertools.islice((*reduced, None, None, None), 5)
    if state is not None:
        yield from _state_parts(path, value, state)
    if isinstance(value, BaseException):
        yield from ((f"{path}.args[{index}]", part) for index, part in enumerate(value.args))
    elif isinstance(value, tuple):
        names = getattr(value, "_fields", None)
        for index, part in enumerate(value):
            yield f"{path}.{names[index]}" if names else f"{path}[{index}]", part
    for index, part in enumerate(items or ()):
        yield f"{path}[{index}]", part
    yield from _items(path, pairs or ())
    names = [field.name for field in dataclasses.fields(value)] if dataclasses.is_dataclass(value) else []
    attributes = {id(getattr(value, name, None)): name for name in (*getattr(value, "__dict__", ()), *names)}
    for index, part in enumerate(args or ()):
        if part is type(value):
            yield f"type({path})", part
        elif id(part) in attributes:
            yield f"{path}.{attributes[id(part)]}", part
        elif make is type(value) and index < len(names):
            yield f"{path}.{names[index]}", part
        else:
            yield f"{path}.__reduce__()[1][{index}]", part
    if make is not type(value):
        yield f"{path}.__reduce__()[0]", make


def _state_parts(path: str, value: object, state: object) -> Iterator[tuple[str, object]]:
    match state:
        case dict():
            yield from _attributes(path, state)
        case (dict() | None as attributes, dict() as slots):
            yield from _attributes(path, attributes or {})
            yield from _attributes(path, slots)
        case list() if dataclasses.is_dataclass(value):  # a frozen dataclass with slots
            for field, part in zip(dataclasses.fields(value), state, strict=False):
                yield f"{path}.{field.name}", part
        case _:
            yield f"{path}.__getstate__()", state


def _attributes(path: str, attributes: Any) -> Iterator[tuple[str, object]]:
    for name, part in list(attributes.items()):
        yield f"{path}.{name}" if isinstance(name, str) else f"{path}.__dict__[{_short(name)}]", part


def _items(path: str, pairs: Any) -> Iterator[tuple[str, object]]:
    for index, (key, part) in enumerate(list(pairs)):
        yield f"list({path})[{index}]", key
        yield f"{path}[{_short(key)}]", part


def _short(key: object) -> str:
    try:
        text = repr(key)
    except Exception:
        return f"<{type(key).__name__}>"
    return text if len(text) <= 40 else text[:37] + "..."
