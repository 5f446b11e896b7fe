"""Opening LMDB the one way that works: every trap that was met is handled here.

- Engine 0.9 (1.0 raised spurious `BadTxnError`s), and never `writemap` (SIGBUS on a full tmpfs).
- The map is large from the start, so that it hardly ever has to grow; address space costs nothing.
- The lock file is allocated in full before it is mapped: a hole in it is SIGBUS on a full tmpfs.
- A process may open an environment once. Whoever reads where this process also writes shares the writer's.
- Fork: the parent closes what it reads with before a fork and opens it again when it needs it. A child that
  closed an inherited environment would free its parent's slots in the table of readers, and the writer would
  reuse pages that the parent is reading.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import weakref
from pathlib import Path
from typing import Protocol

import lmdb

from suitkaise.errors import StorageError

__all__ = [
    "DATA",
    "DATABASES",
    "DEFAULT_MAP_SIZE",
    "LOCK",
    "Holder",
    "close_for_writing",
    "open_for_reading",
    "open_for_writing",
    "register",
]

if sys.platform != "win32":
    import fcntl

DATA = "store"
"""The folder of the data in a storage's directory."""

DATABASES = (b"entries", b"owned", b"dead", b"clients", b"facts")

DEFAULT_MAP_SIZE = 1 << 36
_SMALLEST_MAP = 1 << 24
_MAX_READERS = 4096
_LOCK_FILE_SIZE = 64 * (_MAX_READERS + 2)


LOCK = threading.RLock()
"""Held while environments are opened and closed and what is shared is looked up, and during a fork."""


class Holder(Protocol):
    """Who keeps an environment open to read from it."""

    directory: Path

    def let_go(self) -> None:
        """Close it. (It may be opened again at once.)"""


_holders: weakref.WeakSet[Holder] = weakref.WeakSet()
_written_here: dict[Path, tuple[lmdb.Environment, int]] = {}


def register(holder: Holder) -> None:
    """Have `holder` let go before every fork, and before this process writes to the same storage."""
    with LOCK:
        _holders.add(holder)


def open_for_writing(directory: Path, *, durable: bool, map_size: int) -> lmdb.Environment:
    """The environment in `directory`, made if need be. Close it with `close_for_writing`.

    Raises:
        StorageError: someone else writes there.
        lmdb.Error, OSError: as they say.
    """
    directory = directory.resolve()
    with LOCK:
        if directory in _written_here:
            raise StorageError(f"{directory} is being written to by this process already")
        lock = _lock_writer(directory)
        try:
            for holder in list(_holders):
                if holder.directory == directory:
                    holder.let_go()
            data = directory / DATA
            data.mkdir(mode=0o700, exist_ok=True)
            _allocate_lock_file(data / "lock.mdb")
            opened = _open(data, map_size, write=True, durable=durable)
        except BaseException:
            os.close(lock)
            raise
        _written_here[directory] = opened, lock
        return opened


def close_for_writing(directory: Path, opened: lmdb.Environment) -> None:
    """Close what `open_for_writing` opened, and let others write."""
    with LOCK:
        known = _written_here.pop(directory.resolve(), None)
        opened.close()
        if known is not None:
            os.close(known[1])


def open_for_reading(directory: Path, *, map_size: int = DEFAULT_MAP_SIZE) -> tuple[lmdb.Environment, bool]:
    """The environment in `directory`, and whether it is the writer's, who alone may close it.

    Raises:
        lmdb.Error, OSError: as they say; also when there is nothing yet.
    """
    with LOCK:
        written = _written_here.get(directory.resolve())
        if written is not None:
            return written[0], True
        return _open(directory / DATA, map_size, write=False, durable=False), False


def _open(data: Path, map_size: int, *, write: bool, durable: bool) -> lmdb.Environment:
    while True:
        try:
            return lmdb.open(
                str(data),
                map_size=map_size,
                readonly=not write,
                create=write,
                sync=durable,
                metasync=durable,
                mode=0o700,
                max_dbs=len(DATABASES),
                max_readers=_MAX_READERS,
                max_spare_txns=8,
                **_ENGINE,  # type: ignore[arg-type]
            )
        except (lmdb.MemoryError, MemoryError):
            if map_size <= _SMALLEST_MAP:
                raise
            map_size //= 2


def _lock_writer(directory: Path) -> int:
    """Make sure that there is one writer. The kernel takes the lock back when the process ends."""
    descriptor = os.open(directory / "writer", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    if sys.platform == "win32":
        return descriptor
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise StorageError(
            f"another process writes to the storage in {directory}; a storage has one program at a time"
        ) from None
    return descriptor


def _allocate_lock_file(path: Path) -> None:
    """Before anybody maps it. (Closing a descriptor of it later would drop LMDB's own locks on it.)"""
    if path.exists() and path.stat().st_size >= _LOCK_FILE_SIZE:
        return
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        with contextlib.suppress(AttributeError, OSError):  # not everywhere; a safeguard, not a condition
            os.posix_fallocate(descriptor, 0, _LOCK_FILE_SIZE)
    finally:
        os.close(descriptor)


def _engine() -> dict[str, int]:
    """The argument that chooses the engine, where this py-lmdb has one."""
    version = getattr(lmdb, "__version__", "0")
    return {"lib_version": 0} if int(version.split(".")[0]) >= 3 else {}


_ENGINE = _engine()


def _before_fork() -> None:
    LOCK.acquire()
    for holder in list(_holders):
        holder.let_go()


def _after_fork_in_parent() -> None:
    LOCK.release()


def _after_fork_in_child() -> None:
    global LOCK
    LOCK = threading.RLock()
    _written_here.clear()  # never closed here: the slots and locks are the parent's


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
