"""What a command says that was not called as it must be."""

from __future__ import annotations

from pathlib import Path

import pytest

from suitkaise import Supervisor, cli
from suitkaise.cli.command import UsageError
from suitkaise.cli.dispatch import _without_own
from suitkaise.cli.load import find_tree
from suitkaise.cli.parser import make_parser


def test_without_a_command_all_commands_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 2
    shown = capsys.readouterr().err
    assert "run the tree that a file or module declares" in shown
    assert "list the crash reports" in shown


def test_run_needs_a_file_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["run"])
    assert capsys.readouterr().err.endswith("the following arguments are required: MODULE_OR_FILE[:NAME]\n")


@pytest.mark.parametrize(
    "words",
    [["--observe", "8000", "--watch"], ["--observe"], ["--watch", "."], ["--engine=ray"], ["a", "--observe"]],
)
def test_what_follows_an_argument_of_the_program_is_the_programs_as_it_was_written(words: list[str]) -> None:
    options = make_parser().parse_args(["run", "app.py"])
    assert _without_own(options, ["--json", "--mine", *words]) == ["--mine", *words]
    assert _without_own(options, ["--observe", "8000", "--watch", "--mine", *words]) == ["--mine", *words]
    assert (options.json, options.observe, options.watch) == (True, "8000", "")


@pytest.mark.parametrize("target", ["", ":tree", ".", "..", ".app:tree"])
@pytest.mark.parametrize("options", [[], ["--watch", "."], ["--debug"]])
def test_run_tells_in_one_line_that_it_was_given_no_name_of_a_module(
    target: str, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["run", *options, target]) == 2
    where = target.partition(":")[0]
    assert capsys.readouterr().err == (
        f"suitkaise run: {target!r}: it takes a file or a module, such as app.py, app.py:tree or package.module, "
        f"not {where!r}\n"
    )


@pytest.mark.parametrize("arguments", [["run", "/srv/app.py"], ["run", "app"], ["store", "ls", "/srv/state"]], ids=str)
def test_a_working_folder_that_was_removed_is_told_in_one_line(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    tmp_path.rmdir()
    assert cli.main(arguments) == 2
    told = "the working folder was removed; change to one that exists"
    assert capsys.readouterr().err == f"suitkaise {arguments[0]}: {told}\n"


@pytest.mark.parametrize(
    "command, argument",
    [
        *((command, "PATH") for command in ("restart", "stop", "start", "suspend", "resume", "stack")),
        *((command, "PATH") for command in ("trace", "profile", "tree", "status", "logs")),
        ("top", "TREE"),
        ("crashes", "ID"),
        ("crashes --path", "--path"),
    ],
)
def test_an_empty_path_is_not_that_of_the_whole_tree(
    command: str, argument: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as raised:
        cli.main([*command.split(), ""])
    assert raised.value.code == 2
    name = command.partition(" ")[0]
    assert capsys.readouterr().err.endswith(f"suitkaise {name}: error: argument {argument}: must not be empty\n")


@pytest.mark.parametrize("command", ["restart", "stop", "start", "suspend", "resume"])
def test_what_is_not_waited_for_has_no_time_limit(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        cli.main([command, "app/a", "--timeout", "5", "--no-wait"])
    assert raised.value.code == 2
    assert capsys.readouterr().err.endswith("error: argument --no-wait: not allowed with argument --timeout\n")


def test_a_profile_as_json_takes_no_other_format(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["profile", "app/a", "--json", "--format", "speedscope"]) == 2
    told = "suitkaise profile: --json is a format of its own; leave it out, or --format speedscope\n"
    assert capsys.readouterr().err == told


@pytest.mark.parametrize("action", [["ls", ""], ["get", "", "name"], ["rm", "", "name"], ["watch", ""]])
def test_an_empty_name_of_a_storage_is_not_that_of_this_folder(
    action: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as raised:
        cli.main(["store", *action])
    assert raised.value.code == 2
    assert capsys.readouterr().err.endswith("error: argument DIRECTORY: must not be empty\n")


def test_an_empty_argument_too_many_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["ps", "", "two words"])
    assert capsys.readouterr().err.endswith("error: unrecognized arguments: '' 'two words'\n")


@pytest.mark.parametrize(
    "name, message",
    [
        ("make", "'make' is a function and no Supervisor; the trees there are first, second"),
        ("Work", "'Work' is a class and no Supervisor; the trees there are first, second"),
        ("NUMBER", "'NUMBER' is of the type int and no Supervisor; the trees there are first, second"),
        ("third", "there is no 'third'; the trees there are first, second"),
    ],
)
def test_run_tells_what_the_name_that_it_was_given_is_if_it_is_no_tree(name: str, message: str) -> None:
    trees = {"first": Supervisor("first"), "second": Supervisor("second")}
    with pytest.raises(UsageError) as raised:
        find_tree({**trees, "make": find_tree, "Work": UsageError, "NUMBER": 5}, "app.py", name)
    assert str(raised.value) == f"'app.py': {message}"
