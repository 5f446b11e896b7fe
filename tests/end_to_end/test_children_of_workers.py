"""What a worker has started ends with it, whatever way the worker ends and whatever way the process was started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from suitkaise import Child, Process, Supervisor
from tests.support import eventually, kill_and_wait, start_program, wait_gone

pytestmark = pytest.mark.usefixtures("one_runtime_for_all")

IGNORES = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
POLITE = """
import pathlib, signal, sys, time

def finish(*_):
    with open(sys.argv[1], "a") as file:
        file.write("asked\\n")
    sys.exit()

signal.signal(signal.SIGTERM, finish)
print("up", flush=True)
time.sleep(600)
"""


def plain() -> int:
    return subprocess.Popen(["sleep", "600"]).pid


def without_environment() -> int:
    return subprocess.Popen(["/bin/sleep", "600"], env={}).pid


def in_a_session_of_its_own() -> int:
    return subprocess.Popen(["sleep", "600"], start_new_session=True).pid


def daemon() -> int:
    """Start a process whose parent ends at once, in a session of its own, and without environment."""
    text = "setsid /bin/sleep 600 >/dev/null 2>&1 & echo $!"
    shell = subprocess.run(["/bin/sh", "-c", text], env={}, stdout=subprocess.PIPE, check=True)
    return int(shell.stdout)


def by_multiprocessing(context: str, *, is_daemon: bool = False) -> int:
    import multiprocessing

    process = multiprocessing.get_context(context).Process(target=time.sleep, args=(600,), daemon=is_daemon)
    process.start()
    assert process.pid is not None
    return process.pid


def pool() -> int:
    from concurrent.futures import ProcessPoolExecutor

    executor = ProcessPoolExecutor(2)
    KEPT.append(executor)
    return executor.submit(os.getpid).result()


KEPT: list[object] = []

STARTS = {
    "plain": plain,
    "without_environment": without_environment,
    "in_a_session_of_its_own": in_a_session_of_its_own,
    "daemon": daemon,
    "fork": lambda: by_multiprocessing("fork"),
    "daemonic_fork": lambda: by_multiprocessing("fork", is_daemon=True),
    "spawn": lambda: by_multiprocessing("spawn"),
    "forkserver": lambda: by_multiprocessing("forkserver"),
    "pool": pool,
}


class Parent(Process):
    """Starts a process in a way that it is told."""

    def on_receive(self, message):  # noqa: RET503
        match message:
            case "crash":
                raise ValueError("crash")
            case "hang":
                time.sleep(600)
            case "finish":
                self.rejoin()
            case ["run", *argv]:  # a program that prints a line when it is up
                program = subprocess.Popen([sys.executable, "-c", *argv], stdout=subprocess.PIPE)
                program.stdout.readline()
                return program.pid
            case _:
                return STARTS[message]()


class KeepingParent(Parent):
    keep_children = True


def end(running, how: str) -> None:
    parent = running["parent"]
    incarnation = parent.incarnation
    match how:
        case "killed":
            os.kill(parent.pid, signal.SIGKILL)
        case "hangs" | "crashes" | "finishes":
            parent.tell({"hangs": "hang", "crashes": "crash", "finishes": "finish"}[how])
        case "recalled":
            parent.recall()
        case "stopped":
            running.terminate_child("parent")
            return
    eventually(lambda: parent.incarnation > incarnation and parent.status == "running")


@pytest.fixture
def running():
    with Supervisor("tree", Child(Parent, id="parent", receive_timeout=20.0), max_restarts=99).start() as running:
        yield running


@pytest.mark.parametrize("way", STARTS)
@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_s73_what_a_worker_has_started_is_gone_when_the_worker_is(running, way, how):
    pid = running["parent"].ask(way, timeout=30)
    end(running, how)
    assert not psutil.pid_exists(pid)


@pytest.mark.parametrize("how", ["crashes", "finishes", "recalled"])
def test_s73_so_it_is_after_every_other_end(running, how):
    pids = [running["parent"].ask(way, timeout=30) for way in ("plain", "daemon", "daemonic_fork")]
    end(running, how)
    assert not [pid for pid in pids if psutil.pid_exists(pid)]


def test_s73_so_it_is_when_the_worker_hangs():
    tree = Supervisor("tree", Child(Parent, id="parent", receive_timeout=1.0), max_restarts=99)
    with tree.start() as running:
        pids = [running["parent"].ask(way) for way in ("plain", "daemon")]
        end(running, "hangs")
        assert not [pid for pid in pids if psutil.pid_exists(pid)]


def test_s73_a_worker_that_is_restarted_again_and_again_leaves_nothing_behind(running):
    pids = []
    for _ in range(6):
        pids += [running["parent"].ask(way) for way in ("pool", "plain", "daemon")]
        end(running, "killed")
    assert not [pid for pid in pids if psutil.pid_exists(pid)]


def test_s73_a_process_is_asked_to_stop_and_gets_the_time_that_its_worker_has(running, tmp_path):
    notes = tmp_path / "notes"
    running["parent"].ask(["run", POLITE, str(notes)])
    end(running, "stopped")
    assert notes.read_text() == "asked\n"


def test_s73_a_daemon_is_asked_to_stop_as_well(running, tmp_path):
    notes = tmp_path / "notes"
    (tmp_path / "polite.py").write_text(POLITE)
    start = "import subprocess, sys; subprocess.Popen([sys.executable, *sys.argv[1:]], start_new_session=True)"
    running["parent"].ask(["run", start, str(tmp_path / "polite.py"), str(notes)])
    end(running, "stopped")
    assert notes.read_text() == "asked\n"


def test_s73_a_process_that_ignores_the_request_is_killed_when_the_time_is_over():
    with Supervisor("tree", Child(Parent, id="parent", shutdown=0.5)).start() as running:
        pid = running["parent"].ask(["run", IGNORES])
        end(running, "stopped")
        assert not psutil.pid_exists(pid)


def test_s73_a_daemon_of_a_worker_that_runs_is_left_alone_and_reaped(running):
    with Supervisor("other", Child(Parent, id="parent"), max_restarts=99).start() as other:
        daemon = running["parent"].ask("daemon")
        end(other, "killed")
        assert psutil.pid_exists(daemon)
        os.kill(daemon, signal.SIGKILL)
        eventually(lambda: not psutil.pid_exists(daemon), what="the zombie is reaped")
        assert running["parent"].is_alive()


@pytest.mark.parametrize("how", ["killed", "finishes", "stopped"])
def test_s73_keep_children_leaves_them_running(how):
    tree = Supervisor("tree", Child(KeepingParent, id="parent"), max_restarts=99)
    pids = []
    try:
        with tree.start() as running:
            pids += [running["parent"].ask(way) for way in ("plain", "without_environment", "daemon")]
            end(running, how)
            assert all(map(psutil.pid_exists, pids))
        assert all(map(psutil.pid_exists, pids))
    finally:
        kill_and_wait([psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)])


PROGRAM = """
import os, subprocess
from suitkaise import Process, Supervisor

class Parent(Process):
    def on_start(self):
        own = subprocess.Popen(["sleep", "600"])
        shell = subprocess.run(["sh", "-c", "setsid sleep 600 >/dev/null 2>&1 & echo $!"], stdout=subprocess.PIPE)
        print("up", os.getppid(), os.getpid(), own.pid, int(shell.stdout), flush=True)

Supervisor("tree", Parent).run()
"""


@pytest.mark.parametrize("victims", [["hub"], ["keeper", "hub"], ["hub", "keeper"]])
@pytest.mark.may_leave("directory */suitkaise-*")
def test_s73_nothing_outlives_the_program(victims):
    with start_program(PROGRAM) as program:
        _, keeper, *pids = program.expect("up").split()
        for victim in victims:
            os.kill(program.pid if victim == "hub" else int(keeper), signal.SIGKILL)
        for pid in pids:
            wait_gone(int(pid), 10.0)
