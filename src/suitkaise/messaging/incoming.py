"""The receiver's side of a direct connection: one thread of another process sends messages over it; see `direct`."""

from __future__ import annotations

import contextlib
import functools
import socket

import msgspec

from suitkaise.messaging import wire
from suitkaise.messaging.bundle_tables import Known
from suitkaise.messaging.connection import FrameWriter
from suitkaise.messaging.messages import Message, Payload
from suitkaise.messaging.protocol import DirectAnswer, DirectReturn, decode_direct, decode_several
from suitkaise.platform.sockets import blocking

__all__ = ["PATIENCE", "DirectReply", "Incoming"]

PATIENCE = 5.0
"""Seconds for which an answer waits for a sender that does not read; then its connection is closed."""


class Incoming:
    """The connection of one sender. `receive` and `cut` are for the worker's own thread, answers come from any.

    Args:
        descriptor: the socket.
        sender: the path of the worker at the other end.
        number: the number of the connection, see `ConnectionCounts`.
        taken: the word in which its messages are counted.
    """

    def __init__(self, descriptor: int, sender: str, number: int, taken: memoryview[int]) -> None:
        self.number = number
        self.taken = taken
        self._sender = sender
        self._sock = blocking(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, descriptor))
        self._parser = wire.Parser(decode=decode_direct, lends=True)
        self._writer = FrameWriter(self._sock, PATIENCE)
        self._known = Known()
        self._sends_back = False

    def receive(self) -> list[Message]:
        """Read once, without waiting; return the messages that are complete now.

        Raises:
            PeerClosed, OSError, WireError: nothing more comes.
            BlockingIOError: nothing has come.
        """
        messages = []
        for header, payload in self._parser.receive(self._sock, socket.MSG_DONTWAIT):
            if header.kind == "several":
                messages += self._several(payload)
                continue
            self._known.note_arrived(payload)
            reply = None if header.number is None else DirectReply(self.answer, header.number)
            messages.append(
                Message(header.kind, Payload(data=payload), reply, self._sender, header.carrier, self, header.deadline)
            )
        return messages

    def _several(self, payload: bytes) -> list[Message]:
        try:
            bodies = decode_several(payload)
        except msgspec.DecodeError as error:
            raise wire.WireError(f"several messages in a frame are invalid: {error}") from None
        return [Message("message", Payload(data=body), None, self._sender, None, self) for body in bodies]

    def cut(self) -> list[Message]:
        """Let the sender send nothing more; return the messages that it has sent before. Answers can be sent still.

        Each message is either here as a whole, or the sender gets an error and keeps it.
        """
        messages: list[Message] = []
        with contextlib.suppress(wire.PeerClosed, wire.WireError, OSError):
            self._sock.shutdown(socket.SHUT_RD)
            while True:
                messages += self.receive()
        return messages

    def answer(self, number: int, ok: bool, payload: Payload) -> None:
        """Send an answer; if the sender does not read for `PATIENCE`, give up the connection."""
        data = payload.parts_for(self._known)
        try:
            self._writer.write(DirectAnswer(number, ok), data)
        except OSError as error:
            if wire.of_a_signal_handler(error):
                raise
            self._give_up()
        self._known.note_sent(data)

    def send_back(self, message: Message) -> bool:
        """Send a message back to its sender; return False for one that goes back to the hub.

        A sender reads only while it waits for an answer. So a tell goes back to the sender if an ask has gone back
        before: then the sender sends both again, in their order.
        """
        number = message.reply.args[0] if isinstance(message.reply, DirectReply) else None
        self._sends_back = self._sends_back or number is not None
        if self._sends_back:
            header = DirectReturn(message.kind, number, message.carrier, message.deadline)  # type: ignore[arg-type]
            data = message.body.data
            try:
                self._writer.write(header, data)
            except OSError as error:
                if wire.of_a_signal_handler(error):
                    raise
                self._give_up()
        return self._sends_back

    def _give_up(self) -> None:
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection."""
        self.taken.release()
        self._sock.close()

    def __del__(self) -> None:
        if hasattr(self, "_sock"):
            self._sock.close()


class DirectReply(functools.partial[None]):
    """Sends the answer to one message over the connection by which the message came: `answer` of that, with a number.

    To make one and to call it takes no function in Python.
    """
