"""The public face of the storage: `sktree.connect()` returns the tree that all workers of the program share."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NoReturn

from suitkaise.errors import StorageError
from suitkaise.messaging.identity import current_owner
from suitkaise.messaging.router import in_worker_process
from suitkaise.platform.locks import RLock
from suitkaise.platform.processes import after_fork_in_child
from suitkaise.specs.options import path_text
from suitkaise.storage.connect import attach
from suitkaise.storage.index import checked_keys
from suitkaise.storage.records import Entry
from suitkaise.storage.selection import Selection
from suitkaise.storage.tree import Tree
from suitkaise.storage.watch import Change, Watch

__all__ = ["Change", "Entry", "Selection", "Tree", "Watch", "connect", "disconnect"]

_OWN_STORAGE = (
    "; multiprocessing has started this process, which has a storage of its own: "
    "for that of the program, pass it the program's tree, as an argument"
)

_lock = RLock()  # a signal handler may connect or disconnect, too
_connected: list[Tree] = []  # that of the main program, while it is connected


def connect(
    directory: str | os.PathLike[str] | None = None,
    *,
    durable: bool = False,
    index: Iterable[str] = (),
    engine: str | None = None,
) -> Tree:
    """Return the program's storage; the first call starts it.

    In a worker this is the same storage as `self.tree`. In the main program it is open until `disconnect()` or the
    end of the program, however many supervision trees start and stop meanwhile. A process that `multiprocessing`
    has started is a program of its own, with a storage of its own; a tree that is passed to it as an argument is
    that of the program which it comes from.

    Args:
        directory: the directory to keep it in; needs `durable=True`. Default: the program's private directory, in
            memory.
        durable: keep it on disk, safe against power loss, for the next run of the program.
        index: metadata keys by which `select_all_with` finds entries quickly, besides `pid`, `owner` and
            `remove_on_process_join`. A durable storage remembers them. Indexing what is stored already takes
            the storage actor about 5 us an entry, once.
        engine: "lmdb", the quicker one, or "sqlite", which is part of Python; or the URL of a Redis or Valkey server
            with the name of the storage, `redis://HOST:PORT/DB?name=NAME`, which workers on other machines read
            without asking the program (extra `redis`). Default: the engine that made the storage; for a new one
            LMDB, or SQLite where the package lmdb is not installed.

    Raises:
        StorageError: the directory cannot be used, or another program uses it; the engine is not installed, or is
            not the one that made the storage.
    """
    keys = checked_keys("connect: index", index)
    folder = None if directory is None else path_text(directory)
    if directory is not None and folder is None:
        raise StorageError(f"connect: directory must be the path of a directory, or None, not {directory!r}")
    if engine is not None and not isinstance(engine, str):
        raise StorageError(f"connect: engine must be 'lmdb', 'sqlite', the URL of a server, or None, not {engine!r}")
    if not isinstance(durable, bool):
        raise StorageError(f"connect: durable must be True or False, not {durable!r}")
    if (directory is not None) is not durable:
        raise StorageError(
            "a durable storage needs a directory, and a directory needs durable=True: connect('state/', durable=True)"
        )
    if in_worker_process() or current_owner() is not None:
        if durable or engine is not None:
            raise StorageError(
                "only the main program chooses the storage's directory and engine; "
                "in a worker, use connect() without arguments"
            )
        return _indexed(attach(), keys)
    from suitkaise.engines.keeper_process import launched_early

    with launched_early(True), _lock:
        from suitkaise.runtime import runtime  # not loaded in workers, which have no runtime

        program = runtime.enter()
        try:
            place = program.storage.directory(None if folder is None else os.path.abspath(folder), engine)
            tree = _connected[0] if _connected else Tree(place)
            if directory is None and _is_child_of_multiprocessing():
                tree._reader.hint = _OWN_STORAGE
        except BaseException:
            runtime.leave()
            raise
        if _connected:
            runtime.leave()  # all connections together count as one use of the program
        else:
            _connected.append(tree)
    return _indexed(tree, keys)


def disconnect() -> None:
    """Close the main program's connections to the storage. A storage that is not durable ends with its last user.

    Its users are the main program and the supervision trees that run.

    Raises:
        StorageError: a write with `wait=False` was refused; the error is that of `Tree.flush`. The connections are
            closed nevertheless.
    """
    with _lock:
        try:
            tree = _connected.pop()
        except IndexError:
            return
        from suitkaise.runtime import runtime

        with contextlib.ExitStack() as end:  # every step runs, even if one fails
            end.callback(runtime.leave)
            end.callback(tree.close)


if not TYPE_CHECKING:  # a type checker is to know the names that there are

    def __getattr__(name: str) -> NoReturn:
        there = name[:1] != "_" and hasattr(Tree, name)
        hint = f"; make tree = sktree.connect() once, and use tree.{name}" if there else ""
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}{hint}", name=name)


def _indexed(tree: Tree, keys: list[str]) -> Tree:
    if keys:
        tree.declare_index(keys)
    return tree


def _is_child_of_multiprocessing() -> bool:
    processes: Any = sys.modules.get("multiprocessing.process")  # a child has loaded it
    return processes is not None and processes.parent_process() is not None


def _reset_after_fork() -> None:
    global _lock
    _lock = RLock()
    _connected.clear()


after_fork_in_child(_reset_after_fork)
