"""Globals that all processes and threads of the program share: the storage of `sktree`, without paths.

`from suitkaise import skglobals` loads this module. A global is an entry in the root of the storage, so
`tree.get(name, path="")` reads it, too. Its value is copied in and out: after a change, call `update`.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

from suitkaise import sktree
from suitkaise.concept.call_site import call_in, caller
from suitkaise.messaging.identity import current_owner
from suitkaise.messaging.router import in_worker_process
from suitkaise.platform.processes import after_fork_in_child
from suitkaise.storage.tree import Tree

__all__ = ["connect", "create", "delete", "exists", "get", "get_all", "update"]

_ROOT = ""
_NOTHING: Any = object()


def connect() -> Tree:
    """Return the storage that holds the globals: the one that this code is connected to, or `sktree.connect()`.

    Every function of this module connects by itself. `sktree.disconnect()` ends the connection of the main program.
    """
    global _of_process
    if in_worker_process():
        if _of_process is None:  # the program of a worker has one storage, as long as the worker lives
            _of_process = sktree.connect()
        return _of_process
    if current_owner() is None and sktree._connected:
        return sktree._connected[-1]
    return sktree.connect()


def create(value: Any, name: str | None = None, *, exist_ok: bool = True) -> None:
    """Store a value as a global, for all processes and threads of the program.

    Args:
        value: anything that can be sent to another process.
        name: default: the name of the variable (or attribute) that the caller has written as `value`.
        exist_ok: whether a global of that name may exist already; it is replaced.

    Raises:
        TypeError: the caller has written no variable, and given no name.
        EntryExists: with `exist_ok=False`, if there is a global of that name.
        NotSerializable: the value cannot be sent.

    >>> from suitkaise import skglobals, sktree
    >>> colours = ["red", "green"]
    >>> skglobals.create(colours)
    >>> skglobals.get("colours")
    ['red', 'green']
    >>> skglobals.update("colours", lambda old: [*old, "blue"])
    ['red', 'green', 'blue']
    >>> skglobals.delete("colours")
    >>> skglobals.get("colours", default=None) is None
    True
    >>> sktree.disconnect()
    """
    if name is None:
        name = _name_in(call_in(caller()))
    connect().add(name, value, _ROOT, exist_ok=exist_ok)


def get(name: str, default: Any = _NOTHING) -> Any:
    """Return the value of a global, a copy of its own at each call.

    Raises:
        EntryNotFound: there is no such global and no default; also a `KeyError`.
    """
    tree = connect()
    return tree.get(name, _ROOT) if default is _NOTHING else tree.get(name, _ROOT, default)


def update(name: str, value: Callable[[Any], object] | object) -> Any:
    """Replace the value of a global; return the new value.

    Args:
        name: its name.
        value: the value; or a function that makes it of the old one. Others that write at the same time are not
            overwritten: the function is called again then.

    Raises:
        EntryNotFound: there is no such global; also a `KeyError`.
        NotSerializable: the value cannot be sent.
    """
    return connect().update(name, value, _ROOT)


def delete(name: str, *, missing_ok: bool = False) -> None:
    """Remove a global.

    Raises:
        EntryNotFound: there is no such global, unless `missing_ok`; also a `KeyError`.
    """
    connect().remove(name, _ROOT, missing_ok=missing_ok)


def exists(name: str) -> bool:
    """Return whether there is a global of that name."""
    return connect().exists(name, _ROOT)


def get_all() -> dict[str, Any]:
    """Return all globals, by name."""
    return connect().get_all_from(_ROOT)


_OTHER_NAMES = {
    "set": "create(value, name)", "put": "create(value, name)", "add": "create(value, name)", "remove": "delete(name)",
    "pop": "delete(name)", "keys": "get_all()", "items": "get_all()", "values": "get_all()",
}  # fmt: skip
"""What dicts and other stores have, by the name that it has here."""


if not TYPE_CHECKING:  # a type checker is to know the names that there are

    def __getattr__(name: str) -> NoReturn:
        hint = ""
        if name in _OTHER_NAMES:
            hint = f"; use skglobals.{_OTHER_NAMES[name]}"
        elif name[:1] != "_":
            there = hasattr(Tree, name)
            hint = f"; use skglobals.connect().{name}" if there else f"; a global is read by skglobals.get({name!r})"
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}{hint}", name=name)


def _name_in(call: ast.Call | None) -> str:
    """Return the name of the variable that a call of `create` passes as the value."""
    if call is None:
        raise TypeError("create() cannot read its caller's source, so it needs a name: create(value, name='colours')")
    named = (keyword.value for keyword in call.keywords if keyword.arg == "value")
    match call.args[0] if call.args else next(named, None):
        case ast.Name(name) | ast.Attribute(attr=name) | ast.NamedExpr(target=ast.Name(name)):
            return name
        case written:
            text = "..." if written is None else ast.unparse(written)
            raise TypeError(f"create({text}) is no variable, so it needs a name: create({text}, name='colours')")


_of_process: Tree | None = None


def _reset_after_fork() -> None:
    global _of_process
    _of_process = None


after_fork_in_child(_reset_after_fork)
