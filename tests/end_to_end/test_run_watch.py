"""`suitkaise run --watch`: the program is started anew, gracefully, when its code changes."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from suitkaise import cli
from suitkaise.cli import watch
from suitkaise.cli.parser import make_parser
from tests.support import Program, eventually, start_program, wait_gone

APP = """
import os
import sys
from suitkaise import Process, Supervisor

class Work(Process):
    def on_start(self):
        print("version VERSION", sys.argv[1:], os.getppid(), flush=True)
    def loop(self):
        self.wait(60)
    def on_finish(self):
        print("finished VERSION", flush=True)

print("program", os.getpid(), flush=True)
tree = Supervisor("watched", Work)
"""


@contextmanager
def watching(folder: Path, *options: str) -> Iterator[Program]:
    write(folder, 1)
    command = [sys.executable, "-m", "suitkaise", "run", "--watch", *options, "app.py", "an argument"]
    with start_program(command, cwd=folder) as program:
        program.expect("version 1 ['an argument']")
        yield program


def write(folder: Path, version: int, more: str = "") -> None:
    (folder / "app.py").write_text(APP.replace("VERSION", str(version)) + more)


def expect_error(program: Program, text: str) -> None:
    eventually(lambda: text in program.stderr, what=text)


def test_a_change_stops_the_program_gracefully_and_starts_it_anew_and_a_syntax_error_is_shown(tmp_path: Path) -> None:
    with watching(tmp_path) as program:
        write(tmp_path, 2)
        program.expect("finished 1")
        program.expect("version 2 ['an argument']")
        write(tmp_path, 3, "def broken(:\n")
        expect_error(program, "app.py cannot be compiled; the program goes on with its former code")
        expect_error(program, "SyntaxError")
        (tmp_path / "notes.txt").write_text("no code")
        write(tmp_path, 4)
        program.expect("version 4")
        program.send_signal(signal.SIGTERM)
        assert program.wait() == 0
        assert "finished 4" in program.stdout
        assert "version 3" not in program.stdout


def test_the_code_is_watched_also_where_standard_error_has_no_room(tmp_path: Path) -> None:
    write(tmp_path, 1)
    shell = f"exec {sys.executable} -m suitkaise run --watch app.py 2>/dev/full"
    with start_program(["sh", "-c", shell], cwd=tmp_path) as program:
        program.expect("version 1")
        write(tmp_path, 2)
        program.expect("version 2")
        program.send_signal(signal.SIGTERM)
        assert program.wait() == 0


def test_a_program_that_ends_by_itself_is_started_anew_by_the_next_change(tmp_path: Path) -> None:
    with watching(tmp_path, str(tmp_path)) as program:
        write(tmp_path, 2, "raise SystemExit(7)\n")
        expect_error(program, "the program has ended with exit code 7; waiting for a change")
        write(tmp_path, 3)
        program.expect("version 3")
        program.send_signal(signal.SIGINT)
        assert program.wait() == 0


def test_the_file_has_the_code_watched_and_the_program_gets_the_options_of_the_command(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.suitkaise]\nwatch = true\njson = true\n")
    write(tmp_path, 1)
    command = [sys.executable, "-m", "suitkaise", "run", "app.py"]
    with start_program(command, cwd=tmp_path) as program:
        program.expect("version 1")
        expect_error(program, '"level": "info"')
        write(tmp_path, 2)
        program.expect("version 2")
        program.send_signal(signal.SIGTERM)
        assert program.wait() == 0


def test_the_program_ends_when_the_process_that_watches_is_killed(tmp_path: Path) -> None:
    with watching(tmp_path) as program:
        pid = int(program.expect("program").split()[1])
        program.send_signal(signal.SIGKILL)
        wait_gone(pid)
        program.expect("finished 1")


def test_without_the_extra_the_error_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    assert cli.main(["run", "--watch", str(tmp_path / "app.py")]) == 2
    assert "--watch needs the extra `dev`: pip install 'suitkaise-xprocess[dev]'" in capsys.readouterr().err


def test_a_folder_that_is_none_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", f"--watch={os.path.join(tmp_path, 'nowhere')}", "app.py"]) == 2
    assert "there is no such folder" in capsys.readouterr().err


@pytest.mark.parametrize("none", ["/nowhere", "nowhere.py", "nowhere", "nowhere.at.all"])
def test_what_is_neither_a_folder_nor_a_program_is_refused_at_once(
    none: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, 1)
    assert cli.main(["run", "--watch", none, "app.py"]) == 2
    told = f"suitkaise run: --watch {none}: there is no such folder, nor such a file or module to run\n"
    assert capsys.readouterr().err == told


@pytest.mark.parametrize("none, told", [("nowhere.py", "file 'nowhere.py'"), ("nowhere", "module 'nowhere'")])
@pytest.mark.parametrize("options", [["--watch"], ["--watch", "."], ["--watch=."]])
def test_a_program_that_is_none_is_refused_at_once(
    options: list[str], none: str, told: str,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert cli.main(["run", *options, none]) == 2
    assert capsys.readouterr().err.startswith(f"suitkaise run: there is no {told}")


def test_the_folder_may_stand_behind_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "src").mkdir()
    seen: list[tuple[str, list[str]]] = []
    monkeypatch.setattr(watch, "watched", lambda options, arguments: seen.append((options.watch, arguments)) or 0)
    for words in (["--watch", "src"], ["--watch=src"], ["--watch", "src", "an argument"], ["--watch", "argument"]):
        assert cli.main(["run", "app.py", *words]) == 0
    assert seen == [("src", []), ("src", []), ("src", ["an argument"]), ("", ["argument"])]


def test_all_options_are_handed_on_to_the_program() -> None:
    words = ["--json", "--no-debug", "--health=8080", "--observe=", "--observe-actions", "--observe-hide-values"]
    options = make_parser().parse_args(["run", "--watch=.", *words, "--engine=local", "app.py:tree"])
    *command, dashes, argument = watch._command(options, ["an argument"])
    assert (dashes, argument) == ("--", "an argument")
    again = vars(make_parser().parse_args(command[command.index("run") :]))
    assert again == vars(options) | {"watch": None, "run_by": os.getpid()}
