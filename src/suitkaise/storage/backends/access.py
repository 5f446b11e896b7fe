"""Who may use the files of a store: one process writes, every process reads, and nothing is used across a fork.

**Readers and fork.** Neither LMDB nor SQLite may be used across a fork, and closing is a use, too. Take LMDB: a reader
has a slot in a table in the shared lock file. The slot holds the reader's pid and the revision that it is reading, and
the writer does not reuse pages of that revision. A forked child inherits the environment together with its parent's
slots. If the child read with them, two processes would overwrite one slot, and the writer could reuse pages that one
of the two is still reading: torn values. If the child closed the environment, LMDB would free its parent's slots, with
the same result in the parent. If the child did neither, it could not read at all. So before every fork all readers
close what they have open, with `LOCK` held so that no other thread opens it in between, and both processes open their
own at the next read. A transaction of LMDB that another thread has open at that moment fails, and `Reader` repeats the
read; SQLite lets it end first. A long read of SQLite calls functions of the user's, which may read, and so may need
`LOCK`: a fork waits for its end without it. The writer's store stays open: a forked child forgets it without closing
it, and `Store.write` refuses to run there.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from suitkaise.errors import StorageError
from suitkaise.platform.locks import RLock
from suitkaise.storage.backends.tables import Engine, Opened

__all__ = [
    "DEFAULT_MAP_SIZE",
    "LOCK",
    "WRITER",
    "Holder",
    "close_for_writing",
    "forks_wait",
    "open_for_reading",
    "open_for_writing",
    "register",
]

DEFAULT_MAP_SIZE = 1 << 36
"""LMDB's map in bytes: large from the start, so that it hardly ever grows. Address space costs nothing."""

WRITER = "writer"
"""The file in a storage's directory that the writer locks."""

LOCK = RLock()
"""Held while a store is opened or closed, while shared tables are read, and during a fork."""


class Holder(Protocol):
    """A reader that keeps a store open."""

    directory: Path

    def release(self) -> None:
        """Close the store. The next read may open it again at once."""


_holders: weakref.WeakValueDictionary[int, Holder] = weakref.WeakValueDictionary()
_reading: list[int] = []  # the threads for whose long reads forks wait
_has_read = threading.Condition(LOCK)
_written_here: dict[Path, tuple[Opened, int]] = {}
_of_parent: list[Opened] = []


def register(holder: Holder) -> None:
    """Release `holder` before every fork, and before this process writes to the same storage."""
    with LOCK:
        _holders[id(holder)] = holder


def _open_holders() -> list[Holder]:
    refs = _holders.valuerefs()  # taken at once: a signal handler may open another one meanwhile
    return [holder for ref in refs if (holder := ref()) is not None]


def open_for_writing(engine: Engine, directory: Path, *, durable: bool, map_size: int) -> Opened:
    """Open the store in `directory`, and make it if it does not exist. Close it with `close_for_writing`.

    Raises:
        StorageError: there is another writer.
        engine.errors, OSError: it cannot be opened.
    """
    directory = directory.resolve()
    with LOCK:
        if directory in _written_here:
            raise StorageError(f"this process writes to the storage in {directory} already")
        lock = _lock_writer(directory)
        try:
            for holder in _open_holders():
                if holder.directory == directory:
                    holder.release()
            opened = engine.open_for_writing(directory, durable=durable, map_size=map_size)
        except BaseException:
            os.close(lock)
            raise
        _written_here[directory] = opened, lock
        return opened


def close_for_writing(directory: Path, opened: Opened) -> None:
    """Close a store of `open_for_writing`, and let other processes write."""
    with LOCK:
        known = _written_here.pop(directory.resolve(), None)
        opened.close()
        if known is not None:
            os.close(known[1])


def open_for_reading(engine: Engine, directory: Path, *, map_size: int) -> tuple[Opened, bool]:
    """Open the store in `directory`; also return whether it is the writer's, which alone may close it.

    A process may open an environment of LMDB once, so a reader in the process of the writer uses the writer's.

    Raises:
        engine.errors, OSError: it cannot be opened, or does not exist yet.
    """
    with LOCK:
        written = _written_here.get(directory.resolve())
        if written is not None:
            return written[0], True
        return engine.open_for_reading(directory, map_size=map_size), False


def _lock_writer(directory: Path) -> int:
    """Lock out other writers. The kernel releases the lock when the process ends."""
    descriptor = os.open(directory / WRITER, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise StorageError(
            f"another process writes to the storage in {directory}; a storage has one program at a time"
        ) from None
    return descriptor


@contextlib.contextmanager
def forks_wait() -> Iterator[None]:
    """Have forks of other threads wait for the end of the block, in which any thread may take `LOCK`."""
    thread = threading.get_ident()
    with LOCK:
        _reading.append(thread)
    try:
        yield
    finally:
        with LOCK, contextlib.suppress(ValueError):  # in a child that was forked in the block
            _reading.remove(thread)
            _has_read.notify_all()


def _before_fork() -> None:
    LOCK.acquire()
    thread = threading.get_ident()
    while any(other != thread for other in _reading):
        _has_read.wait()
    for holder in _open_holders():
        holder.release()


def _after_fork_in_parent() -> None:
    LOCK.release()


def _after_fork_in_child() -> None:
    global LOCK, _has_read
    LOCK = RLock()
    _has_read = threading.Condition(LOCK)
    _reading.clear()
    _of_parent.extend(opened for opened, _ in _written_here.values())  # never closed: its locks belong to the parent
    _written_here.clear()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
