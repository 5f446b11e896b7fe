"""How a tree changes entries, and reads what a change depends on: at once, or collected for a transaction.

`Tree` uses one interface, `Writes`. `DirectWrites` sends each change to the storage actor; while a thread is in
a transaction, its `Transaction` (in `transaction.py`) collects the changes until the end of the block. So the
methods of `Tree` are the same inside and outside of a transaction.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from suitkaise.errors import EntryNotFound
from suitkaise.messaging import codec
from suitkaise.messaging.identity import current_owner, split_owner
from suitkaise.storage.backends.lmdb_reader import NotThereYet, Reader
from suitkaise.storage.client import client_of, clients_of
from suitkaise.storage.keys import entry_key
from suitkaise.storage.listing import entry_not_found
from suitkaise.storage.pipeline import pop_background_error
from suitkaise.storage.protocol import (
    Append,
    Forget,
    Increment,
    Put,
    PutMode,
    Remove,
    Reply,
    ReplyCode,
    Request,
    error_for,
    where,
)
from suitkaise.storage.records import Metadata, decode_value, encode_value, revision_of, value_of

__all__ = ["DirectWrites", "Writes", "decoded"]


class Writes(ABC):
    """Reads and changes entries on behalf of `Tree`, which has checked paths, names and metadata.

    `metadata` of None leaves the entry's metadata as they are. The errors are those of the methods of `Tree`.
    """

    @abstractmethod
    def get(self, path: str, name: str) -> bytes | None:
        """Return the record of an entry; None if there is no such entry."""

    @abstractmethod
    def container(self, path: str) -> list[tuple[bytes, bytes]]:
        """Return the keys and records of a container."""

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
    def update(
        self, path: str, name: str, function: Callable[[Any], Any], metadata: Metadata | None, *, wait: bool
    ) -> Any:
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

    def container(self, path: str) -> list[tuple[bytes, bytes]]:
        """Read a container as it is at one moment."""
        self.wait_for_storage()
        return self._reader.container(path)

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

    def update(
        self, path: str, name: str, function: Callable[[Any], Any], metadata: Metadata | None, *, wait: bool
    ) -> Any:
        """Send the function's value; call the function again if another writer was faster."""
        if not wait:
            raise ValueError("update: wait=False needs a plain value; a function needs the outcome of the write")
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
        """Close the connections and the reader of this process; the next use opens them again."""
        for client in clients_of(self._directory):
            client.close()
        self._reader.close()

    def _ask(self, request: Request, payload: bytes) -> Reply:
        return client_of(self._directory, self._timeout).ask(request, payload)


def decoded(path: str, name: str, record: bytes) -> Any:
    """Decode the value in a record; a note on the error names the entry."""
    try:
        return value_of(record)
    except Exception as error:
        error.add_note(f"while decoding the value of {where(name, path)}")
        raise


def _check_owner(owner: str) -> None:
    try:
        path, serial = split_owner(owner)
    except ValueError:
        path, serial = "", -1
    if not path or serial < 0:
        raise ValueError(f"an owner is a worker's path and incarnation, such as 'tree/worker#3', not {owner!r}")
