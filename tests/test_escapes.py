"""What workers and commands write steers no terminal and forges no line of ours."""

from __future__ import annotations

import logging
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from suitkaise import Child, Process, SpecError, Supervisor
from suitkaise.cli.output import HumanFormatter
from suitkaise.escapes import escaped, has_control, indented, one_line, shortened
from suitkaise.events import ChildExited, ChildGivenUp, ChildOverMemory, ChildRestarting, Event
from suitkaise.exits import ExitReason, GaveUp, Hung, Normal, StartFailure
from tests.support import run_program

CONTROLS = [
    "\x00",
    "\x07",
    "\x1b",
    "\r",
    "\x7f",
    "\x85",
    "\x9b",
    "\u061c",
    "\u200f",
    "\u202e",
    "\u2066",
    "\u2028",
    "\ud800",
]


@pytest.mark.parametrize("control", CONTROLS, ids=ascii)
def test_an_id_with_a_control_character_is_refused(control: str) -> None:
    for make in (lambda: Child(Process, id=f"a{control}b"), lambda: Supervisor(f"a{control}b")):
        with pytest.raises(SpecError, match="control characters"):
            make()


@given(st.text())
def test_a_line_holds_no_control_character_but_a_tab(text: str) -> None:
    assert not has_control(one_line(text).replace("\t", ""))
    assert one_line(text) == text or has_control(text)


@given(st.text(st.characters(exclude_categories=["Cc", "Cf", "Cs", "Zl", "Zp"])))
def test_text_without_control_characters_stays_as_it_is(text: str) -> None:
    assert escaped(text) == one_line(text) == indented(text) == text


@given(st.text())
def test_colours_pass_where_they_are_wanted_and_nothing_else_does(text: str) -> None:
    coloured = f"\x1b[1;31m{one_line(text)}\x1b[0m"
    assert escaped(coloured, colours=True) == coloured
    assert not has_control(escaped(coloured).replace("\t", ""))
    assert escaped("\x1b[2J\x1b]0;x\x07", colours=True) == r"\x1b[2J\x1b]0;x\x07"


def test_an_event_is_one_line() -> None:
    event = ChildExited("app/b", 0.0, StartFailure("bad:\n12:00:01 forged \x1b[2J", "in loop"))
    assert "\n" not in str(event)
    assert r"\n12:00:01 forged \x1b[2J" in str(event)


def record(text: str) -> logging.LogRecord:
    return logging.LogRecord("suitkaise.worker", logging.INFO, "", 0, text, (), None)


@pytest.mark.parametrize(
    "told, number",
    [
        (Hung("loop", 1800.0), "1800 s"),
        (GaveUp("app/a", Normal(), 2_000_000, 86_400.0), "more than 2000000 restarts in 86400 s"),
        (ChildRestarting("app/a", 1.0, delay=3600.0, used=1, allowed=10**6), "in 3600 s (1 of 1000000 in the window)"),
        (ChildGivenUp("app/a", 1.0, Normal(), 2_000_000, 5.0), "more than 2000000 restarts in 5 s"),
        (ChildOverMemory("app/a", 1.0, 17 << 30, 16 << 30), "max_memory of 16384 MiB"),
        (Supervisor("app", max_restarts=1_000_000, max_seconds=2_592_000), "1000000 restarts in 2592000 s"),
    ],
    ids=lambda told: type(told).__name__,
)
def test_a_large_number_is_shown_as_one_and_not_as_a_power_of_ten(
    told: ExitReason | Event | Supervisor, number: str
) -> None:
    assert number in str(told)


def test_the_lines_that_follow_the_first_of_a_record_are_indented() -> None:
    shown = HumanFormatter(terminal=False).format(record("app/b: user=x\n12:00:00.000 app/db  started\x1b[2J"))
    first, second = shown.splitlines()
    assert first.endswith("app/b: user=x")
    assert second == r"    12:00:00.000 app/db  started\x1b[2J"


def test_colours_of_a_record_pass_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert "\x1b[32mok\x1b[0m" in HumanFormatter(terminal=True).format(record("\x1b[32mok\x1b[0m"))
    assert r"\x1b[32mok\x1b[0m" in HumanFormatter(terminal=False).format(record("\x1b[32mok\x1b[0m"))


PROGRAM = r"""
from suitkaise import Child, Command, Process, Supervisor

class Boom(Process):
    def loop(self):
        self.log.info("user=%s", "x\n12:00:00.000 app/db  started (pid 1)\x1b[2J")
        raise ValueError("bad input: \x1b[2J\x1b]52;c;ZXZpbA==\x07\n12:00:01.000 forged line")

tree = Supervisor(
    "app",
    Child(Boom(), id="boom", restart="temporary"),
    Child(
        Command("sh", "-c", r"printf '\033[2Jout\r\r\033[31mred\033[0m\n'"),
        id="c", restart="temporary", significant=True,
    ),
    auto_shutdown="any_significant",
)
"""


def test_suitkaise_run_shows_what_workers_write_without_a_control_character(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(PROGRAM)
    finished = run_program([sys.executable, "-m", "suitkaise", "run", "app.py"], cwd=tmp_path, timeout=60.0)
    assert not [character for character in finished.stderr if has_control(character) and character != "\n"]
    assert "app/c stdout: \\x1b[2Jout\\r\\r\\x1b[31mred" in finished.stderr
    assert not [line for line in finished.stderr.splitlines() if line.startswith(("12:00:00", "12:00:01"))]


def test_on_a_terminal_the_colours_of_a_command_pass_and_nothing_else_does(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(PROGRAM)
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm"}
    environment.pop("NO_COLOR", None)
    with subprocess.Popen(
        [sys.executable, "-m", "suitkaise", "run", "app.py"], cwd=tmp_path, stderr=theirs, env=environment
    ) as program:
        os.close(theirs)
        shown = b""
        try:
            while piece := os.read(ours, 65536):
                shown += piece
        except OSError:  # the other end is closed
            pass
        os.close(ours)
        program.wait(60.0)
    assert b"\x1b[31mred\x1b[0m" in shown
    assert b"\x1b[2J" not in shown
    assert b"\x1b]52" not in shown


@given(st.text(st.characters()), st.integers(8, 100))
@example("\U00010000" * 3 + "\ud800", 14)
@example("\ud800\U00010000\u0800\U00010000", 12)
@example("\ud8000\x80\u0800", 8)
def test_a_text_is_shortened_to_its_first_and_last_bytes_and_the_number_of_those_between(text: str, most: int) -> None:
    short, size = shortened(text, most), len(text.encode("utf-8", "surrogatepass"))
    if size <= most:
        assert short == text
    else:
        first, _, last = short.partition(f" [... {size - most} bytes are left out ...] ")
        assert text.startswith(first)
        assert text.endswith(last)
        assert most - 8 < len((first + last).encode("utf-8", "surrogatepass")) <= most
