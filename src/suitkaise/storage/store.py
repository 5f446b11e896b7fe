"""The one writer's LMDB: entries, their owners, dead owners, and what each client has had carried out.

All of it changes in the same transactions, so a crash at any time leaves entries and bookkeeping in step. Who
reads needs none of this, see `reader`. What a request means is told in `operations`.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import lmdb

from suitkaise.errors import StorageError, StorageFull
from suitkaise.storage import environment
from suitkaise.storage.batch import REVISION, U64, Batch, decode_client, identity
from suitkaise.storage.revision import RevisionWord

if TYPE_CHECKING:
    from lmdb import _Database as Database

__all__ = ["Store"]

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

    def write(self, work: Callable[[Batch], T]) -> T:
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
            batch = Batch(self, self._environment.begin(write=True))
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

    def _commit(self, batch: Batch) -> None:
        if not batch.finish():
            return
        self._word.begin(self.revision)
        try:
            batch.transaction.commit()
            self.revision = batch.revision
            for path in batch.outlived | batch.died.keys():
                self.dead_owners.pop(path, None)
            self.dead_owners |= batch.died  # the latest last: the first ones are forgotten first
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

        def forget(batch: Batch) -> int:
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
