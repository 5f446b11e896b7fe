"""Options of `suitkaise run` from the environment and from pyproject.toml, and the page that lists all of it."""

from __future__ import annotations

import argparse
import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from suitkaise.cli.command import UsageError
from suitkaise.cli.settings import OPTIONS, PREFIX, fill_in
from tests.support import ROOT, run_program

PAGE = ROOT / "docs" / "reference" / "configuration.md"
SOURCES = sorted((ROOT / "src").rglob("*.py"))


def filled(folder: Path, environ: dict[str, str], file: str | None = None, **given: Any) -> dict[str, Any]:
    """Return the options as they are in the end; `file` is the text of a pyproject.toml."""
    if file is not None:
        (folder / "pyproject.toml").write_text(file)
    options = argparse.Namespace(**{**dict.fromkeys(OPTIONS), **given})
    fill_in(options, folder, environ)
    return vars(options)


TABLE = "[tool.suitkaise]\n"


def test_without_anything_the_defaults_hold(tmp_path: Path) -> None:
    assert filled(tmp_path, {"PATH": "/bin"}) == {"json": False, "debug": False, "health": None, "watch": None}
    assert filled(tmp_path, {}, "[tool.other]\nsuitkaise = 1") == filled(tmp_path, {})


def test_the_command_line_comes_before_the_environment_and_that_before_the_file(tmp_path: Path) -> None:
    file = f'{TABLE}json = true\ndebug = true\nhealth = "localhost:1"\nwatch = true'
    assert filled(tmp_path, {}, file) == {"json": True, "debug": True, "health": "localhost:1", "watch": ""}
    environ = {"SUITKAISE_JSON": "0", "SUITKAISE_HEALTH": "2", "SUITKAISE_WATCH": "src"}
    assert filled(tmp_path, environ) == {"json": False, "debug": True, "health": "2", "watch": "src"}
    assert filled(tmp_path, environ, json=True, debug=False, health="3", watch="") == {
        "json": True, "debug": False, "health": "3", "watch": "",
    }  # fmt: skip


def test_a_folder_that_cannot_be_looked_at_has_no_file(tmp_path: Path) -> None:
    assert filled(tmp_path / ("long" * 100), {}) == filled(tmp_path, {})


def test_the_nearest_file_above_the_folder_is_read(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(f"{TABLE}health = 8080")
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    assert filled(below, {})["health"] == "8080"
    (tmp_path / "a" / "pyproject.toml").write_text("[project]\nname = 'another'")
    assert filled(below, {})["health"] is None


@pytest.mark.parametrize("text, value", [("1", True), ("TRUE", True), ("off", False), ("no", False), ("", False)])
def test_a_flag_in_the_environment_is_a_word(text: str, value: bool, tmp_path: Path) -> None:
    assert filled(tmp_path, {"SUITKAISE_DEBUG": text})["debug"] is value


@pytest.mark.parametrize("text, value", [("1", ""), ("on", ""), ("off", None), ("", None), ("src", "src")])
def test_what_is_watched_is_a_word_or_a_folder_in_the_environment(text: str, value: str | None, tmp_path: Path) -> None:
    assert filled(tmp_path, {"SUITKAISE_WATCH": text})["watch"] == value


def test_a_folder_to_watch_is_below_that_of_the_file_and_the_environment_may_switch_it_off(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(f'{TABLE}watch = "src"')
    below = tmp_path / "a"
    below.mkdir()
    assert filled(below, {})["watch"] == str(tmp_path / "src")
    assert filled(below, {"SUITKAISE_WATCH": "0"})["watch"] is None
    assert filled(tmp_path, {}, f"{TABLE}watch = false")["watch"] is None


@pytest.mark.parametrize(
    "file, text",
    [
        (f"{TABLE}helth = 1", r"pyproject\.toml: \[tool\.suitkaise\]: unknown option helth; did you mean health\?"),
        (f"{TABLE}zzz = 1", "option zzz; there are json, debug, health, watch"),
        (f"{TABLE}json = 'yes'", "json must be true or false, not 'yes'"),
        (f"{TABLE}json = 1", "json must be true or false, not 1"),
        (f"{TABLE}health = true", "health must be a text or a number, not True"),
        (f"{TABLE}health = [1]", r"health must be a text or a number, not \[1\]"),
        (f"{TABLE}watch = 1", "watch must be true, false or a folder, not 1"),
        ("[tool]\nsuitkaise = 1", "tool.suitkaise must be a table, not 1"),
        (f"{TABLE}health =", "cannot be read: Invalid value"),
    ],
)
def test_what_is_wrong_in_the_file_is_an_error_also_where_another_place_decides(
    file: str, text: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=text):
        filled(tmp_path, {}, file, json=True, debug=True, health="1")


@pytest.mark.parametrize(
    "environ, text",
    [
        ({"SUITKAISE_HELTH": "1"}, "unknown environment variable SUITKAISE_HELTH; did you mean SUITKAISE_HEALTH?"),
        ({"SUITKAISE_STAT": "1"}, "did you mean SUITKAISE_STATE?"),
        ({"SUITKAISE_JSON": "maybe"}, "SUITKAISE_JSON must be one of 1, true, yes, on, 0, false, no, off, not 'maybe'"),
    ],
)
def test_what_is_wrong_in_the_environment_is_an_error(environ: dict[str, str], text: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=re.escape(text)):
        filled(tmp_path, environ, json=True)


def test_variables_with_another_purpose_are_no_options(tmp_path: Path) -> None:
    names = ("STATE", "COMMAND", "KEEPER", "TEST_PROGRAM", "INDEX_ROOT", "SCHEDULES", "json", "")
    environ = {"SUITKAISE": "x", **{f"SUITKAISE_{name}": "x" for name in names}}
    assert filled(tmp_path, environ) == filled(tmp_path, {})


APP = """
from suitkaise import Child, Process, Supervisor

class Once(Process):
    def on_start(self):
        print("name:", type(self).__name__, flush=True)

    def loop(self):
        self.rejoin()

tree = Supervisor("app", Child(Once, restart="transient", significant=True), auto_shutdown="any_significant")
"""
RUN = [sys.executable, "-m", "suitkaise", "run"]


def test_suitkaise_run_takes_its_options_from_the_file_and_from_the_environment(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "pyproject.toml").write_text(f"{TABLE}json = true\nhealth = 0\n")
    done = run_program([*RUN, "app.py"], cwd=tmp_path).check()
    assert '"level": "info"' in done.stderr
    assert "health is served at http://127.0.0.1:" in done.stderr
    done = run_program([*RUN, "app.py", "--no-json", "argument"], cwd=tmp_path).check()
    assert '"level"' not in done.stderr
    done = run_program([*RUN, "app.py"], cwd=tmp_path, env={"SUITKAISE_JSON": "false"}).check()
    assert '"level"' not in done.stderr
    done = run_program([*RUN, "app.py"], cwd=tmp_path, env={"SUITKAISE_JSN": "false"})
    assert done.returncode == 2
    assert "suitkaise run: unknown environment variable SUITKAISE_JSN; did you mean SUITKAISE_JSON?" in done.stderr


# ---------------------------------------------------------------- the page
def constants() -> dict[str, str]:
    """Return the texts that modules give names to."""
    return {
        node.targets[0].id: node.value.value
        for file in SOURCES
        for node in ast.parse(file.read_text(encoding="utf-8")).body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    }


def is_environ(node: ast.AST) -> bool:
    return ast.unparse(node) in ("os.environ", "os.environb", "environ")


def names_read(source: str) -> Iterator[ast.expr]:
    """Yield what is looked up in the environment."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Call(ast.Attribute(where, "get" | "pop" | "setdefault"), [name, *_]) if is_environ(where):
                yield name
            case ast.Call(ast.Attribute(ast.Name("os"), "getenv"), [name, *_]):
                yield name
            case ast.Subscript(where, name) if is_environ(where):
                yield name
            case ast.Compare(name, [ast.In() | ast.NotIn()], [where]) if is_environ(where):
                yield name


ANY_NAME = {"inheritance.py": "key"}
"""Where variables of any name are handed on."""


def test_the_page_lists_all_variables_that_the_package_reads() -> None:
    known, found = constants(), {f"{PREFIX}{name.upper()}" for name in OPTIONS}
    for file in SOURCES:
        for name in names_read(file.read_text(encoding="utf-8")):
            if isinstance(name, ast.Constant):
                found.add(name.value)
            elif ANY_NAME.get(file.name) != ast.unparse(name):
                assert isinstance(name, ast.Name), f"{file}: {ast.unparse(name)}"
                found.add(known[name.id])
    assert {"NO_COLOR", "SUITKAISE_STATE", "NOTIFY_SOCKET", "PYTHONBREAKPOINT", "SUITKAISE_KEEPER"} <= found
    listed = set(re.findall(r"`([A-Z_]+)`", PAGE.read_text(encoding="utf-8").partition("## Environment variables")[2]))
    assert found <= listed
    assert listed - found == {"HOME", "TMPDIR"}  # read by Python


def test_the_page_shows_each_option_in_its_three_forms() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for name in OPTIONS:
        assert all(text in page for text in (f"`--{name}", f"`{PREFIX}{name.upper()}=", f"`{name} = "))
