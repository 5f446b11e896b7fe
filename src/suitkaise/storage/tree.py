"""The tree of named values that every process and thread of a program shares: the handle that users hold.

A read looks into the shared memory map. A write goes through `writes`: directly to the storage actor, which
acknowledges it after the commit, or into the transaction of the thread.
"""

from __future__ import annotations

import contextlib
import html
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Self, TypeVar

from suitkaise.errors import NotSerializable, StorageError, TransactionConflict, no_attribute
from suitkaise.messaging.identity import current_owner
from suitkaise.specs.options import is_number
from suitkaise.specs.signatures import is_async_function
from suitkaise.storage.auto_update import AGAIN, auto_update
from suitkaise.storage.backends.reader import NotThereYet, Reader, reader_of
from suitkaise.storage.caller_path import caller_path
from suitkaise.storage.index import checked_keys
from suitkaise.storage.keys import checked_path, entry_key, normal_path
from suitkaise.storage.listing import containers_below, entry_not_found, picture_of
from suitkaise.storage.place import directory_here, origin_of
from suitkaise.storage.progress import Progress, reporting
from suitkaise.storage.protocol import DeclareIndex, PutMode, where
from suitkaise.storage.records import (
    Entry,
    Record,
    check_metadata,
    checked,
    has_large_buffers,
    path_and_name,
    revision_of,
)
from suitkaise.storage.selection import Selection, select
from suitkaise.storage.transaction import Transaction, slot_of
from suitkaise.storage.watch import Change, Watch, check_callback
from suitkaise.storage.writes import DirectWrites, Writes, decoded

__all__ = ["Tree"]

T = TypeVar("T")

_OTHER_NAMES = {
    "set": "add(name, value)", "put": "add(name, value)", "create": "add(name, value)", "delete": "remove(name)",
    "pop": "remove(name)", "get_all": "get_all_from(path)", "keys": "get_all_from(path)", "items": "get_all_from(path)",
    "values": "get_all_from(path)", "incr": "increment(name)", "subscribe": "watch(path)",
}  # fmt: skip
"""What dicts and other stores have, by the name that it has here."""

_NOTHING: Any = type("_Nothing", (), {"__repr__": lambda _: "<no default>", "__slots__": ()})()
_IMMUTABLE = frozenset({type(None), bool, int, float, complex, str, bytes})
_MAX_CACHED = 4096  # values
_LARGEST_CACHED = 4096  # bytes of a record
_NEVER = -1  # no revision word
_LARGE: Any = object()  # in the cache: the entry is best read by `_get_large`


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
        return _make, (type(self), origin_of(str(self.directory)), self.timeout)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.directory)!r})"

    def __str__(self) -> str:
        """Draw the tree with short values; at most its first 200 entries."""
        try:
            return picture_of(self._reader)
        except NotThereYet:
            return f"storage in {self.directory}: not there yet"

    def _repr_html_(self) -> str:
        from suitkaise.storage.html import html_of_tree  # for notebooks alone

        try:
            return html_of_tree(self._reader)
        except NotThereYet:
            return f"<div>{html.escape(str(self))}</div>"

    def _transaction(self) -> Transaction | None:
        """Return the transaction that the caller is in, if any."""
        transaction = self._slot.current
        return transaction if transaction is not None and transaction.is_here else None

    def _writes(self) -> Writes:
        return self._direct if self._slot.current is None else self._transaction() or self._direct

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
        if transaction is None or not transaction.is_here:
            words = self._words
            try:
                word = words[0]
                cached = self._cache.get((path, name))
                if cached is not None:
                    if cached[0] == word:
                        return cached[1]
                    if cached[1] is _LARGE:
                        return self._get_large(name, path, default)
            except (TypeError, ValueError):  # the word is not mapped; or the name is not hashable
                checked_path(path, name)
                if _is_mapped(words):  # a signal handler has raised it
                    raise
                word = self._map_words()
            record = self._direct.get(path, name)
        else:
            record = transaction.get(checked_path(path, name), name)
        if record is None:
            if default is _NOTHING:
                raise entry_not_found(self._reader, path, name)
            return default
        value = decoded(path, name, record)
        if type(value) in _IMMUTABLE and not word & 1 and len(record) <= _LARGEST_CACHED:
            self._remember(path, name, (word, value))
        elif type(record) is bytes and has_large_buffers(record):
            self._remember(path, name, (_NEVER, _LARGE))
        return value

    def _remember(self, path: str, name: str, found: tuple[int, Any]) -> None:
        if len(self._cache) >= _MAX_CACHED:
            self._cache.clear()
        self._cache[path, name] = found

    def _get_large(self, name: str, path: str, default: Any) -> Any:
        """Read an entry that had large buffers before, so that its value lies in the only copy that is made."""
        record = self._reader.get_private(entry_key(path, name)[0])
        if record is None or not has_large_buffers(record):
            self._cache.pop((path, name), None)
        if record is not None:
            return decoded(path, name, record)
        if default is _NOTHING:
            raise entry_not_found(self._reader, path, name)
        return default

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
        value: Callable[[Any], object] | object,
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
            if not wait:
                raise ValueError("update: wait=False needs a plain value; a function needs the outcome of the write")
            return self._writes().update(path, name, value, facts)
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
        facts = {} if metadata is None else check_metadata(metadata)
        return self._writes().setdefault(path, name, value, facts)

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
        if type(revision) is not int or revision < 0:
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
        self._writes().remove(path, name, missing_ok=bool(missing_ok), wait=wait)

    def move(
        self,
        name: str,
        to: str,
        path: str | None = None,
        *,
        new_name: str | None = None,
        exist_ok: bool = True,
        wait: bool = True,
    ) -> None:
        """Move an entry to another container, in one step: every reader finds it here or there. It keeps its metadata.

        Args:
            name: the entry's name.
            to: the container to move it to; the root is "". An entry of that name there is replaced.
            path: the container that it is in; None: the caller's.
            new_name: its name from then on; None: the same.
            exist_ok: whether an entry of that name may exist there already.
            wait: wait until it is done.

        Raises:
            EntryNotFound: there is no such entry; also a `KeyError`.
            EntryExists: with `exist_ok=False`, if there is an entry of that name in the other container.

        >>> from suitkaise import sktree
        >>> tree = sktree.connect()
        >>> tree.add("job", 1, path="doc/waiting", metadata={"pid": 7})
        >>> tree.move("job", to="doc/done", path="doc/waiting")
        >>> tree.get("job", path="doc/done"), tree.exists("job", path="doc/waiting")
        (1, False)
        >>> sktree.disconnect()
        """
        path = checked_path(caller_path() if path is None else path, name)
        new_name = name if new_name is None else new_name
        mode = PutMode.ANY if exist_ok else PutMode.NEW
        self._writes().move(path, name, checked_path(to, new_name), new_name, mode, wait=wait)

    # Selections.

    def select_all_with(self, metadata: Mapping[str, object], path: str | None = None) -> Selection:
        """Select the entries of a container, and of all containers below it, that have these metadata.

        The selection is this thread's `selected` one until `remove_selected` or `deselect`, whatever handle is used.
        All tasks of an event loop share that one, so use the returned object there (`selection.remove()`).
        Metadata with the keys `pid`, `owner` and `remove_on_process_join`, and those given to
        `sktree.connect(index=[...])`, are found by an index; with other keys alone, all entries below `path` are read.

        Args:
            metadata: the pairs that an entry must have, all of them; it may have more. With no pairs, all entries are
                selected.
            path: the container at the top; None: the caller's. The root, and so the whole tree, is "".

        Raises:
            TypeError, ValueError: the metadata are not scalars.

        >>> from suitkaise import sktree
        >>> tree = sktree.connect()
        >>> tree.add("a", 1, path="doc/select", metadata={"pid": 7})
        >>> tree.add("b", 2, path="doc/select/deeper", metadata={"pid": 7, "done": True})
        >>> tree.add("c", 3, path="doc/select", metadata={"pid": 8})
        >>> [entry.name for entry in tree.select_all_with({"pid": 7}, "doc/select")]
        ['a', 'b']
        >>> tree.remove_selected()
        2
        >>> tree.get_all_from("doc/select")
        {'c': 3}
        >>> sktree.disconnect()
        """
        path = normal_path(caller_path() if path is None else path)
        selection = self._slot.selection = select(self._writes, check_metadata(metadata), path)
        return selection

    @property
    def selected(self) -> Selection | None:
        """The last selection of this thread; None if there is none."""
        return self._slot.selection

    def remove_selected(self) -> int:
        """Remove the selected entries, as `Selection.remove` does, and deselect them.

        Returns:
            How many entries were removed.

        Raises:
            StorageError: nothing is selected in this thread; or they could not be removed, and are still selected.
        """
        selection = self._slot.selection
        if selection is None:
            raise StorageError("nothing is selected in this thread; call select_all_with first")
        removed = selection.remove()
        self.deselect()
        return removed

    def deselect(self) -> None:
        """Select nothing in this thread."""
        self._slot.selection = None

    # Facts about entries, and containers.

    def exists(self, name: str, path: str | None = None) -> bool:
        """Return whether there is such an entry."""
        path = checked_path(caller_path() if path is None else path, name)
        return self._writes().revision(path, name) != 0

    def entry(self, name: str, path: str | None = None) -> Entry:
        """Return the facts about an entry: revision, owner, time, size and metadata.

        Raises:
            EntryNotFound: there is no such entry; also a `KeyError`.
        """
        path = checked_path(caller_path() if path is None else path, name)
        record = self._writes().get(path, name)
        if record is None:
            raise entry_not_found(self._reader, path, name)
        key = entry_key(path, name)[0]
        return Record.unpack(checked(key, record)).entry(key, len(record))

    def revision(self, name: str, path: str | None = None) -> int:
        """Return the revision of an entry, for `compare_and_set`; 0 if there is no such entry.

        In a transaction, the revision of an entry that the block has written is good in the block alone.
        """
        path = checked_path(caller_path() if path is None else path, name)
        return self._writes().revision(path, name)

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
        if (transaction := self._transaction()) is not None:
            return sorted({entry.path for entry in select(lambda: transaction, {}, path)})
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
        return self._walk(normal_path(path))

    def _walk(self, path: str) -> Iterator[tuple[str, list[str]]]:
        for container in self.containers(path):
            names = sorted(path_and_name(key, record)[1] for key, record in self._writes().heads(container))
            if names:
                yield container, names

    # Changes as they happen.

    def watch(
        self, path: str | None = None, callback: Callable[[Change], object] | None = None, *, since: int | None = None
    ) -> Watch:
        """Report the changes of all entries at and below a path, from now on, whichever process makes them.

        Iterate over the watch, with `for` or `async for`, or call its `get`; or pass a callback. Close it at the end,
        for example by a `with` block; `sktree.disconnect` and `close` close it, too.

        Args:
            path: the container to watch, with all containers below it; "" is the whole tree, None the caller's.
            callback: is called with each change, in a thread of its own. An exception of the callback is logged.
            since: a revision, such as `Watch.revision` or that of a change: begin with the changes after that. If they
                are no longer known, the first event is an overflow.

        Raises:
            StorageError: the storage does not answer; or this process has 320 watches of it.
            TypeError, ValueError: the path, the callback or the revision is invalid.

        >>> from suitkaise import sktree
        >>> tree = sktree.connect()
        >>> with tree.watch("doc/watched") as changes:
        ...     tree.add("limit", 10, path="doc/watched")
        ...     tree.remove("limit", path="doc/watched")
        ...     changes.get(timeout=10).kind, changes.get(timeout=10).kind
        ('added', 'removed')
        >>> sktree.disconnect()
        """
        path = normal_path(caller_path() if path is None else path)
        if since is not None and (type(since) is not int or not 0 <= since < 1 << 63):
            raise ValueError(f"watch: since must be a revision, an int from 0 to 2 ** 63 - 1, not {since!r}")
        if callback is not None:
            check_callback(callback)
        watch = Watch(str(self.directory), path, since, self.timeout)
        if callback is not None:
            watch.call(callback)
        return watch

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> NoReturn:
            raise no_attribute(self, name, _OTHER_NAMES, "tree")

    # Transactions.

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Self]:
        """Make several changes in one atomic write: all of them or, if the block raises, none.

        Reads in the block see the writes of the block. At the end of the block all that was read must be unchanged,
        as if no other writer existed. Only this thread's use of the storage is part of the transaction; in an event
        loop, only that of this task. The name after `as`, if there is one, is this tree.

        Raises:
            TransactionConflict: another writer changed something that the block read; nothing was written.
                `atomically` tries again by itself.
            StorageError: it could not be stored; or there is a transaction in this thread already; or the block ended
                in another process, thread or task than it began.

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
        if self._slot.current is not None and not self._slot.current.is_over:
            raise StorageError("there is a transaction in this thread already; transactions do not nest")
        self._direct.wait_for_storage()
        transaction = self._slot.current = Transaction(self._reader)
        try:
            yield self
            is_here = self._transaction() is transaction
        finally:
            transaction.is_over = True  # its thread's slot may not be this one
            if self._slot.current is transaction:
                self._slot.current = None
        if not is_here:
            raise StorageError(
                "a transaction has to end in the process, thread and task in which it began; nothing was written"
            )
        commit = transaction.request()
        if commit is not None:
            try:
                self._direct.send(*commit)
            except TransactionConflict as conflict:
                raise TransactionConflict(f"{conflict}{AGAIN}", path=conflict.path) from None
            except NotSerializable:  # the header has no room for so many names
                raise StorageError(
                    f"the transaction is too large: {transaction.counts}; their paths and names, with some bytes for "
                    "each, may have 1 MiB, so divide it"
                ) from None

    def atomically(self, function: Callable[[Any], T], *, retries: int = 100) -> T:
        """Call `function` with this tree in a transaction, and again if another writer was faster.

        Args:
            function: reads and writes the tree; since it may be called several times it must do nothing else.
            retries: how many times it is tried again.

        Returns:
            The result of the function.

        Raises:
            TransactionConflict: another writer was faster every time.
            TypeError: this is no function, or an async one, which would run after its transaction; or `retries` is no
                whole number.

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
        if is_async_function(function):
            raise TypeError(
                f"atomically: function must be a plain function, not {function!r}: what it awaits would run after the "
                f"transaction; use await asyncio.to_thread(tree.atomically, function) with a plain one"
            )
        if not callable(function):
            raise TypeError(f"atomically: function must be a function of the tree, not {function!r}")
        if not isinstance(retries, int) or isinstance(retries, bool):
            raise TypeError(f"atomically: retries must be a whole number, not {retries!r}")
        for remaining in range(retries, -1, -1):
            try:
                with self.transaction():
                    return function(self)
            except TransactionConflict as conflict:
                if remaining == 0:
                    what = str(conflict).removesuffix(AGAIN)
                    tried = "" if retries == 0 else f", at any of {retries + 1} attempts"
                    raise TransactionConflict(f"{what}{tried}", path=conflict.path) from None
        raise ValueError(f"atomically: retries must be 0 or more, not {retries!r}")

    def AutoUpdate(  # noqa: N802 - the concept's name
        self, *pairs: str | tuple[str, Any], path: str | None = None
    ) -> contextlib.AbstractContextManager[dict[str, Any]]:
        """Write values back at the end of a `with` block, all in one transaction. If the block raises, none is written.

        The block gets a dict of the values by their names, and what that dict holds at its end is stored: changed
        lists and dicts, values that were assigned to a name, and further names. Entries keep their metadata. A name
        that the block takes out of the dict is removed.

        Args:
            pairs: pairs of a name and its value, which is stored whatever the tree holds; or a name alone, whose
                value is read from the tree.
            path: the container of all of them; None: the caller's.

        Raises:
            EntryNotFound: there is no entry of a name that was given alone; also a `KeyError`.
            TransactionConflict: another writer changed such an entry during the block; nothing was written.

        >>> from suitkaise import sktree
        >>> tree = sktree.connect()
        >>> settings = {"size": 1}
        >>> with tree.AutoUpdate(("settings", settings), ("limit", 10), path="doc/auto") as values:
        ...     settings["size"] = 2
        ...     values["limit"] += 1
        >>> tree.get_all_from("doc/auto")
        {'limit': 11, 'settings': {'size': 2}}
        >>> with tree.AutoUpdate("limit", path="doc/auto") as values:
        ...     values["limit"] += 1
        >>> tree.get("limit", path="doc/auto")
        12
        >>> sktree.disconnect()
        """
        path = caller_path() if path is None else path
        values: dict[str, Any] = {}
        revisions: dict[str, int] = {}
        for pair in pairs:
            match pair:
                case str() as name:
                    record = self._writes().get(checked_path(path, name), name)
                    if record is None:
                        raise entry_not_found(self._reader, path, name)
                    values[name], revisions[name] = decoded(path, name, record), revision_of(record)
                case (str() as name, value):
                    checked_path(path, name)
                    values[name] = value
                case _:
                    raise TypeError(f"AutoUpdate takes names, and pairs of a name and its value, not {pair!r}")
        if self._transaction() is not None:
            return auto_update(values, revisions, path, self._writes)
        return auto_update(values, revisions, path, self._writes, self.transaction)

    # Snapshots.

    def snapshot(self, file: str | os.PathLike[str], *, progress: Progress = None) -> int:
        """Write all entries, as they are at one moment, to a file. A file of that name is replaced at the end.

        Writers and readers go on meanwhile. Entries that a worker has marked with `remove_on_process_join` are left
        out: they belong to that worker and not to the data.

        Args:
            file: the path of the file.
            progress: None: a line on standard error if that is a terminal and it takes longer than half a second;
                True: a line in any case; False: none; or a function that is called with the number of
                entries done and of all entries. It may read; it should not fork (`os.fork`), which may wait for
                another snapshot.

        Returns:
            The number of entries in the file.

        Raises:
            OSError: the file cannot be written, or is no regular file; an earlier file of that name is unchanged.
            StorageDamaged: an entry is damaged; an earlier file of that name is unchanged.
            StorageError: there is a transaction in this thread.

        >>> import tempfile
        >>> from suitkaise import sktree
        >>> tree = sktree.connect()
        >>> tree.add("limit", 10, path="doc/snapshot")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     count = tree.snapshot(folder + "/monday.snapshot")
        ...     tree.add("limit", 99, path="doc/snapshot")
        ...     restored = tree.restore(folder + "/monday.snapshot")
        >>> tree.get("limit", path="doc/snapshot"), restored == count
        (10, True)
        >>> sktree.disconnect()
        """
        self._refuse_in_transaction("snapshot")
        self._refuse_elsewhere("snapshot")
        target = Path(os.path.abspath(file))
        with reporting(progress, f"snapshot to {target.name}") as report:
            return self._direct.snapshot(target, report)

    def restore(
        self, file: str | os.PathLike[str], path: str = "", *, replace: bool = True, progress: Progress = None
    ) -> int:
        """Restore what a snapshot holds, in one atomic step: all of it or, if the file is damaged, nothing.

        Other writers wait until it is done, which takes about 10 seconds for a million entries. The restored
        entries have new revisions. Values are pickled, so restore only files that you trust.

        Args:
            file: the path of a file that `snapshot` wrote, of this storage or of another one.
            path: the container to restore, with all containers below it; the root, and so all of them, is "".
            replace: remove all other entries there, except those that workers have marked with
                `remove_on_process_join`; False: keep them.
            progress: as for `snapshot`. A function is called in another thread.

        Returns:
            How many entries were restored.

        Raises:
            SnapshotError: the file is no snapshot, or damaged; a `StorageError`.
            OSError: the file cannot be read.
            StorageFull: there is no room for it.
            StorageError: there is a transaction in this thread.
        """
        self._refuse_in_transaction("restore")
        self._refuse_elsewhere("restore")
        source = Path(os.path.abspath(file))
        with reporting(progress, f"restore of {source.name}") as report:
            return self._direct.restore(source, normal_path(path), report, replace=bool(replace))

    # Indexes, owners, and the handle itself.

    def declare_index(self, keys: Iterable[str]) -> None:
        """Have these metadata keys indexed from now on, as `sktree.connect(index=[...])` does.

        Raises:
            TypeError: `keys` is no list (or other iterable) of strings.
        """
        self._direct.send(DeclareIndex(0, False, checked_keys("declare_index: keys", keys), current_owner()))

    def forget_owner(self, owner: str) -> None:
        """Remove the entries that an ended worker marked with `remove_on_process_join`.

        Later writes of this incarnation and of earlier ones are refused. The call may be repeated.

        Args:
            owner: `path#incarnation`, such as `pipeline/counters/count-a#3`.

        Raises:
            TypeError, ValueError: `owner` is no such text.
        """
        self._writes().forget(owner, dead=True)

    def owners(self) -> set[str]:
        """Return the workers' incarnations (`path#incarnation`) that own entries marked `remove_on_process_join`."""
        self._direct.wait_for_storage()
        return self._reader.owners()

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

    def _refuse_elsewhere(self, what: str) -> None:
        if self._reader.is_elsewhere:
            raise StorageError(f"{what} works on the machine of the storage alone: its file is there")

    def _refuse_in_transaction(self, what: str) -> None:
        if self._transaction() is not None:
            raise StorageError(f"{what} cannot be part of a transaction")


def _is_mapped(words: Any) -> bool:
    """Return whether the page of the revision word can be read: it was mapped, and is not unmapped again."""
    try:
        words[0]
    except (TypeError, ValueError):
        return False
    return True


def _number(what: str, value: Any, path: str, name: str) -> Any:
    """Strip an int or float of its subclass, such as NumPy's."""
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    raise TypeError(f"increment of {where(name, path)}: {what} must be an int or a float, not {value!r}")


def _make(kind: type[Tree], directory: str, timeout: float) -> Tree:
    return kind(directory_here(directory), timeout=timeout)
