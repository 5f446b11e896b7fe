"""`suitkaise top` against a tree that runs in another program: with textual's pilot, and once in tmux."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from suitkaise import cli
from suitkaise.cli import top as command
from tests.end_to_end.terminal import Terminal, in_terminal
from tests.support import Finished, Program, eventually, start_program

pytest.importorskip("textual")
pytestmark = pytest.mark.timeout(180)

APP = """
import time
from suitkaise import Child, Process, Supervisor, Thread

class Steady(Process):
    def on_start(self):
        print("steady starts, incarnation", self.ref.incarnation, flush=True)
    def loop(self):
        self.wait(0.02)

class Idle(Thread):
    def on_receive(self, message):
        return message

class Failing(Steady):
    def loop(self):
        if self.ref.incarnation == 1:
            raise ValueError("as it was told")
        self.wait(0.02)

tree = Supervisor(
    "NAME",
    Supervisor("jobs", Child(Steady, copies=2), strategy="rest_for_one", max_restarts=50),
    Idle(), Child(Failing, id="fails"), max_restarts=50,
)
with tree.start() as running:
    while running["fails"].incarnation < 2:
        time.sleep(0.01)
    print("up", flush=True)
    running.wait()
"""
NARROW = (40, 16)


@dataclass
class App:
    """A program that runs a tree."""

    name: str
    program: Program

    def __call__(self, *args: str) -> Finished:
        output, errors = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
            code = cli.main([*args])
        return Finished(code, output.getvalue(), errors.getvalue(), [])


@contextlib.contextmanager
def run_app(folder: Path, name: str) -> Iterator[App]:
    (folder / "app.py").write_text(APP.replace("NAME", name))
    with start_program([sys.executable, "app.py"], cwd=folder) as program:
        program.expect("up")
        yield App(name, program)
        program.send_signal(signal.SIGKILL)  # its keepers end the rest and remove its directory
        program.wait()


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """A program that all tests of this module look at; those that change something change it back."""
    with run_app(tmp_path_factory.mktemp("app"), f"top-{os.getpid()}") as app:
        yield app


# ---------------------------------------------------------------- what is shown
def test_it_shows_the_tree_and_a_crash_and_the_restart(app: App) -> None:
    async def work(terminal: Terminal) -> None:
        worker = f"{app.name}/jobs/steady-1"
        await terminal.until(lambda: terminal.shows(worker, "running"))
        assert terminal.has("NAME", "STATE", "MEMORY", "├─ jobs", "steady-0", "● running", "rest_for_one")
        before = int(terminal.line(worker).cells["pid"])
        os.kill(before, signal.SIGKILL)
        await terminal.until(lambda: terminal.shows(worker, "crashed"))
        await terminal.until(lambda: terminal.shows(worker, "running"))
        assert int(terminal.line(worker).cells["pid"]) != before
        assert "SIGKILL" in terminal.line(worker).doing
        assert terminal.line(worker).numbers["restarts"] >= 1

    in_terminal(work, app.name)


def test_the_detail_tells_facts_log_and_the_incident_with_its_traceback(app: App) -> None:
    async def work(terminal: Terminal) -> None:
        await terminal.choose(f"{app.name}/fails")
        await terminal.press("enter")
        await terminal.until(lambda: terminal.has("No incident.") or terminal.has("as it was told", "Traceback"))
        await terminal.until(lambda: terminal.has("ValueError", "suitkaise crashes"))
        await terminal.choose(f"{app.name}/jobs/steady-1")
        await terminal.until(lambda: terminal.has("memory", "steady starts, incarnation", "restart=permanent"))
        looked = terminal.top._source.observation.looked
        await terminal.until(lambda: terminal.top._source.observation.looked > looked)  # it goes on to look
        await terminal.choose(f"{app.name}/jobs")
        await terminal.until(lambda: terminal.has("steady-0 steady starts", "steady-1 steady starts"))
        await terminal.press("escape")
        await terminal.until(lambda: not terminal.has("steady-0 steady starts"))

    in_terminal(work, app.name)


def test_what_still_looks_when_the_screen_is_removed_is_no_error(app: App) -> None:
    asked, answer = threading.Event(), threading.Event()

    async def work(terminal: Terminal) -> None:
        top = terminal.top
        lines = top._source.lines

        def late(path: str) -> Any:
            asked.set()
            answer.wait(30)
            return lines(path)

        await terminal.choose(f"{app.name}/idle")
        await terminal.press("enter")
        top._source.lines = late
        await terminal.until(asked.is_set)
        await top._main.remove_children()
        answer.set()
        await terminal.until(lambda: not any(one.is_running for one in top.workers))

    in_terminal(work, app.name)


def test_typing_filters_and_escape_shows_all(app: App) -> None:
    async def work(terminal: Terminal) -> None:
        await terminal.until(lambda: terminal.table.lines)
        everything = len(terminal.table.lines)
        await terminal.press("slash", *"idle")
        await terminal.until(lambda: [one.path for one in terminal.table.lines] == [app.name, f"{app.name}/idle"])
        await terminal.press("enter", "down")
        assert terminal.table.path == f"{app.name}/idle"
        await terminal.press("slash", *"xyz")
        await terminal.until(lambda: terminal.has("Nothing holds 'xyz'"))
        await terminal.press("escape")
        await terminal.until(lambda: len(terminal.table.lines) == everything)

    in_terminal(work, app.name)


@pytest.mark.parametrize("keys", [[], ["slash", *"idle"], ["question_mark", "ctrl+c"], ["r", "ctrl+c"]], ids=" ".join)
def test_ctrl_c_closes_a_dialog_and_else_quits(keys: list[str], app: App) -> None:
    async def work(terminal: Terminal) -> None:
        await terminal.choose(f"{app.name}/idle")
        await terminal.press(*keys)
        assert terminal.top.return_code is None
        await terminal.press("ctrl+c")
        await terminal.until(lambda: terminal.top.return_code == 0)

    in_terminal(work, app.name)


def test_sorting_lists_the_workers_and_keeps_the_cursor_on_its_worker(app: App) -> None:
    async def work(terminal: Terminal) -> None:
        worker = f"{app.name}/jobs/steady-1"
        await terminal.choose(worker)
        await terminal.press("greater_than_sign", "greater_than_sign")
        assert terminal.has("MEMORY▾")
        figures = [line.numbers.get("memory", -1) for line in terminal.table.lines]
        assert figures == sorted(figures, reverse=True)
        assert terminal.table.path == worker
        await terminal.press("t")
        assert terminal.table.lines[0].path == app.name
        assert terminal.table.path == worker

    in_terminal(work, app.name)


def test_a_narrow_terminal_shows_what_matters_most(app: App) -> None:
    async def work(terminal: Terminal) -> None:
        await terminal.until(lambda: terminal.has("● running", "CPU"))
        assert not terminal.has("MESSAGES")
        await terminal.choose(f"{app.name}/jobs/steady-1")
        await terminal.press("enter")
        await terminal.until(lambda: terminal.has("restarts"))
        assert terminal.has("└─ steady-1")  # still in view
        await terminal.press("question_mark")
        await terminal.until(lambda: terminal.has("choose a"))
        await terminal.press("escape")

    in_terminal(work, app.name, NARROW)


# ---------------------------------------------------------------- steering
def test_a_restart_happens_when_it_is_confirmed_and_not_otherwise(app: App) -> None:
    async def work(terminal: Terminal) -> None:
        worker = f"{app.name}/jobs/steady-1"
        await terminal.choose(worker)
        pid = terminal.line(worker).cells["pid"]
        await terminal.press("r")
        assert terminal.has(f"Restart {worker}?")
        await terminal.press("n")
        await terminal.press("r", "y")
        await terminal.until(lambda: terminal.has("restarted"))
        await terminal.until(lambda: terminal.line(worker).cells["pid"] not in ("", pid))

    in_terminal(work, app.name)


def test_a_worker_is_stopped_started_suspended_and_resumed(app: App) -> None:
    async def work(terminal: Terminal) -> None:
        worker = f"{app.name}/idle"
        await terminal.choose(worker)
        for key, state in (("s", "stopped"), ("a", "running"), ("p", "suspended"), ("c", "running")):
            await terminal.press(key, "y")
            await terminal.until(lambda state=state: terminal.shows(worker, state))

    in_terminal(work, app.name)


def test_a_signal_is_chosen_from_a_list(app: App) -> None:
    async def work(terminal: Terminal) -> None:
        worker = f"{app.name}/jobs/steady-1"
        await terminal.choose(worker)
        pid = terminal.line(worker).cells["pid"]
        await terminal.press("k")
        await terminal.until(lambda: terminal.has(f"(pid {pid})", "SIGTERM", "SIGKILL"))
        await terminal.press("escape", "k", "down", "enter")
        await terminal.until(lambda: terminal.line(worker).cells.get("pid") not in ("", pid))
        await terminal.choose(f"{app.name}/idle")
        await terminal.press("k")
        await terminal.until(lambda: terminal.has("is a thread;"))

    in_terminal(work, app.name)


def test_a_whole_tree_cannot_be_steered(app: App) -> None:
    async def work(terminal: Terminal) -> None:
        await terminal.choose(app.name)
        await terminal.press("s")
        await terminal.until(lambda: terminal.has("is a whole tree"))

    in_terminal(work, app.name)


# ---------------------------------------------------------------- no program, its end, the next one
def test_it_waits_for_the_program_tells_its_end_and_shows_the_next_one(tmp_path: Path) -> None:
    name = f"late-{os.getpid()}"

    async def work(terminal: Terminal) -> None:
        await terminal.until(
            lambda: (
                terminal.has("Waiting")
                and (terminal.has(f"there is no '{name}'") or terminal.has("no tree of this user is running"))
            )
        )
        for _ in range(2):
            with contextlib.ExitStack() as stack:
                await asyncio.to_thread(stack.enter_context, run_app(tmp_path, name))
                await terminal.until(lambda: terminal.shows(f"{name}/idle", "running") and not terminal.has("ended"))
            await terminal.until(lambda: terminal.has("The program has ended at", "└─ fails"))
            await terminal.press("r")
            await terminal.until(lambda: terminal.has("There is no program"))

    in_terminal(work, name)


# ---------------------------------------------------------------- without a terminal
def test_without_a_terminal_the_table_is_printed_once(app: App) -> None:
    head, root, *lines = app("top", app.name).check().stdout.splitlines()
    assert head.split()[:5] == ["NAME", "STATE", "PID", "CPU", "MEMORY"]
    assert root.startswith(app.name)
    assert any(re.search(r"├─ steady-0 +running +\d+ +\d+% +[\d.]+ MiB", line) for line in lines)
    rows = json.loads(app("top", "--json", f"{app.name}/jobs").check().stdout)
    assert [row["path"].rpartition("/")[2] for row in rows] == ["jobs", "steady-0", "steady-1"]
    assert rows[1]["rate"] > 0


def test_a_terminal_that_can_show_no_whole_screen_is_as_good_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for stream in (sys.stdin, sys.stdout):
        monkeypatch.setattr(stream, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    assert command.on_terminal()
    monkeypatch.setenv("TERM", "dumb")
    assert not command.on_terminal()


def test_without_a_program_a_printed_table_is_an_error(app: App) -> None:
    assert app("top", "--once", "--pid", "1").returncode == 3


def test_without_the_extra_the_error_tells_how_to_install_it(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(command, "on_terminal", lambda: True)
    finished = app("top", app.name)
    assert finished.returncode == 1
    assert "pip install 'suitkaise-xprocess[tui]'" in finished.stderr
    assert "NAME" in app("top", app.name, "--once").check().stdout  # which needs no extra


@pytest.mark.skipif(shutil.which("tmux") is None, reason="there is no tmux on this machine")
def test_it_works_in_a_real_terminal(app: App, tmp_path: Path) -> None:
    def tmux(*args: str) -> str:
        done = subprocess.run(["tmux", "-S", str(tmp_path / "tmux"), *args], check=False, capture_output=True)
        return done.stdout.decode()

    def screen() -> str:
        return tmux("capture-pane", "-p")

    run = shlex.join(["env", "-u", "COLUMNS", "-u", "LINES", sys.executable, "-m", "suitkaise", "top", app.name])
    tmux("-f", os.devnull, "new-session", "-d", "-x", "120", "-y", "30", f"{run}; echo code $?; read line")
    try:
        eventually(lambda: "steady-1" in screen() and "● running" in screen(), timeout=30)
        tmux("send-keys", "End", "Enter")
        eventually(lambda: "recovered" in screen(), timeout=10, what=screen())
        tmux("resize-window", "-x", "60", "-y", "20")
        eventually(lambda: "steady-1" in screen(), timeout=30)
        tmux("send-keys", "q")
        eventually(lambda: "code 0" in screen(), timeout=30)
    finally:
        tmux("kill-server")
