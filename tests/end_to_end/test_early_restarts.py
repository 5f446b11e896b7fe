"""Early restarts: the next incarnation starts while the kernel still frees the memory of the dead one."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from suitkaise import Child, Process, SpecError, Supervisor
from suitkaise.engines.forked_process import ForkedProcess
from suitkaise.events import ChildExited, ChildStarted
from suitkaise.exits import Crashed, ExitCode, ExitReason, Killed, Lost, Normal, Signaled
from suitkaise.platform import death_lock
from suitkaise.runtime import runtime
from suitkaise.runtime.running_tree import RunningTree
from tests.end_to_end.kinds import next_event
from tests.end_to_end.test_spares import keeper, wait_for_spares
from tests.support import eventually, send_signal, wait_gone

pytestmark = pytest.mark.skipif(bool(death_lock.refusal()), reason=death_lock.refusal())


class Fragile(Process):
    """Ends in the way that a message asks for."""

    def on_receive(self, message: Any) -> Any:
        match message:
            case "raise":
                raise ValueError("it was asked to crash")
            case int():
                os._exit(message)
            case "leave":
                self.rejoin()
            case "exec":
                os.execv("/bin/sh", ["sh", "-c", "exit 5"])
            case "child":
                return subprocess.Popen(["sleep", "100"]).pid
            case "memory":
                self.memory = b"x" * (64 << 20)
        return os.getpid()


def tree(**options: Any) -> Supervisor:
    child = Child(Fragile, id="w", **{"spares": 1, "early_restart": True, **options})
    return Supervisor("tree", child, max_restarts=1000)


@pytest.fixture
def running() -> Iterator[RunningTree]:
    with tree().start() as running:
        yield running


@pytest.fixture
def early(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The exit codes of the processes whose end was reported early."""
    codes: list[int] = []
    end_early = ForkedProcess.end_early

    def note(process: ForkedProcess, code: int) -> None:
        codes.append(code)
        end_early(process, code)

    monkeypatch.setattr(ForkedProcess, "end_early", note)
    return codes


def ready(running: RunningTree) -> int:
    """Wait until the worker and a spare of it are there; return the worker's pid."""
    wait_for_spares(1)
    pid = running["w"].ask("pid", timeout=10)
    assert isinstance(pid, int)
    return pid


def end(running: RunningTree, how: Any) -> ExitReason | None:
    """End the worker, by a signal or in the way that a message asks for; return the reason once it is back."""
    pid = running["w"].ask("pid", timeout=10)
    with running.events() as events:
        if isinstance(how, signal.Signals):
            os.kill(pid, how)
        else:
            running["w"].tell(how)
        reason = next_event(events, ChildExited).reason
        next_event(events, ChildStarted)
    assert running["w"].ask("pid", timeout=10) != pid
    return reason


@contextlib.contextmanager
def suspended(keeper: psutil.Process) -> Iterator[None]:
    """Stop the keeper, so that no exit status comes from it."""
    keeper.suspend()
    try:
        yield
    finally:
        keeper.resume()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT])
def test_a_worker_that_a_signal_has_ended_is_restarted_early_for_that_reason(
    number: signal.Signals, running: RunningTree, early: list[int]
) -> None:
    ready(running)
    with suspended(keeper()):
        assert end(running, number) == Signaled(number)
    assert early == [-number]


def test_a_worker_that_has_reported_its_crash_is_restarted_early(running: RunningTree, early: list[int]) -> None:
    ready(running)
    with suspended(keeper()):
        reason = end(running, "raise")
    assert isinstance(reason, Crashed)
    assert "it was asked to crash" in str(reason)
    assert early == [0]


def test_a_restart_waits_for_a_reason_that_is_not_certain(running: RunningTree, early: list[int]) -> None:
    assert end(running, 7) == ExitCode(7)
    assert end(running, "leave") == Normal()
    assert end(running, "exec") == ExitCode(5)
    assert early == []


def test_a_restart_waits_until_nothing_is_left_of_the_worker(
    running: RunningTree, early: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[bool] = []
    leaves_anything = ForkedProcess.leaves_anything

    def look(process: ForkedProcess) -> bool:
        looks.append(leaves_anything(process))
        return looks[-1]

    monkeypatch.setattr(ForkedProcess, "leaves_anything", look)
    ready(running)
    left = running["w"].ask("child", timeout=10)
    with running.events() as events:
        with suspended(keeper()):  # which would end what is left
            send_signal(running["w"], signal.SIGKILL)
            eventually(lambda: looks)
        assert next_event(events, ChildExited).reason == Signaled(signal.SIGKILL)
        next_event(events, ChildStarted)
    wait_gone(left, 0.0)
    assert (looks, early) == ([True], [])


def test_a_worker_that_the_program_has_killed_is_restarted_for_that_reason(
    running: RunningTree, early: list[int]
) -> None:
    ready(running)
    with running.events() as events:
        running["w"].kill()
        assert isinstance(next_event(events, ChildExited).reason, Killed)
        next_event(events, ChildStarted)
    assert early == []


def test_an_early_restart_does_not_wait_for_the_keeper_and_is_counted_once(
    running: RunningTree, early: list[int]
) -> None:
    first = ready(running)
    [before] = [line.restarts for line in running.which_children()]
    with suspended(keeper()):
        assert end(running, signal.SIGKILL) == Signaled(signal.SIGKILL)
        second = running["w"].ask("pid", timeout=10)
        assert os.path.exists(f"/proc/{first}")  # the keeper has not reaped it
    wait_gone(first)
    assert ready(running) == second
    assert [line.restarts for line in running.which_children()] == [before + 1]
    assert early == [-signal.SIGKILL]


def test_the_end_of_a_tree_waits_for_processes_that_were_reported_early(early: list[int]) -> None:
    with tree().start() as running:
        pid = ready(running)
        running["w"].ask("memory", timeout=10)
        with suspended(keeper()):
            os.kill(pid, signal.SIGKILL)
            eventually(lambda: early)
    wait_gone(pid, 0.0)


@pytest.mark.parametrize("killed", ["before", "after"])
def test_the_end_of_the_keeper_does_not_matter_to_an_early_restart(killed: str, early: list[int]) -> None:
    with tree().start() as running:
        first = ready(running)
        old = keeper()
        if killed == "before":
            old.kill()
            await_next_keeper(old.pid)
            reason = end(running, signal.SIGKILL)
            assert reason == Signaled(signal.SIGKILL) or isinstance(reason, Lost)  # if the pidfd tells of the end first
        else:
            old.suspend()
            os.kill(first, signal.SIGKILL)
            eventually(lambda: early)
            old.kill()
            await_next_keeper(old.pid)
        assert ready(running) != first
        assert [line.restarts for line in running.which_children()] == [1]


def await_next_keeper(pid: int) -> None:
    now = runtime.current()
    assert now is not None
    processes = now.processes
    eventually(lambda: processes.keeper.pid != pid)


def test_without_futex_waitv_restarts_wait_for_the_end_of_the_process(
    monkeypatch: pytest.MonkeyPatch, early: list[int]
) -> None:
    monkeypatch.setattr(death_lock, "refusal", lambda: "futex_waitv: Function not implemented")
    with tree().start() as running:
        assert end(running, signal.SIGKILL) == Signaled(signal.SIGKILL)
    assert early == []


def test_an_early_restart_needs_a_spare() -> None:
    with pytest.raises(SpecError, match="early_restart needs spares=1 or more"):
        Child(Fragile, early_restart=True)
    with pytest.raises(SpecError, match="early_restart must be True or False, not 'yes'"):
        Child(Fragile, spares=1, early_restart="yes")  # type: ignore[arg-type]
