"""Do something to a module as soon as it is imported, without importing it."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

__all__ = ["when_imported"]


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
