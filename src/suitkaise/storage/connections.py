"""The storage actor's connections: who may connect, what came, and what waits to be sent.

Nothing here blocks. A peer that does not read is not read from either, so what waits for it stays bounded.
"""

from __future__ import annotations

import logging
import os
import selectors
import socket
import struct
from typing import TypeAlias

from suitkaise.messaging import wire
from suitkaise.storage import protocol

__all__ = ["Connection", "Connections", "Requests"]

logger: logging.Logger = logging.getLogger("suitkaise.storage")

MAX_OUTPUT = 1 << 20
"""Bytes that may wait for a peer before nothing more is read from it."""

_ACCEPT_AT_ONCE = 64
_BUFFER = 1 << 20
_CREDENTIALS = struct.Struct("3i")


class Connection:
    """One connection."""

    __slots__ = ("client", "events", "output", "parser", "pid", "sock")

    def __init__(self, sock: socket.socket, pid: int) -> None:
        self.sock: socket.socket = sock
        self.pid: int = pid
        self.parser: wire.Parser = wire.Parser(decode=protocol.decode_request)
        self.output: bytearray = bytearray()
        self.events: int = selectors.EVENT_READ
        self.client: bytes | None = None

    def __str__(self) -> str:
        return f"the connection from process {self.pid}"


Requests: TypeAlias = list[tuple[Connection, list[wire.Frame]]]


class Connections:
    """All connections, the listener and the descriptors that wake, behind one selector."""

    def __init__(self, listener: socket.socket) -> None:
        listener.setblocking(False)
        self._listener = listener
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ)
        self._peers: set[Connection] = set()
        self._wakes: set[int] = set()
        self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        self.dropped: int = 0
        """How many connections have ended so far."""

    def __len__(self) -> int:
        return len(self._peers)

    def __contains__(self, peer: Connection) -> bool:
        return peer in self._peers

    def clients(self) -> set[bytes]:
        """The ids of the clients that are connected."""
        return {peer.client for peer in self._peers if peer.client is not None}

    def wake_by(self, descriptors: tuple[int, ...]) -> None:
        """Return from `wait` when one of these is readable, too."""
        wanted = set(descriptors)
        for gone in self._wakes - wanted:
            self._selector.unregister(gone)
        for fresh in wanted - self._wakes:
            self._selector.register(fresh, selectors.EVENT_READ)
        self._wakes = wanted

    def wait(self, timeout: float | None) -> Requests:
        """Wait until there is something; returns the requests that came, by peer and in order."""
        requests: Requests = []
        for key, events in self._selector.select(timeout):
            peer = key.data
            if peer is None:
                if key.fileobj is self._listener:
                    self._accept()
                continue
            if events & selectors.EVENT_WRITE:
                self.send(peer, b"")
            if events & selectors.EVENT_READ and peer in self._peers:
                frames = self._receive(peer)
                if frames:
                    requests.append((peer, frames))
        return requests

    def _receive(self, peer: Connection) -> list[wire.Frame]:
        try:
            return peer.parser.receive(peer.sock)
        except BlockingIOError:
            return []
        except wire.WireError as error:
            self.drop(peer, f"it sent what is no request: {error}")
        except wire.PeerClosed as closed:
            if peer.parser.pending:
                logger.info("%s: %s", peer, closed)
            self.drop(peer)
        except OSError:
            self.drop(peer)
        return []

    def send(self, peer: Connection, data: bytes | bytearray) -> None:
        """Send to a peer what it takes now, and keep the rest until it takes more."""
        output = peer.output
        if output:
            output += data
            data = output
        elif not data:
            self._listen(peer)
            return
        try:
            sent = peer.sock.send(data, wire.MSG_NOSIGNAL)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.drop(peer)
            return
        if data is output:
            del output[:sent]
        elif sent < len(data):
            output += data[sent:]
        if output or peer.events != selectors.EVENT_READ:
            self._listen(peer)

    def _listen(self, peer: Connection) -> None:
        waiting = len(peer.output)
        events = selectors.EVENT_READ if waiting < MAX_OUTPUT else 0
        if waiting:
            events |= selectors.EVENT_WRITE
        if events != peer.events:
            peer.events = events
            self._selector.modify(peer.sock, events, peer)

    def drop(self, peer: Connection, why: str = "") -> None:
        """Close a connection. `why` is logged if there is something to tell."""
        if peer not in self._peers:
            return
        if why:
            logger.warning("%s is closed: %s", peer, why)
        self._peers.discard(peer)
        self._selector.unregister(peer.sock)
        peer.sock.close()
        self.dropped += 1

    def replace(self, peer: Connection, client: bytes) -> None:
        """`peer` is where this client is now; an older connection of it is closed."""
        for other in [other for other in self._peers if other.client == client and other is not peer]:
            self.drop(other)
        peer.client = client

    def _accept(self) -> None:
        for _ in range(_ACCEPT_AT_ONCE):
            try:
                sock, _ = self._listener.accept()
            except BlockingIOError:
                return
            except ConnectionAbortedError:
                continue
            except OSError as error:
                self._turn_away(error)
                return
            pid, uid = _who(sock)
            if uid != os.geteuid():
                logger.warning("a connection from process %s of user %s was refused", pid, uid)
                sock.close()
                continue
            sock.setblocking(False)
            for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
                sock.setsockopt(socket.SOL_SOCKET, option, _BUFFER)
            peer = Connection(sock, pid)
            self._peers.add(peer)
            self._selector.register(sock, selectors.EVENT_READ, peer)

    def _turn_away(self, error: OSError) -> None:
        """Out of descriptors: accept with the spare one and close; else `select` would return for ever."""
        logger.error("a connection cannot be accepted: %s", error)
        os.close(self._spare)
        try:
            self._listener.accept()[0].close()
        except OSError:
            pass
        self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def close(self) -> None:
        """Close all connections; not the listener, which is the caller's."""
        for peer in list(self._peers):
            self.drop(peer)
        self._selector.close()
        os.close(self._spare)


def _who(sock: socket.socket) -> tuple[int, int]:
    """Process and user at the other end; where the system does not tell, the directory's mode let it in."""
    if not hasattr(socket, "SO_PEERCRED"):
        return 0, os.geteuid()
    data = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(data)
    return pid, uid
