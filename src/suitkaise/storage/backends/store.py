"""The single writer of a storage: entries, their indexes, dead owners, and the records of clients.

All of them change in the same transactions, so a crash at any time leaves entries and bookkeeping consistent.
Readers use `reader`. The tables are an engine's, see `tables`. `operations` defines what each request does.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import os
import struct
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from suitkaise.errors import StorageDamaged, StorageError, StorageFull
from suitkaise.messaging.identity import split_owner
from suitkaise.platform.log_queue import QueuedLogger
from suitkaise.storage.backends import access
from suitkaise.storage.backends.engines import chosen_engine, engine_named
from suitkaise.storage.backends.revision import RevisionWord
from suitkaise.storage.backends.tables import INDEX, TABLES, Engine, Opened, Table, Transaction, declared_index, scan
from suitkaise.storage.history import ADDED, REMOVED, UPDATED, Batch, History, LoggedTuple
from suitkaise.storage.index import ALWAYS_INDEXED, find, index_keys
from suitkaise.storage.protocol import ClientRecord
from suitkaise.storage.records import Metadata, Record, checked, is_indexed, is_plain, metadata_of, pack_record

__all__ = ["Store", "WriteTransaction"]

logger: QueuedLogger = QueuedLogger("suitkaise.storage")

T = TypeVar("T")

FORGET_CLIENTS_AFTER = 600.0
"""Seconds after which the record of a client that is not connected is removed; by then the client has given up."""

MAX_DEAD_OWNERS = 1 << 16
"""For how many workers' paths the highest dead incarnation is stored."""

_MAX_CLIENT_RECORDS = 1024

_REVISION = b"revision"
"""The key of the last revision. It is among the records of clients, of which nearly each commit changes one: LMDB
writes pages of each table that has changed, so the table of facts would cost another 2 us."""
_CHANGES = b"changes"  # with the place in a ring: the key of the changes of a commit, in the table of facts
_AFTER_CHANGES = b"changet"
_U64 = struct.Struct("<Q")
_encode_client = msgspec.msgpack.Encoder().encode
_decode_client: Callable[[bytes], ClientRecord] = msgspec.msgpack.Decoder(ClientRecord).decode


class Store:
    """The data of a storage, opened for writing by one thread of one process."""

    def __init__(
        self,
        directory: Path,
        *,
        durable: bool = False,
        engine: str | None = None,
        map_size: int = access.DEFAULT_MAP_SIZE,
    ) -> None:
        """Open the store in `directory`, and make it if it does not exist.

        Args:
            directory: the storage's directory, which exists.
            durable: return from a commit only after the data has reached the disk; otherwise the data survives
                the death of any process, but not of the machine.
            engine: the name of the engine, see `chosen_engine`.
            map_size: the initial size of LMDB's map in bytes; the map grows when it is full.
        """
        self.directory: Path = directory
        self._pid = os.getpid()
        self.engine: Engine = engine_named(chosen_engine(directory, engine))
        self.errors: tuple[type[Exception], ...] = self.engine.errors
        """What the engine raises when an operation fails."""
        with contextlib.ExitStack() as undo:
            self.opened: Opened = access.open_for_writing(self.engine, directory, durable=durable, map_size=map_size)
            undo.callback(access.close_for_writing, directory, self.opened)
            self.engine.maintain(self.opened)
            tables = [self.engine.table(self.opened, name, create=True) for name in TABLES]
            self.entries: Table = tables[0]
            self.owned: Table = tables[1]
            self.dead: Table = tables[2]
            self.clients: Table = tables[3]
            self.facts: Table = tables[4]
            self.by_metadata: Table = tables[5]
            with self.opened.begin() as transaction:
                stored = transaction.get(_REVISION, db=self.clients)
                self.revision: int = int(_U64.unpack(stored)[0]) if stored else 0
                """The revision that was committed last."""
                self.dead_owners: dict[bytes, int] = {
                    bytes(path): _U64.unpack(number)[0] for path, number in scan(transaction, self.dead, b"", None)
                }
                """The highest dead incarnation under the digest of its worker's path."""
                self.declared: frozenset[str] = declared_index(transaction, self.facts)
                """The metadata keys that the index holds."""
                batches = {key[-1]: value for key, value in scan(transaction, self.facts, _CHANGES, _AFTER_CHANGES)}
            self.history: History = History(self.revision, batches)
            """The latest changes."""
            self.is_watched: bool = bool(batches)
            """Whether the changes of each commit are stored, for watchers that resume at the next incarnation."""
            self.client_records: dict[bytes, ClientRecord] = {}
            """Records of clients as they are stored. A transaction takes out those that it changes."""
            self._word = RevisionWord(directory, write=True)
            undo.callback(self._word.close)
            if (lost := self._word.revision - self.revision) > 0:
                raise StorageDamaged(f"the storage in {directory} has lost its last {lost} changes: {self._lost_by()}")
            self._word.publish(self.revision)
            if not self.declared.issuperset(ALWAYS_INDEXED):  # a new store, or one of an earlier version
                try:
                    self.write(lambda transaction: transaction.declare_index(ALWAYS_INDEXED))
                except StorageFull as full:
                    logger.warning("the index is not made, so selections take longer: %s", full)
            undo.pop_all()  # nothing has failed

    def write(self, work: Callable[[WriteTransaction], T], *, then: Callable[[T], object] | None = None) -> T:
        """Run `work` in one transaction, and commit the transaction.

        If the map is full, the map grows and `work` runs again in a new transaction. If `work` raises, nothing is
        stored.

        Args:
            work: is called with the transaction.
            then: is called with the result of `work` as soon as that is stored, to answer those who wait for it.

        Raises:
            StorageFull: the file system has no room for it.
            Exception: one of `errors`, if the engine failed otherwise.
        """
        if os.getpid() != self._pid:
            raise StorageError("this process was forked from the storage's writer, which alone may write")
        while True:
            transaction = WriteTransaction(self, self.opened.begin(write=True))
            try:
                result = work(transaction)
                self._commit(transaction)
                break
            except self.errors as error:
                transaction.raw.abort()
                if not self.engine.repaired_writing(self.opened, self.directory, error, transaction.size):
                    raise
            except BaseException:
                transaction.raw.abort()
                raise
        if then is not None:
            then(result)
        self._remember(transaction)
        return result

    def forget_clients(self, connected: Collection[bytes]) -> int:
        """Remove the records of clients that are gone for long; return how many."""
        oldest = time.time() - FORGET_CLIENTS_AFTER

        def forget(transaction: WriteTransaction) -> int:
            gone = [
                bytes(client)
                for client, stored in scan(transaction.raw, self.clients, b"", None)
                if client != _REVISION and client not in connected and _decode_client(stored).time < oldest
            ]
            for client in gone:
                transaction.forget_client(client)
            return len(gone)

        return self.write(forget)

    def dead_with_entries(self) -> set[str]:
        """Return the dead owners with entries left: a crash interrupted their removal."""
        with self.opened.begin(db=self.owned) as transaction:
            owners = {owner.decode() for _, owner in scan(transaction, self.owned, b"", None)}
        return {owner for owner in owners if self.is_dead(owner)}

    def is_dead(self, owner: str) -> bool:
        """Return whether this incarnation is known to have ended."""
        digest, number = _digest_of(owner)
        return number <= self.dead_owners.get(digest, -1)

    def maintain(self) -> None:
        """Do what the engine needs now and then, see `Engine.maintain`."""
        self.engine.maintain(self.opened)

    def oldest_reader(self) -> tuple[int, object] | None:
        """Return the reader that keeps old data from being reused, see `Engine.oldest_reader`."""
        return self.engine.oldest_reader(self.opened)

    def report(self, done: int) -> None:
        """Show how many entries a long write has written so far."""
        self._word.report(done)

    def close(self) -> None:
        """Close the store. Committed data stays."""
        if os.getpid() == self._pid:
            access.close_for_writing(self.directory, self.opened)
            self._word.close()

    def _lost_by(self) -> str:
        if self.engine.is_remote:
            return (
                "the server was started anew from what it had on its disk. Start the program anew to go on from there"
            )
        return (
            "its data was removed, or replaced by an older copy. Put it back; or connect to a new directory, and "
            f"tree.restore(file) what tree.snapshot(file) has saved; or remove the file {RevisionWord.FILE!r} there to "
            "go on with what there is"
        )

    def _commit(self, transaction: WriteTransaction) -> None:
        if not transaction.finish():
            transaction.raw.abort()
            return
        self._word.begin(self.revision)
        try:
            transaction.raw.commit()
            self.revision = transaction.revision
        finally:
            self._word.publish(self.revision)

    def _remember(self, transaction: WriteTransaction) -> None:
        """Keep in memory what a transaction has stored, for those to come."""
        if transaction.changes:
            self.history.add(transaction.changes, self.revision)
        if transaction.newly_dead:
            for path in transaction.evicted | transaction.newly_dead.keys():
                self.dead_owners.pop(path, None)
            self.dead_owners |= transaction.newly_dead  # in order of time: the oldest are evicted first
        if len(self.client_records) > _MAX_CLIENT_RECORDS:
            self.client_records.clear()
        self.client_records |= transaction.clients
        self.declared = transaction.declared


class WriteTransaction:
    """A write transaction under way, as `Store.write` passes it to its `work`."""

    size: int = 0
    """The bytes of the records that it writes."""
    _changed = False  # whether there is something to commit, although no entry and no client has changed

    def __init__(self, store: Store, raw: Transaction) -> None:
        self.raw: Transaction = raw
        self.revision: int = store.revision
        self.time: float = time.time()
        self.newly_dead: dict[bytes, int] = {}
        self.evicted: set[bytes] = set()
        self.declared: frozenset[str] = store.declared
        self.changes: list[LoggedTuple] = []
        self.clients: dict[bytes, ClientRecord] = {}
        self._store = store
        self._entries = store.entries

    def get(self, key: bytes) -> bytes | None:
        """Return the record of an entry; None if there is no such entry."""
        record: bytes | None = self.raw.get(key, db=self._entries)
        return None if record is None else checked(key, record)

    def expect(self, keys: list[bytes]) -> None:
        """Fetch the records of these entries at once; for an engine whose every `get` is a way to a server."""
        raw: Any = self.raw
        raw.expect(keys, db=self._entries)

    def put(
        self,
        key: bytes,
        long_key: tuple[str, str] | None,
        old: bytes | None,
        encoding: int,
        value: bytes | memoryview,
        owner: str | None,
        metadata: bytes = b"",
        indexed: bool = False,
    ) -> None:
        """Store an entry; `old` is its present record."""
        before = b""
        if old is not None and not is_plain(old):
            before = metadata_of(old)
            if is_indexed(old):
                self._unindex(key, old)
        if owner is None:
            indexed = False
        elif indexed:
            self.raw.put(_owned_key(owner, key), owner.encode(), db=self._store.owned)
        if before != metadata:
            self._update_index(key, before, metadata)
        self.revision = revision = self.revision + 1
        self.changes.append((revision, ADDED if old is None else UPDATED, key, long_key))
        record = pack_record(revision, self.time, encoding, value, owner, metadata, indexed, long_key)
        self.size += len(record)
        self.raw.put(key, record, db=self._entries)

    def remove(self, key: bytes, old: bytes) -> None:
        """Remove an entry; `old` is its present record."""
        if is_indexed(old):
            self._unindex(key, old)
        if metadata := metadata_of(old):
            self._update_index(key, metadata, b"")
        self.raw.delete(key, db=self._entries)
        self.revision += 1
        self.changes.append((self.revision, REMOVED, key, Record.unpack(old).long_key))

    def select(self, wanted: Metadata, path: str) -> Iterator[tuple[bytes, bytes]]:
        """Iterate over keys and records of the entries at and below `path` that have the wanted metadata."""
        entries, index = (functools.partial(scan, self.raw, db) for db in (self._entries, self._store.by_metadata))
        return find(entries, index, self.get, self.declared, wanted, path)

    def declare_index(self, keys: Iterable[str]) -> None:
        """Index these metadata keys, too, from now on and for the entries that are there."""
        new = frozenset(keys) - self.declared
        if new:
            for key, record in scan(self.raw, self._entries, b"", None):
                for index_key in index_keys(metadata_of(record), new, key):
                    self.raw.put(index_key, b"", db=self._store.by_metadata)
            self.declared |= new
            self.raw.put(INDEX, msgspec.msgpack.encode(sorted(self.declared)), db=self._store.facts)
            self._changed = True

    def records(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Iterate over the entries whose keys begin with `prefix`."""
        cursor = self.raw.cursor(db=self._entries)
        found = cursor.set_range(prefix)
        while found and cursor.key().startswith(prefix):
            yield cursor.item()
            found = cursor.next()

    def mark_dead(self, owner: str) -> None:
        """Refuse later writes of this incarnation of a worker and of earlier ones."""
        if self.is_dead(owner):
            return
        digest, number = _digest_of(owner)
        self.raw.put(digest, _U64.pack(number), db=self._store.dead)
        self.newly_dead[digest] = number
        self._changed = True
        known = self._store.dead_owners
        surplus = len(known) + len(self.newly_dead) - MAX_DEAD_OWNERS
        for oldest in itertools.islice(known, max(0, surplus)):
            self.raw.delete(oldest, db=self._store.dead)
            self.evicted.add(oldest)

    def is_dead(self, owner: str) -> bool:
        """Return whether this incarnation has ended."""
        if not self.newly_dead and not self._store.dead_owners:
            return False
        digest, number = _digest_of(owner)
        return number <= self.newly_dead.get(digest, -1) or self._store.is_dead(owner)

    def reap(self, owner: str, *, earlier: bool, limit: int) -> int:
        """Remove up to `limit` entries that `owner` marked; with `earlier`, also those of earlier incarnations.

        Returns:
            How many were removed; fewer than `limit` if none are left.
        """
        prefix, number = _digest_of(owner)
        keys: list[bytes] = []
        cursor = self.raw.cursor(db=self._store.owned)
        found = cursor.set_range(prefix)
        while found and cursor.key().startswith(prefix) and len(keys) < limit:
            incarnation = split_owner(cursor.value().decode())[1]
            if incarnation == number or (earlier and incarnation < number):
                keys.append(cursor.key()[len(prefix) :])
            found = cursor.next()
        for key in keys:
            record = self.get(key)
            if record is not None:
                self.remove(key, record)
        return len(keys)

    def client(self, client: bytes) -> ClientRecord:
        """Return the record of a client, which the caller updates; the commit stores it."""
        state = self.clients.get(client)
        if state is None:
            state = self._store.client_records.pop(client, None) or self.look_up_client(client)
            self.clients[client] = state
        return state

    def look_up_client(self, client: bytes) -> ClientRecord:
        """Return the record of a client; the commit does not store it."""
        if client in self.clients:
            return self.clients[client]
        stored = self.raw.get(client, db=self._store.clients)
        return _decode_client(stored) if stored else ClientRecord()

    def forget_client(self, client: bytes) -> None:
        """Remove the record of a client."""
        self._store.client_records.pop(client, None)
        self.raw.delete(client, db=self._store.clients)
        self._changed = True

    def finish(self) -> bool:
        """Write the bookkeeping; return whether there is anything to commit."""
        for client, state in self.clients.items():
            state.time = self.time
            self.raw.put(client, _encode_client(state), db=self._store.clients)
        if self.revision != self._store.revision:
            self.raw.put(_REVISION, _U64.pack(self.revision), db=self._store.clients)
            if self._store.is_watched:
                self._store_changes()
            return True
        return bool(self.clients) or self._changed

    def report(self, done: int) -> None:
        """Show how many entries this long write has written so far."""
        self._store.report(done)

    def _store_changes(self) -> None:
        batch = Batch(self._store.revision, self.revision, self.changes).packed()
        if batch is not None:
            self.raw.put(_CHANGES + bytes([self._store.history.next_place]), batch, db=self._store.facts)

    def _update_index(self, key: bytes, before: bytes, after: bytes) -> None:
        old, new = (index_keys(metadata, self.declared, key) for metadata in (before, after))
        for index_key in old - new:
            self.raw.delete(index_key, db=self._store.by_metadata)
        for index_key in new - old:
            self.raw.put(index_key, b"", db=self._store.by_metadata)

    def _unindex(self, key: bytes, old: bytes) -> None:
        owner = Record.unpack(old).owner
        assert owner is not None
        self.raw.delete(_owned_key(owner, key), db=self._store.owned)


@functools.lru_cache(maxsize=1024)
def _digest_of(owner: str) -> tuple[bytes, int]:
    """Return the digest of the worker's path, and the serial number of the incarnation."""
    path, serial = split_owner(owner)
    return hashlib.blake2b(path.encode(), digest_size=16).digest(), serial


def _owned_key(owner: str, key: bytes) -> bytes:
    return _digest_of(owner)[0] + key
