"""The messages between clients and the storage actor: typed headers of frames, see `messaging.wire`.

A client sends `Hello` with its id, then requests with ascending numbers; a value's bytes are the payload. A `Reply` to
request n acknowledges every request up to n, except those that were refused, each of which gets a reply of its
own. So a *quiet* request (one whose sender does not wait) costs no reply of its own. For each client the actor
keeps the number of the last request that was carried out, and the replies that may not have arrived; the answer to
`Hello` holds both, and the client sends later requests again.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Callable
from typing import Annotated, Any, TypeAlias

import msgspec

from suitkaise.errors import (
    EntryExists,
    EntryNotFound,
    OwnerDead,
    SnapshotError,
    StorageDamaged,
    StorageError,
    StorageFull,
    TransactionConflict,
)
from suitkaise.storage.records import Encoding, Metadata

__all__ = [
    "VERSION",
    "WINDOW",
    "Append",
    "Atomic",
    "Changes",
    "ClientRecord",
    "ContainerVersion",
    "DeclareIndex",
    "Forget",
    "Hello",
    "Increment",
    "Move",
    "Put",
    "PutMode",
    "Remove",
    "RemoveSelected",
    "Reply",
    "ReplyCode",
    "Request",
    "Restore",
    "SelectionVersion",
    "Watch",
    "Welcome",
    "decode_answer",
    "decode_request",
    "error_for",
    "where",
]

VERSION = 1
"""The version of the protocol. Client and actor belong to one program, so they negotiate nothing."""

WINDOW = 1024
"""How many requests of one client may be under way."""

_Encoding: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=int(max(Encoding)))]


class ReplyCode(enum.IntEnum):
    """The outcome of a request. With any other code than `OK`, nothing of the request was stored."""

    OK = 0
    CONFLICT = 1  # another revision than expected; detail: path and name
    EXISTS = 2
    MISSING = 3
    OWNER_DEAD = 4
    NOT_A_NUMBER = 5
    NOT_A_LIST = 6
    FULL = 7  # detail: what has no room left; None: the file system
    DAMAGED = 8  # detail: what is wrong with an entry, or with a snapshot
    UNREACHABLE = 9  # detail: which server is away


class PutMode(enum.IntEnum):
    """Which entries a `Put` may write."""

    ANY = 0
    NEW = 1  # the entry must not exist
    EXISTING = 2  # the entry must exist


class Hello(msgspec.Struct, array_like=True, tag=0, gc=False):
    """Introduce a client; the first message of a connection."""

    version: int
    client: bytes


class Put(msgspec.Struct, array_like=True, tag=1, gc=False):
    """Store the payload as a value. `expect` is the revision that the entry must have; 0: it must not exist."""

    request: int
    quiet: bool
    path: str
    name: str
    encoding: _Encoding
    mode: PutMode = PutMode.ANY
    expect: int | None = None
    metadata: Metadata | None = None  # None: keep the entry's
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
    """The state of a container that a transaction read: the number of entries, and their highest revision."""

    path: str
    count: int
    revision: int


class SelectionVersion(msgspec.Struct, array_like=True, gc=False):
    """The state of a selection that a transaction read: the number of entries, and their highest revision."""

    path: str
    metadata: Metadata
    count: int
    revision: int


class Atomic(msgspec.Struct, array_like=True, tag=5):
    """Commit a transaction: all operations or none. The payload holds the values of the puts, `sizes` bytes each.

    `entries` are the entries that the transaction read: path, name, revision (0: there was none). The operations
    have no conditions of their own.
    """

    request: int
    quiet: bool
    operations: list[Put | Remove]
    sizes: list[int]
    entries: list[tuple[str, str, int]]
    containers: list[ContainerVersion]
    owner: str | None = None
    selections: list[SelectionVersion] = []


class Forget(msgspec.Struct, array_like=True, tag=6, gc=False):
    """Remove the entries that `owner` marked with `remove_on_process_join`; if `dead`, refuse its later writes.

    Repeating it is harmless, so the store does not record it as carried out.
    """

    request: int
    quiet: bool
    owner: str
    dead: bool


class Watch(msgspec.Struct, array_like=True, tag=40):
    """Subscribe to the changes at and below a path; the first and only message of a watcher's connection.

    `since` is the revision that the watcher has seen; None: the present one.
    """

    version: int
    path: str
    since: int | None


class Move(msgspec.Struct, array_like=True, tag=20, gc=False):
    """Move an entry, with its metadata and owner, to another container or name."""

    request: int
    quiet: bool
    path: str
    name: str
    to_path: str
    to_name: str
    mode: PutMode = PutMode.ANY
    owner: str | None = None


class RemoveSelected(msgspec.Struct, array_like=True, tag=21, gc=False):
    """Remove those of the entries that have the wanted metadata. The reply's detail is their number."""

    request: int
    quiet: bool
    entries: list[tuple[str, str]]
    metadata: Metadata
    owner: str | None = None


class Restore(msgspec.Struct, array_like=True, tag=23, gc=False):
    """Restore the entries at and below `path` of a snapshot file; with `replace`, remove all others there.

    The reply's detail is the number of entries that were restored.
    """

    request: int
    quiet: bool
    file: bytes  # a path may hold any bytes
    path: str
    replace: bool
    owner: str | None = None


class DeclareIndex(msgspec.Struct, array_like=True, tag=22, gc=False):
    """Index these metadata keys, too."""

    request: int
    quiet: bool
    keys: list[str]
    owner: str | None = None


Request: TypeAlias = (
    Put | Remove | Increment | Append | Atomic | Forget | Move | RemoveSelected | DeclareIndex | Restore
)


class Reply(msgspec.Struct, array_like=True, tag=0, gc=False):
    """The outcome of request number `request`; `revision` is the storage's revision after it."""

    request: int
    status: ReplyCode = ReplyCode.OK
    revision: int = 0
    detail: Any = None  # a number (encoding and bytes), or an entry (path and name)


class Welcome(msgspec.Struct, array_like=True, tag=1):
    """The answer to `Hello`: the client's last request that was carried out, and replies that it may lack."""

    last: int
    replies: list[Reply]


class Changes(msgspec.Struct, array_like=True, tag=40):
    """What a watcher has not seen yet, up to `revision`: the payload is a list of revision, kind, path and name.

    With `overflow`, changes were missed, and the watcher has to read anew.
    """

    revision: int
    overflow: bool


class ClientRecord(msgspec.Struct, array_like=True):
    """The store's record of a client, updated in the transactions that carry out the client's requests."""

    last: int = 0
    time: float = 0.0
    waited: bool = False  # whether the client waited for the last reply; then it has received all earlier replies
    replies: list[Reply] = msgspec.field(default_factory=list)


decode_request: Callable[[memoryview], Hello | Watch | Request] = msgspec.msgpack.Decoder(
    Hello | Put | Remove | Increment | Append | Atomic | Forget | Move | RemoveSelected | DeclareIndex | Restore | Watch
).decode
decode_answer: Callable[[memoryview], Reply | Welcome | Changes] = msgspec.msgpack.Decoder(
    Reply | Welcome | Changes
).decode


def where(name: str, path: str) -> str:
    """Describe an entry in error messages.

    >>> where("limit", "ui/settings"), where("report", "")
    ("'limit' in 'ui/settings'", "'report' in the root")
    """
    return f"{name!r} in {repr(path) if path else 'the root'}"


def error_for(request: Request, reply: Reply) -> StorageError:
    """Build the exception for a reply that is not `OK`."""
    if isinstance(request, Atomic):
        path, name = reply.detail or ("", "")
        what = "a transaction"
    elif isinstance(request, Forget):
        path, name, what = "", "", f"the removal of the entries of {request.owner}"
    elif isinstance(request, RemoveSelected):
        path, name, what = "", "", f"the removal of {len(request.entries)} selected entries"
    elif isinstance(request, Restore):
        path, name, what = request.path, "", f"the entries of {os.fsdecode(request.file)}"
    elif isinstance(request, DeclareIndex):
        path, name, what = "", "", f"the index of {', '.join(request.keys)}"
    elif isinstance(request, Move) and reply.status is ReplyCode.EXISTS:
        path, name = request.to_path, request.to_name
        what = where(name, path)
    else:
        path, name = request.path, request.name
        what = where(name, path)
    match reply.status:
        case ReplyCode.CONFLICT:
            changed = where(name, path) if name else f"the container {path!r}" if path else "the root"
            return TransactionConflict(f"{changed} was changed by another writer; nothing was written", path=path)
        case ReplyCode.EXISTS:
            return EntryExists(f"{what} exists already; leave out exist_ok=False to replace it", path=path)
        case ReplyCode.MISSING:
            return EntryNotFound(f"there is no {what}", path=path)
        case ReplyCode.OWNER_DEAD:
            return OwnerDead(f"{request.owner} has ended, so its late write is refused: {what}", path=path)
        case ReplyCode.NOT_A_NUMBER:
            return StorageError(f"{what} is not an int or float that this can be added to", path=path)
        case ReplyCode.NOT_A_LIST:
            return StorageError(f"{what} is not a list, so nothing can be appended to it", path=path)
        case ReplyCode.DAMAGED:
            return (SnapshotError if isinstance(request, Restore) else StorageDamaged)(str(reply.detail), path=path)
        case ReplyCode.UNREACHABLE:
            return StorageError(f"{what} is not stored, as far as can be told: {reply.detail}", path=path)
        case ReplyCode.FULL if reply.detail is not None:
            return StorageFull(f"no room is left for {what}: {reply.detail}", path=path)
        case ReplyCode.FULL:
            return StorageFull(
                f"no room is left for {what}; free space in the storage's file system, or remove entries "
                "(Docker gives /dev/shm 64 MB by default)",
                path=path,
            )
        case _:
            return StorageError(f"{what}: {reply.status}", path=path)
