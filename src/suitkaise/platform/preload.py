"""The modules of the user that are imported once, before workers are forked, instead of in every worker."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

from suitkaise.errors import SpecError

__all__ = ["listeners", "preload", "wanted"]

listeners: list[Callable[[], None]] = []
"""Called when `wanted` has new names."""

_wanted: dict[str, None] = {}


def preload(*modules: str) -> None:
    """Import `modules` once in the process that forks the workers; every start and restart then has them at once.

    Use it for modules that take long to import and that process workers need: `preload("numpy", "myproject.models")`.
    It has an effect until the program ends. Call it before a tree is started (best), while a tree runs, or in a
    process worker (for workers that are started later). A module is fit for preloading if its import starts no thread
    and opens no file or connection that each worker should have for itself: the import happens once, and all workers
    share its outcome. The same holds for `multiprocessing.set_forkserver_preload`. If a module starts threads, or
    cannot be imported by the keeper, the log (`suitkaise.keeper`) has a warning; in the second case the workers import
    it themselves.

    Args:
        modules: names, as in an `import` statement. The classes of `__main__` need no preloading.

    Raises:
        SpecError: a module is not given as a name, or cannot be found.

    >>> preload("json", "decimal")
    >>> preload("jsno")
    Traceback (most recent call last):
        ...
    suitkaise.errors.SpecError: preload: no module named 'jsno' can be found
    """
    for name in modules:
        if not isinstance(name, str):
            raise SpecError(f"preload: modules must be names, not {type(name).__name__}: {name!r}")
        if name == "__main__":
            raise SpecError("preload: __main__ is never imported again: its classes are sent to the workers by value")
        try:
            found = importlib.util.find_spec(name)
        except (ImportError, ValueError):
            found = None
        if found is None:
            raise SpecError(f"preload: no module named {name!r} can be found")
    if not _wanted.keys() >= set(modules):
        _wanted.update(dict.fromkeys(map(str, modules)))
        for listener in tuple(listeners):
            listener()


def wanted() -> list[str]:
    """Return the names of all modules that `preload` was called with so far."""
    return list(_wanted)
