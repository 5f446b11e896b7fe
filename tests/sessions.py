"""Run the sessions at a terminal that documents show, and compare what is printed.

A fenced ```console block of a Markdown file is run by the tests when a comment stands right above it:

    <!-- run -->                                   runs the block, with the files of the document beside it
    <!-- run: while suitkaise run station.py -->   the same, while this command runs, as in another terminal

A line `$ command` runs a command: `suitkaise`, `python`, or `echo $?` for the last exit code, which is 0 otherwise. The
lines below it must be lines of its output, in their order, and without such lines it must print nothing. `...` stands
for any text or lines, and `^C` is a Ctrl-C.
What differs from run to run may differ: spaces, process ids, times, durations, ids of reports, and all numbers of a
table.
"""

from __future__ import annotations

import re
import shlex
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path

from tests.support import Program, eventually, start_program

__all__ = ["commands", "first_difference", "run_session"]

_VARIES = [
    (re.compile(r"\b\d{8}-\d{6}-\d{6}-\w\w\b"), "REPORT"),
    (re.compile(r"\b\d{4}-\d\d-\d\d\b"), "DATE"),
    (re.compile(r"\b\d\d:\d\d:\d\d(\.\d+)?\b"), "TIME"),
    (re.compile(r"\b(pid|process) \d+"), r"\1 PID"),
    (re.compile(r"\b\d+(\.\d+)? ?(us|ms|s|min|KiB|MiB|%)(?!\w)"), "AMOUNT"),
]
_TABLE = re.compile(r"[├└│]|^\d+ ")
_LOOKS = ("crashes", "logs", "ps", "stack", "status", "tree")
_UP = re.compile(r"^(\S+ )?[^\s/]+ supervisor started$", re.MULTILINE)


def commands(session: str) -> list[tuple[str, list[str]]]:
    """Return the commands of a session, each with the lines below it."""
    found: list[tuple[str, list[str]]] = []
    for line in session.splitlines():
        if line.startswith("$ "):
            found.append((line.removeprefix("$ "), []))
        elif line.strip():
            found[-1][1].append(line)
    return found


def first_difference(expected: list[str], *outputs: str) -> str | None:
    """Return the first expected line that no output holds in its place; None if there is none.

    Each output is searched by itself: the order between stdout and stderr is not known.
    """
    rest = [[_plain(line) for line in output.splitlines()] for output in outputs]
    for line in (line for line in expected if line.strip() != "..."):
        pattern = re.compile(".*".join(re.escape(part.strip()) for part in _plain(line).split("...")))
        for lines in rest:
            place = next((number for number, shown in enumerate(lines) if pattern.fullmatch(shown)), None)
            if place is not None:
                del lines[: place + 1]
                break
        else:
            return line
    return None


def _plain(line: str) -> str:
    """Put words where a line may differ from run to run."""
    for pattern, word in _VARIES:
        line = pattern.sub(word, line)
    if _TABLE.search(line):
        line = re.sub(r"\d+(\.\d+)?| for AMOUNT", "", line)
    return " ".join(line.split())


def run_session(session: str, background: str | None, folder: Path, timeout: float) -> None:
    """Run the commands of a session in `folder`; raise AssertionError at the first difference."""
    with ExitStack() as stack:
        if background:
            stack.enter_context(_running_tree(background.removeprefix("while "), folder, timeout))
        code = 0
        for command, expected in commands(session):
            if command == "echo $?":
                assert expected == [str(code)], f"`echo $?` after {code}: {expected}"
                code = 0
                continue
            assert code == 0, f"exit code {code} before `{command}`"
            code = _run(command, expected, folder, timeout, again=bool(background) and command.split()[1] in _LOOKS)
        assert code == 0, f"exit code {code} of the last command"


def _run(command: str, expected: list[str], folder: Path, timeout: float, *, again: bool) -> int:
    """Run one command; if `again`, until it prints what is expected: a reader types more slowly than a test."""
    deadline = time.monotonic() + timeout / 2
    while True:
        try:
            return _run_once(command, expected, folder, timeout)
        except AssertionError:
            if not again or time.monotonic() > deadline:
                raise


def _run_once(command: str, expected: list[str], folder: Path, timeout: float) -> int:
    before = expected[: expected.index("^C")] if "^C" in expected else []
    with _started(command, folder) as program:
        if before:
            with suppress(AssertionError):  # told below, with the output
                eventually(
                    lambda: first_difference(before, program.stdout, program.stderr) is None, timeout=timeout / 3
                )
            program.send_signal(signal.SIGINT)
        code = program.wait(timeout)
    missing = first_difference([line for line in expected if line != "^C"], program.stdout, program.stderr)
    if not expected and program.stdout.strip():
        missing = "(nothing)"
    shown = f"--- stdout ---\n{program.stdout}\n--- stderr ---\n{program.stderr}"
    assert missing is None, f"`{command}` did not print, or not in this place: {missing!r}\n{shown}"
    assert not program.left_behind, f"`{command}` left behind: {program.left_behind}\n{shown}"
    return code


def _started(command: str, folder: Path) -> AbstractContextManager[Program]:
    first, *rest = shlex.split(command)
    assert first in ("python", "suitkaise"), f"run by python or suitkaise, not by {first}: {command}"
    python = [sys.executable, *(["-m", "suitkaise"] if first == "suitkaise" else [])]
    return start_program(python, *rest, cwd=folder, env={"SUITKAISE_STATE": str(folder / "state")})


@contextmanager
def _running_tree(command: str, folder: Path, timeout: float) -> Iterator[None]:
    with _started(command, folder) as program:
        eventually(lambda: _UP.search(program.stderr) or program.returncode is not None, timeout=timeout)
        try:
            yield
        finally:
            program.send_signal(signal.SIGTERM)
            program.wait(timeout)
    assert not program.left_behind, f"`{command}` left behind: {program.left_behind}"
