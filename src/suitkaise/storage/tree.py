"""The tree of named values that every process and thread of a program shares: the handle that users hold.

A read looks into the shared memory map. A write goes through `writes`: directly to the storage actor, which
acknowledges it after the commit, or into the transaction of the thread.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from suitkaise.errors import NotBuiltYet, StorageError, TransactionConflict
from suitkaise.messaging.identity import current_owner
from suitkaise.specs.options import is_number
from suitkaise.storage.backends.lmdb_reader import NotThereYet, Reader, reader_of
from suitkaise.storage.caller_path import caller_path
from suitkaise.storage.keys import checked_path, entry_key, normal_path
from suitkaise.storage.listing import containers_below, entry_not_found, names_in, picture_of
from suitkaise.storage.protocol import PutMode, where
from suitkaise.storage.records import Entry, Record, check_metadata, path_and_name, revision_of
from suitkaise.storage.transaction import Transaction, slot_of
from suitkaise.storage.writes import DirectWrites, Writes, decoded

__all__ = ["Tree"]

T = TypeVar("T")

_NOTHING: Any = type("_Nothing", (), {"__repr__": lambda _: "<no default>", "__slots__": ()})()
_IMMUTABLE = frozenset({type(None), bool, int, float, complex, str, bytes})
_MAX_CACHED = 4096  # values


def _not_built(what: str, instead: str) -> Callable[..., NoReturn]:
    """Make a method that the plan names and this version lacks."""

    def method(self: Tree, *args: Any, **kwargs: Any) -> NoReturn:
        raise NotBuiltYet(f"tree.{what} is not built yet; until then, {instead}")

    method.__doc__ = "Not built yet: raises `NotBuiltYet`."
    method.__name__ = what
    method.__qualname__ = f"Tree.{what}"
    return method


class Tree:
    """A tree of named values. Entries lie in containers, which follow the project's folders and files.

    The same handle works in every thread; a pickled or forked copy works in every process. Making a handle
    connects to nothing; the first use connects. A method without `path` uses the path of the caller's file,
    relative to the project's root and without its suffix. Every read in any process sees a write that has returned.
    With `wait=False` a write returns at once, and `flush` waits for it. In a `transaction` all writes wait for
    the end of the block.

    Args:
        directory: the storage's directory.
        timeout: how many seconds a write may take, restarts of the storage actor included; `math.inf`: no limit.

    Raises:
        ValueError: `timeout` is not a number > 0.

    >>> from suitkaise import sktree
    >>> tree = sktree.connect()
    >>> tree.add("limit", 10, path="doc/settings")
    >>> tree.get("limit", path="doc/settings")
    10
    >>> tree.update("limit", lambda limit: limit + 1, path="doc/settings")
    11
    >>> tree.remove("limit", path="doc/settings")
    >>> tree.get("limit", path="doc/settings", default="gone")
    'gone'
    >>> sktree.disconnect()
    """

    def __init__(self, directory: str | Path, *, timeout: float = 10.0) -> None:
        if not is_number(timeout) or timeout <= 0:
            raise ValueError(f"the timeout of a storage must be seconds > 0 (math.inf: no limit), not {timeout!r}")
        self.directory: Path = Path(directory).resolve()
        self.timeout = timeout
        self._reader: Reader = reader_of(self.directory)
        self._direct = DirectWrites(self._reader, timeout)
        self._slot = slot_of(self.directory)
        self._words: Any = None  # the page of the revision word, once it is mapped
        self._cache: dict[tuple[str, str], tuple[int, Any]] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return _make, (type(self), str(self.directory), self.timeout)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.directory)!r})"

    def __str__(self) -> str:
        """Draw the tree with short values; at most its first 200 entries."""
        try:
            return picture_of(self._reader)
        except NotThereYet:
            return f"storage in {self.directory}: not there yet"

    def _writes(self) -> Writes:
        return self._slot.current or self._direct

    # Values of entries.

    def get(self, name: str, path: str | None = None, default: Any = _NOTHING) -> Any:
        """Return the value of an entry, read from memory. Each call returns a copy of its own.

        Args:
            name: the entry's name.
            path: its container; the root is "".
            default: the value to return if there is no such entry.

        Raises:
            EntryNotFound: there is no such entry and no default; also a `KeyError`.
        """
        if path is None:
            path = caller_path()
        word = 1
        transaction = self._slot.current
        if transaction is None:
            try:
                word = self._words[0]
                cached = self._cache.get((path, name))
                if cached is not None and cached[0] == word:
                    return cached[1]
            except (TypeError, ValueError):  # the word is not mapped; or the name is not hashable
                checked_path(path, name)
                word = self._map_words()
            record = self._direct.get(path, name)
        else:
            record = transaction.get(checked_path(path, name), name)
        if record is None:
            if default is _NOTHING:
                raise entry_not_found(self._reader, path, name)
            return default
        value = decoded(path, name, record)
        if type(value) in _IMMUTABLE and not word & 1:
            if len(self._cache) >= _MAX_CACHED:
                self._cache.clear()
            self._cache[path, name] = word, value
        return value

    def add(
        self,
        name: str,
        value: object,
        path: str | None = None,
        metadata: Mapping[str, object] | None = None,
        *,
        exist_ok: bool = True,
        wait: bool = True,
    ) -> None:
        """Store a value under a name. An entry of that name is replaced.

        Args:
            name: the entry's name, not empty.
            value: anything that can be sent to another process.
            path: its container, made as needed; the root is "".
            metadata: scalars that describe the entry. `remove_on_process_join: True` removes the entry when the
                worker that added it has ended, for whatever reason.
            exist_ok: whether an entry of that name may exist already.
            wait: wait until it is stored.

        Raises:
            EntryExists: with `exist_ok=False`, if an entry of that name exists.
            NotSerializable: the value cannot be sent; the message names the path to the culprit.
            OwnerDead: the worker's incarnation that calls this has ended already.
            StorageError: it could not be stored.
        """
        path = checked_path(caller_path() if path is None else path, name)
        facts = check_metadata(metadata) if metadata is not None else {}
        self._writes().put(path, name, value, facts, PutMode.ANY if exist_ok else PutMode.NEW, wait=wait)

    def add_to_root(
        self,
        name: str,
        value: object,
        metadata: Mapping[str, object] | None = None,
        *,
        exist_ok: bool = True,
        wait: bool = True,
    ) -> None:
        """Store a value in the root of the tree; otherwise like `add`."""
        self.add(name, value, "", metadata, exist_ok=exist_ok, wait=wait)

    def update(
        self,
        name: str,
        value: Any,
        path: str | None = None,
        metadata: Mapping[str, object] | None = None,
        *,
        wait: bool = True,
    ) -> Any:
        """Replace the value of an entry that exists.

        Args:
            name: the entry's name.
            value: the value; or a function that makes it of the old one. The function may be called several
                times, if others write at the same time, so it must do nothing else. (To store a function
                itself, use `add`.)
            path: its container; the root is "".
            metadata: replaces the entry's metadata; None: the entry keeps its own.
            wait: wait until it is stored; must be True with a function.

        Returns:
            The new value.

        Raises:
            EntryNotFound: there is no such entry; also a `KeyError`.
            TransactionConflict: others changed the entry all the time, until the timeout.
            NotSerializable, OwnerDead, StorageError: as for `add`.
        """
        path = checked_path(caller_path() if path is None else path, name)
        facts = None if metadata is None else check_metadata(metadata)
        if callable(value):
            return self._writes().update(path, name, value, facts, wait=wait)
        self._writes().put(path, name, value, facts, PutMode.EXISTING, wait=wait)
        return value

    def setdefault(
        self,
        name: str,
        value: object,
        path: str | None = None,
        metadata: Mapping[str, object] | None = None,
    ) -> Any:
        """Return the value of an entry; store `value` first if there is no such entry.

        Args:
            name: the entry's name.
            value: the value to store if there is no such entry.
            path: its container; the root is "".
            metadata: of the entry that is made, as for `add`.
        """
        path = checked_path(caller_path() if path is None else path, name)
        return self._writes().setdefault(path, name, value, check_metadata(metadata) if metadata else {})

    def compare_and_set(
        self,
        name: str,
        revision: int,
        value: object,
        path: str | None = None,
        metadata: Mapping[str, object] | None = None,
    ) -> bool:
        """Store a value if the entry still has the revision that `revision` returned.

        Args:
            name: the entry's name.
            revision: the revision that it must have; 0: there must be no such entry.
            value: anything that can be sent to another process.
            path: its container; the root is "".
            metadata: replaces the entry's metadata; None: the entry keeps its own.

        Returns:
            Whether it was stored.

        >>> from suitkaise import sktree
        >>> tree = sktree.connect()
        >>> tree.compare_and_set("limit", 0, 10, path="doc/compare")
        True
        >>> tree.compare_and_set("limit", 0, 11, path="doc/compare")
        False
        >>> sktree.disconnect()
        """
        path = checked_path(caller_path() if path is None else path, name)
        if not isinstance(revision, int) or revision < 0:
            raise ValueError(f"compare_and_set: a revision is an int >= 0, as `revision` returns it, not {revision!r}")
        facts = None if metadata is None else check_metadata(metadata)
        return self._writes().compare_and_set(path, name, revision, value, facts)

    def increment(
        self, name: str, amount: float = 1, path: str | None = None, *, start: float = 0, wait: bool = True
    ) -> Any:
        """Add to a number, exactly once even if the storage actor dies meanwhile.

        Args:
            name: the entry's name; the entry is made if it does not exist.
            amount: an int or a float, negative to subtract.
            path: its container; the root is "".
            start: the number that a new entry begins with, before `amount` is added.
            wait: wait until it is stored.

        Returns:
            The new number; None with `wait=False`.

        Raises:
            StorageError: the entry holds no number.

        >>> from suitkaise import sktree
        >>> tree = sktree.connect()
        >>> tree.increment("hits", path="doc/counters"), tree.increment("hits", 4, path="doc/counters")
        (1, 5)
        >>> sktree.disconnect()
        """
        path = checked_path(caller_path() if path is None else path, name)
        amount, start = _number("amount", amount, path, name), _number("start", start, path, name)
        return self._writes().increment(path, name, amount, start, wait=wait)

    def append(self, name: str, item: object, path: str | None = None, *, wait: bool = True) -> None:
        """Append an item to a list, exactly once even if the storage actor dies meanwhile.

        It takes time in proportion to the length of the list, so it is for short lists.

        Args:
            name: the entry's name; a list is made if the entry does not exist.
            item: anything that can be sent to another process.
            path: the list's container; the root is "".
            wait: wait until it is stored.

        Raises:
            StorageError: the entry holds no list.

        >>> from suitkaise import sktree
        >>> tree = sktree.connect()
        >>> tree.append("log", "began", path="doc/lists")
        >>> tree.append("log", "ended", path="doc/lists")
        >>> tree.get("log", path="doc/lists")
        ['began', 'ended']
        >>> sktree.disconnect()
        """
        path = checked_path(caller_path() if path is None else path, name)
        self._writes().append(path, name, item, wait=wait)

    def remove(self, name: str, path: str | None = None, *, missing_ok: bool = False, wait: bool = True) -> None:
        """Remove an entry.

        Args:
            name: the entry's name.
            path: its container; the root is "".
            missing_ok: whether the entry may be missing.
            wait: wait until it is gone.

        Raises:
            EntryNotFound: there is no such entry; also a `KeyError`.
        """
        path = checked_path(caller_path() if path is None else path, name)
        self._writes().remove(path, name, missing_ok=missing_ok, wait=wait)

    # Facts about entries, and containers.

    def exists(self, name: str, path: str | None = None) -> bool:
        """Return whether there is such an entry."""
        path = checked_path(caller_path() if path is None else path, name)
        return (self._slot.current or self._direct).get(path, name) is not None

    def entry(self, name: str, path: str | None = None) -> Entry:
        """Return the facts about an entry: revision, owner, time, size and metadata.

        Raises:
            EntryNotFound: there is no such entry; also a `KeyError`.
        """
        path = checked_path(caller_path() if path is None else path, name)
        record = (self._slot.current or self._direct).get(path, name)
        if record is None:
            raise entry_not_found(self._reader, path, name)
        return Record.unpack(record).entry(entry_key(path, name)[0], len(record))

    def revision(self, name: str, path: str | None = None) -> int:
        """Return the revision of an entry, for `compare_and_set`; 0 if there is no such entry."""
        path = checked_path(caller_path() if path is None else path, name)
        self._refuse_in_transaction("revision")
        return revision_of(self._direct.get(path, name))

    def get_all_from(self, path: str | None = None) -> dict[str, Any]:
        """Return all values of one container by their names, as they were at one moment.

        Args:
            path: the container; None: the caller's. An empty dict is returned if it does not exist.
        """
        path = normal_path(caller_path() if path is None else path)
        names = [(path_and_name(key, record)[1], record) for key, record in self._writes().container(path)]
        return {name: decoded(path, name, record) for name, record in sorted(names)}

    def containers(self, path: str = "") -> list[str]:
        """Return the paths of all containers that hold entries, at and below `path`, in order. The root is ""."""
        path = normal_path(path)
        self._refuse_in_transaction("containers")
        self._direct.wait_for_storage()
        return containers_below(self._reader, path)

    def walk(self, path: str = "") -> Iterator[tuple[str, list[str]]]:
        """Iterate over the containers at and below `path`, each with the names in it, in order; like `os.walk`.

        >>> from suitkaise import sktree
        >>> tree = sktree.connect()
        >>> tree.add("b", 1, path="doc/walk")
        >>> tree.add("a", 1, path="doc/walk/deeper")
        >>> list(tree.walk("doc/walk"))
        [('doc/walk', ['b']), ('doc/walk/deeper', ['a'])]
        >>> sktree.disconnect()
        """
        for container in self.containers(path):
            names = names_in(self._reader, container)
            if names:
                yield container, names

    # Transactions.

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Make several changes in one atomic write: all of them or, if the block raises, none.

        Reads in the block see the writes of the block. At the end of the block all that was read must be unchanged,
        as if no other writer existed. Only this thread's use of the storage is part of the transaction.

        Raises:
            TransactionConflict: another writer changed something that the block read; nothing was written.
                `atomically` tries again by itself.
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
            raise StorageError("there is a transaction in this thread already; transactions do not nest")
        self._direct.wait_for_storage()
        transaction = self._slot.current = Transaction(self._reader)
        try:
            yield
        finally:
            self._slot.current = None
        commit = transaction.request()
        if commit is not None:
            self._direct.send(*commit)

    def atomically(self, function: Callable[[Any], T], *, retries: int = 100) -> T:
        """Call `function` with this tree in a transaction, and again if another writer was faster.

        Args:
            function: reads and writes the tree; since it may be called several times it must do nothing else.
            retries: how many times it is tried again.

        Returns:
            The result of the function.

        Raises:
            TransactionConflict: another writer was faster every time.

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
        for remaining in range(retries, -1, -1):
            try:
                with self.transaction():
                    return function(self)
            except TransactionConflict:
                if remaining == 0:
                    raise
        raise ValueError(f"atomically: retries must be 0 or more, not {retries!r}")

    # Owners, and the handle itself.

    def forget_owner(self, owner: str) -> None:
        """Remove the entries that an ended worker marked with `remove_on_process_join`.

        Later writes of this incarnation and of earlier ones are refused. The call may be repeated.

        Args:
            owner: `path#incarnation`, such as `pipeline/counters/count-a#3`.
        """
        self._writes().forget(owner, dead=True)

    def remove_owned(self, owner: str | None = None) -> None:
        """Remove the entries that a worker marked with `remove_on_process_join`; the worker may go on writing.

        Args:
            owner: `path#incarnation`; None: the worker that calls this.
        """
        owner = owner or current_owner()
        if owner is None:
            raise StorageError("remove_owned: the caller is not a worker, so it owns no entries; pass the owner")
        self._writes().forget(owner, dead=False)

    def flush(self, timeout: float | None = None) -> None:
        """Wait until everything that this process wrote with `wait=False` is stored.

        Args:
            timeout: seconds, for all of it; None: the handle's.

        Raises:
            StorageError: a write of any thread of this process was refused since the last `flush`, or was not
                stored in time. The error is the first one; its notes list the others.
            TypeError: the timeout is neither a number nor None.
        """
        if timeout is None:
            timeout = self.timeout
        elif not is_number(timeout):
            raise TypeError(f"flush: timeout must be seconds, or None for the handle's, not {timeout!r}")
        self._direct.flush(timeout)

    def open(self) -> None:
        """Connect this thread now, for reads and for writes. Using the tree does that by itself.

        A process that will change its user calls this before: the storage is not for the new user, but what is open
        stays open.
        """
        self._direct.open()
        self._map_words()

    def close(self) -> None:
        """Wait for the writes under way, and close this process's connections. Using the tree opens them again."""
        try:
            self.flush()
        finally:
            self._direct.close()

    def _map_words(self) -> int:
        """Map the page of the revision word, which `close` may have unmapped; return the word."""
        self._direct.wait_for_storage()
        self._words = self._reader.revision_words()
        return int(self._words[0])

    def _refuse_in_transaction(self, what: str) -> None:
        if self._slot.current is not None:
            raise NotBuiltYet(f"{what} inside of a transaction is not built yet; call it before the block")

    # The plan names these, and this version lacks them.

    watch: Callable[..., NoReturn] = _not_built("watch", "read the entry again, or compare `revision`")
    snapshot: Callable[..., NoReturn] = _not_built("snapshot", "connect with durable=True to keep what is stored")
    restore: Callable[..., NoReturn] = _not_built("restore", "connect with durable=True to keep what is stored")
    move: Callable[..., NoReturn] = _not_built("move", "add it there and remove it here in one transaction")
    select_all_with: Callable[..., NoReturn] = _not_built("select_all_with", "go through `walk` and `entry`")
    selected: property = property(_not_built("selected", "go through `walk` and `entry`"))
    remove_selected: Callable[..., NoReturn] = _not_built("remove_selected", "remove entries by name")
    deselect: Callable[..., NoReturn] = _not_built("deselect", "nothing can be selected either")
    AutoUpdate: Callable[..., NoReturn] = _not_built("AutoUpdate", "call `update` at the end of the block")


def _number(what: str, value: Any, path: str, name: str) -> Any:
    """Strip an int or float of its subclass, such as NumPy's."""
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    raise TypeError(f"increment of {where(name, path)}: {what} must be an int or a float, not {value!r}")


def _make(kind: type[Tree], directory: str, timeout: float) -> Tree:
    return kind(directory, timeout=timeout)
