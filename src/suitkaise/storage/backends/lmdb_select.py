"""Scanning LMDB databases, and the record of the metadata keys that the index holds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import lmdb
import msgspec

if TYPE_CHECKING:
    from lmdb import _Database as Database

__all__ = ["INDEX", "declared_index", "scan"]

INDEX = b"index"
"""The key of the metadata keys that the index holds, in the database of facts."""


def scan(
    transaction: lmdb.Transaction[Any], db: Database, start: bytes, stop: bytes | None
) -> Iterator[tuple[Any, Any]]:
    """Iterate over keys and values from `start` up to, and without, `stop`; None: to the end."""
    cursor = transaction.cursor(db=db)
    found = cursor.set_range(start) if start else cursor.first()
    while found:
        key, value = cursor.item()
        if stop is not None and bytes(key) >= stop:
            return
        yield key, value
        found = cursor.next()


def declared_index(transaction: lmdb.Transaction[Any], facts: Database) -> frozenset[str]:
    """Return the metadata keys that the index holds; none in a store of an earlier version."""
    stored = transaction.get(INDEX, db=facts)
    return frozenset() if stored is None else frozenset(msgspec.msgpack.decode(stored, type=list[str]))
