"""Changes that depend on what is there, which the storage actor itself decides or computes, exactly once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from suitkaise.errors import NotBuiltYet, StorageError
from suitkaise.messaging import codec
from suitkaise.messaging.identity import current_owner
from suitkaise.storage.caller_path import caller_path
from suitkaise.storage.client import client_of
from suitkaise.storage.handle import Handle, checked
from suitkaise.storage.protocol import Append, Increment, Put, PutMode, ReplyCode
from suitkaise.storage.records import check_metadata, decode_value, encode_value
from suitkaise.storage.refusals import error_for, where

__all__ = ["Accumulate"]


class Accumulate(Handle):
    """The part of the tree's handle for counters, lists, defaults and compare-and-set."""

    def increment(
        self, name: str, amount: float = 1, path: str | None = None, *, start: float = 0, wait: bool = True
    ) -> Any:
        """Add to a number, exactly once even if the storage actor dies meanwhile.

        Args:
            name: the entry's name; if there is none, it is made.
            amount: an int or a float, negative to subtract.
            path: its container; the root is "".
            start: what an entry that is made begins with, before `amount` is added.
            wait: until it is stored.

        Returns:
            The new number; None with `wait=False`.

        Raises:
            StorageError: the entry holds no number.

        >>> from suitkaise import sktree
        >>> tree = sktree.connect()
        >>> tree.increment("hits", path="doc/counters"), tree.increment("hits", 4, path="doc/counters")
        (1, 5)
        >>> sktree.disconnect()
        """
        path = checked(caller_path() if path is None else path, name)
        amount, start = _number("amount", amount, path, name), _number("start", start, path, name)
        transaction = self._slot.current
        if transaction is None:
            request = Increment(0, False, path, name, encode_value(amount), encode_value(start), current_owner())
            reply = self._send(request, wait=wait)
            if reply is None:
                return None
            return self._value(path, name) if reply.detail is None else decode_value(*reply.detail)
        record = transaction.get(path, name)
        old = start if record is None else self._decode(path, name, record)
        if type(old) not in (int, float):
            raise StorageError(f"{where(name, path)} is not an int or float that can be added to", path=path)
        transaction.put(path, name, *encode_value(old + amount), metadata=None)
        return old + amount

    def append(self, name: str, item: object, path: str | None = None, *, wait: bool = True) -> None:
        """Append an item to a list, exactly once even if the storage actor dies meanwhile.

        It takes time in proportion to the length of the list, so it is for short ones.

        Args:
            name: the entry's name; if there is none, a list is made.
            item: anything that can be sent to another process.
            path: the list's container; the root is "".
            wait: until it is stored.

        Raises:
            StorageError: the entry holds no list.

        >>> from suitkaise import sktree
        >>> tree = sktree.connect()
        >>> tree.append("log", "began", path="doc/lists")
        >>> tree.append("log", "ended", path="doc/lists")
        >>> tree.get("log", path="doc/lists")
        ['began', 'ended']
        >>> sktree.disconnect()
        """
        path = checked(caller_path() if path is None else path, name)
        transaction = self._slot.current
        if transaction is None:
            payload = codec.dumps(item, root="item")
            self._send(Append(0, False, path, name, current_owner()), payload, wait=wait)
            return
        record = transaction.get(path, name)
        items = [] if record is None else self._decode(path, name, record)
        if type(items) is not list:
            raise StorageError(f"{where(name, path)} is not a list, so nothing can be appended to it", path=path)
        transaction.put(path, name, *encode_value([*items, item]), metadata=None)

    def setdefault(
        self,
        name: str,
        value: object,
        path: str | None = None,
        metadata: Mapping[str, object] | None = None,
    ) -> Any:
        """The value of an entry, which is made with `value` if there is none.

        Args:
            name: the entry's name.
            value: what to store if there is no such entry.
            path: its container; the root is "".
            metadata: of the entry that is made, as for `add`.
        """
        path = checked(caller_path() if path is None else path, name)
        facts = check_metadata(metadata) if metadata else {}
        encoding, payload = encode_value(value)
        transaction = self._slot.current
        while True:
            record = self._record(path, name)
            if record is not None:
                return self._decode(path, name, record)
            if transaction is not None:
                transaction.put(path, name, encoding, payload, metadata=facts)
                return decode_value(encoding, payload)
            put = Put(0, False, path, name, encoding, PutMode.NEW, None, facts, current_owner())
            reply = client_of(self._home, self.timeout).ask(put, payload)
            if reply.status is ReplyCode.OK:
                return decode_value(encoding, payload)
            if reply.status is not ReplyCode.EXISTS:
                raise error_for(put, reply)

    def compare_and_set(
        self,
        name: str,
        revision: int,
        value: object,
        path: str | None = None,
        metadata: Mapping[str, object] | None = None,
    ) -> bool:
        """Store a value if the entry still has the revision that `revision` told.

        Args:
            name: the entry's name.
            revision: the revision that it must have; 0: there must be no such entry.
            value: anything that can be sent to another process.
            path: its container; the root is "".
            metadata: what takes the place of the entry's metadata; None: the entry keeps its own.

        Returns:
            Whether it was stored.

        >>> from suitkaise import sktree
        >>> tree = sktree.connect()
        >>> tree.compare_and_set("limit", 0, 10, path="doc/compare")
        True
        >>> tree.compare_and_set("limit", 0, 11, path="doc/compare")
        False
        >>> sktree.disconnect()
        """
        path = checked(caller_path() if path is None else path, name)
        if not isinstance(revision, int) or revision < 0:
            raise ValueError(f"compare_and_set: a revision is an int >= 0, as `revision` returns it, not {revision!r}")
        if self._slot.current is not None:
            raise NotBuiltYet("compare_and_set inside of a transaction, which compares by itself at its end")
        facts = None if metadata is None else check_metadata(metadata)
        encoding, payload = encode_value(value)
        put = Put(0, False, path, name, encoding, PutMode.ANY, revision, facts, current_owner())
        reply = client_of(self._home, self.timeout).ask(put, payload)
        if reply.status not in (ReplyCode.OK, ReplyCode.CONFLICT):
            raise error_for(put, reply)
        return reply.status is ReplyCode.OK

    def _value(self, path: str, name: str) -> Any:
        record = self._record(path, name)
        if record is None:
            raise self._not_found(path, name)
        return self._decode(path, name, record)


def _number(what: str, value: Any, path: str, name: str) -> Any:
    """An int or float without the subclass that it may be of, such as NumPy's."""
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    raise TypeError(f"increment of {where(name, path)}: {what} must be an int or a float, not {value!r}")
