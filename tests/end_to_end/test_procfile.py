"""`supervisors/procfile.py`: a Procfile under supervision."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path

import pytest

from supervisors.procfile import entries, main, scales, settings
from tests.support import ROOT, eventually, run_program, start_program, wait_gone

RUN = [sys.executable, "-m", "suitkaise", "run", str(ROOT / "supervisors" / "procfile.py")]


def test_a_procfile_is_read_as_other_tools_read_it() -> None:
    text = "# a comment\nweb: python -m http.server $PORT\n\nworker_2:  run --all  # not a comment\n"
    assert entries(text) == {"web": "python -m http.server $PORT", "worker_2": "run --all  # not a comment"}


@pytest.mark.parametrize(
    "text, complaint", [("web", "line 1 is no `name: command`"), ("a: x\n\na: y", "line 3: there are two commands")]
)
def test_an_error_in_a_procfile_names_its_line(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        entries(text)


@pytest.mark.parametrize(
    "arguments, complaint",
    [
        (["--file", "."], "Is a directory: '.'"),
        (["--file", "/"], "Is a directory: '/'"),
        (["--file", "nowhere/Procfile"], "No such file or directory: 'nowhere/Procfile'"),
        (["--port", "70000"], "a port is a number from 1 to 65535, not 70000"),
        (["--port", "-1"], "a port is a number from 1 to 65535, not -1"),
    ],
)
def test_what_is_no_procfile_or_port_is_an_error_of_usage(
    arguments: list[str], complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    (tmp_path / "Procfile").write_text("it: sleep 5\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert complaint in capsys.readouterr().err


def test_settings_may_be_quoted_and_exported() -> None:
    assert settings("A=1\nexport B='two words'\nC=\"x=y\"\n# no\nD=") == {
        "A": "1",
        "B": "two words",
        "C": "x=y",
        "D": "",
    }
    with pytest.raises(ValueError, match="line 1 is no `NAME=value`"):
        settings("what")


def test_in_double_quotes_a_backslash_escapes_the_next_character() -> None:
    assert settings(r"""A="say \"a\\b\"\nand go"
B='as \it is'
C=as \it is""") == {"A": 'say "a\\b"\nand go', "B": r"as \it is", "C": r"as \it is"}


@pytest.mark.parametrize(
    "text, value",
    [
        ("A = spaces around", "spaces around"),
        ("  export   A=exported  ", "exported"),
        ("\ufeffA=after a byte order mark", "after a byte order mark"),
        ("A=windows\r\nB=", "windows"),
        ("A=value # a comment", "value"),
        ("A=value#no comment", "value#no comment"),
        ("A= # a comment", ""),
        ("A=#fff", "#fff"),
        ("A=", ""),
        ("A='#1' # a comment", "#1"),
        ('A="#1"\t# a comment', "#1"),
        ("A=' both ends '", " both ends "),
        ("A='two\nlines'", "two\nlines"),
        ('A="two\nlines # and no comment"', "two\nlines # and no comment"),
        (r'A="a tab\tand\nmore"', "a tab\tand\nmore"),
        (r"A=a\tb", r"a\tb"),
        ("A=it's", "it's"),
        ("A=a=b&c", "a=b&c"),
        ("B=1\nA=${B}2", "12"),
        ('B=1\nA="${B} ${B}"', "1 1"),
        ("B=1\nA='${B}'", "${B}"),
        (r'A="\${HOME} is $HOME"', "${HOME} is $HOME"),
        ("A=${HOME}/x", "/home/me/x"),
        ("HOME=/there\nA=${HOME}", "/there"),
        ("A=[${NOWHERE}]", "[]"),
        ("A=${NOWHERE:-default}", "default"),
        ("A=1\nA=${A}2", "12"),
    ],
)
def test_an_environment_file_is_read_as_its_users_know_it(text: str, value: str) -> None:
    assert settings(text, {"HOME": "/home/me"})["A"] == value


@pytest.mark.parametrize(
    "text, line", [("A", 1), ("\n# x\nA B=1", 3), ("A='open\n\nB=1", 1), ("A='x' y", 1), ("1A=x", 1)]
)
def test_an_error_in_an_environment_file_names_its_line(text: str, line: int) -> None:
    with pytest.raises(ValueError, match=f"line {line} is no `NAME=value`"):
        settings(text)


def test_every_process_type_runs_once_unless_scaled() -> None:
    assert scales("", {"a": "", "b": ""}) == {"a": 1, "b": 1}
    assert scales("a=3,b=0", {"a": "", "b": ""}) == {"a": 3, "b": 0}
    with pytest.raises(ValueError, match="there is no 'c'; the file has a, b"):
        scales("c=1", {"a": "", "b": ""})
    with pytest.raises(ValueError, match="'a=x' is no name=number"):
        scales("a=x", {"a": "", "b": ""})


def test_all_commands_get_their_ports_are_restarted_and_leave_no_process(tmp_path: Path) -> None:
    (tmp_path / "Procfile").write_text(
        'web: sh -c \'echo "web $PORT $COLOUR $$"; sleep 600 & wait\'\nclock: echo "clock $PORT $$"; exec sleep 600\n'
    )
    (tmp_path / ".env").write_text("COLOUR=green\n")
    file = str(tmp_path / "Procfile")
    with start_program([*RUN, "--file", file, "--scale", "web=2", "--port", "7000"], cwd=tmp_path) as program:

        def lines_with(what: str, times: int = 1) -> list[str]:
            def lines() -> list[str]:
                return [line for line in program.stderr.splitlines() if what in line]

            found: list[str] = eventually(
                lambda: lines() if len(lines()) >= times else [], timeout=20, what=f"{what}:\n{program.stderr}"
            )
            return found

        lines_with("web 7000 green")
        lines_with("web 7001 green")
        pid = int(lines_with("clock 7100")[0].split()[-1])
        os.kill(pid, signal.SIGKILL)
        again = int(lines_with("clock 7100", times=2)[1].split()[-1])
        assert again != pid
        program.send_signal(signal.SIGTERM)
        assert program.wait() == 0, program.stderr
        wait_gone(again)
    assert program.left_behind == []


@pytest.mark.parametrize("command", ["exec echo done", ". ./echo.sh", "! echo done", "eval echo done"])
def test_a_command_may_be_a_builtin_of_the_shell(command: str, tmp_path: Path) -> None:
    (tmp_path / "echo.sh").write_text("echo done\n")
    (tmp_path / "Procfile").write_text(f"it: {command}\n")
    with start_program(RUN, cwd=tmp_path) as program:
        eventually(lambda: "procfile/it stdout: done" in program.stderr, timeout=20, what=program.stderr)
        program.send_signal(signal.SIGTERM)
        assert program.wait() == 0, program.stderr


def test_a_command_may_begin_with_the_keyword_time_where_sh_is_bash_and_no_such_program_is_there(
    tmp_path: Path,
) -> None:
    bash = shutil.which("bash")
    assert bash is not None, "there is no bash"
    (tmp_path / "sh").symlink_to(bash)
    (tmp_path / "Procfile").write_text("it: time echo done\n")
    (tmp_path / ".env").write_text(f"PATH={tmp_path}\n")
    with start_program(RUN, cwd=tmp_path) as program:
        eventually(lambda: "procfile/it stdout: done" in program.stderr, timeout=20, what=program.stderr)
        program.send_signal(signal.SIGTERM)
        assert program.wait() == 0, program.stderr


@pytest.mark.parametrize("arguments, first", [([], 3000), (["--port", "7000"], 7000)])
def test_the_port_of_the_environment_file_is_that_of_the_first_command(
    arguments: list[str], first: int, tmp_path: Path
) -> None:
    (tmp_path / "Procfile").write_text("a: echo port $PORT; exec sleep 600\nb: echo port $PORT; exec sleep 600\n")
    (tmp_path / ".env").write_text("PORT=3000\n")
    with start_program([*RUN, "--scale", "a=2", *arguments], cwd=tmp_path) as program:
        for port in (first, first + 1, first + 100):
            eventually(lambda port=port: f"port {port}\n" in program.stderr, timeout=20, what=f"port {port}")  # type: ignore[misc]
        program.send_signal(signal.SIGTERM)
        assert program.wait() == 0, program.stderr


def test_the_port_of_the_environment_is_that_of_the_first_command(tmp_path: Path) -> None:
    (tmp_path / "Procfile").write_text("\ufeffa: echo port $PORT; exec sleep 600\nb: echo port $PORT; exec sleep 600\n")
    with start_program(RUN, cwd=tmp_path, env={"PORT": "4000"}) as program:
        for port in (4000, 4100):
            eventually(lambda port=port: f"port {port}\n" in program.stderr, timeout=20, what=f"port {port}")  # type: ignore[misc]
        program.send_signal(signal.SIGTERM)
        assert program.wait() == 0, program.stderr


def test_a_port_that_is_no_number_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "Procfile").write_text("a: sleep 600\n")
    (tmp_path / ".env").write_text("PORT=http\n")
    finished = run_program(RUN, cwd=tmp_path)
    assert finished.returncode == 2
    assert "PORT is no number: 'http'" in finished.stderr


def test_wrong_usage_ends_the_program_with_exit_code_2(tmp_path: Path) -> None:
    for arguments, complaint in (([], "No such file"), (["--file", str(tmp_path / "P")], "there is nothing to run")):
        (tmp_path / "P").write_text("# nothing\n")
        finished = run_program([*RUN, *arguments], cwd=tmp_path)
        assert finished.returncode == 2
        assert complaint in finished.stderr
