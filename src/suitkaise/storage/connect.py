"""How a worker connects to the program's storage: it asks the hub for the directory."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from suitkaise.messaging.protocol import RequestKind
from suitkaise.messaging.router import router
from suitkaise.platform.processes import after_fork_in_child
from suitkaise.storage.place import note_elsewhere

if TYPE_CHECKING:
    from suitkaise.storage.tree import Tree

__all__ = ["attach", "detach"]

START_TIMEOUT = 30.0
"""Seconds within which the storage must be running; the first use in a program starts it."""


def attach() -> Tree:
    """Return the storage of the program that this worker belongs to.

    Raises:
        RuntimeGone: there is no such program, or it has ended.
    """
    directory: str = router().request(RequestKind.STORAGE, "").get(START_TIMEOUT)
    note_elsewhere(directory)
    from suitkaise.storage.tree import Tree  # loads LMDB only where it is used

    with _lock:
        tree = _trees.get(directory)
        if tree is None:
            tree = _trees[directory] = Tree(directory)
        return tree


def detach(directory: str) -> None:
    """Close this process's handle to the storage in `directory`, which is about to end."""
    with _lock:
        tree = _trees.pop(directory, None)
    if tree is not None:
        tree.close()


_lock = threading.Lock()
_trees: dict[str, Tree] = {}  # a tree itself handles forks


def _reset_after_fork() -> None:
    global _lock
    _lock = threading.Lock()


after_fork_in_child(_reset_after_fork)
