"""The one writer's LMDB: entries, their owners, dead owners, and what each client has had carried out.

All of it changes in the same transactions, so a crash at any time leaves entries and bookkeeping in step. Who
reads needs none of this, see `reader`. What a request means is told in `operations`.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import itertools
import os
import struct
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import lmdb
import msgspec

from suitkaise.errors import StorageError, StorageFull
from suitkaise.storage.backends import lmdb_environment as environment
from suitkaise.storage.backends.revision import RevisionWord
from suitkaise.storage.protocol import ClientRecord
from suitkaise.storage.records import Record, is_indexed, pack_record

if TYPE_CHECKING:
    from lmdb import _Database as Database

__all__ = ["MAX_DEAD_OWNERS", "REVISION", "U64", "Store", "WriteTransaction", "decode_client", "identity"]

T = TypeVar("T")

FORGET_CLIENTS_AFTER = 600.0
"""Seconds after which a client that is not connected has given up for certain, and is forgotten."""

_LARGEST_MAP = 1 << 46
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_ROOM_FOR_PAGES = 1 << 20  # what a commit writes beside the records, at most


class Store:
    """The data of a storage, opened for writing. One at a time, and by one thread."""

    def __init__(self, directory: Path, *, durable: bool = False, map_size: int = environment.DEFAULT_MAP_SIZE) -> None:
        """Open the store in `directory`, made there if need be.

        Args:
            directory: the storage's directory, which exists.
            durable: a commit has reached the disk when it returns; otherwise the data survives the death of
                any process, but not that of the machine.
            map_size: where the map begins, in bytes; it grows by itself.
        """
        self.directory: Path = directory
        self._pid = os.getpid()
        self._environment = environment.open_for_writing(directory, durable=durable, map_size=map_size)
        self._environment.reader_check()
        opened = [self._environment.open_db(name) for name in environment.DATABASES]
        self.entries: Database = opened[0]
        self.owned: Database = opened[1]
        self.dead: Database = opened[2]
        self.clients: Database = opened[3]
        self.facts: Database = opened[4]
        with self._environment.begin() as transaction:
            stored = transaction.get(REVISION, db=self.facts)
            self.revision: int = int(U64.unpack(stored)[0]) if stored else 0
            """The revision that was committed last."""
            self.dead_owners: dict[bytes, int] = {
                bytes(path): U64.unpack(number)[0] for path, number in transaction.cursor(db=self.dead)
            }
            """The highest dead incarnation under the digest of its worker's path."""
        self._word = RevisionWord(directory, write=True)
        self._word.publish(self.revision)

    def write(self, work: Callable[[WriteTransaction], T]) -> T:
        """Run `work` in one transaction, which is committed when this returns.

        `work` is run again, from the start, when the map had to grow for it. If it raises, nothing of it is
        stored.

        Raises:
            StorageFull: the file system has no room for it.
            lmdb.Error: LMDB says no.
        """
        if os.getpid() != self._pid:
            raise StorageError("this process was forked from the storage's writer; it may not write itself")
        while True:
            batch = WriteTransaction(self, self._environment.begin(write=True))
            try:
                result = work(batch)
                self._commit(batch)
                return result
            except lmdb.MapFullError:
                batch.transaction.abort()
                self._grow()
            except lmdb.Error as error:
                if not self._is_full(error, batch.size):
                    raise
                raise StorageFull(f"no room is left in {self.directory} for this write: {error}") from error
            finally:
                batch.transaction.abort()  # which does nothing after a commit

    def _commit(self, batch: WriteTransaction) -> None:
        if not batch.finish():
            return
        self._word.begin(self.revision)
        try:
            batch.transaction.commit()
            self.revision = batch.revision
            for path in batch.evicted | batch.newly_dead.keys():
                self.dead_owners.pop(path, None)
            self.dead_owners |= batch.newly_dead  # the latest last: the first ones are forgotten first
        finally:
            self._word.publish(self.revision)

    def _is_full(self, error: lmdb.Error, size: int) -> bool:
        """Whether an error is for lack of room. LMDB calls a write that went in only in part an I/O error."""
        if any(os.strerror(number) in str(error) for number in _NO_ROOM):
            return True
        if os.strerror(errno.EIO) not in str(error):
            return False
        room = os.statvfs(self.directory)
        return room.f_bavail * room.f_frsize < size + _ROOM_FOR_PAGES

    def _grow(self) -> None:
        size = self._environment.info()["map_size"]
        if size >= _LARGEST_MAP:
            raise StorageFull(f"the storage in {self.directory} has reached its largest size, {size} bytes")
        try:
            self._environment.set_mapsize(size * 2)
        except (lmdb.Error, MemoryError) as error:
            raise StorageFull(
                f"the storage in {self.directory} cannot grow beyond {size} bytes, the system grants no more "
                f"address space (see `ulimit -v`): {error}"
            ) from error

    def forget_clients(self, connected: Collection[bytes]) -> int:
        """Forget the clients that are gone for long; returns how many those were."""
        oldest = time.time() - FORGET_CLIENTS_AFTER

        def forget(batch: WriteTransaction) -> int:
            gone = [
                bytes(client)
                for client, stored in batch.transaction.cursor(db=self.clients)
                if client not in connected and decode_client(stored).time < oldest
            ]
            for client in gone:
                batch.forget_client(client)
            return len(gone)

        return self.write(forget)

    def dead_with_entries(self) -> set[str]:
        """The dead owners of which entries are left: what a crash interrupted."""
        with self._environment.begin(db=self.owned) as transaction:
            owners = {owner.decode() for owner in transaction.cursor().iternext(keys=False, values=True)}
        return {owner for owner in owners if self.is_dead(owner)}

    def is_dead(self, owner: str) -> bool:
        """Whether this incarnation is known to be over."""
        digest, number = identity(owner)
        return number <= self.dead_owners.get(digest, -1)

    def check_readers(self) -> None:
        """Take their slots from readers that died, so that they hold no pages back."""
        self._environment.reader_check()

    def close(self) -> None:
        """Close it. What is committed stays."""
        if os.getpid() == self._pid:
            environment.close_for_writing(self.directory, self._environment)
            self._word.close()


MAX_DEAD_OWNERS = 1 << 16
"""How many workers' paths are remembered with their highest dead incarnation."""

REVISION = b"revision"
"""The key of the last revision, among the facts."""

U64 = struct.Struct("<Q")
_encode_client = msgspec.msgpack.Encoder().encode
decode_client: Callable[[bytes], ClientRecord] = msgspec.msgpack.Decoder(ClientRecord).decode


class WriteTransaction:
    """A write transaction that is under way; what `Store.write` hands out."""

    def __init__(self, store: Store, transaction: lmdb.Transaction[bytes]) -> None:
        self.transaction: lmdb.Transaction[bytes] = transaction
        self.revision: int = store.revision
        self.time: float = time.time()
        self.newly_dead: dict[bytes, int] = {}
        self.evicted: set[bytes] = set()
        self.size: int = 0
        self._store = store
        self._entries = store.entries
        self._clients: dict[bytes, ClientRecord] = {}
        self._changed = False

    def get(self, key: bytes) -> bytes | None:
        """The record of an entry."""
        return self.transaction.get(key, db=self._entries)

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
        """Store an entry in the place of `old`, its record so far."""
        if old is not None and is_indexed(old):
            self._unindex(key, old)
        indexed = indexed and owner is not None
        if indexed and owner is not None:
            self.transaction.put(_owned_key(owner, key), owner.encode(), db=self._store.owned)
        self.revision = revision = self.revision + 1
        record = pack_record(revision, self.time, encoding, value, owner, metadata, indexed, long_key)
        self.size += len(record)
        self.transaction.put(key, record, db=self._entries)

    def remove(self, key: bytes, old: bytes) -> None:
        """Remove an entry; `old` is its record."""
        if is_indexed(old):
            self._unindex(key, old)
        self.transaction.delete(key, db=self._entries)
        self.revision += 1

    def _unindex(self, key: bytes, old: bytes) -> None:
        owner = Record.unpack(old).owner
        assert owner is not None
        self.transaction.delete(_owned_key(owner, key), db=self._store.owned)

    def records(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """The entries whose keys begin with `prefix`."""
        cursor = self.transaction.cursor(db=self._entries)
        found = cursor.set_range(prefix)
        while found and cursor.key().startswith(prefix):
            yield cursor.item()
            found = cursor.next()

    def mark_dead(self, owner: str) -> None:
        """From now on what this incarnation of a worker, or an earlier one, writes is refused."""
        if self.is_dead(owner):
            return
        digest, number = identity(owner)
        self.transaction.put(digest, U64.pack(number), db=self._store.dead)
        self.newly_dead[digest] = number
        self._changed = True
        known = self._store.dead_owners
        surplus = len(known) + len(self.newly_dead) - MAX_DEAD_OWNERS
        for oldest in itertools.islice(known, max(0, surplus)):
            self.transaction.delete(oldest, db=self._store.dead)
            self.evicted.add(oldest)

    def is_dead(self, owner: str) -> bool:
        """Whether this incarnation is over."""
        if not self.newly_dead and not self._store.dead_owners:
            return False
        digest, number = identity(owner)
        return number <= self.newly_dead.get(digest, -1) or self._store.is_dead(owner)

    def reap(self, owner: str, *, earlier: bool, limit: int) -> int:
        """Remove up to `limit` entries that `owner` marked; with `earlier`, its earlier incarnations', too.

        Returns:
            How many were removed; less than `limit` means that none are left.
        """
        prefix, number = identity(owner)
        keys: list[bytes] = []
        cursor = self.transaction.cursor(db=self._store.owned)
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
        """What is remembered about a client, for the caller to change as it carries out its requests."""
        state = self._clients.get(client)
        if state is None:
            state = self._clients[client] = self.look_up_client(client)
        return state

    def look_up_client(self, client: bytes) -> ClientRecord:
        """What is remembered about a client; nothing is written for it."""
        if client in self._clients:
            return self._clients[client]
        stored = self.transaction.get(client, db=self._store.clients)
        return decode_client(stored) if stored else ClientRecord()

    def forget_client(self, client: bytes) -> None:
        """Remember nothing about a client."""
        self.transaction.delete(client, db=self._store.clients)
        self._changed = True

    def finish(self) -> bool:
        """Write the bookkeeping; returns whether there is anything to commit."""
        for client, state in self._clients.items():
            state.time = self.time
            self.transaction.put(client, _encode_client(state), db=self._store.clients)
        if self.revision != self._store.revision:
            self.transaction.put(REVISION, U64.pack(self.revision), db=self._store.facts)
            return True
        return bool(self._clients) or self._changed


def split_owner(owner: str) -> tuple[str, int]:
    """The path and the number of an incarnation (`pipeline/count-a#3`); 0 if it has no number."""
    path, _, number = owner.rpartition("#")
    if path and number.isdecimal():
        return path, int(number)
    return owner, 0


@functools.lru_cache(maxsize=1024)
def identity(owner: str) -> tuple[bytes, int]:
    """The digest of the worker's path, and the number of its incarnation."""
    path, number = split_owner(owner)
    return hashlib.blake2b(path.encode(), digest_size=16).digest(), number


def _owned_key(owner: str, key: bytes) -> bytes:
    return identity(owner)[0] + key
