"""How a worker gets at the program's storage: it asks the hub where that is, once."""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING

from suitkaise.messaging.refs import the_post

if TYPE_CHECKING:
    from suitkaise.storage.tree import Tree

__all__ = ["START_TIMEOUT", "attach"]

START_TIMEOUT = 30.0
"""Seconds in which the storage must be up, if this is the first time that anybody needs it."""


def attach() -> Tree:
    """The storage of the program that this worker belongs to.

    Raises:
        RuntimeGone: there is no such program, or it is gone.
    """
    directory: str = the_post().post("storage", "").get(START_TIMEOUT)
    return _tree(directory, os.getpid())


@functools.lru_cache(maxsize=8)
def _tree(directory: str, process: int) -> Tree:
    from suitkaise.storage.tree import Tree  # LMDB is loaded by those who need it

    return Tree(directory)
