"""Globals that change after they were sent: a cell of a notebook sets one, and functions that use it are sent again.

The sender notes the value with which each global has left it, and the time of each change since. The receiver binds a
global where its name is free. A later change replaces what has arrived under the name, but nothing that the receiver
has set itself: its own state is its own.
"""

from __future__ import annotations

import builtins
import time
import weakref
from collections.abc import Callable, Iterable, Mapping
from hashlib import blake2b
from typing import Any

from suitkaise.messaging import definitions
from suitkaise.messaging.definitions import Home
from suitkaise.messaging.fingerprints import fingerprint, is_stable

__all__ = ["changes_among", "last_change", "take"]


class _Unlike:
    """Is no other value."""


_FREE = _Unlike()
"""Stands for the value of a name that is not bound."""

_sent: dict[tuple[Home, str], tuple[object, int]] = {}
"""From globals that have left this process to what tells their last value from others, and the time of its change."""

_arrived: dict[tuple[Home, str], tuple[Callable[[], Any], int]] = {}
"""From globals that have come to this process to what returns their value, as long as it is held, and that time."""


def changes_among(home: Home, names: Iterable[str], scope: Mapping[str, Any]) -> dict[str, int]:
    """Note that these globals leave this process; return when (nanoseconds) those were changed that have left before.

    Definitions are none of them: their names tell which one is newer.
    """
    changed = {}
    for name in names:
        value = scope.get(name, _FREE)
        if definitions.is_definition(value) or (value is _FREE and hasattr(builtins, name)):
            continue
        mark, before = _mark(value), _sent.get((home, name))
        if before is None or mark != before[0]:
            held, at = _arrived.get((home, name), (_Unlike, 0))
            if held() is not value:  # else it is passed on
                at = 0 if before is None else time.time_ns()
            _sent[home, name] = mark, at
        if at := _sent[home, name][1]:
            changed[name] = at
    return changed


def last_change(home: Home, names: Iterable[str]) -> int:
    """Return when (nanoseconds) one of these globals was last changed after it had been sent; 0: never."""
    return max((_sent.get((home, name), (None, 0))[1] for name in names), default=0)


def _mark(value: Any) -> object:
    """Return what equals that of another value if the two are the same, or if that cannot be told."""
    if value is _FREE or is_stable(value):
        return type(value), value
    found = fingerprint(value)
    if isinstance(found, bytes):
        return blake2b(found, digest_size=16).digest()
    return found if isinstance(found, type) else None


def take(home: Home, values: Mapping[str, Any], changed: Mapping[str, int]) -> None:
    """Bind the globals that have arrived: those whose names are free, and those that the sender has changed since."""
    scope = definitions.namespace(home)
    for name, value in values.items():
        if definitions.is_definition(value):
            definitions.bind(scope, name, value)
            continue
        at = changed.get(name, 0)
        if name not in scope or _is_older(home, name, scope[name], at):
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
