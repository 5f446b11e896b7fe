"""The levels of the program's loggers, which hold in the processes of its workers, too.

`logging` tells nobody that a level has changed, but it empties the caches of all loggers then: with a private method of
its manager, which `watch_levels` wraps. Without that method a worker has the levels of its start until its end.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping

__all__ = ["apply_levels", "levels", "watch_levels"]

_applied: dict[str, int] = {}
"""The levels that this process has from the program, by the names of the loggers."""


def levels() -> dict[str, int]:
    """Return the levels that were set, by the names of the loggers; the root logger has the name ''.

    While changes are watched, the levels are looked up only after a change.
    """
    if "levels" in _known:
        return _known["levels"]
    loggers = list(logging.root.manager.loggerDict.items())
    found = {name: logger.level for name, logger in loggers if isinstance(logger, logging.Logger) and logger.level}
    found[""] = logging.root.level
    if _watching:
        _known["levels"] = found
    return found


_watching: set[object] = set()
_known: dict[str, dict[str, int]] = {}


def apply_levels(wanted: Mapping[str, int]) -> None:
    """Set the levels that are not those of the call before; what was set here in between stays as it is."""
    for name in wanted.keys() | _applied.keys():
        level = wanted.get(name, logging.NOTSET)
        if level != _applied.get(name):
            logging.getLogger(name).setLevel(level)
    _applied.clear()
    _applied.update(wanted)


def watch_levels(on_change: Callable[[], None]) -> Callable[[], None]:
    """Call `on_change`, which must not wait, after each change of a level; return a function that ends this."""
    manager = logging.root.manager
    clear = getattr(manager, "_clear_cache", None)
    if clear is None:
        return lambda: None

    def clear_and_tell() -> None:
        clear()
        _known.clear()
        on_change()

    manager._clear_cache = clear_and_tell  # type: ignore[attr-defined]
    _watching.add(clear_and_tell)

    def end() -> None:
        nonlocal on_change
        on_change = _do_nothing
        _watching.discard(clear_and_tell)
        _known.clear()
        if vars(manager).get("_clear_cache") is clear_and_tell:  # else another program has wrapped it, too
            with contextlib.suppress(AttributeError):
                del manager._clear_cache  # type: ignore[attr-defined]

    return end


def _do_nothing() -> None: ...
