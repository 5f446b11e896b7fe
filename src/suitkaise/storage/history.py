"""The latest changes of a storage, from which watchers read: each has its own position, so no queue can fill up.

A watcher that lags behind costs nothing. One that lags so far that the history does not reach back to its position
has missed changes, and is told so. Once a storage has been watched, its commits also store their changes, so that the
next incarnation of the storage actor knows what an earlier one may not have sent.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import itemgetter
from typing import NamedTuple, TypeAlias

import msgspec

__all__ = [
    "ADDED",
    "BATCHES",
    "KINDS",
    "MAX_CHANGES",
    "REMOVED",
    "UPDATED",
    "Batch",
    "Change",
    "History",
    "Logged",
    "LoggedTuple",
    "merged",
]

ADDED, UPDATED, REMOVED = range(3)
KINDS = ("added", "updated", "removed")

MAX_CHANGES = 10_000
"""How many of the latest changes are kept at least, if their names are short."""

BATCHES = 256
"""How many of the latest commits have their changes stored."""

_MAX_KEY_BYTES = 16 << 20
_MAX_BATCH = 1 << 16  # bytes


class Change(NamedTuple):
    """A change of an entry, as a watch reports it.

    `kind` is "added", "updated" or "removed"; `revision` is the entry's revision, which grows with every change
    anywhere in the storage. The kind "overflow" means that changes were missed: read everything below `path` anew;
    `name` is empty then.

    >>> Change("ui/settings", "limit", 7, "added")
    Change(path='ui/settings', name='limit', revision=7, kind='added')
    """

    path: str
    name: str
    revision: int
    kind: str


class Logged(NamedTuple):
    """A change as the storage actor keeps it: the key, and path and name if the key does not hold them in full."""

    revision: int
    kind: int
    key: bytes
    long_key: tuple[str, str] | None


LoggedTuple: TypeAlias = tuple[int, int, bytes, tuple[str, str] | None]
"""The fields of a `Logged`, which takes longer to make."""


class Batch(msgspec.Struct, array_like=True):
    """The changes of one commit, as they are stored."""

    before: int  # the revision before the commit
    after: int
    changes: list[LoggedTuple]

    def packed(self) -> bytes | None:
        """Return the batch as bytes; None if it is too large to be stored, so the history begins after it."""
        data = _encode(self)
        return data if len(data) <= _MAX_BATCH else None


class History:
    """The latest changes up to `revision`, in the order of their revisions."""

    def __init__(self, revision: int, batches: Mapping[int, bytes]) -> None:
        """Begin at a storage's present revision, with those of the stored batches (by place) that lead up to it."""
        self.revision: int = revision
        decoded = {place: _decode(batch) for place, batch in batches.items()}
        newest = max(decoded, key=lambda place: decoded[place].after, default=-1)
        self.next_place: int = (newest + 1) % BATCHES
        """The place of the next commit's changes in the ring of those that are stored."""
        self._start = revision
        self._changes: list[LoggedTuple] = []
        self._bytes = 0
        by_end = {batch.after: batch for batch in decoded.values()}
        found: list[Batch] = []
        while (batch := by_end.pop(self._start, None)) is not None:
            found.append(batch)
            self._start = batch.before
        for batch in reversed(found):
            self._changes += batch.changes

    def add(self, changes: list[LoggedTuple], revision: int) -> None:
        """Add the changes of a commit; `revision` is the storage's revision after it."""
        self.revision = revision
        self.next_place = (self.next_place + 1) % BATCHES
        self._changes += changes
        for *_, long_key in changes:
            if long_key is not None:
                self._bytes += len(long_key[0]) + len(long_key[1])
        if len(self._changes) > 2 * MAX_CHANGES or self._bytes > _MAX_KEY_BYTES:
            kept = [] if self._bytes > _MAX_KEY_BYTES else self._changes[-MAX_CHANGES:]
            self._start = kept[0][0] - 1 if kept else revision
            self._changes, self._bytes = kept, 0

    def since(self, revision: int) -> Sequence[Logged] | None:
        """Return the changes after `revision`; None if they are not known in full."""
        if not self._start <= revision <= self.revision:
            return None
        changes = self._changes
        return [Logged._make(change) for change in changes[bisect_right(changes, revision, key=itemgetter(0)) :]]


def merged(changes: Iterable[Logged], *, keep_removed: bool = False) -> list[Logged]:
    """Merge the changes of each entry into one, which has the last revision; leave out what came and went.

    With `keep_removed`, what came and went is told as removed: for who may know of it by what it has seen before.

    >>> first, second = Logged(1, ADDED, b"a", None), Logged(2, UPDATED, b"a", None)
    >>> merged([first, second, Logged(3, ADDED, b"b", None), Logged(4, REMOVED, b"b", None)])
    [Logged(revision=2, kind=0, key=b'a', long_key=None)]
    """
    by_key: dict[bytes, Logged] = {}
    new: dict[bytes, bool] = {}  # whether the entry was new with its first change
    for change in changes:
        new.setdefault(change.key, change.kind == ADDED)
        by_key.pop(change.key, None)  # the order is that of the last changes
        by_key[change.key] = change
    found = []
    for key, change in by_key.items():
        if change.kind == REMOVED:
            if keep_removed or not new[key]:
                found.append(change)
        else:
            found.append(change._replace(kind=ADDED if new[key] else UPDATED))
    return found


_encode = msgspec.msgpack.Encoder().encode
_decode: Callable[[bytes], Batch] = msgspec.msgpack.Decoder(Batch).decode
