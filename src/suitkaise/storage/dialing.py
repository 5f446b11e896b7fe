"""Getting through to the storage actor: the socket, its time-outs, and the first words."""

from __future__ import annotations

import os
import socket
import struct
import threading
from pathlib import Path

from suitkaise.errors import StorageGone
from suitkaise.messaging import wire
from suitkaise.storage.protocol import VERSION, Hello, Welcome, decode_answer

__all__ = ["SOCKET", "dial", "set_timeout"]

SOCKET = "store.sock"
"""The name of the listening socket in a storage's directory."""

_TIMEVAL = struct.Struct("ll")
_BUFFER = 1 << 20
_LONGEST_ADDRESS = 100  # bytes that surely fit into a Unix socket's address


def dial(directory: str, client: bytes, timeout: float) -> tuple[socket.socket, wire.Parser, Welcome]:
    """Connect to the storage in `directory` as this client; returns what the actor remembers about it.

    Nobody but the listening socket need be there yet: while the actor is restarted, one waits in its backlog.

    Raises:
        StorageGone: nobody listens any more.
        BlockingIOError: no answer within `timeout` seconds.
        OSError, WireError: the connection broke.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        set_timeout(sock, timeout)
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            sock.setsockopt(socket.SOL_SOCKET, option, _BUFFER)
        _reach(sock, directory)
        wire.send(sock, Hello(VERSION, client))
        parser = wire.Parser(decode=decode_answer)
        frames: list[wire.Frame] = []
        while not frames:
            frames = parser.receive(sock)
        welcome = frames[0][0]
        if not isinstance(welcome, Welcome):
            raise wire.WireError(f"the storage actor answered {welcome!r} instead of a welcome")
        return sock, parser, welcome
    except BaseException:
        sock.close()
        raise


def set_timeout(sock: socket.socket, seconds: float) -> None:
    """Have the kernel keep the time, for `BlockingIOError`: Python's own time-out is a `poll` at every call."""
    microseconds = int(min(seconds, threading.TIMEOUT_MAX) * 1e6)
    value = _TIMEVAL.pack(*divmod(max(1, microseconds), 1_000_000))  # 0 would be for ever
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, value)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, value)


def _reach(sock: socket.socket, directory: str) -> None:
    address = str(Path(directory, SOCKET))
    try:
        if len(os.fsencode(address)) <= _LONGEST_ADDRESS:
            sock.connect(address)
            return
        folder = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            sock.connect(f"/proc/self/fd/{folder}/{SOCKET}")
        finally:
            os.close(folder)
    except (FileNotFoundError, ConnectionRefusedError) as error:
        raise StorageGone(
            f"nobody keeps the storage in {directory} any more: the program that owned it is gone"
        ) from error
