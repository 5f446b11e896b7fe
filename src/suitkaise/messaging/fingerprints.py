"""Fingerprints: whether a value that can change is still what it was when it was sent."""

from __future__ import annotations

import functools
import io
import logging
import pickle
import re
import types
from typing import Any

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
    """Encodes a value only to compare the bytes: what is a definition is told by its id."""

    def reducer_override(self, value: Any) -> Any:
        definition = isinstance(value, type | types.FunctionType)
        if type(value) in REDUCERS or (definition and definitions.is_by_value(value)):
            return _number, (id(value),)
        return NotImplemented


def _number(number: int) -> int:
    return number


_CONTAINERS = frozenset({list, dict, set})


def fingerprint(value: Any) -> object:
    """Return something that equals that of another value if the two are the same; or nothing else.

    It is bytes or a type; if that cannot be told, it is a new object.
    """
    if type(value) in _CONTAINERS and not value:
        return type(value)
    buffer = io.BytesIO()
    try:
        _Printer(buffer, _PROTOCOL).dump(value)
    except Exception:
        return object()
    return buffer.getvalue()
