"""Reading frames in tests: one connection, one thread, a deadline."""

from __future__ import annotations

import socket

from suitkaise.messaging import wire


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
