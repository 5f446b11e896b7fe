"""What a refused request is told to users: one exception for each status."""

from __future__ import annotations

from suitkaise.errors import (
    EntryExists,
    EntryNotFound,
    OwnerDead,
    StorageError,
    StorageFull,
    TransactionConflict,
)
from suitkaise.storage.protocol import Atomic, Forget, Reply, Request, Status

__all__ = ["refusal", "where"]


def where(name: str, path: str) -> str:
    """An entry in words.

    >>> where("limit", "ui/settings"), where("report", "")
    ("'limit' in 'ui/settings'", "'report' in the root")
    """
    return f"{name!r} in {repr(path) if path else 'the root'}"


def refusal(request: Request, reply: Reply) -> StorageError:
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
        case Status.CONFLICT:
            changed = where(name, path) if name else f"the container {path!r}"
            return TransactionConflict(
                f"{changed} was changed by someone else in the meantime, so nothing was written", path=path
            )
        case Status.EXISTS:
            return EntryExists(f"{what} exists already; leave out exist_ok=False to replace it", path=path)
        case Status.MISSING:
            return EntryNotFound(f"there is no {what}", path=path)
        case Status.OWNER_DEAD:
            owner = request.owner
            return OwnerDead(f"{owner} is over already, so what it writes late is refused: {what}", path=path)
        case Status.NOT_A_NUMBER:
            return StorageError(f"{what} is not an int or float that this can be added to", path=path)
        case Status.NOT_A_LIST:
            return StorageError(f"{what} is not a list, so nothing can be appended to it", path=path)
        case Status.FULL:
            return StorageFull(
                f"no room is left for {what}; make some where the storage lies, or remove entries "
                "(Docker gives /dev/shm 64 MB by default)",
                path=path,
            )
        case _:
            return StorageError(f"{what}: {reply.status}", path=path)
