"""What each request does, carried out in a transaction of the store that the caller commits."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

from suitkaise.errors import SnapshotError
from suitkaise.messaging import codec
from suitkaise.storage.backends.store import WriteTransaction
from suitkaise.storage.index import matches
from suitkaise.storage.keys import container_prefix, entry_key, is_below, normal_path
from suitkaise.storage.protocol import (
    WINDOW,
    Append,
    Atomic,
    ClientRecord,
    ContainerVersion,
    DeclareIndex,
    Increment,
    Move,
    Put,
    PutMode,
    Remove,
    RemoveSelected,
    Reply,
    ReplyCode,
    Restore,
    SelectionVersion,
)
from suitkaise.storage.records import (
    OWNER_MARK,
    Encoding,
    Record,
    decode_value,
    encode_value,
    encoded_value_of,
    is_indexed,
    is_plain,
    pack_metadata,
    revision_of,
)
from suitkaise.storage.snapshot import Snapshot

__all__ = ["Change", "carry_out"]

Change: TypeAlias = Put | Remove | Increment | Append | Atomic | Move | RemoveSelected | DeclareIndex | Restore
"""The requests that the store records as carried out, so that each is carried out once."""

_Outcome: TypeAlias = tuple[ReplyCode, Any]  # and the reply's detail

_EMPTY_LIST = codec.dumps([])
_LARGEST_SUM = 1 << 12  # bytes; the client reads a larger one, which might not fit into the header of a reply
_NUMBERS = (Encoding.INTEGER, Encoding.REAL)


def carry_out(transaction: WriteTransaction, client: ClientRecord, change: Change, payload: bytes) -> Reply | None:
    """Carry out one request of a client, unless it has been carried out already.

    Returns:
        The reply; None if a reply to a later request can acknowledge this one, too.
    """
    if change.request <= client.last:
        return None
    if change.owner is not None and transaction.is_dead(change.owner):
        status, detail = ReplyCode.OWNER_DEAD, None
    else:
        status, detail = _CARRY_OUT[type(change)](transaction, change, payload)
    if client.waited:  # so the client has received all earlier replies
        client.replies.clear()
    elif client.replies and client.replies[0].request <= change.request - WINDOW:
        client.replies = [kept for kept in client.replies if kept.request > change.request - WINDOW]
    client.last = change.request
    client.waited = not change.quiet
    if change.quiet and status is ReplyCode.OK:
        return None
    reply = Reply(change.request, status, transaction.revision, detail)
    client.replies.append(reply)
    return reply


def _put(transaction: WriteTransaction, change: Put, value: bytes | memoryview) -> _Outcome:
    key, long_key = entry_key(change.path, change.name)
    old = transaction.get(key)
    if change.expect is not None and change.expect != revision_of(old):
        return ReplyCode.CONFLICT, None
    if change.mode is PutMode.EXISTING and old is None:
        return ReplyCode.MISSING, None
    if change.mode is PutMode.NEW and old is not None:
        return ReplyCode.EXISTS, None
    owner, metadata, indexed = change.owner, b"", False
    if change.metadata is not None:
        if change.metadata:
            metadata = pack_metadata(change.metadata)
            indexed = change.metadata.get(OWNER_MARK) is True
    elif old is not None:
        owner, metadata, indexed = _kept(old)
    transaction.put(key, long_key, old, change.encoding, value, owner, metadata, indexed)
    return ReplyCode.OK, None


def _remove(transaction: WriteTransaction, change: Remove, _: object = None) -> _Outcome:
    key, _ = entry_key(change.path, change.name)
    old = transaction.get(key)
    if change.expect is not None and change.expect != revision_of(old):
        return ReplyCode.CONFLICT, None
    if old is None:
        return (ReplyCode.OK if change.missing_ok else ReplyCode.MISSING), None
    transaction.remove(key, old)
    return ReplyCode.OK, None


def _increment(transaction: WriteTransaction, change: Increment, _: object = None) -> _Outcome:
    key, long_key = entry_key(change.path, change.name)
    old = transaction.get(key)
    encoding, data = change.start
    if old is not None:
        encoding, data = encoded_value_of(old)
    if encoding not in _NUMBERS or change.amount[0] not in _NUMBERS:  # any other encoding would be unpickled
        return ReplyCode.NOT_A_NUMBER, None
    try:
        total = encode_value(decode_value(encoding, data) + decode_value(*change.amount))
    except OverflowError:  # the int is too large to be added to a float
        return ReplyCode.NOT_A_NUMBER, None
    _replace(transaction, key, long_key, old, *total, change.owner)
    return ReplyCode.OK, total if len(total[1]) <= _LARGEST_SUM else None


def _append(transaction: WriteTransaction, change: Append, value: bytes) -> _Outcome:
    key, long_key = entry_key(change.path, change.name)
    old = transaction.get(key)
    encoding, data = (int(Encoding.LIST), _EMPTY_LIST) if old is None else encoded_value_of(old)
    if encoding not in (Encoding.LIST, Encoding.EXTENDED_LIST):
        return ReplyCode.NOT_A_LIST, None
    _replace(transaction, key, long_key, old, Encoding.EXTENDED_LIST, data + value, change.owner)
    return ReplyCode.OK, None


def _atomic(transaction: WriteTransaction, change: Atomic, payload: bytes) -> _Outcome:
    """Check every entry and container that was read, then write: so nothing has to be undone."""
    for path, name, revision in change.entries:
        if revision_of(transaction.get(entry_key(path, name)[0])) != revision:
            return ReplyCode.CONFLICT, (path, name)
    for version in change.containers:
        if not _is_unchanged(transaction.records(container_prefix(normal_path(version.path))), version):
            return ReplyCode.CONFLICT, (version.path, "")
    for selection in change.selections:
        if not _is_unchanged(transaction.select(selection.metadata, normal_path(selection.path)), selection):
            return ReplyCode.CONFLICT, (selection.path, "")
    position = 0
    sizes = iter(change.sizes)
    values = memoryview(payload)
    for operation in change.operations:
        if isinstance(operation, Put):
            size = next(sizes)
            _put(transaction, operation, values[position : position + size])
            position += size
        else:
            _remove(transaction, operation)
    return ReplyCode.OK, None


def _move(transaction: WriteTransaction, change: Move, _: object = None) -> _Outcome:
    key, _long = entry_key(change.path, change.name)
    to_key, to_long_key = entry_key(change.to_path, change.to_name)
    old, target = transaction.get(key), transaction.get(to_key)
    if old is None:
        return ReplyCode.MISSING, None
    if key == to_key:
        return ReplyCode.OK, None
    if change.mode is PutMode.NEW and target is not None:
        return ReplyCode.EXISTS, None
    record = Record.unpack(old)
    _, value = encoded_value_of(old)
    transaction.remove(key, old)
    transaction.put(to_key, to_long_key, target, record.encoding, value, record.owner, record.metadata, record.indexed)
    return ReplyCode.OK, None


def _remove_selected(transaction: WriteTransaction, change: RemoveSelected, _: object = None) -> _Outcome:
    removed = 0
    for path, name in change.entries:
        key, _long = entry_key(path, name)
        record = transaction.get(key)
        if record is not None and matches(record, change.metadata):
            transaction.remove(key, record)
            removed += 1
    return ReplyCode.OK, removed


def _restore(transaction: WriteTransaction, change: Restore, _: object = None) -> _Outcome:
    before = transaction.revision
    restored, file = 0, os.fsdecode(change.file)
    try:
        with Snapshot(file) as snapshot:
            for seen, (entry, value) in enumerate(snapshot.entries()):
                if seen % 1000 == 0:
                    transaction.report(seen)
                if is_below(normal_path(entry.path), change.path):
                    key, long_key = entry_key(entry.path, entry.name)
                    metadata = pack_metadata(entry.metadata)
                    transaction.put(key, long_key, transaction.get(key), entry.encoding, value, entry.owner, metadata)
                    restored += 1
    except (OSError, ValueError, TypeError) as error:
        raise SnapshotError(f"nothing was restored from {file}: {error}") from error
    if change.replace:
        others = [
            key
            for key, record in transaction.select({}, change.path)
            if revision_of(record) <= before and not is_indexed(record)
        ]
        for key in others:
            if (record := transaction.get(key)) is not None:
                transaction.remove(key, record)
    return ReplyCode.OK, restored


def _declare_index(transaction: WriteTransaction, change: DeclareIndex, _: object = None) -> _Outcome:
    transaction.declare_index(change.keys)
    return ReplyCode.OK, None


def _is_unchanged(records: Iterator[tuple[bytes, bytes]], version: ContainerVersion | SelectionVersion) -> bool:
    """Compare count and highest revision: a write raises the revision, and a removal alone lowers the count."""
    count, highest = 0, 0
    for _, record in records:
        count += 1
        highest = max(highest, revision_of(record))
    return (count, highest) == (version.count, version.revision)


def _kept(old: bytes) -> tuple[str | None, bytes, bool]:
    """Return what a new value leaves as it is: owner, metadata, and whether the owner's index has the entry."""
    if is_plain(old):
        return None, b"", False
    record = Record.unpack(old)
    return record.owner, record.metadata, record.indexed


def _replace(
    transaction: WriteTransaction,
    key: bytes,
    long_key: tuple[str, str] | None,
    old: bytes | None,
    encoding: int,
    value: bytes,
    owner: str | None,
) -> None:
    """Replace the value of an entry; its owner and metadata stay."""
    if old is None:
        transaction.put(key, long_key, None, encoding, value, owner)
        return
    transaction.put(key, long_key, old, encoding, value, *_kept(old))


_CARRY_OUT: dict[type, Callable[[WriteTransaction, Any, bytes], _Outcome]] = {
    Put: _put,
    Remove: _remove,
    Increment: _increment,
    Append: _append,
    Atomic: _atomic,
    Move: _move,
    RemoveSelected: _remove_selected,
    DeclareIndex: _declare_index,
    Restore: _restore,
}
