"""How a worker connects to the program's storage: it asks the hub for the directory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from suitkaise.messaging.protocol import RequestKind
from suitkaise.messaging.router import router
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

    return _trees.get(directory) or _trees.setdefault(directory, Tree(directory))


def detach(directory: str) -> None:
    """Close this process's handle to the storage in `directory`, which is about to end."""
    tree = _trees.pop(directory, None)
    if tree is not None:
        tree.close()


_trees: dict[str, Tree] = {}  # a tree itself handles forks
"""Without a lock, since a signal handler may connect, too."""
