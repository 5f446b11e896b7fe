"""Entries that were selected by their metadata: an object to look at, update and remove them together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from suitkaise.storage.index import matches
from suitkaise.storage.records import Entry, Metadata, Record, revision_of
from suitkaise.storage.writes import Writes, decoded

__all__ = ["Selection", "select"]


class Selection:
    """The entries at and below a container that had all the given metadata at the moment of the selection.

    Later entries are not in it, even if their metadata fit. What is done to a selection is done to those of its
    entries that still exist and still have the metadata; it does not matter whether their values have changed.

    Iterating yields an `Entry` for each, ordered by path and name, with the facts of the moment of the selection; `len`
    is their number, and an empty selection is false. In a transaction, a selection's reads and writes are part of it.

    `metadata` is what was selected by, and `path` the container.

    >>> from suitkaise import sktree
    >>> tree = sktree.connect()
    >>> for name in ("a", "b", "c"):
    ...     tree.add(name, 1, path="doc/jobs", metadata={"pid": 7, "done": name == "c"})
    >>> selection = tree.select_all_with({"pid": 7, "done": False}, "doc/jobs")
    >>> [entry.name for entry in selection], selection.values()
    (['a', 'b'], [1, 1])
    >>> selection.update(lambda value: value + 1), selection.values()
    (2, [2, 2])
    >>> selection.remove(), tree.get_all_from("doc/jobs")
    (2, {'c': 1})
    >>> sktree.disconnect()
    """

    def __init__(self, writes: Callable[[], Writes], metadata: Metadata, path: str, entries: list[Entry]) -> None:
        self.metadata: Metadata = metadata
        self.path: str = path
        self._writes = writes
        self._entries = entries

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        count = "1 entry" if len(self) == 1 else f"{len(self)} entries"
        where = repr(self.path) if self.path else "the root"
        return f"<{type(self).__name__} of {count} with {self.metadata!r} below {where}>"

    def _repr_html_(self) -> str:
        from suitkaise.storage.html import html_of_entries  # for notebooks alone

        return html_of_entries(repr(self).strip("<>"), self._entries)

    def count(self) -> int:
        """Return how many entries were selected, as `len` does."""
        return len(self._entries)

    def values(self) -> list[Any]:
        """Return the present values of the entries, in order, without those of entries that are gone."""
        return [decoded(entry.path, entry.name, record) for entry, record in self._present()]

    def update(self, value: Callable[[Any], object] | object) -> int:
        """Replace the value of each entry; the metadata stay. Each entry by itself is updated atomically.

        Args:
            value: the value; or a function that makes it of the old one. The function may be called several
                times for an entry, if others write at the same time, so it must do nothing else.

        Returns:
            How many entries were updated.

        Raises:
            NotSerializable, OwnerDead, StorageError: as for `Tree.add`; entries before this one are updated.
        """
        writes = self._writes()
        updated = 0
        for path, name in self._names():
            while (record := writes.get(path, name)) is not None and matches(record, self.metadata):
                new = value(decoded(path, name, record)) if callable(value) else value
                if writes.compare_and_set(path, name, revision_of(record), new, None):
                    updated += 1
                    break
        return updated

    def remove(self) -> int:
        """Remove the entries. Outside of a transaction, up to 500 are removed at a time, so that no writer waits long.

        Returns:
            How many entries were removed.
        """
        return self._writes().remove_selected(self._names(), self.metadata)

    def _names(self) -> list[tuple[str, str]]:
        return [(entry.path, entry.name) for entry in self._entries]

    def _present(self) -> Iterator[tuple[Entry, bytes]]:
        writes = self._writes()
        for entry in self._entries:
            record = writes.get(entry.path, entry.name)
            if record is not None and matches(record, self.metadata):
                yield entry, record


def select(writes: Callable[[], Writes], metadata: Metadata, path: str) -> Selection:
    """Select the entries at and below `path` that have these metadata."""
    entries = [Record.unpack(head).entry(key, size) for key, head, size in writes().select(metadata, path)]
    return Selection(writes, metadata, path, sorted(entries, key=lambda entry: (entry.path, entry.name)))
