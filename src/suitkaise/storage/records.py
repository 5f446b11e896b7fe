"""The record of an entry in the store, and the encoding of its value.

A record is a fixed head, then owner, metadata, path and name if the key does not hold them in full, and the value. At
the end stands the CRC-32 of all that, so that damage of a file is an error and never a wrong value. The CRC-32 of any
bytes that end with their own CRC-32 is the same number, so the check of a whole record takes one call.

The storage actor reads the head and never decodes a value: the encoding byte marks the numbers that it may add to and
the lists that it may append to.
"""

from __future__ import annotations

import enum
import io
import itertools
import pickle
import struct
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias, TypeVar
from zlib import crc32

import msgspec

from suitkaise.errors import StorageDamaged
from suitkaise.messaging import codec
from suitkaise.storage.keys import unpack_key, utf8

__all__ = [
    "OWNER_MARK",
    "Encoding",
    "Entry",
    "Metadata",
    "Record",
    "check_metadata",
    "checked",
    "damage_of",
    "decode_value",
    "encode_value",
    "encoded_value_of",
    "has_large_buffers",
    "head_of",
    "intact",
    "is_indexed",
    "is_plain",
    "metadata_of",
    "pack_metadata",
    "pack_record",
    "path_and_name",
    "revision_of",
    "unpack_metadata",
    "value_of",
]

Scalar: TypeAlias = str | int | float | bool | None
Metadata: TypeAlias = dict[str, Scalar]

OWNER_MARK = "remove_on_process_join"
"""The metadata that has an entry removed when its owner has ended."""

Buffer = TypeVar("Buffer", bytes, memoryview)

_INDEXED = 1
_WITHOUT_BUFFERS = frozenset({type(None), bool, complex, str, bytes, bytearray, list})

# Revision, time, where the value starts, lengths of metadata, path and owner, encoding, flags.
_HEAD = struct.Struct("<QdIIIHBB")
_START_AT, _METADATA_AT = 16, 20
_FLAGS_AT = _HEAD.size - 1
_START = slice(_START_AT, _START_AT + 4)
_CHECKSUM = struct.Struct("<I")
_TAIL = _CHECKSUM.size
_SOUND = 0x2144DF1C
"""The CRC-32 of any bytes that end with their own CRC-32."""
_PLAIN = _HEAD.size.to_bytes(4, "little")
_REVISION = struct.Struct("<Q")
_READ_VALUE = struct.Struct("<I10xB")
_READ_METADATA = struct.Struct("<I4xH")
_REAL = struct.Struct("<d")
_SMALL, _LARGE = 1 << 12, 1 << 16  # bytes
_COUNT = struct.Struct("<Q")
_encode_metadata = msgspec.msgpack.Encoder().encode
unpack_metadata: Callable[[bytes], Metadata] = msgspec.msgpack.Decoder(dict[str, Scalar]).decode
"""Decode metadata that `pack_metadata` encoded."""


class Encoding(enum.IntEnum):
    """The encoding of a value. The storage actor adds to numbers and appends to lists; other values are opaque."""

    PICKLE = 0
    INTEGER = 1
    REAL = 2
    LIST = 3
    EXTENDED_LIST = 4  # a list, then the values that were appended to it, each encoded by itself
    APART = 5  # a pickle, and the large buffers of the value behind it


class Entry(NamedTuple):
    """The facts about an entry, without its value.

    `time` is the time of the last write (seconds since the epoch), `size` the size of the encoded value in bytes,
    `owner` the worker's incarnation that added it, `revision` a number that grows with every write anywhere
    in the storage.
    """

    path: str
    name: str
    revision: int
    owner: str | None
    time: float
    size: int
    metadata: Metadata

    def _repr_html_(self) -> str:
        from suitkaise.storage.html import html_of_entries  # for notebooks alone

        return html_of_entries("", [self])


class Record(NamedTuple):
    """The fields of a record. The value's bytes begin at `start`."""

    revision: int
    time: float
    start: int
    encoding: int
    indexed: bool
    owner: str | None
    metadata: bytes
    long_key: tuple[str, str] | None

    @classmethod
    def unpack(cls, data: bytes) -> Record:
        """Unpack a record, except its value."""
        revision, time, start, metadata_length, path_length, owner_length, encoding, flags = _HEAD.unpack_from(data)
        owner_end = _HEAD.size + owner_length
        metadata_end = owner_end + metadata_length
        path_end = metadata_end + path_length
        return cls(
            revision,
            time,
            start,
            encoding,
            bool(flags & _INDEXED),
            data[_HEAD.size : owner_end].decode() if owner_length else None,
            data[owner_end:metadata_end],
            (data[metadata_end:path_end].decode(), data[path_end:start].decode()) if start > metadata_end else None,
        )

    def entry(self, key: bytes, size: int) -> Entry:
        """Return the facts for users; `size` is the length of the whole record in bytes."""
        path, name = self.long_key or unpack_key(key)
        metadata = unpack_metadata(self.metadata) if self.metadata else {}
        return Entry(path, name, self.revision, self.owner, self.time, size - self.start - _TAIL, metadata)


def pack_record(
    revision: int,
    time: float,
    encoding: int,
    value: bytes | memoryview,
    owner: str | None = None,
    metadata: bytes = b"",
    indexed: bool = False,
    long_key: tuple[str, str] | None = None,
) -> bytes:
    """Pack a record. `long_key` is the path and the name if the key does not hold them in full."""
    if not (owner or metadata or long_key):
        head = _HEAD.pack(revision, time, _HEAD.size, 0, 0, 0, encoding, 0)
        return b"".join((head, value, _CHECKSUM.pack(crc32(value, crc32(head)))))
    owner_bytes = owner.encode() if owner else b""
    path, name = (part.encode() for part in long_key) if long_key else (b"", b"")
    start = _HEAD.size + len(owner_bytes) + len(metadata) + len(path) + len(name)
    lengths = (len(metadata), len(path), len(owner_bytes))
    head = _HEAD.pack(revision, time, start, *lengths, encoding, _INDEXED if indexed else 0)
    head = b"".join((head, owner_bytes, metadata, path, name))
    return b"".join((head, value, _CHECKSUM.pack(crc32(value, crc32(head)))))


def intact(record: Any) -> bool:
    """Return whether the record is what was stored."""
    return crc32(record) == _SOUND


def checked(key: bytes, record: bytes) -> bytes:
    """Return the record of an entry; raise StorageDamaged if it is not what was stored."""
    if not intact(record):
        raise damage_of(*(unpack_key(key) if key[:1] != b"\xff" else ("", "an entry with a long name")))
    return record


def damage_of(path: str, name: str) -> StorageDamaged:
    """Make the error about a damaged record."""
    return StorageDamaged(
        f"{name!r} in {repr(path) if path else 'the root'} is damaged: its checksum does not fit; "
        "tree.restore(file) brings back what tree.snapshot(file) has saved",
        path=path,
    )


def path_and_name(key: bytes, record: bytes) -> tuple[str, str]:
    """Return the path and the name of an entry."""
    return Record.unpack(record).long_key or unpack_key(key)


def revision_of(record: bytes | None) -> int:
    """Return the revision of a record; 0 for None."""
    return 0 if record is None else int(_REVISION.unpack_from(record)[0])


def is_indexed(record: bytes) -> bool:
    """Return whether the entry is in the index of the entries that their owners marked."""
    return bool(record[_FLAGS_AT] & _INDEXED)


def head_of(record: bytes) -> bytes:
    """Return a record without its value."""
    return bytes(record[: _READ_VALUE.unpack_from(record, _START_AT)[0]])


def is_plain(record: bytes) -> bool:
    """Return whether the record has neither owner nor metadata nor long key, as most have."""
    return record[_START] == _PLAIN


def encoded_value_of(record: Buffer) -> tuple[int, Buffer]:
    """Return the encoding and the bytes of the value in a record."""
    start, encoding = _READ_VALUE.unpack_from(record, _START_AT)
    return encoding, record[start:-_TAIL]


def metadata_of(record: bytes) -> bytes:
    """Return the encoded metadata of a record; no bytes if it has none."""
    length, owner_length = _READ_METADATA.unpack_from(record, _METADATA_AT)
    start = _HEAD.size + owner_length
    return bytes(record[start : start + length]) if length else b""


def has_large_buffers(record: bytes | bytearray) -> bool:
    """Return whether it pays to read the record into a bytearray, which `value_of` need not copy."""
    return len(record) >= _LARGE and _READ_VALUE.unpack_from(record, _START_AT)[1] == Encoding.APART


def value_of(record: bytes | bytearray) -> Any:
    """Decode the value in a record. The buffers of the value are those of a bytearray, and copies of those of bytes."""
    start, encoding = _READ_VALUE.unpack_from(record, _START_AT)
    if encoding == Encoding.PICKLE or encoding == Encoding.LIST:
        return codec.loads(record[start:-_TAIL] if len(record) < _SMALL else memoryview(record)[start:-_TAIL])
    if encoding == Encoding.APART:
        return _taken_apart(memoryview(record)[start:-_TAIL])
    return decode_value(encoding, bytes(record[start:-_TAIL]))


def encode_value(value: object) -> tuple[int, bytes]:
    r"""Encode a value for the store.

    Raises:
        NotSerializable: the value cannot be stored; the message names the path to the culprit.

    >>> encode_value(258)
    (1, b'\x02\x01')
    """
    kind = type(value)
    if kind is int:
        assert isinstance(value, int)
        return 1, value.to_bytes((value.bit_length() + 8) // 8, "little", signed=True)
    if kind is float:
        return 2, _REAL.pack(value)
    if kind in _WITHOUT_BUFFERS:  # a list stays in one piece, so that the storage actor can append to it
        return 3 if kind is list else 0, codec.dumps(value)
    data, buffers = codec.dumps_apart(value)
    return (Encoding.APART, _joined(data, buffers)) if buffers else (0, data)


def _joined(data: bytes, buffers: list[memoryview]) -> bytes:
    """Put the lengths, the pickle and the buffers into one piece: the only copy of the buffers at a write."""
    lengths = (len(data), *map(len, buffers))
    return b"".join((_COUNT.pack(len(lengths)), struct.pack(f"<{len(lengths)}Q", *lengths), data, *buffers))


def _taken_apart(joined: memoryview) -> Any:
    """Decode the value of what `_joined` made. The value belongs to the caller, so memory that is shared is copied."""
    (count,) = _COUNT.unpack_from(joined)
    lengths = struct.unpack_from(f"<{count}Q", joined, _COUNT.size)
    ends = list(itertools.accumulate(lengths, initial=_COUNT.size + 8 * count))
    data, *buffers = (joined[start:end] for start, end in itertools.pairwise(ends))
    return codec.loads_apart(data, [bytearray(buffer) for buffer in buffers] if joined.readonly else buffers)


def decode_value(encoding: int, data: bytes) -> Any:
    """Decode a value that `encode_value` encoded."""
    match encoding:
        case Encoding.INTEGER:
            return int.from_bytes(data, "little", signed=True)
        case Encoding.REAL:
            return _REAL.unpack(data)[0]
        case Encoding.EXTENDED_LIST:
            file = io.BytesIO(data)
            values: list[Any] = pickle.load(file)
            while file.tell() < len(data):
                values.append(pickle.load(file))
            return values
        case Encoding.APART:
            return _taken_apart(memoryview(data))
        case _:
            return codec.loads(data)


def check_metadata(metadata: Mapping[str, object]) -> Metadata:
    """Check metadata, and return them as they are stored: a dict of plain scalars.

    Raises:
        TypeError: a key is not a str or a value is not a scalar; or the mark of an owner is not a bool.
        ValueError: an int is beyond 64 bits, or a text has a lone surrogate.
    """
    if not isinstance(metadata, Mapping):
        raise TypeError(f"metadata must be a dict of scalars, not {type(metadata).__name__}: {metadata!r}")
    for key, value in metadata.items():
        if type(key) is not str:
            raise TypeError(f"metadata: a key must be a str, not {type(key).__name__}: {key!r}")
        utf8(key, "key of metadata")
        if key == OWNER_MARK and not isinstance(value, bool):
            raise TypeError(f"metadata[{key!r}] must be True or False, not {value!r}")
        if value is not None and not isinstance(value, str | int | float):
            raise TypeError(
                f"metadata[{key!r}] must be a str, int, float, bool or None, not {type(value).__name__}; "
                "put anything else in the value"
            )
        if isinstance(value, int) and not -(2**63) <= value < 2**64:
            raise ValueError(f"metadata[{key!r}] must fit into 64 bits; put {value!r} in the value")
        if isinstance(value, str):
            utf8(value, f"str in metadata[{key!r}]")
    return {key: _plain(value) for key, value in metadata.items()}


def pack_metadata(metadata: Metadata) -> bytes:
    """Encode metadata; no bytes if there are none."""
    return _encode_metadata(metadata) if metadata else b""


def _plain(value: Any) -> Scalar:
    """Strip a scalar of its subclass, such as an enum's or NumPy's."""
    match value:
        case None | bool():
            return value
        case str():
            return str.__str__(value)
        case int():
            return int(value)
        case _:
            return float(value)
