"""Which programs commands find: not those that were killed, and none is waited for when another one is asked."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from suitkaise import cli
from suitkaise.cli import programs, show
from suitkaise.cli.command import CommandError
from suitkaise.platform.runtime_directory import HUB_SOCKET, PREFIX, hold, unused_directories


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A private directory, as a program has one."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    directory = tmp_path / f"{PREFIX}1-0"
    directory.mkdir(mode=0o700)
    return directory


@contextlib.contextmanager
def listening(directory: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as hub:
        hub.bind(str(directory / HUB_SOCKET))
        hub.listen(1)
        yield hub


@pytest.mark.parametrize("held", [False, True])
def test_a_socket_at_which_nobody_listens_is_no_program(directory: Path, held: bool) -> None:
    lock = hold(str(directory))
    with listening(directory):
        pass
    if not held:
        os.close(lock)
    try:
        found, silent = programs.running_programs()
        for program in found:
            program.close()
        assert str(directory) not in [*silent, *(program.directory for program in found)]
        assert (str(directory) in unused_directories()) is not held
    finally:
        if held:
            os.close(lock)


def test_a_program_that_never_answers_is_named_after_a_while(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "PATIENCE", 0.1)
    lock = hold(str(directory))
    try:
        with listening(directory):
            found, silent = programs.running_programs()
            for program in found:
                program.close()
            assert str(directory) in silent
    finally:
        os.close(lock)


@pytest.mark.parametrize("arguments", [["tree"], ["tree", "app"], ["tree", "--pid", "71"], ["observe"]], ids=" ".join)
def test_where_no_tree_is_found_the_program_that_does_not_answer_is_named(
    arguments: list[str], directory: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(programs, "PATIENCE", 0.1)
    monkeypatch.setattr(programs, "directories_in_use", lambda: [str(directory)])  # and no other that runs now
    lock = hold(str(directory))
    try:
        with listening(directory):
            assert cli.main(arguments) == 3
        told = capsys.readouterr().err
        nothing = "no program with pid 71 runs a tree" if "--pid" in arguments else "no tree"
        assert told.startswith(f"suitkaise {arguments[0]}: {nothing} of this user")
        assert told.endswith(f"; a program does not answer: {directory}\n")
    finally:
        os.close(lock)


def test_where_another_program_runs_the_one_that_does_not_answer_is_named_too() -> None:
    program = programs.Program("71")
    program.facts = {"pid": 71, "trees": [{"path": "shop"}]}
    with pytest.raises(
        CommandError, match=r"there is no 'app/a'; a program does not answer: /run/72; there are: shop$"
    ):
        programs.find("app/a", [program], ["/run/72"])


@pytest.mark.parametrize(
    "arguments, is_told",
    [
        (["ps", "--json"], True),
        (["tree", "--json"], True),
        (["tree", "app", "--json"], True),
        (["tree", "app", "--json", "--pid", "71"], False),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_where_a_tree_is_found_the_program_that_does_not_answer_is_named_since_it_may_have_the_one_that_is_meant(
    arguments: list[str], is_told: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    program = programs.Program("71")
    program.facts = {"pid": 71, "trees": [{"path": "app"}]}
    monkeypatch.setattr(show, "running_programs", lambda: ([program], ["/run/72"]))
    assert cli.main(arguments) == 0
    told = f"suitkaise {arguments[0]}: a program does not answer: /run/72\n" if is_told else ""
    assert capsys.readouterr().err == told


def test_several_trees_are_told_with_their_programs_since_their_names_may_be_the_same() -> None:
    running = [programs.Program(str(pid)) for pid in (71, 72)]
    for program in running:
        program.facts = {"pid": int(program.directory), "trees": [{"path": "app"}]}
    with pytest.raises(CommandError, match=r"several trees run, .* --pid: app \(pid 71\), app \(pid 72\)"):
        programs.find(None, running, [])


def test_a_name_that_is_in_several_trees_of_one_program_is_told_with_the_paths_to_choose_from() -> None:
    program = programs.Program("71")
    program.facts = {
        "pid": 71,
        "trees": [{"path": name, "children": [{"path": f"{name}/w"}]} for name in ("shop", "bank")],
    }
    with pytest.raises(
        CommandError, match=r"^'w' is in several trees, name one or .* --pid: shop/w \(pid 71\), bank/w \(pid 71\)$"
    ):
        programs.find("w", [program], [])


def test_a_path_in_one_of_two_programs_whose_trees_have_one_name_is_not_said_to_be_in_both() -> None:
    running = [programs.Program(str(pid)) for pid in (71, 72)]
    for program in running:
        pid = int(program.directory)
        program.facts = {"pid": pid, "trees": [{"path": "app", "children": [{"path": f"app/w{pid}"}]}]}
    with pytest.raises(
        CommandError, match=r"^trees named 'app' run in several programs \(pid 71, pid 72\); choose one"
    ):
        programs.find("app/w71", running, [])


@pytest.mark.parametrize(
    "path, meant",
    [
        ("sensor-0", "'station/sensors/sensor-0'"),
        ("station/sensor-0", "'station/sensors/sensor-0'"),
        ("shop/hub", "'station/hub' or 'station/sensors/hub'"),
        ("station/sensor", "'station/sensors'"),
    ],
)
def test_a_path_that_is_not_there_is_told_with_those_that_may_be_meant(path: str, meant: str) -> None:
    program = programs.Program("71")
    sensors = {
        "path": "station/sensors",
        "children": [{"path": f"station/sensors/{one}"} for one in ("sensor-0", "hub")],
    }
    program.facts = {"pid": 71, "trees": [{"path": "station", "children": [{"path": "station/hub"}, sensors]}]}
    other = programs.Program("72")
    other.facts = {"pid": 72, "trees": [{"path": "shop"}]}
    with pytest.raises(programs.NotRunning, match=rf"there is no '{path}'; did you mean {meant}\?$"):
        programs.find(path, [program, other], [])


@pytest.mark.parametrize("path", ["bank/jobs/j", "jobs/j"])
def test_a_path_below_a_supervisor_that_is_stopped_is_told_with_that_supervisor(path: str) -> None:
    program = programs.Program("71")
    jobs = {"path": "bank/jobs", "kind": "supervisor", "pid": None, "status": "stopped"}
    bank = {"path": "bank", "kind": "supervisor", "pid": 71, "status": "running", "children": [jobs]}
    program.facts = {"pid": 71, "trees": [{"path": "shop", "children": [{"path": "shop/j"}]}, bank]}
    with pytest.raises(programs.NotRunning, match=rf"there is no '{path}': 'bank/jobs' above it is stopped$"):
        programs.find(path, [program], [])
