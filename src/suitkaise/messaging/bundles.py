"""Bundles: a class or function of `__main__` with all that it uses, encoded once and sent along with each value.

A value of a class of `__main__` carries the bytes of its class, for any process that does not know it: a new
incarnation, a worker that the value is passed on to, a store. Encoding a class takes milliseconds, so the bytes are
kept until something that they hold changes. A process that knows the class does not even decode them.
"""

from __future__ import annotations

import enum
import functools
import io
import logging
import pickle
import re
import types
from collections.abc import Callable, Iterator
from operator import is_
from typing import Any

from cloudpickle import cloudpickle as parts  # type: ignore[import-untyped]

from suitkaise.messaging import definitions
from suitkaise.messaging.by_value import ByValue
from suitkaise.messaging.reducers import REDUCERS

__all__ = ["reduce_to_bundle"]

_PROTOCOL = 5


def reduce_to_bundle(definition: Any) -> Any:
    """Return how to rebuild a class or function from its key and its bundle; None if its module has it under no name.

    Raises:
        Exception: it cannot be encoded.
    """
    bundle = _bundles.get(id(definition))
    if bundle is None or bundle.definition is not definition or not bundle.is_current():
        if not definitions.is_at_top_level(definition):
            return None
        bundle = _bundles[id(definition)] = _Bundle(definition)
    return _unbundle, (bundle.key, bundle.data)


def _unbundle(key: str, data: bytes) -> Any:
    found = definitions.known(key)
    if found is None or not definitions.is_finished(key):
        found = pickle.loads(data)
    return found


class _Bundle:
    def __init__(self, definition: Any) -> None:
        buffer = io.BytesIO()
        pickler = ByValue(buffer, _PROTOCOL)
        pickler.dump(definition)
        self.definition = definition
        self.key = definitions.key_of(definition)
        self.data = buffer.getvalue()
        self._states = [_State(sent) for sent in pickler.sent]

    def is_current(self) -> bool:
        """Return whether encoding the definition again would give the same."""
        return all(state.is_current() for state in self._states)


_bundles: dict[int, _Bundle] = {}
"""From the ids of definitions, which their bundles keep alive."""


class _State:
    """What a class or function consists of at one moment; compared each time that a value of the class is sent."""

    def __init__(self, definition: Any) -> None:
        scope = vars(definition) if isinstance(definition, type) else definition.__globals__
        self._definition = definition
        self._get: Callable[[str], Any] = scope.get
        self._names = tuple(_names(definition))
        self._size = len(vars(definition))
        self._parts = tuple(_parts(definition))
        self._values = (*self._parts, *map(self._get, self._names))
        self._prints = [(index, _print(value)) for index, value in enumerate(self._values) if not _is_stable(value)]

    def is_current(self) -> bool:
        definition = self._definition
        if len(vars(definition)) != self._size:
            return False
        parts = tuple(_parts(definition)) if self._parts else ()
        now = (*parts, *map(self._get, self._names))
        return (
            len(now) == len(self._values)
            and all(map(is_, now, self._values))
            and all(_print(now[index]) == print_ for index, print_ in self._prints)
        )


_MADE_WITH_THE_CLASS = frozenset({
    "__annotations__", "__dataclass_fields__", "__dataclass_params__", "__dict__", "__weakref__", "__orig_bases__",
    "__parameters__", "_abc_impl", "__slots__", "__slotnames__", "__match_args__", "__struct_config__", "__signature__",
    "__static_attributes__",
})  # fmt: skip


_MADE_BY_A_METACLASS = re.compile(r"_[a-z0-9]+(_[a-z0-9]+)*_$|__(pydantic|attrs)_\w+__$")
"""Of the standard library's enum, pydantic and attrs."""


def _names(definition: Any) -> Iterator[str]:
    """Yield the names of all that a class or function is sent with and that can change: attributes, or globals."""
    if isinstance(definition, type):
        members = vars(definition).get("_member_map_", {}) if issubclass(definition, enum.Enum) else {}
        for name in vars(definition):
            if not (name in _MADE_WITH_THE_CLASS or name in members or _MADE_BY_A_METACLASS.match(name)):
                yield name
    else:
        yield from parts._extract_code_globals(definition.__code__)


def _parts(definition: Any) -> Iterator[Any]:
    """Yield what else a function is sent with and that can change."""
    if isinstance(definition, type):
        return
    yield definition.__code__
    yield definition.__defaults__
    yield definition.__kwdefaults__
    yield from vars(definition).values()
    for cell in definition.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:
            yield None


_STABLE: tuple[type, ...] = (
    type(None), bool, int, float, complex, str, bytes, type, types.FunctionType, types.BuiltinFunctionType,
    types.ModuleType, types.CodeType, types.MemberDescriptorType, types.GetSetDescriptorType,
    types.MethodDescriptorType, types.WrapperDescriptorType, types.ClassMethodDescriptorType,
    types.GenericAlias, types.UnionType, property, classmethod, staticmethod, functools.cached_property,
    functools.partialmethod, re.Pattern, logging.Logger,
)  # fmt: skip


def _is_stable(value: Any) -> bool:
    """Return whether a value stays what it is, or is a definition whose own state is compared."""
    if type(value) in (tuple, frozenset):
        return all(map(_is_stable, value))
    return isinstance(value, _STABLE) or type(value) in REDUCERS


class _Printer(pickle.Pickler):
    """Encodes a value only to compare the bytes: what is a definition is told by its id."""

    def reducer_override(self, value: Any) -> Any:
        definition = isinstance(value, type | types.FunctionType)
        if type(value) in REDUCERS or (definition and definitions.is_by_value(value)):
            return _number, (id(value),)
        return NotImplemented


def _number(number: int) -> int:
    return number


def _print(value: Any) -> object:
    """Return something that equals that of another value if the two are the same; or nothing else."""
    buffer = io.BytesIO()
    try:
        _Printer(buffer, _PROTOCOL).dump(value)
    except Exception:
        return object()
    return buffer.getvalue()
