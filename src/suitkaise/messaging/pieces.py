"""Large values on their way: the pickle, and the large buffers of the value (of NumPy arrays) beside it, not copied.

    0 | 3 bytes | u32 number of buffers | u64 length of the pickle | u64 lengths of the buffers | pickle | buffers

The pickle and each buffer begin at a multiple of 16. A pickle itself begins with another byte than 0.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator
from typing import TypeAlias

__all__ = ["Data", "Pieces", "in_pieces", "is_in_pieces", "split"]

Data: TypeAlias = "bytes | bytearray | memoryview"

_ALIGNMENT = 16
_HEAD = struct.Struct("<4xIQ")


class Pieces:
    """Bytes in several pieces. They are the memory of the value itself: send or copy them before it may change."""

    __slots__ = ("_size", "parts")

    def __init__(self, parts: tuple[Data, ...]) -> None:
        self.parts: tuple[Data, ...] = parts
        self._size = sum(map(len, parts))

    def __len__(self) -> int:
        return self._size

    def __bytes__(self) -> bytes:
        return b"".join(self.parts)


def in_pieces(pickle: bytes, buffers: list[memoryview]) -> Pieces:
    """Return the encoded form of a value.

    >>> data = bytearray(bytes(in_pieces(b"pickle", [memoryview(b"buffer")])))
    >>> is_in_pieces(data), [bytes(part) for part in split(data)]
    (True, [b'pickle', b'buffer'])
    """
    lengths = [len(buffer) for buffer in buffers]
    head = _HEAD.pack(len(buffers), len(pickle)) + struct.pack(f"<{len(lengths)}Q", *lengths)
    parts: list[Data] = []
    whole: tuple[Data, ...] = (head, pickle, *buffers)
    for part in whole:
        parts.append(part)
        if len(part) % _ALIGNMENT:
            parts.append(bytes(-len(part) % _ALIGNMENT))
    return Pieces(tuple(parts))


def is_in_pieces(data: Data) -> bool:
    """Return whether the data was encoded by `in_pieces`."""
    return len(data) >= _HEAD.size and data[0] == 0


def split(data: Data) -> list[memoryview]:
    """Return the pickle and the buffers in the data. Raises ValueError if it is damaged."""
    try:
        count, size = _HEAD.unpack_from(data)
        lengths = (size, *struct.unpack_from(f"<{count}Q", data, _HEAD.size))
    except struct.error as error:
        raise ValueError(f"damaged data: {error}") from None
    view = memoryview(data)
    if sum(lengths) > len(view):
        raise ValueError("damaged data: its parts are longer than the whole")
    begin = _HEAD.size + 8 * count
    return [view[start:end] for start, end in _places(begin, lengths)]


def _places(begin: int, lengths: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    ends = itertools.accumulate(lengths, lambda end, length: _aligned(end) + length, initial=begin)
    for end, length in zip(itertools.islice(ends, 1, None), lengths, strict=True):
        yield end - length, end


def _aligned(position: int) -> int:
    return position + -position % _ALIGNMENT
