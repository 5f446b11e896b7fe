"""A write transaction that is under way: entries, their owners, and what clients have had carried out."""

from __future__ import annotations

import functools
import hashlib
import itertools
import struct
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import lmdb
import msgspec

from suitkaise.storage.protocol import Client
from suitkaise.storage.records import Record, is_indexed, pack_record

if TYPE_CHECKING:
    from suitkaise.storage.store import Store

__all__ = ["MAX_DEAD_OWNERS", "REVISION", "U64", "Batch", "decode_client", "identity", "split_owner"]

MAX_DEAD_OWNERS = 1 << 16
"""How many workers' paths are remembered with their highest dead incarnation."""

REVISION = b"revision"
"""The key of the last revision, among the facts."""

U64 = struct.Struct("<Q")
_encode_client = msgspec.msgpack.Encoder().encode
decode_client: Callable[[bytes], Client] = msgspec.msgpack.Decoder(Client).decode


class Batch:
    """A write transaction that is under way; what `Store.write` hands out."""

    def __init__(self, store: Store, transaction: lmdb.Transaction[bytes]) -> None:
        self.transaction: lmdb.Transaction[bytes] = transaction
        self.revision: int = store.revision
        self.time: float = time.time()
        self.died: dict[bytes, int] = {}
        self.outlived: set[bytes] = set()
        self.size: int = 0
        self._store = store
        self._entries = store.entries
        self._clients: dict[bytes, Client] = {}
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
        self.died[digest] = number
        self._changed = True
        known = self._store.dead_owners
        surplus = len(known) + len(self.died) - MAX_DEAD_OWNERS
        for oldest in itertools.islice(known, max(0, surplus)):
            self.transaction.delete(oldest, db=self._store.dead)
            self.outlived.add(oldest)

    def is_dead(self, owner: str) -> bool:
        """Whether this incarnation is over."""
        if not self.died and not self._store.dead_owners:
            return False
        digest, number = identity(owner)
        return number <= self.died.get(digest, -1) or self._store.is_dead(owner)

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

    def client(self, client: bytes) -> Client:
        """What is remembered about a client, for the caller to change as it carries out its requests."""
        state = self._clients.get(client)
        if state is None:
            state = self._clients[client] = self.look_up_client(client)
        return state

    def look_up_client(self, client: bytes) -> Client:
        """What is remembered about a client; nothing is written for it."""
        if client in self._clients:
            return self._clients[client]
        stored = self.transaction.get(client, db=self._store.clients)
        return decode_client(stored) if stored else Client()

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
