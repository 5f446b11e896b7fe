"""What pools share with the executors of the standard library, and what cannot be sent."""

from __future__ import annotations

import asyncio
import functools
import os
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future
from pathlib import Path
from typing import Any

import pytest

from suitkaise import NotSerializable, Process, WorkerFailed, pools
from suitkaise.pools import Pool, PoolBroken, ProcessPool, ThreadPool
from tests.pools import tasks
from tests.support import eventually, in_background

MIB = 1 << 20


class Echo(Process):
    def on_receive(self, message: object) -> object:
        return message


class _NotLoadable:
    def __reduce__(self) -> Any:
        return _refuse_to_load, ()


def _refuse_to_load() -> None:
    raise ImportError("not here")


def test_a_pool_is_an_executor(either: Pool) -> None:
    assert isinstance(either, Executor)
    assert either.submit(pow, 2, exp=5).result(30) == 32
    assert list(either.map(pow, [2, 3, 4], [3, 2])) == [8, 9]
    assert pools.ProcessPool is ProcessPool


def test_an_error_that_counts_as_false_is_raised_all_the_same(either: Pool) -> None:
    with pytest.raises(tasks.NoErrors, match="all is well"):
        either.submit(tasks.fail_with_no_errors).result(30)
    with pytest.raises(tasks.NoErrors, match="all is well"):
        list(either.map(tasks.fail_with_no_errors, [1, 2]))


def test_keywords_of_the_function_are_not_taken_for_options(either: Pool) -> None:
    assert either.submit(dict, timeout=1, retries=2, fn=3, self=4, args=5).result(30) == {
        "timeout": 1, "retries": 2, "fn": 3, "self": 4, "args": 5
    }  # fmt: skip


@pytest.mark.parametrize("size", [0, 1, 1000, 32 * 1024 - 64, 32 * 1024 + 1, MIB, 20 * MIB])
def test_arguments_and_results_of_any_size_arrive(pool: ProcessPool, size: int) -> None:
    data = os.urandom(size)
    futures = [pool.submit(bytes, data) for _ in range(3)]
    assert all(future.result(30) == data for future in futures)


def test_many_large_tasks_wait_in_the_pool_and_all_arrive(pool: ProcessPool) -> None:
    assert sum(map(len, pool.map(bytes, [30_000] * 200))) == 6_000_000


def test_an_argument_that_cannot_be_sent_fails_its_future_alone(pool: ProcessPool) -> None:
    fine = pool.submit(pow, 2, 2)
    lock = threading.Lock()
    with pytest.raises(NotSerializable, match=r"repr\.args\[0\]\['deep'\]: .*lock"):
        pool.submit(repr, {"deep": lock}).result(30)
    with pytest.raises(NotSerializable, match=r"dict\.kwargs\['key'\]: .*lock"):
        pool.submit(dict, key=lock).result(30)
    with pytest.raises(NotSerializable, match=r"pow\.args\[1\]: .*lock"):
        list(pool.map(pow, [1, 2], [3, lock], chunksize=2))
    with pytest.raises(ImportError, match="not here"):
        pool.submit(repr, _NotLoadable()).result(30)
    assert fine.result(30) == 4


class Guarded:
    """Its state is guarded by a lock."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.is_read = threading.Event()

    def __reduce__(self) -> Any:
        self.is_read.set()
        with self.lock:
            return Path, ("state",)


def test_an_argument_may_wait_for_a_lock_under_which_another_thread_submits_a_task(pool: ProcessPool) -> None:
    state = Guarded()
    assert pool.submit(pow, 2, 3).result(30) == 8  # a worker waits for tasks
    with state.lock:
        waiting = in_background(lambda: pool.submit(str, state).result(30))
        assert state.is_read.wait(30)
        submitted = in_background(lambda: pool.submit(pow, 2, 4))
        future = submitted.result(30)
    assert future.result(30) == 16
    assert waiting.result(30) == "state"


def test_a_result_that_cannot_be_sent_fails_its_future_alone(pool: ProcessPool) -> None:
    with pytest.raises(NotSerializable, match=r"result.*lock"):
        pool.submit(threading.Lock).result(30)
    with pytest.raises(ImportError, match="not here"):
        pool.submit(_NotLoadable).result(30)
    assert pool.submit(pow, 2, 2).result(30) == 4


def test_an_error_that_cannot_be_sent_arrives_as_text(pool: ProcessPool) -> None:
    def task() -> None:
        raise tasks.Unpicklable

    with pytest.raises(WorkerFailed, match=r"Unpicklable.*cannot be sent"):
        pool.submit(task).result(30)


def test_in_a_chunk_only_the_items_that_cannot_be_sent_fail(pool: ProcessPool) -> None:
    def task(number: int) -> Any:
        if number == 3:
            raise ValueError(number)
        return threading.Lock() if number == 5 else number

    results = pool.map(task, range(8), chunksize=4)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="3"):
        next(results)
    assert list(pool.map(task, [4, 6, 7], chunksize=3)) == [4, 6, 7]
    with pytest.raises(NotSerializable):
        list(pool.map(task, [4, 5], chunksize=2))


def test_a_task_that_has_not_begun_can_be_cancelled_even_if_its_worker_has_it(
    one_runtime_for_all: None, tmp_path: Path
) -> None:
    began, go, ran = (str(tmp_path / name) for name in ("began", "go", "ran"))
    with ProcessPool(1) as pool:
        pool.submit(os.getpid).result(30)
        running = pool.submit(tasks.note_and_wait_for, began, go)
        waiting = [pool.submit(tasks.append_pid, ran) for _ in range(20)]
        try:
            eventually(lambda: os.path.exists(began))  # `running` tells that its worker has it
            assert not running.cancel()
            assert waiting[1].cancel()
            assert waiting[15].cancel()
            assert waiting[1].cancelled()
        finally:
            Path(go).touch()
        assert running.result(30) == go
    assert len(Path(ran).read_text().split()) == 18


def test_a_long_task_does_not_hold_up_a_task_that_was_given_to_the_same_worker(
    one_runtime_for_all: None, tmp_path: Path
) -> None:
    go = str(tmp_path / "go")
    with ProcessPool(2) as pool:
        futures = [pool.submit(pow, 2, n) for n in range(10)]
        long = pool.submit(tasks.wait_for, go)
        futures += [pool.submit(pow, 2, n) for n in range(10)]
        for future in futures:
            future.result(30)
        pool.submit(Path.touch, Path(go))  # two tasks that need each other
        assert long.result(30) == go


def test_tasks_that_need_each_other_run_at_the_same_time(pool: ProcessPool, tmp_path: Path) -> None:
    first, second = str(tmp_path / "1"), str(tmp_path / "2")

    def meet(mine: str, other: str) -> None:
        Path(mine).touch()
        tasks.wait_for(other)

    for _ in range(3):
        one, two = pool.submit(meet, first, second), pool.submit(meet, second, first)
        one.result(30)
        two.result(30)
        os.unlink(first)
        os.unlink(second)


def test_an_initializer_runs_first_in_each_worker(either: Pool) -> None:
    def remember(value: int) -> None:
        threading.current_thread().remembered = value  # type: ignore[attr-defined]

    def recall() -> Any:
        return threading.current_thread().remembered  # type: ignore[attr-defined]

    with type(either)(2, initializer=remember, initargs=(7,)) as pool:
        assert [pool.submit(recall).result(30) for _ in range(5)] == [7] * 5


def test_each_process_gets_the_arguments_of_the_initializer_as_they_were_when_the_pool_was_made(
    one_runtime_for_all: None,
) -> None:
    def remember(settings: dict[str, list[int]]) -> None:
        threading.current_thread().remembered = settings  # type: ignore[attr-defined]

    def recall() -> Any:
        return threading.current_thread().remembered  # type: ignore[attr-defined]

    settings = {"steps": [1]}
    with ProcessPool(1, initializer=remember, initargs=(settings,), max_tasks_per_worker=1) as pool:
        assert pool.submit(recall).result(30) == {"steps": [1]}
        settings["steps"].append(2)
        assert pool.submit(recall).result(30) == {"steps": [1]}  # in the next process


async def _later() -> None: ...


def _generated() -> Iterator[int]:
    yield 1


async def _generated_later() -> AsyncIterator[int]:
    yield 1


@pytest.mark.parametrize(
    "initializer, why",
    [
        (_later, "initializer must be a plain function, and _later is async: a call would run none of it"),
        (functools.partial(_later), "and _later is async"),
        (_generated, "and _generated is a generator: a call would run none of it"),
        (_generated_later, "and _generated_later is a generator"),
        (tasks.append_pid, r"initializer append_pid\(path.*\).*: missing .*'path'; got initargs=\(\)$"),
    ],
)
def test_an_initializer_that_no_call_runs_is_refused_at_once(initializer: Any, why: str) -> None:
    for kind in (ProcessPool, ThreadPool):
        with pytest.raises(TypeError, match=why):
            kind(1, initializer=initializer)
    with pytest.raises(TypeError, match=why):
        pools.create_pool("process", Echo, 1, initializer=initializer)


def test_an_argument_of_the_initializer_that_cannot_be_sent_is_named(one_runtime_for_all: None) -> None:
    with ProcessPool(1, initializer=print, initargs=("a", threading.Lock())) as pool:
        with pytest.raises(PoolBroken, match=r"\['initargs'\]\[1\]: cannot pickle '_thread.lock'"):
            pool.submit(pow, 2, 2).result(30)


@pytest.mark.parametrize("initializer", [tasks.fail, *tasks.FAULTS[:3]], ids=lambda function: function.__name__)
def test_an_initializer_that_fails_again_and_again_breaks_the_pool(one_runtime_for_all: None, initializer: Any) -> None:
    with ProcessPool(2, initializer=initializer) as pool:
        futures = [pool.submit(pow, 2, 2) for _ in range(5)]
        for future in futures:
            with pytest.raises(BrokenExecutor, match="no worker could be started"):
                future.result(30)
        with pytest.raises(PoolBroken):
            pool.submit(pow, 2, 2)


def test_an_initializer_that_fails_once_costs_nothing(one_runtime_for_all: None, tmp_path: Path) -> None:
    with ProcessPool(1, initializer=tasks.die_twice_then, initargs=(str(tmp_path / "ran"),)) as pool:
        assert pool.submit(pow, 2, 2).result(30) == 4


def test_a_thread_pool_with_a_failing_initializer_is_broken(one_runtime_for_all: None) -> None:
    with ThreadPool(2, initializer=tasks.fail) as pool, pytest.raises(BrokenExecutor, match=r"ValueError.*no"):
        pool.submit(pow, 2, 2).result(30)


@pytest.mark.parametrize("kind", [ProcessPool, ThreadPool])
def test_a_worker_is_replaced_after_its_number_of_tasks(one_runtime_for_all: None, kind: type[Pool]) -> None:
    where = os.getpid if kind is ProcessPool else threading.get_ident
    with kind(1, max_tasks_per_worker=3) as pool:
        futures = [pool.submit(lambda: (where(), threading.current_thread().name)) for _ in range(9)]
        seen = [future.result(30) for future in futures]
    assert [len(set(seen[start : start + 3])) for start in (0, 3, 6)] == [1, 1, 1]
    assert len(set(seen)) == 3


def test_tasks_run_in_the_main_thread_of_their_process(pool: ProcessPool) -> None:
    assert pool.submit(lambda: threading.current_thread() is threading.main_thread()).result(30)


def test_an_event_loop_can_use_a_pool(either: Pool) -> None:
    async def main() -> list[int]:
        loop = asyncio.get_running_loop()
        calls = [loop.run_in_executor(either, pow, 2, n) for n in range(20)]
        return await asyncio.gather(*calls)

    assert asyncio.run(main()) == [2**n for n in range(20)]


def test_a_pool_in_a_worker_is_refused_by_a_clear_error(pool: ProcessPool) -> None:
    def nested() -> None:
        with ProcessPool(1) as inner:
            inner.submit(pow, 2, 2)

    with pytest.raises(Exception, match=r"and so a pool, cannot be started inside a worker process"):
        pool.submit(nested).result(30)


def test_a_pool_is_no_argument(pool: ProcessPool) -> None:
    with pytest.raises(NotSerializable, match="a pool cannot be sent"):
        pool.submit(repr, pool).result(30)


@pytest.mark.parametrize(
    "options, error",
    [
        ({"max_workers": 0}, ValueError), ({"max_workers": 1.5}, TypeError), ({"timeout": 0}, ValueError),
        ({"timeout": "1"}, TypeError), ({"retries": -1}, ValueError), ({"retries": None}, TypeError),
        ({"max_tasks_per_worker": 0}, ValueError), ({"initializer": 3}, TypeError),
        ({"initargs": "ab"}, TypeError), ({"initargs": ""}, TypeError), ({"initargs": 5}, TypeError),
        ({"initargs": b"ab"}, TypeError),
        ({"max_tasks_per_child": 5}, ValueError),
    ],
)  # fmt: skip
def test_wrong_options_are_refused_at_once(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(options))):
        ProcessPool(**options)
    if "max_workers" not in options:
        with pytest.raises(error, match=next(iter(options))):
            pools.create_pool("process", Echo, 2, **options)


def test_a_callback_may_wait_for_another_task_of_its_pool_of_threads(threads: ThreadPool) -> None:
    go = threading.Event()
    first = threads.submit(go.wait, 30)
    inner: Future[int] = Future()
    first.add_done_callback(lambda _: inner.set_result(threads.submit(abs, -3).result(15)))
    go.set()
    assert inner.result(30) == 3


def test_a_slow_callback_holds_up_no_task_that_another_thread_can_run(threads: ThreadPool) -> None:
    go, over = threading.Event(), threading.Event()
    first = threads.submit(go.wait, 30)
    first.add_done_callback(lambda _: over.wait(30))
    waiting = [threads.submit(abs, -number) for number in range(8)]
    go.set()
    try:
        assert [future.result(15) for future in waiting] == list(range(8))
    finally:
        over.set()


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_a_callback_that_ends_its_thread_costs_the_pool_nothing(
    either: Pool, error: type[BaseException], caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    def end(_: object) -> None:
        raise error

    go = str(tmp_path / "go")
    future = either.submit(tasks.wait_for, go)
    future.add_done_callback(end)
    failing = either.submit(tasks.fail)
    waiting = [either.submit(tasks.wait_for, go) for _ in range(8)]
    eventually(future.running)
    ended = in_background(either.shutdown)
    Path(go).touch()
    ended.result(30)
    assert future.result(0) == go
    assert isinstance(failing.exception(0), ValueError)
    assert [one.result(0) for one in waiting] == [go] * 8
    assert [record.name for record in caplog.records] == ["concurrent.futures"]
