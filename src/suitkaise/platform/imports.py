"""What imports find, and what is to be done to a module as soon as it is imported, without importing it."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

__all__ = ["can_be_imported", "when_imported"]

_EVERYWHERE = sys.stdlib_module_names - {"test"} | {"suitkaise"}
"""Packages that all processes of a program find; users have a folder `test` of their own."""


def when_imported(name: str, do: Callable[[ModuleType], object]) -> None:
    """Call `do(module)` when the module `name` has been imported in this process; at once if it is already.

    >>> import json
    >>> when_imported("json", lambda module: print(module.__name__, "is there"))
    json is there
    """
    if name in sys.modules:
        do(sys.modules[name])
    else:
        sys.meta_path.insert(0, _Finder(name, do))


def can_be_imported(name: str) -> bool:
    """Return whether an import of this module, which is loaded, finds what it was loaded from, in any process.

    A program can load a module from a file, and give it any name.

    >>> can_be_imported("json.decoder")
    True
    """
    if name.partition(".")[0] in _EVERYWHERE:
        return True
    places = _places_of(getattr(sys.modules.get(name), "__spec__", None))
    if not places:  # a part of Python, an extension, or what only its own importer can tell; or `<run_path>` of runpy
        return not name.startswith("<")
    parent, path = name.rpartition(".")[0], None
    if parent:
        path = getattr(sys.modules.get(parent), "__path__", None)
        if path is None or not can_be_imported(parent):  # the parent is no package, or was loaded by hand, too
            return False
    try:
        return any(places & _places_of(finder.find_spec(name, path)) for finder in tuple(sys.meta_path))
    except Exception:  # a finder of the user's may raise anything
        return True


def _places_of(spec: Any) -> set[str]:
    """Return the file of a module in Python, or the folders of a package that has no file of its own."""
    file = getattr(spec, "origin", None)
    if isinstance(file, str):
        return {os.path.realpath(file)} if file.endswith(".py") and spec.has_location else set()
    return set(map(os.path.realpath, getattr(spec, "submodule_search_locations", None) or ()))


class _Finder:
    """Finds one module as Python does, once, and is called when it has been executed."""

    def __init__(self, name: str, do: Callable[[ModuleType], object]) -> None:
        self._name = name
        self._do = do

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> Any:
        if fullname != self._name or self not in sys.meta_path:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        assert spec is not None
        loader: Any = spec.loader
        load = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            load(module)
            self._do(module)

        loader.exec_module = exec_module
        return spec
