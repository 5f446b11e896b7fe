"""The concept's face of the storage: `sktree.connect()` gives the tree that all workers of the program share."""

from __future__ import annotations

import contextlib
import os
import threading

from suitkaise.errors import StorageError
from suitkaise.messaging.identity import current_owner
from suitkaise.messaging.router import in_worker_process
from suitkaise.storage.connect import attach
from suitkaise.storage.tree import Tree

__all__ = ["Tree", "connect", "disconnect"]

_lock = threading.Lock()
_connected: list[Tree] = []


def connect(directory: str | os.PathLike[str] | None = None, *, durable: bool = False) -> Tree:
    """Get the program's storage; it is made at the first call.

    In a worker this is the same storage as `self.tree`. In the main program it lives until `disconnect()` or the
    end of the program, whichever trees come and go meanwhile.

    Args:
        directory: where to keep it; needs `durable=True`. Default: the program's private directory, in memory.
        durable: keep it on disk, safe against power loss, and there again at the next run.

    Raises:
        StorageError: the directory cannot be used, or another program uses it.
    """
    if (directory is not None) is not durable:
        raise StorageError(
            "a durable storage needs a directory, and a directory durable=True: connect('state/', durable=True)"
        )
    if in_worker_process() or current_owner() is not None:
        if durable:
            raise StorageError("only the main program chooses where the storage is; in a worker, say connect()")
        return attach()
    from suitkaise.runtime import runtime  # a worker, which has none, need not load it

    with _lock:
        program = runtime.enter()
        try:
            tree = Tree(program.storage.directory(None if directory is None else os.path.abspath(directory)))
        except BaseException:
            runtime.leave()
            raise
        if _connected:
            runtime.leave()  # one use of the program for all connections
        _connected.append(tree)
        return tree


def disconnect() -> None:
    """The main program needs the storage no more. Unless a tree still runs, an undurable one is gone with that.

    Raises:
        StorageError: something that was written with `wait=False` was refused, as `Tree.flush` tells it. The
            connection is closed nevertheless.
    """
    with _lock:
        if not _connected:
            return
        from suitkaise.runtime import runtime

        with contextlib.ExitStack() as end:  # all of it, whatever fails
            end.callback(runtime.leave)
            while _connected:
                end.callback(_connected.pop().close)


def _after_fork() -> None:
    global _lock
    _lock = threading.Lock()
    _connected.clear()


os.register_at_fork(after_in_child=_after_fork)
