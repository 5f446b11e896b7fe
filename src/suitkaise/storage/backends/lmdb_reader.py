"""Reading: every process maps the data and reads without a message to the storage actor.

A read copies the record out of a transaction that lasts for a microsecond, so that no reader keeps the writer
from reusing pages. A read that fails since the map grew, the process forked, or the table of readers is full of
dead readers, is repaired here and repeated. Why readers close for a fork: see `lmdb_environment`.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import lmdb

from suitkaise.errors import StorageError
from suitkaise.storage.backends import lmdb_environment as environment
from suitkaise.storage.backends.lmdb_select import declared_index, scan
from suitkaise.storage.backends.revision import RevisionWord
from suitkaise.storage.index import find
from suitkaise.storage.keys import container_prefix, next_container
from suitkaise.storage.records import Metadata, head_of

__all__ = ["NotThereYet", "Reader", "reader_of"]

T = TypeVar("T")

_TRIES = 8
_CHUNK = 1000


class NotThereYet(StorageError):
    """No storage actor has ever run in this directory."""


class Reader:
    """Reads the storage in `directory`, from any thread. The first read opens the environment."""

    def __init__(self, directory: Path, *, map_size: int = environment.DEFAULT_MAP_SIZE) -> None:
        self.directory: Path = directory.resolve()
        self._map_size = map_size
        self._environment: lmdb.Environment | None = None
        self._borrowed = False
        self._begin: Callable[[Any], lmdb.Transaction[bytes]] = _not_open
        self._entries: Any = None
        self._index: Any = None  # None: a store of an earlier version, which no program has opened since
        self._facts: Any = None
        self._word: RevisionWord | None = None
        environment.register(self)

    def get(self, key: bytes) -> bytes | None:
        """Return the record under `key`, or None.

        Raises:
            NotThereYet: no storage actor has ever run in the directory.
            StorageError: the storage cannot be read.
        """
        try:
            transaction = self._begin(self._entries)
            record = transaction.get(key)
            transaction.abort()
            return record
        except lmdb.Error:
            return self._read(lambda transaction: transaction.get(key))

    def container(self, path: str) -> list[tuple[bytes, bytes]]:
        """Return keys and records of one container, as they were at one moment."""
        prefix = container_prefix(path)

        def collect(transaction: lmdb.Transaction[bytes]) -> list[tuple[bytes, bytes]]:
            found = []
            cursor = transaction.cursor()
            there = cursor.set_range(prefix)
            while there and cursor.key().startswith(prefix):
                found.append(cursor.item())
                there = cursor.next()
            return found

        return self._read(collect)

    def containers(self) -> list[bytes]:
        """Return the first key of every container that has entries."""

        def collect(transaction: lmdb.Transaction[bytes]) -> list[bytes]:
            found: list[bytes] = []
            cursor = transaction.cursor()
            there = cursor.first()
            while there:
                found.append(cursor.key())
                there = cursor.set_range(next_container(cursor.key()))
            return found

        return self._read(collect)

    def walk(self) -> Iterator[tuple[bytes, bytes]]:
        """Iterate over keys and records of all entries, in the order of their keys.

        They are read in portions, so a change between two portions may or may not be seen.
        """
        start = b""
        while True:

            def collect(transaction: lmdb.Transaction[bytes], start: bytes = start) -> list[tuple[bytes, bytes]]:
                cursor = transaction.cursor()
                found: list[tuple[bytes, bytes]] = []
                there = cursor.set_range(start) if start else cursor.first()
                while there and len(found) < _CHUNK:
                    found.append(cursor.item())
                    there = cursor.next()
                return found

            portion = self._read(collect)
            yield from portion
            if len(portion) < _CHUNK:
                return
            start = portion[-1][0] + b"\0"

    def select(self, wanted: Metadata, path: str) -> list[tuple[bytes, bytes, int]]:
        """Return the entries at and below `path` that have the wanted metadata, as they were at one moment.

        Returns:
            Their keys, their records without the values, and the lengths of the whole records in bytes.
        """

        def collect(transaction: lmdb.Transaction[Any]) -> list[tuple[bytes, bytes, int]]:
            declared = declared_index(transaction, self._facts) if self._index else frozenset[str]()
            found = find(
                functools.partial(scan, transaction, self._entries),
                functools.partial(scan, transaction, self._index),
                transaction.get,
                declared,
                wanted,
                path,
            )
            return [(bytes(key), head_of(record), len(record)) for key, record in found]

        return self._read(collect, buffers=True)  # which does not copy the values

    def count(self) -> int:
        """Return the number of entries."""
        return self._read(lambda transaction: transaction.stat(self._entries)["entries"])

    def revision_words(self) -> memoryview:
        """Return the page whose first word is the revision word, see `RevisionWord`."""
        with environment.LOCK:
            if self._word is None:
                try:
                    self._word = RevisionWord(self.directory)
                except FileNotFoundError:
                    raise NotThereYet(f"there is no storage in {self.directory} yet") from None
            return self._word.words

    def close(self) -> None:
        """Close the environment and unmap the revision word; the next read opens them again."""
        self.release()
        with environment.LOCK:
            word, self._word = self._word, None
            if word is not None:
                word.close()

    def release(self) -> None:
        """Close the environment; the next read opens it again."""
        with environment.LOCK:
            opened, self._environment = self._environment, None
            self._begin = _not_open
            if opened is not None and not self._borrowed:
                opened.close()

    def _read(self, work: Callable[[lmdb.Transaction[Any]], T], *, buffers: Any = False) -> T:
        error: Exception | None = None
        failures = 0
        while failures < _TRIES:
            opened = self._environment
            try:
                if opened is None:
                    self._open()
                    continue
                with opened.begin(self._entries, buffers=buffers) as transaction:
                    return work(transaction)
            except lmdb.MapResizedError as grown:
                error = grown
                self._adopt_size()
            except lmdb.ReadersFullError as full:
                error = full
                self._clear_dead_readers()
            except lmdb.Error as other:
                if not self._close_failed(opened):  # closed for a fork or by another thread: no failure of LMDB
                    continue
                error = other
            failures += 1
        raise StorageError(f"the storage in {self.directory} cannot be read: {error}") from error

    def _close_failed(self, opened: lmdb.Environment | None) -> bool:
        """Close the environment of a failed read; return False if it is closed or replaced already."""
        with environment.LOCK:
            if self._environment is not opened:
                return False
            self.release()
            return True

    def _open(self) -> None:
        with environment.LOCK:
            if self._environment is not None:
                return
            self.revision_words()  # its file is made last, so it proves that all the others exist
            try:
                opened, self._borrowed = environment.open_for_reading(self.directory, map_size=self._map_size)
            except OSError as error:
                raise StorageError(f"the storage in {self.directory} cannot be opened: {error}") from error
            try:
                self._entries = opened.open_db(b"entries", create=False)
                self._facts = opened.open_db(b"facts", create=False)
            except lmdb.Error:
                if not self._borrowed:
                    opened.close()
                raise
            try:
                self._index = opened.open_db(b"by_metadata", create=False)
            except lmdb.NotFoundError:
                self._index = None
            self._environment = opened
            self._begin = opened.begin

    def _adopt_size(self) -> None:
        with environment.LOCK:
            if self._environment is not None:
                self._environment.set_mapsize(0)

    def _clear_dead_readers(self) -> None:
        with environment.LOCK:
            if self._environment is not None:
                self._environment.reader_check()


def reader_of(directory: Path) -> Reader:
    """Return the process's one reader of a storage, since a process may open an environment only once."""
    directory = directory.resolve()
    with environment.LOCK:
        reader = _readers.get(directory)
        if reader is None:
            reader = _readers[directory] = Reader(directory)
        return reader


def _not_open(database: Any) -> lmdb.Transaction[bytes]:
    raise lmdb.Error("not open")


_readers: weakref.WeakValueDictionary[Path, Reader] = weakref.WeakValueDictionary()
