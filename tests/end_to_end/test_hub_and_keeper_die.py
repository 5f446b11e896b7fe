"""Workers after the keeper has been killed or does not answer, and after the hub has been killed."""

import os
import signal
import sys
import threading
import time

import psutil
import pytest

from suitkaise import Child, Killed, Lost, Normal, Shutdown, Signaled, Supervisor
from suitkaise.events import ChildExited
from tests.end_to_end.kinds import keeper_pid, kill_the_keeper, next_event
from tests.end_to_end.scene import KINDS, OBEDIENT, directories_of, scene, stop, up
from tests.end_to_end.test_children_of_workers import Parent, end
from tests.sample_workers import Echo
from tests.support import eventually, is_alive, no_thread_is_left, run_program, wait_gone


def kill_and_await_restart(ref) -> None:
    incarnation = ref.incarnation
    ref.kill()
    eventually(lambda: ref.incarnation > incarnation)
    assert ref.ask("back?") == "back?"


@pytest.mark.parametrize("kind", KINDS)
def test_a_worker_outlives_the_keeper_and_ends_with_the_hub(kind):
    with scene("wait", [kind, "waits"] if kind != "waits" else ["waits"]) as it:
        os.kill(it.keeper, signal.SIGKILL)
        wait_gone(it.keeper)
        os.kill(it.workers["waits"], signal.SIGKILL)  # its restart needs the new keeper
        it.workers["waits"], it.keeper = up(it.program, "waits", after=1)
        if kind != "waits":
            os.kill(it.workers[kind], 0)  # it still runs
        it.program.send_signal(signal.SIGKILL)
        it.all_gone()
        assert it.finished(kind) or kind not in OBEDIENT


def test_a_worker_is_restarted_also_when_its_keeper_was_killed_before():
    with Supervisor("tree", Child(Echo)).start() as running, running.events() as events:
        pid = running["echo"].pid
        kill_the_keeper()
        assert running["echo"].pid == pid
        assert running["echo"].ask("still there?") == "still there?"
        os.kill(pid, signal.SIGKILL)
        assert next_event(events, ChildExited).reason == Lost("its exit status: the keeper was killed")
        assert running["echo"].ask("and back?") == "and back?"
        assert running["echo"].pid != pid


def test_where_no_thread_is_left_a_worker_whose_keeper_was_killed_is_restarted_and_a_tree_stops(monkeypatch):
    start = threading.Thread.start

    def refuse(self):
        if self.name in ("suitkaise-clean-up", "suitkaise-leave"):
            no_thread_is_left(self)
        start(self)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    running = Supervisor("tree", Child(Echo)).start()
    pid = running["echo"].pid
    kill_the_keeper()
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: running["echo"].pid not in (pid, None))
    assert running["echo"].ask("and back?") == "and back?"
    assert running.stop(timeout=20) == Shutdown("stop")


def test_exit_reasons_that_the_worker_or_the_hub_has_given_are_known_without_its_keeper():
    tree = Supervisor("tree", Child(Echo, id="a", restart="temporary"), Child(Echo, id="b"), Child(Echo, id="c"))
    with tree.start() as running, running.events() as events:
        kill_the_keeper()
        a, b = running["a"], running["b"]
        a.tell("leave")
        assert next_event(events, ChildExited).reason == Normal()
        b.kill()
        assert next_event(events, ChildExited).reason == Killed("ref.kill()")
        os.kill(running["c"].pid, signal.SIGTERM)
        assert next_event(events, ChildExited).reason == Signaled(15)


def test_the_exit_status_of_a_worker_of_the_new_keeper_is_known():
    with Supervisor("tree", Child(Echo), max_restarts=9).start() as running, running.events() as events:
        kill_the_keeper()
        kill_and_await_restart(running["echo"])
        next_event(events, ChildExited)
        os.kill(running["echo"].pid, signal.SIGKILL)
        assert next_event(events, ChildExited).reason == Signaled(9)


def test_the_tree_survives_five_kills_of_the_keeper():
    with Supervisor("tree", *(Child(Echo, id=f"e{n}") for n in range(3)), max_restarts=99).start() as running:
        for round in range(5):
            kill_the_keeper()
            kill_and_await_restart(running[f"e{round % 3}"])
        assert all(running[f"e{n}"].ask(n) == n for n in range(3))
        assert running.stop().clean


def test_workers_start_although_the_keeper_is_killed_meanwhile():
    with Supervisor("tree", max_restarts=0).start() as running:
        os.kill(keeper_pid(), signal.SIGKILL)
        refs = [running.start_child(Child(Echo, id=f"e{n}")) for n in range(4)]
        assert [ref.ask(n) for n, ref in enumerate(refs)] == [0, 1, 2, 3]
        assert running.count_children().active == 4


def test_a_stopped_keeper_is_replaced_when_a_start_is_needed(monkeypatch):
    monkeypatch.setattr("suitkaise.engines.keeper_liveness.PATIENCE", 0.5)
    with Supervisor("tree", Child(Echo)).start() as running:
        old = keeper_pid()
        stop(old)
        ref = running.start_child(Child(Echo, id="second"))
        assert ref.ask("hello") == "hello"
        wait_gone(old)


def test_a_stopped_keeper_is_replaced_when_a_worker_was_killed(monkeypatch):
    monkeypatch.setattr("suitkaise.engines.keeper_liveness.PATIENCE", 0.5)
    with Supervisor("tree", Child(Echo)).start() as running, running.events() as events:
        old, pid = keeper_pid(), running["echo"].pid
        stop(old)
        os.kill(pid, signal.SIGKILL)
        assert isinstance(next_event(events, ChildExited).reason, Lost)
        assert running["echo"].ask("back?") == "back?"
        wait_gone(old)


def test_a_process_that_was_stopped_before_it_has_announced_itself_ends_with_its_keeper(monkeypatch):
    monkeypatch.setattr("suitkaise.engines.keeper_liveness.PATIENCE", 0.5)
    with Supervisor("tree", Child(Echo)).start() as running:
        old, worker = keeper_pid(), running["echo"].pid

        def in_reserve():
            return {child.pid for child in psutil.Process(old).children()} - {worker}

        stopped = eventually(in_reserve, what="a process in reserve").pop()
        stop(stopped)
        os.kill(worker, signal.SIGKILL)
        eventually(lambda: keeper_pid() != old, what="the keeper is replaced")
        wait_gone(stopped)
        assert running["echo"].ask("back?") == "back?"


def test_a_tree_can_be_stopped_while_the_keeper_is_stopped(monkeypatch):
    monkeypatch.setattr("suitkaise.engines.keeper_liveness.PATIENCE", 0.5)
    running = Supervisor("tree", Child(Echo)).start()
    old = keeper_pid()
    stop(old)
    assert running.stop(timeout=10) == Shutdown("stop")
    wait_gone(old)


BUSY = """
import os, time

def busy():
    end = time.monotonic() + 1.0
    while time.monotonic() < end:
        pass

os.register_at_fork(before=busy)
"""

HAS_A_BUSY_KEEPER = """
from suitkaise import Child, Process, Supervisor, preload
from suitkaise.engines import keeper_liveness
from suitkaise.runtime import runtime

keeper_liveness.PATIENCE = 0.3


class Echo(Process):
    def on_receive(self, message):
        return message


if __name__ == "__main__":
    preload("busy")
    with Supervisor("tree").start() as running:
        keeper = runtime.current().processes.keeper.pid
        for number in range(3):
            running.start_child(Child(Echo, id=f"e{number}"))
        print(runtime.current().processes.keeper.pid == keeper)
"""


def test_a_busy_keeper_is_not_taken_for_a_stopped_one(tmp_path):
    (tmp_path / "busy.py").write_text(BUSY)
    (tmp_path / "program.py").write_text(HAS_A_BUSY_KEEPER)
    assert run_program([sys.executable, "program.py"], cwd=tmp_path).check().stdout == "True\n"


def test_a_stopped_keeper_does_not_keep_workers_alive_when_the_hub_is_killed():
    with scene("wait", ["loops", "sleeps"]) as it:
        stop(it.keeper)
        it.program.send_signal(signal.SIGKILL)
        for pid in it.workers.values():
            wait_gone(pid, 3.0)
        assert it.finished("loops")
        os.kill(it.keeper, signal.SIGCONT)
        it.all_gone()


def test_workers_with_more_time_are_killed_after_five_seconds_when_the_hub_is_gone():
    with scene("wait", ["loops", "sleeps"], "--shutdown", "infinity") as it:
        killed_at = time.monotonic()
        it.program.send_signal(signal.SIGKILL)
        wait_gone(it.workers["loops"])
        wait_gone(it.workers["sleeps"])
        assert time.monotonic() - killed_at > 4.9
        it.all_gone()


def test_a_brutal_kill_child_is_killed_at_once_when_the_hub_is_gone():
    with scene("wait", ["loops", "sleeps"], "--shutdown", "brutal_kill") as it:
        it.program.send_signal(signal.SIGKILL)
        it.all_gone(within=4.0)  # other workers have five seconds


def test_sigkill_of_everything_leaves_a_directory_that_the_next_program_removes():
    with scene("wait", ["stopped"]) as it:
        stop(it.hub)
        for pid in (it.keeper, it.workers["stopped"], it.hub):
            os.kill(pid, signal.SIGKILL)
            wait_gone(pid)
        [left] = it.directories()
        run_program("from suitkaise import Supervisor\nwith Supervisor('tree').start(): pass\n").check()
        assert not left.exists()


def test_a_worker_that_is_killed_is_restarted():
    with scene("wait", list(KINDS)) as it:
        for kind in KINDS[:3]:
            os.kill(it.workers[kind], signal.SIGKILL)
            it.workers[kind], _ = up(it.program, kind, after=1)
        it.program.send_signal(signal.SIGKILL)
        it.all_gone()
        eventually(lambda: not directories_of(it.hub))


def test_s73_nothing_of_a_worker_is_left_although_the_keeper_was_killed():
    with Supervisor("tree", Child(Parent, id="parent", receive_timeout=20.0)).start() as running:
        pids = [running["parent"].ask(way) for way in ("plain", "daemon", "without_environment")]
        kill_the_keeper()
        end(running, "killed")
        assert not [pid for pid in pids if is_alive(pid)]  # without their keeper, init reaps them
