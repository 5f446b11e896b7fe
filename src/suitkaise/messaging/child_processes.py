"""Processes that a worker starts with multiprocessing: what `__main__` defines reaches them.

multiprocessing sends a class or function of `__main__` by name, and runs the program's script again in a child that is
not a fork. A worker's `__main__` is not that script (see `definitions`), so the name would lead nowhere. So as long as
a worker has such a child, the pickler of multiprocessing sends these definitions by value, as the codec does. What
comes back comes by name. A fork has the worker's `__main__`, and gets nothing but the name: it may use globals that are
large, or that cannot be sent.
"""

from __future__ import annotations

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
    if not (isinstance(value, type | types.FunctionType) or type(value) in REDUCERS):
        return NotImplemented
    if definitions.name_of(value)[0] not in definitions.MAIN or not definitions.is_at_top_level(value):
        return NotImplemented
    if not _has_other_children_than_forks():
        return NotImplemented
    try:
        if isinstance(value, type | types.FunctionType):
            reduced = reduce_to_bundle(value)
        else:
            reduced = codec.loads, (codec.dumps(value),)
    except Exception:  # a fork may know it by its name; the error of any other child names it
        return NotImplemented
    if reduced is None:
        return NotImplemented
    return _arrive, (definitions.program(), definitions.main_names(), *reduced)


def _has_other_children_than_forks() -> bool:
    from multiprocessing import active_children, context, get_start_method  # most workers need none of it

    def is_fork(child: Any) -> bool:
        if isinstance(child, context.Process):
            return get_start_method(allow_none=True) == "fork"
        return isinstance(child, context.ForkProcess)

    # While such a child is pickled itself, it is not among the children yet.
    return context.get_spawning_popen() is not None or not all(map(is_fork, active_children()))


def _arrive(program: str, names: dict[str, str], rebuild: Any, arguments: Any) -> Any:
    if definitions.program() != program:  # a process that is no fork takes part in the program from now on
        definitions.enter_program(program, names)
        share_definitions()
    return rebuild(*arguments)
