"""What commands print for people: plain text, or, on a terminal and with the extra `cli`, tables and reports by rich.

Both show the same values, which a command hands over once. Nothing in them can steer the terminal.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple, TypeAlias

from suitkaise.crashes import CrashReport
from suitkaise.escapes import escaped, one_line
from suitkaise.observer.words import mood

__all__ = [
    "Column",
    "Kind",
    "is_coloured",
    "painted",
    "print_details",
    "print_report",
    "print_stacks",
    "print_table",
    "table",
]

_DIM = "2"
_COLOURS = {"good": "32", "bad": "31", "soon": "33", "": ""}


Kind: TypeAlias = Literal["", "name", "text", "end", "number", "status", "dim"]
"""What a column holds. Where the terminal is narrow, `name`, `text` and `end` give way, and a `text` takes lines."""


class Column(NamedTuple):
    """A column of a table.

    Args:
        title: its head.
        kind: what it holds.
        rank: of the columns that do not fit, the one with the highest is left out first; 0: it never is.
    """

    title: str
    kind: Kind = ""
    rank: int = 0


def is_coloured() -> bool:
    """Return whether stdout is a terminal that shows colours, and the user wants them."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _has_rich() -> bool:
    return is_coloured() and importlib.util.find_spec("rich") is not None


def print_table(
    columns: Sequence[Column], rows: Sequence[Sequence[str]], *, plain: Iterable[str] | None = None
) -> None:
    """Print the rows as a table. `plain`: the lines that stand for the table where it is plain text."""
    rows = [[one_line(cell) for cell in row] for row in rows]
    if rows and _has_rich():
        from suitkaise.cli import rich_display  # 50 ms

        rich_display.print_table(columns, rows)
    elif plain is None:
        statuses = [number for number, column in enumerate(columns) if column.kind == "status"]
        head = [column.title for column in columns]
        print(table([head, *rows], coloured=statuses[0] if statuses else None))
    else:
        for line in plain:
            print(one_line(line))


def print_report(report: CrashReport) -> None:
    """Print a crash report."""
    if _has_rich():
        from suitkaise.cli import rich_display

        rich_display.print_report(report)
    else:
        print(report)


def print_details(title: str, status: str, lines: Sequence[str]) -> None:
    """Print what is known of one thing: a title, which ends with its status, and lines."""
    title, lines = one_line(title), [one_line(line) for line in lines]
    if _has_rich():
        from suitkaise.cli import rich_display

        rich_display.print_details(title, status, lines)
    else:
        print("\n".join([f"{title}{painted(status, status)}", *(f"  {line}" for line in lines)]))


def print_stacks(text: str) -> None:
    """Print tracebacks or stacks of threads."""
    text = escaped(text)
    if _has_rich():
        from suitkaise.cli import rich_display

        rich_display.print_stacks(text)
    else:
        print(text)


def table(rows: Sequence[Sequence[str]], *, coloured: int | None = None) -> str:
    """Return the rows as aligned columns; the first row is the head. `coloured`: the column that holds statuses."""
    widths = [max(_width(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for number, row in enumerate(rows):
        cells = [cell + " " * (width - _width(cell)) for cell, width in zip(row, widths, strict=True)]
        if number == 0:
            cells = [painted(cell, colour=_DIM) for cell in cells]
        elif coloured is not None:
            cells[coloured] = painted(cells[coloured], row[coloured])
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def painted(text: str, status: str = "", *, colour: str = "") -> str:
    """Return the text in the colour of a status, or in the colour of that number, where colours are shown."""
    colour = colour or _COLOURS[mood(status)]
    return f"\x1b[{colour}m{text}\x1b[0m" if colour and is_coloured() else text


def _width(text: str) -> int:
    """Return the number of columns that the text takes in a terminal."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(one) else 1 + (unicodedata.east_asian_width(one) in "WF") for one in text)
