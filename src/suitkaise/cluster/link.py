"""The connection between the program and a node, over TCP: frames both ways, and the news of its end.

Both sides prove that they know the program's key, which Ray has handed to the node, before a frame is read: frames hold
pickles, so a stranger could have code executed. The bytes are not encrypted, as Ray's own are not.
"""

from __future__ import annotations

import contextlib
import hmac
import os
import socket
import time
from collections.abc import Callable
from typing import Any

from suitkaise.messaging import wire
from suitkaise.messaging.pieces import Pieces
from suitkaise.messaging.send_buffer import SendBuffer
from suitkaise.platform.log_queue import QueuedLogger
from suitkaise.platform.reactor import Reactor, TimerHandle

__all__ = ["GREETING_TIME", "KEY_BYTES", "NAME_BYTES", "Link", "Listener", "NotOurs", "accept_later", "connect"]

logger: QueuedLogger = QueuedLogger("suitkaise.cluster")

KEY_BYTES = 32
NAME_BYTES = 16
"""The length of the name by which a node tells the program which one it is."""

GREETING_TIME = 10.0
"""Seconds within which the other side must have proved that it knows the key."""

ROOM = 1 << 20
"""Bytes: as long as so many wait to be sent, streams of data are not read from."""

_PROOF_BYTES = 32
_GREETING_BYTES = NAME_BYTES + KEY_BYTES + _PROOF_BYTES


class NotOurs(ConnectionError):
    """The other side does not know the key."""


class Link:
    """An established connection. Any thread may send; the reactor's thread reads.

    Args:
        reactor: the I/O thread.
        sock: the socket.
        name: the name of the other side, for errors.
        decode: decodes a header.
        on_frame: takes header and payload (reactor's thread).
        on_end: called once when the connection has ended by itself (reactor's thread), with the reason, and whether the
            other side has closed it.
    """

    def __init__(
        self,
        reactor: Reactor,
        sock: socket.socket,
        name: str,
        decode: Callable[[memoryview], Any],
        on_frame: Callable[[Any, bytes], None],
        on_end: Callable[[str, bool], None],
    ) -> None:
        self.heard: float = time.monotonic()
        """When the last bytes of the other side were read."""
        self.longest_silence: float = 0.0
        """The longest time in seconds between two such reads."""
        self.is_held: bool = False
        """Whether nothing is sent."""
        self.on_room: Callable[[], None] = lambda: None
        """Called again and again while `has_room` is true (reactor's thread)."""
        self._on_frame = on_frame
        self._on_end = on_end
        self._ended = False
        self._parser = wire.Parser(max_header=wire.MAX_PAYLOAD, decode=decode, lends=True)
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = SendBuffer(reactor, sock, name, self._on_event, corked=False)

    def begin(self) -> None:
        """Read from now on (reactor's thread)."""
        self._buffer.resume_reading()

    def send(self, header: wire.Header, payload: bytes | Pieces = b"", *, force: bool = True) -> None:
        """Send a frame without blocking.

        Raises:
            MailboxFull: too much waits to be sent. Not with `force`.
        """
        self._buffer.write(wire.frame(header, payload, long_header=True), force=force)

    @property
    def has_room(self) -> bool:
        """Whether so little waits to be sent that a stream of data may add to it: other messages wait behind it."""
        return self._buffer.waiting < ROOM

    def send_last(self, header: wire.Header) -> None:
        """Send a frame after which nothing is to be sent; close the connection if that would have to wait."""
        if self._buffer.waiting or self.is_held:
            self.close()
        else:
            self.send(header)

    def hold(self) -> None:
        """Send nothing, not even what waits, until the other side is heard again (reactor's thread)."""
        self.is_held = True
        self._buffer.cork()

    def close(self) -> None:
        """Close the connection (reactor's thread)."""
        self._ended = True
        self._buffer.close()

    def close_after_fork(self) -> None:
        """In a forked child of the program: close the socket, which is the parent's."""
        self._buffer.sock.close()

    def _on_event(self) -> None:
        self._buffer.flush()
        if self.has_room:
            self.on_room()
        try:
            frames = self._parser.receive(self._buffer.sock)
        except BlockingIOError:
            return
        except (OSError, wire.WireError) as error:
            self.close()
            self._on_end(str(error), isinstance(error, wire.PeerClosed))
            return
        now = time.monotonic()
        self.longest_silence, self.heard = max(self.longest_silence, now - self.heard), now
        if self.is_held:
            self.is_held = False
            self._buffer.uncork()
        for header, payload in frames:
            if self._ended:
                return
            self._on_frame(header, payload)


def accept_later(reactor: Reactor, listener: socket.socket, accept: Callable[[], None], error: OSError) -> None:
    """Log the error, and call `accept` again in a moment."""
    logger.error("cannot accept a connection: %s", error)
    reactor.accept_later(listener, accept)


class Listener:
    """Where the nodes of a program connect.

    Args:
        reactor: the I/O thread.
        host: the address at which the nodes reach this machine.
        on_connected: called with the node's name and the socket of each that knows the key (reactor's thread).
    """

    def __init__(self, reactor: Reactor, host: str, on_connected: Callable[[bytes, socket.socket], None]) -> None:
        self.key: bytes = os.urandom(KEY_BYTES)
        self._reactor = reactor
        self._on_connected = on_connected
        self._greetings: set[_Greeting] = set()
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            self._sock.bind((host, 0))
            self._sock.listen(512)
            self._sock.setblocking(False)
        except BaseException:
            self._sock.close()
            raise
        self.address: tuple[str, int] = self._sock.getsockname()[:2]
        reactor.call_soon_threadsafe(lambda: reactor.add_reader(self._sock, self._accept))

    def _accept(self) -> None:
        try:
            sock, (host, *_) = self._sock.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:
            accept_later(self._reactor, self._sock, self._accept, error)
            return
        sock.setblocking(False)
        self._greetings.add(_Greeting(self._reactor, sock, host, self.key, self._greeted))

    def _greeted(self, greeting: _Greeting, name: bytes | None) -> None:
        self._greetings.discard(greeting)
        if name is None:
            greeting.sock.close()
        else:
            self._on_connected(name, greeting.sock)

    def close(self) -> None:
        """Stop listening."""

        def close() -> None:
            self._reactor.remove_reader(self._sock)
            self._sock.close()
            for greeting in list(self._greetings):
                greeting.end(None)

        self._reactor.call_soon_threadsafe(close)

    def close_after_fork(self) -> None:
        """In a forked child of the program: close the sockets, which are the parent's."""
        self._sock.close()
        for greeting in self._greetings:
            greeting.sock.close()


class _Greeting:
    """The program's side of a new connection: a challenge, and the node's answer to it."""

    def __init__(
        self,
        reactor: Reactor,
        sock: socket.socket,
        host: str,
        key: bytes,
        done: Callable[[_Greeting, bytes | None], None],
    ) -> None:
        self.sock = sock
        self._host = host
        self._reactor = reactor
        self._key = key
        self._done = done
        self._challenge = os.urandom(KEY_BYTES)
        self._received = b""
        reactor.add_reader(sock, self._on_readable)
        self._timer: TimerHandle = reactor.call_at(time.monotonic() + GREETING_TIME, lambda: self.end(None))
        with contextlib.suppress(OSError):
            sock.send(self._challenge, wire.MSG_NOSIGNAL)

    def _on_readable(self) -> None:
        try:
            data = self.sock.recv(_GREETING_BYTES - len(self._received))
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._received += data
        if data and len(self._received) < _GREETING_BYTES:
            return
        name, challenge, proof = _split(self._received)
        if not data or not hmac.compare_digest(proof, _proof(self._key, b"node", self._challenge, challenge, name)):
            if data:
                logger.warning("a connection from %s was refused: it does not know the key", self._host)
            self.end(None)
            return
        with contextlib.suppress(OSError):
            self.sock.send(_proof(self._key, b"program", challenge, self._challenge, name), wire.MSG_NOSIGNAL)
        self.end(name)

    def end(self, name: bytes | None) -> None:
        self._timer.cancel()
        self._reactor.remove_reader(self.sock)
        self._done(self, name)


def connect(address: tuple[str, int], key: bytes, name: bytes) -> socket.socket:
    """Connect to the program, as the node of that name (blocking).

    Raises:
        NotOurs: something else listens there.
        OSError: as the socket raises it.
    """
    sock = socket.create_connection(address, GREETING_TIME)
    try:
        theirs, ours = _receive(sock, KEY_BYTES), os.urandom(KEY_BYTES)
        sock.sendall(name + ours + _proof(key, b"node", theirs, ours, name))
        if not hmac.compare_digest(_receive(sock, _PROOF_BYTES), _proof(key, b"program", ours, theirs, name)):
            raise NotOurs(f"at {address[0]}:{address[1]} listens something that does not know the key of the program")
        sock.settimeout(None)
        return sock
    except BaseException:
        sock.close()
        raise


def _receive(sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = sock.recv(count - len(data))
        if not more:
            raise ConnectionError("the program has closed the connection")
        data += more
    return data


def _split(data: bytes) -> tuple[bytes, bytes, bytes]:
    return data[:NAME_BYTES], data[NAME_BYTES : NAME_BYTES + KEY_BYTES], data[NAME_BYTES + KEY_BYTES :]


def _proof(key: bytes, side: bytes, theirs: bytes, ours: bytes, name: bytes) -> bytes:
    """Return what only a side that knows the key can make; both challenges and the side are in it."""
    return hmac.digest(key, side + b"|" + theirs + ours + name, "sha256")
