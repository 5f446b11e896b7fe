"""Several changes in one atomic write: what was read is kept, what is written is held back until the end.

The commit is one request. The storage actor looks whether everything that was read is still as it was, and
only then writes all of it; so nobody waits for a lock, and a transaction that loses is told and may try again.
"""

from __future__ import annotations

import threading
import time
import weakref
from pathlib import Path

from suitkaise.messaging.identity import current_owner
from suitkaise.storage.backends import lmdb_environment as environment
from suitkaise.storage.backends.lmdb_reader import Reader
from suitkaise.storage.keys import container_prefix, entry_key
from suitkaise.storage.protocol import Atomic, ContainerVersion, Put, Remove
from suitkaise.storage.records import Metadata, Record, pack_metadata, pack_record, revision_of

__all__ = ["Transaction", "TransactionSlot", "slot_of"]


class Transaction:
    """A transaction of one thread."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._read: dict[bytes, tuple[str, str, int]] = {}
        self._records: dict[bytes, bytes | None] = {}
        self._writes: dict[bytes, tuple[Put | Remove, bytes]] = {}
        self._containers: dict[str, ContainerVersion] = {}

    def get(self, path: str, name: str) -> bytes | None:
        """An entry's record as this transaction sees it; relied on from now on."""
        key, _ = entry_key(path, name)
        if key not in self._records:
            record = self._reader.get(key)
            self._read[key] = path, name, revision_of(record)
            self._records[key] = record
        return self._records[key]

    def is_own(self, path: str, name: str) -> bool:
        """Whether this transaction has written or removed the entry."""
        return entry_key(path, name)[0] in self._writes

    def container(self, path: str) -> list[tuple[bytes, bytes]]:
        """Keys and records of a container as this transaction sees them; relied on from now on."""
        stored = dict(self._reader.container(path))
        highest = max(map(revision_of, stored.values()), default=0)
        self._containers.setdefault(path, ContainerVersion(path, len(stored), highest))  # what was seen first must hold
        prefix = container_prefix(path)
        for key in self._writes:
            record = self._records[key]
            if record is None:
                stored.pop(key, None)
            elif key.startswith(prefix):
                stored[key] = record
        return list(stored.items())

    def put(self, path: str, name: str, encoding: int, value: bytes, *, metadata: Metadata | None) -> None:
        """Write a value at the commit. Without metadata, the entry keeps what it has."""
        key, long_key = entry_key(path, name)
        before, _ = self._writes.get(key, (None, b""))
        if metadata is None and isinstance(before, Put):
            metadata = before.metadata
        put = Put(0, False, path, name, encoding, metadata=metadata, owner=current_owner())
        self._writes[key] = put, value
        packed = b""
        if metadata is not None:
            packed = pack_metadata(metadata)
        elif (old := self._records.get(key)) is not None:
            packed = Record.unpack(old).metadata
        self._records[key] = pack_record(
            0, time.time(), encoding, value, owner=put.owner, metadata=packed, long_key=long_key
        )

    def remove(self, path: str, name: str) -> None:
        """Remove an entry at the commit."""
        key, _ = entry_key(path, name)
        self._writes[key] = Remove(0, False, path, name, missing_ok=True), b""
        self._records[key] = None

    def request(self) -> tuple[Atomic, bytes] | None:
        """What is to be sent, and its payload; None if there is nothing to write and nothing to verify."""
        if not self._writes and len(self._read) + len(self._containers) < 2:
            return None
        values = [value for operation, value in self._writes.values() if isinstance(operation, Put)]
        request = Atomic(
            0,
            False,
            [operation for operation, _ in self._writes.values()],
            [len(value) for value in values],
            list(self._read.values()),
            list(self._containers.values()),
            current_owner(),
        )
        return request, b"".join(values)


class TransactionSlot(threading.local):
    """The transaction that is under way in a thread, whichever handle of the storage it began with."""

    current: Transaction | None = None


def slot_of(directory: Path) -> TransactionSlot:
    """The slot of a storage; one a process, so that all handles to it agree."""
    with environment.LOCK:
        slot = _slots.get(directory)
        if slot is None:
            slot = _slots[directory] = TransactionSlot()
        return slot


_slots: weakref.WeakValueDictionary[Path, TransactionSlot] = weakref.WeakValueDictionary()
