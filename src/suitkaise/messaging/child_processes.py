"""Processes that a worker starts with multiprocessing: what `__main__` defines reaches them by value, and comes back.

multiprocessing sends a class or function of `__main__` by name, and runs the program's script again in a child that is
not a fork. A worker's `__main__` is not that script (see `definitions`), so the name would lead nowhere. This teaches
the pickler of multiprocessing, in workers and in their children, to send what the codec sends by value.
"""

from __future__ import annotations

import sys
import types
from typing import Any

from suitkaise.messaging import codec, definitions
from suitkaise.messaging.bundles import reduce_to_bundle
from suitkaise.messaging.reducers import REDUCERS
from suitkaise.platform.imports import when_imported

__all__ = ["share_definitions"]


def share_definitions() -> None:
    """Have this process, a worker or a child of one, send definitions of `__main__` to its children by value."""
    when_imported("multiprocessing.reduction", _teach)


def _teach(reduction: Any) -> None:
    reduction.ForkingPickler.reducer_override = _reduce


def _reduce(pickler: Any, value: Any) -> Any:
    """Be the pickler's `reducer_override`: return how to rebuild a value, or NotImplemented for pickle's own way."""
    if isinstance(value, type | types.FunctionType):
        reduced = reduce_to_bundle(value) if value.__module__ in definitions.MAIN else None
    elif type(value) in REDUCERS and definitions.is_at_top_level(value) and definitions.is_by_value(value):
        reduced = codec.loads, (codec.dumps(value),)
    else:
        return NotImplemented
    if reduced is None:
        return NotImplemented
    file = getattr(sys.modules["__main__"], "__file__", None)
    return _arrive, (definitions.program(), file, *reduced)


def _arrive(program: str, file: str | None, rebuild: Any, arguments: Any) -> Any:
    if definitions.program() != program:  # a process that is no fork takes part in the program from now on
        definitions.enter_program(program, file)
        share_definitions()
    return rebuild(*arguments)
