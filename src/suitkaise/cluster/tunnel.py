"""The sockets of clients of the storage on a node, carried through the node's connection to the storage's machine.

To a worker the directory of the tunnel is that of a storage: a client connects to the socket in it, and what is sent
there comes out at the socket of the storage actor. Only reads go another way, see `storage.backends.remote_reader`.
"""

from __future__ import annotations

import itertools
import os
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path

from suitkaise.cluster.link import accept_later
from suitkaise.cluster.protocol import StreamData, StreamEnd, StreamOpen
from suitkaise.errors import MailboxFull
from suitkaise.messaging.send_buffer import SendBuffer
from suitkaise.platform.reactor import Reactor
from suitkaise.platform.sockets import Peers, accept_own, connect_own, listen_unix
from suitkaise.storage.backends.redis_address import write_address
from suitkaise.storage.client import SOCKET
from suitkaise.storage.connections import MAX_CONNECTIONS
from suitkaise.storage.place import ELSEWHERE

__all__ = ["TunnelEntry", "TunnelExit"]

_READ = 1 << 16

Send = Callable[..., None]
"""Sends a frame and its payload."""


class _Streams:
    """The streams at one end, by their numbers. All methods are called in the reactor's thread."""

    def __init__(self, reactor: Reactor, send: Send, has_room: Callable[[], bool]) -> None:
        self.reactor = reactor
        self.send = send
        self.has_room = has_room
        self.streams: dict[int, _Stream] = {}
        self.paused: set[_Stream] = set()

    def add(self, number: int, sock: socket.socket, on_end: Callable[[], None] = lambda: None) -> None:
        """Carry what the socket says and hears."""
        self.streams[number] = _Stream(self, number, sock, on_end)

    def on_frame(self, frame: StreamData | StreamEnd, payload: bytes) -> None:
        """Take what the other end has heard."""
        stream = self.streams.get(frame.stream)
        if stream is None:
            return
        if isinstance(frame, StreamEnd):
            stream.end(tell=False)
        else:
            stream.feed(payload)

    def resume(self) -> None:
        """Read on from the sockets that were not read from for lack of room."""
        while self.paused:
            self.paused.pop().resume()

    def close(self) -> None:
        """End all streams without a word to the other end."""
        for stream in list(self.streams.values()):
            stream.end(tell=False)


class _Stream:
    """One socket, and its counterpart at the other end of the connection."""

    def __init__(self, streams: _Streams, number: int, sock: socket.socket, on_end: Callable[[], None]) -> None:
        self._streams = streams
        self._number = number
        self._on_end = on_end
        self._buffer = SendBuffer(streams.reactor, sock, "a storage connection", self._on_event, corked=False)
        self._buffer.resume_reading()

    def _on_event(self) -> None:
        self._buffer.flush()
        if not self._streams.has_room():
            self._buffer.pause_reading()
            self._streams.paused.add(self)
            return
        try:
            data = self._buffer.sock.recv(_READ)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self._streams.send(StreamData(self._number), data)
        else:
            self.end()

    def resume(self) -> None:
        """Read from the socket again."""
        self._buffer.resume_reading()

    def feed(self, data: bytes) -> None:
        """Send the socket's peer what was heard at the other end."""
        try:
            self._buffer.write(data)
        except MailboxFull:  # a watcher that does not read; it connects again, and goes on where it was
            self.end()

    def close_after_fork(self) -> None:
        """In a forked child of the program: close the socket, which is the parent's."""
        self._buffer.sock.close()

    def end(self, *, tell: bool = True) -> None:
        """Close the socket; tell the other end."""
        if self._streams.streams.pop(self._number, None) is None:
            return
        self._streams.paused.discard(self)
        self._buffer.close()
        self._on_end()
        if tell:
            self._streams.send(StreamEnd(self._number))


class TunnelEntry:
    """The end on a node: a directory for the clients of the storage.

    Args:
        directory: is made for this.
        reactor: the I/O thread.
        send: sends a frame to the program.
        has_room: returns whether streams may send more now; if not, `resume` is called later (reactor's thread).
        origin: the directory of the storage on the program's machine.
        address: what leads readers to the storage's server; None: they ask the program.
    """

    def __init__(
        self,
        directory: str,
        reactor: Reactor,
        send: Send,
        has_room: Callable[[], bool],
        origin: str,
        address: bytes | None,
    ) -> None:
        self.directory = directory
        self._reactor = reactor
        self._streams = _Streams(reactor, send, has_room)
        self.resume: Callable[[], None] = self._streams.resume
        self._numbers = itertools.count(1)
        self._peers = Peers(MAX_CONNECTIONS)
        os.mkdir(directory, 0o700)
        with open(os.path.join(directory, ELSEWHERE), "wb") as file:
            file.write(os.fsencode(origin))
        if address is not None:
            write_address(Path(directory), address)
        self._listener = listen_unix(os.path.join(directory, SOCKET))
        reactor.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        try:
            for sock, pid in accept_own(self._listener, self._peers):
                number = next(self._numbers)
                self._streams.send(StreamOpen(number))
                self._streams.add(number, sock, partial(self._peers.forget, pid))
        except OSError as error:
            accept_later(self._reactor, self._listener, self._accept, error)

    def on_frame(self, frame: StreamData | StreamEnd, payload: bytes) -> None:
        """Take what the storage actor has said."""
        self._streams.on_frame(frame, payload)

    def close(self) -> None:
        """Stop listening (after the reactor has ended)."""
        self._listener.close()


class TunnelExit:
    """The end at the program, of one node.

    Args:
        reactor: the I/O thread.
        send: sends a frame to the node.
        has_room: returns whether streams may send more now; if not, `resume` is called later (reactor's thread).
        place: returns the directory of the storage; None while it does not run.
    """

    def __init__(
        self, reactor: Reactor, send: Send, has_room: Callable[[], bool], place: Callable[[], str | None]
    ) -> None:
        self._place = place
        self._streams = _Streams(reactor, send, has_room)
        self.resume: Callable[[], None] = self._streams.resume

    def on_frame(self, frame: StreamOpen | StreamData | StreamEnd, payload: bytes) -> None:
        """Take what a client has said on the node."""
        if isinstance(frame, StreamOpen):
            self._open(frame.stream)
        else:
            self._streams.on_frame(frame, payload)

    def _open(self, number: int) -> None:
        directory = self._place()
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.setblocking(False)
        try:
            if directory is None:
                raise FileNotFoundError
            connect_own(sock, os.path.join(directory, SOCKET))
        except OSError:  # the client tries again
            sock.close()
            self._streams.send(StreamEnd(number))
            return
        self._streams.add(number, sock)

    def close(self) -> None:
        """Close all connections to the storage actor: nothing of the node counts any more."""
        self._streams.close()

    def close_after_fork(self) -> None:
        """In a forked child of the program: close the sockets, which are the parent's."""
        for stream in self._streams.streams.values():
            stream.close_after_fork()
