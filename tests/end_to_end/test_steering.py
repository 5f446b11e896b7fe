"""`suitkaise ps|tree|status|logs|restart|stop|...`: commands against a tree that runs in another program."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import re
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from suitkaise import Child, Supervisor, Thread, cli
from tests.support import Finished, Program, eventually, run_program, start_program, wait_gone

APP = """
import os, time
from suitkaise import Child, Command, DynamicSupervisor, Process, Supervisor, Thread

class Steady(Process):
    def on_start(self):
        print("steady starts, incarnation", self.ref.incarnation, flush=True)
    def loop(self):
        self.wait(0.01)
    def on_receive(self, message):
        if message == "crash":
            raise ValueError("as it was told")
        print("got", message, flush=True)

class Idle(Thread):
    def on_receive(self, message):
        return message

class Slow(Process):
    shutdown = 60.0
    def on_start(self):
        print("slow starts", flush=True)
    def on_finish(self):
        while not os.path.exists("over"):
            time.sleep(0.02)

tree = Supervisor(
    "NAME",
    Supervisor("jobs", Child(Steady, copies=2), strategy="rest_for_one", max_restarts=50),
    Idle(),
    Child(Slow),
    Child(Command("sh", "-c", "echo a command; exec sleep 600"), id="sleeper"),
    DynamicSupervisor("guests"),
    max_restarts=50,
)
if __name__ == "__main__":
    with tree.start() as running:
        print("up", flush=True)
        while True:
            with open("orders") as orders:
                for order in orders:
                    path, message = order.strip().split(maxsplit=1)
                    running[path].tell(message)
"""


class Idle(Thread):
    """A worker that waits."""


def command_line(*args: str) -> Finished:
    """Carry a command out in this process, which is quicker."""
    output, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        code = cli.main([*args])
    return Finished(code, output.getvalue(), errors.getvalue(), [])


@dataclass
class App:
    """A program that runs a tree, and commands that are given to it in this process."""

    name: str
    program: Program
    folder: Path

    def __call__(self, command: str, *args: str) -> Finished:
        return command_line(*command.split(), *args, "--pid", str(self.program.pid))

    def tell(self, path: str, message: str) -> None:
        (self.folder / "orders").write_text(f"{path} {message}\n")

    def facts(self, path: str) -> Any:
        return json.loads(self("status --json", path).stdout)

    def pid(self, path: str) -> int:
        pid: int = self.facts(path)["pid"]
        return pid


_numbers = itertools.count(1)


@contextlib.contextmanager
def run_app(folder: Path, name: str = "") -> Iterator[App]:
    name = name or f"app-{os.getpid()}-{next(_numbers)}"
    (folder / "app.py").write_text(APP.replace("NAME", name))
    os.mkfifo(folder / "orders")
    with start_program([sys.executable, "app.py"], cwd=folder) as program:
        program.expect("up")
        yield App(name, program, folder)
        (folder / "over").touch()
        program.send_signal(signal.SIGKILL)  # its keepers end the rest and remove its directory
        program.wait()


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """A program that all tests of this module look at; those that change something change it back."""
    with run_app(tmp_path_factory.mktemp("app")) as app:
        yield app


# ---------------------------------------------------------------- looks
def test_ps_lists_the_program_with_its_trees(app: App) -> None:
    head, line = app("ps").check().stdout.splitlines()
    assert head.split() == ["PID", "TREES", "ALIVE", "RESTARTS", "UP", "COMMAND"]
    assert line.split()[:3] == [str(app.program.pid), app.name, "5/5"]
    assert line.endswith("app.py")


SET_BACK = """
import time
from suitkaise import Supervisor, Thread

real = time.time

class Idle(Thread):
    def on_start(self):
        time.time = lambda: real() - 3600
        print("ready", flush=True)
    def loop(self):
        self.wait(60)

Supervisor("set-back", Idle).run()
"""


def test_ps_tells_how_long_a_program_runs_also_after_the_clock_was_set_back(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(SET_BACK)
    with start_program([sys.executable, "app.py"], cwd=tmp_path) as program:
        program.expect("ready")
        _, line = command_line("ps", "--pid", str(program.pid)).check().stdout.splitlines()
        program.send_signal(signal.SIGTERM)
        assert program.wait() == 0
    assert float(line.split()[4]) > 0, line


def test_ps_tells_plain_values_with_json(app: App) -> None:
    (program,) = json.loads(app("ps --json").check().stdout)
    assert program["pid"] == app.program.pid
    (tree,) = program["trees"]
    assert [child["id"] for child in tree["children"]] == ["jobs", "idle", "slow", "sleeper", "guests"]
    assert [child["kind"] for child in tree["children"]] == [
        "supervisor", "thread", "process", "command", "supervisor",
    ]  # fmt: skip
    jobs = tree["children"][0]
    assert (jobs["strategy"], jobs["max_restarts"], jobs["dynamic"]) == ("rest_for_one", 50, False)
    worker = jobs["children"][0]
    assert (worker["status"], worker["restart"], worker["looping"]) == ("running", "permanent", True)


IN_A_TERMINAL = """
import os, pty, sys
sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))
"""


def typed(*args: str) -> Finished:
    """Carry a command out in a terminal."""
    command = [sys.executable, "-c", IN_A_TERMINAL, sys.executable, "-m", "suitkaise", *args]
    return run_program(command, env={"TERM": "xterm-256color", "NO_COLOR": None, "COLUMNS": "110"})


def test_in_a_terminal_tables_and_reports_are_shown_by_rich(app: App) -> None:
    head, _, line = typed("ps", "--pid", str(app.program.pid)).check().stdout.splitlines()[:3]
    assert re.sub(r"\x1b\[[\d;]*m", "", head).split()[:3] == ["PID", "TREES", "ALIVE"]
    assert str(app.program.pid) in line
    assert "\x1b[32mrunning" in typed("tree", app.name).check().stdout
    assert f"\x1b[1m{app.name}/jobs/steady-0\x1b[0m: " in typed("logs", app.name).check().stdout
    app("signal KILL jobs/steady-1").check()
    eventually(lambda: app.facts("jobs/steady-1")["crashes"])
    id = app.facts("jobs/steady-1")["crashes"][-1]
    assert id in typed("crashes", "--path", app.name).check().stdout
    report = typed("crashes", id).check().stdout
    assert "╭─" in report
    assert "signal 9 (SIGKILL)" in report


def test_tree_shows_each_worker_with_its_state(app: App) -> None:
    lines = app("tree").check().stdout.splitlines()
    assert lines[1].split()[:2] == [app.name, "running"]
    assert [line.split()[1:3] for line in lines[3:5]] == [["├─", "steady-0"], ["└─", "steady-1"]]
    assert str(app.pid("jobs/steady-0")) in lines[3]
    assert "thread" in lines[5]
    assert app("tree jobs").stdout.splitlines()[1].startswith(f"{app.name}/jobs")


def test_status_tells_all_of_one_worker(app: App) -> None:
    eventually(lambda: app.facts("jobs/steady-0")["loops"] > 3)
    text = app("status", f"{app.name}/jobs/steady-0").check().stdout
    assert text.startswith(f"{app.name}/jobs/steady-0: process, running\n  pid {app.pid('jobs/steady-0')}, incarnation")
    assert "loops, the last" in text
    assert "restart=permanent" in text
    assert "MiB, cpu" in text
    assert "    steady starts, incarnation" in text
    facts = app.facts("jobs/steady-0")
    assert facts["resources"]["rss"] > 1 << 20
    assert facts["last_lines"][0].startswith("steady starts")


def test_status_tells_of_a_supervisor_what_tree_tells(app: App) -> None:
    whole = app("status", app.name).check().stdout
    assert f"pid {app.program.pid}, incarnation 1, up " in whole
    assert "one_for_one: 0 of 50 restarts in 5 s; 5 children" in whole
    assert "dynamic: 0 of 3 restarts in 5 s; 0 children" in app("status", "guests").check().stdout


def test_status_without_a_path_prints_what_tree_prints(app: App) -> None:
    names = [line.split("  ")[0] for line in app("tree").check().stdout.splitlines()]
    assert [line.split("  ")[0] for line in app("status").check().stdout.splitlines()] == names
    assert [tree["path"] for tree in json.loads(app("status", "--json").check().stdout)] == [app.name]


def test_the_name_of_the_tree_may_be_left_out_and_a_near_name_is_suggested(app: App) -> None:
    assert app("status idle").stdout.startswith(f"{app.name}/idle: thread, running")
    missing = app("status", "jobs/stedy-0")
    assert (missing.returncode, missing.stdout) == (2, "")
    assert missing.stderr.startswith("suitkaise status: there is no 'jobs/stedy-0'; did you mean '")


def test_a_second_program_of_the_same_name_is_told_apart_by_its_pid(app: App, tmp_path: Path) -> None:
    with run_app(tmp_path, app.name) as second:
        for command in ("status", "logs", "stop"):
            finished = command_line(command, f"{app.name}/jobs")
            assert finished.returncode == 2
            assert f"trees named {app.name!r} run in several programs" in finished.stderr
            assert f"pid {app.program.pid}" in finished.stderr
            assert f"pid {second.program.pid}" in finished.stderr
        assert app.pid("jobs/steady-0") != second.pid("jobs/steady-0")
    assert command_line("status", app.name).returncode == 0


def test_a_program_that_does_not_run_is_told_with_exit_code_3() -> None:
    finished = run_program([sys.executable, "-m", "suitkaise", "tree", "--pid", str(os.getpid())])
    assert (finished.returncode, finished.stdout) == (3, "")
    assert f"no program with pid {os.getpid()} runs a tree of this user" in finished.stderr


def test_logs_prints_the_last_lines_of_a_worker_and_of_a_part_of_the_tree(app: App) -> None:
    app.tell("jobs/steady-1", "an order")
    assert eventually(lambda: "got an order" in app("logs jobs/steady-1").check().stdout)
    lines = app("logs jobs -n 1").stdout.splitlines()
    assert f"{app.name}/jobs/steady-1: got an order" in lines
    assert app("logs jobs -n 0").stdout == ""
    assert "event: started" in app("logs idle").check().stdout


def test_logs_follows_a_worker_through_its_restarts_until_the_program_ends(tmp_path: Path) -> None:
    with run_app(tmp_path) as app:
        command = [sys.executable, "-m", "suitkaise", "logs", "-f", f"{app.name}/jobs/steady-0"]
        with start_program(command) as follower:
            follower.expect("steady starts, incarnation 1")
            app.tell("jobs/steady-0", "this")
            follower.expect("got this")
            os.kill(app.pid("jobs/steady-0"), signal.SIGKILL)
            follower.expect("steady starts, incarnation 2")
            app.program.send_signal(signal.SIGKILL)
            assert follower.wait() == 0


def test_stack_shows_where_a_worker_is_which_goes_on(app: App) -> None:
    pid = app.pid("jobs/steady-0")
    assert "in loop" in app("stack jobs/steady-0").check().stdout
    assert json.loads(app("stack --json jobs/steady-0").stdout)["stacks"].count("Current thread") == 1
    assert app.pid("jobs/steady-0") == pid
    assert app("stack jobs/steady-0").stdout.startswith("Current thread")
    assert "no Python stack" in app("stack sleeper").stderr


def test_a_process_that_is_stopped_has_no_stacks_to_show(app: App) -> None:
    pid = app.pid("jobs/steady-1")
    os.kill(pid, signal.SIGSTOP)
    try:
        finished = app("stack jobs/steady-1")
        assert (finished.returncode, "is it stopped?" in finished.stderr) == (1, True)
    finally:
        os.kill(pid, signal.SIGCONT)


# ---------------------------------------------------------------- changes
def test_restart_starts_a_worker_again_and_does_not_count_it(app: App) -> None:
    before, used = app.facts("jobs/steady-1"), app.facts("jobs")["restarts_used"]  # by a test before
    assert app("restart jobs/steady-1").check().stdout == f"{app.name}/jobs/steady-1: restarted\n"
    after = app.facts("jobs/steady-1")
    assert after["pid"] not in (None, before["pid"])
    assert app.facts("jobs")["restarts_used"] <= used
    whole = app("restart", app.name)
    assert (whole.returncode, "restart its program" in whole.stderr) == (2, True)


def test_stop_and_start_end_a_worker_and_start_it_again(app: App) -> None:
    pid = app.pid("jobs/steady-1")
    assert app("stop jobs/steady-1").check().stdout == f"{app.name}/jobs/steady-1: stopped\n"
    wait_gone(pid)
    assert app.facts("jobs/steady-1")["status"] == "stopped"
    assert json.loads(app("start --json jobs/steady-1").check().stdout)["done"] == "started"
    again = app("start jobs/steady-1")
    assert (again.returncode, "runs; `suitkaise restart`" in again.stderr) == (4, True)
    assert app("start", app.name).returncode == 4


def test_suspend_and_resume_hold_a_part_of_the_tree(app: App) -> None:
    app("suspend jobs").check()
    assert {app.facts(f"jobs/steady-{n}")["status"] for n in (0, 1)} == {"suspended"}
    app("resume jobs").check()
    assert {app.facts(f"jobs/steady-{n}")["status"] for n in (0, 1)} == {"running"}


def test_a_signal_goes_to_the_process_of_a_worker_which_the_supervisor_restarts(app: App) -> None:
    before = app.facts("jobs/steady-1")
    told = app("signal KILL jobs/steady-1").check().stdout
    assert told == f"{app.name}/jobs/steady-1: SIGKILL sent to pid {before['pid']}\n"
    eventually(lambda: app.pid("jobs/steady-1") not in (None, before["pid"]))
    assert app.facts("jobs/steady-1")["last_exit"] == "signal 9 (SIGKILL)"
    assert "a process of its own" in app("signal KILL idle").stderr


def test_crashes_are_filtered_by_path(app: App) -> None:
    app.tell("jobs/steady-1", "crash")

    def crashes(path: str) -> Any:
        return json.loads(command_line("crashes", "--json", "--path", f"{app.name}/{path}").check().stdout)

    report = eventually(lambda: [one for one in crashes("jobs") if one["phase"] == "on_receive"])[-1]
    assert report["path"] == f"{app.name}/jobs/steady-1"
    assert crashes("slow") == []
    assert report["id"] in app.facts("jobs/steady-1")["crashes"]


def test_a_slow_child_delays_no_command_for_another(tmp_path: Path) -> None:
    with run_app(tmp_path) as app:
        app.program.expect("slow starts")
        late = app("stop slow --timeout 0.2")
        assert late.returncode == 1
        assert "not done after 0.2 s; it goes on" in late.stderr
        assert app("stop slow --no-wait").check().stdout == f"{app.name}/slow: requested\n"
        assert app.facts("slow")["status"] == "stopping"
        app("restart jobs/steady-0").check()
        app("tree").check()
        app("signal KILL slow").check()  # it would be waited for when the program is gone


def test_stop_without_a_path_ends_the_tree_and_its_program(tmp_path: Path) -> None:
    source, _, _ = APP.replace("NAME", "ends").partition("if __name__")
    (tmp_path / "app.py").write_text(source)
    (tmp_path / "over").touch()
    with start_program([sys.executable, "-m", "suitkaise", "run", "app.py"], cwd=tmp_path) as program:
        program.expect("slow starts")
        app = App("ends", program, tmp_path)
        eventually(lambda: app("status ends").stdout.startswith("ends: supervisor, running"), timeout=40)
        assert app("stop").check().stdout == "ends: stopped\n"
        assert program.wait() == 0, program.stderr
        assert app("ps").returncode == 3


def test_a_stop_while_the_tree_starts_is_no_failure_of_its_program(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("""
from suitkaise import Process, Supervisor

class Slow(Process):
    def on_start(self):
        print("slow starts", flush=True)
        self.wait(60)

tree = Supervisor("late", Slow)
""")
    with start_program([sys.executable, "-m", "suitkaise", "run", "app.py"], cwd=tmp_path) as program:
        program.expect("slow starts")
        assert command_line("stop", "--pid", str(program.pid)).check().stdout == "late: stopped\n"
        assert program.wait() == 0, program.stderr
    assert "ended while it started" not in program.stderr


# ---------------------------------------------------------------- the rest
def test_doctor_finds_nothing_wrong_here_and_names_the_program(app: App) -> None:
    finished = run_program([sys.executable, "-m", "suitkaise", "doctor", "--json"]).check()
    found = {one["what"]: one for one in json.loads(finished.stdout)}
    assert {one["state"] for one in found.values()} <= {"ok", "warning"}
    assert f"{app.name} (pid {app.program.pid})" in found["programs"]["found"]
    text = run_program([sys.executable, "-m", "suitkaise", "doctor"]).check().stdout
    assert len(text.splitlines()) >= len(found)


def test_the_demo_runs_and_one_of_its_workers_crashes_and_is_back() -> None:
    with start_program([sys.executable, "-m", "suitkaise", "demo"]) as program:
        program.expect("incarnation 1 starts")
        program.expect("incarnation 2 starts")
        assert "suitkaise tree" in program.stderr
        program.send_signal(signal.SIGINT)
        assert program.wait() == 0
    assert program.left_behind == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script_that_knows_all_commands(shell: str) -> None:
    script = run_program([sys.executable, "-m", "suitkaise", "completion", shell]).check().stdout
    for command in ("ps", "tree", "logs", "restart", "doctor", "demo"):
        assert command in script


Complete = Callable[..., list[str]]


@pytest.fixture
def complete(tmp_path: Path) -> Complete:
    """Return what the last of some words can be completed to, in bash."""
    script = run_program([sys.executable, "-m", "suitkaise", "completion", "bash"]).check().stdout
    (tmp_path / "suitkaise").write_text(f'#!/bin/sh\nexec {sys.executable} -m suitkaise "$@"\n')
    (tmp_path / "suitkaise").chmod(0o755)

    def complete(*words: str) -> list[str]:
        typed = shlex.join(["suitkaise", *words])
        code = (
            f"{script}\nCOMP_WORDS=({typed}); COMP_CWORD={len(words)}; _suitkaise; printf '%s\\n' \"${{COMPREPLY[@]}}\""
        )
        path = f"{tmp_path}:{os.environ['PATH']}"
        return run_program(["bash", "-c", code], env={"PATH": path}).check().stdout.splitlines()

    return complete


def test_the_completion_of_bash_completes_commands_options_and_paths(app: App, complete: Complete) -> None:
    assert complete("re") == ["restart", "resume"]
    assert "--follow" in complete("logs", "--")
    assert complete("status", f"{app.name}/jobs/st") == [f"{app.name}/jobs/steady-0", f"{app.name}/jobs/steady-1"]


def test_the_completion_of_bash_knows_the_words_that_a_command_takes(complete: Complete, tmp_path: Path) -> None:
    assert complete("store", "") == ["ls", "get", "rm", "watch"]
    assert complete("store", "w") == ["watch"]
    assert complete("store", "ls", "--p") == ["--path"]
    assert complete("store", "--h") == ["--help"]
    assert complete("completion", "") == ["bash", "zsh", "fish"]
    (tmp_path / "state").mkdir()
    assert complete("store", "ls", f"{tmp_path}/st") == [f"{tmp_path}/state"]


def test_the_completion_of_fish_knows_the_words_that_a_command_takes() -> None:
    script = run_program([sys.executable, "-m", "suitkaise", "completion", "fish"]).check().stdout
    lines = [line for line in script.splitlines() if "__fish_seen_subcommand_from store;" in line]
    seen, actions = "__fish_seen_subcommand_from", "ls get rm watch"
    assert lines == [
        f"complete -c suitkaise -n '{seen} store; and not {seen} {actions}' -a '{actions}'",
        f"complete -c suitkaise -n '{seen} store; and {seen} {actions}' -F",
    ]
    assert "complete -c suitkaise -n '__fish_seen_subcommand_from store' -l path" in script


def test_a_path_is_completed_as_it_is_whatever_its_name_and_nothing_in_it_is_run(
    complete: Complete, tmp_path: Path
) -> None:
    ids = ["工人-🚀", "two words", 'it\'s "so"', "back\\slash", "$(touch ran)", "`touch ran`", "$HOME"]
    tree = Supervisor("named", *[Child(Idle, id=one) for one in ids])
    with tree.start():
        assert complete("status", "named/") == [f"named/{one}" for one in ids]
        assert complete("status", "named/工") == ["named/工人-🚀"]
        assert complete("status", "named/two\\ w") == ["named/two words"]
    assert not (tmp_path / "ran").exists()
    assert not Path("ran").exists()
