"""The hub's server on `hub.sock`: answers what workers request of the program that owns the tree."""

from __future__ import annotations

import socket
from collections.abc import Callable

from suitkaise.errors import MailboxFull
from suitkaise.messaging import codec, wire
from suitkaise.messaging.bundle_tables import Known
from suitkaise.messaging.pieces import Pieces
from suitkaise.messaging.protocol import Connect, HubAnswer, decode_request
from suitkaise.messaging.registry import Registry
from suitkaise.messaging.send_buffer import SendBuffer
from suitkaise.platform.log_queue import QueuedLogger
from suitkaise.platform.reactor import Reactor, SerialExecutor
from suitkaise.platform.sockets import Peers, accept_own, listen_unix
from suitkaise.runtime.requests import Requests

__all__ = ["HubServer"]

logger: QueuedLogger = QueuedLogger("suitkaise.hub")

MAX_CONNECTIONS = 256
"""Connections that one process may have: one, and one more for each signal handler that interrupts a request."""


class HubServer:
    """Listens at `path`, for processes of the same user only. `path_of`: returns the path of the worker in a process.

    All requests are read in the reactor's thread, and must not block it; answers are sent from any thread.
    """

    def __init__(
        self, path: str, reactor: Reactor, registry: Registry, path_of: Callable[[int], str] = lambda pid: ""
    ) -> None:
        self.reactor = reactor
        self.registry = registry
        self.path_of: Callable[[int], str] = path_of
        self.administration: SerialExecutor = SerialExecutor("suitkaise-administration")
        self._connections: set[_WorkerConnection] = set()
        self._peers = Peers(MAX_CONNECTIONS)
        self._path = path
        self._listener: socket.socket = self._listen()

    def _listen(self) -> socket.socket:
        listener = listen_unix(self._path)
        self.reactor.call_soon_threadsafe(lambda: self.reactor.add_reader(listener, self._accept))
        return listener

    def listen_again(self) -> None:
        """Listen at the path anew, after its socket was removed; the connections that there are stay.

        Raises:
            OSError: that is not possible.
        """
        former, self._listener = self._listener, self._listen()

        def close() -> None:
            self.reactor.remove_reader(former)
            former.close()

        self.reactor.call_soon_threadsafe(close)

    def _accept(self) -> None:
        try:
            for sock, pid in accept_own(self._listener, self._peers):
                self._connections.add(_WorkerConnection(self, sock, pid))
        except OSError as error:
            logger.error("cannot accept a connection: %s", error)
            self.reactor.accept_later(self._listener, self._accept)

    def forget(self, connection: _WorkerConnection) -> bool:
        """Remove a connection that is being closed; return False if it was removed before."""
        if connection not in self._connections:
            return False
        self._connections.remove(connection)
        self._peers.forget(connection.pid)
        return True

    def close(self) -> None:
        """Close all connections; called after the reactor has ended."""
        self.administration.close()
        self.close_after_fork()

    def close_after_fork(self) -> None:
        """Close the descriptors; in a forked child of the hub they are the parent's."""
        self._listener.close()
        for connection in self._connections:
            connection.sock.close()


class _WorkerConnection:
    """The connection of one process."""

    def __init__(self, server: HubServer, sock: socket.socket, pid: int) -> None:
        self.sock = sock
        self._server = server
        self.pid: int = pid
        self._parser = wire.Parser(decode=decode_request, lends=True)
        self._out = SendBuffer(server.reactor, sock, f"process {pid}", self._on_event, corked=False)
        self._known = Known()
        self._requests = Requests(server.registry, server.administration, self._answer, self._known)
        self._out.resume_reading()

    def _on_event(self) -> None:
        self._out.flush()
        try:
            frames = self._parser.receive(self.sock)
        except BlockingIOError:
            return
        except (wire.PeerClosed, OSError):
            self._close()
            return
        except wire.WireError as error:
            self._close(f"invalid frame: {error}")
            return
        sender = self._server.path_of
        for frame, payload in frames:
            self._known.note_arrived(payload)
            if isinstance(frame, Connect):
                self._connect(frame.number, frame.path)
            else:
                self._requests.serve(frame, payload, sender(self.pid))

    def _connect(self, number: int, path: str) -> None:
        made = self._server.registry.connect(path, self._server.path_of(self.pid))
        if made is not None:
            with made.end:
                answer = wire.encode(HubAnswer(number, True, connected=True), codec.dumps(made[1:]))
                if self._out.pass_on(answer, made.end.fileno()):
                    return
        self._answer(HubAnswer(number, True), codec.dumps(None))

    def _answer(self, answer: HubAnswer, data: bytes | Pieces) -> None:
        """Send an answer, from any thread."""
        try:
            self._out.write(wire.frame(answer, data))
        except MailboxFull:
            self._server.reactor.call_soon_threadsafe(lambda: self._close("the process does not read its answers"))

    def _close(self, reason: str = "") -> None:
        """Close the connection (reactor's thread). A `reason` is logged as a warning."""
        if not self._server.forget(self):
            return
        if reason:
            logger.warning("connection from pid %d closed: %s", self.pid, reason)
        self._out.close()
        self._requests.close()
