"""How a tree changes entries, and reads what a change depends on: at once, or collected for a transaction.

`Tree` uses one interface, `Writes`. `DirectWrites` sends each change to the storage actor; while a thread is in
a transaction, its `Transaction` (in `transaction.py`) collects the changes until the end of the block. So the
methods of `Tree` are the same inside and outside of a transaction.
"""

from __future__ import annotations

import math
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from suitkaise.errors import EntryNotFound, add_note
from suitkaise.messaging import codec
from suitkaise.messaging.identity import current_owner, split_owner
from suitkaise.storage.backends.reader import NotThereYet, Reader
from suitkaise.storage.backends.revision import PROGRESS
from suitkaise.storage.client import client_of, clients_of
from suitkaise.storage.keys import entry_key
from suitkaise.storage.listing import entry_not_found
from suitkaise.storage.pipeline import pop_background_error
from suitkaise.storage.progress import Report, follow
from suitkaise.storage.protocol import (
    Append,
    Forget,
    Increment,
    Move,
    Put,
    PutMode,
    Remove,
    RemoveSelected,
    Reply,
    ReplyCode,
    Request,
    Restore,
    error_for,
    where,
)
from suitkaise.storage.records import Metadata, damage_of, decode_value, encode_value, intact, revision_of, value_of
from suitkaise.storage.snapshot import Snapshot, replaced, write_snapshot
from suitkaise.storage.watch import close_watches

__all__ = ["DirectWrites", "Writes", "decoded"]

_MOST_AT_ONCE = 500  # entries that one request removes
_MOST_CHARACTERS = 1 << 17  # of their names; at most 4 bytes each


class Writes(ABC):
    """Reads and changes entries on behalf of `Tree`, which has checked paths, names and metadata.

    `metadata` of None leaves the entry's metadata as they are. The errors are those of the methods of `Tree`.
    """

    @abstractmethod
    def get(self, path: str, name: str) -> bytes | None:
        """Return the record of an entry; None if there is no such entry."""

    @abstractmethod
    def revision(self, path: str, name: str) -> int:
        """Return the revision of an entry; 0 if there is no such entry."""

    @abstractmethod
    def container(self, path: str) -> list[tuple[bytes, bytes]]:
        """Return the keys and records of a container."""

    @abstractmethod
    def heads(self, path: str) -> list[tuple[bytes, bytes]]:
        """Return the keys of a container, and the records, which may be without their values."""

    @abstractmethod
    def select(self, wanted: Metadata, path: str) -> list[tuple[bytes, bytes, int]]:
        """Return key, record without value, and size of the record, of the entries at and below `path` that match."""

    @abstractmethod
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
        """Store a value, if the entry is as `mode` demands."""

    @abstractmethod
    def update(self, path: str, name: str, function: Callable[[Any], Any], metadata: Metadata | None) -> Any:
        """Store the value that `function` makes of the old one; return the new value."""

    @abstractmethod
    def setdefault(self, path: str, name: str, value: object, metadata: Metadata) -> Any:
        """Return the value of an entry; store `value` first if there is no such entry."""

    @abstractmethod
    def compare_and_set(self, path: str, name: str, revision: int, value: object, metadata: Metadata | None) -> bool:
        """Store a value if the entry has that revision; return whether it was stored."""

    @abstractmethod
    def increment(self, path: str, name: str, amount: float, start: float, *, wait: bool) -> Any:
        """Add to a number; return the sum, or None if it was not waited for."""

    @abstractmethod
    def append(self, path: str, name: str, item: object, *, wait: bool) -> None:
        """Append an item to a list."""

    @abstractmethod
    def remove(self, path: str, name: str, *, missing_ok: bool, wait: bool) -> None:
        """Remove an entry."""

    @abstractmethod
    def remove_selected(self, entries: list[tuple[str, str]], wanted: Metadata) -> int:
        """Remove those of the entries that exist and match; return how many."""

    @abstractmethod
    def move(self, path: str, name: str, to_path: str, to_name: str, mode: PutMode, *, wait: bool) -> None:
        """Move an entry, if the target is as `mode` demands."""

    @abstractmethod
    def forget(self, owner: str, *, dead: bool) -> None:
        """Remove the entries that `owner` marked; if `dead`, refuse later writes of this owner."""


class DirectWrites(Writes):
    """Reads the shared memory map, and sends each change to the storage actor."""

    def __init__(self, reader: Reader, timeout: float) -> None:
        self._reader = reader
        self._read = reader.get  # bound once, since every read passes here
        self._timeout = timeout
        self._directory = str(reader.directory)

    def get(self, path: str, name: str) -> bytes | None:
        """Read the record from the memory map; wait for the storage actor if it has never run."""
        try:
            return self._read(entry_key(path, name)[0])
        except NotThereYet:
            self.wait_for_storage()
            return self._read(entry_key(path, name)[0])

    def revision(self, path: str, name: str) -> int:
        """Read the revision from the memory map, without the value."""
        try:
            return self._reader.revision(entry_key(path, name)[0])
        except NotThereYet:
            self.wait_for_storage()
            return self._reader.revision(entry_key(path, name)[0])

    def container(self, path: str) -> list[tuple[bytes, bytes]]:
        """Read a container as it is at one moment."""
        self.wait_for_storage()
        return self._reader.container(path)

    def heads(self, path: str) -> list[tuple[bytes, bytes]]:
        """Read a container as it is at one moment, without the values."""
        self.wait_for_storage()
        return self._reader.heads(path)

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
        """Send the value. The storage actor checks `mode`."""
        encoding, payload = encode_value(value)
        request = Put(0, False, path, name, encoding, mode, None, metadata, current_owner())
        try:
            self.send(request, payload, wait=wait)
        except EntryNotFound:
            raise entry_not_found(self._reader, path, name) from None

    def update(self, path: str, name: str, function: Callable[[Any], Any], metadata: Metadata | None) -> Any:
        """Send the function's value; call the function again if another writer was faster."""
        deadline = time.monotonic() + self._timeout
        while True:
            record = self.get(path, name)
            if record is None:
                raise entry_not_found(self._reader, path, name)
            value = function(decoded(path, name, record))
            encoding, payload = encode_value(value)
            expect = revision_of(record)
            request = Put(0, False, path, name, encoding, PutMode.ANY, expect, metadata, current_owner())
            reply = self._ask(request, payload)
            if reply.status is ReplyCode.OK:
                return value
            if reply.status is not ReplyCode.CONFLICT or time.monotonic() >= deadline:
                raise error_for(request, reply)

    def setdefault(self, path: str, name: str, value: object, metadata: Metadata) -> Any:
        """Read the value, or send `value` if there is no such entry."""
        encoding, payload = encode_value(value)
        while True:
            record = self.get(path, name)
            if record is not None:
                return decoded(path, name, record)
            request = Put(0, False, path, name, encoding, PutMode.NEW, None, metadata, current_owner())
            reply = self._ask(request, payload)
            if reply.status is ReplyCode.OK:
                return decode_value(encoding, payload)
            if reply.status is not ReplyCode.EXISTS:
                raise error_for(request, reply)

    def compare_and_set(self, path: str, name: str, revision: int, value: object, metadata: Metadata | None) -> bool:
        """Send the value with the revision that the storage actor has to find."""
        encoding, payload = encode_value(value)
        request = Put(0, False, path, name, encoding, PutMode.ANY, revision, metadata, current_owner())
        reply = self._ask(request, payload)
        if reply.status not in (ReplyCode.OK, ReplyCode.CONFLICT):
            raise error_for(request, reply)
        return reply.status is ReplyCode.OK

    def increment(self, path: str, name: str, amount: float, start: float, *, wait: bool) -> Any:
        """Have the storage actor add to the number, exactly once."""
        request = Increment(0, False, path, name, encode_value(amount), encode_value(start), current_owner())
        reply = self.send(request, wait=wait)
        if reply is None:
            return None
        if reply.detail is not None:
            return decode_value(*reply.detail)
        record = self.get(path, name)
        if record is None:
            raise entry_not_found(self._reader, path, name)
        return decoded(path, name, record)

    def append(self, path: str, name: str, item: object, *, wait: bool) -> None:
        """Have the storage actor append the item, exactly once."""
        payload = codec.dumps(item, root="item")
        self.send(Append(0, False, path, name, current_owner()), payload, wait=wait)

    def remove(self, path: str, name: str, *, missing_ok: bool, wait: bool) -> None:
        """Have the storage actor remove the entry."""
        try:
            self.send(Remove(0, False, path, name, missing_ok, None, current_owner()), wait=wait)
        except EntryNotFound:
            raise entry_not_found(self._reader, path, name) from None

    def select(self, wanted: Metadata, path: str) -> list[tuple[bytes, bytes, int]]:
        """Select from the memory map, as it is at one moment."""
        self.wait_for_storage()
        return self._reader.select(wanted, path)

    def remove_selected(self, entries: list[tuple[str, str]], wanted: Metadata) -> int:
        """Have the storage actor remove the entries, in portions."""
        removed = 0
        for portion in _portions(entries):
            reply = self.send(RemoveSelected(0, False, portion, wanted, current_owner()))
            removed += 0 if reply is None else reply.detail
        return removed

    def move(self, path: str, name: str, to_path: str, to_name: str, mode: PutMode, *, wait: bool) -> None:
        """Have the storage actor move the entry."""
        try:
            self.send(Move(0, False, path, name, to_path, to_name, mode, current_owner()), wait=wait)
        except EntryNotFound:
            raise entry_not_found(self._reader, path, name) from None

    def snapshot(self, target: Path, report: Report | None) -> int:
        """Write all entries to a file; return how many."""
        self.wait_for_storage()
        with replaced(target) as file:

            def write(entries: Iterator[tuple[bytes, bytes]], total: int) -> int:
                file.seek(0)
                file.truncate()
                return write_snapshot(file, entries, total, report or _report_nothing)

            return self._reader.all_at_once(write)

    def restore(self, source: Path, path: str, report: Report | None, *, replace: bool) -> int:
        """Verify a snapshot, and have the storage actor restore it; return how many entries it has restored."""
        with Snapshot(source) as snapshot:
            total = snapshot.count
            snapshot.verify()
        self.wait_for_storage()
        words = self._reader.revision_words()
        request = Restore(0, False, os.fsencode(source), path, replace, current_owner())
        with follow(report, lambda: words[PROGRESS], total):
            reply = client_of(self._directory, math.inf).ask(request)
        if reply.status is not ReplyCode.OK:
            raise error_for(request, reply)
        if report is not None:
            report(total, total)
        return int(reply.detail)

    def forget(self, owner: str, *, dead: bool) -> None:
        """Have the storage actor remove the owner's entries, in portions."""
        _check_owner(owner)
        self.send(Forget(0, False, owner, dead))

    def send(self, request: Request, payload: bytes = b"", *, wait: bool = True) -> Reply | None:
        """Send a change to the storage actor; return the reply, or None without waiting for it.

        Raises:
            StorageError: the storage actor refused the change, or did not answer in time.
        """
        client = client_of(self._directory, self._timeout)
        if not wait:
            client.post(request, payload)
            return None
        reply = client.ask(request, payload)
        if reply.status is not ReplyCode.OK:
            raise error_for(request, reply)
        return reply

    def wait_for_storage(self) -> None:
        """Wait for the storage actor to create the store, if it has not done so yet."""
        try:
            self._reader.revision_words()
        except NotThereYet:
            client_of(self._directory, self._timeout).ping()

    def open(self) -> None:
        """Connect this thread to the storage actor, and open the store."""
        client_of(self._directory, self._timeout).ping()
        self.get("", "any")

    def flush(self, timeout: float) -> None:
        """Wait until the posted changes of all threads of this process are stored; raise the first error."""
        deadline = time.monotonic() + timeout
        for client in clients_of(self._directory):
            client.drain(max(0.0, deadline - time.monotonic()))
        error = pop_background_error(self._directory)
        if error is not None:
            raise error

    def close(self) -> None:
        """Close the watches, connections and the reader of this process; the next use opens the latter two again."""
        close_watches(self._directory)
        for client in clients_of(self._directory):
            client.close()
        self._reader.close()

    def _ask(self, request: Request, payload: bytes) -> Reply:
        return client_of(self._directory, self._timeout).ask(request, payload)


def decoded(path: str, name: str, record: bytes | bytearray) -> Any:
    """Decode the value in a record; a note on the error names the entry."""
    if not intact(record):
        raise damage_of(path, name)
    try:
        return value_of(record)
    except Exception as error:
        add_note(error, f"while decoding the value of {where(name, path)}")
        raise


def _portions(entries: list[tuple[str, str]]) -> Iterator[list[tuple[str, str]]]:
    """Divide entries into requests that are quick to carry out, and whose names fit into a header."""
    portion: list[tuple[str, str]] = []
    size = 0
    for path, name in entries:
        length = len(path) + len(name)
        if portion and (len(portion) == _MOST_AT_ONCE or size + length > _MOST_CHARACTERS):
            yield portion
            portion, size = [], 0
        portion.append((path, name))
        size += length
    if portion:
        yield portion


def _report_nothing(done: int, total: int) -> None:
    """Ignore the progress."""


def _check_owner(owner: str) -> None:
    what = "an owner is a worker's path and incarnation, such as 'tree/worker#3'"
    if not isinstance(owner, str):
        raise TypeError(f"{what}, not {owner!r}")
    try:
        path, serial = split_owner(owner)
    except ValueError:
        path, serial = "", -1
    if not path or serial < 0:
        raise ValueError(f"{what}, not {owner!r}")
