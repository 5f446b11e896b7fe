"""Definitions: the classes, functions and other named objects that are sent by value, as one object in each process.

The receiver never imports the sender's `__main__`, so its classes and functions travel by value. Unpickled anew at each
arrival, a class would lose what the receiver has stored in it, and a function would see other globals than its
neighbours. So each definition has a key, which travels with it, and a process that knows the key uses the object it
has; nothing of that object changes. The key of what a module defines at its top level is its name: an object of the
program's own class that comes back from a worker, or from a store that an earlier run has written, is an instance of
the program's own class, as with plain pickle.

All functions of a module share one dict of globals in each process. For the program's `__main__` that is, in a worker,
the dict of the worker's `__main__` (see `enter_program`), which fills with what arrives; so pickle, typing and mock
find everything there. A global that a function brings is bound where its name is still free. Only a newer definition
of the same name (a notebook's cell that was run again) replaces an older one, and a changed value one that has arrived
before (see `changed_globals`); no other value of the receiver changes.
Functions that `exec` has made, those of attrs for example, have globals of their own, and share them where they arrive.
"""

from __future__ import annotations

import builtins
import functools
import importlib.machinery
import os
import sys
import time
import types
import uuid
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import cloudpickle  # type: ignore[import-untyped]

from suitkaise.platform.imports import can_be_imported

__all__ = [
    "MAIN",
    "Home",
    "bind",
    "cell_keys",
    "cells_for",
    "enter_program",
    "finish",
    "first_sent",
    "home_of",
    "in_worker",
    "is_at_top_level",
    "is_by_value",
    "is_definition",
    "is_finished",
    "is_module_by_value",
    "key_of",
    "known",
    "known_or_made",
    "main_names",
    "may_be_by_value",
    "name_of",
    "namespace",
    "note_sent",
    "program",
    "register",
    "remember_cells",
    "remember_scope",
    "scope_for",
    "scope_key",
    "text_of",
    "top_name",
]

Home: TypeAlias = tuple[str, str]
"""The program and the module that a definition belongs to."""

_SEPARATOR = "\n"
"""Between the parts of a key that is a name: program, module, qualified name, and the time if it was redefined."""

_objects: dict[str, Any] = {}
"""From keys to definitions: weak references, where an object can have one."""

_keys: dict[int, tuple[Any, str]] = {}
"""From the id of a definition to a weak reference to it (or the definition) and its key."""

_given: set[str] = set()
"""The names that were given as keys here: other processes may know what had one, also if it is gone here."""

_unfinished: set[str] = set()
"""The keys of definitions that were made, but not filled yet: their pickle is still being read, or has failed."""

_cells: dict[str, tuple[weakref.ref[types.FunctionType], int]] = {}
"""From the key of a closure's cell to a function that has this cell, and its position there."""

_cell_keys: dict[int, str] = {}
"""From the id of a closure's cell to its key, as long as a function that has the cell is alive."""

_scopes: dict[str, weakref.ref[types.FunctionType]] = {}
"""From the key of globals that are not those of a module to a function that has them."""

_scope_keys: dict[int, tuple[weakref.ref[types.FunctionType], str]] = {}
"""From the id of such globals to a function that has them, and their key."""

_importable: dict[str, bool] = {}
"""Whether the modules with these names can be imported."""

_namespaces: dict[Home, dict[str, Any]] = {}

_first_sent: dict[Home, dict[str, Any]] = {}
"""The definitions that were the first to leave this process under their global names; None for a name then free."""

MAIN = frozenset({"__main__", "__mp_main__", None})
"""The modules whose definitions no receiver can import: multiprocessing runs `__main__` under the second name."""

_program: str | None = None
_in_worker = False


# ------------------------------------------------------------ the program and its modules
def program() -> str:
    """Return the name of the program that this process belongs to: the path of its script, or else a random name."""
    global _program
    if _program is None:
        file = getattr(sys.modules.get("__main__"), "__file__", None)
        _program = os.path.realpath(file) if file and os.path.isfile(file) else uuid.uuid4().hex
    return _program


def main_names() -> dict[str, str]:
    """Return what Python has set in `__main__`, for functions that use it: relative imports need the package."""
    main = vars(sys.modules["__main__"]) if "__main__" in sys.modules else {}
    return {name: main[name] for name in ("__file__", "__package__", "__doc__") if isinstance(main.get(name), str)}


def enter_program(name: str, names: Mapping[str, str]) -> None:
    """Make this process a worker of the program `name`, with a `__main__` that fills with what arrives.

    `names` are the `main_names` of the program.
    """
    global _program, _in_worker
    if _in_worker and _program == name:
        return
    _program, _in_worker = name, True
    main = types.ModuleType("__main__")
    # multiprocessing runs the file of `__main__` again in processes that it spawns, but not under this name.
    package = names.get("__package__")
    main.__spec__ = importlib.machinery.ModuleSpec(f"{package}.__main__" if package else "__main__", None)
    vars(main).update(names, __builtins__=builtins)
    sys.modules["__main__"] = main


def in_worker() -> bool:
    """Return whether this process has the program's code from others."""
    return _in_worker


def home_of(module: str | None) -> Home:
    """Return where a definition of this module belongs."""
    return program(), module or "__main__"


def namespace(home: Home) -> dict[str, Any]:
    """Return the globals of functions that belong there, in this process."""
    name, module = home
    loaded = sys.modules.get(module)
    if name == program() and isinstance(loaded, types.ModuleType):
        return vars(loaded)
    return _namespaces.setdefault(home, {"__name__": module, "__builtins__": builtins})


def bind(scope: dict[str, Any], name: str, value: Any) -> None:
    """Set a global, unless the name is bound; but a worker replaces an older definition of that name by a newer one."""
    if name not in scope or (_in_worker and _age_of(scope[name]) < _age_of(value)):
        scope[name] = value


def _age_of(value: Any) -> float:
    """Return when a name was redefined; 0 for its first definition, infinity for what is no definition with a name."""
    entry = _keys.get(id(value))
    if entry is None or _alive(entry[0]) is not value or _SEPARATOR not in entry[1]:
        return float("inf")
    parts = entry[1].split(_SEPARATOR)
    return float(parts[3]) if len(parts) == 4 else 0.0


def name_of(definition: Any) -> tuple[str | None, str]:
    """Return the module and the qualified name that an object claims to have."""
    for attribute in ("__qualname__", "__name__", "name"):
        name = getattr(definition, attribute, None)
        if isinstance(name, str):
            return getattr(definition, "__module__", None), name
    return None, ""


def text_of(key: str) -> str:
    """Return the name in the key of what has one, with its module, for an error; else the key."""
    return ".".join(key.split(_SEPARATOR)[1:3]) if _SEPARATOR in key else key


def is_at_top_level(definition: Any) -> bool:
    """Return whether the qualified name of an object leads from its module to it."""
    module, qualified = name_of(definition)
    loaded = sys.modules.get(module or "")
    return isinstance(loaded, types.ModuleType) and _lookup(vars(loaded), qualified) is definition


def is_by_value(definition: Any) -> bool:
    """Return whether an object with a name is sent by value: the receiver could not import it by its name."""
    return is_module_by_value(name_of(definition)[0]) or not is_at_top_level(definition)


def may_be_by_value(definition: Any) -> bool:
    """Return whether `is_by_value` may be true for a function or class, in less time; pickle finds the other ones."""
    if id(definition) in _keys or cloudpickle.list_registry_pickle_by_value():
        return True
    module: Any = getattr(definition, "__module__", None)
    return not _importable.get(module) and is_module_by_value(module)


def is_module_by_value(name: object) -> bool:
    """Return whether what a module defines is sent by value: it is `__main__`, or no import in a worker would find it.

    A program can load a module from a file, and give it any name (as pytest does with `--import-mode=importlib`).
    """
    if not isinstance(name, str):
        return name is None
    if name in MAIN or name in cloudpickle.list_registry_pickle_by_value():
        return True
    found = _importable.get(name)
    if found is None:
        found = _importable[name] = can_be_imported(name)
    return not found


def top_name(definition: Any) -> str | None:
    """Return the name under which its module has this object itself; None if there is none."""
    name = name_of(definition)[1]
    return name if "." not in name and is_at_top_level(definition) else None


def is_definition(value: Any) -> bool:
    """Return whether a value of a global variable is a function or class that is sent by value."""
    return isinstance(value, _KINDS) and is_by_value(value)


_KINDS = type, types.FunctionType, functools._lru_cache_wrapper


def note_sent(home: Home, names: Iterable[str], scope: Mapping[str, Any]) -> None:
    """Record the definitions among these globals, and the names that are free, each the first time that it is used."""
    first = first_sent(home)
    for name in names:
        if name not in first and (is_definition(scope[name]) if name in scope else not hasattr(builtins, name)):
            first[name] = scope.get(name)


def first_sent(home: Home) -> dict[str, Any]:
    """Return the first definitions that were sent under the global names of a module; None where there was none yet."""
    return _first_sent.setdefault(home, {})


def _lookup(scope: Mapping[str, Any], qualified: str) -> Any:
    """Return what a qualified name leads to, without calling any code of a class; None if it leads nowhere."""
    first, *rest = qualified.split(".")
    found = scope.get(first)
    for name in rest:
        found = vars(found).get(name) if isinstance(found, type) else None
    return found.__func__ if isinstance(found, staticmethod | classmethod) else found


# ------------------------------------------------------------ keys
def key_of(definition: Any) -> str:
    """Return the key of a definition; the first call makes it."""
    entry = _keys.get(id(definition))
    if entry is not None and _alive(entry[0]) is definition:
        return entry[1]
    key = uuid.uuid4().hex
    if is_at_top_level(definition):
        module, qualified = name_of(definition)
        key = _SEPARATOR.join((*home_of(module), qualified))
        if key in _given or _alive(_objects.get(key)) not in (None, definition):
            key = f"{key}{_SEPARATOR}{time.time_ns()}"
        else:
            _given.add(key)
    register(key, definition)
    return key


def register(key: str, definition: Any, *, finished: bool = True) -> None:
    """Record that this object of this process has this key; `finish` follows if it is not finished."""
    number = id(definition)

    def forget(dead: Any) -> None:
        if _objects.get(key) is dead:
            del _objects[key]
            _unfinished.discard(key)
        if _keys.get(number, (None, ""))[0] is dead:
            del _keys[number]

    try:
        held: Any = weakref.ref(definition, forget)
    except TypeError:  # such as a ContextVar; a program makes few of them
        held = definition
    if not finished:
        _unfinished.add(key)
    _objects[key] = held
    _keys[number] = held, key


def known(key: str) -> Any:
    """Return the object of this process that has this key; None if there is none.

    For a key that is a name, that may be an object which the program's own module has under this name.
    """
    found = _alive(_objects.get(key))
    if found is not None or key.count(_SEPARATOR) != 2:
        return found
    name, module, qualified = key.split(_SEPARATOR)
    loaded = sys.modules.get(module)
    if name != program() or not isinstance(loaded, types.ModuleType):
        return None
    found = _lookup(vars(loaded), qualified)
    if _in_worker and name_of(found)[1] != qualified:  # the program has bound the name to another value before
        return None
    if found is not None and id(found) not in _keys:
        register(key, found)
    return found


def known_or_made(key: str, make: Callable[[], Any]) -> Any:
    """Return the object of this process that has this key, or else a new one; `finish` follows once it is filled."""
    found = known(key)
    if found is None:
        found = make()
        register(key, found, finished=False)
    return found


def is_finished(key: str) -> bool:
    """Return whether the definition with this key, which is known, has been filled."""
    return key not in _unfinished


def finish(key: str, definition: Any, name: str | None, scope: dict[str, Any]) -> None:
    """Record that a definition has been filled, and bind the name under which its module has it, if it has one."""
    if name is not None:
        bind(scope, name, definition)
    _unfinished.discard(key)


def _alive(held: Any) -> Any:
    return held() if isinstance(held, weakref.ref) else held


# ------------------------------------------------------------ globals that are not those of a module
def scope_key(function: types.FunctionType) -> str | None:
    """Return the key of a function's globals; None if they are those of its module."""
    scope = function.__globals__
    loaded = sys.modules.get(function.__module__ or "__main__")
    if isinstance(loaded, types.ModuleType) and vars(loaded) is scope:
        return None
    entry = _scope_keys.get(id(scope))
    key = uuid.uuid4().hex if entry is None or entry[0]() is None else entry[1]
    remember_scope(function, key)
    return key


def scope_for(key: str, home: Home) -> dict[str, Any]:
    """Return the globals with this key: those that a function of this process has, or else new ones."""
    held = _scopes.get(key)
    function = None if held is None else held()
    return {"__name__": home[1], "__builtins__": builtins} if function is None else function.__globals__


def remember_scope(function: types.FunctionType, key: str) -> None:
    """Record the key of a function's globals, while the function is alive."""
    number = id(function.__globals__)

    def forget(dead: Any) -> None:
        if _scopes.get(key) is dead:
            del _scopes[key]
        if _scope_keys.get(number, (None, ""))[0] is dead:
            del _scope_keys[number]

    held = weakref.ref(function, forget)
    _scopes[key] = held
    _scope_keys[number] = held, key


# ------------------------------------------------------------ cells of closures, which functions share
def cell_keys(function: types.FunctionType, key: str) -> list[str]:
    """Return the keys of the cells of a function's closure; functions that share a cell share its key."""
    cells = function.__closure__ or ()
    keys = [_cell_keys.get(id(cell)) or f"{key}/{index}" for index, cell in enumerate(cells)]
    remember_cells(function, keys)
    return keys


def cells_for(keys: Iterable[str]) -> tuple[types.CellType, ...]:
    """Return a cell for each key: the one of this process, or a new empty one."""
    return tuple(_cell(key) or types.CellType() for key in keys)


def remember_cells(function: types.FunctionType, keys: Sequence[str]) -> None:
    """Record the keys of the cells of a function's closure, while the function is alive."""
    new = []
    for index, (cell, key) in enumerate(zip(function.__closure__ or (), keys, strict=True)):
        if _cell(key) is None:
            _cells[key] = weakref.ref(function), index
            _cell_keys[id(cell)] = key
            new.append((id(cell), key))
    if new:
        weakref.finalize(function, _forget_cells, new).atexit = False


def _cell(key: str) -> types.CellType | None:
    entry = _cells.get(key)
    function = None if entry is None else entry[0]()
    return None if entry is None or function is None else (function.__closure__ or ())[entry[1]]


def _forget_cells(cells: list[tuple[int, str]]) -> None:
    for number, key in cells:
        _cell_keys.pop(number, None)
        _cells.pop(key, None)
