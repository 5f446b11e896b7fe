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

__all__ = ["FILES", "INDEX", "TABLES", "Cursor", "Engine", "Opened", "Table", "Transaction", "declared_index", "scan"]

TABLES = ("entries", "owned", "dead", "clients", "facts", "by_metadata")

FILES = {"lmdb": "store", "sqlite": "store.sqlite"}
"""The file or folder of each engine's data in a storage's directory; the preferred engine comes first."""

INDEX = b"index"
"""The key of the metadata keys that the index holds, in the table of facts."""

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
    """One way to keep a store: LMDB, or SQLite."""

    errors: tuple[type[Exception], ...]
    """What the engine raises when an operation fails."""

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
            StorageFull: the file system has no room for the `size` bytes of the transaction.
            StorageDamaged: the file is not what was written.
        """
        ...

    def problem(self, opened: Any) -> str | None:
        """Return what is wrong with the structure of the store, as far as the engine itself can tell."""
        ...

    def free_dead_readers(self, opened: Any) -> None:
        """Free what dead readers have left."""
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
    stored = transaction.get(INDEX, db=facts)
    return frozenset() if stored is None else frozenset(msgspec.msgpack.decode(stored, type=list[str]))
