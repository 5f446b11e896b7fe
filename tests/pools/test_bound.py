"""`create_pool`: pools of one function or one worker class, for the faces of the concept."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import pytest

from suitkaise import Process, Reject, Thread
from suitkaise.pools import ProcessPool, TaskFailed, create_pool
from tests.pools import tasks

T = TypeVar("T")


class Count(Process):
    def __init__(self, start: int, ends: str) -> None:
        super().__init__()
        self.start = start
        self.ends = ends

    def on_start(self) -> None:
        self.seen = self.start

    def on_receive(self, message: int) -> tuple[int, int, str | None]:
        self.seen += message
        return os.getpid(), self.seen, self.path

    def on_finish(self) -> None:
        tasks.append_pid(self.ends)


class Double(Thread):
    def on_receive(self, message: int) -> int:
        return message * 2


class Named(Process):
    def on_receive(self, message: object) -> tuple[str | None, object]:
        return self.name, self.metadata["name"]


class BeforeEach(Process):
    def before_loop(self) -> None: ...

    def on_receive(self, message: object) -> None: ...


class WithThreads(Process):
    background = (Double,)

    def on_receive(self, message: object) -> None: ...


class Loops(Process):
    def loop(self) -> None: ...

    def on_receive(self, message: Any) -> None: ...


class Limited(Process):
    receive_timeout = 1.0

    def on_receive(self, message: Any) -> None: ...


class Picky(Process):
    def on_receive(self, message: str) -> str:
        if message == "exit":
            os._exit(3)
        if message != "good":
            raise Reject(KeyError(message))
        return message


async def fetch(url: str) -> str:
    return url


@pytest.mark.parametrize("kind", ["process", "thread"])
def test_a_bound_pool_calls_its_function_with_each_item(kind: Literal["process", "thread"]) -> None:
    with create_pool(kind, pow, 2) as pool:
        assert pool.size == 2
        assert pool.submit(2, exp=3).result(30) == 8
        assert list(pool.map([1, 2, 3], [2, 2, 2])) == [1, 4, 9]
        assert sorted(pool.map([1, 2, 3], [2, 2, 2], ordered=False, chunksize=2)) == [1, 4, 9]
        assert list(pool.imap(range(3), [2, 2, 2])) == [0, 1, 4]
        assert sorted(pool.imap(range(3), [2, 2, 2], ordered=False)) == [0, 1, 4]
        futures = [pool.submit(n, 2) for n in range(4)]
        assert list(pool.results(futures)) == [0, 1, 4, 9]
        assert sorted(pool.results(futures, ordered=False)) == [0, 1, 4, 9]
        assert pool.executor.submit(abs, -1).result(30) == 1


@pytest.mark.parametrize("ordered", [True, False])
def test_all_but_one_of_the_iterables_of_map_may_be_endless(ordered: bool) -> None:
    def once(number: int) -> Iterator[int]:
        yield number
        raise AssertionError("read beyond the shortest one")

    with create_pool("thread", pow, 2) as pool:
        assert sorted(pool.map(range(4), itertools.repeat(2), ordered=ordered)) == [0, 1, 4, 9]
        assert list(pool.map([2], once(3), ordered=ordered)) == [8]
        assert list(pool.map([], itertools.count(), ordered=ordered)) == []


def test_a_bound_pool_of_a_worker_class_has_one_object_in_each_worker(tmp_path: Path) -> None:
    ends = str(tmp_path / "ends")
    with create_pool("process", Count(100, ends), 1) as pool:
        answers = [pool.submit(1).result(30) for _ in range(3)]
        assert [seen for _, seen, _ in answers] == [101, 102, 103]
        assert {pid for pid, _, _ in answers} == {answers[0][0]} != {os.getpid()}
        assert answers[0][2] == f"{pool.name}/worker-1"
    assert Path(ends).read_text().split() == [str(answers[0][0])]


def test_the_worker_object_of_a_bound_pool_knows_its_name() -> None:
    with create_pool("process", Named, 1) as pool:
        assert pool.submit(None).result(30) == ("worker-1", "worker-1")


def test_a_bound_pool_of_threads_takes_thread_workers() -> None:
    with create_pool("thread", Double, 2, initializer=threading.get_ident) as pool:
        assert list(pool.map(range(5))) == [0, 2, 4, 6, 8]


def test_what_an_on_receive_refuses_fails_with_the_error_of_the_refusal() -> None:
    with create_pool("process", Picky, 1) as pool:
        assert isinstance(pool.submit("bad").exception(30), KeyError)
        assert pool.submit("good").result(30) == "good"


def test_the_errors_of_a_worker_object_name_its_on_receive() -> None:
    with create_pool("process", Picky, 1) as pool:
        with pytest.raises(
            TypeError, match=r"^Picky\.on_receive\(\) missing 1 required positional argument: 'message'"
        ):
            pool.submit().result(30)
        with pytest.raises(TaskFailed, match=r"^Picky\.on_receive ended its worker: exit code 3$"):
            pool.options(retries=0).submit("exit").result(30)


def test_an_argument_of_map_that_is_no_iterable_is_named() -> None:
    with create_pool("thread", abs, 1) as pool, pytest.raises(TypeError, match=r"map takes an iterable .* not 5$"):
        pool.map(5)  # type: ignore[arg-type]


def test_a_bound_pool_survives_a_worker_that_calls_os_exit() -> None:
    with create_pool("process", os._exit, 2) as pool:
        futures = [pool.options(retries=0).submit(3) for _ in range(4)]
        assert all("exit code 3" in str(future.exception(30)) for future in futures)


@pytest.mark.parametrize(
    "kind, what, error",
    [
        ("process", None, "called instead of being passed"),
        ("process", Double, "cannot have workers of kind 'thread'"),
        ("process", Loops, "has a loop"),
        ("process", BeforeEach, "has before_loop, which a pool would never call"),
        ("process", WithThreads, "has background threads, which a pool does not start"),
        ("process", Process, "no on_receive"),
        ("process", Limited, "Limited sets receive_timeout, which a pool does not use; give the pool a timeout"),
        ("process", fetch, "create_pool takes a function that returns its result, and fetch is async"),
        ("threads", abs, "kind must be"),
    ],
)
def test_what_cannot_be_in_a_pool_is_refused_at_once(kind: Any, what: Any, error: str) -> None:
    with pytest.raises((TypeError, ValueError), match=error):
        create_pool(kind, what, 2)


def test_map_sends_as_many_items_at_once_as_give_each_worker_four_times_some() -> None:
    with create_pool("process", abs, 2) as pool:
        assert [pool._chunk_for(items) for items in (0, 1, 8, 9, 100)] == [1, 1, 1, 2, 13]
        assert list(pool.map(range(-100, 0))) == list(range(100, 0, -1))
        assert sorted(pool.map(range(-100, 0), ordered=False)) == list(range(1, 101))
        assert pool.options(timeout=5.0)._chunk_for(100) == pool.options(retries=0)._chunk_for(100) == 1
        assert list(pool.map([], [1])) == []


def test_the_size_of_a_bound_pool_is_refused_by_its_own_name() -> None:
    with pytest.raises(ValueError, match="size must be greater than 0, not 0"):
        create_pool("thread", abs, 0)
    with pytest.raises(TypeError, match="size must be a whole number, not '2'"):
        create_pool("thread", abs, "2")  # type: ignore[arg-type]


def test_a_bound_pool_has_its_function_and_takes_none_with_the_items() -> None:
    with create_pool("thread", abs, 1) as pool:
        for call in (pool.map, pool.imap):
            with pytest.raises(TypeError, match="takes the items alone: this pool calls abs with them; got <built-in"):
                call(abs, [1])


def test_a_pool_names_what_other_pools_call_by_another_name() -> None:
    with create_pool("thread", abs, 1) as pool:
        with pytest.raises(AttributeError, match=r"'BoundPool' object has no attribute 'join'; use pool.shutdown\(\)"):
            pool.join()  # type: ignore[attr-defined]
        with pytest.raises(AttributeError, match=r"has no attribute 'starmap'; use pool.map\(firsts, seconds\)$"):
            pool.starmap([(1,)])  # type: ignore[attr-defined]
        with pytest.raises(AttributeError, match=r"'ThreadPool' object has no attribute 'apply_async'; use pool.subm"):
            pool.executor.apply_async(abs)  # type: ignore[attr-defined]
        with pytest.raises(AttributeError, match=r"'ThreadPool' .* 'terminate'; use .*shutdown\(cancel_futures=True\)"):
            pool.executor.terminate()  # type: ignore[attr-defined]
        with pytest.raises(AttributeError, match=r"has no attribute 'nothing'$"):
            pool.nothing()  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match=r"'ProcessPool' .* 'terminate'; use pool.kill_workers\(\)"):
        ProcessPool(1).terminate()


@pytest.mark.parametrize("name", ["a/b", "a#1", 5, "", 0])
def test_a_name_that_no_supervisor_can_have_is_refused_at_once(name: Any) -> None:
    with pytest.raises(ValueError, match=r"^ThreadPool"):
        create_pool("thread", abs, 2, name=name)


class Box(Thread, Generic[T]):
    """Keeps nothing."""

    def on_receive(self, message: T) -> list[T]:
        return [message]


def test_a_generic_class_is_the_worker_whatever_its_type_parameters() -> None:
    with create_pool("thread", Box[int], 1) as pool:
        assert pool.submit(3).result() == [3]
