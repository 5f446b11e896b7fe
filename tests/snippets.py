"""Run the programs in documents, and check the output that they promise.

A fenced ```python block of a Markdown file is run by the tests when a comment stands right above it:

    <!-- run -->                             runs the block with Python
    <!-- run: suitkaise run app.py -->       runs this command, in a folder that holds the block as `app.py`
    <!-- run: suitkaise run app.py; stop --> sends SIGTERM after the last promised output

A block whose first line is `# name.py` is that file; later blocks of the document find it beside them. The lines
`# prints: text` of a program promise that its output holds these texts in this order. It must end with exit code 0.

A fenced ```console block below such a comment is a session at a terminal: see `tests/sessions.py`.
"""

from __future__ import annotations

import re
import shlex
import signal
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from tests.sessions import run_session
from tests.support import start_program

__all__ = ["Snippet", "check_output", "promises", "run_snippet", "snippets"]

_BLOCK = re.compile(
    r"(?:^<!-- *run(?P<how>:[^\n]*?)? *-->\n\n?)?^```(?P<language>python|console)[^\n]*\n(?P<code>.*?)^```",
    re.MULTILINE | re.DOTALL,
)
_NAME = re.compile(r"# ([\w/]+\.py)\s*$", re.MULTILINE)
_PROMISE = re.compile(r"^\s*# prints: ?(.*?)\s*$", re.MULTILINE)


@dataclass(frozen=True)
class Snippet:
    """One ```python or ```console block."""

    document: Path
    line: int  # of its first line of code
    code: str
    runs: bool
    command: str | None  # instead of Python
    stops: bool  # it runs until SIGTERM
    name: str | None  # the file name in its first line
    beside: dict[str, str] = field(default_factory=dict)  # the named blocks above it
    is_session: bool = False  # a ```console block

    @property
    def id(self) -> str:
        return f"{self.document.parent.name}/{self.document.name}:{self.line}"


def snippets(document: Path) -> list[Snippet]:
    """Return all ```python and ```console blocks of a document, in order; none if there is no such document."""
    if not document.exists():
        return []
    text = document.read_text(encoding="utf-8")
    found: list[Snippet] = []
    named: dict[str, str] = {}
    for match in _BLOCK.finditer(text):
        code = match["code"]
        line = text.count("\n", 0, match.start("code")) + 1
        command, stops = None, False
        if how := match["how"]:
            command, _, ending = how.removeprefix(":").strip().partition(";")
            if ending.strip() not in ("", "stop"):
                raise ValueError(f"{document}:{line}: `run: COMMAND` or `run: COMMAND; stop`, not {how!r}")
            stops = ending.strip() == "stop"
        opening = _NAME.match(code)
        name = opening[1] if opening else None
        runs = match[0].startswith("<!--")
        session = match["language"] == "console"
        found.append(Snippet(document, line, code, runs, command or None, stops, name, dict(named), session))
        if name:
            named[name] = code
    return found


def promises(code: str) -> list[str]:
    """Return the texts that a program promises to print."""
    return _PROMISE.findall(code)


def check_output(code: str, output: str) -> None:
    """Raise AssertionError unless `output` holds all promised texts of `code` in their order."""
    position = 0
    for promise in promises(code):
        found = output.find(promise, position)
        assert found >= 0, f"not printed, or not in this place: {promise!r}\n--- output ---\n{output}"
        position = found + len(promise)


def run_snippet(snippet: Snippet, folder: Path, timeout: float = 45.0) -> None:
    """Run a snippet in `folder`; it must print its promises, end with 0 and leave no process."""
    name = snippet.name or "program.py"
    files = snippet.beside if snippet.is_session else {**snippet.beside, name: snippet.code}
    for path, code in files.items():
        Path(folder, path).parent.mkdir(parents=True, exist_ok=True)
        Path(folder, path).write_text(code, encoding="utf-8")
    if snippet.is_session:
        run_session(snippet.code, snippet.command, folder, timeout)
        return
    first, *rest = [*shlex.split(snippet.command or "python"), *([] if snippet.command else [name])]
    python = [sys.executable, "-m", "suitkaise"] if first == "suitkaise" else [sys.executable]
    assert first in ("python", "suitkaise"), f"{snippet.id}: run by python or suitkaise, not by {first}"
    with (
        tempfile.TemporaryDirectory(prefix="program-") as temporary,  # for what the snippet leaves to the reader
        start_program(python, *rest, cwd=folder, env={"TMPDIR": temporary}) as program,
    ):
        if snippet.stops:
            for promise in promises(snippet.code):
                program.expect(promise, timeout)
            program.send_signal(signal.SIGTERM)
        ended = program.wait(timeout)
    shown = f"--- stdout ---\n{program.stdout}\n--- stderr ---\n{program.stderr}"
    assert ended == 0, f"{snippet.id} ended with {ended}\n{shown}"
    assert not program.left_behind, f"{snippet.id} left behind: {program.left_behind}\n{shown}"
    check_output(snippet.code, program.stdout)
