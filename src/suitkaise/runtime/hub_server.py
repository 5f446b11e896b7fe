"""The hub's front desk: answers on `hub.sock` what workers ask of the program that owns the tree."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import time
from typing import Any

from suitkaise.errors import NotSerializable, SuitkaiseError
from suitkaise.messaging import codec, wire
from suitkaise.messaging.messages import Answer, Message, Payload, portable_error
from suitkaise.messaging.registry import Registry
from suitkaise.platform.reactor import Reactor, SerialExecutor
from suitkaise.platform.sockets import accept_own

__all__ = ["HubServer"]

logger: logging.Logger = logging.getLogger("suitkaise.desk")

BACKLOG = 64 << 20
_STEP = 1 << 20


class HubServer:
    """Listens at `path`, for processes of the same user only."""

    def __init__(self, path: str, reactor: Reactor, registry: Registry) -> None:
        self._reactor = reactor
        self._registry = registry
        self._connections: set[_Connection] = set()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(path)
        os.chmod(path, 0o600)
        self._listener.listen(512)
        self._listener.setblocking(False)
        self._errands = SerialExecutor("suitkaise-desk")
        reactor.call_soon_threadsafe(lambda: reactor.add_reader(self._listener, self._accept))

    def _accept(self) -> None:
        try:
            for sock, _ in accept_own(self._listener):
                self._connections.add(_Connection(self, sock))
        except OSError as error:  # out of descriptors, most likely: what waits to connect waits a little longer
            logger.error("cannot take a connection: %s", error)
            self._reactor.remove_reader(self._listener)
            self._reactor.call_at(
                time.monotonic() + 0.5, lambda: self._reactor.add_reader(self._listener, self._accept)
            )

    def close(self) -> None:
        """Close all connections; called when the reactor has ended."""
        self._errands.close()
        self.close_after_fork()

    def close_after_fork(self) -> None:
        """Close the descriptors; in a forked child of the hub they are the parent's."""
        self._listener.close()
        for connection in self._connections:
            connection.sock.close()


class _Connection:
    """One process that is connected."""

    def __init__(self, desk: HubServer, sock: socket.socket) -> None:
        self.sock = sock
        self._desk = desk
        self._parser = wire.Parser()
        self._out = bytearray()
        self._waits: dict[int, Answer[Any]] = {}  # what may take for ever; the others end by themselves
        desk._reactor.add_reader(sock, self._on_event)

    def _on_event(self) -> None:
        if self._out:
            self._flush()
        try:
            frames = self._parser.receive(self.sock)
        except BlockingIOError:
            return
        except (wire.PeerClosed, OSError):
            self._close()
            return
        except wire.WireError as error:
            logger.warning("closed a connection: %s", error)
            self._close()
            return
        for frame in frames:
            self._serve(frame)

    def _serve(self, frame: wire.Frame) -> None:
        header, payload = frame
        registry = self._desk._registry
        number = header[-1] if header else None
        try:
            match header:
                case ("post", "administer", str(path), int()):  # declarations of the user's: decoding them may block
                    self._desk._errands.submit(lambda: self._post(number, "administer", path, payload))
                case ("post", str(what), str(path), int()):
                    self._post(number, what, path, payload)
                case ("tell", ("message" | "call" | "get") as kind, str(path), int()):
                    registry.send(path, Message(kind, Payload(data=payload)))
                    self._reply(number, True, Payload(None))
                case ("ask", ("message" | "call" | "get") as kind, str(path), int()):
                    registry.send(
                        path,
                        Message(kind, Payload(data=payload), lambda ok, parcel: self._reply(number, ok, parcel)),
                    )
                case ("withdraw", int(withdrawn)):
                    waited_for = self._waits.pop(withdrawn, None)
                    if waited_for is not None:
                        waited_for.cancel()
                case _:
                    logger.warning("closed a connection: %r means nothing here", header)
                    self._close()
        except Exception as error:
            self._reply(number, False, Payload(error))

    def _post(self, number: Any, what: str, path: str, payload: bytes) -> None:
        try:
            answer = self._desk._registry.post(what, path, codec.loads(payload))
        except Exception as error:
            self._reply(number, False, Payload(error))
            return
        if what in ("join", "result", "down"):
            self._waits[number] = answer
        answer.add_done_callback(lambda done: self._pass_on(number, answer))

    def _pass_on(self, number: Any, answer: Answer[Any]) -> None:
        self._waits.pop(number, None)
        if not answer.cancelled():
            self._reply(number, *answer.outcome())

    def _reply(self, number: Any, ok: bool, parcel: Payload) -> None:
        """May be called from any thread."""
        try:
            data = parcel.data
        except NotSerializable as error:
            value = parcel.value
            stand_in = (
                portable_error(value, "hub")[0] if isinstance(value, BaseException) else SuitkaiseError(str(error))
            )
            ok, data = False, codec.dumps(stand_in)
        frame = wire.encode((number, ok), data)
        self._desk._reactor.call_soon_threadsafe(lambda: self._send(frame))

    def _send(self, frame: bytes) -> None:
        if self not in self._desk._connections:
            return
        if self._out and len(self._out) + len(frame) > BACKLOG:
            logger.warning("closed a connection that does not read its answers")
            self._close()
            return
        self._out += frame
        self._flush()

    def _flush(self) -> None:
        try:
            with memoryview(self._out) as view, view[:_STEP] as first:
                sent = self.sock.send(first, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._close()
            return
        del self._out[:sent]
        with contextlib.suppress(KeyError, ValueError):
            self._desk._reactor.set_writer(self.sock, self._on_event, also=bool(self._out))

    def _close(self) -> None:
        self._desk._connections.discard(self)
        self._desk._reactor.remove_reader(self.sock)
        self.sock.close()
        for waited_for in list(self._waits.values()):
            waited_for.cancel()
