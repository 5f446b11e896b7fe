"""The end of a pool: in every state, by every way, and nothing is left."""

from __future__ import annotations

import contextlib
import errno
import functools
import gc
import itertools
import os
import signal
import socket
import sys
import threading
import time
import weakref
from pathlib import Path

import pytest

from suitkaise import Child, ChildNotFound, RuntimeGone, whereis
from suitkaise.pools import Pool, PoolBroken, ProcessPool, TaskFailed, ThreadPool, lines, scheduler
from tests.pools import tasks
from tests.support import eventually, in_background, is_alive, run_program, start_program, wait_gone


def _is_over(name: str) -> bool:
    try:
        whereis(name)
    except ChildNotFound:
        return True
    return False


def test_a_pool_that_was_never_used_has_nothing_to_end(one_runtime_for_all: None) -> None:
    pool = ProcessPool(2)
    pool.shutdown()
    pool.shutdown()
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.submit(pow, 2, 2)


@pytest.mark.parametrize("kind", [ProcessPool, ThreadPool])
def test_a_pool_that_cannot_start_leaves_nothing_behind_and_can_start_later(
    kind: type[Pool], one_runtime_for_all: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with kind(1) as pool:
        with monkeypatch.context() as patch:
            patch.setattr(scheduler, "Reactor", refuse)
            with pytest.raises(OSError, match="Too many open files"):
                pool.submit(abs, -1)
        eventually(lambda: not [thread for thread in threading.enumerate() if pool.name in thread.name])
        assert pool.submit(abs, -1).result(30) == 1


@pytest.mark.parametrize("times", [1, 3])
def test_a_worker_for_which_no_descriptor_is_left_has_failed_to_start(
    times: int, one_runtime_for_all: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, make = itertools.count(1), socket.socketpair

    def refuse(*arguments: int) -> tuple[socket.socket, socket.socket]:
        if next(made) <= times:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return make(*arguments)

    pool = ProcessPool(1)
    monkeypatch.setattr(lines.socket, "socketpair", refuse)
    future = pool.submit(abs, -1)
    if times == 1:
        assert future.result(30) == 1
    else:
        with pytest.raises(PoolBroken, match=r"no worker could be started: .* Too many open files"):
            future.result(30)
    in_background(pool.shutdown).result(30)


class _Large:
    """Stands for arguments that take much memory."""


@pytest.mark.parametrize("kind", [ProcessPool, ThreadPool])
def test_an_ended_pool_lets_go_of_the_arguments_of_its_initializer(kind: type[Pool], one_runtime_for_all: None) -> None:
    large = _Large()
    alive = weakref.ref(large)
    with kind(1, initializer=id, initargs=(large,)) as pool:
        assert pool.submit(abs, -1).result(30) == 1
    del pool, large
    eventually(lambda: (gc.collect(), alive() is None)[1])


def test_a_shutdown_waits_for_all_tasks(either: Pool) -> None:
    futures = [either.submit(time.sleep, 0.01) for _ in range(20)]
    either.shutdown()
    assert all(future.done() for future in futures)
    assert _is_over(either.name)
    with pytest.raises(RuntimeError, match="after shutdown"):
        either.submit(pow, 2, 2)


def test_a_shutdown_without_waiting_lets_the_tasks_finish(either: Pool) -> None:
    futures = [either.submit(time.sleep, 0.01) for _ in range(20)]
    either.shutdown(wait=False)
    for future in futures:
        future.result(30)
    eventually(lambda: _is_over(either.name))


def test_a_shutdown_can_cancel_all_that_has_not_begun(either: Pool, tmp_path: Path) -> None:
    go = str(tmp_path / "go")
    running = [either.submit(tasks.wait_for, go) for _ in range(2)]
    waiting = [either.submit(tasks.wait_for, go) for _ in range(50)]
    eventually(lambda: all(future.running() for future in running))
    either.shutdown(wait=False, cancel_futures=True)
    assert all(future.cancelled() for future in waiting)
    Path(go).touch()
    assert [future.result(30) for future in running] == [go, go]


@pytest.mark.parametrize("method", ["kill_workers", "terminate_workers"])
def test_a_pool_whose_workers_are_killed_ends_at_once(pool: ProcessPool, tmp_path: Path, method: str) -> None:
    never = str(tmp_path / "never")
    running = [pool.submit(tasks.wait_for, never) for _ in range(2)]
    waiting = [pool.submit(tasks.wait_for, never) for _ in range(50)]
    eventually(lambda: all(future.running() for future in running))
    children = [whereis(f"{pool.name}/{child.id}").pid for child in whereis(pool.name).which_children()]
    getattr(pool, method)()
    assert not any(is_alive(pid) for pid in children if pid is not None)
    assert _is_over(pool.name)
    assert all(future.cancelled() for future in waiting)
    for future in running:
        with pytest.raises(PoolBroken, match="its workers were killed"):
            future.result(0)
    with pytest.raises(PoolBroken, match="its workers were killed"):
        pool.submit(pow, 2, 2)


def test_a_pool_without_workers_or_with_dead_ones_can_be_killed(pool: ProcessPool) -> None:
    unused = ProcessPool(1)
    for _ in range(2):
        unused.kill_workers()
    with pytest.raises(RuntimeError, match="after shutdown"):
        unused.submit(pow, 2, 2)
    unused.shutdown()
    with pytest.raises(TaskFailed):
        pool.options(retries=0).submit(os._exit, 1).result(30)
    pool.shutdown()
    pool.kill_workers()


def test_a_callback_can_kill_the_workers_of_its_pool(pool: ProcessPool, tmp_path: Path) -> None:
    pool.submit(tasks.wait_for, str(tmp_path / "never"))
    pool.submit(abs, -1).add_done_callback(lambda done: pool.kill_workers())
    eventually(lambda: _is_over(pool.name))


def test_a_shutdown_that_cancels_lets_a_chunk_finish_that_was_taken_apart(pool: ProcessPool, tmp_path: Path) -> None:
    began, go = tmp_path / "began", tmp_path / "go"
    results = pool.map(tasks.die_at_or_wait, range(1, 11), [10] * 10, [str(began)] * 10, [str(go)] * 10, chunksize=10)
    worker = eventually(lambda: began.exists() and began.read_text())
    os.kill(int(worker), signal.SIGKILL)  # that of the chunk
    eventually(lambda: len(began.read_text().split()) == 3)  # two of its items run, each in a worker of its own
    pool.shutdown(wait=False, cancel_futures=True)
    go.touch()
    assert [next(results) for _ in range(9)] == [2 * number for number in range(1, 10)]
    with pytest.raises(TaskFailed, match="die_at_or_wait"):
        next(results)
    in_background(pool.shutdown).result(30)


def test_a_shutdown_waits_for_a_task_whose_worker_dies(pool: ProcessPool, tmp_path: Path) -> None:
    future = pool.submit(tasks.die_twice_then, str(tmp_path / "ran"), 5)
    pool.shutdown()
    assert future.result(0) == 5


def test_a_shutdown_waits_for_a_callback_that_takes_longer_than_a_thread_may_to_finish(
    threads: ThreadPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "Child", functools.partial(Child, shutdown=0.1))
    gate, began, go = threading.Event(), threading.Event(), threading.Event()
    future = threads.submit(gate.wait, 30)
    future.add_done_callback(lambda _: (began.set(), go.wait(30)))
    gate.set()
    assert began.wait(30)
    ended = in_background(threads.shutdown)
    try:
        with pytest.raises(TimeoutError):
            ended.result(1)
    finally:
        go.set()
    ended.result(30)


def test_a_pool_ends_although_the_callback_of_its_last_task_ends_its_thread(either: Pool, tmp_path: Path) -> None:
    go = str(tmp_path / "go")
    future = either.submit(tasks.wait_for, go)
    future.add_done_callback(lambda _: sys.exit(3))
    eventually(future.running)
    either.shutdown(wait=False)
    Path(go).touch()
    assert future.result(30) == go
    eventually(lambda: _is_over(either.name))


def test_a_callback_and_a_task_can_shut_their_pool_down(one_runtime_for_all: None) -> None:
    pool = ThreadPool(2)
    pool.submit(pool.shutdown).result(30)
    eventually(lambda: _is_over(pool.name))
    other = ProcessPool(1)
    other.submit(pow, 2, 2).add_done_callback(lambda _: other.shutdown())
    eventually(lambda: _is_over(other.name))


def test_a_pool_that_is_forgotten_finishes_its_tasks_and_ends(one_runtime_for_all: None) -> None:
    pool = ProcessPool(1).options(retries=0)
    future = pool.submit(pow, 2, 2)
    name = pool.name
    del pool
    gc.collect()
    assert future.result(30) == 4
    eventually(lambda: _is_over(name))


@pytest.mark.parametrize("how", ["shut down", "forgotten"])
def test_workers_that_have_run_all_they_may_are_replaced_after_the_end_of_their_pool(
    one_runtime_for_all: None, how: str, tmp_path: Path
) -> None:
    pool, go = ProcessPool(1, max_tasks_per_worker=1), tmp_path / "go"
    futures = [pool.submit(tasks.wait_for, str(go)) for _ in range(3)]
    eventually(futures[0].running)
    if how == "shut down":
        pool.shutdown(wait=False)
    del pool
    gc.collect()
    go.touch()
    assert [future.result(30) for future in futures] == [str(go)] * 3


def test_tasks_fail_when_the_supervisor_of_the_pool_is_stopped(pool: ProcessPool, tmp_path: Path) -> None:
    futures = [pool.submit(tasks.wait_for, str(tmp_path / "never")) for _ in range(5)]
    eventually(futures[0].running)
    whereis(pool.name).kill()
    for future in futures:
        with pytest.raises(PoolBroken, match="is broken"):
            future.result(30)
    with pytest.raises(PoolBroken):
        pool.submit(pow, 2, 2)


def test_a_forked_copy_of_the_program_can_neither_use_nor_end_the_pool(pool: ProcessPool) -> None:
    pool.submit(pow, 2, 2).result(30)
    child = os.fork()
    if not child:
        code = 1
        try:
            pool.submit(pow, 2, 2)
        except RuntimeGone:
            pool.shutdown()
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert pool.submit(pow, 2, 2).result(30) == 4


PENDING = """
import time
from suitkaise.pools import ProcessPool, ThreadPool

def work(number):
    time.sleep(0.01)
    print(f"{{number}}\\n", end="", flush=True)  # in one piece: two threads write at once

pool = {kind}(2)
for number in range(20):
    pool.submit(work, number)
"""


HANGING = """
import os, time
from suitkaise.pools import ProcessPool

pool = ProcessPool(2)
def hang():
    print("pid", os.getpid(), flush=True)
    time.sleep(3600)
futures = [pool.submit(hang), pool.submit(hang)]
futures[0].result()
"""


@pytest.mark.parametrize("kind", ["ProcessPool", "ThreadPool"])
def test_a_program_that_ends_runs_the_tasks_that_are_left(kind: str) -> None:
    finished = run_program(PENDING.format(kind=kind)).check()
    assert sorted(map(int, finished.stdout.split())) == list(range(20))
    assert finished.stderr == ""


IN_A_CHILD = """
import multiprocessing, sys, threading, time
from suitkaise.pools import ProcessPool, ThreadPool

def work(number):
    time.sleep(0.01)
    print(f"{{number}}\\n", end="", flush=True)

def main():
    pool = {kind}(2)
    for number in range(10):
        pool.submit(work, number)
    def submit_later():
        for number in range(10, 20):
            pool.submit(work, number).result()
    threading.Thread(target=submit_later).start()

if __name__ == "__main__":
    child = multiprocessing.get_context(sys.argv[1]).Process(target=main)
    child.start()
    child.join()
    sys.exit(child.exitcode)
"""


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
@pytest.mark.parametrize("kind", ["ProcessPool", "ThreadPool"])
def test_a_process_of_multiprocessing_that_ends_runs_the_tasks_that_are_left(kind: str, method: str) -> None:
    finished = run_program(IN_A_CHILD.format(kind=kind), method).check()
    assert sorted(map(int, finished.stdout.split())) == list(range(20))
    assert finished.stderr == ""


def test_the_workers_of_a_killed_program_end_although_their_tasks_go_on() -> None:
    with start_program(HANGING) as running:
        eventually(lambda: running.stdout.count("pid") == 2)
        pids = [int(line.split()[1]) for line in running.stdout.splitlines()]
        running.send_signal(signal.SIGKILL)
        for pid in pids:
            wait_gone(pid)


def test_a_failed_task_leaves_no_reference_to_itself(one_runtime_for_all: None) -> None:
    import weakref

    class Argument:
        pass

    with ThreadPool(1) as pool:
        argument = Argument()
        seen = weakref.ref(argument)
        future = pool.submit(lambda _: 1, argument)
        assert future.result(30) == 1
        del argument
        eventually(lambda: seen() is None)


def test_pools_leave_no_descriptors_and_no_threads(one_runtime_for_all: None) -> None:
    def use() -> None:
        with ProcessPool(2) as pool:
            assert pool.submit(bytes, bytes(1 << 20)).result(30) == bytes(1 << 20)
            assert list(pool.map(abs, range(20))) == list(range(20))

    use()
    eventually(lambda: not [thread for thread in threading.enumerate() if "pool" in thread.name])
    before, sizes = len(os.listdir("/proc/self/fd")), sys.getallocatedblocks()
    for _ in range(5):
        use()
    assert len(os.listdir("/proc/self/fd")) <= before
    assert sys.getallocatedblocks() < sizes + 20_000


STUCK = """
import threading
from suitkaise import xprocess

xp = xprocess.CrossProcessing()

def stuck(number):
    print("begun", flush=True)
    threading.Event().wait()

{use}
"""


USES = (
    "with xp.create_pool(stuck, 2) as pool:\n    list(pool.map(range(9)))",
    "pool = xp.create_pool(stuck, 2)\nlist(pool.map(range(9)))",
    "pool = xp.create_pool(stuck, 2)\nfutures = [pool.submit(n) for n in range(9)]",  # waits at its end
)


def test_ctrl_c_ends_a_program_whose_tasks_never_end() -> None:
    with contextlib.ExitStack() as stack:  # at once: a worker that does not stop has five seconds
        programs = [stack.enter_context(start_program(STUCK.format(use=use))) for use in USES]
        for program in programs:
            program.expect("begun")
            program.send_signal(signal.SIGINT)
        for program in programs:
            program.wait(timeout=40)
    assert [program.left_behind for program in programs] == [[], [], []]
    assert "Exception ignored" not in "".join(program.stderr for program in programs)


TWICE = """
import contextlib, logging, os, threading, time
from suitkaise.pools import ProcessPool
from suitkaise.runtime import running_tree

logging.basicConfig(level=logging.INFO)
running_tree.REPEAT = 0.0

def stuck():
    print("begun", flush=True)
    threading.Event().wait()

def use():
    with ProcessPool(1) as pool:
        pool.submit(stuck).result()

def held():
    return threading.active_count(), len(os.listdir("/proc/self/fd"))

with ProcessPool(1) as other:
    print(other.submit(len, "one").result(), flush=True)
    before, deadline = held(), time.monotonic() + 20
    with contextlib.suppress(KeyboardInterrupt):
        use()
    while held() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    print("goes on with", other.submit(len, "four").result(), held() <= before, held(), before, flush=True)
"""


def test_a_program_that_goes_on_after_a_second_ctrl_c_has_nothing_of_the_pool() -> None:
    with start_program(TWICE) as program:
        program.expect("begun")
        program.send_signal(signal.SIGINT)
        eventually(lambda: "supervisor stops its children" in program.stderr)
        program.send_signal(signal.SIGINT)
        program.expect("goes on with 4 True")
        program.wait(timeout=40)
    assert program.left_behind == []
