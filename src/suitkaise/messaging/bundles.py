"""Bundles: a class or function of `__main__` with all that it uses, encoded once and sent along with its values.

A value of a class of `__main__` carries the bytes of its class, for any process that does not know it: a new
incarnation, a worker that the value is passed on to, a store. Encoding a class takes milliseconds, so the bytes are
kept until something that they hold changes. A process that knows the class does not even decode them; and over one
connection they are sent once, see `bundle_tables`.
"""

from __future__ import annotations

import enum
import io
import itertools
import pickle
import re
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import attrgetter, is_
from typing import Any

from cloudpickle import cloudpickle as parts  # type: ignore[import-untyped]

from suitkaise.messaging import definitions
from suitkaise.messaging.by_value import ByValue
from suitkaise.messaging.definitions import Home
from suitkaise.messaging.fingerprints import fingerprint, is_stable

__all__ = [
    "bundle_of",
    "bundle_with",
    "defined_again",
    "definition_known",
    "definition_with",
    "keep",
    "reduce_to_bundle",
]

_PROTOCOL = 5


def reduce_to_bundle(definition: Any) -> Any:
    """Return how to rebuild a class or function from its key and its bundle; None if its module has it under no name.

    Raises:
        Exception: it cannot be encoded.
    """
    found = bundle_of(definition)
    if found is None:
        return None
    newer = [one for one in map(bundle_of, defined_again(definition)) if one is not None]
    changed_at = _bundles[id(definition)].changed_at
    return definition_with, ((*found, newer, changed_at) if newer or changed_at else found)


def bundle_of(definition: Any) -> tuple[str, bytes] | None:
    """Return the key and the bundle of a class or function; None if its module has it under no name.

    Raises:
        Exception: it cannot be encoded.
    """
    bundle = _bundles.get(id(definition))
    if bundle is None or bundle.definition is not definition or not bundle.is_current():
        if not definitions.is_at_top_level(definition):
            return None
        bundle = _bundles[id(definition)] = _Bundle(definition)
    return bundle.key, bundle.data


def defined_again(definition: Any) -> Sequence[Any]:
    """Return the classes and functions that have names now that a definition uses, and had others or none when sent.

    A process that knows the definition may not know these, and would use the older ones; so they go along with it.
    """
    bundle = _bundles.get(id(definition))
    if bundle is None or not (found := bundle.used.replaced()):
        return ()
    for one in found:  # which may use others that were defined again, and are added
        bundle = _bundles.get(id(one))
        if bundle is not None:
            found += [newer for newer in bundle.used.replaced() if all(newer is not other for other in found)]
    return found


def definition_with(key: str, data: bytes, newer: Sequence[tuple[str, bytes]] = (), changed_at: int = 0) -> Any:
    """Return the class or function with this key, from its bundle if this process does not know it.

    Args:
        key: of the definition.
        data: its bundle.
        newer: the keys and bundles of those that it uses and that were `defined_again`.
        changed_at: since when (nanoseconds) the globals that it uses have had their values.
    """
    found = definitions.known(key)
    is_older = definitions.in_worker() and _changes.get(key, 0) < changed_at
    if found is None or not definitions.is_finished(key) or is_older:
        found = pickle.loads(data)
        _changes[key] = changed_at
    for one in newer:
        definition_with(*one)
    return found


def definition_known(key: str) -> Any:
    """Return the class or function with this key, which this process knows or whose bundle it keeps.

    Raises:
        pickle.UnpicklingError: it does neither.
    """
    found = definitions.known(key)
    if found is not None and definitions.is_finished(key):
        return found
    data = bundle_with(key)
    if not data:
        raise pickle.UnpicklingError(f"this process has no definition of {definitions.text_of(key)}")
    return pickle.loads(data)


def keep(key: str, data: bytes) -> None:
    """Keep a bundle that has arrived, for values of the class or function that come without it."""
    _arrived[key] = data


def bundle_with(key: str) -> bytes:
    """Return the last bundle with this key that was made here, or that has arrived; empty if there is none."""
    bundle = _bundles.get(id(definitions.known(key)))
    return bundle.data if bundle is not None and bundle.key == key else _arrived.get(key, b"")


class _Bundle:
    def __init__(self, definition: Any) -> None:
        buffer = io.BytesIO()
        pickler = ByValue(buffer, _PROTOCOL)
        pickler.dump(definition)
        self.definition = definition
        self.key = definitions.key_of(definition)
        self.data = buffer.getvalue()
        snapshot = _Snapshot(pickler.sent, pickler.notes.marks)
        self.is_current: Callable[[], bool] = snapshot.is_current if pickler.notes.are_current() else _never
        """Returns whether encoding the definition again would give the same."""
        self.used = _Used(sent for sent in pickler.sent if not isinstance(sent, type))
        self.changed_at = pickler.notes.changed_at
        """Since when (nanoseconds) the globals that it uses have had their values; 0: that is not told."""


def _never() -> bool:
    return False


_bundles: dict[int, _Bundle] = {}
"""From the ids of definitions, which their bundles keep alive."""

_arrived: dict[str, bytes] = {}
"""From keys to the bundles that have come from other processes: one for each class and function of `__main__`."""


_changes: dict[str, int] = {}
"""From keys of definitions that have arrived to the last change (nanoseconds) of a global that came with them."""


class _Used:
    """The classes and functions that functions use as globals, compared with those that were sent first."""

    def __init__(self, functions: Iterable[types.FunctionType]) -> None:
        used: dict[Home, set[str]] = {}
        for function in functions:
            home = definitions.home_of(function.__module__)
            if function.__globals__ is definitions.namespace(home):
                used.setdefault(home, set()).update(parts._extract_code_globals(function.__code__))
        self._names: list[tuple[Callable[[str], Any], list[str]]] = []
        self._first: list[Any] = []
        for home, names in used.items():
            first = definitions.first_sent(home)
            if known := [name for name in names if name in first]:
                self._names.append((definitions.namespace(home).get, known))
                self._first += map(first.get, known)

    def replaced(self) -> list[Any]:
        """Return the definitions that have the name of another one now, or a name that was free."""
        now: list[Any] = []
        for get, names in self._names:
            now += map(get, names)
        if all(map(is_, now, self._first)):
            return []
        return [
            one
            for one, first in zip(now, self._first, strict=True)
            if one is not first and definitions.is_definition(one)
        ]


class _Snapshot:
    """What classes and functions consist of at one moment; compared each time that a value of the class is sent.

    All the functions of a class are looked at by a few calls into C: a loop in Python takes several times as long.
    """

    def __init__(self, sent: Sequence[Any], marks: Mapping[int, object]) -> None:
        """Take a snapshot, with `marks`: from the ids of values to their fingerprints when they were encoded."""
        classes = [definition for definition in sent if isinstance(definition, type)]
        self._functions = [definition for definition in sent if not isinstance(definition, type)]
        self._with_parts = [function for function in self._functions if vars(function) or function.__closure__]
        self._definitions = classes + self._functions
        self._sizes = list(map(len, map(vars, self._definitions)))
        scopes: dict[int, Any] = {id(function.__globals__): function.__globals__ for function in self._functions}
        used: dict[int, set[str]] = {number: set() for number in scopes}
        for function in self._functions:
            used[id(function.__globals__)].update(parts._extract_code_globals(function.__code__))
        self._names: list[tuple[Callable[[str], Any], tuple[str, ...]]] = [
            *((vars(cls).get, tuple(_attributes(cls))) for cls in classes),
            *((scopes[number].get, tuple(names)) for number, names in used.items() if names),
        ]
        self._values = self._now()
        self._prints = [
            (index, marks.get(id(value)) or fingerprint(value))
            for index, value in enumerate(self._values)
            if not is_stable(value)
        ]

    def is_current(self) -> bool:
        """Return whether all of it is as it was."""
        if list(map(len, map(vars, self._definitions))) != self._sizes:
            return False
        now = self._now()
        if len(now) != len(self._values) or not all(map(is_, now, self._values)):
            return False
        return all(fingerprint(now[index]) == print_ for index, print_ in self._prints)

    def _now(self) -> list[Any]:
        now = list(itertools.chain.from_iterable(map(_FIXED, self._functions)))
        for get, names in self._names:
            now += map(get, names)
        for function in self._with_parts:
            now += _parts(function)
        return now


_FIXED = attrgetter("__code__", "__defaults__", "__kwdefaults__")
"""What each function is sent with and that can change."""


_MADE_WITH_THE_CLASS = frozenset({
    "__annotations__", "__dataclass_fields__", "__dataclass_params__", "__dict__", "__weakref__", "__orig_bases__",
    "__parameters__", "_abc_impl", "__slots__", "__slotnames__", "__match_args__", "__struct_config__", "__signature__",
    "__static_attributes__", "__annotate_func__", "__annotations_cache__",
})  # fmt: skip


_MADE_BY_A_METACLASS = re.compile(r"_[a-z0-9]+(_[a-z0-9]+)*_$|__(pydantic|attrs)_\w+__$")
"""Of the standard library's enum, pydantic and attrs."""


def _attributes(cls: type) -> Iterator[str]:
    """Yield the names of the attributes of a class that it is sent with and that can change."""
    members = vars(cls).get("_member_map_", {}) if issubclass(cls, enum.Enum) else {}
    for name in vars(cls):
        if not (name in _MADE_WITH_THE_CLASS or name in members or _MADE_BY_A_METACLASS.match(name)):
            yield name


def _parts(function: types.FunctionType) -> Iterator[Any]:
    """Yield what some functions are sent with besides: their attributes, and what their closures hold."""
    yield from vars(function).values()
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:
            yield None
