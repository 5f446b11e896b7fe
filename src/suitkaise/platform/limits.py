"""The standard library's `resource`, also for a program that has a module of that name beside its script."""

from __future__ import annotations

import importlib.util
import os
import sys
from importlib.machinery import PathFinder
from typing import Any

__all__ = ["resource"]


def _standard_resource() -> Any:
    loaded = sys.modules.get("resource")
    if loaded is not None and hasattr(loaded, "prlimit"):
        return loaded
    library = os.path.dirname(os.__file__)
    spec = PathFinder.find_spec("resource", [library, os.path.join(library, "lib-dynload")])
    if spec is None or spec.loader is None:  # built into the interpreter, or a frozen program
        import resource

        return resource
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


resource: Any = _standard_resource()
