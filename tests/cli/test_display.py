"""What commands print: by rich on a terminal, plain everywhere else, and the same values in both."""

from __future__ import annotations

import importlib.util
import io
import re
import subprocess
import sys
from collections.abc import Callable

import pytest
from rich.text import Text

from suitkaise.cli.display import Column, print_details, print_report, print_stacks, print_table
from suitkaise.crashes import CrashReport

COLUMNS = [
    Column("NAME", "name"), Column("STATE", "status"), Column("LOOPS", "number", 2), Column("QUEUED", "number", 3),
    Column("DOING", "end", 1),
]  # fmt: skip
ROWS = [
    ["app", "running", "", "", "one_for_one, 0 of 3 restarts in 5 s"],
    ["├─ reads", "crashed", "7", "", "ValueError in loop: nothing to read here, and nothing there"],
    ["└─ writes", "restarting", "1,234", "", "loop"],
]
TRACEBACK = """Traceback (most recent call last):
  File "/src/app.py", line 31, in loop
    read()
    ^^^^^^
ValueError: nothing
"""


class Screen(io.StringIO):
    """A terminal."""

    def isatty(self) -> bool:
        return True

    @property
    def text(self) -> str:
        """What is to be read on it."""
        return Text.from_ansi(self.getvalue()).plain

    @property
    def lines(self) -> list[str]:
        return [line.rstrip() for line in self.text.split("\n") if line.strip()]


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Screen]:
    """Return a function that makes a terminal of a width, to which commands print from then on."""
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)

    def make(width: int = 100) -> Screen:
        monkeypatch.setenv("COLUMNS", str(width))
        monkeypatch.setattr(sys, "stdout", screen := Screen())
        return screen

    return make


def report(**fields: object) -> CrashReport:
    facts = {
        "id": "20260101-120000-000001-aa", "path": "app/reads", "kind": "process", "pid": 7, "incarnation": 2,
        "wall": 1.8e9, "reason": "ValueError in loop: nothing", "reason_kind": "Crashed", "phase": "loop",
        "in_phase": 0.5, "loop": 3, "uptime": 2.5, "restarts": 1, "verdict": "restarts", "used": 2, "allowed": 3.0,
        "seconds": 5.0, "lines": ("it begins",), "where": "app.py:31",
        "traceback": TRACEBACK,
    }  # fmt: skip
    return CrashReport.from_dict({**facts, **fields})


def test_on_a_terminal_states_have_colours_and_empty_columns_are_left_out(screen: Callable[..., Screen]) -> None:
    shown = screen()
    print_table(COLUMNS, ROWS)
    head, _, root, crashed, restarting = shown.lines
    assert head.split() == ["NAME", "STATE", "LOOPS", "DOING"]
    assert root.split()[:2] == ["app", "running"]
    assert "1,234  loop" in restarting
    assert crashed.startswith("├─ reads   crashed")
    assert re.search(r"\x1b\[32mrunning", shown.getvalue())
    assert re.search(r"\x1b\[1;31mcrashed", shown.getvalue())
    assert re.search(r"\x1b\[33mrestarting", shown.getvalue())


@pytest.mark.parametrize("width", [20, 40, 60, 80, 200])
def test_a_table_fits_the_terminal_and_keeps_what_matters_most(width: int, screen: Callable[[int], Screen]) -> None:
    shown = screen(width)
    print_table(COLUMNS, ROWS)
    assert all(len(line) <= width for line in shown.lines)
    assert len(shown.lines) == 2 + len(ROWS)
    assert shown.lines[0].split()[:2] == ["NAME", "STATE"]
    assert ("LOOPS" in shown.lines[0]) == (width >= 60)
    assert ("DOING" in shown.lines[0]) == (width >= 40)


def test_a_terminal_without_a_width_shows_a_table_all_the_same(screen: Callable[[int], Screen]) -> None:
    shown = screen(0)
    print_table(COLUMNS, ROWS)
    assert [line.split()[:2] for line in shown.lines[:3:2]] == [["NAME", "STATE"], ["app", "running"]]


def test_the_names_of_a_deep_tree_can_be_read(screen: Callable[[int], Screen]) -> None:
    shown = screen(80)
    rows = [[f"{'│  ' * depth}└─ worker-{depth}", *ROWS[1][1:]] for depth in range(12)]
    print_table(COLUMNS, rows)
    assert [f"worker-{depth} " in shown.text for depth in range(12)] == [True] * 12


def test_wide_characters_stand_in_line_on_a_terminal_and_in_a_pipe(
    screen: Callable[..., Screen], capsys: pytest.CaptureFixture[str]
) -> None:
    columns, rows = [Column("NAME", "name"), Column("PID", "number")], [["日本", "7"], ["cafe\u0301", "8"], ["x", "9"]]
    print_table(columns, rows)
    assert capsys.readouterr().out == "NAME  PID\n日本  7\ncafe\u0301  8\nx     9\n"
    shown = screen()
    print_table(columns, rows)
    assert shown.lines[2:] == ["日本    7", "cafe\u0301    8", "x       9"]


EVIL = "\x1b]0;title\x07\x1b[2J[bold]no markup[/bold] :smile:\nforged"
SHOWN = r"\x1b]0;title\x07\x1b[2J[bold]no markup[/bold] :smile:\nforged"


@pytest.mark.parametrize("terminal", [False, True])
def test_nothing_that_a_worker_has_chosen_steers_the_terminal(
    terminal: bool, screen: Callable[..., Screen], capsys: pytest.CaptureFixture[str]
) -> None:
    shown = screen(200) if terminal else None
    print_table([Column("A", kind) for kind in ("", "name", "text", "end", "dim")], [[EVIL] * 5])  # type: ignore[arg-type]
    print_table([Column("A")], [[EVIL]], plain=[EVIL])
    print_details("app/a: process, ", "running", [f"last exit: {EVIL}", f"  {EVIL}"])
    print_report(report(reason=EVIL, path=EVIL, lines=(EVIL,), traceback=EVIL))
    print_stacks(EVIL.replace("\n", ""))
    raw = capsys.readouterr().out if shown is None else shown.getvalue()
    text = raw if shown is None else shown.text
    assert "\x1b]" not in raw
    assert "\x1b[2J" not in raw
    assert "\x07" not in raw
    assert not any(line.startswith("forged") for line in text.split("\n"))
    assert SHOWN in text


def test_a_report_is_framed_and_has_the_same_words_as_the_plain_one(screen: Callable[..., Screen]) -> None:
    shown = screen(90)
    print_report(report())
    words = set(str(report()).split())
    assert words - set(shown.text.split()) == set()
    assert shown.lines[0].startswith("╭─ crash 20260101-120000-000001-aa")
    assert all(len(line) == 90 for line in shown.lines)
    assert re.search(r"\x1b\[1;31mValueError", shown.getvalue())
    assert re.search(r"\x1b\[1mloop", shown.getvalue())


def test_a_title_ends_with_its_status(screen: Callable[..., Screen], capsys: pytest.CaptureFixture[str]) -> None:
    lines = ["pid 7, incarnation 1", "last lines:", "  it begins"]
    print_details("app/a: process, ", "running", lines)
    assert capsys.readouterr().out == "app/a: process, running\n  pid 7, incarnation 1\n  last lines:\n    it begins\n"
    shown = screen()
    print_details("app/a: process, ", "running", lines)
    assert shown.lines[0].startswith("╭─ app/a: process, running ─")
    assert "pid 7, incarnation 1" in shown.lines[1]


@pytest.mark.parametrize("why", ["NO_COLOR", "a dumb terminal", "no rich", "a pipe"])
def test_the_output_is_plain_otherwise(
    why: str, screen: Callable[..., Screen], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = screen() if why != "a pipe" else None
    match why:
        case "NO_COLOR":
            monkeypatch.setenv("NO_COLOR", "1")
        case "a dumb terminal":
            monkeypatch.setenv("TERM", "dumb")
        case "no rich":
            monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    print_table(COLUMNS, ROWS[:1])
    print_report(report())
    text = capsys.readouterr().out if shown is None else shown.getvalue()
    if why == "no rich":
        assert text.startswith("\x1b[2mNAME\x1b[0m")
        text = re.sub(r" *\x1b\[\d+m\n", "\n", text)
        text = re.sub(r"\x1b\[\d+m", "", text)
    assert text == (
        "NAME  STATE    LOOPS  QUEUED  DOING\n"
        f"app   running                 {ROWS[0][-1]}\n"
        f"{report()}\n"
    )  # fmt: skip


def test_rich_is_loaded_only_when_it_is_used() -> None:
    program = "import sys, suitkaise.cli.dispatch; print('rich' in sys.modules, 'unicodedata' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.split()[0] == "False"
