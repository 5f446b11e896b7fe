"""Tables of bundles: what a message's classes of `__main__` are, in front of its pickle, once for each connection.

    1 | whether it holds a bundle | u16 bytes of padding | u32 where the rest begins | table | padding | the rest

The table is a msgpack list of keys and bundles. An empty bundle stands for one that both ends of the connection have,
since it has come over it before, in one direction or the other. The rest, which begins at a multiple of 16, is what a
message without a table consists of: a pickle, or pieces.

A message may leave a connection by another one: its receiver ends, so it is sent to the next incarnation; or the hub
passes it on. So each connection has a `Known`, which fills in what is missing for this one, and leaves out what is not.
"""

from __future__ import annotations

import contextlib
import struct
from typing import Any, TypeVar, cast

import msgspec

from suitkaise.messaging import bundles
from suitkaise.messaging.pieces import Data, Pieces

__all__ = ["NOTHING", "Known", "behind_table", "has_table", "keys_in", "opened", "with_table"]

D = TypeVar("D", bound="Data | Pieces")

_HEAD = struct.Struct("<B?HI")
_ALIGNMENT = 16
_TABLE = b"\1"
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[tuple[str, bytes]]).decode


class Known(set[str]):
    """The keys of the definitions that both ends of one connection have.

    Damaged data is passed on as it is, and is an error where it is decoded: who passes it on has no fault in it.
    """

    def for_peer(self, data: D) -> D:
        """Return data with the bundles that the other end needs in its table, if it has one, and no others."""
        if not has_table(data):
            return data
        try:
            entries, rest = _entries(data), _rest(data)
        except ValueError:
            return data
        needed = [(key, b"" if key in self else bundle or bundles.bundle_with(key)) for key, bundle in entries]
        if needed == entries:
            return data
        return cast("D", _joined(needed, rest))

    def note_sent(self, data: Data | Pieces) -> None:
        """Take note that data was sent, or is queued: what is sent from now on comes behind it."""
        if (data if type(data) is bytes else _first(data))[:1] == _TABLE and _holds_bundles(data):
            with contextlib.suppress(ValueError):
                self.update(key for key, bundle in _entries(data) if bundle)

    def note_arrived(self, data: Data) -> None:
        """Take note of the bundles in data that has arrived, and keep them: later data comes without them."""
        if data[:1] == _TABLE and _holds_bundles(data):
            with contextlib.suppress(ValueError):
                for key, bundle in _entries(data):
                    if bundle:
                        bundles.keep(key, bundle)
                        self.add(key)


class _Nothing(Known):
    """Of no connection: nothing is noted."""

    def note_sent(self, data: Data | Pieces) -> None:
        return

    def note_arrived(self, data: Data) -> None:
        return


NOTHING = _Nothing()
"""For data that must be complete."""


def has_table(data: Data | Pieces) -> bool:
    """Return whether data begins with a table."""
    return (data if type(data) is bytes else _first(data))[:1] == _TABLE


def with_table(entries: dict[str, bytes], data: bytes | Pieces) -> bytes | Pieces:
    """Return data behind a table of these keys and bundles."""
    whole = _joined(list(entries.items()), data)
    assert not isinstance(whole, bytearray)
    return whole


def opened(data: Data) -> tuple[list[Any], Data]:
    """Return the definitions whose bundles a table holds, and the rest behind the table.

    Raises:
        Exception: a bundle cannot be decoded.
    """
    held = []
    if _holds_bundles(data):
        held = [bundles.definition_with(key, bundle) for key, bundle in _entries(data) if bundle]
    return held, _rest(data)


def behind_table(data: Data) -> Data:
    """Return the rest behind the table, if data begins with one; else the data."""
    return _rest(data) if has_table(data) else data


def keys_in(data: Data) -> list[str]:
    """Return the keys in the table, if data begins with one."""
    return [key for key, _ in _entries(data)] if has_table(data) else []


def _first(data: Data | Pieces) -> Data:
    return data.parts[0] if isinstance(data, Pieces) else data


def _holds_bundles(data: Data | Pieces) -> bool:
    return _first(data)[1:2] != b"\0"


def _entries(data: Data | Pieces) -> list[tuple[str, bytes]]:
    try:
        _, _, padding, begin = _HEAD.unpack_from(_first(data))
        with memoryview(_first(data)) as view:
            return _decode(view[_HEAD.size : begin - padding])
    except (struct.error, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"damaged data: {error}") from None


def _rest(data: Data | Pieces) -> Any:
    if isinstance(data, Pieces):
        return Pieces(data.parts[1:])
    begin = int.from_bytes(data[4:8], "little")
    if not _HEAD.size < begin < len(data):
        raise ValueError(f"damaged data: its table ends at {begin} of {len(data)} bytes")
    return memoryview(data)[begin:]


def _joined(entries: list[tuple[str, bytes]], rest: Data | Pieces) -> bytes | bytearray | Pieces:
    table = _encode(entries)
    size = _HEAD.size + len(table)
    padding = -size % _ALIGNMENT
    head = _HEAD.pack(1, any(bundle for _, bundle in entries), padding, size + padding)
    if isinstance(rest, Pieces):
        return Pieces((b"".join((head, table, bytes(padding))), *rest.parts))
    kind = bytes if type(rest) is bytes or memoryview(rest).readonly else bytearray
    return kind().join((head, table, bytes(padding), rest))
