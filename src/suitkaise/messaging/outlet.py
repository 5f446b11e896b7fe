"""A worker's way out: whole frames on a blocking socket, from any thread and from signal handlers."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections import deque

from suitkaise.messaging import wire

__all__ = ["Outlet"]


class Outlet:
    """Sends frames one after the other. None is ever cut, whatever a signal handler raises meanwhile."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._lock = threading.RLock()
        self._frames: deque[_Frame] = deque()
        self._sender: int | None = None

    @property
    def interrupted(self) -> bool:
        """Whether this thread is in the midst of sending: this is a signal handler, and what it sends goes later."""
        return self._sender == threading.get_ident()

    def send(self, header: wire.Header, payload: wire.Data = b"", *, long_header: bool = False) -> None:
        """Send one frame; in a signal handler that has interrupted this, have it sent by whom it has interrupted.

        An exception that a signal handler raises comes through. Of a frame that was begun the rest goes out ahead of
        the next one, one that was not begun is withdrawn.

        Raises:
            NotSerializable: it is over the limits.
            OSError: as the socket raises it.
        """
        frame = _Frame(wire.parts(header, payload, long_header=long_header))
        with self._lock:
            self._frames.append(frame)
            if self.interrupted:
                return
            self._sender = threading.get_ident()
            try:
                while self._frames:
                    self._frames[0].send(self._sock)
                    self._frames.popleft()
            except OSError:
                self._frames.clear()
                raise
            except BaseException:
                if not frame.sent:
                    with contextlib.suppress(ValueError):
                        self._frames.remove(frame)
                raise
            finally:
                self._sender = None


class _Frame:
    """One frame, and how much of it is gone."""

    __slots__ = ("_parts", "_size", "sent")

    def __init__(self, parts: tuple[wire.Data, ...]) -> None:
        self.sent: list[int] = []
        self._parts = parts
        self._size = sum(map(len, parts))

    def send(self, sock: socket.socket) -> None:
        """Send what is left of it."""
        while (done := sum(self.sent)) < self._size:
            # One call of C code sends and notes how much: no signal handler can raise between the two.
            self.sent.extend(map(sock.sendmsg, (self._rest(done),), ((),), (wire.MSG_NOSIGNAL,)))

    def _rest(self, done: int) -> tuple[wire.Data, ...]:
        if not done:
            return self._parts
        rest = []
        for part in self._parts:
            rest.append(memoryview(part)[done:])
            done = max(0, done - len(part))
        return tuple(rest)
