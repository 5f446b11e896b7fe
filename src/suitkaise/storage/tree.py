"""The tree of named values that every process and thread of a program shares: the handle that users hold.

Reading looks into the shared memory map; writing asks the storage actor, which acknowledges what is committed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from suitkaise.errors import EntryExists, EntryNotFound
from suitkaise.messaging.identity import current_owner
from suitkaise.storage.accumulate import Accumulate
from suitkaise.storage.caller_path import caller_path
from suitkaise.storage.client import client_of
from suitkaise.storage.handle import checked
from suitkaise.storage.listing import Listing
from suitkaise.storage.protocol import Put, PutMode, Remove, ReplyCode
from suitkaise.storage.records import Metadata, check_metadata, encode_value, revision_of
from suitkaise.storage.refusals import error_for, where
from suitkaise.storage.unbuilt import Unbuilt

__all__ = ["Tree"]

_NOTHING: Any = type("_Nothing", (), {"__repr__": lambda _: "<no default>", "__slots__": ()})()
_UNCHANGING = frozenset({type(None), bool, int, float, complex, str, bytes})
_MOST_CACHED = 4096


class Tree(Listing, Accumulate, Unbuilt):
    """A tree of named values. Entries lie in containers, which follow the project's folders and files.

    The same handle works in every thread; a copy of it, pickled or forked, in every process. Where `path` is
    left out it is that of the caller's file, relative to the project's root and without its suffix. A write
    that returned is seen by every later read in any process. With `wait=False` a write returns at once and
    `flush` waits for it. In a `transaction` all writes wait for its end.

    Args:
        directory: the storage's directory.
        timeout: how many seconds a write may take, restarts of the storage actor included; `math.inf`: any time.

    >>> from suitkaise import sktree
    >>> tree = sktree.connect()
    >>> tree.add("limit", 10, path="doc/settings")
    >>> tree.get("limit", path="doc/settings")
    10
    >>> tree.update("limit", lambda limit: limit + 1, path="doc/settings")
    11
    >>> tree.remove("limit", path="doc/settings")
    >>> tree.get("limit", path="doc/settings", default="gone")
    'gone'
    >>> sktree.disconnect()
    """

    def get(self, name: str, path: str | None = None, default: Any = _NOTHING) -> Any:
        """The value of an entry, read from memory. Each call gives a copy of its own.

        Args:
            name: the entry's name.
            path: its container; the root is "".
            default: what to return if there is no such entry.

        Raises:
            EntryNotFound: there is no such entry and no default; also a `KeyError`.
        """
        if path is None:
            path = caller_path()
        word = 1
        if self._slot.current is None:
            try:
                word = self._words[0]
                kept = self._cache.get((path, name))
                if kept is not None and kept[0] == word:
                    return kept[1]
            except (TypeError, ValueError):  # not mapped yet or any more; or a name that is no name at all
                checked(path, name)
                word = self._open_words()
        record = self._record(path, name)
        if record is None:
            if default is _NOTHING:
                raise self._not_found(path, name)
            return default
        value = self._decode(path, name, record)
        if type(value) in _UNCHANGING and not word & 1:
            if len(self._cache) >= _MOST_CACHED:
                self._cache.clear()
            self._cache[path, name] = word, value
        return value

    def add(
        self,
        name: str,
        value: object,
        path: str | None = None,
        metadata: Mapping[str, object] | None = None,
        *,
        exist_ok: bool = True,
        wait: bool = True,
    ) -> None:
        """Store a value under a name. What was there under that name is replaced.

        Args:
            name: the entry's name, not empty.
            value: anything that can be sent to another process.
            path: its container, made as needed; the root is "".
            metadata: scalars that describe the entry. `remove_on_process_join: True` means that the entry
                goes when the worker that adds it is over, whichever way it ended.
            exist_ok: whether an entry of that name may be there already.
            wait: until it is stored.

        Raises:
            EntryExists: with `exist_ok=False`, if the name is taken.
            NotSerializable: the value cannot be sent; the message names the path to the culprit.
            OwnerDead: the worker's incarnation that calls this is over already.
            StorageError: it could not be stored.
        """
        path = checked(caller_path() if path is None else path, name)
        facts = check_metadata(metadata) if metadata is not None else {}
        encoding, payload = encode_value(value)
        transaction = self._slot.current
        if transaction is None:
            rule = PutMode.ANY if exist_ok else PutMode.NEW
            put = Put(0, False, path, name, encoding, rule, None, facts, current_owner())
            self._send(put, payload, wait=wait)
            return
        if not exist_ok and transaction.get(path, name) is not None:
            raise EntryExists(f"{where(name, path)} exists already", path=path)
        transaction.put(path, name, encoding, payload, metadata=facts)

    def add_to_root(
        self,
        name: str,
        value: object,
        metadata: Mapping[str, object] | None = None,
        *,
        exist_ok: bool = True,
        wait: bool = True,
    ) -> None:
        """Store a value in the root of the tree; otherwise like `add`."""
        self.add(name, value, "", metadata, exist_ok=exist_ok, wait=wait)

    def update(
        self,
        name: str,
        value: Any,
        path: str | None = None,
        metadata: Mapping[str, object] | None = None,
        *,
        wait: bool = True,
    ) -> Any:
        """Give an entry that exists another value.

        Args:
            name: the entry's name.
            value: the value; or a function that makes it of the old one. The function may be called several
                times, if others write at the same time, so it must do nothing else. (To store a function
                itself, use `add`.)
            path: its container; the root is "".
            metadata: what takes the place of the entry's metadata; None: the entry keeps its own.
            wait: until it is stored; must be True with a function.

        Returns:
            The new value.

        Raises:
            EntryNotFound: there is no such entry; also a `KeyError`.
            TransactionConflict: others changed the entry all the time, until the time-out.
            NotSerializable, OwnerDead, StorageError: as for `add`.
        """
        path = checked(caller_path() if path is None else path, name)
        facts = None if metadata is None else check_metadata(metadata)
        if callable(value) or self._slot.current is not None:
            if not wait and self._slot.current is None:
                raise ValueError("update: wait=False is for plain values; a function has to see the outcome")
            return self._update_by(value if callable(value) else lambda _: value, path, name, facts)
        encoding, payload = encode_value(value)
        put = Put(0, False, path, name, encoding, PutMode.EXISTING, None, facts, current_owner())
        try:
            self._send(put, payload, wait=wait)
        except EntryNotFound:
            raise self._not_found(path, name) from None
        return value

    def _update_by(self, function: Callable[[Any], Any], path: str, name: str, metadata: Metadata | None) -> Any:
        deadline = time.monotonic() + self.timeout
        while True:
            record = self._record(path, name)
            if record is None:
                raise self._not_found(path, name)
            value = function(self._decode(path, name, record))
            encoding, payload = encode_value(value)
            if self._slot.current is not None:
                self._slot.current.put(path, name, encoding, payload, metadata=metadata)
                return value
            expect = revision_of(record)
            put = Put(0, False, path, name, encoding, PutMode.ANY, expect, metadata, current_owner())
            reply = client_of(self._home, self.timeout).ask(put, payload)
            if reply.status is ReplyCode.OK:
                return value
            if reply.status is not ReplyCode.CONFLICT or time.monotonic() >= deadline:
                raise error_for(put, reply)

    def remove(self, name: str, path: str | None = None, *, missing_ok: bool = False, wait: bool = True) -> None:
        """Remove an entry.

        Args:
            name: the entry's name.
            path: its container; the root is "".
            missing_ok: whether there may be no such entry.
            wait: until it is gone.

        Raises:
            EntryNotFound: there is no such entry; also a `KeyError`.
        """
        path = checked(caller_path() if path is None else path, name)
        transaction = self._slot.current
        try:
            if transaction is None:
                self._send(Remove(0, False, path, name, missing_ok, None, current_owner()), wait=wait)
            elif missing_ok or transaction.get(path, name) is not None:
                transaction.remove(path, name)
            else:
                raise EntryNotFound
        except EntryNotFound:
            raise self._not_found(path, name) from None
