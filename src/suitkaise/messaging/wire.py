"""Frames on a stream socket: `u32 header length | u32 payload length | msgpack header | payload`.

A header is a tuple of plain msgpack values; a payload is bytes that nobody on the way looks into. Lengths are
little-endian. The same frames go between clients and the storage actor and between the hub and its workers.
Whatever does not parse is a `WireError`: the stream has lost its frame boundaries, so close the connection.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from typing import Any, TypeAlias

import msgspec

from suitkaise.errors import NotSerializable, SuitkaiseError

__all__ = [
    "MAX_HEADER",
    "MAX_PAYLOAD",
    "MSG_NOSIGNAL",
    "Data",
    "Frame",
    "Header",
    "Parser",
    "PeerClosed",
    "WireError",
    "check_length",
    "encode",
    "parts",
    "send",
]

Header: TypeAlias = Any
"""What msgspec encodes as a msgpack array: a tuple, or an `array_like` Struct."""

Data: TypeAlias = "bytes | bytearray | memoryview"

Frame: TypeAlias = tuple[Any, bytes]
"""A header, decoded, and the payload."""

MAX_HEADER = 1 << 20
"""The longest header in bytes. Bytes that are no frame at all nearly always claim more."""

MAX_PAYLOAD = 1 << 30
"""The longest payload in bytes, unless a parser is told otherwise."""

MSG_NOSIGNAL: int = getattr(socket, "MSG_NOSIGNAL", 0)
"""For every send: a peer that is gone is an error, also where the program has said `signal(SIGPIPE, SIG_DFL)`."""

_LENGTHS = struct.Struct("<II")
_PREFIX = _LENGTHS.size
_SMALLEST_BUFFER = 1 << 14
_KEPT_BUFFER = 1 << 18
_LARGEST_STEP = 1 << 24

_encode_header = msgspec.msgpack.Encoder().encode
_decode_header = msgspec.msgpack.Decoder(tuple).decode
_pack_lengths = _LENGTHS.pack
_unpack_lengths = _LENGTHS.unpack_from


class WireError(SuitkaiseError):
    """The bytes on a connection are not frames, or a frame is too long: close the connection."""


class PeerClosed(ConnectionError):
    """The other side closed the connection."""


def check_length(what: str, length: int, limit: int | None = None) -> None:
    """Refuse at once what the receiver would take for nonsense, and close the connection for.

    Raises:
        NotSerializable: it has more bytes than `limit` (default `MAX_PAYLOAD`).
    """
    limit = MAX_PAYLOAD if limit is None else limit
    if length > limit:
        raise NotSerializable(
            f"{what} has {length} bytes, once encoded; at most {limit} can be sent: "
            "put what is large into a file or shared memory, and send its name"
        )


def parts(header: Header, payload: Data = b"", *, long_header: bool = False) -> tuple[bytes, bytes, Data]:
    """One frame as its prefix, its header and its payload.

    Raises:
        NotSerializable: it is over the limits; `long_header`: that of a payload holds for the header, too.
    """
    head = _encode_header(header)
    size = len(payload)
    if len(head) > MAX_HEADER or size > MAX_PAYLOAD:
        check_length("the header of a message", len(head), MAX_PAYLOAD if long_header else MAX_HEADER)
        check_length("a message", size)
    return _pack_lengths(len(head), size), head, payload


def encode(header: Header, payload: Data = b"", *, long_header: bool = False) -> bytes:
    r"""One frame as bytes. Raises what `parts` raises.

    >>> encode((1, "x"), b"abc")
    b'\x04\x00\x00\x00\x03\x00\x00\x00\x92\x01\xa1xabc'
    """
    return b"".join(parts(header, payload, long_header=long_header))


def send(sock: socket.socket, header: Header, payload: Data = b"") -> None:
    """Send one frame on a blocking socket: one system call, unless the socket's buffer is full.

    Raises:
        NotSerializable: it is over the limits; nothing was sent.
        OSError: as the socket raises it. After that, or after an exception from a signal handler, a part of
            the frame may have been sent: close the socket.
    """
    prefix, head, payload = parts(header, payload)
    sent = sock.sendmsg((prefix, head, payload), (), MSG_NOSIGNAL)
    if sent < _PREFIX + len(head) + len(payload):
        sock.sendall((prefix + head)[sent:], MSG_NOSIGNAL)
        with memoryview(payload).cast("B") as rest:
            sock.sendall(rest[max(0, sent - _PREFIX - len(head)) :], MSG_NOSIGNAL)


class Parser:
    """Turns the bytes of one connection into frames, whatever way they were cut.

    It keeps one buffer, which grows for a stream that fills it and for long frames (as their bytes arrive,
    not as their prefix claims) and shrinks again when it is empty. Not thread-safe: one parser, one reader.

    >>> parser = Parser()
    >>> both = encode(("first",)) + encode(("second", 2), b"payload")
    >>> parser.feed(both[:10])
    []
    >>> parser.feed(both[10:])
    [(('first',), b''), (('second', 2), b'payload')]
    """

    __slots__ = ("_buffer", "_decode", "_filled", "_max_header", "_max_payload", "_needed")

    def __init__(
        self,
        *,
        max_header: int = MAX_HEADER,
        max_payload: int = MAX_PAYLOAD,
        decode: Callable[[memoryview], Any] = _decode_header,
    ) -> None:
        """Make a parser.

        Args:
            max_header: the longest header that is taken, in bytes.
            max_payload: the longest payload that is taken, in bytes.
            decode: makes a header of its bytes; a typed msgspec decoder checks it at no further cost.
        """
        self._decode = decode
        self._buffer = bytearray(_SMALLEST_BUFFER)
        self._filled = 0
        self._needed = 0
        self._max_header = max_header
        self._max_payload = max_payload

    @property
    def pending(self) -> int:
        """How many bytes of an unfinished frame are held."""
        return self._filled

    def feed(self, data: bytes | bytearray | memoryview) -> list[Frame]:
        """Take `data` in; returns the frames that are complete with it.

        Raises:
            WireError: the bytes are not frames, or a frame is over the limits.
        """
        end = self._filled + len(data)
        if end > len(self._buffer):
            self._buffer.extend(bytes(end - len(self._buffer)))
        self._buffer[self._filled : end] = data
        self._filled = end
        return self._take()

    def receive(self, sock: socket.socket, flags: int = 0) -> list[Frame]:
        """Read once from `sock`; returns the frames that are complete with it, perhaps none.

        Raises:
            PeerClosed: there is nothing more to come; the message says if a frame was cut short.
            WireError: the bytes are not frames, or a frame is over the limits.
            OSError: as the socket raises it; `BlockingIOError` and `TimeoutError` lose nothing.
        """
        if self._filled == len(self._buffer):
            self._grow()
        with memoryview(self._buffer) as view:
            count = sock.recv_into(view[self._filled :], 0, flags)
        if count == 0:
            raise PeerClosed(
                f"the connection was closed in the middle of a frame, after {self._filled} bytes of it"
                if self._filled
                else "the connection was closed by the other side"
            )
        self._filled += count
        if self._filled < self._needed:
            return []
        return self._take()

    def _take(self) -> list[Frame]:
        buffer, filled, decode = self._buffer, self._filled, self._decode
        position, needed = 0, 0
        frames: list[Frame] = []
        with memoryview(buffer) as view:
            while filled - position >= _PREFIX:
                head_length, payload_length = _unpack_lengths(buffer, position)
                if head_length > self._max_header or payload_length > self._max_payload:
                    raise WireError(
                        f"a frame claims {head_length} bytes of header and {payload_length} of payload; "
                        f"at most {self._max_header} and {self._max_payload} are allowed; are these frames?"
                    )
                start = position + _PREFIX
                middle = start + head_length
                end = middle + payload_length
                if end > filled:
                    needed = end - position
                    break
                try:
                    header = decode(view[start:middle])
                except msgspec.MsgspecError as error:
                    raise WireError(f"a frame's header is not what it must be: {error}") from None
                frames.append((header, bytes(view[middle:end]) if payload_length else b""))
                position = end
            if position and position < filled:
                view[: filled - position] = bytes(view[position:filled])
        self._filled = filled - position
        self._needed = needed
        if len(buffer) > _KEPT_BUFFER and self._filled <= _SMALLEST_BUFFER and needed <= _KEPT_BUFFER:
            self._buffer = buffer[:_SMALLEST_BUFFER]
        elif filled == len(buffer) < _KEPT_BUFFER:
            buffer.extend(bytes(len(buffer)))
        return frames

    def _grow(self) -> None:
        """Make room, at most as much again as has come already: a claim alone allocates nothing."""
        size = len(self._buffer)
        wanted = max(self._needed - size, 1)
        self._buffer.extend(bytes(max(min(wanted, _LARGEST_STEP, size), _PREFIX)))
