"""What a storage holds: the containers below a path, and a picture of the whole tree."""

from __future__ import annotations

import contextlib
import difflib
import itertools

from suitkaise.errors import EntryNotFound
from suitkaise.escapes import one_line
from suitkaise.storage.backends.reader import Reader
from suitkaise.storage.keys import entry_key, is_below, normal_path, path_in
from suitkaise.storage.protocol import where
from suitkaise.storage.records import intact, path_and_name, value_of

__all__ = [
    "LARGEST_SHOWN",
    "MAX_SHOWN",
    "containers_below",
    "entry_not_found",
    "picture_of",
    "short_value",
    "shown_entries",
]

MAX_SHOWN = 200
"""The number of entries that a picture of the tree shows at most."""
LARGEST_SHOWN = 256 << 10
"""The number of bytes beyond which the size of a record is shown in place of its value, whose text may take seconds."""
_MAX_VALUE = 60  # characters
_MOST_COMPARED = 1000
"""The number of names in a container of which the nearest are told: a miss among many is to cost no second."""


def containers_below(reader: Reader, top: str) -> list[str]:
    """List the paths of the containers at and below `top`, in order."""
    paths = (_container_of(reader, key) for key in reader.containers())
    return sorted(path for path in paths if path is not None and is_below(path, top))


def entry_not_found(reader: Reader, path: str, name: str) -> EntryNotFound:
    """Build the error for an entry that does not exist; the message tells where it is, or the nearest names."""
    path = normal_path(path)
    names = sorted(path_and_name(key, record)[1] for key, record in reader.heads(path, _MOST_COMPARED + 1))
    hint = "" if names else "; the container is empty"
    if len(names) <= _MOST_COMPARED and (near := difflib.get_close_matches(name, names, n=3)):
        hint = f"; did you mean {' or '.join(map(repr, near))}?"
    above, _, last = name.rpartition("/")
    with contextlib.suppress(ValueError):  # it is no path, then
        if above and reader.revision(entry_key(above, last)[0]):  # it is a whole path, as `suitkaise store ls` shows it
            hint = f"; there is {where(last, normal_path(above))}"
    if not hint or not names:
        hint += reader.hint
    return EntryNotFound(f"there is no {where(name, path)}{hint}", path=path)


def picture_of(reader: Reader) -> str:
    """Draw the tree with short values; at most the first 200 entries.

    Raises:
        NotThereYet: no storage actor has ever run in the directory.
    """
    count = reader.count()
    lines = [f"storage in {reader.directory}: {count} {'entry' if count == 1 else 'entries'}"]
    shown = shown_entries(reader)
    above: list[str] = []
    for path, name, record in shown:
        parts = path.split("/") if path else []
        common = next(
            (at for at, (one, other) in enumerate(zip(parts, above, strict=False)) if one != other),
            min(len(parts), len(above)),
        )
        lines += [f"{'  ' * (depth + 1)}{one_line(parts[depth])}/" for depth in range(common, len(parts))]
        above = parts
        lines.append(f"{'  ' * (len(parts) + 1)}{one_line(name)} = {short_value(record)}")
    if count > len(shown):
        lines.append(f"  and {count - len(shown)} more")
    return "\n".join(lines)


def shown_entries(reader: Reader) -> list[tuple[str, str, bytes]]:
    """Return path, name and record of the entries that a picture shows, ordered as a tree."""
    return sorted(
        ((*path_and_name(key, record), record) for key, record in itertools.islice(reader.walk(), MAX_SHOWN)),
        key=lambda item: ([*item[0].split("/")], item[1]),
    )


def short_value(record: bytes) -> str:
    """Return the value's `repr` in one line, cut if it is long; of a large value its size; without one, the reason."""
    if len(record) > LARGEST_SHOWN:
        return f"<{len(record):,} bytes>"
    if not intact(record):
        return "<damaged>"
    try:
        text = one_line(repr(value_of(record))[: _MAX_VALUE + 1])
    except Exception as error:
        return one_line(f"<cannot be shown here: {error}>")
    return text if len(text) <= _MAX_VALUE else text[: _MAX_VALUE - 3] + "..."


def _container_of(reader: Reader, key: bytes) -> str | None:
    path = path_in(key)
    if path is not None:
        return path
    record = reader.get(key)
    return None if record is None else path_and_name(key, record)[0]
