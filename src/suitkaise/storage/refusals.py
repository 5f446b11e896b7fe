"""What a refused request is told to users: one exception for each status."""

from __future__ import annotations

import os
from collections import deque

from suitkaise.errors import (
    EntryExists,
    EntryNotFound,
    OwnerDead,
    StorageError,
    StorageFull,
    TransactionConflict,
)
from suitkaise.storage.protocol import Atomic, Forget, Reply, ReplyCode, Request

__all__ = ["error_for", "pop_background_error", "record_background_error", "where"]

_MAX_NOTED = 100

_noted: dict[str, deque[StorageError]] = {}


def where(name: str, path: str) -> str:
    """An entry in words.

    >>> where("limit", "ui/settings"), where("report", "")
    ("'limit' in 'ui/settings'", "'report' in the root")
    """
    return f"{name!r} in {repr(path) if path else 'the root'}"


def record_background_error(directory: str, error: StorageError) -> None:
    """A write that nobody waits for has failed; kept for who asks next, whichever thread wrote, and lives still."""
    noted = _noted.setdefault(directory, deque())
    if len(noted) < _MAX_NOTED:
        noted.append(error)


def pop_background_error(directory: str | None = None) -> StorageError | None:
    """What was noted since the last call, about one storage or all: the first, with the others as its notes."""
    directories = list(_noted) if directory is None else [directory]
    noted = [error for one in directories for error in _noted.pop(one, ())]
    if not noted:
        return None
    first, *others = noted
    for other in others[:9]:
        first.add_note(f"also refused: {other}")
    if len(others) > 9:
        first.add_note(f"and {len(others) - 9} or more others")
    return first


def error_for(request: Request, reply: Reply) -> StorageError:
    """The exception for a reply that is not `OK`."""
    if isinstance(request, Atomic):
        path, name = reply.detail or ("", "")
        what = "a transaction"
    elif isinstance(request, Forget):
        path, name, what = "", "", f"the removal of what {request.owner} left"
    else:
        path, name = request.path, request.name
        what = where(name, path)
    match reply.status:
        case ReplyCode.CONFLICT:
            changed = where(name, path) if name else f"the container {path!r}"
            return TransactionConflict(
                f"{changed} was changed by someone else in the meantime, so nothing was written", path=path
            )
        case ReplyCode.EXISTS:
            return EntryExists(f"{what} exists already; leave out exist_ok=False to replace it", path=path)
        case ReplyCode.MISSING:
            return EntryNotFound(f"there is no {what}", path=path)
        case ReplyCode.OWNER_DEAD:
            owner = request.owner
            return OwnerDead(f"{owner} is over already, so what it writes late is refused: {what}", path=path)
        case ReplyCode.NOT_A_NUMBER:
            return StorageError(f"{what} is not an int or float that this can be added to", path=path)
        case ReplyCode.NOT_A_LIST:
            return StorageError(f"{what} is not a list, so nothing can be appended to it", path=path)
        case ReplyCode.FULL:
            return StorageFull(
                f"no room is left for {what}; make some where the storage lies, or remove entries "
                "(Docker gives /dev/shm 64 MB by default)",
                path=path,
            )
        case _:
            return StorageError(f"{what}: {reply.status}", path=path)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_noted.clear)
