"""How the start of a tree is waited for, and what is raised if it fails."""

from __future__ import annotations

import threading
from collections.abc import Callable

from suitkaise.errors import SuitkaiseError
from suitkaise.exits import ExitReason, Shutdown, StartFailure
from suitkaise.supervision.children import start_error
from suitkaise.supervision.executor import Executor
from suitkaise.supervision.steps import Begin, StopAll

__all__ = ["begin"]


def begin(executor: Executor, wait: Callable[[threading.Event], object] = threading.Event.wait) -> None:
    """Start the children of a new executor, and `wait` until they are up.

    Raises:
        ChildStartFailed: one failed; everything is stopped again.
    """
    up = threading.Event()
    executor.ready.add_done_callback(lambda done: up.set())
    executor.exited.add_done_callback(lambda done: up.set())
    executor.tell(Begin())
    try:
        wait(up)
    except BaseException:
        executor.tell(StopAll(Shutdown("its start was interrupted")))
        executor.exited.result()
        raise
    if not executor.ready.done():
        raise _start_error(executor.exited.result().reason)


def _start_error(reason: ExitReason) -> SuitkaiseError:
    failure = reason.detail if isinstance(reason, Shutdown) else None
    if not isinstance(failure, StartFailure):
        return SuitkaiseError(f"the tree ended while it started: {reason}", reason=reason)
    return start_error(failure)
