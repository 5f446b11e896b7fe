"""What each request means, carried out in a transaction of the store that somebody else commits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from suitkaise.messaging import codec
from suitkaise.storage.backends.lmdb_writer import WriteTransaction
from suitkaise.storage.keys import container_prefix, entry_key, normal_path
from suitkaise.storage.protocol import (
    WINDOW,
    Append,
    Atomic,
    ClientRecord,
    ContainerVersion,
    Increment,
    Put,
    PutMode,
    Remove,
    Reply,
    ReplyCode,
)
from suitkaise.storage.records import Encoding, Record, decode_value, encode_value, pack_metadata, revision_of

__all__ = ["Change", "carry_out"]

Change: TypeAlias = Put | Remove | Increment | Append | Atomic
"""The requests that are remembered as carried out, so that each is carried out once."""

OWNER_MARK = "remove_on_process_join"
"""The metadata that binds an entry to the life of its owner."""

_Outcome: TypeAlias = tuple[ReplyCode, Any]  # and the reply's detail

_EMPTY_LIST = codec.dumps([])
_NUMBERS = (Encoding.INTEGER, Encoding.REAL)


def carry_out(batch: WriteTransaction, client: ClientRecord, change: Change, payload: bytes) -> Reply | None:
    """Carry out one request of a client, unless it has been carried out already.

    Returns:
        The reply; None if there is nothing to tell but that it was carried out, now or before.
    """
    if change.request <= client.last:
        return None
    if change.owner is not None and batch.is_dead(change.owner):
        status, detail = ReplyCode.OWNER_DEAD, None
    else:
        status, detail = _CARRY_OUT[type(change)](batch, change, payload)
    if client.waited:  # so it has all earlier replies
        client.replies.clear()
    elif client.replies and client.replies[0].request <= change.request - WINDOW:
        client.replies = [kept for kept in client.replies if kept.request > change.request - WINDOW]
    client.last = change.request
    client.waited = not change.quiet
    if change.quiet and status is ReplyCode.OK:
        return None
    reply = Reply(change.request, status, batch.revision, detail)
    client.replies.append(reply)
    return reply


def _put(batch: WriteTransaction, change: Put, value: bytes | memoryview) -> _Outcome:
    key, long_key = entry_key(change.path, change.name)
    old = batch.get(key)
    if change.expect is not None and change.expect != revision_of(old):
        return ReplyCode.CONFLICT, None
    if change.rule is PutMode.EXISTING and old is None:
        return ReplyCode.MISSING, None
    if change.rule is PutMode.NEW and old is not None:
        return ReplyCode.EXISTS, None
    owner, metadata, indexed = change.owner, b"", False
    if change.metadata is not None:
        if change.metadata:
            metadata = pack_metadata(change.metadata)
            indexed = change.metadata.get(OWNER_MARK) is True
    elif old is not None:
        record = Record.unpack(old)
        owner, metadata, indexed = record.owner, record.metadata, record.indexed
    batch.put(key, long_key, old, change.encoding, value, owner, metadata, indexed)
    return ReplyCode.OK, None


def _remove(batch: WriteTransaction, change: Remove, _: object = None) -> _Outcome:
    key, _ = entry_key(change.path, change.name)
    old = batch.get(key)
    if change.expect is not None and change.expect != revision_of(old):
        return ReplyCode.CONFLICT, None
    if old is None:
        return (ReplyCode.OK if change.missing_ok else ReplyCode.MISSING), None
    batch.remove(key, old)
    return ReplyCode.OK, None


def _increment(batch: WriteTransaction, change: Increment, _: object = None) -> _Outcome:
    key, long_key = entry_key(change.path, change.name)
    old = batch.get(key)
    encoding, data = change.start
    if old is not None:
        encoding, data = _value_of(old)
    if encoding not in _NUMBERS or change.amount[0] not in _NUMBERS:  # anything else would be unpickled
        return ReplyCode.NOT_A_NUMBER, None
    try:
        total = encode_value(decode_value(encoding, data) + decode_value(*change.amount))
    except OverflowError:  # an int that is too large for the float it meets
        return ReplyCode.NOT_A_NUMBER, None
    _replace(batch, key, long_key, old, *total, change.owner)
    return ReplyCode.OK, total


def _append(batch: WriteTransaction, change: Append, value: bytes) -> _Outcome:
    key, long_key = entry_key(change.path, change.name)
    old = batch.get(key)
    encoding, data = (int(Encoding.LIST), _EMPTY_LIST) if old is None else _value_of(old)
    if encoding not in (Encoding.LIST, Encoding.EXTENDED_LIST):
        return ReplyCode.NOT_A_LIST, None
    _replace(batch, key, long_key, old, Encoding.EXTENDED_LIST, data + value, change.owner)
    return ReplyCode.OK, None


def _atomic(batch: WriteTransaction, change: Atomic, payload: bytes) -> _Outcome:
    """First everything that was relied on is looked at, then everything is written: so nothing is undone."""
    for path, name, revision in change.entries:
        if revision_of(batch.get(entry_key(path, name)[0])) != revision:
            return ReplyCode.CONFLICT, (path, name)
    for seen in change.containers:
        if not _is_as_seen(batch, seen):
            return ReplyCode.CONFLICT, (seen.path, "")
    position = 0
    sizes = iter(change.sizes)
    values = memoryview(payload)
    for operation in change.operations:
        if isinstance(operation, Put):
            size = next(sizes)
            _put(batch, operation, values[position : position + size])
            position += size
        else:
            _remove(batch, operation)
    return ReplyCode.OK, None


def _is_as_seen(batch: WriteTransaction, seen: ContainerVersion) -> bool:
    """Every write gives a new highest revision; a removal alone lowers the count. So these two tell all."""
    count, highest = 0, 0
    for _, record in batch.records(container_prefix(normal_path(seen.path))):
        count += 1
        highest = max(highest, revision_of(record))
    return (count, highest) == (seen.count, seen.revision)


def _value_of(record: bytes) -> tuple[int, bytes]:
    unpacked = Record.unpack(record)
    return unpacked.encoding, record[unpacked.start :]


def _replace(
    batch: WriteTransaction,
    key: bytes,
    long_key: tuple[str, str] | None,
    old: bytes | None,
    encoding: int,
    value: bytes,
    owner: str | None,
) -> None:
    """Put another value in the entry, and leave it to whom it belongs."""
    if old is None:
        batch.put(key, long_key, None, encoding, value, owner)
        return
    record = Record.unpack(old)
    batch.put(key, long_key, old, encoding, value, record.owner, record.metadata, record.indexed)


_CARRY_OUT: dict[type, Callable[[WriteTransaction, Any, bytes], _Outcome]] = {
    Put: _put,
    Remove: _remove,
    Increment: _increment,
    Append: _append,
    Atomic: _atomic,
}
