"""What the storage asks of an engine: ordered tables of bytes, read and written in transactions.

An `Engine` opens the store in a directory, once for writing and any number of times for reading. Everything else
(entries, indexes, owners, clients, history) is built on the tables in `store` and `reader`, the same for every engine.
The protocols have the shape of LMDB's own objects, so that nothing stands between a read and LMDB.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import msgspec

from suitkaise.errors import StorageError, StorageFull

__all__ = [
    "FILES", "INDEX", "TABLES", "Cursor", "Engine", "FileSystemFull", "Opened", "Table", "Transaction", "Unreachable",
    "declared_index", "scan", "unpack_index",
]  # fmt: skip

TABLES = ("entries", "owned", "dead", "clients", "facts", "by_metadata")

FILES = {"lmdb": "store", "sqlite": "store.sqlite", "redis": "store.redis"}
"""The file or folder of each engine's data in a storage's directory; that of Redis holds the address of the server."""

INDEX = b"index"
"""The key of the metadata keys that the index holds, in the table of facts."""


class Unreachable(StorageError):
    """The server that keeps the store does not answer, or takes no writes, at present."""


class FileSystemFull(StorageFull):
    """The file system of the store has no room left."""


Table: TypeAlias = Any
"""A handle that the engine made, see `Engine.table`."""


class Cursor(Protocol):
    """A position in a table, in the order of the keys."""

    def set_range(self, key: bytes, /) -> bool:
        """Go to the first key that is not below `key`; return whether there is one."""
        ...

    def first(self) -> bool:
        """Go to the first key; return whether there is one."""
        ...

    def next(self) -> bool:
        """Go to the next key; return whether there is one."""
        ...

    def key(self) -> Any:
        """Return the key."""
        ...

    def value(self) -> Any:
        """Return the value."""
        ...

    def item(self) -> tuple[Any, Any]:
        """Return key and value."""
        ...


class Transaction(Protocol):
    """Reads all tables as they were at its beginning, and changes all of them at its commit or none."""

    def get(self, key: bytes, default: Any = None, db: Table = None) -> Any:
        """Return the value under `key`, or the default. A transaction that reads has a default table."""
        ...

    def put(self, key: bytes, value: bytes, *, db: Table) -> bool:
        """Store a value under `key`."""
        ...

    def delete(self, key: bytes, *, db: Table) -> bool:
        """Remove `key`; return whether it was there."""
        ...

    def cursor(self, db: Table = None) -> Cursor:
        """Make a cursor. Nothing is changed while it is used."""
        ...

    def stat(self, db: Table) -> dict[str, int]:
        """Return facts about a table: `entries` is the number of its keys."""
        ...

    def commit(self) -> None:
        """Store all changes."""
        ...

    def abort(self) -> None:
        """Drop all changes; no effect after the end of the transaction."""
        ...

    def __enter__(self) -> Transaction: ...

    def __exit__(self, *error: object) -> Any: ...


class Opened(Protocol):
    """A store that is open."""

    def begin(self, db: Table = None, *, write: bool = False, buffers: bool = False) -> Transaction:
        """Begin a transaction. With `buffers`, keys and values may be views that end with it."""
        ...

    def close(self) -> None:
        """Close the store."""
        ...


class Engine(Protocol):
    """One way to keep a store: LMDB, SQLite, or Redis."""

    errors: tuple[type[Exception], ...]
    """What the engine raises when an operation fails."""
    is_remote: bool
    """Whether the store lies on a server, which may lose what it had stored while the program goes on."""
    reads_one_at_a_time: bool
    """Whether the threads of a process read through one connection, so that a long read would hold up the others."""
    heartbeat: float | None
    """Seconds after which the writer calls `maintain` also while there is nothing to do; None: it need not."""

    def open_for_writing(self, directory: Path, *, durable: bool, map_size: int) -> Opened:
        """Open the store in `directory`, and make it if it does not exist; the caller is its only writer."""
        ...

    def open_for_reading(self, directory: Path, *, map_size: int) -> Opened:
        """Open the store in `directory`, which exists."""
        ...

    def table(self, opened: Any, name: str, *, create: bool) -> Table:
        """Return the table with that name; None if it does not exist and is not to be created."""
        ...

    def quick_begin(self, opened: Any, *, view: bool = False) -> Callable[[Table], Any]:
        """Return what begins a transaction for a single `get`, then `abort`: every read of a value uses it.

        With `view`, the value may be a view that ends with the transaction.
        """
        ...

    def repaired_reading(self, opened: Any, error: Exception) -> bool:
        """Repair what made a read fail; return False if the store has to be opened anew."""
        ...

    def repaired_writing(self, opened: Any, directory: Path, error: Exception, size: int) -> bool:
        """Repair what made a transaction fail; return False if it cannot be repaired.

        Raises:
            StorageFull: there is no room for the `size` bytes of the transaction (of a file system: FileSystemFull).
            Unreachable: the server that keeps the store is away.
            StorageDamaged: the file is not what was written.
        """
        ...

    def problem(self, opened: Any) -> str | None:
        """Return what is wrong with the structure of the store, as far as the engine itself can tell."""
        ...

    def maintain(self, opened: Any) -> None:
        """Free what dead readers have left, or show that the writer lives: the writer calls it now and then."""
        ...

    def oldest_reader(self, opened: Any) -> tuple[int, object] | None:
        """Return the reader that keeps the most old data from being reused: its pid (0: not known) and its snapshot.

        None if no reader keeps any.
        """
        ...


def scan(transaction: Transaction, db: Table, start: bytes, stop: bytes | None) -> Iterator[tuple[Any, Any]]:
    """Iterate over keys and values from `start` up to, and without, `stop`; None: to the end."""
    cursor = transaction.cursor(db=db)
    found = cursor.set_range(start) if start else cursor.first()
    while found:
        key, value = cursor.item()
        if stop is not None and bytes(key) >= stop:
            return
        yield key, value
        found = cursor.next()


def declared_index(transaction: Transaction, facts: Table) -> frozenset[str]:
    """Return the metadata keys that the index holds; none in a store of an earlier version."""
    return unpack_index(transaction.get(INDEX, db=facts))


def unpack_index(stored: bytes | None) -> frozenset[str]:
    """Return the metadata keys that are stored under `INDEX`."""
    return frozenset() if stored is None else frozenset(msgspec.msgpack.decode(stored, type=list[str]))
