"""What the processes of workers on a node request of the program: passed on over the node's connection."""

from __future__ import annotations

import itertools
import socket
import time
from collections.abc import Callable
from typing import Any

import msgspec

from suitkaise.cluster.link import accept_later
from suitkaise.cluster.protocol import AnswerOfHub, RequestOfWorker, WorkerGone
from suitkaise.engines.shared_tracker import serve_tracker
from suitkaise.errors import MailboxFull
from suitkaise.messaging import codec, wire
from suitkaise.messaging.answer import Answer
from suitkaise.messaging.bundle_tables import NOTHING, Known
from suitkaise.messaging.messages import Payload
from suitkaise.messaging.pieces import Pieces
from suitkaise.messaging.protocol import (
    Ask,
    Connect,
    HubAnswer,
    HubRequest,
    RequestKind,
    Tell,
    WorkerFrame,
    decode_request,
)
from suitkaise.messaging.send_buffer import SendBuffer
from suitkaise.platform.log_queue import QueuedLogger
from suitkaise.platform.reactor import Reactor
from suitkaise.platform.sockets import Peers, accept_own, listen_unix

__all__ = ["Relay"]

logger: QueuedLogger = QueuedLogger("suitkaise.cluster")

Send = Callable[..., None]
"""Sends a frame and its payload."""

_MAX_CONNECTIONS = 256
"""Connections that one process may have, as at the program itself."""

_TELL_AGAIN = 0.1
"""Seconds after which the program is told again of messages that were refused: there was no room for that either."""


class Relay:
    """Listens at `path`, as the program does on its own machine, and passes on what processes of workers send.

    No payload is decoded here. A few requests are about this machine and are answered here: those of `local`.

    Args:
        path: of the socket.
        reactor: the I/O thread.
        path_of: returns the path of the worker in the process of a pid.
        send: sends a frame to the program; raises MailboxFull, but not with `force`.
        local: answers requests of these kinds.
    """

    def __init__(
        self,
        path: str,
        reactor: Reactor,
        path_of: Callable[[int], str],
        send: Send,
        local: dict[RequestKind, Callable[[], Answer[Any]]],
    ) -> None:
        self.reactor = reactor
        self.path_of = path_of
        self.send = send
        self.local: dict[RequestKind, Callable[[], Answer[Any]]] = {
            RequestKind.RESOURCE_TRACKER: serve_tracker,
            **local,
        }
        self._numbers = itertools.count(1)
        self._connections: dict[int, _Connection] = {}
        self._own: dict[int, Answer[Any]] = {}
        self._dead_letters: dict[str, tuple[str, int]] = {}  # by path: why, and how many
        self._peers = Peers(_MAX_CONNECTIONS)
        self._listener = listen_unix(path)
        reactor.call_soon_threadsafe(lambda: reactor.add_reader(self._listener, self._accept))

    def _accept(self) -> None:
        try:
            for sock, pid in accept_own(self._listener, self._peers):
                number = next(self._numbers)
                self._connections[number] = _Connection(self, number, sock, pid)
        except OSError as error:
            accept_later(self.reactor, self._listener, self._accept, error)

    def request(self, kind: RequestKind, path: str = "", argument: object = None, *, force: bool = True) -> Answer[Any]:
        """Request something of the program for this node itself (reactor's thread).

        Raises:
            MailboxFull: too much waits to be sent already. Not with `force`.
        """
        number, answer = next(self._numbers), Answer[Any]()
        self.send(RequestOfWorker(0, "", HubRequest(number, kind, path)), codec.dumps(argument), force=force)
        self._own[number] = answer
        return answer

    def dead_letter(self, path: str, why: str) -> None:
        """Have the program count a message that was told to the worker at `path` (reactor's thread)."""
        all_told = not self._dead_letters
        self._dead_letters[path] = (why, self._dead_letters.get(path, ("", 0))[1] + 1)
        if all_told:
            self._tell_dead_letters()

    def _tell_dead_letters(self) -> None:
        for path, letters in list(self._dead_letters.items()):
            try:
                self.request(RequestKind.DEAD_LETTER, path, letters, force=False)
            except MailboxFull:
                self.reactor.call_at(time.monotonic() + _TELL_AGAIN, self._tell_dead_letters)
                return
            del self._dead_letters[path]

    def answer(self, frame: AnswerOfHub, payload: bytes) -> None:
        """Pass on an answer of the program (reactor's thread)."""
        if not frame.connection:
            self._own.pop(frame.answer.number).settle(frame.answer.ok, Payload(data=payload))
            return
        connection = self._connections.get(frame.connection)
        if connection is not None:
            connection.answer(frame.answer, payload)

    def forget(self, connection: _Connection) -> bool:
        """Remove a connection that is being closed; return False if it was removed before."""
        if self._connections.pop(connection.number, None) is None:
            return False
        self._peers.forget(connection.pid)
        self.send(WorkerGone(connection.number), b"", force=True)
        return True

    def close(self) -> None:
        """Stop listening (after the reactor has ended)."""
        self._listener.close()


class _Connection:
    """The connection of one process."""

    def __init__(self, relay: Relay, number: int, sock: socket.socket, pid: int) -> None:
        self.number = number
        self.pid = pid
        self._relay = relay
        self._known = Known()
        self._parser = wire.Parser(decode=decode_request, lends=True)
        self._out = SendBuffer(relay.reactor, sock, f"process {pid}", self._on_event, corked=False)
        self._out.resume_reading()

    def _on_event(self) -> None:
        self._out.flush()
        try:
            frames = self._parser.receive(self._out.sock)
        except BlockingIOError:
            return
        except (OSError, wire.WireError) as error:
            self._close("" if isinstance(error, OSError) else f"invalid frame: {error}")
            return
        for frame, payload in frames:
            self._known.note_arrived(payload)
            self._pass_on(frame, NOTHING.for_peer(payload))

    def _pass_on(self, frame: WorkerFrame, payload: bytes) -> None:
        match frame:
            case Connect(number):  # two machines share no memory and pass no descriptors
                self.answer(HubAnswer(number, True), codec.dumps(None))
                return
            case HubRequest(number, kind) if kind in self._relay.local:
                try:
                    answer = self._relay.local[kind]()
                except Exception as error:  # no thread is left for it
                    self._answer_locally(number, False, Payload(error))
                else:
                    answer.when_done(lambda done: self._answer_locally(number, *answer.outcome()))
                return
            case Ask(deadline=deadline) if deadline is not None:
                frame = msgspec.structs.replace(frame, deadline=deadline - time.monotonic())
        try:
            self._relay.send(RequestOfWorker(self.number, self._relay.path_of(self.pid), frame), payload, force=False)
        except MailboxFull as error:
            if isinstance(frame, Tell) and not frame.awaited:
                self._relay.dead_letter(frame.path, str(error))
            self._answer_locally(frame.number, False, Payload(error))

    def _answer_locally(self, number: int, ok: bool, payload: Payload) -> None:
        self.answer(HubAnswer(number, ok), payload.data)

    def answer(self, answer: HubAnswer, data: bytes | Pieces) -> None:
        """Send an answer to the process, from any thread."""
        try:
            self._out.write(wire.frame(answer, data))
        except MailboxFull:
            self._relay.reactor.call_soon_threadsafe(lambda: self._close("the process does not read its answers"))

    def _close(self, reason: str = "") -> None:
        if not self._relay.forget(self):
            return
        if reason:
            logger.warning("connection from pid %d closed: %s", self.pid, reason)
        self._out.close()
