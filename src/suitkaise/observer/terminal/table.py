"""The table of workers: draws the lines that are in view, keeps its cursor on its worker, and fits any width."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from suitkaise.observer.terminal.lines import COLUMNS, Column, Line
from suitkaise.observer.words import GUIDES, mood, with_room

__all__ = ["Table"]

NAME_LEAST, NAME_MOST, DOING_LEAST = 16, 44, 18
"""Characters: the name gets what the other columns leave, between these."""


class Table(ScrollView, can_focus=True):
    """Lines under a head. What has not changed is not drawn again, and a new order keeps the cursor on its worker."""

    DEFAULT_CSS: ClassVar[str] = """
    Table { scrollbar-size-vertical: 1; overflow-x: hidden; }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "table--head", "table--sorted", "table--cursor", "table--dim",
        "table--good", "table--bad", "table--soon",
    }  # fmt: skip
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,ctrl+p", "move(-1)", show=False),
        Binding("down,ctrl+n", "move(1)", show=False),
        Binding("pageup", "page(-1)", show=False),
        Binding("pagedown", "page(1)", show=False),
        Binding("home,g", "move(-100000)", show=False),
        Binding("end,G", "move(100000)", show=False),
    ]

    class Chosen(Message):
        """The cursor is at another worker."""

        def __init__(self, path: str) -> None:
            super().__init__()
            self.path: str = path

    class Opened(Message):
        """The line under the mouse was clicked twice."""

    class HeadClicked(Message):
        """The head of a column was clicked."""

        def __init__(self, column: str) -> None:
            super().__init__()
            self.column: str = column

    def __init__(self, id: str) -> None:
        super().__init__(id=id)
        self.lines: list[Line] = []
        self.sort: str = ""
        self.cursor: int = 0

    # ------------------------------------------------------------ what is shown
    @property
    def path(self) -> str:
        """The path of the worker under the cursor; empty without one."""
        return self.lines[self.cursor].path if self.lines else ""

    def show(self, lines: list[Line], sort: str) -> None:
        """Show these lines from now on."""
        if lines == self.lines and sort == self.sort:
            return
        before, path = self.lines, self.path
        self.lines, self.sort = lines, sort
        found = _index_of(lines, path)
        self.cursor = min(self.cursor, max(0, len(lines) - 1)) if found is None else found
        self.virtual_size: Size = Size(0, len(lines) + 1)
        if found is not None and found != _index_of(before, path):
            self._keep_in_view()
        elif found is None:
            self.post_message(self.Chosen(self.path))
        self.refresh()

    def action_move(self, by: int) -> None:
        """Move the cursor."""
        self.go_to(self.cursor + by)

    def action_page(self, by: int) -> None:
        """Move the cursor by a page."""
        self.go_to(self.cursor + by * max(1, self.size.height - 2))

    def go_to(self, index: int) -> None:
        """Move the cursor to a line."""
        index = max(0, min(index, len(self.lines) - 1))
        if index != self.cursor and self.lines:
            self.cursor = index
            self._keep_in_view()
            self.refresh()
            self.post_message(self.Chosen(self.path))

    def _keep_in_view(self) -> None:
        self.scroll_to_region(Region(0, self.cursor + 1, 1, 1), animate=False, spacing=None, force=True)
        top = int(self.scroll_offset.y)
        if self.cursor < top:  # under the head, which stays where it is
            self.scroll_to(y=self.cursor, animate=False, force=True)

    def on_resize(self) -> None:
        """Keep the cursor in view."""
        self.call_after_refresh(self._keep_in_view)

    # ------------------------------------------------------------ mouse
    def on_click(self, event: events.Click) -> None:
        """Move the cursor to the line under the mouse, or sort by the column."""
        if event.y == 0:
            column = self._column_at(event.x)
            if column:
                self.post_message(self.HeadClicked(column))
            return
        index = event.y - 1 + int(self.scroll_offset.y)
        if index < len(self.lines):
            self.go_to(index)
            if event.chain == 2:
                self.post_message(self.Opened())

    def _column_at(self, x: int) -> str:
        columns, name, _ = self._layout()
        left = name + 2
        for column in columns:
            if left <= x < left + column.width:
                return column.name if column.figure else ""
            left += column.width
        return ""

    # ------------------------------------------------------------ drawing
    def _layout(self) -> tuple[list[Column], int, int]:
        """Return the columns that fit, the width of the name, and the width of what the worker is doing."""
        width = self.scrollable_content_region.width or self.size.width
        wanted = max((len(line.name) for line in self.lines), default=0) + 1
        columns = list(COLUMNS)
        while columns and NAME_LEAST + _width(columns) > width - 2:
            columns.remove(max(columns, key=lambda column: column.rank))
        if columns and columns[-1].name == "up" and width - _width(columns) < min(wanted, NAME_MOST) + DOING_LEAST:
            columns = [column for column in columns if column.name != "messages"]  # the reason of an exit tells more
        left = width - _width(columns) - 2
        name = max(NAME_LEAST, min(wanted, NAME_MOST, left))
        if left - name < DOING_LEAST:  # too little for a reason: the name gets it
            name = max(NAME_LEAST, min(wanted, left))
        return columns, min(name, max(1, width)), max(0, left - name)

    def render_line(self, y: int) -> Strip:
        """Draw one line of what is in view."""
        width = self.scrollable_content_region.width or self.size.width
        if y == 0:
            return self._strip(self._head(), width, self.get_component_rich_style("table--head"))
        index = y - 1 + int(self.scroll_offset.y)
        if index >= len(self.lines):
            return Strip.blank(width, self.rich_style)
        base = self.rich_style
        if index == self.cursor:
            base += self.get_component_rich_style("table--cursor")
        return self._strip(self._cells(self.lines[index], index == self.cursor), width, base)

    def _strip(self, segments: Iterable[Segment], width: int, base: Style) -> Strip:
        return Strip(Segment.apply_style(segments, base)).adjust_cell_length(width, base)

    def _tone(self, name: str) -> Style:
        """Return the colour of a component without its background, which is that of the line."""
        style = self.get_component_rich_style(f"table--{name}")
        return Style(color=style.color, bold=style.bold)

    def _head(self) -> Iterable[Segment]:
        columns, name, doing = self._layout()
        yield Segment(f" {_left('NAME', name)} ")
        for column in columns:
            is_sorted = column.name == self.sort
            title = f"{column.title}▾" if is_sorted else column.title
            style = self._tone("sorted") if is_sorted else None
            yield Segment(_fitted(title, column), style)
        if doing > 8:
            yield Segment(_left("  DOING / LAST EXIT", doing))

    def _cells(self, line: Line, under_cursor: bool) -> Iterable[Segment]:
        columns, name, doing = self._layout()
        plain = Style.null()
        dim = plain if under_cursor else self._tone("dim")
        tone = mood(line.state)
        state = self._tone(tone) if tone else dim
        text = with_room(line.name, name)
        branch = text[: len(text) - len(text.lstrip(GUIDES))]
        whole = _left(text, name, keep_end=not branch and bool(self.sort))
        yield Segment(f" {whole[: len(branch)]}", dim)
        yield Segment(whole[len(branch) :] + " ", Style(bold=True) if line.kind == "supervisor" else plain)
        for column in columns:
            text = line.cells.get(column.name, "")
            if column.name == "state":
                yield Segment(_left(f"{_MARKS.get(tone, '○')} {text}", column.width), state)
            else:
                yield Segment(_fitted(text, column), plain if column.figure else dim)
        if doing > 8:
            yield Segment(_left(f"  {line.doing}", doing), state if tone == "bad" else dim)


def _width(columns: list[Column]) -> int:
    return sum(column.width for column in columns)


_MARKS = {"good": "●", "bad": "✖", "soon": "◐"}


def _index_of(lines: list[Line], path: str) -> int | None:
    """Return the place of that path; None if it has none."""
    return next((number for number, line in enumerate(lines) if line.path == path), None)


def _left(text: str, width: int, *, keep_end: bool = False) -> str:
    """Return the text in that many columns of the terminal."""
    if cell_len(text) > width > 0:
        text = f"…{text[len(text) - width + 1 :]}" if keep_end else f"{set_cell_size(text, width - 1)}…"
    return set_cell_size(text, width)


def _fitted(text: str, column: Column) -> str:
    width = column.width - 1
    return f"{text[:width].rjust(width)} " if column.figure else _left(text, column.width)
