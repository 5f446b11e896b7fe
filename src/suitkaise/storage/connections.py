"""The storage actor's connections: accepting them, reading requests, and sending replies.

Nothing here blocks. A connection that does not read its replies is not read from either, so the output that waits
for it stays bounded.
"""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Iterator
from typing import TypeAlias

from suitkaise.messaging import wire
from suitkaise.platform.log_queue import QueuedLogger
from suitkaise.platform.sockets import Peers, accept_own
from suitkaise.storage import protocol

__all__ = ["MAX_CONNECTIONS", "Connection", "Connections", "Requests"]

logger: QueuedLogger = QueuedLogger("suitkaise.storage")

MAX_OUTPUT = 1 << 20
"""Bytes that may wait for a connection before its requests are no longer read."""

MAX_CONNECTIONS = 500
"""Connections that one process may have: one for each thread, and one for each watch."""

_BUFFER = 1 << 20


class Connection:
    """One connection of a client."""

    __slots__ = ("client", "events", "is_open", "output", "parser", "pid", "sock")

    def __init__(self, sock: socket.socket, pid: int) -> None:
        self.sock: socket.socket = sock
        self.pid: int = pid
        self.parser: wire.Parser = wire.Parser(decode=protocol.decode_request)
        self.output: bytearray = bytearray()
        self.events: int = select.EPOLLIN
        self.client: bytes | None = None
        self.is_open: bool = True


Requests: TypeAlias = list[tuple[Connection, list[wire.Frame]]]


class Connections:
    """All connections, the listener and the wake descriptors, behind one epoll."""

    def __init__(self, listener: socket.socket) -> None:
        listener.setblocking(False)
        self._listener = listener
        self._epoll = select.epoll()
        self._epoll.register(listener, select.EPOLLIN)
        self._connections: set[Connection] = set()
        self._by_descriptor: dict[int, Connection] = {}
        self._wakes: tuple[int, ...] = ()
        self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        self.is_woken: bool = False
        """Whether a wake descriptor ended the last wait."""
        self._peers = Peers(MAX_CONNECTIONS)
        self.dropped: int = 0
        """How many connections have ended so far."""

    def __len__(self) -> int:
        return len(self._connections)

    def clients(self) -> set[bytes]:
        """Return the ids of the clients that are connected."""
        return {connection.client for connection in self._connections if connection.client is not None}

    def wake_by(self, descriptors: tuple[int, ...]) -> None:
        """Return from `wait` when one of these is readable, too."""
        if descriptors == self._wakes:
            return
        for old in set(self._wakes).difference(descriptors):
            self._epoll.unregister(old)
        for new in set(descriptors).difference(self._wakes):
            self._epoll.register(new, select.EPOLLIN)
        self._wakes = descriptors

    def wait(self, timeout: float | None) -> Requests:
        """Wait for an event; return the requests that have arrived, by connection and in order."""
        requests: Requests = []
        self.is_woken = False
        for descriptor, events in self._epoll.poll(timeout):
            connection = self._by_descriptor.get(descriptor)
            if connection is None:
                if descriptor in self._wakes:
                    self.is_woken = True
                else:
                    self._accept()
                continue
            if events & select.EPOLLOUT:
                self.send(connection, b"")
            if events & ~select.EPOLLOUT and connection.is_open:
                frames = self._receive(connection)
                if frames:
                    requests.append((connection, frames))
        return requests

    def send(self, connection: Connection, data: bytes | bytearray) -> None:
        """Send what the socket takes now, and keep the rest until the socket takes more."""
        output = connection.output
        if output:
            output += data
            data = output
        elif not data:
            self._update_events(connection)
            return
        try:
            sent = connection.sock.send(data, wire.MSG_NOSIGNAL)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.drop(connection)
            return
        if data is output:
            del output[:sent]
        elif sent < len(data):
            output += data[sent:]
        if output or connection.events != select.EPOLLIN:
            self._update_events(connection)

    def drop(self, connection: Connection, reason: str = "") -> None:
        """Close a connection. A `reason` is logged as a warning."""
        if not connection.is_open:
            return
        connection.is_open = False
        if reason:
            logger.warning("connection from pid %d closed: %s", connection.pid, reason)
        self._connections.discard(connection)
        self._peers.forget(connection.pid)
        del self._by_descriptor[connection.sock.fileno()]
        self._epoll.unregister(connection.sock)
        connection.sock.close()
        self.dropped += 1

    def replace(self, connection: Connection, client: bytes) -> None:
        """Make this the connection of the client with that id; close an older connection of the client."""
        for other in [one for one in self._connections if one.client == client and one is not connection]:
            self.drop(other)
        connection.client = client

    def close(self) -> None:
        """Close all connections, but not the listener, which belongs to the caller."""
        for connection in list(self._connections):
            self.drop(connection)
        self._epoll.close()
        os.close(self._spare)

    def _receive(self, connection: Connection) -> list[wire.Frame]:
        try:
            return connection.parser.receive(connection.sock)
        except BlockingIOError:
            return []
        except wire.WireError as error:
            self.drop(connection, f"invalid frame: {error}")
        except wire.PeerClosed as closed:
            if connection.parser.pending:
                logger.info("connection from pid %d closed in the middle of a frame: %s", connection.pid, closed)
            self.drop(connection)
        except OSError:
            self.drop(connection)
        return []

    def _update_events(self, connection: Connection) -> None:
        waiting = len(connection.output)
        events = select.EPOLLIN if waiting < MAX_OUTPUT else 0
        if waiting:
            events |= select.EPOLLOUT
        if events != connection.events:
            connection.events = events
            self._epoll.modify(connection.sock, events)

    def _accept(self) -> None:
        for sock, pid in self._accepted():
            for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
                sock.setsockopt(socket.SOL_SOCKET, option, _BUFFER)
            connection = Connection(sock, pid)
            self._connections.add(connection)
            self._by_descriptor[sock.fileno()] = connection
            self._epoll.register(sock, select.EPOLLIN)

    def _accepted(self) -> Iterator[tuple[socket.socket, int]]:
        try:
            yield from accept_own(self._listener, self._peers)
        except OSError as error:
            self._turn_away(error)

    def _turn_away(self, error: OSError) -> None:
        """Accept a connection with the spare descriptor and close it.

        Without a free descriptor it would stay in the backlog, and `select` would return at once, again and again.
        """
        logger.error("cannot accept a connection: %s", error)
        os.close(self._spare)
        try:
            self._listener.accept()[0].close()
        except OSError:
            pass
        self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
