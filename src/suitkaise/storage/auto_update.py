"""Write values back to the storage at the end of a block."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from suitkaise.errors import TransactionConflict
from suitkaise.storage.keys import checked_path
from suitkaise.storage.protocol import where
from suitkaise.storage.records import revision_of
from suitkaise.storage.writes import Writes

__all__ = ["AGAIN", "auto_update"]

AGAIN = "; tree.atomically(function) tries again by itself"
"""What the error of a block that met another writer says last."""


@contextmanager
def auto_update(
    values: dict[str, Any],
    revisions: dict[str, int],
    path: str,
    writes: Callable[[], Writes],
    transaction: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> Iterator[dict[str, Any]]:
    """Yield `values`; store what they are at the end of the block in one transaction, unless the block raises.

    A name that the block has taken out of them is removed.

    Args:
        values: values by their names.
        revisions: the revisions that entries must still have, by their names.
        path: the container of all of them.
        writes: returns the thread's reads and writes.
        transaction: begins a transaction; default: the block is part of one already.
    """
    names = tuple(values)
    yield values
    with transaction():
        for name in {**dict.fromkeys(names), **values}:
            path = checked_path(path, name)
            if name in revisions and revision_of(writes().get(path, name)) != revisions[name]:
                raise TransactionConflict(
                    f"{where(name, path)} was changed by another writer during the block; nothing was written{AGAIN}",
                    path=path,
                )
            if name in values:
                writes().put(path, name, values[name], None)
            else:
                writes().remove(path, name, missing_ok=True, wait=True)
