"""Rule 55: a hung worker is noticed, killed and restarted; and rule 59: a hung thread is abandoned."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from suitkaise import Backoff, Child, ChildStartFailed, Hung, Killed, Shutdown, Supervisor, Thread, WorkerDead
from suitkaise.engines import keeper_liveness
from suitkaise.engines.inspection import stacks_of
from suitkaise.events import ChildExited, ChildStarted, ChildStartFailure, ChildStopError
from suitkaise.platform.board import PID, Phase, Slot
from suitkaise.platform.runtime_directory import stack_file
from suitkaise.runtime.running_tree import RunningTree
from suitkaise.runtime.runtime import current
from tests.end_to_end.kinds import keeper_pid, next_event
from tests.end_to_end.workers_hanging import (
    WAYS,
    Busy,
    FailsOnce,
    HangingProcess,
    HangingThread,
    LeavesSlowly,
    PassesOn,
    StopsWhenUnpickled,
    TakesAnything,
    Waits,
)
from tests.support import ROOT, eventually, start_program, wait_gone

pytestmark = pytest.mark.usefixtures("one_runtime_for_all")

LIMIT = 0.3
START_LIMIT = 3.0  # a start that does not hang may take a while
LIMIT_OF = {
    "before_loop": "before_loop_timeout", "loop": "loop_timeout", "after_loop": "after_loop_timeout",
    "on_receive": "receive_timeout", "on_finish": "finish_timeout", "on_start": "start_timeout",
}  # fmt: skip


def tree(folder: Path, where: str, how: str = "sleeps", kind: Any = HangingProcess, **options: Any) -> Supervisor:
    limits = {LIMIT_OF[where]: START_LIMIT if where == "on_start" else LIMIT}
    return Supervisor("tree", Child(kind, args=(folder, where, how), id="w", **limits, **options), max_restarts=9)


def is_hung(reason: Any, where: str) -> bool:
    return isinstance(reason, Hung) and reason.phase == where and reason.seconds >= LIMIT


def wait_until_it_hangs(folder: Path) -> None:
    eventually(lambda: not (folder / "hang").exists(), what="the worker hangs")


def hang_and_await_restart(running: RunningTree, folder: Path, where: str) -> Hung:
    """Make the worker hang in `where`, wait for its restart in another process, and return its exit reason."""
    with running.events() as events:
        old = running["w"].pid
        (folder / "hang").touch()
        exited = next_event(events, ChildExited)
        assert is_hung(exited.reason, where), exited
        started = next_event(events, ChildStarted)
        assert old is not None
        assert started.pid != old
        wait_gone(old, 0.0)
        assert isinstance(exited.reason, Hung)
        return exited.reason


@pytest.mark.parametrize("how", WAYS)
def test_s55_a_loop_that_hangs_in_any_way_is_killed_and_restarted(tmp_path: Path, how: str) -> None:
    with tree(tmp_path, "loop", how).start() as running:
        hung = hang_and_await_restart(running, tmp_path, "loop")
        assert running["w"].ask("hello") == "hello"
    if how != "is_stopped":
        assert f"in {how}" in hung.stack, hung.stack  # the innermost Python function
        assert "in loop" in hung.stack


@pytest.mark.parametrize("where", ["before_loop", "after_loop"])
def test_s55_the_hooks_around_the_loop_have_limits_too(tmp_path: Path, where: str) -> None:
    with tree(tmp_path, where).start() as running:
        hang_and_await_restart(running, tmp_path, where)


def test_s55_an_ask_whose_handler_hangs_fails_with_the_reason(tmp_path: Path) -> None:
    with tree(tmp_path, "on_receive").start() as running:
        (tmp_path / "hang").touch()
        with pytest.raises(WorkerDead) as caught:
            running["w"].ask("hello", timeout=10)
        assert is_hung(caught.value.reason, "on_receive"), caught.value
        assert running["w"].ask("hello") == "hello"


def test_s55_a_start_that_hangs_is_a_failed_start(tmp_path: Path) -> None:
    (tmp_path / "hang").touch()
    with pytest.raises(ChildStartFailed) as caught:
        tree(tmp_path, "on_start").start()
    assert is_hung(caught.value.reason, "on_start"), caught.value


def test_s55_a_restart_that_hangs_is_tried_again(tmp_path: Path) -> None:
    with tree(tmp_path, "on_start").start() as running:
        old = running["w"].pid
        (tmp_path / "hang").touch()
        running["w"].kill()
        eventually(lambda: running["w"].status == "running" and running["w"].pid not in (old, None))
        assert [line.restarts for line in running.which_children()] == [2]


def test_s55_a_process_that_stops_while_it_boots_is_replaced(tmp_path: Path) -> None:
    child = Child(TakesAnything, args=(StopsWhenUnpickled(tmp_path),), id="w", start_timeout=START_LIMIT)
    with Supervisor("tree", child, max_restarts=9).start() as running, running.events() as events:
        (tmp_path / "hang").touch()
        running["w"].kill()
        assert is_hung(next_event(events, ChildStartFailure).reason, "on_start")
        assert running["w"].ask("hello", timeout=10) == "hello"


@pytest.mark.one_machine("a process of the keeper of this program is stopped")
def test_s55_a_process_that_stops_before_it_has_announced_itself_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper_liveness, "PATIENCE", 60.0)  # else the keeper is replaced, if the looks come too late
    child = Child(TakesAnything, id="w", start_timeout=START_LIMIT)
    with Supervisor("tree", child, max_restarts=9).start() as running, running.events() as events:

        def in_reserve() -> set[int]:
            return {one.pid for one in psutil.Process(keeper_pid()).children()} - {running["w"].pid}

        os.kill(eventually(in_reserve).pop(), signal.SIGSTOP)
        running["w"].kill()
        assert is_hung(next_event(events, ChildStartFailure).reason, "on_start")
        assert running["w"].ask("hello", timeout=10) == "hello"


def test_s55_a_worker_that_does_not_read_a_message_is_replaced() -> None:
    child = Child(TakesAnything, id="w", receive_timeout=LIMIT)
    with Supervisor("tree", child, max_restarts=9).start() as running, running.events() as events:
        pid = running["w"].pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        running["w"].tell("hello")
        assert is_hung(next_event(events, ChildExited).reason, "waiting")
        assert running["w"].ask("hello", timeout=10) == "hello"


@contextlib.contextmanager
def slot_of(pid: int) -> Iterator[Slot]:
    """Return the slot of the status board of the worker in that process."""
    now = current()
    assert now is not None
    slot = next(slot for slot in map(now.engine_context.board.slot, range(100)) if slot.words[PID] == pid)
    try:
        yield slot
    finally:
        slot.release()


@pytest.mark.one_machine("it reads the status board of the program")
@pytest.mark.parametrize("how", ["tell", "ask"])
def test_s55_a_worker_that_does_not_read_a_message_of_another_worker_is_replaced(how: str) -> None:
    child = Child(TakesAnything, id="w", receive_timeout=LIMIT)
    with Supervisor("tree", child, PassesOn, max_restarts=9).start() as running, running.events() as events:
        assert running["passes_on"].ask(("ask", "warm"), timeout=30) == "warm"  # they have a connection from now on
        pid = running["w"].pid
        assert pid is not None
        with slot_of(pid) as slot:
            eventually(lambda: slot.read().phase is Phase.WAITING, what="the worker has nothing to do")
        os.kill(pid, signal.SIGSTOP)
        running["passes_on"].tell((how, "hello"))
        assert is_hung(next_event(events, ChildExited).reason, "waiting")
        assert running["w"].ask("hello", timeout=10) == "hello"


def test_s80_a_recall_whose_start_fails_is_followed_by_a_restart(tmp_path: Path) -> None:
    with Supervisor("tree", Child(FailsOnce, args=(tmp_path,), id="w")).start() as running:
        (tmp_path / "hang").touch()
        with pytest.raises(ChildStartFailed):
            running["w"].recall(timeout=20)
        eventually(lambda: running["w"].status == "running")


def test_s55_a_worker_that_hangs_in_on_finish_is_killed_and_reported(tmp_path: Path) -> None:
    running = tree(tmp_path, "on_finish", shutdown="infinity").start()
    with running.events() as events:
        (tmp_path / "hang").touch()
        assert running.stop(timeout=10) == Shutdown("stop")
        assert is_hung(next_event(events, ChildStopError).reason, "on_finish")


@pytest.mark.parametrize("what", ["an exit handler", "a thread"])
def test_s55_finish_timeout_does_not_limit_exit_handlers_and_threads_after_on_finish(tmp_path: Path, what: str) -> None:
    child = Child(LeavesSlowly, args=(tmp_path, what, 2.5), id="w", finish_timeout=1.0)
    running = Supervisor("tree", child).start()
    assert running.stop(timeout=20) == Shutdown("stop")
    assert (tmp_path / "left").exists()


def test_s55_a_hung_worker_that_is_stopped_is_killed_at_its_shutdown_time_if_that_is_earlier(tmp_path: Path) -> None:
    child = Child(HangingProcess, args=(tmp_path, "loop"), id="w", loop_timeout=60.0, shutdown=0.1)
    running = Supervisor("tree", child).start()
    with running.events() as events:
        (tmp_path / "hang").touch()
        wait_until_it_hangs(tmp_path)
        running.stop(timeout=10)
        assert next_event(events, ChildStopError).reason == Killed("shutdown timeout")


def test_s55_a_worker_that_waits_for_messages_does_not_hang() -> None:
    with Supervisor("tree", Waits, max_restarts=0).start() as running:
        pid = running["waits"].pid
        time.sleep(1.5)  # the point: five times its limits
        assert running["waits"].ask("hello") == "hello"
        assert running["waits"].pid == pid


def test_s55_a_suspended_worker_does_not_hang(tmp_path: Path) -> None:
    with tree(tmp_path, "loop").start() as running:
        pid = running["w"].pid
        running.suspend("w")
        time.sleep(3 * LIMIT)  # the point: far beyond its limit
        running.resume("w")
        assert running["w"].ask("hello") == "hello"
        assert running["w"].pid == pid


def test_s55_a_hang_counts_as_a_restart_and_backs_off_like_a_crash(tmp_path: Path) -> None:
    backoff = Backoff(initial=60.0, jitter=0.0)
    with tree(tmp_path, "loop", backoff=backoff).start() as running:
        (tmp_path / "hang").touch()
        wait_until_it_hangs(tmp_path)
        eventually(lambda: running["w"].status == "restarting", what="the worker waits for its backoff")
        line = running.which_children()[0]
        assert is_hung(line.last_exit, "loop")
        running.terminate_child("w")
        assert running["w"].status == "stopped"


# ------------------------------------------------------------ no false verdicts
PROGRAM = """
import signal
from threading import Event

from suitkaise import Child, Supervisor
from tests.end_to_end.workers_hanging import WORKER

if __name__ == "__main__":
    with Supervisor("tree", Child(WORKER, id="w"), max_restarts=0).start() as running:
        print("up", running["w"].pid, flush=True)
        told = Event()
        signal.signal(signal.SIGUSR2, lambda number, frame: told.set())
        print("waits", flush=True)
        told.wait()  # not `signal.pause()`: the signal may come before it
        print("same", running["w"].pid, flush=True)
"""


def keeps_its_worker(tmp_path: Path, worker: str, *, times: int, stopped: float, going: float) -> bool:
    """Stop a program `times` times for `stopped` seconds; return whether its worker has never been restarted."""
    (tmp_path / "app.py").write_text(PROGRAM.replace("WORKER", worker))
    with start_program(tmp_path / "app.py", env={"PYTHONPATH": str(ROOT)}) as program:
        program.expect("waits", timeout=15)
        rest = threading.Event()
        for _ in range(times):
            os.killpg(program.pid, signal.SIGSTOP)
            rest.wait(stopped)  # the point: longer than the limit
            os.killpg(program.pid, signal.SIGCONT)
            rest.wait(going)
        rest.wait(stopped)  # enough time for a late verdict
        program.send_signal(signal.SIGUSR2)
        assert program.wait() == 0, program.stderr
    words = program.stdout.split()
    return words == ["up", words[1], "waits", "same", words[1]]


def test_s55_a_program_that_was_stopped_and_continued_has_no_hung_workers(tmp_path: Path) -> None:
    assert keeps_its_worker(tmp_path, "Busy", times=2, stopped=2.5, going=0.4)


def test_s55_a_program_that_is_starved_has_no_hung_workers(tmp_path: Path) -> None:
    """The program runs in short slices, as under a CPU quota: a loop that spans a gap takes longer than its limit."""
    assert keeps_its_worker(tmp_path, "Brisk", times=8, stopped=0.6, going=0.1)


def test_s55_a_worker_that_is_slow_but_within_its_limit_is_left_alone() -> None:
    with Supervisor("tree", Busy, max_restarts=0).start() as running:
        pid = running["busy"].pid
        time.sleep(2.0)  # the point: three of its loops
        assert running["busy"].pid == pid


# ------------------------------------------------------------ stacks
def test_s55_a_worker_writes_its_stacks_to_standard_error_at_sigusr1(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(PROGRAM.replace("WORKER", "Busy"))
    with start_program(tmp_path / "app.py", env={"PYTHONPATH": str(ROOT)}) as program:
        program.expect("waits", timeout=15)
        pid = int(program.stdout.split()[1])

        def prints_its_stack() -> bool:
            os.kill(pid, signal.SIGUSR1)  # again, if the first loop had not begun
            return "in loop" in program.stderr

        eventually(prints_its_stack, what="the stack")
        program.send_signal(signal.SIGUSR2)
        assert program.wait() == 0, program.stderr


@pytest.mark.one_machine("the file is looked for in the directory of this program")
def test_s55_no_file_of_a_stack_is_left(tmp_path: Path) -> None:
    with tree(tmp_path, "loop").start() as running:
        files = Path(running._runtime.directory)
        hang_and_await_restart(running, tmp_path, "loop")
        assert [file.name for file in files.glob("stack-*")] == [f"stack-{running['w'].pid}"]


@pytest.mark.one_machine("the file is looked for in the directory of this program")
def test_s55_the_stack_of_a_hang_is_not_behind_stacks_that_observers_have_asked_for(tmp_path: Path) -> None:
    with tree(tmp_path, "loop").start() as running:
        pid = running["w"].pid
        assert pid is not None
        file = Path(stack_file(running._runtime.directory, pid))
        for _ in range(3):
            stacks = stacks_of(str(file), pid)
            assert stacks.startswith("Current thread"), stacks
            assert stacks.count("Current thread") == 1, stacks
        assert not file.stat().st_size
        hung = hang_and_await_restart(running, tmp_path, "loop")
    assert hung.stack.startswith("Current thread"), hung.stack
    assert hung.stack.count("Current thread") == 1, hung.stack


# ------------------------------------------------------------ threads
@pytest.mark.may_leave("thread tree/*")
def test_s55_s59_a_thread_that_hangs_is_abandoned_and_replaced(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    release = threading.Event()

    def hangs_once() -> None:
        if (tmp_path / "hang").exists():
            (tmp_path / "hang").unlink()
            release.wait()
        time.sleep(0.001)

    child = Child(Thread.of(hangs_once), id="w", loop_timeout=LIMIT)
    running = Supervisor("tree", child).start()
    with running.events() as events:
        (tmp_path / "hang").touch()
        exited = next_event(events, ChildExited)
        assert is_hung(exited.reason, "loop"), exited
        assert isinstance(exited.reason, Hung)
        assert "in hangs_once" in exited.reason.stack
        next_event(events, ChildStarted)
    line = running.which_children()[0]
    assert (line.status, line.abandoned, line.restarts) == ("running", 1, 1)
    assert "1 abandoned thread" in str(running.status())
    release.set()
    eventually(lambda: running.which_children()[0].abandoned == 0, what="the abandoned thread ends")
    running.stop(timeout=15)
    assert "has stopped, but leaves" not in caplog.text


@pytest.mark.may_leave("thread tree/*")
def test_s46_s59_stop_names_the_threads_that_it_leaves_behind(caplog: pytest.LogCaptureFixture) -> None:
    release = threading.Event()
    running = Supervisor("tree", Child(Thread.of(release.wait), id="stuck", shutdown=0.05)).start()
    running.stop(timeout=15)
    logged = [record.getMessage() for record in caplog.records if "abandoned thread" in record.getMessage()]
    assert logged == ["'tree' has stopped, but leaves 1 abandoned thread running: tree/stuck"]
    release.set()


@pytest.mark.may_leave("thread tree/*")
def test_s59_a_child_is_listed_as_abandoned_until_its_thread_ends() -> None:
    release = threading.Event()
    with Supervisor("tree", Child(Thread.of(release.wait), id="stuck", shutdown=0.05)).start() as running:
        running.terminate_child("stuck")
        assert running["stuck"].status == "abandoned"
        release.set()
        eventually(lambda: running["stuck"].status == "stopped", what="its thread has ended")


@pytest.mark.may_leave("thread tree/*")
def test_s59_a_thread_whose_start_timed_out_does_not_count_as_started_later() -> None:
    release = threading.Event()

    class Late(Thread):
        def on_start(self) -> None:
            release.wait()

    with Supervisor("tree").start() as running:
        with pytest.raises(ChildStartFailed):
            running.start_child(Child(Late, start_timeout=0.05))
        ref = running["late"]
        assert ref.pid is None
        release.set()
        eventually(lambda: not running._runtime.abandoned(), what="its thread has ended")
        assert ref.pid is None


@pytest.mark.parametrize("where", ["on_start", "before_loop", "after_loop", "on_receive"])
@pytest.mark.may_leave("thread tree/*")
def test_s55_every_phase_of_a_thread_has_its_limit(tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    monkeypatch.setitem(WAYS, "sleeps", release.wait)
    with tree(tmp_path, where, kind=HangingThread).start() as running:
        with running.events() as events:
            (tmp_path / "hang").touch()
            match where:
                case "on_start":
                    running["w"].kill()
                case "on_receive":
                    running["w"].tell("hello")
            kind = ChildStartFailure if where == "on_start" else ChildExited
            assert is_hung(next_event(events, kind).reason, where)
            next_event(events, ChildStarted)
        assert running["w"].ask("hello") == "hello"
        release.set()
        eventually(lambda: running.which_children()[0].abandoned == 0)
