"""Open LMDB environments; this module handles the traps of LMDB that are known.

- Engine 0.9 (1.0 raised spurious `BadTxnError`s), and never `writemap` (SIGBUS on a full tmpfs).
- The map is large from the start, so that it hardly ever has to grow; address space costs nothing.
- The lock file is allocated in full before it is mapped: a hole in it is a SIGBUS on a full tmpfs.
- A process may open an environment once. A reader in the process of the writer uses the writer's environment.

**Readers and fork.** LMDB must not be used across a fork, and closing an environment is a use, too. A reader has a slot
in a table in the shared lock file. The slot holds the reader's pid and the revision that it is reading, and the writer
does not reuse pages of that revision. A forked child inherits the environment together with its parent's slots. If the
child read with them, two processes would overwrite one slot, and the writer could reuse pages that one of the two is
still reading: torn values. If the child closed the environment, LMDB would free its parent's slots, with the same
result in the parent. If the child did neither, it could not read at all. So before every fork all readers close their
environments, with `LOCK` held so that no other thread opens one in between, and both processes open their own at the
next read. A transaction that another thread has open at that moment fails, and `Reader` repeats the read. The writer's
environment stays open: a forked child forgets it without closing it, and `Store.write` refuses to run there.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
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

DATA = "store"
"""The folder of the data in a storage's directory."""

DATABASES = (b"entries", b"owned", b"dead", b"clients", b"facts", b"by_metadata")

DEFAULT_MAP_SIZE = 1 << 36
_SMALLEST_MAP = 1 << 24
_MAX_READERS = 4096
_LOCK_FILE_SIZE = 64 * (_MAX_READERS + 2)

LOCK = threading.RLock()
"""Held while an environment is opened or closed, while shared tables are read, and during a fork."""


class Holder(Protocol):
    """A reader that keeps an environment open."""

    directory: Path

    def release(self) -> None:
        """Close the environment. The next read may open it again at once."""


_holders: weakref.WeakSet[Holder] = weakref.WeakSet()
_written_here: dict[Path, tuple[lmdb.Environment, int]] = {}


def register(holder: Holder) -> None:
    """Release `holder` before every fork, and before this process writes to the same storage."""
    with LOCK:
        _holders.add(holder)


def open_for_writing(directory: Path, *, durable: bool, map_size: int) -> lmdb.Environment:
    """Open the environment in `directory`, and make it if it does not exist. Close it with `close_for_writing`.

    Raises:
        StorageError: there is another writer.
        lmdb.Error, OSError: it cannot be opened.
    """
    directory = directory.resolve()
    with LOCK:
        if directory in _written_here:
            raise StorageError(f"this process writes to the storage in {directory} already")
        lock = _lock_writer(directory)
        try:
            for holder in list(_holders):
                if holder.directory == directory:
                    holder.release()
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
    """Close an environment of `open_for_writing`, and let other processes write."""
    with LOCK:
        known = _written_here.pop(directory.resolve(), None)
        opened.close()
        if known is not None:
            os.close(known[1])


def open_for_reading(directory: Path, *, map_size: int = DEFAULT_MAP_SIZE) -> tuple[lmdb.Environment, bool]:
    """Open the environment in `directory`; also return whether it is the writer's, which alone may close it.

    Raises:
        lmdb.Error, OSError: it cannot be opened, or does not exist yet.
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
    """Lock out other writers. The kernel releases the lock when the process ends."""
    descriptor = os.open(directory / "writer", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise StorageError(
            f"another process writes to the storage in {directory}; a storage has one program at a time"
        ) from None
    return descriptor


def _allocate_lock_file(path: Path) -> None:
    """Allocate the lock file before it is mapped; closing a descriptor of it later would drop LMDB's own locks."""
    if path.exists() and path.stat().st_size >= _LOCK_FILE_SIZE:
        return
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        with contextlib.suppress(AttributeError, OSError):  # a safeguard that not every file system has
            os.posix_fallocate(descriptor, 0, _LOCK_FILE_SIZE)
    finally:
        os.close(descriptor)


def _engine() -> dict[str, int]:
    """Return the argument that selects the engine, if this version of py-lmdb has one."""
    version = getattr(lmdb, "__version__", "0")
    return {"lib_version": 0} if int(version.split(".")[0]) >= 3 else {}


_ENGINE = _engine()


def _before_fork() -> None:
    LOCK.acquire()
    for holder in list(_holders):
        holder.release()


def _after_fork_in_parent() -> None:
    LOCK.release()


def _after_fork_in_child() -> None:
    global LOCK
    LOCK = threading.RLock()
    _written_here.clear()  # never closed here: slots and locks belong to the parent


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
