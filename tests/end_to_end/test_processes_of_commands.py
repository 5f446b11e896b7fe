"""All processes of a command: they end with its stop, its incarnation, its keeper and its program."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from suitkaise import (
    Child,
    Command,
    Hung,
    Killed,
    Lost,
    Process,
    Signaled,
    Supervisor,
)
from suitkaise.status import Status
from tests.end_to_end.kinds import kill_the_keeper, next_exit
from tests.end_to_end.test_commands import all_dead, failure, sh
from tests.support import eventually, is_alive, start_program, wait_gone

PROGRAMS = Path(__file__).with_name("programs")
WAYS = ("plain", "session", "daemon", "bare")
MARKED = WAYS[:3]  # these still have the environment that they were given


# ---------------------------------------------------------------- all processes of a command
def test_s77_the_guard_of_a_command_reaps_what_the_command_leaves_behind():
    script = "for n in 1 2 3 4 5 6 7 8 9; do (sleep 0.01 &); done; echo up; exec sleep 1000"
    with Supervisor("tree", sh(script, ready="up")).start() as running:
        guard = psutil.Process(running["it"].pid).parent()
        eventually(lambda: [one.pid for one in guard.children()] == [running["it"].pid], what="nothing else is left")


def test_s77_the_guard_leaves_the_processes_of_a_ready_function_alone(tmp_path):
    codes = []

    def is_ready():
        codes.append(subprocess.run(["sh", "-c", "sleep 0.02; exit 3"], check=False).returncode)
        if len(codes) == 20:
            (tmp_path / "codes").write_text(str(set(codes)))
        return len(codes) == 20

    script = "for n in 1 2 3 4 5 6 7 8 9; do (sleep 0.0$n &); done; exec sleep 1000"
    with Supervisor("tree", sh(script, ready=is_ready)).start():
        assert (tmp_path / "codes").read_text() == "{3}"


def family(file, *options, ways=WAYS, kill_mode="group"):
    return Command(
        sys.executable,
        str(PROGRAMS / "process_family.py"),
        str(file),
        ",".join(ways),
        *options,
        ready="is there",
        kill_mode=kill_mode,
        name="family",
    )


def pids_of_family(file, incarnation=0):
    """Return the pids of one incarnation of the command and of its children (the first one is 0)."""
    lines = [line.split() for line in file.read_text().splitlines()]
    assert not [line for line in lines if line[0] == "overlap"]
    starts = [index for index, line in enumerate(lines) if line[0] == "self"]
    ends = [*starts[1:], len(lines)]
    pids = [int(pid) for _, pid in lines[starts[incarnation] : ends[incarnation]]]
    assert pids
    return pids


def kill_it(running):
    running["family"].kill()


def kill_its_guard(running):
    os.kill(psutil.Process(running["family"].pid).ppid(), signal.SIGKILL)


def kill_the_command(running):
    os.kill(running["family"].pid, signal.SIGKILL)


@pytest.mark.parametrize("shutdown, options", [(0.3, ["--stubborn"]), (5.0, []), ("brutal_kill", [])])
def test_s46_nothing_of_a_command_outlives_its_stop(shutdown, options, tmp_path):
    file = tmp_path / "pids"
    with Supervisor("tree", Child(family(file, *options, ways=WAYS[1:]), shutdown=shutdown)).start() as running:
        pids = pids_of_family(file)
        assert len(pids) == 4
        assert all(map(is_alive, pids))
        running.terminate_child("family")
        assert all_dead(pids)


def test_s46_nothing_of_a_command_outlives_the_tree(tmp_path):
    with Supervisor("tree", Child(family(tmp_path / "pids"), shutdown=0.3)).start():
        pids = pids_of_family(tmp_path / "pids")
    assert len(pids) == 5
    assert all_dead(pids)


@pytest.mark.parametrize("kill, reason", [
    (kill_it, Killed("ref.kill()")), (kill_its_guard, Signaled(9)), (kill_the_command, Signaled(9)),
])  # fmt: skip
def test_s31_all_processes_of_a_command_are_gone_before_its_next_incarnation_starts(kill, reason, tmp_path):
    file = tmp_path / "pids"
    with Supervisor("tree", Child(family(file), shutdown="brutal_kill"), max_restarts=100).start() as running:
        for number in range(3):
            pids = pids_of_family(file, number)
            assert len(pids) == 5
            incarnation = running["family"].incarnation
            with running.events() as events:
                kill(running)
                assert next_exit(events) == reason
            assert all_dead(pids)
            eventually(lambda: running["family"].incarnation > incarnation and running["family"].pid)  # noqa: B023
            eventually(lambda: running["family"].status is Status.RUNNING)


def test_a_hung_start_leaves_nothing(tmp_path):
    command = Command(sys.executable, str(PROGRAMS / "process_family.py"), str(tmp_path / "pids"), ",".join(WAYS),
                      ready="never", name="family")  # fmt: skip
    assert isinstance(failure(command, start_timeout=2.0), Hung)
    pids = pids_of_family(tmp_path / "pids")
    assert len(pids) == 5
    assert all_dead(pids)


@pytest.mark.parametrize("kill_mode, ways", [("mixed", WAYS[1:]), ("group", MARKED[1:])])
def test_a_command_outlives_the_keeper_and_its_stop_ends_all_its_processes(kill_mode, ways, tmp_path):
    """In group mode they get the shutdown time, which they do not use, and only the mark tells then whose they are."""
    it = Child(family(tmp_path / "pids", ways=ways, kill_mode=kill_mode), shutdown=1.0)
    with Supervisor("tree", it).start() as running:
        pids = pids_of_family(tmp_path / "pids")
        kill_the_keeper(for_commands=True)
        assert all(map(is_alive, pids))
        running.terminate_child("family")
        assert all_dead(pids)


@pytest.mark.parametrize("kill, reason", [
    (kill_it, Killed("ref.kill()")), (kill_its_guard, Lost("its exit status: the keeper was killed")),
    (kill_the_command, Signaled(9)),
])  # fmt: skip
def test_s31_all_processes_are_gone_before_the_next_incarnation_also_when_the_keeper_was_killed(kill, reason, tmp_path):
    file = tmp_path / "pids"
    tree = Supervisor("tree", Child(family(file, ways=MARKED), shutdown="brutal_kill"), max_restarts=100)
    with tree.start() as running, running.events() as events:
        pids = pids_of_family(file)
        kill_the_keeper(for_commands=True)
        kill(running)
        assert next_exit(events) == reason
        assert all_dead(pids)
        eventually(lambda: len(pids_of_family(file, -1)) == 4 and pids_of_family(file, -1) != pids)
        eventually(lambda: running["family"].status is Status.RUNNING)


def test_the_daemon_of_a_worker_is_not_killed_with_a_command(tmp_path):
    with Supervisor("tree", Child(Daemonizes, args=(tmp_path / "pid",)), sh("exec sleep 1000")).start() as running:
        pid = int((tmp_path / "pid").read_text())
        running["daemonizes"].kill()
        running["it"].kill()
        eventually(lambda: running.which_children()[1].restarts == 1)
        assert is_alive(pid)
    assert is_alive(pid)
    for number in map(int, (tmp_path / "pid").read_text().split()):
        os.kill(number, signal.SIGKILL)
        wait_gone(number)


class Daemonizes(Process):
    """Starts a daemon that outlives it."""

    keep_children = True

    def __init__(self, file):
        self.file = file

    def on_start(self):
        if os.fork() == 0:
            os.setsid()
            pid = os.fork()
            if pid == 0:
                os.execvp("sleep", ["sleep", "1000"])
            with self.file.open("a") as file:
                file.write(f"{pid}\n")
            os._exit(0)
        os.wait()


# ---------------------------------------------------------------- the end of the program
def family_of(file, *options, ways=WAYS, shutdown=0.3):
    return start_program(PROGRAMS / "process_family_worker.py", str(file), ",".join(ways), str(shutdown), *options)


@pytest.mark.parametrize("options", [(), ("--stubborn",)])
def test_nothing_of_a_command_outlives_the_killed_program(options, tmp_path):
    with family_of(tmp_path / "pids", *options) as program:
        program.expect("up")
        pids = pids_of_family(tmp_path / "pids")
        program.send_signal(signal.SIGKILL)
        for pid in pids:
            wait_gone(pid)
    assert not program.left_behind


def test_nothing_of_a_command_outlives_the_kill_of_the_programs_whole_group(tmp_path):
    with family_of(tmp_path / "pids", "--stubborn") as program:
        program.expect("up")
        pids = pids_of_family(tmp_path / "pids")
        os.killpg(program.pid, signal.SIGKILL)
        for pid in pids:
            wait_gone(pid)
    assert not program.left_behind


@pytest.mark.parametrize("options", [(), ("--stubborn",)])
def test_nothing_of_a_command_outlives_hub_and_keeper_killed_together(options, tmp_path):
    with family_of(tmp_path / "pids", *options) as program:
        program.expect("up")
        keeper = int(program.expect("keeper").split()[1])
        pids = pids_of_family(tmp_path / "pids")
        os.kill(keeper, signal.SIGSTOP)  # a stopped keeper is not replaced before the hub is gone
        program.send_signal(signal.SIGKILL)
        os.kill(keeper, signal.SIGKILL)
        for pid in pids:
            wait_gone(pid)
    assert not program.left_behind


@pytest.mark.parametrize("options", [(), ("--stubborn",)])
def test_nothing_of_a_command_outlives_a_hub_killed_after_its_keeper(options, tmp_path):
    with family_of(tmp_path / "pids", *options, ways=MARKED) as program:
        program.expect("up")
        old = int(program.expect("keeper").split()[1])
        pids = pids_of_family(tmp_path / "pids")
        os.kill(old, signal.SIGKILL)
        eventually(lambda: [p for p in psutil.Process(program.pid).children() if _is_new_keeper(p)], timeout=10)
        program.send_signal(signal.SIGKILL)
        for pid in pids:
            wait_gone(pid)
    assert not program.left_behind


def _is_new_keeper(process):
    with suppress(ProcessLookupError):
        return os.getsid(process.pid) == process.pid
    return False


@pytest.mark.may_leave("directory */suitkaise-*")  # hub and keeper were killed; the next program removes it
def test_a_command_ends_when_hub_keeper_and_guard_are_killed_together(tmp_path):
    with family_of(tmp_path / "pids", ways=WAYS[:1]) as program:
        pid = int(program.expect("up").split()[2])
        keeper = int(program.expect("keeper").split()[1])
        guard = psutil.Process(pid).ppid()
        for one in (keeper, guard):
            os.kill(one, signal.SIGSTOP)
        for one in (program.pid, keeper, guard):
            os.kill(one, signal.SIGKILL)
        wait_gone(pid)
        for one in pids_of_family(tmp_path / "pids"):  # no process is left that could kill them
            if is_alive(one):
                os.kill(one, signal.SIGKILL)
