"""Several changes in one atomic write: reads are recorded, and writes are collected until the end of the block.

The commit is one request. The storage actor checks that everything that the transaction read is unchanged, and only
then writes all of it. So no transaction waits for a lock: one that read outdated entries is refused, and may be tried
again.
"""

from __future__ import annotations

import itertools
import sys
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

from suitkaise.errors import EntryExists, StorageError
from suitkaise.messaging.identity import current_owner
from suitkaise.platform.processes import after_fork_in_child
from suitkaise.storage.backends import access
from suitkaise.storage.backends.reader import Reader
from suitkaise.storage.index import matches
from suitkaise.storage.keys import container_prefix, entry_key, is_below
from suitkaise.storage.listing import entry_not_found
from suitkaise.storage.protocol import Atomic, ContainerVersion, Put, PutMode, Remove, SelectionVersion, where
from suitkaise.storage.records import (
    Metadata,
    Record,
    checked,
    decode_value,
    encode_value,
    encoded_value_of,
    head_of,
    pack_metadata,
    pack_record,
    revision_of,
    unpack_metadata,
)
from suitkaise.storage.selection import Selection
from suitkaise.storage.writes import Writes, decoded

__all__ = ["Transaction", "TransactionSlot", "slot_of"]

_CALLER: Any = object()
_PROVISIONAL = 1 << 63  # higher than all stored revisions; a number of the transaction alone


class Transaction(Writes):
    """The reads and writes of one thread, or one task of its event loop, from the start of a transaction to its end."""

    def __init__(self, reader: Reader) -> None:
        self.is_over: bool = False
        self._task = _running_task()
        self._reader = reader
        self._read: dict[bytes, tuple[str, str, int]] = {}
        self._records: dict[bytes, bytes | None] = {}
        self._written: dict[bytes, tuple[Put | Remove, bytes]] = {}
        self._unread: dict[bytes, tuple[str, str, int]] = {}  # have a new value, whatever the old one is
        self._containers: dict[str, ContainerVersion] = {}
        self._selections: dict[object, SelectionVersion] = {}
        self._provisional = itertools.count(_PROVISIONAL)

    @property
    def is_here(self) -> bool:
        """Whether the caller's reads and writes are part of it: those of another task of the thread are not."""
        return not self.is_over and (self._task is None or self._task is _running_task())

    def get(self, path: str, name: str) -> bytes | None:
        """Return the record as this transaction sees it. The commit requires that the entry has not changed."""
        key, _ = entry_key(path, name)
        if key not in self._records:
            record = self._reader.get(key)
            self._read[key] = path, name, revision_of(record)
            self._records[key] = record
        elif key in self._unread:
            self._read[key] = self._unread.pop(key)
        return self._records[key]

    def revision(self, path: str, name: str) -> int:
        """Return the revision as this transaction sees it."""
        return revision_of(self.get(path, name))

    def heads(self, path: str) -> list[tuple[bytes, bytes]]:
        """Return keys and records as this transaction sees them."""
        return self.container(path)

    def container(self, path: str) -> list[tuple[bytes, bytes]]:
        """Return keys and records as this transaction sees them. The commit requires an unchanged container."""
        stored = dict(self._reader.container(path))
        highest = max(map(revision_of, stored.values()), default=0)
        self._containers.setdefault(path, ContainerVersion(path, len(stored), highest))  # the first look counts
        prefix = container_prefix(path)
        for key in self._written:
            record = self._records[key]
            if record is None:
                stored.pop(key, None)
            elif key.startswith(prefix):
                stored[key] = record
        return list(stored.items())

    def select(self, wanted: Metadata, path: str) -> list[tuple[bytes, bytes, int]]:
        """Select as this transaction sees the tree. The commit requires an unchanged selection."""
        stored = {key: (head, size) for key, head, size in self._reader.select(wanted, path)}
        highest = max((revision_of(head) for head, _ in stored.values()), default=0)
        version = SelectionVersion(path, wanted, len(stored), highest)
        self._selections.setdefault((path, tuple(sorted(wanted.items()))), version)  # the first look counts
        for key, (operation, _) in self._written.items():
            record = self._records[key]
            if record is not None and is_below(operation.path, path) and matches(record, wanted):
                stored[key] = head_of(record), len(record)
            else:
                stored.pop(key, None)
        return [(key, head, size) for key, (head, size) in stored.items()]

    def put(
        self,
        path: str,
        name: str,
        value: object,
        metadata: Metadata | None,
        mode: PutMode = PutMode.ANY,
        *,
        wait: bool = True,
    ) -> None:
        """Store the value at the commit; fail now if the entry is not as `mode` demands."""
        encoding, payload = encode_value(value)
        if mode is PutMode.NEW and self.get(path, name) is not None:
            raise EntryExists(f"{where(name, path)} exists already", path=path)
        if mode is PutMode.EXISTING:
            self._existing(path, name)
        self._put(path, name, encoding, payload, metadata)

    def update(self, path: str, name: str, function: Callable[[Any], Any], metadata: Metadata | None) -> Any:
        """Store the function's value at the commit. The function is called once."""
        value = function(decoded(path, name, self._existing(path, name)))
        self._put(path, name, *encode_value(value), metadata)
        return value

    def setdefault(self, path: str, name: str, value: object, metadata: Metadata) -> Any:
        """Return the value of the entry, or store `value` at the commit."""
        encoding, payload = encode_value(value)
        record = self.get(path, name)
        if record is not None:
            return decoded(path, name, record)
        self._put(path, name, encoding, payload, metadata)
        return decode_value(encoding, payload)

    def compare_and_set(self, path: str, name: str, revision: int, value: object, metadata: Metadata | None) -> bool:
        """Compare now, and store the value at the commit, which requires that the entry has not changed."""
        if revision_of(self.get(path, name)) != revision:
            return False
        self._put(path, name, *encode_value(value), metadata)
        return True

    def increment(self, path: str, name: str, amount: float, start: float, *, wait: bool) -> Any:
        """Add to the number at the commit; return the sum."""
        record = self.get(path, name)
        old = start if record is None else decoded(path, name, record)
        try:
            total = old + amount if type(old) in (int, float) else None
        except OverflowError:  # the int is too large to be added to a float
            total = None
        if total is None:
            raise StorageError(f"{where(name, path)} is not an int or float that this can be added to", path=path)
        self._put(path, name, *encode_value(total), None)
        return total

    def append(self, path: str, name: str, item: object, *, wait: bool) -> None:
        """Append the item to the list at the commit."""
        record = self.get(path, name)
        items = [] if record is None else decoded(path, name, record)
        if type(items) is not list:
            raise StorageError(f"{where(name, path)} is not a list, so nothing can be appended to it", path=path)
        self._put(path, name, *encode_value([*items, item]), None)

    def remove(self, path: str, name: str, *, missing_ok: bool, wait: bool) -> None:
        """Remove the entry at the commit."""
        if not missing_ok:
            self._existing(path, name)
        key, _ = entry_key(path, name)
        self._written[key] = Remove(0, False, path, name, missing_ok=True), b""
        self._records[key] = None

    def remove_selected(self, entries: list[tuple[str, str]], wanted: Metadata) -> int:
        """Remove the entries at the commit, which requires that they have not changed."""
        found = [(path, name) for path, name in entries if (record := self.get(path, name)) and matches(record, wanted)]
        for path, name in found:
            self.remove(path, name, missing_ok=True, wait=True)
        return len(found)

    def move(self, path: str, name: str, to_path: str, to_name: str, mode: PutMode, *, wait: bool) -> None:
        """Move the entry at the commit, which requires that it has not changed."""
        data = checked(entry_key(path, name)[0], self._existing(path, name))
        if (path, name) == (to_path, to_name):
            return
        if mode is PutMode.NEW and self.get(to_path, to_name) is not None:
            raise EntryExists(f"{where(to_name, to_path)} exists already", path=to_path)
        record = Record.unpack(data)
        self.remove(path, name, missing_ok=True, wait=True)
        metadata = unpack_metadata(record.metadata) if record.metadata else {}
        self._put(to_path, to_name, record.encoding, encoded_value_of(data)[1], metadata, record.owner)

    def forget(self, owner: str, *, dead: bool) -> None:
        """Refuse: the removal takes more than one transaction."""
        raise StorageError("the removal of an owner's entries cannot be part of a transaction")

    def request(self) -> tuple[Atomic, bytes] | None:
        """Build the commit and its payload; None if there is nothing to write and nothing to verify."""
        if not self._written and len(self._read) + len(self._containers) + len(self._selections) < 2:
            return None
        values = [value for operation, value in self._written.values() if isinstance(operation, Put)]
        request = Atomic(
            0,
            False,
            [operation for operation, _ in self._written.values()],
            [len(value) for value in values],
            list(self._read.values()),
            list(self._containers.values()),
            current_owner(),
            list(self._selections.values()),
        )
        return request, b"".join(values)

    @property
    def counts(self) -> str:
        """How many entries it writes and has read, in words."""
        return f"{len(self._written)} writes and {len(self._read)} reads"

    def _existing(self, path: str, name: str) -> bytes:
        record = self.get(path, name)
        if record is None:
            raise entry_not_found(self._reader, path, name)
        return record

    def _put(
        self,
        path: str,
        name: str,
        encoding: int,
        value: bytes,
        metadata: Metadata | None,
        owner: str | None = _CALLER,
    ) -> None:
        key, long_key = entry_key(path, name)
        owner = current_owner() if owner is _CALLER else owner
        match self._written.get(key):
            case Put() as before, _ if metadata is None:
                metadata, owner = before.metadata, before.owner
            case Remove(), _ if metadata is None:
                metadata = {}
        self._written[key] = Put(0, False, path, name, encoding, metadata=metadata, owner=owner), value
        packed = b""
        if metadata is not None:
            packed = pack_metadata(metadata)
        elif (old := self._old(key, path, name)) is not None:
            kept = Record.unpack(old)
            packed, owner = kept.metadata, kept.owner
        self._records[key] = pack_record(
            next(self._provisional), time.time(), encoding, value, owner=owner, metadata=packed, long_key=long_key
        )

    def _old(self, key: bytes, path: str, name: str) -> bytes | None:
        """Return the record whose metadata and owner a new value keeps. The commit requires nothing of the entry."""
        if key in self._records:
            return self._records[key]
        record = self._reader.get(key)
        self._unread[key] = path, name, revision_of(record)
        return record


def _running_task() -> object:
    """Return the task of the event loop that calls this; None outside of any."""
    asyncio: Any = sys.modules.get("asyncio")  # without it there is none
    try:
        return None if asyncio is None else asyncio.current_task()
    except RuntimeError:  # no event loop runs in this thread
        return None


class TransactionSlot(threading.local):
    """The transaction that a thread is in, and its selection, if any; all handles to the storage share them."""

    current: Transaction | None = None
    selection: Selection | None = None


def slot_of(directory: Path) -> TransactionSlot:
    """Return the slot of a storage; each process has one for all of its handles."""
    with access.LOCK:
        slot = _slots.get(directory)
        if slot is None:
            slot = _slots[directory] = TransactionSlot()
        return slot


_slots: weakref.WeakValueDictionary[Path, TransactionSlot] = weakref.WeakValueDictionary()


def _reset_after_fork() -> None:
    """In a forked child: the transaction in which it was forked is the parent's."""
    for slot in list(_slots.values()):
        if slot.current is not None:
            slot.current.is_over = True
            slot.current = None


after_fork_in_child(_reset_after_fork)
