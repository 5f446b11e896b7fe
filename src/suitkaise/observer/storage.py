"""What pages see of the program's storage: one container at a time, with short values, read from the shared memory."""

from __future__ import annotations

import itertools
import pprint
from pathlib import Path
from typing import Any

from suitkaise.escapes import escaped
from suitkaise.storage.backends.reader import NotThereYet, Reader, reader_of
from suitkaise.storage.keys import entry_key, normal_path
from suitkaise.storage.listing import LARGEST_SHOWN, containers_below
from suitkaise.storage.records import Entry, checked, value_of

__all__ = ["StorageView"]

MOST = 500
"""How many entries, and how many containers, of one container are shown."""

SHORT, LONG = 160, 20_000
"""Characters of a value that are shown in the list, and alone."""


class StorageView:
    """Looks into the storage of a program. Decoding a value may run code of its class, and block.

    Args:
        hide_values: show names and facts alone.
    """

    def __init__(self, *, hide_values: bool = False) -> None:
        self._hide_values = hide_values

    def container(self, directory: str | None, path: str, seen: int | None = None) -> dict[str, Any]:
        """Return what lies in one container, ready for JSON.

        Args:
            directory: the directory of the storage; None: the program uses none.
            path: the container.
            seen: the revision that the page has seen; if nothing has changed since, only `revision` is returned.
        """
        nothing = {"path": path, "used": directory is not None, "revision": None, "count": 0, "containers": [],
                   "entries": [], "more": 0, "hidden": self._hide_values}  # fmt: skip
        if directory is None:
            return nothing
        reader = reader_of(Path(directory))
        try:
            revision = int(reader.revision_words()[0])
            if revision == seen:
                return {"revision": revision}
            path = normal_path(path)
            names = _next_names(containers_below(reader, path), path)
            entries = sorted(reader.entries(path), key=lambda found: found[1].name)
            count = reader.count()
        except NotThereYet:
            return nothing
        return nothing | {
            "path": path,
            "revision": revision,
            "count": count,
            "containers": list(itertools.islice(names, MOST)),
            "entries": [
                _facts(entry) | {"value": self._value(reader, key, entry, SHORT)} for key, entry in entries[:MOST]
            ],
            "more": max(0, len(names) - MOST) + max(0, len(entries) - MOST),
        }

    def entry(self, directory: str | None, path: str, name: str) -> dict[str, Any] | None:
        """Return the facts about one entry with its value, ready for JSON; None if it is not there."""
        if directory is None:
            return None
        reader = reader_of(Path(directory))
        path = normal_path(path)
        key = entry_key(path, name)[0]
        try:
            for found, entry in reader.entries(path):
                if found == key:
                    return _facts(entry) | {"value": self._value(reader, key, entry, LONG)}
        except NotThereYet:
            pass
        return None

    def _value(self, reader: Reader, key: bytes, entry: Entry, most: int) -> str | None:
        """Return the value as text of at most so many characters; None if values are hidden."""
        if self._hide_values:
            return None
        if entry.size > LARGEST_SHOWN:
            return f"<{entry.size:,} bytes>"
        record = reader.get(key)
        if record is None:
            return "<removed meanwhile>"
        try:
            value = value_of(checked(key, record))
            text = repr(value) if most == SHORT else pprint.pformat(value, width=76, sort_dicts=False)
        except Exception as error:
            text = f"<cannot be shown: {type(error).__name__}: {error}>"
        text = escaped(text)
        return text if len(text) <= most else f"{text[:most]}…"


def _facts(entry: Entry) -> dict[str, Any]:
    return {"path": entry.path, "name": entry.name, "revision": entry.revision, "owner": entry.owner,
            "time": entry.time, "size": entry.size, "metadata": entry.metadata}  # fmt: skip


def _next_names(containers: list[str], path: str) -> list[str]:
    """Return the names of the containers right below `path`.

    >>> _next_names(["", "jobs", "jobs/done", "jobs/open/old"], "jobs")
    ['done', 'open']
    """
    start = f"{path}/" if path else ""
    below = (one[len(start) :] for one in containers if one.startswith(start) and one != path)
    return sorted({one.partition("/")[0] for one in below if one})
