"""`map`, `imap`, `imap_unordered` and `results`."""

from __future__ import annotations

import itertools
import math
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest

from suitkaise.pools import Pool, ProcessPool, ThreadPool, batches
from tests.pools import tasks
from tests.support import in_background


@pytest.mark.parametrize("chunksize", [1, 3, 100])
def test_all_ways_give_the_same_results(either: Pool, chunksize: int) -> None:
    wanted = [n * n for n in range(20)]
    numbers = range(20)
    assert list(either.map(pow, numbers, [2] * 20, chunksize=chunksize)) == wanted
    assert list(either.imap(pow, numbers, [2] * 20, chunksize=chunksize)) == wanted
    assert sorted(either.imap_unordered(pow, numbers, [2] * 20, chunksize=chunksize)) == wanted
    futures = [either.submit(pow, n, 2) for n in numbers]
    assert list(either.results(futures)) == wanted
    assert sorted(either.results(futures, ordered=False)) == wanted


def test_nothing_is_mapped_to_nothing(either: Pool) -> None:
    assert list(either.map(abs, [])) == list(either.imap(abs, [])) == list(either.imap_unordered(abs, [])) == []
    assert list(either.map(abs, [], chunksize=5)) == list(either.results([])) == []


def test_imap_reads_an_endless_iterable_only_as_far_as_it_must(either: Pool) -> None:
    read = itertools.count()
    squares = either.imap(pow, read, itertools.repeat(2))
    assert [next(squares) for _ in range(100)] == [n * n for n in range(100)]
    squares.close()  # type: ignore[attr-defined]
    assert next(read) < 300


@pytest.mark.parametrize("chunksize", [1, 3])
def test_map_with_a_buffer_submits_only_so_many_tasks_ahead_of_the_results(either: Pool, chunksize: int) -> None:
    size = chunksize if isinstance(either, ProcessPool) else 1  # threads get one item at a time
    numbers = iter(range(100))
    results = either.map(abs, numbers, buffersize=2, chunksize=chunksize)
    assert next(numbers) == 2 * size
    assert [next(results) for _ in range(size)] == list(range(size))
    assert next(numbers) == 3 * size + 1
    assert next(results) == size


def test_map_with_a_buffer_gives_all_results(either: Pool) -> None:
    assert list(either.map(pow, range(20), itertools.repeat(2), buffersize=3)) == [n * n for n in range(20)]
    assert list(either.map(abs, [], buffersize=3)) == list(either.map(abs, buffersize=3)) == []


def test_an_error_of_the_items_of_map_with_a_buffer_comes_where_the_next_one_is_read(either: Pool) -> None:
    results = either.map(abs, (1 // number for number in (1, -1, 1, 0)), buffersize=2)
    assert next(results) == 1
    with pytest.raises(ZeroDivisionError):
        list(results)
    with pytest.raises(ZeroDivisionError):
        either.map(abs, (1 // number for number in (1, 0)), buffersize=2)


@pytest.mark.parametrize("size, error", [(0, ValueError), (-1, ValueError), ("2", TypeError), (2.0, TypeError)])
def test_a_buffer_that_is_none_is_refused(either: Pool, size: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=f"buffersize must be .*{size!r}"):
        either.map(abs, [1], buffersize=size)


def test_results_come_as_they_are_ready_when_the_order_is_free(threads: ThreadPool) -> None:
    go = threading.Event()

    def task(number: int) -> int:
        if number == 0:
            go.wait(30)
        return number

    results = threads.imap_unordered(task, range(3))
    assert sorted([next(results), next(results)]) == [1, 2]
    go.set()
    assert list(results) == [0]


def test_map_raises_when_its_time_is_over(either: Pool, tmp_path: Any) -> None:
    go = str(tmp_path / "go")
    results = either.map(tasks.wait_for, [go], timeout=0.1)
    with pytest.raises(TimeoutError):
        next(results)
    open(go, "w").close()


def test_map_raises_the_error_of_an_item_in_its_place_and_cancels_the_rest(either: Pool) -> None:
    def task(number: int) -> float:
        return 1 / (number - 2)

    results = either.map(task, range(1000))
    assert [next(results), next(results)] == [-0.5, -1]
    with pytest.raises(ZeroDivisionError):
        next(results)
    with pytest.raises(StopIteration):
        next(results)


def broken(count: int) -> Iterator[int]:
    yield from range(count)
    raise LookupError("no more items")


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("method", ["imap", "imap_unordered"])
@pytest.mark.parametrize("count", [0, 4, 100])
def test_an_error_of_the_items_comes_after_the_results_of_the_items_before(
    either: Pool, method: str, size: int, count: int
) -> None:
    got: list[int] = []
    with pytest.raises(LookupError, match="no more items"):
        got.extend(getattr(either, method)(abs, broken(count), chunksize=size))
    assert sorted(got) == list(range(count))


def test_an_interruption_while_an_item_is_made_comes_at_once(threads: ThreadPool) -> None:
    go = threading.Event()

    def items() -> Iterator[threading.Event]:
        yield go
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        next(threads.imap(lambda event: event.wait(30), items()))
    go.set()


def test_an_error_of_the_items_of_map_cancels_the_calls_that_have_not_begun(threads: ThreadPool) -> None:
    go, begun = threading.Event(), []

    def task(number: int) -> None:
        begun.append(number)
        go.wait(30)

    with pytest.raises(LookupError, match="no more items"):
        threads.map(task, broken(1000))
    go.set()
    threads.shutdown()
    assert len(begun) <= 2


@pytest.mark.parametrize("method", ["map", "imap", "imap_unordered"])
def test_what_is_no_iterable_is_refused_at_once_and_nothing_is_read(either: Pool, method: str) -> None:
    items = iter([1, 2])
    with pytest.raises(TypeError, match=rf"^{method} takes an iterable for each argument of the function, not 5$"):
        getattr(either, method)(pow, items, 5)
    if method != "map":
        getattr(either, method)(pow, items, [1, 2]).close()
    assert list(items) == [1, 2]


@pytest.mark.parametrize("ordered", [True, False])
def test_the_time_for_results_begins_with_the_call(
    threads: ThreadPool, ordered: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(batches, "time", SimpleNamespace(monotonic=lambda: now[0]))
    results = threads.results([Future[Any]()], ordered=ordered, timeout=60.0)
    now[0] += 61.0
    assert isinstance(in_background(lambda: next(results)).exception(20), TimeoutError)


def test_results_are_not_kept_by_the_iterator(threads: ThreadPool) -> None:
    import weakref

    class Result:
        pass

    for result in threads.imap(lambda _: Result(), range(3)):
        seen = weakref.ref(result)
        del result
        assert seen() is None


@pytest.mark.parametrize("method", ["submit", "map", "imap", "imap_unordered"])
def test_what_is_no_function_is_refused_at_once(either: Pool, method: str) -> None:
    with pytest.raises(TypeError, match=rf"{method} takes the function itself first, .*; got \[1, 2\]"):
        getattr(either, method)([1, 2])


@pytest.mark.parametrize("method", ["submit", "map", "imap", "imap_unordered"])
def test_an_async_function_for_a_pool_of_processes_is_refused_at_once(pool: ProcessPool, method: str) -> None:
    async def fetch(url: str) -> str:
        return url

    with pytest.raises(TypeError, match=rf"{method} takes .*fetch is async.*asyncio\.run\(.*fetch\(\.\.\.\)\)"):
        getattr(pool, method)(fetch, ["a"])


def test_a_timeout_that_is_no_number_is_refused_at_once(either: Pool) -> None:
    with pytest.raises(TypeError, match="timeout must be seconds, or None for ever, not '1'"):
        either.map(abs, [1], timeout="1")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="timeout must be seconds, or None for ever, not '1'"):
        either.results([], timeout="1")  # type: ignore[arg-type]
    future = either.submit(abs, -1)
    for waiting in (future.result, future.exception):
        with pytest.raises(TypeError, match="timeout must be seconds, or None for ever, not '1'"):
            waiting("1")  # type: ignore[arg-type]
    assert future.result(math.inf) == 1


def test_what_is_no_future_is_refused_where_results_are_asked_for(either: Pool) -> None:
    for ordered in (True, False):
        with pytest.raises(TypeError, match="results takes the futures that submit has returned, and 2 is none"):
            either.results([either.submit(abs, -1), 2], ordered=ordered)  # type: ignore[list-item]
    with pytest.raises(TypeError, match="results takes a list of the futures that submit has returned, not <"):
        either.results(either.submit(abs, -1))  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [0, -1, 1.5])
def test_a_chunk_size_that_is_none_is_refused(either: Pool, size: Any) -> None:
    with pytest.raises((ValueError, TypeError), match="chunksize"):
        either.map(abs, [1], chunksize=size)
    with pytest.raises((ValueError, TypeError), match="chunksize"):
        either.imap(abs, [1], chunksize=size)


def test_progress_is_shown_on_a_terminal_alone(
    threads: ThreadPool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    list(threads.map(abs, range(5), progress=True))
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    list(threads.map(abs, range(5), progress=True))
    assert capsys.readouterr().err.endswith("\r5 of 5 done\n")
    list(threads.imap(abs, iter(range(5)), progress=True))
    assert capsys.readouterr().err.endswith("\r5 done\n")


def test_a_lazy_map_submits_nothing_before_it_is_read(one_runtime_for_all: None) -> None:
    with ProcessPool(1) as pool:
        results = pool.imap(time.sleep, itertools.repeat(0))
        assert pool._scheduler._running is None
        next(results)


def test_tasks_that_are_taken_back_while_their_worker_reads_are_not_lost(one_runtime_for_all: None) -> None:
    for _ in range(10):
        with ProcessPool(2) as pool:
            futures = [pool.submit(abs, -n) for n in range(300)]
            cancelled = [future.cancel() for future in futures[::2]]
            for future, is_cancelled in zip(futures[::2], cancelled, strict=True):
                assert is_cancelled or future.result(30) >= 0
            assert [future.result(30) for future in futures[1::2]] == list(range(1, 300, 2))
