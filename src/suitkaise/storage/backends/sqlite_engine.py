"""The engine on SQLite, which comes with Python: slower than LMDB, and there wherever Python is.

The file is in WAL mode: readers read the last commit from the file, whatever the writer is doing. In a process, one
connection reads for all threads, one at a time.
"""

from __future__ import annotations

import functools
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from suitkaise.errors import StorageDamaged, StorageFull
from suitkaise.platform.locks import RLock
from suitkaise.storage.backends.tables import FILES, TABLES, FileSystemFull

__all__ = ["SqliteEngine"]

_WAIT = 10.0  # seconds for another process that repairs the log after a kill, or is folding it into the file
_CACHE = 1 << 15  # KiB
_SPACE_FOR_PAGES = 1 << 20  # the most that a commit writes in addition to the records, in bytes
_LOG = 128  # pages after which the log is folded into the file: until then they take room twice
_STUCK_LOG = 2048  # pages in the log that cannot be folded into the file


class _Table:
    """The statements of a table."""

    def __init__(self, name: str) -> None:
        self.get: str = f"select value from {name} where key = ?"
        self.put: str = f"insert into {name} values (?, ?) on conflict (key) do update set value = excluded.value"
        self.delete: str = f"delete from {name} where key = ?"
        self.scan: str = f"select key, value from {name} where key >= ? order by key"
        self.count: str = f"select count(*) from {name}"


_TABLES = {name: _Table(name) for name in TABLES}


class SqliteEngine:
    """One file, and the log of the latest commits beside it."""

    errors: tuple[type[Exception], ...] = (sqlite3.Error,)
    is_remote: bool = False
    reads_one_at_a_time: bool = True
    heartbeat: float | None = None

    def open_for_writing(self, directory: Path, *, durable: bool, map_size: int) -> Any:
        """Open the file in `directory`; make it if it does not exist. `map_size` is of LMDB only."""
        path = directory / FILES["sqlite"]
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)  # SQLite would make it for everybody
        os.close(descriptor)
        statements = [
            "pragma journal_mode = wal",
            f"pragma synchronous = {'full' if durable else 'off'}",
            f"pragma cache_size = -{_CACHE}",
            f"pragma wal_autocheckpoint = {_LOG}",
        ]
        for name in TABLES:
            # Large values are slow in a table without rowids; small ones are quicker there.
            kind = "" if name == "entries" else " without rowid"
            columns = "key blob not null primary key, value blob not null"
            statements.append(f"create table if not exists {name} ({columns}){kind}")
        return _open(path, statements)

    def open_for_reading(self, directory: Path, *, map_size: int) -> Any:
        """Open the file in `directory`. A reader may write to the log's index, but not to the tables."""
        path = directory / FILES["sqlite"]
        if not path.exists():
            raise FileNotFoundError(f"there is no {path}")
        return _open(path, ["pragma query_only = on"])

    def table(self, opened: Any, name: str, *, create: bool) -> _Table:
        """Return the statements of a table."""
        return _TABLES[name]

    def quick_begin(self, opened: Any, *, view: bool = False) -> Callable[[Any], Any]:
        """Return what takes one statement: SQLite makes a transaction of it. It has no views."""
        return functools.partial(_Get, opened)

    def repaired_reading(self, opened: Any, error: Exception) -> bool:
        """Repair nothing: the connection is to be opened anew."""
        return False

    def repaired_writing(self, opened: Any, directory: Path, error: Exception, size: int) -> bool:
        """Make room by folding the log into the file; report a file system that is full all the same."""
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        file_system = os.statvfs(directory)
        free = file_system.f_bavail * file_system.f_frsize
        if code == sqlite3.SQLITE_FULL or (code == sqlite3.SQLITE_IOERR and free < size + _SPACE_FOR_PAGES):
            if opened.is_folded:
                raise FileSystemFull(f"no room is left in {directory} for this write: {error}") from error
            opened.fold()
            opened.is_folded = True
            return True
        if code == sqlite3.SQLITE_TOOBIG:
            raise StorageFull("an entry in SQLite may have 1,000,000,000 bytes at most") from error
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise StorageDamaged(f"the storage in {directory} is damaged: {error}") from error
        return False

    def problem(self, opened: Any) -> str | None:
        """Return the first finding of SQLite's own check."""
        [(found,)] = opened.run("PRAGMA quick_check(1)")
        return None if found == "ok" else f"SQLite finds: {found}"

    def maintain(self, opened: Any) -> None:
        """Do nothing: the kernel frees the locks of dead readers."""

    def oldest_reader(self, opened: Any) -> tuple[int, object] | None:
        """Fold the log into the file; return how far that went, if a reader of an old commit is in the way."""
        length, folded = opened.fold()
        return (0, folded) if length > _STUCK_LOG and folded < length else None


def _open(path: Path, statements: list[str]) -> _Opened:
    """Open the file, and run the statements; close the file if one fails."""
    opened = _Opened(sqlite3.connect(path, timeout=_WAIT, isolation_level=None, check_same_thread=False))
    try:
        for statement in statements:
            opened.run(statement)
    except BaseException:
        opened.close()
        raise
    return opened


class _Opened:
    """A connection that all threads of a process share, one transaction at a time."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._lock = RLock()  # reentrant: a signal handler may read while its thread is reading
        self._depth = 0
        self.is_folded = False  # the log, as far as possible, since the last commit

    def run(self, statement: str) -> list[Any]:
        """Run one statement by itself."""
        with self._lock:
            return self._connection.execute(statement).fetchall()

    def fold(self) -> tuple[int, int]:
        """Fold the log into the file; return its length and how much of it was folded, in pages."""
        try:
            _, length, folded = self.run("pragma wal_checkpoint(passive)")[0]
        except sqlite3.OperationalError:  # no room is left; the log stays as it is
            return 0, 0
        return length, folded

    def begin(self, db: Any = None, *, write: bool = False, buffers: bool = False) -> _Transaction:
        """Begin a transaction, once no other thread has one."""
        self._lock.acquire()
        try:
            if not self._depth:
                self._connection.execute("begin immediate" if write else "begin")
        except BaseException:
            self._lock.release()
            raise
        self._depth += 1
        return _Transaction(self, db)

    def get(self, statement: str, key: bytes) -> bytes | None:
        """Return the value under a key, as it is now."""
        with self._lock:
            row = self._connection.execute(statement, (key,)).fetchone()
        return None if row is None else row[0]

    def end(self, statement: str) -> None:
        """End the transaction that began last."""
        try:
            if self._depth == 1 and self._connection.in_transaction:  # an error may have ended it
                self._connection.execute(statement)
        finally:
            self._depth -= 1
            self._lock.release()

    def execute(self, statement: str, values: tuple[object, ...]) -> sqlite3.Cursor:
        """Run a statement of the transaction."""
        return self._connection.execute(statement, values)

    def close(self) -> None:
        """Close the connection, once no thread reads."""
        with self._lock:
            self._connection.close()

    def __del__(self) -> None:  # of a reader that nothing uses any more; from Python 3.13 on, SQLite warns of that
        self._connection.close()


class _Get:
    """A transaction for a single `get`."""

    __slots__ = ("_db", "_opened")

    def __init__(self, opened: _Opened, db: _Table) -> None:
        self._opened = opened
        self._db = db

    def get(self, key: bytes) -> bytes | None:
        return self._opened.get(self._db.get, key)

    def abort(self) -> None:
        pass


class _Transaction:
    """A transaction in the form of LMDB's."""

    __slots__ = ("_db", "_execute", "_opened")

    def __init__(self, opened: _Opened, db: Any) -> None:
        self._opened: _Opened | None = opened
        self._db = db
        self._execute = opened.execute

    def get(self, key: bytes, default: Any = None, db: Any = None) -> Any:
        row = self._execute((db or self._db).get, (key,)).fetchone()
        return default if row is None else row[0]

    def put(self, key: bytes, value: bytes, *, db: _Table) -> bool:
        self._execute(db.put, (key, value))
        return True

    def delete(self, key: bytes, *, db: _Table) -> bool:
        return bool(self._execute(db.delete, (key,)).rowcount > 0)

    def cursor(self, db: Any = None) -> _Cursor:
        return _Cursor(self._execute, db or self._db)

    def stat(self, db: _Table) -> dict[str, int]:
        return {"entries": self._execute(db.count, ()).fetchone()[0]}

    def commit(self) -> None:
        opened = self._opened
        self._end("commit")
        if opened is not None:
            opened.is_folded = False

    def abort(self) -> None:
        self._end("rollback")

    def _end(self, statement: str) -> None:
        opened, self._opened = self._opened, None
        if opened is not None:
            opened.end(statement)

    def __enter__(self) -> _Transaction:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()


class _Cursor:
    """A cursor in the form of LMDB's."""

    def __init__(self, execute: Any, db: _Table) -> None:
        self._execute = execute
        self._scan = db.scan
        self._rows: Any = None
        self._item: tuple[bytes, bytes] | None = None

    def set_range(self, key: bytes) -> bool:
        self._rows = self._execute(self._scan, (key,))
        return self.next()

    def first(self) -> bool:
        return self.set_range(b"")

    def next(self) -> bool:
        self._item = self._rows.fetchone()
        return self._item is not None

    def key(self) -> bytes:
        return self.item()[0]

    def value(self) -> bytes:
        return self.item()[1]

    def item(self) -> tuple[bytes, bytes]:
        return self._item or (b"", b"")
