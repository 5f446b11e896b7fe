"""What each request means, carried out in a transaction of the store that somebody else commits."""

from __future__ import annotations

from typing import TypeAlias

from suitkaise.messaging import codec
from suitkaise.storage.protocol import (
    WINDOW,
    Append,
    Atomic,
    Client,
    Increment,
    Put,
    Remove,
    Reply,
    Rule,
    Seen,
    Status,
)
from suitkaise.storage.records import (
    Encoding,
    Record,
    container_prefix,
    decode_value,
    encode_value,
    entry_key,
    normal_path,
    pack_metadata,
    revision_of,
)
from suitkaise.storage.store import Batch

__all__ = ["Change", "carry_out"]

Change: TypeAlias = Put | Remove | Increment | Append | Atomic
"""The requests that are remembered as carried out, so that each is carried out once."""

OWNER_MARK = "remove_on_process_join"
"""The metadata that binds an entry to the life of its owner."""

_EMPTY_LIST = codec.dumps([])
_NUMBERS = (Encoding.INTEGER, Encoding.REAL)


def carry_out(batch: Batch, client: Client, change: Change, payload: bytes) -> Reply | None:
    """Carry out one request of a client, unless it has been carried out already.

    Returns:
        The reply; None for one that was carried out before.
    """
    if change.request <= client.last:
        return None
    if change.owner is not None and batch.is_dead(change.owner):
        reply = Reply(change.request, Status.OWNER_DEAD, batch.revision)
    else:
        reply = _apply(batch, change, payload)
    _remember(client, change, reply)
    return reply


def _remember(client: Client, change: Change, reply: Reply) -> None:
    if client.waited:
        client.replies.clear()
    elif client.replies and client.replies[0].request <= change.request - WINDOW:
        client.replies = [kept for kept in client.replies if kept.request > change.request - WINDOW]
    client.last = change.request
    client.waited = not change.quiet
    if client.waited or reply.status is not Status.OK:
        client.replies.append(reply)


def _apply(batch: Batch, change: Change, payload: bytes) -> Reply:
    match change:
        case Put():
            status = _put(batch, change, payload)
        case Remove():
            status = _remove(batch, change)
        case Increment():
            return _increment(batch, change)
        case Append():
            status = _append(batch, change, payload)
        case Atomic():
            return _atomic(batch, change, payload)
    return Reply(change.request, status, batch.revision)


def _put(batch: Batch, change: Put, value: bytes | memoryview) -> Status:
    key, long_key = entry_key(change.path, change.name)
    old = batch.get(key)
    if change.expect is not None and change.expect != revision_of(old):
        return Status.CONFLICT
    if change.rule is Rule.EXISTING and old is None:
        return Status.MISSING
    if change.rule is Rule.NEW and old is not None:
        return Status.EXISTS
    owner, metadata, indexed = change.owner, b"", False
    if change.metadata is not None:
        metadata = pack_metadata(change.metadata)
        indexed = change.metadata.get(OWNER_MARK) is True
    elif old is not None:
        record = Record.unpack(old)
        owner, metadata, indexed = record.owner, record.metadata, record.indexed
    batch.put(key, long_key, old, change.encoding, value, owner=owner, metadata=metadata, indexed=indexed)
    return Status.OK


def _remove(batch: Batch, change: Remove) -> Status:
    key, _ = entry_key(change.path, change.name)
    old = batch.get(key)
    if change.expect is not None and change.expect != revision_of(old):
        return Status.CONFLICT
    if old is None:
        return Status.OK if change.missing_ok else Status.MISSING
    batch.remove(key, old)
    return Status.OK


def _increment(batch: Batch, change: Increment) -> Reply:
    key, long_key = entry_key(change.path, change.name)
    old = batch.get(key)
    encoding, data = change.start
    if old is not None:
        encoding, data = _value_of(old)
    if encoding not in _NUMBERS:
        return Reply(change.request, Status.NOT_A_NUMBER, batch.revision)
    try:
        total = encode_value(decode_value(encoding, data) + decode_value(*change.amount))
    except OverflowError:  # an int that is too large for the float it meets
        return Reply(change.request, Status.NOT_A_NUMBER, batch.revision)
    _replace(batch, key, long_key, old, *total, owner=change.owner)
    return Reply(change.request, Status.OK, batch.revision, total)


def _append(batch: Batch, change: Append, value: bytes) -> Status:
    key, long_key = entry_key(change.path, change.name)
    old = batch.get(key)
    encoding, data = (int(Encoding.LIST), _EMPTY_LIST) if old is None else _value_of(old)
    if encoding not in (Encoding.LIST, Encoding.EXTENDED_LIST):
        return Status.NOT_A_LIST
    _replace(batch, key, long_key, old, Encoding.EXTENDED_LIST, data + value, owner=change.owner)
    return Status.OK


def _atomic(batch: Batch, change: Atomic, payload: bytes) -> Reply:
    """First everything that was relied on is looked at, then everything is written: so nothing is undone."""
    for path, name, revision in change.entries:
        if revision_of(batch.get(entry_key(path, name)[0])) != revision:
            return Reply(change.request, Status.CONFLICT, batch.revision, (path, name))
    for seen in change.containers:
        if not _is_as_seen(batch, seen):
            return Reply(change.request, Status.CONFLICT, batch.revision, (seen.path, ""))
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
    return Reply(change.request, Status.OK, batch.revision)


def _is_as_seen(batch: Batch, seen: Seen) -> bool:
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
    batch: Batch,
    key: bytes,
    long_key: tuple[str, str] | None,
    old: bytes | None,
    encoding: int,
    value: bytes,
    *,
    owner: str | None,
) -> None:
    """Put another value in the entry, and leave it to whom it belongs."""
    if old is None:
        batch.put(key, long_key, None, encoding, value, owner=owner, metadata=b"", indexed=False)
        return
    record = Record.unpack(old)
    batch.put(
        key,
        long_key,
        old,
        encoding,
        value,
        owner=record.owner,
        metadata=record.metadata,
        indexed=record.indexed,
    )
