"""Selecting entries by their metadata, with an index: which keys it holds, and how a selection uses it.

The index holds, for each entry and each of its metadata pairs with a declared key, a digest of the pair before the
entry's key. So the entries with one pair lie side by side, ordered as the entries themselves are, and a selection
below a path reads only its own part of them. The writer updates the index in the transaction that writes the entry.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import TypeAlias

from suitkaise.storage.keys import is_below, ranges_below, utf8
from suitkaise.storage.records import Metadata, head_of, metadata_of, path_and_name, unpack_metadata

__all__ = ["ALWAYS_INDEXED", "Scan", "checked_keys", "find", "index_keys", "matches", "prefixes_of"]

ALWAYS_INDEXED = ("pid", "owner", "remove_on_process_join")
"""The metadata keys that every storage indexes."""

_DIGEST = 16

Scan: TypeAlias = Callable[[bytes, bytes], Iterator[tuple[bytes, bytes]]]
"""Iterate over keys and values of a database, from the first key up to, and without, the second one."""


def checked_keys(what: str, keys: Iterable[str]) -> list[str]:
    """Return metadata keys to index; raise TypeError or ValueError if they are none. `what` names the argument."""
    found = list(keys) if isinstance(keys, Iterable) and not isinstance(keys, str | bytes) else None
    if found is None or not all(isinstance(key, str) for key in found):
        raise TypeError(f"{what} must be a list of metadata keys such as ['pid'], not {keys!r}")
    for key in found:
        utf8(key, "key of metadata")
    return found


def index_keys(metadata: bytes, declared: Collection[str], key: bytes) -> set[bytes]:
    """Return the keys of the index that belong to an entry with this key and these (packed) metadata."""
    if not metadata:
        return set()
    return {_prefix(name, value) + key for name, value in unpack_metadata(metadata).items() if name in declared}


def matches(record: bytes, wanted: Metadata) -> bool:
    """Return whether the record's metadata have all the wanted pairs."""
    if not wanted:
        return True
    packed = metadata_of(record)
    if not packed:
        return False
    metadata = unpack_metadata(packed)
    return all(name in metadata and metadata[name] == value for name, value in wanted.items())


def find(
    entries: Scan,
    index: Scan,
    get: Callable[[bytes], bytes | None],
    declared: Collection[str],
    wanted: Metadata,
    path: str,
) -> Iterator[tuple[bytes, bytes]]:
    """Iterate over keys and records of the entries at and below `path` that have the wanted metadata.

    Args:
        entries: scans the entries.
        index: scans the index.
        get: returns the record under a key.
        declared: the metadata keys that the index holds.
        wanted: the pairs that an entry must have.
        path: the container at the top; the root is "".
    """
    found: Iterator[tuple[bytes, bytes]]
    prefixes = prefixes_of(wanted, declared)
    for start, stop in ranges_below(path):
        if prefixes:
            prefix = _rarest(index, prefixes, start, stop)
            keys = (key[_DIGEST:] for key, _ in index(prefix + start, prefix + stop))
            found = ((key, record) for key in keys if (record := get(key)) is not None)
        else:
            found = entries(start, stop)
        for key, record in found:
            if matches(record, wanted) and (
                key[:1] != b"\xff" or is_below(path_and_name(bytes(key), head_of(record))[0], path)
            ):
                yield key, record


def prefixes_of(wanted: Metadata, declared: Collection[str]) -> list[bytes]:
    """Return the digests of those wanted pairs whose keys the index holds."""
    return [_prefix(name, wanted[name]) for name in declared if name in wanted]


def _rarest(index: Scan, prefixes: list[bytes], start: bytes, stop: bytes) -> bytes:
    """Return the pair with the fewest entries: all are counted side by side until the first of them ends."""
    if len(prefixes) == 1:
        return prefixes[0]
    counted = [(prefix, index(prefix + start, prefix + stop)) for prefix in prefixes]
    while True:
        for prefix, keys in counted:
            if next(keys, None) is None:
                return prefix


@functools.lru_cache(maxsize=4096)
def _prefix_of(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=_DIGEST).digest()


def _prefix(name: str, value: str | int | float | bool | None) -> bytes:
    """Return the digest of a pair; it is the same for values that are equal, such as 1, 1.0 and True."""
    if isinstance(value, bool) or (isinstance(value, float) and value.is_integer()):
        value = int(value)
    return _prefix_of(f"{name}\0{value!r}")
