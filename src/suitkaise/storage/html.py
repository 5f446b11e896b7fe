"""How a notebook shows a tree, a selection and an entry. All text of users is escaped."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable
from html import escape
from typing import TYPE_CHECKING

from suitkaise.storage.listing import MAX_SHOWN, short_value, shown_entries

if TYPE_CHECKING:
    from suitkaise.storage.backends.reader import Reader
    from suitkaise.storage.records import Entry

__all__ = ["html_of_entries", "html_of_tree"]

_ROWS = 100


def html_of_tree(reader: Reader) -> str:
    """Show the containers, which can be unfolded, with short values; at most the first 200 entries.

    Raises:
        NotThereYet: no storage actor has ever run in the directory.
    """
    count = reader.count()
    parts = [f"<div><b>storage in {escape(str(reader.directory))}</b>: {count} {'entry' if count == 1 else 'entries'}"]
    for path, entries in itertools.groupby(shown_entries(reader), key=lambda shown: shown[0]):
        rows = _rows((name, short_value(record)) for _, name, record in entries)
        parts.append(f"<details open><summary>{escape(path or '/')}</summary><table>{rows}</table></details>")
    if count > MAX_SHOWN:
        parts.append(f"<div>and {count - MAX_SHOWN} more</div>")
    return "".join([*parts, "</div>"])


def html_of_entries(title: str, entries: list[Entry]) -> str:
    """Show the facts about entries as a table; at most the first 100."""
    head = _row(("path", "name", "revision", "owner", "time", "size", "metadata"), "th")
    rows = _rows(
        (
            entry.path or "/",
            entry.name,
            entry.revision,
            entry.owner or "",
            time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(entry.time)),
            entry.size,
            ", ".join(f"{key}={value!r}" for key, value in entry.metadata.items()),
        )
        for entry in entries[:_ROWS]
    )
    more = f"<div>and {len(entries) - _ROWS} more</div>" if len(entries) > _ROWS else ""
    caption = f"<b>{escape(title)}</b>" if title else ""
    return f"<div>{caption}<table>{head}{rows}</table>{more}</div>"


def _rows(rows: Iterable[tuple[object, ...]]) -> str:
    return "".join(_row(row, "td") for row in rows)


def _row(cells: tuple[object, ...], tag: str) -> str:
    return f"<tr>{''.join(f'<{tag}>{escape(str(cell))}</{tag}>' for cell in cells)}</tr>"
