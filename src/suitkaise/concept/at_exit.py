"""The groups of workers that run in this program. At its end, it waits for them, as multiprocessing does."""

from __future__ import annotations

import contextlib
import itertools
import math
from typing import TYPE_CHECKING

from suitkaise.platform.exit_functions import at_exit
from suitkaise.platform.locks import RLock
from suitkaise.platform.log_queue import QueuedLogger
from suitkaise.platform.preload import preload
from suitkaise.platform.processes import after_fork_in_child, was_interrupted
from suitkaise.runtime import runtime
from suitkaise.runtime.running_tree import RunningTree
from suitkaise.runtime.start import start as start_tree
from suitkaise.supervisor import Supervisor

if TYPE_CHECKING:
    from suitkaise.concept.group import WorkerGroup

__all__ = ["forget", "start"]

logger: QueuedLogger = QueuedLogger("suitkaise")

_groups: list[WorkerGroup] = []
_lock = RLock()


def start(name: str, group: WorkerGroup) -> RunningTree:
    """Start the supervisor of a group, under that name or, if it is taken, that name with a number."""
    with _lock:
        taken = runtime.running_trees()
        names = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
        free = next(one for one in names if one not in taken)
        preload(*group._modules)
        running = start_tree(Supervisor(free, max_restarts=math.inf), processes=group._kind == "process")
        if group not in _groups:
            _groups.append(group)
        return running


def forget(group: WorkerGroup) -> None:
    """Forget a group that has ended."""
    with _lock:
        if group in _groups:
            _groups.remove(group)


@at_exit  # after the runtime has registered its own, which stops trees: the last one is called first
def _wait_for_all() -> None:
    """Wait for all groups; Ctrl-C stops them gracefully, the second one kills."""
    with contextlib.suppress(KeyboardInterrupt):
        if not was_interrupted():
            for group in _groups:
                logger.info("the program waits for %s", group._path)
                group._join_all(None)
    while _groups:
        group = _groups.pop()
        try:
            group.shutdown()
        except KeyboardInterrupt:
            group._kill("a second Ctrl-C")
            group.shutdown()


def _reset_after_fork() -> None:
    global _lock
    _lock = RLock()
    _groups.clear()


after_fork_in_child(_reset_after_fork)
