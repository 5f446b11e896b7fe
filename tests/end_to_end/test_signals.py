"""Signals to a program in the foreground, and to its whole group: what stops, what is told, and the exit code."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.support import Program, eventually, run_program, start_program

RUN = [sys.executable, "-m", "suitkaise", "run"]
SAVES = """
import time
from suitkaise import Process, Supervisor

class Saves(Process):
    def on_start(self):
        print("up", flush=True)

    def loop(self):
        self.wait(60)

    def on_finish(self):
        print("saving", flush=True)
        time.sleep(0.3)
        print("saved", flush=True)

tree = Supervisor("app", Saves)
"""


def started(program: Program) -> None:
    eventually(lambda: "supervisor started" in program.stderr, what="the tree is up")


def test_s70_the_same_signal_again_within_a_second_is_the_same_request(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(SAVES)
    with start_program([*RUN, "app.py"], cwd=tmp_path) as program:
        started(program)
        program.send_signal(signal.SIGTERM)
        program.expect("saving")
        program.send_signal(signal.SIGTERM)
        assert program.wait() == 0
    assert "saved" in program.stdout
    assert not program.left_behind


def test_s70_timeout_stops_a_program_gracefully(tmp_path: Path) -> None:
    """`timeout` sends SIGTERM to the process, and a moment later to its own group, which the process is in."""
    (tmp_path / "app.py").write_text(
        SAVES.replace('print("up"', 'print("up", os.getppid()').replace("import time", "import os, time")
    )
    with start_program(["timeout", "600", *RUN, "app.py"], cwd=tmp_path) as program:
        started(program)
        program.send_signal(signal.SIGTERM)  # `timeout` passes it on as it does its own
        assert program.wait() == 0
    assert "saved" in program.stdout
    assert not program.left_behind


ENDLESS = SAVES.replace("time.sleep(0.3)", "time.sleep(600)").replace(
    "(Process):", "(Process):\n    shutdown = 'infinity'"
)


def test_s70_the_same_signal_kills_when_it_is_sent_again_later(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(ENDLESS)
    with start_program([*RUN, "app.py"], cwd=tmp_path) as program:
        started(program)

        def killed() -> bool:
            if "a second signal" not in program.stderr:
                program.send_signal(signal.SIGTERM)
            return program.returncode is not None

        eventually(killed, what="a repeated SIGTERM ends the program")
        assert program.wait() == 128 + signal.SIGTERM
    assert not program.left_behind


STOPPED_BY_CTRL_C = """
import logging, sys, time
from suitkaise import Process, Supervisor
from suitkaise.pools import ProcessPool
from suitkaise.runtime import running_tree
from suitkaise.xprocess import CrossProcessing

logging.basicConfig(level=logging.INFO)
running_tree.REPEAT = float(sys.argv[2])

class Works(Process):
    def loop(self):
        print("at work", flush=True)
        time.sleep(600)

if sys.argv[1] == "left":
    running = Supervisor("app", Works).start()
    print("up", flush=True)
    time.sleep(600)
elif sys.argv[1] == "tree":
    with Supervisor("app", Works).start():
        print("up", flush=True)
        time.sleep(600)
elif sys.argv[1] == "processes":
    with CrossProcessing() as xp:
        xp.create_process(Works)
        print("up", flush=True)
        time.sleep(600)
else:
    with ProcessPool(1) as pool:
        future = pool.submit(Works.loop, None)
        print("up", flush=True)
        future.result()
"""


@pytest.mark.parametrize("repeat, why", [("0.0", "a second Ctrl-C"), ("60.0", "shutdown timeout")])
@pytest.mark.parametrize("what", ["left", "pool", "processes", "tree"])
def test_s70_a_second_ctrl_c_kills_the_workers_of_a_block_or_program_that_the_first_one_has_ended(
    what: str, repeat: str, why: str
) -> None:
    with start_program(STOPPED_BY_CTRL_C, what, repeat) as program:
        eventually(lambda: "at work" in program.stdout and "up" in program.stdout)  # perhaps in one line
        program.send_signal(signal.SIGINT)
        eventually(lambda: "supervisor stops its children" in program.stderr)
        program.send_signal(signal.SIGINT)
        program.wait()
    assert f"killed ({why})" in program.stderr
    assert not program.left_behind


def test_a_second_signal_of_another_kind_kills_at_once(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(ENDLESS)
    with start_program([*RUN, "app.py"], cwd=tmp_path) as program:
        started(program)
        program.send_signal(signal.SIGTERM)
        program.expect("saving")
        program.send_signal(signal.SIGINT)
        assert program.wait() == 128 + signal.SIGINT
    assert not program.left_behind


def test_sighup_stops_gracefully_and_is_no_second_signal(tmp_path: Path) -> None:
    """A login session that ends sends SIGTERM and SIGHUP, which arrive in the order of their numbers."""
    (tmp_path / "app.py").write_text(SAVES)
    with start_program([*RUN, "app.py"], cwd=tmp_path) as program:
        started(program)
        for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGHUP):
            program.send_signal(number)
        assert program.wait() == 0
    assert "saved" in program.stdout
    assert not program.left_behind


def test_under_nohup_sighup_does_nothing(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(SAVES)
    with start_program(["nohup", *RUN, "app.py"], cwd=tmp_path) as program:
        started(program)
        os.killpg(program.pid, signal.SIGHUP)
        program.send_signal(signal.SIGUSR1)  # what it prints shows that it has handled its signals, and goes on
        eventually(lambda: "most recent call first" in program.stderr, what="the stacks")
        assert "supervisor stops" not in program.stderr
        program.send_signal(signal.SIGTERM)
        assert program.wait() == 0


def test_sigusr1_prints_the_stacks_of_all_threads_of_the_program_and_its_workers(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(SAVES)
    with start_program([*RUN, "app.py"], cwd=tmp_path) as program:
        started(program)
        children = {child.pid for child in psutil.Process(program.pid).children(recursive=True)}
        program.send_signal(signal.SIGUSR1)
        eventually(lambda: "in wait" in program.stderr, what="the stack of the main thread")
        assert program.stderr.count("Thread 0x") > 1
        os.killpg(program.pid, signal.SIGUSR1)
        eventually(lambda: "mailbox.py" in program.stderr, what="the stack of the worker")
        assert {child.pid for child in psutil.Process(program.pid).children(recursive=True)} >= children
        program.send_signal(signal.SIGTERM)
        assert program.wait() == 0
    assert not program.left_behind


@pytest.mark.parametrize(
    "use",
    [
        "signal.signal(signal.SIGUSR1, lambda number, frame: print('mine', flush=True))",
        "faulthandler.register(signal.SIGUSR1, open('mine', 'w'), chain=False)",
    ],
)
def test_sigusr1_stays_the_programs_own_where_the_program_uses_it(use: str, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(f"import faulthandler, signal\n{use}\n{SAVES}")
    with start_program([*RUN, "app.py"], cwd=tmp_path) as program:
        started(program)
        program.send_signal(signal.SIGUSR1)
        mine = tmp_path / "mine"
        eventually(
            lambda: "mine" in program.stdout or (mine.exists() and mine.read_text()), what="the program's own use"
        )
        assert "most recent call" not in program.stderr
        program.send_signal(signal.SIGTERM)
        assert program.wait() == 0


def test_only_run_handles_signals_and_only_while_it_runs(tmp_path: Path) -> None:
    program = """
import signal
from suitkaise import Process, Supervisor
from suitkaise.platform.processes import has_default_action

class Ends(Process):
    restart = "transient"
    significant = True
    def loop(self):
        self.rejoin()

def state():
    numbers = signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1
    return [(signal.getsignal(number), has_default_action(number)) for number in numbers]

before = state()
tree = Supervisor("app", Ends, auto_shutdown="any_significant")
with tree.start() as running:
    print(state() == before)
tree.run()
print(state() == before)
"""
    assert run_program(program).check().stdout == "True\nTrue\n"


SIXTEEN = """
from suitkaise import Child, Process, Supervisor

class Finishes(Process):
    def on_receive(self, message): ...
    def on_finish(self):
        print("finished", flush=True)

tree = Supervisor("app", Child(Finishes, copies=16))
"""
ALL_KINDS = """
import time
from suitkaise import Child, Command, Process, Supervisor, Thread

class Stores(Process):
    def on_start(self):
        self.tree.increment("started", path="count")
    def loop(self):
        self.wait(60)
    def on_finish(self):
        print("finished", self.tree.increment("finished", path="count") is not None, flush=True)

class Slow(Process):
    shutdown = "infinity"
    def loop(self):
        self.wait(60)
    def on_finish(self):
        time.sleep(0.5)  # those that are stopped after it are long gone then

class Waits(Thread):
    def loop(self):
        self.wait(60)

def shell(name, script):
    return Child(Command("bash", "-c", script, ready="up", name=name))

waits = "echo up; while :; do sleep 0.05; done"
tree = Supervisor(
    "app",
    Supervisor("inner", Supervisor("deep", Child(Stores, copies=4)), Child(Command("sleep", "600"))),
    Child(Command("sleep", "600")),
    shell("exits-with-0", f"trap 'exit 0' TERM; {waits}"),
    shell("exits-with-143", f"trap 'exit 143' TERM; {waits}"),
    Waits,
    Slow,
)
"""


def to_the_group(hub: int) -> None:
    os.killpg(hub, signal.SIGTERM)


def to_each_process(hub: int) -> None:
    """Do as systemd does with all processes of a unit."""
    for pid in [hub, *(child.pid for child in psutil.Process(hub).children(recursive=True))]:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)


@pytest.mark.parametrize("send", [to_the_group, to_each_process])
@pytest.mark.parametrize("tree, finished", [(SIXTEEN, 16), (ALL_KINDS, 4)], ids=["sixteen", "all kinds"])
def test_s69_sigterm_to_all_processes_is_a_stop_and_no_crash(
    tree: str, finished: int, send: Callable[[int], None], tmp_path: Path
) -> None:
    (tmp_path / "app.py").write_text(tree)
    reports = tmp_path / "state"
    with start_program([*RUN, "--json", "app.py"], cwd=tmp_path, env={"XDG_STATE_HOME": str(reports)}) as program:
        eventually(lambda: '"supervisor_started", "path": "app"' in program.stderr, what="the tree is up")
        send(program.pid)
        assert program.wait() == 0
    told = [json.loads(line) for line in program.stderr.splitlines()]
    assert {line["event"] for line in told} & {"child_exited", "child_stop_error", "child_restarting"} == set()
    assert program.stdout.count("finished") == finished
    assert not list(reports.rglob("*.json"))
    assert not program.left_behind
