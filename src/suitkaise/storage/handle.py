"""What every part of the tree's handle needs: finding a record, sending a change, and transactions."""

from __future__ import annotations

import contextlib
import difflib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from suitkaise.errors import EntryNotFound, StorageError, TransactionConflict
from suitkaise.messaging.identity import current_owner
from suitkaise.specs.options import is_number
from suitkaise.storage.backends.lmdb_reader import NotThereYet, Reader, reader_of
from suitkaise.storage.client import client_of, clients_of
from suitkaise.storage.keys import checked_path, entry_key, normal_path, unpack_key
from suitkaise.storage.protocol import Forget, Reply, ReplyCode, Request
from suitkaise.storage.records import Record, value_of
from suitkaise.storage.refusals import error_for, pop_background_error, where
from suitkaise.storage.transaction import Transaction, slot_of

__all__ = ["Handle", "checked"]

T = TypeVar("T")


class Handle:
    """A handle to the storage in a directory. Making one touches nothing; it connects when it is used.

    Args:
        directory: the storage's directory.
        timeout: how many seconds a write may take, restarts of the storage actor included; `math.inf`: any time.

    Raises:
        ValueError: the time-out is no number > 0.
    """

    def __init__(self, directory: str | Path, *, timeout: float = 10.0) -> None:
        if not is_number(timeout) or timeout <= 0:
            raise ValueError(f"the timeout of a storage must be seconds > 0 (math.inf: for ever), not {timeout!r}")
        self.directory: Path = Path(directory).resolve()
        self.timeout = timeout
        self._home = str(self.directory)
        self._reader: Reader = reader_of(self.directory)
        self._slot = slot_of(self.directory)
        self._words: Any = None
        self._cache: dict[tuple[str, str], tuple[int, Any]] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return _make, (type(self), str(self.directory), self.timeout)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.directory)!r})"

    def flush(self, timeout: float | None = None) -> None:
        """Wait until everything that this process wrote with `wait=False` is stored.

        Args:
            timeout: seconds, for all of it; None: the handle's.

        Raises:
            StorageError: something was refused since the last `flush`, whichever thread of this process wrote it,
                or is not stored in time. That is the first; the others are told in its notes.
            TypeError: the time-out is neither a number nor None.
        """
        if timeout is None:
            timeout = self.timeout
        elif not is_number(timeout):
            raise TypeError(f"flush: timeout must be seconds, or None for the handle's, not {timeout!r}")
        deadline = time.monotonic() + timeout
        for client in clients_of(self._home):
            client.settle(max(0.0, deadline - time.monotonic()))
        error = pop_background_error(self._home)
        if error is not None:
            raise error

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Several changes in one atomic write: all of them or, if the block raises, none.

        Reads in the block see what it wrote. At its end everything that it read must still be as it was; so
        what it does is as if nobody else had been there. Only this thread's use of the storage is part of it.

        Raises:
            TransactionConflict: something that the block read was changed by someone else; nothing was
                written. `atomically` tries again by itself.
            StorageError: it could not be stored; or there is a transaction in this thread already.

        >>> from suitkaise import sktree
        >>> tree = sktree.connect()
        >>> tree.add("left", 10, path="doc/accounts")
        >>> tree.add("right", 0, path="doc/accounts")
        >>> with tree.transaction():
        ...     tree.update("left", lambda money: money - 3, path="doc/accounts")
        ...     tree.update("right", lambda money: money + 3, path="doc/accounts")
        7
        3
        >>> tree.get_all_from("doc/accounts")
        {'left': 7, 'right': 3}
        >>> sktree.disconnect()
        """
        if self._slot.current is not None:
            raise StorageError("there is a transaction in this thread already; they do not nest")
        self._wait_for_storage()
        transaction = self._slot.current = Transaction(self._reader)
        try:
            yield
        finally:
            self._slot.current = None
        made = transaction.request()
        if made is not None:
            self._send(*made)

    def atomically(self, function: Callable[[Any], T], *, retries: int = 100) -> T:
        """Call `function` with this tree in a transaction, and again if someone else was faster.

        Args:
            function: reads and writes the tree; since it may be called several times it must do nothing else.
            retries: how many times it is tried again.

        Returns:
            What the function returned.

        Raises:
            TransactionConflict: someone else was faster every time.

        >>> from suitkaise import sktree
        >>> tree = sktree.connect()
        >>> def enter(tree):
        ...     guests = tree.get("guests", path="doc/hall", default=0)
        ...     tree.add("guests", guests + 1, path="doc/hall")
        ...     return guests + 1
        >>> tree.atomically(enter)
        1
        >>> sktree.disconnect()
        """
        for left in range(retries, -1, -1):
            try:
                with self.transaction():
                    return function(self)
            except TransactionConflict:
                if left == 0:
                    raise
        raise ValueError(f"atomically: retries must be 0 or more, not {retries!r}")

    def forget_owner(self, owner: str) -> None:
        """A worker's incarnation is over: remove the entries that it marked with `remove_on_process_join`.

        Whatever it or an earlier incarnation still writes is refused from now on. May be repeated.

        Args:
            owner: `path#incarnation`, such as `pipeline/counters/count-a#3`.
        """
        self._forget(owner, dead=True)

    def remove_owned(self, owner: str | None = None) -> None:
        """Remove the entries that a worker marked with `remove_on_process_join`; it may go on writing.

        Args:
            owner: `path#incarnation`; None: the worker that calls this.
        """
        owner = owner or current_owner()
        if owner is None:
            raise StorageError("remove_owned: the caller is no worker, so nothing belongs to it")
        self._forget(owner, dead=False)

    def close(self) -> None:
        """Wait for what is under way, and close this process's connections. Using the tree opens them again."""
        try:
            self.flush()
        finally:
            for client in clients_of(self._home):
                client.close()
            self._reader.close()

    def _forget(self, owner: str, *, dead: bool) -> None:
        if self._slot.current is not None:
            raise StorageError("the removal of what an owner left cannot be part of a transaction")
        path, _, number = owner.rpartition("#")
        if not path or not number.isdecimal():
            raise ValueError(f"an owner is a worker's path and incarnation, such as 'tree/worker#3', not {owner!r}")
        self._send(Forget(0, False, owner, dead))

    def _send(self, request: Request, payload: bytes = b"", *, wait: bool = True) -> Reply | None:
        """Send a change to the storage actor; None if it was not waited for."""
        client = client_of(self._home, self.timeout)
        if not wait:
            client.post(request, payload)
            return None
        reply = client.ask(request, payload)
        if reply.status is not ReplyCode.OK:
            raise error_for(request, reply)
        return reply

    def _record(self, path: str, name: str) -> bytes | None:
        transaction = self._slot.current
        if transaction is not None:
            return transaction.get(checked(path, name), name)
        try:
            return self._reader.get(entry_key(path, name)[0])
        except NotThereYet:
            self._wait_for_storage()
            return self._reader.get(entry_key(path, name)[0])

    def _open_words(self) -> int:
        """Map the revision word, which `close` may have unmapped; returns it."""
        self._wait_for_storage()
        self._words = self._reader.revision_words()
        return int(self._words[0])

    def _wait_for_storage(self) -> None:
        """Wait for the storage actor to open the store, if it never did."""
        try:
            self._reader.revision_words()
        except NotThereYet:
            client_of(self._home, self.timeout).ping()

    def _decode(self, path: str, name: str, record: bytes) -> Any:
        try:
            return value_of(record)
        except Exception as error:
            error.add_note(f"while decoding the value of {where(name, path)}")
            raise

    def _not_found(self, path: str, name: str) -> EntryNotFound:
        path = normal_path(path)
        names = [unpacked_name(key, record) for key, record in self._reader.container(path)]
        near = difflib.get_close_matches(name, names, n=3)
        hint = ""
        if near:
            hint = f"; the nearest names there are {', '.join(map(repr, near))}"
        elif not names:
            hint = "; nothing is there at all"
        return EntryNotFound(f"there is no {where(name, path)}{hint}", path=path)


def checked(path: str, name: str) -> str:
    """The path in its normal form, if path and name are what they must be."""
    try:
        return checked_path(path, name)
    except TypeError:
        return checked_path.__wrapped__(path, name)  # which says what is wrong, if it cannot even be hashed


def unpacked_name(key: bytes, record: bytes) -> str:
    """The name of an entry."""
    long_key = Record.unpack(record).long_key
    return long_key[1] if long_key else unpack_key(key)[1]


def _make(kind: type[Handle], directory: str, timeout: float) -> Handle:
    return kind(directory, timeout=timeout)
