"""`suitkaise store ls|get|rm|watch` on a durable directory, with and without a program that uses it."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from suitkaise import cli, sktree
from tests.support import Finished, run_program, start_program

STORE = [sys.executable, "-m", "suitkaise", "store"]

FILL = """
import sys
from suitkaise import sktree

class Point:
    def __repr__(self):
        return "Point()"

tree = sktree.connect(sys.argv[1], durable=True, engine=sys.argv[2])
tree.add("limit", 10, path="ui/settings", metadata={"pid": 7, "owner": "me"})
tree.add("text", "a\\nb", path="ui")
tree.add("report", {"n": [1]}, path="")
tree.add("point", Point(), path="ui")
"""


@pytest.fixture(params=["lmdb", "sqlite"])
def state(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """The directory of a storage that no program uses."""
    (tmp_path / "fill.py").write_text(FILL)
    run_program([sys.executable, "fill.py", "state", request.param], cwd=tmp_path).check()
    return tmp_path / "state"


@pytest.fixture
def in_use(state: Path) -> Iterator[Path]:
    sktree.connect(state, durable=True)
    yield state
    sktree.disconnect()


def store_program(*args: str | Path) -> Finished:
    finished = run_program([*STORE, *map(str, args)]).check()
    assert finished.left_behind == []
    return finished


def store(*args: str | Path) -> Finished:
    """Carry the command out in this process, which is quicker."""
    output, errors = io.StringIO(), io.StringIO()
    path = list(sys.path)
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
            code = cli.main(["store", *map(str, args)])
    finally:
        sys.path[:] = path
    return Finished(code, output.getvalue(), errors.getvalue(), [])


def check_reads(state: Path) -> None:
    lines = store("ls", state).check().stdout.splitlines()
    assert [line.split()[3] for line in lines] == ["report", "ui/point", "ui/text", "ui/settings/limit"]
    assert lines[3].endswith(" ui/settings/limit pid=7 owner='me'")
    listed = json.loads(store("ls", state, "--path", "ui/settings", "--json").check().stdout)
    assert [(one["path"], one["name"], one["metadata"]) for one in listed] == [
        ("ui/settings", "limit", {"pid": 7, "owner": "me"})
    ]
    assert store("get", state, "limit", "--path", "ui/settings").check().stdout == "10\n"
    assert store("get", state, "text", "--path", "ui").check().stdout == "a\nb\n"
    assert store("get", state, "report").check().stdout == "{'n': [1]}\n"
    assert json.loads(store("get", state, "report", "--json").check().stdout) == {"n": [1]}
    assert store("get", state, "point", "--path", "ui").check().stdout == "Point()\n"


def check_rm(state: Path) -> None:
    assert store("rm", state, "limit", "--path", "ui/settings").check().stdout == ""
    told = store("rm", state, "point", "--path", "ui", "--json").check().stdout
    assert json.loads(told) == {"path": "ui", "name": "point", "done": "removed"}
    missing = store("rm", state, "limit", "--path", "ui/settings")
    assert (missing.returncode, missing.stdout) == (1, "")
    assert missing.stderr == "suitkaise store: there is no 'limit' in 'ui/settings'; the container is empty\n"
    missing = store("get", state, "ui/text")
    assert missing.stderr == "suitkaise store: there is no 'ui/text' in the root; there is 'text' in 'ui'\n"
    missing = store("get", state, "texd", "--path", "ui")
    assert (missing.returncode, missing.stderr.count("\n")) == (1, 1)
    assert "did you mean 'text'?" in missing.stderr


def test_a_storage_that_no_program_uses_can_be_read_and_changed(state: Path) -> None:
    before = sorted(os.listdir(state))
    check_reads(state)
    assert store_program("get", state, "limit", "--path", "ui/settings").stdout == "10\n"
    assert sorted(os.listdir(state)) == before
    store_program("rm", state, "report")
    assert "report" not in store("ls", state).stdout
    check_rm(state)


def test_a_storage_that_a_program_uses_can_be_read_and_changed(in_use: Path) -> None:
    check_reads(in_use)
    check_rm(in_use)
    assert not sktree.connect(in_use, durable=True).exists("limit", path="ui/settings")


def test_watch_prints_changes_until_it_is_interrupted(in_use: Path) -> None:
    tree = sktree.connect(in_use, durable=True)
    with start_program([*STORE, "watch", str(in_use), "--path", "ui", "--json"]) as program:
        for number in range(1000):  # until the watch has begun
            tree.add("n", number, path="ui/deep")
            tree.add("n", number, path="elsewhere")
            try:
                program.expect('"path": "ui/deep", "name": "n"', 0.2)
                break
            except AssertionError:
                continue
        program.send_signal(signal.SIGINT)
        assert program.wait(20) == 0
    assert "elsewhere" not in program.stdout
    assert json.loads(program.stdout.splitlines()[0])["path"] == "ui/deep"


def test_watch_needs_a_program(state: Path) -> None:
    finished = store("watch", state)
    assert finished.returncode == 3
    assert (
        finished.stderr == f"suitkaise store: no program uses the storage in {str(state)!r}, so nothing changes there\n"
    )


def test_a_storage_whose_revision_is_cut_short_is_told_with_what_makes_it_anew(state: Path) -> None:
    os.truncate(state / "revision", 0)
    finished = store("ls", state)
    assert finished.returncode == 2
    assert "revision' is cut short; sktree.connect(" in finished.stderr
    sktree.connect(state, durable=True)
    sktree.disconnect()
    assert "ui/settings/limit" in store("ls", state).check().stdout


@pytest.mark.parametrize("action", [["ls"], ["get", "x"], ["rm", "x"], ["watch"]], ids=str)
def test_a_directory_without_a_storage_is_refused_and_nothing_is_made(
    tmp_path: Path, action: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    for name, text in (
        ("nowhere", "there is no directory"),
        ("file", "there is no directory"),
        ("empty", "holds no storage"),
    ):
        finished = store(action[0], name, *action[1:])
        assert (finished.returncode, finished.stdout) == (2, "")
        assert finished.stderr.startswith("suitkaise store: ")
        assert text in finished.stderr
        assert finished.stderr.count("\n") == 1
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["empty", "file"]


def test_a_wrong_path_is_a_usage_error(state: Path) -> None:
    finished = store("ls", state, "--path", "a//b")
    assert (finished.returncode, "a path is parts divided by '/'" in finished.stderr) == (2, True)


@pytest.mark.parametrize(
    "path, hint",
    [
        ("no-such", ""),
        ("ui/setings", "; the nearest paths are 'ui/settings'"),
        ("ui/settings/limit", "; there is 'limit' in 'ui/settings'"),
    ],
)
def test_a_path_with_nothing_below_it_is_told(path: str, hint: str, state: Path) -> None:
    for options in ((), ("--json",)):
        finished = store("ls", state, "--path", path, *options)
        assert (finished.returncode, finished.stdout) == (1, "")
        assert finished.stderr == f"suitkaise store: there is nothing at {path!r} or below it{hint}\n"


def test_an_empty_storage_is_listed_as_nothing(state: Path) -> None:
    for name, path in (("limit", "ui/settings"), ("text", "ui"), ("point", "ui"), ("report", "")):
        store("rm", state, name, "--path", path).check()
    assert store("ls", state).check().stdout == ""
    assert store("ls", state, "--path", "/", "--json").check().stdout == "[]\n"


@pytest.mark.parametrize("action", ["get", "rm"])
def test_a_wrong_name_is_a_usage_error(action: str, state: Path) -> None:
    finished = store(action, state, "")
    assert (finished.returncode, finished.stdout) == (2, "")
    assert finished.stderr.startswith("suitkaise store: a name must not be empty")


def test_a_name_that_begins_with_a_dash_is_given_behind_two_dashes(tmp_path: Path) -> None:
    sktree.connect(tmp_path / "state", durable=True).add("-draft", 1, path="")
    try:
        assert store("get", tmp_path / "state", "--json", "--", "-draft").check().stdout == "1\n"
        store("rm", "--", tmp_path / "state", "-draft").check()
        assert store("get", tmp_path / "state", "--", "-draft").returncode == 1
    finally:
        sktree.disconnect()


def test_what_json_does_not_have_is_printed_as_json_all_the_same(tmp_path: Path) -> None:
    tree = sktree.connect(tmp_path / "state", durable=True)
    try:
        ring: list[object] = []
        ring.append(ring)
        tree.add("loss", float("nan"), path="", metadata={"best": float("inf")})
        tree.add("pairs", {(1, 2): [float("inf")], None: {3}}, path="")
        tree.add("ring", ring, path="")
        assert [
            strict(store("get", tmp_path / "state", name, "--json").check().stdout) for name in ("loss", "pairs")
        ] == [
            None,
            {"(1, 2)": [None], "null": "{3}"},
        ]
        assert strict(store("get", tmp_path / "state", "ring", "--json").check().stdout) == "[[...]]"
        listed = strict(store("ls", tmp_path / "state", "--json").check().stdout)
        assert [entry["metadata"] for entry in listed] == [{"best": None}, {}, {}]
    finally:
        sktree.disconnect()


def test_a_value_that_cannot_be_shown_is_an_error_of_one_line(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sktree.Tree, "get", lambda *args: Unshown())
    for options in ([], ["--json"]):
        finished = store("get", state, "report", *options)
        assert (finished.returncode, finished.stdout, finished.stderr.count("\n")) == (1, "", 1)
        assert "the value of 'report' cannot be shown here: RuntimeError: no" in finished.stderr


class Unshown:
    def __repr__(self) -> str:
        raise RuntimeError("no")


def strict(text: str) -> Any:
    """Read JSON as readers do that are not Python's: NaN and Infinity are errors."""
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_in_a_terminal_a_text_is_shown_with_escapes_and_in_a_pipe_as_it_is(tmp_path: Path) -> None:
    fill = (
        "from suitkaise import sktree\nsktree.connect('state', durable=True).add('evil', 'x\\x1b[2J\\ny', path='ui')\n"
    )
    (tmp_path / "fill.py").write_text(fill)
    run_program([sys.executable, "fill.py"], cwd=tmp_path).check()
    command = [*STORE, "get", str(tmp_path / "state"), "evil", "--path", "ui"]
    assert run_program(command).check().stdout == "x\x1b[2J\ny\n"
    in_a_terminal = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"
    shown = run_program([sys.executable, "-c", in_a_terminal, *command]).check().stdout
    assert shown.splitlines() == [r"x\x1b[2J", "y"]
