"""Reading frames in tests: one connection, one thread, a deadline; and counts of connections that are on no board."""

from __future__ import annotations

import os
import socket
from typing import Any

from suitkaise.messaging import wire
from suitkaise.platform.connection_counts import COUNTS_BYTES, ConnectionCounts


class FrameReader:
    """The receiving end of a connection."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self._parser = wire.Parser()
        self._frames: list[wire.Frame] = []

    def receive(self, *, timeout: float) -> wire.Frame:
        """Return the next frame; `timeout` seconds may pass between two pieces of it."""
        self.socket.settimeout(timeout)
        while not self._frames:
            self._frames += self._parser.receive(self.socket)
        return self._frames.pop(0)


class WithoutMemory:
    """A socket for which the kernel has no memory at first."""

    def __init__(self, sock: socket.socket, error: int, attempts: int = 3) -> None:
        self._sock = sock
        self._error = error
        self.left = attempts

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)

    def send(self, *arguments: Any) -> int:
        self._fail()
        return self._sock.send(*arguments)

    def sendmsg(self, *arguments: Any) -> int:
        self._fail()
        return self._sock.sendmsg(*arguments)

    def _fail(self) -> None:
        if self.left:
            self.left -= 1
            raise OSError(self._error, os.strerror(self._error))


def counts_on_no_board() -> ConnectionCounts:
    return ConnectionCounts(memoryview(bytearray(COUNTS_BYTES)))


def uncounted() -> memoryview[int]:
    return counts_on_no_board().sent(0)
