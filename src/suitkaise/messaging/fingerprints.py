"""Fingerprints: whether a value that can change is still what it was when it was sent."""

from __future__ import annotations

import functools
import io
import logging
import pickle
import re
import types
from typing import Any

import cloudpickle  # type: ignore[import-untyped]

from suitkaise.messaging import definitions
from suitkaise.messaging.reducers import REDUCERS

__all__ = ["fingerprint", "is_stable"]

_PROTOCOL = 5

_STABLE: tuple[type, ...] = (
    type(None), bool, int, float, complex, str, bytes, type, types.FunctionType, types.BuiltinFunctionType,
    types.ModuleType, types.CodeType, types.MemberDescriptorType, types.GetSetDescriptorType,
    types.MethodDescriptorType, types.WrapperDescriptorType, types.ClassMethodDescriptorType,
    types.GenericAlias, types.UnionType, property, classmethod, staticmethod, functools.cached_property,
    functools.partialmethod, re.Pattern, logging.Logger,
)  # fmt: skip


def is_stable(value: Any) -> bool:
    """Return whether a value stays what it is, or is a definition whose own state is compared."""
    if type(value) in (tuple, frozenset):
        return all(map(is_stable, value))
    return isinstance(value, _STABLE) or type(value) in REDUCERS


class _Printer(pickle.Pickler):
    """Encodes a value only to compare the bytes: what is a definition is told by its key."""

    def reducer_override(self, value: Any) -> Any:
        kind = type(value)
        if definitions.is_definition(value):
            return _stand_in, (definitions.key_of(value),)
        if kind in REDUCERS:
            return _stand_in, (id(value),)
        reducer = _BY_CLOUDPICKLE.get(kind)
        return NotImplemented if reducer is None else reducer(value)


def _stand_in(mark: int | str) -> int | str:
    return mark


_BY_CLOUDPICKLE = dict(cloudpickle.Pickler.dispatch_table.maps[0])
del _BY_CLOUDPICKLE[io.TextIOWrapper]  # it reads a file to its end
"""How cloudpickle sends what pickle cannot: modules, views of dicts."""

_CONTAINERS = frozenset({list, dict, set})


def fingerprint(value: Any) -> object:
    """Return something small that equals that of another value if the two are the same; or nothing else.

    If that cannot be told, it is a new `object`, which equals nothing.
    """
    if type(value) in _CONTAINERS and not value:
        return type(value)
    buffer = io.BytesIO()
    apart: list[memoryview] = []

    def set_apart(part: pickle.PickleBuffer) -> bool:
        try:
            apart.append(part.raw())
        except BufferError:  # it is not contiguous
            return True
        return False

    try:
        _Printer(buffer, _PROTOCOL, buffer_callback=set_apart).dump(value)
    except Exception:
        return object()
    if not apart and buffer.tell() <= _PIECE:
        return buffer.getvalue()
    return tuple(map(_digest, (buffer.getbuffer(), *apart)))


_PIECE = 1 << 16  # bytes


def _digest(data: memoryview) -> tuple[int, ...]:
    """Return the hashes of pieces that stay in the processor's cache: a whole copy takes several times as long."""
    return len(data), *(hash(bytes(data[begin : begin + _PIECE])) for begin in range(0, len(data), _PIECE))
