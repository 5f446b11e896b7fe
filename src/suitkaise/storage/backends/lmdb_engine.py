"""The engine on LMDB; this module handles the traps of LMDB that are known.

- Engine 0.9 (1.0 raised spurious `BadTxnError`s), and never `writemap` (SIGBUS on a full tmpfs).
- The map is large from the start, so that it hardly ever has to grow; address space costs nothing.
- The lock file is allocated in full before it is mapped: a hole in it is a SIGBUS on a full tmpfs.
- The descriptor of the data is inheritable: a program that outlives this one would keep the memory of the storage.
- A process may open an environment once, and not across a fork: see `access`.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lmdb

from suitkaise.errors import StorageDamaged, StorageFull
from suitkaise.platform.descriptors import keep_to_this_process
from suitkaise.storage.backends import access
from suitkaise.storage.backends.tables import FILES, TABLES, FileSystemFull

__all__ = ["LmdbEngine"]

_SMALLEST_MAP = 1 << 24
_MAX_MAP_SIZE = 1 << 46
_MAX_READERS = 4096
_LOCK_FILE_SIZE = 64 * (_MAX_READERS + 2)
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_SPACE_FOR_PAGES = 1 << 20  # the most that a commit writes in addition to the records, in bytes


class LmdbEngine:
    """Memory-mapped: a read copies one value out of memory that all processes share."""

    errors: tuple[type[Exception], ...] = (lmdb.Error,)
    is_remote: bool = False
    reads_one_at_a_time: bool = False
    heartbeat: float | None = None

    def __init__(self) -> None:
        self._room_made: tuple[Path, int] | None = None  # where, and the number of the commit that did it

    def open_for_writing(self, directory: Path, *, durable: bool, map_size: int) -> Any:
        """Open the environment in `directory`; make it if it does not exist."""
        data = directory / FILES["lmdb"]
        data.mkdir(mode=0o700, exist_ok=True)
        _allocate_lock_file(data / "lock.mdb")
        return _open(data, map_size, write=True, durable=durable)

    def open_for_reading(self, directory: Path, *, map_size: int) -> Any:
        """Open the environment in `directory`."""
        return _open(directory / FILES["lmdb"], map_size, write=False, durable=False)

    def table(self, opened: Any, name: str, *, create: bool) -> Any:
        """Open a named database."""
        try:
            return opened.open_db(name.encode(), create=create)
        except lmdb.NotFoundError:
            return None

    def quick_begin(self, opened: Any, *, view: bool = False) -> Callable[[Any], Any]:
        """Return LMDB's own method."""
        begin: Callable[..., Any] = opened.begin
        return (lambda table: begin(table, None, False, True)) if view else begin

    def repaired_reading(self, opened: Any, error: Exception) -> bool:
        """Follow a map that the writer has grown; free the slots of dead readers."""
        with access.LOCK:
            match error:
                case lmdb.MapResizedError():
                    opened.set_mapsize(0)
                case lmdb.ReadersFullError():
                    opened.reader_check()
                case _:
                    return False
        return True

    def repaired_writing(self, opened: Any, directory: Path, error: Exception, size: int) -> bool:
        """Double a map that is full; make room in a file system that is full, or report it."""
        if isinstance(error, lmdb.MapFullError):
            _grow(opened, directory)
            return True
        if _is_full(error, directory, size):
            if self._makes_room(opened, directory):
                return True
            raise FileSystemFull(f"no room is left in {directory} for this write: {error}") from error
        if isinstance(error, lmdb.BadValsizeError):  # keys are never too long
            raise StorageFull("an entry in LMDB may have 4 GiB at most") from error
        if isinstance(error, (lmdb.CorruptedError, lmdb.PageNotFoundError)):
            raise StorageDamaged(f"the storage in {directory} is damaged: {error}") from error
        return False

    def _makes_room(self, opened: Any, directory: Path) -> bool:
        """Commit next to nothing: the second commit after a removal is the first that can use its pages."""
        if self._room_made == (directory, opened.info()["last_txnid"]):
            return False
        try:
            facts = opened.open_db(b"facts", create=False)
            with opened.begin(write=True) as transaction:
                transaction.put(b"room made", b"", db=facts)
        except lmdb.Error:  # there is no room for that either
            return False
        self._room_made = directory, opened.info()["last_txnid"]
        return True

    def problem(self, opened: Any) -> str | None:
        """Return None: LMDB has no check of its own."""
        return None

    def maintain(self, opened: Any) -> None:
        """Free the slots of readers that died, so that the pages they were reading can be reused."""
        opened.reader_check()

    def oldest_reader(self, opened: Any) -> tuple[int, object] | None:
        """Return the reader of the oldest snapshot, if it is not the newest one."""
        oldest = None
        for line in opened.readers().splitlines()[1:]:  # pid, thread, number of the transaction or "-"
            pid, _, number = line.split()
            if number != "-" and (oldest is None or int(number) < oldest[1]):
                oldest = int(pid), int(number)
        return None if oldest is None or oldest[1] >= opened.info()["last_txnid"] else oldest


def _open(data: Path, map_size: int, *, write: bool, durable: bool) -> lmdb.Environment:
    while True:
        try:
            opened = lmdb.open(
                os.fsencode(data),
                map_size=map_size,
                readonly=not write,
                create=write,
                sync=durable,
                metasync=durable,
                mode=0o700,
                max_dbs=len(TABLES),
                max_readers=_MAX_READERS,
                max_spare_txns=8,
                **_VERSION,  # type: ignore[arg-type]
            )
        except (lmdb.MemoryError, MemoryError):
            if map_size <= _SMALLEST_MAP:
                raise
            map_size //= 2
        else:
            keep_to_this_process(data / "data.mdb")
            return opened


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


def _grow(opened: lmdb.Environment, directory: Path) -> None:
    size = opened.info()["map_size"]
    if size >= _MAX_MAP_SIZE:
        raise StorageFull(f"the storage in {directory} has reached its largest size, {size} bytes")
    try:
        opened.set_mapsize(size * 2)
    except (lmdb.Error, MemoryError) as error:
        raise StorageFull(
            f"the storage in {directory} cannot grow beyond {size} bytes; the system refuses more "
            f"address space (see `ulimit -v`): {error}"
        ) from error


def _is_full(error: Exception, directory: Path, size: int) -> bool:
    """Return whether the file system is full. LMDB reports a write that was cut short as an I/O error."""
    if any(os.strerror(number) in str(error) for number in _NO_SPACE):
        return True
    if os.strerror(errno.EIO) not in str(error):
        return False
    file_system = os.statvfs(directory)
    return file_system.f_bavail * file_system.f_frsize < size + _SPACE_FOR_PAGES


def _version() -> dict[str, int]:
    """Return the argument that selects LMDB's own version, if this version of py-lmdb has one."""
    version = getattr(lmdb, "__version__", "0")
    return {"lib_version": 0} if int(version.split(".")[0]) >= 3 else {}


_VERSION = _version()
