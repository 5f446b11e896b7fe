"""How a worker gets at the program's storage: it asks the hub where that is, once."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from suitkaise.messaging.protocol import RequestKind
from suitkaise.messaging.router import router

if TYPE_CHECKING:
    from suitkaise.storage.tree import Tree

__all__ = ["START_TIMEOUT", "attach", "detach"]

START_TIMEOUT = 30.0
"""Seconds in which the storage must be up, if this is the first time that anybody needs it."""


def attach() -> Tree:
    """The storage of the program that this worker belongs to.

    Raises:
        RuntimeGone: there is no such program, or it is gone.
    """
    directory: str = router().request(RequestKind.STORAGE, "").get(START_TIMEOUT)
    from suitkaise.storage.tree import Tree  # LMDB is loaded by those who need it

    with _lock:
        tree = _trees.get(directory)
        if tree is None:
            tree = _trees[directory] = Tree(directory)
        return tree


def detach(directory: str) -> None:
    """The storage in `directory` is about to go: close what this process has open of it."""
    with _lock:
        tree = _trees.pop(directory, None)
    if tree is not None:
        tree.close()


_lock = threading.Lock()
_trees: dict[str, Tree] = {}  # a tree itself minds forks


def _after_fork() -> None:
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_after_fork)
