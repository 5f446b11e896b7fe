"""Reads a durable store through before it is used: what is damaged is told at once, and by whom it can be mended.

The checksum of a record shows that its bits have changed. A damaged page can hide entries, too, or let a table end too
early; so the entries are counted, and the index is compared with them.
"""

from __future__ import annotations

import struct
import time
from typing import TYPE_CHECKING

import msgspec

from suitkaise.errors import StorageDamaged, StorageError
from suitkaise.storage.backends.tables import scan
from suitkaise.storage.index import index_keys
from suitkaise.storage.records import checked, is_indexed, metadata_of, revision_of

if TYPE_CHECKING:
    from suitkaise.storage.backends.store import Store

__all__ = ["check", "damaged"]

_CHECKED = b"checked"  # the key of the time of the last check, in the table of facts

_DECODING: tuple[type[Exception], ...] = (msgspec.MsgspecError, struct.error, ValueError, IndexError, KeyError)
"""What decoding of damaged bytes raises."""


def damaged(directory: object, error: Exception) -> StorageError:
    """Return the error for users about a store that could not be opened or read: it is damaged, or cannot be used."""
    if isinstance(error, StorageError):
        return error
    if isinstance(error, OSError):  # no permission, no descriptor, no such directory: nothing is wrong with the files
        return StorageError(f"the storage in {directory} cannot be used: {error}")
    return _to_restore(directory, f"cannot be read: {error!r}")


def check(store: Store) -> None:
    """Read everything; raise StorageDamaged if something is not what was stored.

    That takes some 2 s for a million small entries, and the time to read the file for large ones.
    """
    try:
        _check(store)
    except (*store.errors, *_DECODING) as error:
        raise damaged(store.directory, error) from error


def _check(store: Store) -> None:
    if problem := store.engine.problem(store.opened):
        raise StorageDamaged(f"the storage in {store.directory} is damaged: {problem}")
    with store.opened.begin(write=True) as transaction:  # which reads the list of free pages, too
        transaction.put(_CHECKED, struct.pack("<d", time.time()), db=store.facts)
    with store.opened.begin(store.entries) as transaction:
        owned = indexed = seen = 0
        expected = transaction.stat(store.entries)["entries"]
        for key, record in scan(transaction, store.entries, b"", None):
            seen += 1
            checked(key, record)
            if seen > expected or revision_of(record) > store.revision:
                raise _to_restore(
                    store.directory, f"is damaged: it has more than the {expected} entries of revision {store.revision}"
                )
            owned += is_indexed(record)
            if metadata := metadata_of(record):
                keys = index_keys(metadata, store.declared, key)
                indexed += sum(transaction.get(one, db=store.by_metadata) is not None for one in keys)
        for table, number, what in (
            (store.entries, seen, "entries"),
            (store.owned, owned, "marks of owners"),
            (store.by_metadata, indexed, "lines of the index"),
        ):
            if (there := transaction.stat(table)["entries"]) != number:
                raise _to_restore(store.directory, f"is damaged: it counts {there} {what}, and {number} can be read")


def _to_restore(directory: object, what: str) -> StorageDamaged:
    return StorageDamaged(
        f"the storage in {directory} {what}. Move the directory away, connect to a new one, and tree.restore(file) "
        "what tree.snapshot(file) has saved"
    )
