"""Reading: every process maps the data and reads without a message to the storage actor.

A read copies the record out of a transaction that lasts for a microsecond, so that no reader keeps the writer
from reusing pages. A read that fails since the map grew, the process forked, or the table of readers is full of
dead readers, is repaired and repeated. Why readers close for a fork: see `access`.
"""

from __future__ import annotations

import functools
import itertools
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from suitkaise.errors import StorageError
from suitkaise.storage.backends import access
from suitkaise.storage.backends.engines import chosen_engine, engine_named, engine_of
from suitkaise.storage.backends.revision import RevisionWord
from suitkaise.storage.backends.tables import Engine, Opened, Transaction, declared_index, scan
from suitkaise.storage.index import find
from suitkaise.storage.keys import container_prefix, next_container
from suitkaise.storage.place import ELSEWHERE
from suitkaise.storage.records import Entry, Metadata, Record, checked, head_of, revision_of

__all__ = ["NotThereYet", "Reader", "reader_of"]

T = TypeVar("T")

_TRIES = 8
_CHUNK = 1000


class NotThereYet(StorageError):
    """No storage actor has ever run in this directory."""


class Reader:
    """Reads the storage in `directory`, from any thread. The first read opens the store."""

    is_elsewhere: bool = False
    """Whether the storage lies on another machine."""
    hint: str = ""
    """What the error for an entry that is missing says last, if it knows nothing better."""

    def __init__(self, directory: Path, *, map_size: int = access.DEFAULT_MAP_SIZE) -> None:
        self.directory: Path = directory.resolve()
        self._map_size = map_size
        self._opened: Opened | None = None
        self._engine: Engine | None = None
        self._borrowed = False
        self._begin: Callable[[Any], Any] = _not_open
        self._begin_view: Callable[[Any], Any] = _not_open
        self._errors: tuple[type[Exception], ...] = (_NotOpen,)
        self._entries: Any = None
        self._index: Any = None  # None: a store of an earlier version, which no program has opened since
        self._facts: Any = None
        self._owned: Any = None
        self._word: RevisionWord | None = None
        access.register(self)

    def get(self, key: bytes) -> bytes | None:
        """Return the record under `key`, or None.

        Raises:
            NotThereYet: no storage actor has ever run in the directory.
            StorageError: the storage cannot be read.
        """
        try:
            transaction = self._begin(self._entries)
            record: bytes | None = transaction.get(key)
            transaction.abort()
            return record
        except self._errors:
            found: bytes | None = self._read(lambda transaction: transaction.get(key))
            return found

    def revision(self, key: bytes) -> int:
        """Return the revision of the record under `key`, 0 if there is none; a large value is not copied for that."""
        try:
            transaction = self._begin_view(self._entries)
            revision = revision_of(transaction.get(key))
            transaction.abort()
            return revision
        except self._errors:
            return self._read(lambda transaction: revision_of(transaction.get(key)), buffers=True)

    def get_private(self, key: bytes) -> bytearray | None:
        """Return the record under `key`, or None, in memory of the caller's own; the only copy that is made."""

        def copied(transaction: Transaction) -> bytearray | None:
            record = transaction.get(key)
            return None if record is None else bytearray(record)

        return self._read(copied, buffers=True)

    def container(self, path: str) -> list[tuple[bytes, bytes]]:
        """Return keys and records of one container, as they were at one moment."""
        prefix = container_prefix(path)

        def collect(transaction: Transaction) -> list[tuple[bytes, bytes]]:
            found = []
            cursor = transaction.cursor()
            there = cursor.set_range(prefix)
            while there and cursor.key().startswith(prefix):
                found.append(cursor.item())
                there = cursor.next()
            return found

        return self._read(collect)

    def heads(self, path: str, most: int | None = None) -> list[tuple[bytes, bytes]]:
        """Return keys of one container, `most` at most, and records without their values, which are not copied."""
        prefix = container_prefix(path)

        def collect(transaction: Transaction) -> list[tuple[bytes, bytes]]:
            found = scan(transaction, self._entries, prefix, next_container(prefix))
            return [(bytes(key), head_of(record)) for key, record in itertools.islice(found, most)]

        return self._read(collect, buffers=True)

    def entries(self, path: str) -> list[tuple[bytes, Entry]]:
        """Return keys and facts of the entries in one container, whose values are not copied."""
        prefix = container_prefix(path)

        def collect(transaction: Transaction) -> list[tuple[bytes, Entry]]:
            found = scan(transaction, self._entries, prefix, next_container(prefix))
            return [
                (bytes(key), Record.unpack(head_of(record)).entry(bytes(key), len(record))) for key, record in found
            ]

        return self._read(collect, buffers=True)

    def containers(self) -> list[bytes]:
        """Return the first key of every container that has entries."""

        def collect(transaction: Transaction) -> list[bytes]:
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

            def collect(transaction: Transaction, start: bytes = start) -> list[tuple[bytes, bytes]]:
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

        def collect(transaction: Transaction) -> list[tuple[bytes, bytes, int]]:
            declared = declared_index(transaction, self._facts) if self._index else frozenset[str]()
            found = find(
                functools.partial(scan, transaction, self._entries),
                functools.partial(scan, transaction, self._index),
                transaction.get,
                declared,
                wanted,
                path,
            )
            return [(bytes(key), head_of(checked(key, record)), len(record)) for key, record in found]

        return self._read(collect, buffers=True)  # which does not copy the values

    def all_at_once(self, work: Callable[[Iterator[tuple[bytes, bytes]], int], T]) -> T:
        """Return what `work` makes of keys and records of all entries at one moment, and of their number.

        If a fork of this process interrupts the work, it is done again from the start. Meanwhile the writer cannot
        reuse pages, and all other threads read as ever.
        """
        if not engine_named(chosen_engine(self.directory, None)).reads_one_at_a_time:
            return self._all_at_once(work)
        reader = Reader(self.directory)
        try:
            with access.forks_wait():
                return reader._all_at_once(work)
        finally:
            reader.close()

    def _all_at_once(self, work: Callable[[Iterator[tuple[bytes, bytes]], int], T]) -> T:
        return self._read(
            lambda transaction: work(
                scan(transaction, self._entries, b"", None), transaction.stat(self._entries)["entries"]
            )
        )

    def owners(self) -> set[str]:
        """Return the owners of entries that are marked to be removed with them."""
        return {owner.decode() for owner in self._read(lambda transaction: _values(transaction, self._owned))}

    def count(self) -> int:
        """Return the number of entries."""
        return self._read(lambda transaction: transaction.stat(self._entries)["entries"])

    def revision_words(self) -> memoryview:
        """Return the page whose first word is the revision word, see `RevisionWord`."""
        with access.LOCK:
            if self._word is None:
                try:
                    self._word = RevisionWord(self.directory)
                except FileNotFoundError:
                    raise NotThereYet(f"there is no storage in {self.directory} yet") from None
            return self._word.words

    def close(self) -> None:
        """Close the store and unmap the revision word; the next read opens them again."""
        self.release()
        with access.LOCK:
            word, self._word = self._word, None
            if word is not None:
                word.close()

    def release(self) -> None:
        """Close the store; the next read opens it again."""
        with access.LOCK:
            opened, self._opened = self._opened, None
            self._begin = self._begin_view = _not_open
            if opened is not None and not self._borrowed:
                opened.close()

    def _read(self, work: Callable[[Transaction], T], *, buffers: bool = False) -> T:
        error: Exception | None = None
        failures = 0
        while failures < _TRIES:
            opened = self._opened
            try:
                if opened is None:
                    self._open()
                    continue
                with opened.begin(self._entries, buffers=buffers) as transaction:
                    return work(transaction)
            except self._errors as failed:
                if not self._repaired(opened, failed):  # closed for a fork or by another thread: no failure
                    continue
                error = failed
            failures += 1
        raise StorageError(f"the storage in {self.directory} cannot be read: {error}") from error

    def _repaired(self, opened: Opened | None, error: Exception) -> bool:
        """Repair or close what made a read fail; return False if it is closed or replaced already."""
        with access.LOCK:
            if self._opened is not opened:
                return False
            if opened is None or self._engine is None or not self._engine.repaired_reading(opened, error):
                self.release()
            return True

    def _open(self) -> None:
        with access.LOCK:
            if self._opened is not None:
                return
            self.revision_words()  # its file is made last, so it proves that all the others exist
            self._engine = engine = engine_named(chosen_engine(self.directory, None))
            self._errors = (_NotOpen, *engine.errors)
            try:
                opened, self._borrowed = access.open_for_reading(engine, self.directory, map_size=self._map_size)
            except OSError as error:
                raise StorageError(f"the storage in {self.directory} cannot be opened: {error}") from error
            try:
                self._entries = _existing(engine, opened, "entries")
                self._facts = _existing(engine, opened, "facts")
                self._owned = _existing(engine, opened, "owned")
                self._index = engine.table(opened, "by_metadata", create=False)
            except Exception:
                if not self._borrowed:
                    opened.close()
                raise
            self._begin, self._begin_view = engine.quick_begin(opened), engine.quick_begin(opened, view=True)
            self._opened = opened


def reader_of(directory: Path) -> Reader:
    """Return the process's one reader of a storage, since a process may open an environment only once."""
    directory = directory.resolve()
    with access.LOCK:
        reader = _readers.get(directory)
        if reader is None:
            reader = _readers[directory] = _new_reader(directory)
        return reader


def _new_reader(directory: Path) -> Reader:
    if engine_of(directory) == "redis":
        engine_named("redis")  # raises what is to be installed
        from suitkaise.storage.backends.redis_reader import RedisReader

        return RedisReader(directory)
    if (directory / ELSEWHERE).exists():
        from suitkaise.storage.backends.remote_reader import RemoteReader  # only workers on a cluster need it

        return RemoteReader(directory)
    return Reader(directory)


def _values(transaction: Transaction, table: Any) -> set[bytes]:
    return {value for _, value in scan(transaction, table, b"", None)}


class _NotOpen(Exception):
    """The store is not open, or is not a whole store yet."""


def _not_open(table: Any) -> Any:
    raise _NotOpen


def _existing(engine: Engine, opened: Opened, name: str) -> Any:
    table = engine.table(opened, name, create=False)
    if table is None:
        raise _NotOpen(f"it has no table {name!r}")
    return table


_readers: weakref.WeakValueDictionary[Path, Reader] = weakref.WeakValueDictionary()
