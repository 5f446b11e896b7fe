"""Many tasks at once: the iterators over their results, in order or as they come."""

from __future__ import annotations

import itertools
import queue
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sized
from concurrent.futures import Future, as_completed
from typing import Any, TypeAlias, TypeVar

from suitkaise.pools.task import Outcomes

__all__ = ["Submit", "iterators", "map_all", "map_lazily", "results"]

T = TypeVar("T")

Submit: TypeAlias = Callable[[list[tuple[Any, ...]]], Future[Any]]
"""Submits a task for these items, each of which is the arguments of one call."""


class _Progress:
    """A line on the terminal: how many results have been taken."""

    def __init__(self, wanted: bool, total: int | None) -> None:
        self._shown = wanted and sys.stderr is not None and sys.stderr.isatty()
        self._total = "" if total is None else f" of {total}"
        self._count = 0
        self._next = 0.0

    def step(self) -> None:
        """Count one more result; write at most ten times a second."""
        self._count += 1
        if self._shown and time.monotonic() >= self._next:
            self._next = time.monotonic() + 0.1
            self._write("")

    def close(self) -> None:
        """Write the last count."""
        if self._shown:
            self._write("\n")

    def _write(self, end: str) -> None:
        sys.stderr.write(f"\r{self._count}{self._total} done{end}")
        sys.stderr.flush()


def map_all(
    submit: Submit,
    iterables: tuple[Iterable[Any], ...],
    timeout: float | None,
    size: int,
    progress: bool,
    buffer: int | None,
) -> Iterator[Any]:
    """Submit all calls now, or `buffer` of them and the others as results are taken; return the results in order."""
    until = None if timeout is None else time.monotonic() + timeout
    total = _length(iterables)
    source = _submitted(submit, iterators("map", iterables), size)
    futures: deque[Future[Any]] = deque()
    try:
        futures.extend(itertools.islice(source, buffer))
    except BaseException:
        _cancel(futures)
        raise

    def take() -> Iterator[Any]:
        line = _Progress(progress, total)
        try:
            while futures:
                futures.extend(itertools.islice(source, 1))
                left = None if until is None else until - time.monotonic()
                values = _values(futures.popleft(), left, size)
                while values:
                    line.step()
                    yield _value(values.pop())  # which nothing here keeps alive
        finally:
            line.close()
            _cancel(futures)

    return take()


def map_lazily(
    submit: Submit,
    iterables: tuple[Iterable[Any], ...],
    size: int,
    progress: bool,
    *,
    ordered: bool,
    ahead: int,
) -> Iterator[Any]:
    """Return an iterator over the results, in order or as they come; it submits calls as they are taken, `ahead` more.

    An error of the iterables comes at its place, after the results of the items before.
    """
    line = _Progress(progress, _length(iterables))
    source = _submitted(submit, iterators("imap" if ordered else "imap_unordered", iterables), size)
    return _take_lazily(source, size, line, ordered, ahead)


def _take_lazily(source: Iterator[Future[Any]], size: int, line: _Progress, ordered: bool, ahead: int) -> Iterator[Any]:
    failure: Exception | None = None  # of the iterables
    pending: dict[Future[Any], None] = {}  # an ordered set
    done: queue.SimpleQueue[Future[Any]] = queue.SimpleQueue()

    def fill(count: int) -> None:
        nonlocal failure
        if failure is not None:
            return
        try:
            for future in itertools.islice(source, count):
                pending[future] = None
                if not ordered:
                    future.add_done_callback(done.put)
        except Exception as error:
            failure = error

    try:
        fill(ahead)
        while pending:
            future = next(iter(pending)) if ordered else done.get()
            if ordered:
                future.exception()  # wait for it
            del pending[future]
            fill(1)
            values = _values(future, None, size)
            del future
            while values:
                line.step()
                yield _value(values.pop())
        if failure is not None:
            raise failure
    finally:
        failure = None  # its traceback refers to this frame
        line.close()
        _cancel(pending)


def results(given: Iterable[Future[T]], ordered: bool, timeout: float | None, progress: bool) -> Iterator[T]:
    """Return an iterator over the results of these futures. Raises TypeError if one of them is none."""
    if not isinstance(given, Iterable):
        raise TypeError(f"results takes a list of the futures that submit has returned, not {given!r}")
    futures = list(given)
    for one in futures:
        if not isinstance(one, Future):
            raise TypeError(f"results takes the futures that submit has returned, and {one!r} is none")
    until = None if timeout is None else time.monotonic() + timeout
    line = _Progress(progress, len(futures))

    def left() -> float | None:
        return None if until is None else until - time.monotonic()

    def take() -> Iterator[T]:
        try:
            for future in futures if ordered else as_completed(futures, left()):
                line.step()
                yield future.result(left() if ordered else None)
        finally:
            line.close()

    return take()


def iterators(method: str, iterables: tuple[Iterable[Any], ...]) -> list[Iterator[Any]]:
    """Return an iterator for each of them; raise TypeError, in the name of that method, if one has none."""
    found = []
    for each in iterables:
        try:
            found.append(iter(each))
        except TypeError:
            raise TypeError(f"{method} takes an iterable for each argument of the function, not {each!r}") from None
    return found


def _submitted(submit: Submit, iterators: list[Iterator[Any]], size: int) -> Iterator[Future[Any]]:
    arguments = zip(*iterators, strict=False)
    while True:
        items: list[tuple[Any, ...]] = []
        try:
            items.extend(itertools.islice(arguments, size))
        except Exception:
            if items:
                yield submit(items)
            raise
        if not items:
            return
        yield submit(items)


class _Failed:
    """Stands for the error of an item among the results of a chunk."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


def _values(future: Future[Any], timeout: float | None, size: int) -> list[Any]:
    """Return the result of a single task, or those of a chunk, the first one last."""
    try:
        result = future.result(timeout)
    except BaseException:
        future.cancel()  # it is not there in time, and nothing waits for it any more
        raise
    finally:
        del future  # a raised error would refer to it
    if size == 1:
        return [result]
    if isinstance(result, Outcomes):
        values = [*result.values]
        for index, error in result.errors.items():
            values[index] = _Failed(error)
        result = values
    result.reverse()
    return result  # type: ignore[no-any-return]


def _value(value: Any) -> Any:
    if isinstance(value, _Failed):
        raise value.error
    return value


def _cancel(futures: Iterable[Future[Any]]) -> None:
    for future in list(futures):
        future.cancel()


def _length(iterables: tuple[Iterable[Any], ...]) -> int | None:
    sizes = [len(each) for each in iterables if isinstance(each, Sized)]
    return min(sizes) if len(sizes) == len(iterables) and sizes else None
