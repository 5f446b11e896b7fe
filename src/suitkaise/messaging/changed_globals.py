"""Globals that change after they were sent: a cell of a notebook sets one, and functions that use it are sent again.

The sender notes what each global was when it left, and since when it has been that. The receiver binds a global where
its name is free. A later change, also a deletion, replaces what has arrived under the name, but nothing that the
receiver has set itself: its own state is its own.
"""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from suitkaise.messaging import definitions
from suitkaise.messaging.definitions import Home
from suitkaise.messaging.fingerprints import fingerprint, is_stable
from suitkaise.platform.locks import RLock

__all__ = ["Notes", "take"]


class _Unlike:
    """Is no other value."""


_FREE = _Unlike()
"""Stands for the value of a name that is not bound."""

_sent: dict[tuple[Home, str], tuple[object, int]] = {}
"""From globals that have left this process to what tells their last value from others, and the time of its change."""

_arrived: dict[tuple[Home, str], tuple[Callable[[], Any], int]] = {}
"""From globals that have come to this process to what returns their value, as long as it is held, and that time."""

_reading = RLock()  # a signal handler may start tasks
os.register_at_fork(after_in_child=_reading._at_fork_reinit)  # type: ignore[attr-defined]


class Notes:
    """Notes of the globals that leave this process at one encoding."""

    def __init__(self) -> None:
        self.changed_at: int = 0
        """When (nanoseconds) the last of them has become what it is."""
        self.marks: dict[int, object] = {}
        """From the ids of values to what they were like before they were encoded."""
        self._read: list[tuple[Mapping[str, Any], str, Any]] = []

    def globals_of(
        self, home: Home, names: Iterable[str], scope: Mapping[str, Any]
    ) -> tuple[dict[str, Any], dict[str, int]]:
        """Note that these globals leave this process; return their values, and since when (nanoseconds) they have them.

        A process that is not the program's own tells this only of what has arrived, or has left it before.
        """
        names = tuple(names)
        with _reading:  # a later time goes with a later value
            now = time.time_ns()
            values = [scope.get(name, _FREE) for name in names]
        changed = {}
        for name, value in zip(names, values, strict=True):
            self._read.append((scope, name, value))
            mark = _mark(value)
            self.marks.setdefault(id(value), mark)
            if at := _time_of(home, name, value, mark, now):
                changed[name] = at
        self.changed_at = max(self.changed_at, *changed.values(), 0)
        return {name: value for name, value in zip(names, values, strict=True) if value is not _FREE}, changed

    def are_current(self) -> bool:
        """Return whether no global was bound to another value since it was read."""
        return all(scope.get(name, _FREE) is value for scope, name, value in self._read)


def _time_of(home: Home, name: str, value: Any, mark: object, now: int) -> int:
    """Return since when a global has had its value; 0: always, or that is not told."""
    before = _sent.get((home, name))
    if before is not None and (mark == before[0] or type(mark) is type(before[0]) is object):
        return before[1]
    known_at = 0 if before is None else before[1]
    held, arrived_at = _arrived.get((home, name), (_Unlike, 0))
    if held() is value and (before is None or arrived_at > known_at):  # it is passed on
        now = arrived_at
    elif before is None and (value is _FREE or definitions.in_worker()):
        now = 0
    if before is None or known_at < now:  # else another thread has noted a later value
        _sent[home, name] = mark, now
    return now


def _mark(value: Any) -> object:
    """Return what equals that of another value if the two are the same; an `object` if that cannot be told."""
    kind = type(value)
    if kind is str or kind is bytes:  # these keep their hash
        return kind, hash(value)
    if kind in _EXACT:
        return kind, value
    found = fingerprint(value)
    return (kind, value) if type(found) is object and is_stable(value) else found


_EXACT = frozenset({type(None), bool, int, _Unlike})
"""The types whose values are the same if they are equal; so -0.0, and a tuple with it, are none of them."""


def take(home: Home, values: Mapping[str, Any], changed: Mapping[str, int]) -> None:
    """Bind the globals that have arrived: those whose names are free, and those that the sender has changed since."""
    scope = definitions.namespace(home)
    for name in {**values, **changed}:
        value, at = values.get(name, _FREE), changed.get(name, 0)
        is_definition = definitions.is_definition(value)
        if is_definition:
            definitions.bind(scope, name, value)
        now = scope.get(name, _FREE)
        if now is _FREE or (is_definition and now is value) or _is_older(home, name, now, at):
            if value is _FREE:
                scope.pop(name, None)
            else:
                scope[name] = value
            _arrived[home, name] = _held(value), at


def _is_older(home: Home, name: str, value: Any, at: int) -> bool:
    """Return whether a global still has a value that has arrived, and that was sent before a change at this time."""
    held, before = _arrived.get((home, name), (_Unlike, at))
    return before < at and held() is value


def _held(value: Any) -> Callable[[], Any]:
    """Return what returns the value, as long as it lives."""
    try:
        alive = weakref.ref(value)
    except TypeError:  # an int, a dict: it is kept
        return lambda: value
    return lambda: _Unlike() if alive() is None else alive()
