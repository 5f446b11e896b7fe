"""The application: the head, the table, the detail of the chosen worker, and the keys."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from signal import Signals
from typing import Any, ClassVar

from rich.text import Text
from textual import work
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.css.query import NoMatches
from textual.screen import Screen
from textual.widgets import Footer, Input, Static

from suitkaise.errors import AskTimeout, SuitkaiseError
from suitkaise.escapes import one_line
from suitkaise.messaging.log_reader import tagged
from suitkaise.messaging.log_rings import EVENT, Line
from suitkaise.observer.observation import TICK
from suitkaise.observer.terminal.detail import TONES, detail_of
from suitkaise.observer.terminal.dialogs import ChooseSignal, Confirm, Help
from suitkaise.observer.terminal.lines import COLUMNS, lines_of
from suitkaise.observer.terminal.source import SKIPPED, Source
from suitkaise.observer.terminal.table import Table
from suitkaise.observer.words import DONE, duration, memory, mood

__all__ = ["TopApp"]

SORTS = ["", *(column.name for column in COLUMNS if column.figure)]

_HINTS = {
    "restart": "It is stopped by its shutdown and started again; this does not count as a restart.",
    "stop": "It is stopped by its shutdown, and stays stopped until it is started.",
    "start": "",
    "suspend": "It does nothing after its current loop, until it is resumed.",
    "resume": "",
}


class TopApp(App[None]):
    """Shows the trees of a source.

    Args:
        source: the program.
        scope: only what is at and below this path; empty for all trees.
        missing: why no program was found at first.
    """

    CSS: ClassVar[str] = """
    #head { height: 2; padding: 0 1; background: $panel; text-wrap: nowrap; text-overflow: ellipsis; }
    #banner { height: auto; padding: 0 1; background: $warning-muted; color: $text-warning; display: none; }
    #banner.bad { background: $error-muted; color: $text-error; }
    #banner.shown { display: block; }
    #filter { height: 1; border: none; padding: 0 1; background: $boost; display: none; }
    #filter.shown { display: block; }
    #workers { height: 1fr; }
    #workers:focus { background-tint: $foreground 0%; }
    #empty { height: 1fr; content-align: center middle; text-align: center; color: $text-muted; display: none; }
    .empty #empty { display: block; }
    .empty #workers, .empty #detail { display: none; }
    .table--head { color: $text-muted; background: $panel; }
    .table--sorted { color: $text-accent; text-style: bold; }
    .table--cursor { background: $primary-muted; text-style: none; }
    #workers:focus .table--cursor { background: $primary 55%; }
    .table--dim { color: $text-muted; }
    .table--good { color: $text-success; }
    .table--bad { color: $text-error; text-style: bold; }
    .table--soon { color: $text-warning; }
    #detail { height: 1fr; border-top: solid $panel-lighten-2; display: none; }
    .detailed #detail { display: block; }
    #story, #log { width: 1fr; height: 1fr; padding: 0 1; scrollbar-size-vertical: 1; }
    #log { border-left: solid $panel-lighten-2; }
    #story:focus, #log:focus { background: $boost; }
    .-narrow #detail { layout: vertical; }
    .-narrow #log { border-left: none; border-top: dashed $panel-lighten-2; }
    .-low #log { display: none; }
    ModalScreen { align: center middle; background: $background 60%; }
    .dialog { width: auto; max-width: 90%; height: auto; max-height: 90%; padding: 1 2; background: $surface;
              border: round $primary; }
    .dialog Static, .dialog OptionList { width: auto; max-width: 100%; height: auto; }
    .dialog OptionList { border: none; margin: 1 0; background: $surface; }
    .help { overflow-y: auto; }
    Toast { max-width: 80%; }
    """
    TITLE: str | None = "suitkaise top"
    ENABLE_COMMAND_PALETTE: ClassVar[bool] = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "detail", "Detail"),
        Binding("slash", "filter", "Filter", key_display="/"),
        Binding("greater_than_sign", "sort(1)", "Sort", key_display="< >"),
        Binding("less_than_sign", "sort(-1)", show=False),
        Binding("t", "tree", "Tree", show=False),
        Binding("question_mark,h", "help", "Help", key_display="?"),
        Binding("q", "quit", "Quit"),
        Binding("ctrl+c", "quit", show=False, system=True),  # where no text is selected, which it copies
        Binding("r", "change('restart')", "Restart"),
        Binding("s", "change('stop')", "Stop"),
        Binding("a", "change('start')", "Start"),
        Binding("p", "change('suspend')", "Pause"),
        Binding("c", "change('resume')", "Continue"),
        Binding("k", "signal", "Signal"),
        Binding("escape", "back", show=False),
    ]

    def __init__(self, source: Source, *, scope: str, missing: str) -> None:
        super().__init__()
        self.HORIZONTAL_BREAKPOINTS: list[tuple[int, str]] | None = [(0, "-narrow"), (100, "-wide")]
        self.VERTICAL_BREAKPOINTS: list[tuple[int, str]] | None = [(0, "-low"), (20, "-high")]
        self._source = source
        self._scope = scope
        self._missing = missing
        self._table = Table(id="workers")
        self._text = ""
        self._sort = ""
        self._thread = ThreadPoolExecutor(1, "suitkaise-top")
        self._shown: dict[str, Any] = {}

    def compose(self) -> ComposeResult:
        """Make the widgets."""
        yield Static(id="head")
        yield Static(id="banner")
        yield Input(placeholder="a part of a path, a state or a kind", id="filter")
        yield self._table
        yield Static(id="empty")
        with Horizontal(id="detail"):
            with VerticalScroll(id="story"):
                yield Static(id="story-text")
            with VerticalScroll(id="log"):
                yield Static(id="log-text")
        yield Footer(show_command_palette=False, compact=True)

    def on_mount(self) -> None:
        """Begin to look."""
        self.query_one("#filter", Input).compact = True
        self._table.focus()
        self._look()

    @work
    async def _look(self) -> None:
        loop = asyncio.get_running_loop()
        for number in itertools.count():
            look = partial(self._source.look, everything=number < 3)  # figures soon: they need two measurements
            await loop.run_in_executor(self._thread, look)
            try:
                await self._show_log()
                self._show()
            except NoMatches:  # the widgets are being removed, one after the other: it ends
                return
            await asyncio.sleep(TICK)

    def on_unmount(self) -> None:
        """Close the connection to the program."""
        self._source.close()
        self._thread.shutdown(wait=False, cancel_futures=True)

    # ------------------------------------------------------------ what is shown
    @property
    def _main(self) -> Screen[Any]:
        """The screen below the dialogs. Raises NoMatches when it has been removed."""
        if not self.screen_stack:
            raise NoMatches("the screen has been removed")
        return self.screen_stack[0]

    def _show(self) -> None:
        """Show what is known now; what is the same is not drawn again."""
        source, now = self._source, time.time()
        self._put("#head", _head(source, now, self._scope))
        banner = _banner(source)
        self._put("#banner", Text(banner))
        self._main.query_one("#banner").set_class(bool(banner), "shown").set_class(source.contact == "ended", "bad")
        lines = []
        if source.observation is not None:
            at = source.ended if source.contact == "ended" else now
            lines = lines_of(
                source.observation, at, scope=self._scope, text=self._text, sort=self._sort, failed=source.failed
            )
        self._table.show(lines, self._sort)
        self._table.styles.max_height = len(lines) + 1 if self._main.has_class("detailed") else None
        self._main.set_class(not lines, "empty")
        if not lines:
            self._put("#empty", Text(self._why_empty()))
        self._show_detail()

    def _why_empty(self) -> str:
        if self._text:
            return f"Nothing holds {self._text!r}. Escape shows all."
        if self._source.observation is None:
            return f"{self._missing or 'the program has ended'}\nWaiting …"
        if self._scope:
            return f"There is no {self._scope!r} now."
        return "This program runs no tree now."

    def _show_detail(self) -> None:
        observation, path = self._source.observation, self._table.path
        if observation is not None and path and self._main.has_class("detailed"):
            self._put("#story-text", detail_of(observation, path, time.time()))

    async def _show_log(self) -> None:
        path = self._table.path
        if not path or not self._main.has_class("detailed"):
            return
        lines = await asyncio.get_running_loop().run_in_executor(self._thread, self._source.lines, path)
        log = self._main.query_one("#log", VerticalScroll)
        at_end = log.is_vertical_scroll_end or self._shown.get("log of") != path
        self._shown["log of"] = path
        self._put("#log-text", _log(path, lines))
        if at_end:
            log.scroll_end(animate=False)

    @work(exclusive=True, group="log")  # of the same group it would end `_look`
    async def _show_log_soon(self) -> None:
        with contextlib.suppress(NoMatches):  # as in `_look`
            await self._show_log()

    def _put(self, where: str, content: Text) -> None:
        if self._shown.get(where) != content:
            self._shown[where] = content
            self._main.query_one(where, Static).update(content)

    def on_table_chosen(self, event: Table.Chosen) -> None:
        """Show the detail of another worker."""
        self._main.query_one("#story", VerticalScroll).scroll_home(animate=False)
        self._show_detail()
        self._show_log_soon()

    # ------------------------------------------------------------ looking
    def action_detail(self) -> None:
        """Show or hide the detail."""
        shown = not self._main.has_class("detailed")
        self._main.set_class(shown, "detailed")
        self._show()
        if shown:
            self._show_log_soon()
        else:
            self._table.focus()

    def on_table_opened(self, event: Table.Opened) -> None:
        """Show or hide the detail."""
        self.action_detail()

    def action_filter(self) -> None:
        """Ask for the text that lines have to hold."""
        field = self.query_one("#filter", Input)
        field.add_class("shown")
        field.focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        """Filter while the text is typed."""
        self._text = event.value.strip()
        self._show()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Go back to the table; the filter stays."""
        event.input.set_class(bool(self._text), "shown")
        self._table.focus()

    async def action_back(self) -> None:
        """Leave the filter; without one, hide the detail."""
        field = self.query_one("#filter", Input)
        if field.has_class("shown"):
            field.value = ""
            field.remove_class("shown")
        elif self._main.has_class("detailed"):
            self._main.remove_class("detailed")
            self._show()
        self._table.focus()

    def action_sort(self, by: int) -> None:
        """Sort by the next figure, or by the one before."""
        self._sort_by(SORTS[(SORTS.index(self._sort) + by) % len(SORTS)])

    def action_tree(self) -> None:
        """Show the tree, in start order."""
        self._sort_by("")

    def on_table_head_clicked(self, event: Table.HeadClicked) -> None:
        """Sort by the column; a second click shows the tree again."""
        self._sort_by("" if self._sort == event.column else event.column)

    def _sort_by(self, column: str) -> None:
        self._sort = column
        self._show()

    def action_help(self) -> None:
        """Show the keys."""
        self.push_screen(Help())

    # ------------------------------------------------------------ steering
    def action_change(self, action: str) -> None:
        """Have the chosen worker restarted, stopped, started, suspended or resumed, if the user confirms it."""
        path = self._to_steer()
        if not path:
            return
        if "/" not in path:
            self._complain(f"{path} is a whole tree, which no supervisor steers; its program does: suitkaise stop")
            return

        def answered(yes: bool | None) -> None:
            if yes:
                self._carry_out(f"{path}: {DONE[action]}", lambda: self._source.change(action, path))

        self.push_screen(Confirm(f"{action.capitalize()} {path}?", _HINTS[action]), answered)

    def action_signal(self) -> None:
        """Send the process of the chosen worker a signal."""
        path = self._to_steer()
        row = None if self._source.observation is None else self._source.observation.rows.get(path)
        if row is None:
            return
        if row["kind"] not in ("process", "command"):
            self._complain(f"{path} is a {row['kind']}; a signal goes to a process of its own")
            return
        if row["pid"] is None:
            self._complain(f"{path} is {row['status']}; there is no process")
            return

        def answered(number: int | None) -> None:
            if number is not None:
                done = f"{path}: {Signals(number).name} is sent"
                self._carry_out(done, lambda: self._source.signal(path, number))

        self.push_screen(ChooseSignal(path, row["pid"]), answered)

    def _to_steer(self) -> str:
        path = self._table.path
        if path and self._source.contact == "live":
            return path
        self._complain("There is no program that could do it.")
        return ""

    @work
    async def _carry_out(self, done: str, what: Callable[[], object]) -> None:
        try:
            await asyncio.to_thread(what)
        except AskTimeout:
            self.notify("It takes longer, and goes on.", severity="warning", markup=False)
        except (SuitkaiseError, OSError) as error:
            self._complain(str(error))
        else:
            self.notify(done, timeout=3, markup=False)

    def _complain(self, text: str) -> None:
        self.notify(one_line(text), severity="error", markup=False)


def _head(source: Source, now: float, scope: str) -> Text:
    text = Text("suitkaise top", "bold", no_wrap=True, overflow="ellipsis")
    observation = source.observation
    if observation is None or not observation.program:
        return text
    program, rows = observation.program, observation.rows
    names = [path for path in rows if "/" not in path]
    text.append(f"  {scope or ', '.join(names) or 'no tree'}", "bold not dim")
    at = source.ended if source.contact == "ended" else now
    text.append(f"  pid {program['pid']}, up {duration(max(0.0, at - program['started']))}", "not bold dim")
    workers = [row for row in rows.values() if row["kind"] != "supervisor"]
    cpu = sum(one["cpu"] or 0.0 for one in observation.figures.values())
    used = sum(one["memory"] or 0 for one in observation.figures.values())
    text.append("\n")
    text.append(f"{len(workers)} worker{'s' * (len(workers) != 1)}", "not bold")
    for status in sorted({row["status"] for row in workers}, key=lambda one: (mood(one) != "bad", one)):
        number = sum(row["status"] == status for row in workers)
        text.append(f"  {number} {status}", f"not bold {TONES[mood(status)]}".strip())
    text.append(f"   CPU {cpu:.0%}  memory {memory(used)}", "not bold dim")
    lost = sum(node["status"] == "lost" for node in observation.nodes)
    if observation.nodes:
        text.append(f"   {len(observation.nodes) - lost} nodes", "not bold dim")
    if lost:
        text.append(f"  {lost} lost", f"not bold {TONES['bad']}")
    return text


def _banner(source: Source) -> str:
    match source.contact:
        case "silent":
            return "The program does not answer. What you see is its last known state."
        case "ended":
            when = time.strftime("%H:%M:%S", time.localtime(source.ended))
            return f"The program has ended at {when}. What you see is its last state; if it runs again, it is shown."
        case _ if source.observation is not None and source.observation.idle:
            return "All trees of the program have ended, and the program goes on. What you see is their last state."
        case _:
            return ""


def _log(path: str, lines: list[Line]) -> Text:
    if not lines:
        return Text("Nothing was printed and logged.", "dim")
    text = Text()
    for number, (worker, _, stream, when, line) in enumerate(lines):
        text.append(("\n" if number else "") + time.strftime("%H:%M:%S ", time.localtime(when)), "dim")
        if worker != path:
            text.append(f"{one_line(worker.removeprefix(f'{path}/'))} ", "bold")
        tone = _TONES_OF_STREAMS.get(stream, "")
        shown = line if stream == SKIPPED else tagged(stream, line)
        text.append("\n".join(one_line(part) for part in shown.split("\n")), tone)
    return text


_TONES_OF_STREAMS = {
    "error": TONES["bad"], "critical": TONES["bad"], "warning": TONES["soon"], "debug": "dim", EVENT: "italic",
    SKIPPED: "dim",
}  # fmt: skip
