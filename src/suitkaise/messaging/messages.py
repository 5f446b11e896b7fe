"""Messages, as they travel between workers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Protocol, TypeAlias

from suitkaise.errors import WorkerFailed
from suitkaise.messaging import codec, wire
from suitkaise.messaging.bundle_tables import NOTHING, Known
from suitkaise.messaging.held_back import send_held
from suitkaise.messaging.pieces import Pieces
from suitkaise.messaging.portable_errors import text_of
from suitkaise.messaging.protocol import MessageKind
from suitkaise.messaging.tracing import Carrier
from suitkaise.records import dataclass

__all__ = [
    "MOST",
    "MOST_BYTES",
    "Message",
    "Origin",
    "Outcome",
    "Payload",
    "ReplyCallback",
    "Result",
    "Returned",
    "fails_again",
    "payload_of",
    "undecodable",
    "value_of",
]


MOST = 10_000
"""How many messages may wait for a worker that is being restarted."""

MOST_BYTES = 64 << 20
"""How many bytes of messages may wait for a process that is being restarted. (A thread gets the values themselves.)"""


class Payload:
    """A value that is encoded and decoded only when the other form is needed."""

    __slots__ = ("_data", "_pieces", "_value")

    kind: ClassVar[str] = "message"
    """The first word of the path in an error about a part of the value that cannot be sent."""

    def __init__(self, value: Any = None, *, data: bytes | None = None) -> None:
        self._value = value
        self._data = data
        self._pieces: Pieces | None = None

    @property
    def encoded(self) -> bool:
        """Whether the value has to be decoded, which may run code of the user's."""
        return self._data is not None

    @property
    def size(self) -> int:
        """Bytes of the encoded form; 0 as long as there is none."""
        return len(self._data or self._pieces or b"")

    @property
    def value(self) -> Any:
        """The value itself.

        If it came as bytes, each access decodes them again. But a large one is decoded once: its buffers stay in the
        memory that they have arrived in.
        """
        data: Any = self._data
        if data is None:
            return self._value
        value = codec.loads(data)
        if type(data) is bytearray:
            self._value, self._data = value, None
        return value

    def peek(self) -> Any:
        """Return the value, for one who only looks: the message of a timer is not taken by that."""
        return self.value

    @property
    def data(self) -> bytes:
        """The encoded value.

        Raises:
            NotSerializable: it cannot be sent.
        """
        data = self.parts
        if isinstance(data, Pieces):
            data = bytes(data)
        self._data, self._pieces = data, None
        return data

    def keep(self) -> None:
        """Copy a value in pieces: from now on it may change."""
        if self._pieces is not None:
            self._data, self._pieces = bytes(self._pieces), None

    @property
    def parts(self) -> bytes | Pieces:
        """The encoded value; a large one in pieces that are its own memory: to be sent at once, before it may change.

        Raises:
            NotSerializable: it cannot be sent.
        """
        return self.parts_for(NOTHING)

    def parts_for(self, known: Known) -> bytes | Pieces:
        """Return the same for a connection whose ends both have the definitions that are `known`.

        Raises:
            NotSerializable: it cannot be sent.
        """
        data: bytes | Pieces | None = self._data or self._pieces
        if data is not None:
            return known.for_peer(data)
        if isinstance(self._value, BaseException):
            data = codec.dumps_error(self._value, root=self.kind)
        else:
            data = codec.dumps_in_pieces(self._value, root=self.kind, known=known)
        if len(data) > wire.MAX_PAYLOAD:
            wire.check_length(f"the {self.kind}", len(data))
        if isinstance(data, Pieces):
            self._pieces = data
        else:
            self._data = data
        return data


class Returned(Payload):
    """The answer that a handler has returned."""

    __slots__ = ()

    kind: ClassVar[str] = "answer"


class Result(Payload):
    """The result of a worker."""

    __slots__ = ()

    kind: ClassVar[str] = "result"


def payload_of(argument: Payload | bytes) -> Payload:
    """Return the message of a request: it is encoded if it comes from a worker's process."""
    return Payload(data=argument) if isinstance(argument, bytes) else argument


ReplyCallback: TypeAlias = Callable[[bool, Payload], None]
"""Takes (True, the answer) or (False, the error)."""

Outcome: TypeAlias = tuple[bool, Payload]
"""(True, the answer) or (False, the error)."""


class Origin(Protocol):
    """A direct connection from another worker."""

    def send_back(self, message: Message) -> bool:
        """Send a message that was not handled back to its sender; return False for one that goes back to the hub."""
        ...


@dataclass(slots=True, eq=False)  # not frozen: that would double the time that making one takes
class Message:
    """A message of a tell (without `reply`) or an ask. A message is never changed. It is its own envelope in an inbox.

    `asker`: the path of the worker that has sent it, if another process than this one has. `carrier`: the sender's
    tracing context. `origin`: the direct connection by which it came. `deadline`: the time (monotonic) after which the
    asker waits no longer.
    """

    kind: MessageKind
    body: Payload
    reply: ReplyCallback | None = None
    asker: str = ""
    carrier: Carrier | None = None
    origin: Origin | None = None
    deadline: float | None = None

    reply_to: ClassVar[None] = None
    """What Pykka would set to the returned value: the worker's life cycle answers."""

    @property
    def message(self) -> Message:
        """What Pykka takes out of an envelope."""
        return self

    def fail(self, error: BaseException) -> None:
        """Answer with an error, if an answer is expected."""
        if self.reply is not None:
            send_held()
            self.reply(False, Payload(error))


def value_of(ok: bool, payload: Payload) -> Any:
    """Return the value of an answer, or raise its error."""
    try:
        value = payload.value
    except Exception as error:
        if not fails_again(payload):
            raise
        raise undecodable("the answer", payload, error) from error
    if ok:
        return value
    raise value


def fails_again(payload: Payload) -> bool:
    """Return whether a value that could not be decoded cannot be decoded now; else a signal handler has raised."""
    try:
        payload.value  # noqa: B018
    except Exception:
        return True
    return False


def undecodable(what: str, payload: Payload, error: Exception) -> WorkerFailed:
    """Return the error for a value that cannot be decoded here, such as one of a class that cannot be imported."""
    name = codec.first_name(payload.data)
    if name:
        what = f"{what}, which has the type {name},"
    failed = WorkerFailed(f"{what} cannot be decoded here: {type(error).__name__}: {text_of(error)}")
    failed.__cause__ = error
    return failed
