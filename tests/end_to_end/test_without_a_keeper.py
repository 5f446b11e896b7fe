"""A keeper was killed, and for a while no new one can be started for want of processes or file descriptors."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
from typing import Any

import psutil
import pytest

from suitkaise import Backoff, Child, ChildStartFailed, Lost, Supervisor
from suitkaise.engines import keeper_client, keeper_process
from suitkaise.runtime import runtime
from tests.end_to_end.kinds import keeper_pid, kill_the_keeper, next_exit
from tests.sample_workers import Echo
from tests.support import descriptors_of, eventually, in_background, run_program, send_signal

RealPopen = subprocess.Popen
PIDFD = "anon_inode:[pidfd]"


class Full:
    """A system that refuses to start a process while it is `full`.

    It counts the refusals, and the descriptors that this process has at each of them.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.full = True
        self.refused = 0
        self.descriptors: list[int] = []
        monkeypatch.setattr(subprocess, "Popen", self.start)

    def start(self, *args: Any, **options: Any) -> Any:
        if self.full:
            self.descriptors.append(psutil.Process().num_fds())
            self.refused += 1
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return RealPopen(*args, **options)


def keeper_log(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "suitkaise.keeper"]


def test_while_there_is_no_keeper_a_start_fails_at_once_and_ends_are_noticed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tree = Supervisor("app", Child(Echo, id="a"), Child(Echo, id="b", restart="temporary"), max_restarts=0)
    with tree.start() as running, running.events() as events:
        system = Full(monkeypatch)
        kill_the_keeper()
        assert running["a"].ask("still there?") == "still there?"
        running["b"].tell("crash")
        assert "it was asked to crash" in str(next_exit(events))
        with pytest.raises(ChildStartFailed, match=r"no keeper: \[Errno 11\]"):
            running.start_child(Child(Echo, id="c"))
        system.full = False
        assert running.start_child(Child(Echo, id="d")).ask("hello") == "hello"
        eventually(lambda: len(keeper_log(caplog)) == 2)
    lost, back = keeper_log(caplog)
    assert "no process can be started" in lost
    assert "the keeper is back" in back
    assert "[Errno 11] Resource temporarily unavailable" in lost


def test_a_worker_that_dies_while_there_is_no_keeper_is_restarted_by_its_backoff_once_there_is_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    child = Child(Echo, id="a", backoff=Backoff(0.05, maximum=0.1))
    with Supervisor("app", child, max_restarts=10_000).start() as running, running.events() as events:
        system = Full(monkeypatch)
        kill_the_keeper()
        send_signal(running["a"], signal.SIGKILL)
        assert next_exit(events) == Lost("its exit status: the keeper was killed")
        eventually(lambda: system.refused > 2)
        system.full = False
        assert running["a"].ask("back?") == "back?"


def test_a_killed_keeper_is_replaced_after_attempts_with_growing_pauses(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pauses: list[float] = []
    with Supervisor("app", Child(Echo)).start() as running:
        system = Full(monkeypatch)
        kill_the_keeper()
        now = runtime.current()
        assert now is not None
        old = keeper_pid()
        for _ in range(3):
            pauses.append(now.processes.keeper._pause)
            eventually(lambda: now.processes.keeper._pause > pauses[-1])
        system.full = False
        eventually(lambda: keeper_pid() != old, timeout=10)
        eventually(lambda: len(keeper_log(caplog)) == 2)
        assert pauses == [0.2, 0.4, 0.8]
        assert now.processes.keeper._pause == 0.1
        with running.events() as events:  # the new keeper has a list of the workers that the old one has forked
            send_signal(running["echo"], signal.SIGKILL)
            assert isinstance(next_exit(events), Lost)
        assert running["echo"].ask("back?") == "back?"


def test_a_pending_start_fails_when_the_killed_keeper_cannot_be_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    with Supervisor("app", max_restarts=0).start() as running:
        os.kill(keeper_pid(), signal.SIGSTOP)
        now = runtime.current()
        assert now is not None
        system = Full(monkeypatch)
        started = in_background(lambda: running.start_child(Child(Echo)))
        eventually(lambda: now.processes.keeper._requests)
        os.kill(keeper_pid(), signal.SIGKILL)
        error = started.exception(5)
        assert isinstance(error, ChildStartFailed)
        assert "no keeper: [Errno 11]" in str(error)
        system.full = False
        assert running.start_child(Child(Echo, id="next")).ask("hello") == "hello"


def test_a_failed_start_of_the_keeper_leaves_no_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    with Supervisor("app", Child(Echo)).start():
        system = Full(monkeypatch)
        kill_the_keeper()
        eventually(lambda: system.refused >= 4)
        eventually(lambda: system.descriptors[-1] <= system.descriptors[0])


def test_a_tree_can_be_stopped_while_there_is_no_keeper(monkeypatch: pytest.MonkeyPatch) -> None:
    running = Supervisor("app", Child(Echo)).start()
    Full(monkeypatch)
    kill_the_keeper()
    assert running.stop(timeout=10).clean


def test_a_keeper_that_ends_again_and_again_is_not_replaced_for_a_while(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with Supervisor("app", Child(Echo), max_restarts=0).start() as running:
        with monkeypatch.context() as broken:
            broken.setattr(keeper_process, "_PROGRAM", "raise SystemExit(3)")
            kill_the_keeper()
            eventually(lambda: keeper_log(caplog), timeout=10)
            with pytest.raises(ChildStartFailed, match="ended in a row, the last one with code 3"):
                running.start_child(Child(Echo, id="early"))
        assert running.start_child(Child(Echo, id="late")).ask("hello") == "hello"
        eventually(lambda: len(keeper_log(caplog)) == 2)
    assert "ended in a row, the last one with code 3" in keeper_log(caplog)[0]


def test_a_new_keeper_gets_the_list_of_all_living_workers_however_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper_client, "MAX_DESCRIPTORS", 2)
    with Supervisor("app", Child(Echo, copies=5)).start():
        kill_the_keeper()
        eventually(lambda: descriptors_of(keeper_pid()).count(PIDFD) == 5)


PROGRAM = """
import logging, os, resource, signal, sys, threading
from suitkaise import Backoff, Child, Process, Supervisor
from suitkaise.events import ChildStarted, KeeperLost
from suitkaise.runtime import runtime

logging.basicConfig(stream=sys.stdout, format="%(name)s %(message)s")

class Echo(Process):
    def on_receive(self, message):
        return message

def keeper():
    return runtime.current().processes.keeper.pid

def limit(number):
    resource.setrlimit(resource.RLIMIT_NOFILE, (number, before[1]))

def main():
    child = Child(Echo, id="a", backoff=Backoff(0.05, maximum=0.1))
    with Supervisor("app", child, Child(Echo, id="b"), max_restarts=10_000).start() as running:
        running["b"].ask("up")
        events, keepers = running.events(), runtime.current().bus.events("keeper")
        os.listdir("/proc/self/fd")
        limit(max(map(int, os.listdir("/proc/self/fd"))))  # one is left: that of the listing is free again
        os.kill(keeper(), signal.SIGKILL)
        assert isinstance(keepers.get(10), KeeperLost)
        assert running["b"].ask("hello") == "hello"
        os.kill(running["a"].pid, signal.SIGKILL)
        reasons = []
        while len(reasons) < 4:
            event = events.get(10)
            if "fail" in type(event).__name__.lower():
                reasons.append(str(event.reason))
        print(reasons[-1])
        limit(before[0])
        while not isinstance(events.get(40), ChildStarted):
            pass
        print(running["a"].ask("a is back"))

before = resource.getrlimit(resource.RLIMIT_NOFILE)
if __name__ == "__main__":
    main()
"""


def test_a_program_without_file_descriptors_loses_its_keeper_and_recovers() -> None:
    out = run_program(PROGRAM, timeout=60).check().stdout
    assert "a is back" in out
    assert out.count("suitkaise.keeper no process can be started") == 1
    assert "there is no keeper: [Errno 24] Too many open files" in out
    assert "internal error" not in out
