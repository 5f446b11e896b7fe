"""A worker that dies or hangs costs nobody but its own task."""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from suitkaise import Hung, Signaled, SupervisorRef, WorkerFailed, whereis
from suitkaise.pools import ProcessPool, TaskFailed, TaskTimeout, ThreadPool, lines, scheduler
from tests.pools import tasks
from tests.support import eventually, wait_gone


@pytest.mark.parametrize("fault", tasks.FAULTS, ids=lambda fault: fault.__name__)
def test_a_task_that_ends_every_worker_fails_alone_and_is_named(pool: ProcessPool, fault: Callable[[], None]) -> None:
    before = pool.submit(pow, 2, 3)
    fatal = pool.submit(fault)
    after = [pool.submit(pow, 2, n) for n in range(20)]
    with pytest.raises(TaskFailed, match=fault.__name__) as caught:
        fatal.result(30)
    assert caught.value.attempts == 3
    assert caught.value.function == fault.__name__
    assert isinstance(caught.value, WorkerFailed)
    assert before.result(30) == 8
    assert [future.result(30) for future in after] == [2**n for n in range(20)]
    assert pool.submit(pow, 3, 3).result(30) == 27


def test_a_sigkill_from_outside_is_told_with_the_suspicion_of_missing_memory(pool: ProcessPool, tmp_path: Path) -> None:
    ran = str(tmp_path / "ran")
    with pytest.raises(TaskFailed, match=r"SIGKILL.*out of memory") as caught:
        pool.options(retries=0).submit(tasks.die_once, ran).result(30)
    assert caught.value.reasons == (Signaled(9),)
    assert len(Path(ran).read_text().splitlines()) == 1


def test_a_task_whose_worker_is_killed_is_tried_again_in_another_worker(pool: ProcessPool, tmp_path: Path) -> None:
    ran = str(tmp_path / "ran")
    assert pool.submit(tasks.die_twice_then, ran, "done").result(30) == "done"
    assert len(set(Path(ran).read_text().split())) == 3


def test_a_task_that_raises_is_not_tried_again(pool: ProcessPool, tmp_path: Path) -> None:
    ran = str(tmp_path / "ran")

    def task() -> None:
        tasks.append_pid(ran)
        tasks.fail("on purpose")

    with pytest.raises(ValueError, match="on purpose") as caught:
        pool.submit(task).result(30)
    assert len(Path(ran).read_text().split()) == 1
    assert "remote traceback" in "".join(caught.value.__notes__)


def test_tasks_that_wait_in_a_worker_that_dies_are_not_counted_as_tried(
    one_runtime_for_all: None, tmp_path: Path
) -> None:
    go, ran = str(tmp_path / "go"), str(tmp_path / "ran")

    def die() -> None:
        tasks.wait_for(go)
        os._exit(1)

    with ProcessPool(1, retries=0) as pool:
        pool.submit(os.getpid).result(30)
        fatal = pool.submit(die)
        waiting = [pool.submit(tasks.append_pid, ran) for _ in range(30)]
        Path(go).touch()
        with pytest.raises(TaskFailed):
            fatal.result(30)
        for future in waiting:
            future.result(30)
    assert len(Path(ran).read_text().split()) == 30


def test_the_items_of_a_chunk_beside_a_fatal_one_get_their_results(pool: ProcessPool) -> None:
    results = pool.map(tasks.die_at, range(100), [50] * 100, chunksize=20)
    assert [next(results) for _ in range(50)] == [2 * n for n in range(50)]
    with pytest.raises(TaskFailed, match="die_at"):
        next(results)
    others = pool.imap(tasks.die_at, range(51, 100), [50] * 49, chunksize=20)
    assert list(others) == [2 * n for n in range(51, 100)]


def test_a_task_that_takes_too_long_is_killed_and_tried_again(pool: ProcessPool, tmp_path: Path) -> None:
    once = str(tmp_path / "once")
    assert pool.options(timeout=0.5).submit(tasks.hang_once, once, 5).result(30) == 5


def test_a_task_that_hangs_always_fails_with_the_time_and_the_stack(pool: ProcessPool, tmp_path: Path) -> None:
    never = str(tmp_path / "never")
    beside = pool.submit(pow, 2, 2)
    with pytest.raises(TaskTimeout, match=r"wait_for.*timeout of 0\.3 s") as caught:
        pool.options(timeout=0.3, retries=1).submit(tasks.wait_for, never).result(30)
    assert isinstance(caught.value, TimeoutError)
    assert caught.value.attempts == 2
    assert isinstance(caught.value.reason, Hung)
    assert "wait_for" in caught.value.traceback
    assert beside.result(30) == 4


def test_a_task_that_waits_behind_one_that_takes_too_long_and_ends_after_all_does_not_die_with_it(
    one_runtime_for_all: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go, ran, kill = tmp_path / "go", tmp_path / "ran", lines.PoolWorker.kill

    def kill_when_it_has_answered(worker: lines.PoolWorker, hung: Hung) -> None:
        assert isinstance(worker, lines.ProcessWorker)
        go.touch()
        select.select([worker.channel], [], [], 30)
        kill(worker, hung)

    monkeypatch.setattr(lines.PoolWorker, "kill", kill_when_it_has_answered)
    with ProcessPool(1, retries=0) as pool:
        pool.submit(os.getpid).result(30)
        late = pool.options(timeout=0.3).submit(tasks.wait_for, str(go))
        others = [pool.submit(tasks.append_pid, str(ran)), pool.submit(time.sleep, 0.5)]
        assert late.result(30) == str(go)
        assert [other.result(30) for other in others] == [None, None]
    assert len(ran.read_text().split()) == 1


def test_the_time_of_a_task_begins_when_it_begins(one_runtime_for_all: None) -> None:
    with ProcessPool(1, initializer=time.sleep, initargs=(1.5,), timeout=1.2) as pool:
        futures = [pool.submit(time.sleep, 0.3) for _ in range(5)]
        assert [future.result(30) for future in futures] == [None] * 5


def test_a_hanging_thread_is_abandoned_and_its_task_fails_without_being_tried_again(
    threads: ThreadPool, tmp_path: Path
) -> None:
    go, ran = threading.Event(), []

    def hang() -> None:
        ran.append(1)
        go.wait()

    try:
        with pytest.raises(TaskTimeout):
            threads.options(timeout=0.2).submit(hang).result(30)
        assert list(threads.map(abs, range(-5, 0))) == [5, 4, 3, 2, 1]
        assert ran == [1]
    finally:
        go.set()


def test_a_worker_that_is_killed_while_idle_costs_no_task(pool: ProcessPool) -> None:
    for _ in range(3):
        pid = pool.submit(os.getpid).result(30)
        os.kill(pid, signal.SIGKILL)
        wait_gone(pid)
        assert pool.options(retries=1).submit(pow, 2, 2).result(30) == 4


def test_workers_are_children_of_a_supervisor_and_leave_crash_reports(pool: ProcessPool) -> None:
    pid = pool.submit(os.getpid).result(30)
    supervisor = whereis(pool.name)
    assert isinstance(supervisor, SupervisorRef)
    (line,) = supervisor.which_children()
    assert line.ref.pid == pid
    with pytest.raises(TaskFailed):
        pool.submit(os._exit, 7).result(30)
    running = pool._scheduler._running
    assert running is not None
    eventually(lambda: [report.reason for report in running.crashes()] == ["exit code 7"] * 3)


def test_a_worker_that_is_asked_to_finish_is_replaced(pool: ProcessPool) -> None:
    first = pool.submit(os.getpid).result(30)
    whereis(f"{pool.name}/worker-1").rejoin()
    wait_gone(first)
    assert pool.submit(os.getpid).result(30) != first


def test_sys_exit_and_ctrl_c_fail_the_future_and_not_the_worker(pool: ProcessPool) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    def leave() -> None:
        raise SystemExit(3)

    pid = pool.submit(os.getpid).result(30)
    with pytest.raises(KeyboardInterrupt):
        pool.submit(interrupt).result(30)
    with pytest.raises(SystemExit):
        pool.submit(leave).result(30)
    assert pool.submit(os.getpid).result(30) == pid


def test_a_fork_of_a_task_sends_no_second_answer(pool: ProcessPool) -> None:
    for _ in range(5):
        assert pool.submit(_fork_and_return).result(30) is True
    assert pool.submit(pow, 2, 2).result(30) == 4


def _fork_and_return() -> bool:
    return os.fork() > 0


def test_a_pool_goes_on_when_a_worker_is_killed_at_every_hundredth_task(pool: ProcessPool) -> None:
    for number in range(300):
        pid = pool.submit(os.getpid).result(30)
        if number % 100 == 99:
            os.kill(pid, signal.SIGKILL)
    assert pool.submit(pow, 2, 2).result(30) == 4


@pytest.mark.parametrize("kind", [ProcessPool, ThreadPool])
def test_a_pool_gets_its_workers_when_they_can_be_started_again(
    kind: type[ProcessPool] | type[ThreadPool],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    one_runtime_for_all: None,
) -> None:
    monkeypatch.setattr(scheduler, "START_AGAIN", 0.05)
    refuse, go_on = tmp_path / "refuse", str(tmp_path / "go on")
    began = [str(tmp_path / f"began {number}") for number in range(2)]
    with kind(2, initializer=tasks.fail_while, initargs=(str(refuse),)) as pool:
        first = pool.submit(tasks.note_and_wait_for, began[0], go_on)
        eventually(lambda: os.path.exists(began[0]))
        refuse.touch()
        second = pool.submit(tasks.note_and_wait_for, began[1], go_on)
        try:
            eventually(lambda: pool._scheduler._failed == scheduler.FAILED_STARTS)
            refuse.unlink()
            eventually(lambda: os.path.exists(began[1]), what="the second task runs, although the first goes on")
        finally:
            Path(go_on).touch()
        assert [first.result(30), second.result(30)] == [go_on, go_on]
