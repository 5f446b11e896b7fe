"""Which modules of the user's are imported once, before workers are forked, instead of in every worker."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

from suitkaise.errors import SpecError

__all__ = ["listeners", "preload", "wanted"]

listeners: list[Callable[[], None]] = []
"""Are called when `wanted` has grown."""

_wanted: dict[str, None] = {}


def preload(*modules: str) -> None:
    """Import `modules` once in the process that forks the workers; every start and restart then has them at once.

    For modules that take long to import and that process workers need: `preload("numpy", "myproject.models")`. It
    lasts as long as the program, and may be called before a tree is started (best) or while one runs, and by a
    process worker (for those that come after it). A module is
    fit for it if importing it starts no thread, and opens no file or connection that each worker should have for
    itself: what it does when it is imported is done once, and all workers share the outcome. The same holds for
    `multiprocessing.set_forkserver_preload`. A module that turns out to start threads is told in the log
    (`suitkaise.keeper`), and so is one that cannot be imported there: the workers then try it themselves.

    Args:
        modules: names, as `import` takes them. The classes of `__main__` need no preloading.

    Raises:
        SpecError: not a name, or no such module can be found.

    >>> preload("json", "decimal")
    >>> preload("jsno")
    Traceback (most recent call last):
        ...
    suitkaise.errors.SpecError: preload: no module named 'jsno' can be found
    """
    for name in modules:
        if not isinstance(name, str):
            raise SpecError(f"preload: modules are given by their names, not as {type(name).__name__}: {name!r}")
        if name == "__main__":
            raise SpecError("preload: __main__ is never imported again; its classes travel to the workers by value")
        try:
            found = importlib.util.find_spec(name)
        except (ImportError, ValueError):
            found = None
        if found is None:
            raise SpecError(f"preload: no module named {name!r} can be found")
    if not _wanted.keys() >= set(modules):
        _wanted.update(dict.fromkeys(modules))
        for tell in tuple(listeners):
            tell()


def wanted() -> list[str]:
    """All names so far."""
    return list(_wanted)
