"""Frames on a stream socket: `u32 header length | u32 payload length | msgpack header | payload`.

A header is a msgpack array: an `array_like` Struct of one of the `protocol` modules, or a tuple. A payload is bytes,
passed on unread. Lengths are little-endian. The same frames go between clients and the storage actor and between the
hub and its workers. Bytes that do not parse raise `WireError`: the stream has lost its frame boundaries, so the
connection has to be closed.
"""

from __future__ import annotations

import socket
import struct
from array import array
from collections.abc import Callable
from typing import Any, TypeAlias, cast

import msgspec

from suitkaise.errors import NotSerializable, SuitkaiseError
from suitkaise.messaging.pieces import Data, Pieces

__all__ = [
    "MAX_HEADER",
    "MAX_PAYLOAD",
    "MSG_NOSIGNAL",
    "Data",
    "Frame",
    "Header",
    "NoMemory",
    "Parser",
    "PeerClosed",
    "WireError",
    "check_length",
    "encode",
    "frame",
    "of_a_signal_handler",
    "parts",
    "send",
]

Header: TypeAlias = Any
"""A tuple, or an `array_like` Struct: msgspec encodes both as a msgpack array."""


Frame: TypeAlias = tuple[Any, bytes]
"""A header, decoded, and the payload."""

MAX_HEADER = 1 << 20
"""The longest header in bytes. Bytes that are no frame nearly always claim more."""

MAX_PAYLOAD = 1 << 30
"""The longest payload in bytes, the default of a parser."""

MSG_NOSIGNAL: int = getattr(socket, "MSG_NOSIGNAL", 0)
"""For every send: a closed peer is an error, also after a program has called `signal(SIGPIPE, SIG_DFL)`."""

_ONE_DESCRIPTOR = socket.CMSG_SPACE(array("i").itemsize)
_LENGTHS = struct.Struct("<II")
_PREFIX = _LENGTHS.size
_SMALLEST_BUFFER = 1 << 14
_KEPT_BUFFER = 1 << 18
_LARGEST_STEP = 1 << 24
_SMALLEST_LARGE = 1 << 16
_FIRST_STEP = 1 << 20


def _plain(value: Any) -> str | int | float:
    """Return the value of a subclass, such as NumPy's floats and texts, as the type that msgpack knows."""
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int | float):
        return int(value) if isinstance(value, int) else float(value)
    raise TypeError(f"a header cannot hold {value!r}")


_INVALID = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, OverflowError)
"""What a decoder raises; a signal handler may raise anything else."""

_encode_header = msgspec.msgpack.Encoder(enc_hook=_plain).encode
_decode_header = msgspec.msgpack.Decoder(tuple).decode
_pack_lengths = _LENGTHS.pack
_unpack_lengths = _LENGTHS.unpack_from


class WireError(SuitkaiseError):
    """The bytes on a connection are not frames, or a frame is too long: close the connection."""


class NoMemory(WireError):
    """There is no memory for a frame: the connection cannot be read any more."""


class PeerClosed(ConnectionError):
    """The other side closed the connection."""


def of_a_signal_handler(error: Exception) -> bool:
    """Return whether a signal handler has raised this in the midst of a call of a socket, as an alarm's TimeoutError.

    The errors of the system have a number, and those that are no `OSError`, and `PeerClosed`, are our own.
    """
    return isinstance(error, OSError) and error.errno is None and not isinstance(error, PeerClosed)


def check_length(what: str, length: int, limit: int | None = None) -> None:
    """Refuse a length that the receiver would not accept: it would close the connection.

    Raises:
        NotSerializable: `length` is over `limit` (default `MAX_PAYLOAD`).
    """
    limit = MAX_PAYLOAD if limit is None else limit
    if length > limit:
        raise NotSerializable(
            f"{what} has {length} bytes, once encoded; at most {limit} can be sent: "
            "put large data into a file or shared memory, and send its name"
        )


def parts(header: Header, payload: Data | Pieces = b"", *, long_header: bool = False) -> tuple[Data, ...]:
    """Return one frame as its prefix, its header and its payload, which may have several pieces.

    Raises:
        NotSerializable: it is over the limits. With `long_header` the limit of payloads holds for the header, too.
    """
    head = _encode_header(header)
    size = len(payload)
    if len(head) > MAX_HEADER or size > MAX_PAYLOAD:
        check_length("the header of a message", len(head), MAX_PAYLOAD if long_header else MAX_HEADER)
        check_length("a message", size)
    prefix = _pack_lengths(len(head), size)
    return (prefix, head, *payload.parts) if isinstance(payload, Pieces) else (prefix, head, payload)


def encode(header: Header, payload: Data | Pieces = b"", *, long_header: bool = False) -> bytes:
    r"""Return one frame as bytes. Raises what `parts` raises.

    >>> encode((1, "x"), b"abc")
    b'\x04\x00\x00\x00\x03\x00\x00\x00\x92\x01\xa1xabc'
    """
    head = _encode_header(header)
    length, size = len(head), len(payload)
    if type(payload) is bytes and length + size <= MAX_HEADER:  # within all limits
        return b"".join((_pack_lengths(length, size), head, payload))
    return b"".join(parts(header, payload, long_header=long_header))


def frame(header: Header, payload: Data | Pieces = b"", *, long_header: bool = False) -> bytes | Pieces:
    """Return one frame; in pieces, if its payload is. Raises what `parts` raises."""
    if isinstance(payload, Pieces):
        return Pieces(parts(header, payload, long_header=long_header))
    return encode(header, payload, long_header=long_header)


def send(sock: socket.socket, header: Header, payload: Data = b"") -> None:
    """Send one frame on a blocking socket: one system call, unless the socket's buffer is full.

    Raises:
        NotSerializable: it is over the limits; nothing was sent.
        OSError: as the socket raises it. After that, or after an exception from a signal handler, a part of
            the frame may have been sent: close the socket.
    """
    prefix, head, _ = parts(header, payload)
    sent = sock.sendmsg((prefix, head, payload), (), MSG_NOSIGNAL)
    if sent < _PREFIX + len(head) + len(payload):
        sock.sendall(b"".join((prefix, head))[sent:], MSG_NOSIGNAL)
        with memoryview(payload).cast("B") as rest:
            sock.sendall(rest[max(0, sent - _PREFIX - len(head)) :], MSG_NOSIGNAL)


class Parser:
    """Turns the bytes of one connection into frames, in whatever pieces they arrive.

    It keeps one buffer, which grows for a stream that fills it and for long frames (as their bytes arrive,
    not as their prefix claims) and shrinks when it is empty. Not thread-safe: one parser, one reader.

    With `lends`, each large payload is read into a bytearray of its own, which is handed out: no copy is made of it.

    >>> parser = Parser()
    >>> both = encode(("first",)) + encode(("second", 2), b"payload")
    >>> parser.feed(both[:10])
    []
    >>> parser.feed(both[10:])
    [(('first',), b''), (('second', 2), b'payload')]
    """

    __slots__ = (
        "_buffer", "_decode", "_filled", "_large", "_lends", "_max_header", "_max_payload", "_needed", "_short",
    )  # fmt: skip

    def __init__(
        self,
        *,
        max_header: int = MAX_HEADER,
        max_payload: int = MAX_PAYLOAD,
        decode: Callable[[Any], Any] = _decode_header,
        lends: bool = False,
    ) -> None:
        """Make a parser.

        Args:
            max_header: the longest header that is accepted, in bytes.
            max_payload: the longest payload that is accepted, in bytes.
            decode: decodes a header. A typed msgspec decoder validates it at no extra cost: what it rejects
                raises WireError. The default returns a tuple.
            lends: whether large payloads are handed out as bytearrays, for the receiver to keep.
        """
        self._decode = decode
        self._buffer = bytearray(_SMALLEST_BUFFER)
        self._filled = 0
        self._needed = 0
        self._max_header = max_header
        self._max_payload = max_payload
        self._short = min(max_header, max_payload, _SMALLEST_BUFFER - 1)  # bytes, in which all lengths are allowed
        self._lends = lends
        self._large: _LargePayload | None = None

    @property
    def pending(self) -> int:
        """How many bytes of an incomplete frame are buffered."""
        return self._filled + (0 if self._large is None else self._large.filled)

    def feed(self, data: bytes | bytearray | memoryview) -> list[Frame]:
        """Add `data`; return the frames that are complete now.

        Raises:
            WireError: the bytes are not frames, or a frame is over the limits.
        """
        if self._large is not None:
            count = self._large.copy(data)
            frames = self._take_large()
            return frames + self.feed(memoryview(data)[count:]) if frames else []
        end = self._filled + len(data)
        if end > len(self._buffer):
            self._buffer.extend(bytes(end - len(self._buffer)))
        self._buffer[self._filled : end] = data
        self._filled = end
        return self._parse()

    def receive(self, sock: socket.socket, flags: int = 0, descriptors: list[int] | None = None) -> list[Frame]:
        """Read once from `sock`; return the frames that are complete now, perhaps none.

        A descriptor that comes with a frame is appended to `descriptors`, as -1 if this process has room for no more.

        Raises:
            PeerClosed: the other side has closed the connection; the message states whether in the middle of a frame.
            WireError: the bytes are not frames, or a frame is over the limits.
            NoMemory: there is no memory for a frame, of which a part is read.
            OSError: as the socket raises it; `BlockingIOError` and `TimeoutError` lose nothing.
        """
        large = self._large
        if large is None and not self._filled and descriptors is None:
            buffer = self._buffer
            count = sock.recv_into(buffer, 0, flags)
            if _PREFIX <= count <= self._short:
                head_length, payload_length = _unpack_lengths(buffer)
                middle = _PREFIX + head_length
                if middle + payload_length == count:  # one whole frame, as nearly always; at half the cost
                    try:
                        header = self._decode(buffer[_PREFIX:middle])
                    except _INVALID as error:
                        raise WireError(f"the header of a frame is invalid: {error}") from None
                    return [(header, bytes(buffer[middle:count]) if payload_length else b"")]
        else:
            try:
                if large is not None:
                    room = large.room()
                else:
                    if self._filled == len(self._buffer):
                        self._grow()
                    room = memoryview(self._buffer)[self._filled :]
            except MemoryError:
                length = self._needed if large is None else large.length
                raise NoMemory(f"there is no memory for a frame of {length:,} bytes") from None
            with room:
                if descriptors is None:
                    count = sock.recv_into(room, 0, flags)
                else:
                    count = _receive_with(sock, room, flags, descriptors)
        if count == 0:
            raise PeerClosed(
                f"the connection was closed in the middle of a frame, after {self.pending} bytes of it"
                if self.pending
                else "the connection was closed by the other side"
            )
        if large is not None:
            large.filled += count
            return self._take_large()
        self._filled += count
        if self._filled < self._needed:
            return []
        return self._parse()

    def _parse(self) -> list[Frame]:
        buffer, filled, decode, short = self._buffer, self._filled, self._decode, self._short
        position, needed = 0, 0
        frames: list[Frame] = []
        with memoryview(buffer) as view:
            while filled - position >= _PREFIX:
                head_length, payload_length = _unpack_lengths(buffer, position)
                middle = position + _PREFIX + head_length
                end = middle + payload_length
                large = False
                if end - position > short:
                    if head_length > self._max_header or payload_length > self._max_payload:
                        raise WireError(
                            f"a frame claims {head_length} bytes of header and {payload_length} of payload; "
                            f"at most {self._max_header} and {self._max_payload} are allowed; are these frames?"
                        )
                    large = self._lends and payload_length >= _SMALLEST_LARGE and middle <= filled
                if end > filled and not large:
                    needed = end - position
                    break
                try:
                    header = decode(view[position + _PREFIX : middle])
                except _INVALID as error:
                    raise WireError(f"the header of a frame is invalid: {error}") from None
                if large:
                    self._large = _LargePayload(header, payload_length)
                    position = middle + self._large.copy(view[middle : min(end, filled)])
                    frames += self._take_large()
                    continue
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

    def _take_large(self) -> list[Frame]:
        """Return the frame of the large payload that is being read, if it is complete."""
        large = self._large
        if large is None or large.filled < large.length:
            return []
        self._large = None
        return [(large.header, cast("bytes", large.data))]

    def _grow(self) -> None:
        """Enlarge the buffer, at most to twice its size: the claim of a prefix alone allocates nothing."""
        size = len(self._buffer)
        wanted = max(self._needed - size, 1)
        self._buffer.extend(bytes(max(min(wanted, _LARGEST_STEP, size), _PREFIX)))


class _LargePayload:
    """A payload that is read into memory of its own, which grows as the bytes arrive."""

    __slots__ = ("data", "filled", "header", "length")

    def __init__(self, header: Header, length: int) -> None:
        self.header = header
        self.length = length
        self.filled = 0
        self.data = bytearray(min(length, _FIRST_STEP))

    def room(self) -> memoryview:
        """Return memory for the next bytes."""
        if self.filled == len(self.data):
            self.data.extend(bytes(min(self.length - self.filled, len(self.data))))
        return memoryview(self.data)[self.filled :]

    def copy(self, data: Data) -> int:
        """Take the bytes that belong to this payload from `data`; return how many they are."""
        count = min(len(data), self.length - self.filled)
        while len(self.data) < self.filled + count:
            self.data.extend(bytes(min(self.length - len(self.data), len(self.data))))
        self.data[self.filled : self.filled + count] = data[:count]
        self.filled += count
        return count


def _receive_with(sock: socket.socket, room: memoryview, flags: int, descriptors: list[int]) -> int:
    count, ancillary, answer, _ = sock.recvmsg_into((room,), _ONE_DESCRIPTOR, flags | socket.MSG_CMSG_CLOEXEC)
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.extend(array("i", data))
            return count
    if answer & socket.MSG_CTRUNC:
        descriptors.append(-1)
    return count
