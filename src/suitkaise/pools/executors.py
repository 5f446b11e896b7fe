"""`ProcessPool` and `ThreadPool`: executors of `concurrent.futures` whose workers are supervised."""

from __future__ import annotations

import inspect
import itertools
import os
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor, Future
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Never, NoReturn, ParamSpec, Self, TypedDict, TypeVar

from suitkaise.errors import no_attribute
from suitkaise.messaging.answer import checked_timeout
from suitkaise.platform.processes import after_fork_in_child
from suitkaise.pools import batches
from suitkaise.pools.errors import OTHER_NAMES
from suitkaise.pools.lines import Initializer, PoolWorker, ProcessWorker, ThreadWorker
from suitkaise.pools.scheduler import Scheduler, live
from suitkaise.pools.task import Limits, PoolFuture, Task, name_of
from suitkaise.specs.options import NOT_GIVEN, checked_id, is_number, refuse_unknown
from suitkaise.specs.recipe import snapshot
from suitkaise.specs.signatures import is_async_function, is_generator_function, misfit

__all__ = ["Pool", "PoolOptions", "ProcessPool", "ThreadPool", "checked_count", "checked_initializer"]

P = ParamSpec("P")
T = TypeVar("T")

_numbers = itertools.count(1)

_OPTIONS = (
    "max_workers", "initializer", "initargs", "max_tasks_per_worker", "timeout", "retries", "name",
)  # fmt: skip

_AHEAD = 16
"""How many tasks for each worker `imap` submits ahead of the results that were taken."""


class PoolOptions(TypedDict, total=False):
    """The options of a `Pool` besides its size, for the functions that pass them on."""

    initializer: Callable[..., object] | None
    initargs: tuple[Any, ...]
    max_tasks_per_worker: int | None
    timeout: float | None
    retries: int
    name: str | None


class Pool(Executor, ABC):
    """The common part of `ProcessPool` and `ThreadPool`.

    Args:
        max_workers: the largest number of workers; they are started when tasks need them.
        initializer, initargs: a function that each worker calls first, and its arguments. If it fails three times in
            a row, and no worker runs, the pool is broken.
        max_tasks_per_worker: how many tasks a worker runs before a new one takes its place (default None: any number).
        timeout: seconds that one attempt of a task may take (default None: no limit). A worker whose task takes longer
            is killed; a chunk of `map` may take that time for each of its items.
        retries: how often a task is tried again after its worker died or took too long (default 2; 0: never run a task
            twice). A task that raises an exception is not tried again. A task that has ended its worker at each
            attempt fails with `TaskFailed`, alone.
        name: the name of the supervisor of the workers (default: `process-pool-1`, `thread-pool-2`, ...).
        unknown: other options are refused.

    Raises:
        ValueError, TypeError: an argument is wrong, or the initializer does not take the `initargs`.
    """

    _kind: ClassVar[str]
    _other_names: ClassVar[Mapping[str, str]] = OTHER_NAMES

    def __init__(
        self,
        max_workers: int | None = None,
        *,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        max_tasks_per_worker: int | None = None,
        timeout: float | None = None,
        retries: int = 2,
        name: str | None = None,
        **unknown: Never,
    ) -> None:
        refuse_unknown(type(self).__name__, unknown, _OPTIONS)
        workers = self._default_workers() if max_workers is None else checked_count("max_workers", max_workers)
        if max_tasks_per_worker is not None:
            checked_count("max_tasks_per_worker", max_tasks_per_worker)
        self._limits = _checked(Limits(timeout, retries))
        first = checked_initializer(initializer, initargs)
        if self._kind == "process":  # a worker that starts later gets what the first one got
            first = initializer, snapshot(first[1])
        self._scheduler = Scheduler(
            f"{self._kind}-pool-{next(_numbers)}" if name is None else checked_id(name, type(self).__name__),
            workers,
            max_tasks_per_worker,
            _maker(type(self), first),
            processes=self._kind == "process",
        )
        self._owner: Pool | None = None
        weakref.finalize(self, self._scheduler.shutdown, wait=False, cancel=False).atexit = False

    @staticmethod
    @abstractmethod
    def _default_workers() -> int:
        """Return the number of workers of a pool that was given none."""

    def _check_function(self, method: str, fn: object) -> None:
        if not callable(fn):
            raise TypeError(
                f"{method} takes the function itself first, and what it is called with after it; got {fn!r}"
            )

    @staticmethod
    @abstractmethod
    def _make_worker(scheduler: Scheduler, id: str, initializer: Initializer) -> PoolWorker:
        """Return a worker that was not started."""

    # ------------------------------------------------------------ facts
    @property
    def name(self) -> str:
        """The name of the supervisor of the workers: `whereis(pool.name).which_children()` lists them."""
        return self._scheduler.name

    @property
    def max_workers(self) -> int:
        """The largest number of workers."""
        return self._scheduler.max_workers

    # ------------------------------------------------------------ single tasks
    def options(self, *, timeout: float | None = NOT_GIVEN, retries: int = NOT_GIVEN) -> Self:
        """Return this pool with other limits for the tasks that are submitted through the returned object.

        >>> with ThreadPool(2, timeout=10) as pool:
        ...     pool.options(timeout=60, retries=0).submit(pow, 2, 3).result()
        8
        """
        limits = Limits(
            self._limits.timeout if timeout is NOT_GIVEN else timeout,
            self._limits.retries if retries is NOT_GIVEN else retries,
        )
        pool = object.__new__(type(self))
        pool._limits, pool._scheduler, pool._owner = _checked(limits), self._scheduler, self
        return pool

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Have a worker call `fn(*args, **kwargs)`; return the future of the result.

        Raises:
            PoolBroken: no worker can be started, or the supervisor has ended.
            RuntimeError: the pool was shut down.
            SuitkaiseError: this is a worker process, which cannot have a pool of its own.
            TypeError: `fn` cannot be called; or it is async, in a pool of processes.
        """
        self._check_function("submit", fn)
        future: PoolFuture[T] = PoolFuture()
        self._scheduler.submit(Task(self._scheduler, future, self._limits, fn, args, kwargs))
        return future

    def _submitter(self, fn: Callable[..., Any], size: int) -> batches.Submit:
        """Return what submits a task for up to `size` items."""
        if size == 1:
            return lambda items: self.submit(fn, *items[0])

        def submit(items: list[tuple[Any, ...]]) -> Future[Any]:
            future: PoolFuture[Any] = PoolFuture()
            self._scheduler.submit(Task(self._scheduler, future, self._limits, fn, items=items))
            return future

        return submit

    # ------------------------------------------------------------ many tasks
    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
        progress: bool = False,
    ) -> Iterator[T]:
        """Call `fn` with the items of the iterables, all of which are read now; return the results in their order.

        Args:
            fn: the function.
            iterables: one for each argument of `fn`; the shortest one ends the calls.
            timeout: seconds from now until which all results must be there (default None: no limit).
            chunksize: how many items are sent to a process at once (default 1). Threads always get one.
            buffersize: how many chunks are submitted ahead of the results that were taken, as in Python 3.14; so
                the iterables may be endless. Default None: all are submitted now.
            progress: whether to show how many are done, if the standard error stream is a terminal.

        Raises:
            TimeoutError: from the iterator, if a result is not there in time.
            ValueError: `chunksize` or `buffersize` is less than 1.
            TypeError: `fn` cannot be called, an argument is no iterable, or a number is none.
            Exception: from the iterator, what `fn` raised; the calls that have not begun are cancelled then.
        """
        self._check_function("map", fn)
        size, buffer = self._chunk(chunksize), _checked_buffer(buffersize)
        return batches.map_all(self._submitter(fn, size), iterables, checked_timeout(timeout), size, progress, buffer)

    def imap(
        self, fn: Callable[..., T], *iterables: Iterable[Any], chunksize: int = 1, progress: bool = False
    ) -> Iterator[T]:
        """Do what `map` does, but read the iterables only as far as the workers need it: they may be endless.

        An error of an iterable comes from the iterator, after the results of the items before.
        """
        return self._map_lazily(fn, iterables, self._chunk(chunksize), progress, ordered=True)

    def imap_unordered(
        self, fn: Callable[..., T], *iterables: Iterable[Any], chunksize: int = 1, progress: bool = False
    ) -> Iterator[T]:
        """Do what `imap` does, with the results in the order in which they come."""
        return self._map_lazily(fn, iterables, self._chunk(chunksize), progress, ordered=False)

    def _map_lazily(
        self, fn: Callable[..., T], iterables: tuple[Iterable[Any], ...], size: int, progress: bool, *, ordered: bool
    ) -> Iterator[T]:
        self._check_function("imap" if ordered else "imap_unordered", fn)
        submit, ahead = self._submitter(fn, size), _AHEAD * self.max_workers
        return batches.map_lazily(submit, iterables, size, progress, ordered=ordered, ahead=ahead)

    @staticmethod
    def results(
        futures: Iterable[Future[T]], *, ordered: bool = True, timeout: float | None = None, progress: bool = False
    ) -> Iterator[T]:
        """Return the results of tasks that were submitted: in their order, or with `ordered=False` as they come.

        Raises:
            TimeoutError: from the iterator, if a result is not there within `timeout` seconds from now.
            TypeError: one of them is no future, or the timeout is no number.
            Exception: from the iterator, what a task raised.

        >>> with ThreadPool(2) as pool:
        ...     print(sum(pool.results([pool.submit(abs, -n) for n in range(4)], ordered=False)))
        6
        """
        return batches.results(futures, ordered, checked_timeout(timeout), progress)

    def _chunk(self, size: int) -> int:
        return checked_count("chunksize", size)

    # ------------------------------------------------------------ the end
    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more tasks, and end the workers when the tasks that there are have finished.

        Args:
            wait: whether to wait for that; a task of this pool cannot wait for its own end, and does not.
            cancel_futures: whether to cancel the tasks that have not begun.
        """
        self._scheduler.shutdown(wait=wait, cancel=cancel_futures)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Wait for the tasks and end the workers; after Ctrl-C, wait for no task."""
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            self._scheduler.interrupt()
        else:
            self.shutdown()

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> NoReturn:
            raise no_attribute(self, name, self._other_names, "pool")

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"a pool cannot be sent to another process: {self!r}")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.max_workers}, name={self.name!r})"


class ProcessPool(Pool):
    """A `concurrent.futures.Executor` of processes that no task can break.

    A worker that dies is replaced, and its task is tried again or fails alone, with the cause. Nothing else is touched.
    Functions, arguments and results travel as messages do; the functions of a script need no main guard. A task is
    packed when a worker is about to take it: change none of its arguments until it is done.

    >>> with ProcessPool(2) as pool:
    ...     print(list(pool.map(pow, [2, 3], [5, 2])))
    [32, 9]
    """

    _kind = "process"
    _other_names: ClassVar[Mapping[str, str]] = {**OTHER_NAMES, "terminate": "kill_workers()"}

    @staticmethod
    def _default_workers() -> int:
        return _cores()

    def _check_function(self, method: str, fn: object) -> None:
        super()._check_function(method, fn)
        if getattr(getattr(fn, "__code__", None), "co_flags", 0) & inspect.CO_COROUTINE:
            name = name_of(fn)
            raise TypeError(
                f"{method} takes a function that returns its result, and {name} is async: a worker of a pool has no "
                f"event loop. Give it a function that calls asyncio.run({name}(...)), or use running.task(...)"
            )

    @staticmethod
    def _make_worker(scheduler: Scheduler, id: str, initializer: Initializer) -> PoolWorker:
        return ProcessWorker(id, initializer)

    def kill_workers(self) -> None:
        """End the pool at once, as in Python 3.14: kill its workers, and return when they are gone.

        Tasks that have not begun are cancelled, those that run fail with `PoolBroken`, and the pool takes no more.
        """
        self._scheduler.kill()

    def terminate_workers(self) -> None:
        """Do what `kill_workers` does: a worker has nothing to do at its end that SIGKILL would cut off."""
        self.kill_workers()


class ThreadPool(Pool):
    """A `concurrent.futures.Executor` of supervised threads.

    A thread cannot be killed: one whose task takes longer than its `timeout` is abandoned and replaced. Its task fails
    with `TaskTimeout`, and is not tried again, because it may still run.
    """

    _kind = "thread"

    @staticmethod
    def _default_workers() -> int:
        return min(32, _cores() + 4)

    @staticmethod
    def _make_worker(scheduler: Scheduler, id: str, initializer: Initializer) -> PoolWorker:
        return ThreadWorker(id, initializer, scheduler)

    def _chunk(self, size: int) -> int:
        super()._chunk(size)
        return 1


def _maker(cls: type[Pool], initializer: Initializer) -> Callable[[Scheduler, str], PoolWorker]:
    return lambda scheduler, id: cls._make_worker(scheduler, id, initializer)


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def checked_count(name: str, value: Any) -> int:
    """Return the value if it is a whole number of 1 or more, else raise TypeError or ValueError."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number, not {value!r}")
    if value < 1:
        raise ValueError(f"{name} must be greater than 0, not {value}")
    return value


def _checked_buffer(size: Any) -> int | None:
    if size is not None and (isinstance(size, bool) or not isinstance(size, int)):
        raise TypeError(f"buffersize must be an integer or None, not {size!r}")
    if size is not None and size < 1:
        raise ValueError(f"buffersize must be None or > 0, not {size}")
    return size


def checked_initializer(initializer: Any, initargs: Any) -> Initializer:
    """Return what each worker calls first, and its arguments; raise TypeError unless such a call runs it."""
    if isinstance(initargs, str | bytes) or not isinstance(initargs, Iterable):
        raise TypeError(f"initargs must be a tuple of arguments, not {initargs!r}; for one: ({initargs!r},)")
    given = tuple(initargs)
    if initializer is None:
        return None, given
    if not callable(initializer):
        raise TypeError(f"initializer must be a callable, not {initializer!r}")
    name = name_of(initializer)
    if is_async_function(initializer) or is_generator_function(initializer):
        what = "async" if is_async_function(initializer) else "a generator"
        raise TypeError(f"initializer must be a plain function, and {name} is {what}: a call would run none of it")
    if why := misfit(initializer, *given):
        raise TypeError(f"initializer {name}{why}; got initargs={given!r}")
    return initializer, given


def _checked(limits: Limits) -> Limits:
    timeout, retries = limits.timeout, limits.retries
    if timeout is not None and not is_number(timeout):
        raise TypeError(f"timeout must be seconds, or None for no limit, not {timeout!r}")
    if timeout is not None and not timeout > 0:
        raise ValueError(f"timeout must be more than 0 seconds, not {timeout!r}")
    if isinstance(retries, bool) or not isinstance(retries, int):
        raise TypeError(f"retries must be a whole number, not {retries!r}")
    if retries < 0:
        raise ValueError(f"retries must be at least 0, not {retries}")
    return limits


after_fork_in_child(live.clear)
