"""Looking around in the tree: containers, names, the facts about entries, and a picture of it all."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from suitkaise.errors import NotBuiltYet
from suitkaise.storage.backends.lmdb_reader import NotThereYet
from suitkaise.storage.caller_path import caller_path
from suitkaise.storage.handle import Handle, checked
from suitkaise.storage.keys import entry_key, normal_path, path_in, unpack_key
from suitkaise.storage.records import Entry, Record, revision_of, value_of

__all__ = ["Listing"]

_MOST_SHOWN = 200
_LONGEST_VALUE = 60


class Listing(Handle):
    """The part of the tree's handle that tells what there is."""

    def get_all_from(self, path: str | None = None) -> dict[str, Any]:
        """All values of one container by their names, as they were at one moment.

        Args:
            path: the container; None: the caller's. It need not exist: then there is nothing in it.
        """
        path = normal_path(caller_path() if path is None else path)
        transaction = self._slot.current
        self._wait_for_storage()
        found = self._reader.container(path) if transaction is None else transaction.container(path)
        names = [(_names(key, record)[1], record) for key, record in found]
        return {name: self._decode(path, name, record) for name, record in sorted(names)}

    def containers(self, path: str = "") -> list[str]:
        """The paths of all containers that hold entries, at and below `path`, in order. The root is ""."""
        path = normal_path(path)
        self._outside_of_transactions("containers")
        self._wait_for_storage()
        found = []
        for key in self._reader.containers():
            container = self._container_of(key)
            if container is not None and _is_below(container, path):
                found.append(container)
        return sorted(found)

    def walk(self, path: str = "") -> Iterator[tuple[str, list[str]]]:
        """Each container at and below `path` with the names in it, in order; like `os.walk`.

        >>> from suitkaise import sktree
        >>> tree = sktree.connect()
        >>> tree.add("b", 1, path="doc/walk")
        >>> tree.add("a", 1, path="doc/walk/deeper")
        >>> list(tree.walk("doc/walk"))
        [('doc/walk', ['b']), ('doc/walk/deeper', ['a'])]
        >>> sktree.disconnect()
        """
        for container in self.containers(path):
            names = sorted(_names(key, record)[1] for key, record in self._reader.container(container))
            if names:
                yield container, names

    def entry(self, name: str, path: str | None = None) -> Entry:
        """The facts about an entry: revision, owner, time, size and metadata.

        Raises:
            EntryNotFound: there is no such entry; also a `KeyError`.
        """
        path = checked(caller_path() if path is None else path, name)
        record = self._record(path, name)
        if record is None:
            raise self._not_found(path, name)
        return Record.unpack(record).entry(entry_key(path, name)[0], len(record))

    def exists(self, name: str, path: str | None = None) -> bool:
        """Whether there is such an entry."""
        path = checked(caller_path() if path is None else path, name)
        return self._record(path, name) is not None

    def revision(self, name: str, path: str | None = None) -> int:
        """The revision of an entry; 0 if there is none. For `compare_and_set`."""
        path = checked(caller_path() if path is None else path, name)
        self._outside_of_transactions("revision")
        return revision_of(self._record(path, name))

    def __str__(self) -> str:
        """A picture of the tree, with short values; the first 200 entries of it."""
        try:
            count = self._reader.count()
        except NotThereYet:
            return f"storage in {self.directory}: not there yet"
        lines = [f"storage in {self.directory}: {count} {'entry' if count == 1 else 'entries'}"]
        shown = sorted(
            ((*_names(key, record), record) for key, record in itertools.islice(self._reader.walk(), _MOST_SHOWN)),
            key=lambda item: ([*item[0].split("/")], item[1]),
        )
        above: list[str] = []
        for path, name, record in shown:
            parts = path.split("/") if path else []
            common = next(
                (at for at, (one, other) in enumerate(zip(parts, above, strict=False)) if one != other),
                min(len(parts), len(above)),
            )
            lines += [f"{'  ' * (depth + 1)}{parts[depth]}/" for depth in range(common, len(parts))]
            above = parts
            lines.append(f"{'  ' * (len(parts) + 1)}{name} = {_short(record)}")
        if count > len(shown):
            lines.append(f"  and {count - len(shown)} more")
        return "\n".join(lines)

    def _container_of(self, key: bytes) -> str | None:
        path = path_in(key)
        if path is not None:
            return path
        record = self._reader.get(key)
        return None if record is None else _names(key, record)[0]

    def _outside_of_transactions(self, what: str) -> None:
        if self._slot.current is not None:
            raise NotBuiltYet(f"{what} inside of a transaction is not built yet; call it before the block")


def _names(key: bytes, record: bytes) -> tuple[str, str]:
    return Record.unpack(record).long_key or unpack_key(key)


def _is_below(path: str, top: str) -> bool:
    return not top or path == top or path.startswith(top + "/")


def _short(record: bytes) -> str:
    try:
        text = repr(value_of(record))
    except Exception as error:
        return f"<cannot be decoded here: {error}>"
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 3] + "..."
