"""What a pool and a worker process exchange tasks and answers through: a socket that keeps the bounds of messages.

The pool keeps a copy of the worker's end of the socket. So it can take back tasks that the worker has not begun: the
kernel gives each message to exactly one reader, whatever the worker does, and even after the worker has died. A payload
that is too large for a message goes into a file in memory, whose descriptor is sent.
"""

from __future__ import annotations

import array
import contextlib
import mmap
import os
import socket
import struct
from collections.abc import Iterator
from typing import TypeAlias

from suitkaise.messaging.connection import when_there_is_memory
from suitkaise.messaging.wire import MSG_NOSIGNAL
from suitkaise.platform.sockets import blocking

__all__ = ["ANSWER", "CHUNK", "ERROR", "MIXED", "TASK", "Channel", "Data", "PayloadLost"]

TASK, CHUNK, ANSWER, MIXED, ERROR = range(5)
"""The kinds of messages: two orders and three answers. `MIXED`: some items of a chunk have failed."""

Data: TypeAlias = memoryview

_HEADER = struct.Struct("<BQ")
_LARGE = 0x80  # added to the kind: the payload is in a file
_LARGEST = 1 << 15
"""Bytes of the largest payload within a message. A socket takes about 200 KiB, so some messages fit."""

_ROOM_FOR_ONE = socket.CMSG_SPACE(4)


class PayloadLost(OSError):
    """A large payload could not be received; `number` is that of its message."""

    def __init__(self, number: int, why: str) -> None:
        super().__init__(f"a large payload could not be received: {why}")
        self.number = number


class Channel:
    """One end of the connection; one thread sends and one receives."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = blocking(sock)
        self._buffer = bytearray(_HEADER.size + _LARGEST)
        self._view = memoryview(self._buffer)

    def fileno(self) -> int:
        """Return the socket's descriptor."""
        return self._sock.fileno()

    def send(self, kind: int, number: int, data: bytes, *, wait: bool) -> bool:
        """Send one message; without `wait`, return False if the socket has no room for it."""
        flags = MSG_NOSIGNAL if wait else MSG_NOSIGNAL | socket.MSG_DONTWAIT
        try:
            if len(data) <= _LARGEST:
                message = _HEADER.pack(kind, number), data
                when_there_is_memory(lambda: self._sock.sendmsg(message, (), flags))
            else:
                with _in_memory(data) as file:
                    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [file]))
                    header = (_HEADER.pack(kind | _LARGE, number),)
                    when_there_is_memory(lambda: self._sock.sendmsg(header, (rights,), flags))
        except BlockingIOError:
            return False
        return True

    def receive(self) -> tuple[int, int, Data] | None:
        """Return the kind, the number and the payload of the next message; None if none is there.

        The payload is valid until the next call, and must not be kept.

        Raises:
            PayloadLost: a large payload could not be received.
        """
        try:
            size, ancillary, _, _ = self._sock.recvmsg_into(
                (self._buffer,), _ROOM_FOR_ONE, socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return None
        if not size:
            return None  # the other end is closed, which is noticed elsewhere
        kind, number = _HEADER.unpack_from(self._buffer)
        if not kind & _LARGE:
            return kind, number, self._view[_HEADER.size : size]
        if not ancillary:
            raise PayloadLost(number, "no file descriptor is left")
        file = int.from_bytes(ancillary[0][2], "little")
        try:
            return kind & ~_LARGE, number, memoryview(mmap.mmap(file, 0, access=mmap.ACCESS_READ))
        except OSError as error:
            raise PayloadLost(number, str(error)) from error
        finally:
            os.close(file)

    def take_back(self) -> set[int]:
        """Remove the messages that were not received; return their numbers.

        They need not be the last ones that were sent: the worker may receive one while this takes others.
        """
        numbers = set()
        with contextlib.suppress(BlockingIOError):
            while header := self._sock.recv(_HEADER.size, socket.MSG_DONTWAIT):
                numbers.add(_HEADER.unpack(header)[1])
        return numbers

    def close(self) -> None:
        """Close the socket."""
        self._sock.close()


@contextlib.contextmanager
def _in_memory(data: bytes) -> Iterator[int]:
    """Put the data into a file in memory, for the block."""
    file = os.memfd_create("suitkaise-task", os.MFD_CLOEXEC)
    try:
        with memoryview(data) as view:
            done = 0
            while done < len(data):
                done += os.write(file, view[done:])
        yield file
    finally:
        os.close(file)
