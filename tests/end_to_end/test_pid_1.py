"""`suitkaise run` as PID 1 of a container: it reaps all orphans, forwards signals, and ends with the program's code."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.support import Program, eventually, start_program

UNSHARE = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]

pytestmark = pytest.mark.skipif(
    subprocess.run([*UNSHARE, "true"], capture_output=True, check=False).returncode != 0,
    reason="a namespace for pids is not allowed here",
)

LEAVES = """
import os, subprocess
from suitkaise import Process, Supervisor, Thread

class Leaves(Process):
    def on_start(self):
        for _ in range(20):
            subprocess.run(["sh", "-c", "sleep 0.01 &"])
        print("the pid is", os.getpid(), flush=True)

    def on_finish(self):
        print("on_finish", flush=True)

class Asks(Thread):
    restart = "transient"
    def loop(self):
        codes = {subprocess.run(["sh", "-c", "(sleep 0 &); exit 3"]).returncode for _ in range(20)}
        print("codes:", codes, flush=True)
        self.rejoin()

tree = Supervisor("app", Leaves, Asks)
"""


@contextmanager
def run_as_pid_1(folder: Path, source: str, *starter: str) -> Iterator[tuple[Program, psutil.Process]]:
    """Run the program in a namespace of its own; yield it and its PID 1. `starter` is a command that executes it."""
    (folder / "app.py").write_text(source)
    run = [*starter, sys.executable, "-m", "suitkaise", "run", "app.py"]
    with start_program([*UNSHARE, *run], cwd=folder) as program:
        program.expect("the pid is")
        [init] = psutil.Process(program.pid).children()
        yield program, init


def only_child(process: psutil.Process) -> psutil.Process | None:
    children = process.children()
    return children[0] if len(children) == 1 else None


def test_s77_as_pid_1_suitkaise_run_reaps_all_orphans_and_leaves_the_programs_own_children_to_it(
    tmp_path: Path,
) -> None:
    with run_as_pid_1(tmp_path, LEAVES) as (program, init):
        program.expect("codes: {3}")
        eventually(lambda: only_child(init), what="PID 1 has no child but the program")
        init.send_signal(signal.SIGTERM)
        assert program.wait() == 0
        assert "on_finish" in program.stdout
    assert not program.left_behind


def test_s77_pid_1_ends_with_the_exit_code_of_the_program(tmp_path: Path) -> None:
    fails = LEAVES + "class Fails(Process):\n    def loop(self): 1 / 0\ntree = Supervisor('app', Leaves, Fails)\n"
    with run_as_pid_1(tmp_path, fails) as (program, _):
        assert program.wait() == 1


IGNORES = "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"


def test_s77_pid_1_reaps_also_where_it_was_started_with_sigchld_ignored(tmp_path: Path) -> None:
    """Then the kernel would reap the children of PID 1, and PID 1 would wait for ever."""
    with run_as_pid_1(tmp_path, LEAVES, sys.executable, "-c", IGNORES) as (program, init):
        init.send_signal(signal.SIGTERM)
        assert program.wait() == 0
        assert "on_finish" in program.stdout


def test_s77_pid_1_waits_for_the_workers_of_a_program_that_was_killed(tmp_path: Path) -> None:
    with run_as_pid_1(tmp_path, LEAVES) as (program, init):
        hub = eventually(lambda: only_child(init))
        assert hub is not None
        hub.kill()
        assert program.wait() == 128 + signal.SIGKILL
        assert "on_finish" in program.stdout
    assert not program.left_behind


def test_s77_pid_1_forwards_a_second_kind_of_signal_too(tmp_path: Path) -> None:
    hangs = LEAVES.replace('print("on_finish", flush=True)', 'print("hangs", flush=True); import time; time.sleep(600)')
    hangs = hangs.replace("class Leaves(Process):", "class Leaves(Process):\n    shutdown = 'infinity'")
    with run_as_pid_1(tmp_path, hangs) as (program, init):
        init.send_signal(signal.SIGTERM)
        program.expect("hangs")
        init.send_signal(signal.SIGINT)
        assert program.wait() == 128 + signal.SIGINT
