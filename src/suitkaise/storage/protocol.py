"""What clients and the storage actor say to each other: typed headers of frames, see `messaging.wire`.

A client says `Hello` with its id, then sends requests with ascending numbers, the value's bytes as payload. A
`Reply` to request n also tells that every request up to n was carried out, but for those that were refused,
each of which gets a reply of its own. So a *quiet* request (one whose sender does not wait) costs no reply
of its own. The actor keeps for each client the last number it carried out and the replies that may not have
arrived; they are in the answer to `Hello`, and the client sends again what comes after.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Annotated, Any, TypeAlias

import msgspec

from suitkaise.storage.records import Encoding, Metadata

__all__ = [
    "VERSION",
    "WINDOW",
    "Append",
    "Atomic",
    "ClientRecord",
    "ContainerVersion",
    "Forget",
    "Hello",
    "Increment",
    "Put",
    "PutMode",
    "Remove",
    "Reply",
    "ReplyCode",
    "Request",
    "Welcome",
    "decode_answer",
    "decode_request",
]

VERSION = 1
"""Of the protocol; client and actor are of one program, so there is nothing to negotiate."""

WINDOW = 1024
"""How many requests of one client may be under way."""


_Encoding: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=int(max(Encoding)))]


class ReplyCode(enum.IntEnum):
    """How a request went. Anything but `OK`: nothing of it was stored."""

    OK = 0
    CONFLICT = 1  # another revision than expected; detail: path and name
    EXISTS = 2
    MISSING = 3
    OWNER_DEAD = 4
    NOT_A_NUMBER = 5
    NOT_A_LIST = 6
    FULL = 7


class PutMode(enum.IntEnum):
    """What must be the case for a value to be put."""

    ANY = 0
    NEW = 1
    EXISTING = 2


class Hello(msgspec.Struct, array_like=True, tag=0, gc=False):
    """A client presents itself."""

    version: int
    client: bytes


class Put(msgspec.Struct, array_like=True, tag=1, gc=False):
    """Store the payload as a value. `expect` is the revision that the entry must have, 0 for none yet."""

    request: int
    quiet: bool
    path: str
    name: str
    encoding: _Encoding
    rule: PutMode = PutMode.ANY
    expect: int | None = None
    metadata: Metadata | None = None  # None: those that the entry has
    owner: str | None = None


class Remove(msgspec.Struct, array_like=True, tag=2, gc=False):
    """Remove an entry, if it has the revision `expect`."""

    request: int
    quiet: bool
    path: str
    name: str
    missing_ok: bool = False
    expect: int | None = None
    owner: str | None = None


class Increment(msgspec.Struct, array_like=True, tag=3, gc=False):
    """Add a number (encoding and bytes) to the one that an entry holds. The reply's detail is the sum."""

    request: int
    quiet: bool
    path: str
    name: str
    amount: tuple[_Encoding, bytes]
    start: tuple[_Encoding, bytes]
    owner: str | None = None


class Append(msgspec.Struct, array_like=True, tag=4, gc=False):
    """Append the payload, one encoded value, to the list that an entry holds."""

    request: int
    quiet: bool
    path: str
    name: str
    owner: str | None = None


class ContainerVersion(msgspec.Struct, array_like=True, gc=False):
    """The state of a container that a transaction relied on: how many entries, and their highest revision."""

    path: str
    count: int
    revision: int


class Atomic(msgspec.Struct, array_like=True, tag=5):
    """All of it or nothing. The payload holds the values of the puts one after another, `sizes` long.

    `entries` are what the transaction has relied on: path, name, revision (0: there was none). Its operations
    expect nothing by themselves.
    """

    request: int
    quiet: bool
    operations: list[Put | Remove]
    sizes: list[int]
    entries: list[tuple[str, str, int]]
    containers: list[ContainerVersion]
    owner: str | None = None


class Forget(msgspec.Struct, array_like=True, tag=6, gc=False):
    """Remove what `owner` marked with `remove_on_process_join`; if `dead`, refuse what it writes from now on.

    May be repeated at will, so it is not remembered as carried out.
    """

    request: int
    quiet: bool
    owner: str
    dead: bool


Request: TypeAlias = Put | Remove | Increment | Append | Atomic | Forget


class Reply(msgspec.Struct, array_like=True, tag=0, gc=False):
    """How request number `request` went; `revision` is the storage's after it."""

    request: int
    status: ReplyCode = ReplyCode.OK
    revision: int = 0
    detail: Any = None  # a number (encoding and bytes), or an entry (path and name)


class Welcome(msgspec.Struct, array_like=True, tag=1):
    """The answer to `Hello`: the client's last request that was carried out, and replies it may lack."""

    last: int
    replies: list[Reply]


class ClientRecord(msgspec.Struct, array_like=True):
    """What the store remembers about a client, in the transactions that carry its requests out."""

    last: int = 0
    time: float = 0.0
    waited: bool = False  # for the reply to the last request; then it has all earlier ones
    replies: list[Reply] = msgspec.field(default_factory=list)


decode_request: Callable[[memoryview], Hello | Request] = msgspec.msgpack.Decoder(
    Hello | Put | Remove | Increment | Append | Atomic | Forget
).decode
decode_answer: Callable[[memoryview], Reply | Welcome] = msgspec.msgpack.Decoder(Reply | Welcome).decode
