"""Tables, crash reports and stacks for a terminal, by rich (extra `cli`); `display` decides whether they are used.

What workers have written is shown as it is: it is no markup of rich, and its control characters are escaped before.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.box import ROUNDED, SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from suitkaise.crashes import CrashReport
from suitkaise.escapes import escaped, one_line
from suitkaise.observer.words import GUIDES, mood, with_room

if TYPE_CHECKING:
    from suitkaise.cli.display import Column

__all__ = ["print_details", "print_report", "print_stacks", "print_table"]

_STYLES = {"good": "green", "bad": "bold red", "soon": "yellow", "": ""}
_NARROWEST = {"name": 24, "text": 24, "end": 16}  # characters that a column gets before others are left out
_GAP = 2
_GUIDES = rf"^[{GUIDES}]+"
_LONGEST = 300  # characters of a text in a table
_FRAME = re.compile(r'^(?P<in>[ |]*File )(?P<file>"[^"]*")(?P<line>, line \d+)(?P<of>, in |, in$| in )?(?P<name>.*)$')
_ERROR = re.compile(r"^(?P<bars>[ |]*)(?P<type>[A-Za-z_][\w.]*)(?P<text>: .*)?$")
_HEAD = re.compile(
    r"^(?:[ |+]*(?:Exception Group )?Traceback |Thread |Current thread |--- |During handling |The above )"
)


def print_table(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
    """Print a table that fits the terminal."""
    console = _console()
    kept = _columns_that_fit(columns, rows, console.width)
    shown = Table(
        box=SIMPLE_HEAD, border_style="dim", header_style="bold", show_edge=False, pad_edge=False, padding=(0, 1, 0, 0)
    )
    for column in (columns[one] for one in kept):
        shown.add_column(
            column.title,
            justify="right" if column.kind == "number" else "left",
            no_wrap=column.kind not in ("name", "text", "end"),
            overflow="fold" if column.kind == "text" else "ellipsis",
        )
    for row in rows:
        shown.add_row(*(_cell(columns[one], row[one], console.width) for one in kept))
    console.print(shown)


def _columns_that_fit(columns: Sequence[Column], rows: Sequence[Sequence[str]], room: int) -> list[int]:
    """Return the numbers of the columns to show: one that is empty in all rows is left out, too."""
    kept = [number for number in range(len(columns)) if any(row[number] for row in rows)]
    widths = [max(cell_len(text) for text in (column.title, *texts))
              for column, *texts in zip(columns, *rows, strict=True)]  # fmt: skip
    needed = [min(width, _NARROWEST.get(column.kind, width)) for column, width in zip(columns, widths, strict=True)]
    while sum(needed[one] + _GAP for one in kept) - _GAP > room:
        last = max(kept, key=lambda one: columns[one].rank)
        if not columns[last].rank:
            break
        kept.remove(last)
    return kept


def _cell(column: Column, text: str, room: int) -> Text:
    match column.kind:
        case "status":
            return Text(text, _STYLES[mood(text)])
        case "name":
            text = with_room(text, max(_NARROWEST["name"], room * 3 // 10))
            cell = Text(text, no_wrap=True, overflow="ellipsis")
            cell.highlight_regex(_GUIDES, "dim")
            return cell
        case "end":
            return Text(text, "dim", no_wrap=True, overflow="ellipsis")
        case "text":
            return Text(text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}...")
        case "dim":
            return Text(text, "dim")
        case _:
            return Text(text)


def print_report(report: CrashReport) -> None:
    """Print a crash report in a frame."""
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column(overflow="fold")
    for label, text in report.rows():
        facts.add_row(label, Text(escaped(text), "bold red" if label == "reason" else ""))
    parts: list[RenderableType] = [facts]
    if report.lines:
        lines = Text("\n".join(one_line(line) for line in report.lines))
        parts += ["", Text("last lines", "dim"), Padding(lines, (0, 0, 0, 2))]
    if report.traceback:
        parts += ["", Text("traceback", "dim"), Padding(_stacks(escaped(report.traceback)), (0, 0, 0, 2))]
    title = Text.assemble(("crash ", ""), (report.id, "bold"), f"  {report.when()}")
    _console().print(Panel(Group(*parts), title=title, title_align="left", box=ROUNDED, border_style="red"))


def print_details(title: str, status: str, lines: Sequence[str]) -> None:
    """Print a title with a status, and lines, in a frame."""
    style = _STYLES[mood(status)]
    body = [Padding(_detail(line), (0, 0, 0, len(line) - len(line.lstrip()))) for line in lines]
    head = Text.assemble((title, "bold"), (status, style))
    _console().print(Panel(Group(*body), title=head, title_align="left", box=ROUNDED, border_style=style or "dim"))


def _detail(line: str) -> Text:
    if line.startswith(" "):  # printed by the worker
        return Text(line.lstrip(), "dim")
    text = Text(line)
    text.highlight_regex(r"^(?:last exit|crash reports|last lines):", "dim")
    return text


def print_stacks(text: str) -> None:
    """Print tracebacks or stacks of threads."""
    _console().print(_stacks(text))


def _stacks(text: str) -> Text:
    return Text("\n").join(map(_line_of_stack, text.rstrip().split("\n")))


def _line_of_stack(line: str) -> Text:
    if (frame := _FRAME.match(line)) is not None:
        parts = [(frame["in"], "dim"), (frame["file"], "cyan"), (frame["line"], "cyan"), (frame["of"] or "", "dim")]
        return Text.assemble(*parts, (frame["name"], "bold"))
    if _HEAD.match(line):
        return Text(line, "dim")
    if not line.startswith("  ") and (error := _ERROR.match(line)) is not None:
        return Text.assemble(error["bars"], (error["type"], "bold red"), error["text"] or "")
    if line.strip(" |~^") == "" and line.strip():
        return Text(line, "red")
    return Text(line)


def _console() -> Console:
    width = shutil.get_terminal_size().columns  # rich takes COLUMNS=0 at its word, and would print nothing
    return Console(file=sys.stdout, width=width, highlight=False, markup=False, emoji=False)
