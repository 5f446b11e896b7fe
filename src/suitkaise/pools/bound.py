"""Pools that are bound to one function or worker class: the pools of `xprocess` and `skthreading`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Self, Unpack

from suitkaise.errors import no_attribute
from suitkaise.pools.batches import iterators
from suitkaise.pools.errors import OTHER_NAMES
from suitkaise.pools.executors import Pool, PoolOptions, ProcessPool, ThreadPool, checked_count, checked_initializer
from suitkaise.pools.runners import Hosted, host
from suitkaise.specs import Child
from suitkaise.specs.options import NOT_GIVEN
from suitkaise.specs.recipe import Recipe, Startable, without_parameters
from suitkaise.workers.hooks import is_async
from suitkaise.workers.worker import Worker

__all__ = ["BoundPool", "create_pool"]


_UNUSED = (
    "start_timeout", "receive_timeout", "finish_timeout", "join_in", "join_after", "drain", "mailbox", "keep_children",
    "max_memory",
)  # fmt: skip
"""The options of a worker class that would change what its workers do in a tree, and that a pool does not carry out."""

_OTHER_NAMES = {name: here.replace("function, ", "") for name, here in OTHER_NAMES.items()}
"""What pools of other libraries have, by the name that a pool with a function has for it."""


def create_pool(
    kind: Literal["process", "thread"], func_or_worker: Any, size: int | None = None, **options: Unpack[PoolOptions]
) -> BoundPool:
    """Make a pool whose workers all do one thing.

    Args:
        kind: `"process"` or `"thread"`.
        func_or_worker: a function, called with each item; or a worker class (or a worker as a recipe) with
            `on_receive`: each worker of the pool has one worker object, runs its `on_start` and `on_finish`, and
            answers each item with its `on_receive`. One with limits of its own, such as `receive_timeout`, is refused.
        size: the largest number of workers (default: as `ProcessPool` and `ThreadPool` have it).
        options: the other options of `ProcessPool` and `ThreadPool`: `timeout`, `retries`, `name`, ...

    Raises:
        ValueError, TypeError: an argument is wrong.

    >>> with create_pool("thread", abs, 2) as pool:
    ...     print(pool.submit(-3).result(), list(pool.map([-1, -2])))
    3 [1, 2]
    """
    if kind not in ("process", "thread"):
        raise ValueError(f"kind must be 'process' or 'thread', not {kind!r}")
    if size is not None:
        checked_count("size", size)
    function = without_parameters(func_or_worker)
    if isinstance(function, Startable) or (isinstance(function, type) and issubclass(function, Startable)):
        recipe = _checked_worker(kind, function)
        own = checked_initializer(options.pop("initializer", None), options.pop("initargs", ()))
        options["initargs"] = recipe, *own
        options["initializer"] = host
        function = Hosted(recipe.name)
    elif not callable(function):
        called = " (was the function called instead of being passed?)" if function is None else ""
        raise TypeError(f"create_pool needs a function or a worker class, not {function!r}{called}")
    pool: Pool = (ProcessPool if kind == "process" else ThreadPool)(size, **options)
    pool._check_function("create_pool", function)
    return BoundPool(function, pool)


def _checked_worker(kind: str, what: Any) -> Recipe:
    child = Child(what)
    recipe = child.what
    cls: Any = recipe.target if isinstance(recipe, Recipe) else None
    if not isinstance(recipe, Recipe) or not issubclass(cls, Worker) or child.kind != kind:
        raise TypeError(f"a pool of kind {kind!r} cannot have workers of kind {child.kind!r}")
    if cls.on_receive is Worker.on_receive:
        raise TypeError(f"{cls.__name__} has no on_receive, which a pool calls with each item")
    if cls.loop is not Worker.loop:
        raise TypeError(f"{cls.__name__} has a loop, which a pool would never call; define on_receive alone")
    for hook in ("before_loop", "after_loop", "handle_timeout"):
        if getattr(cls, hook) is not getattr(Worker, hook):
            raise TypeError(f"{cls.__name__} has {hook}, which a pool would never call; define on_receive alone")
    if cls.background:
        raise TypeError(
            f"{cls.__name__} has background threads, which a pool does not start; use self.start_thread in on_start"
        )
    for option in _UNUSED:
        if getattr(child, option) not in (None, False):
            hint = "; give the pool a timeout, which limits each task" if option == "receive_timeout" else ""
            raise TypeError(f"{cls.__name__} sets {option}, which a pool does not use{hint}")
    if is_async(recipe):
        raise TypeError(f"{cls.__name__} has async hooks, which a pool does not call")
    return recipe


class BoundPool:
    """A pool that calls one function, or has one kind of worker; a context manager. `create_pool` makes it."""

    def __init__(self, function: Callable[..., Any], pool: Pool) -> None:
        self._function = function
        self._pool = pool

    @property
    def executor(self) -> Executor:
        """The pool as an executor, which takes other functions, too: for `loop.run_in_executor`, say."""
        return self._pool

    @property
    def name(self) -> str:
        """The name of the supervisor of the workers."""
        return self._pool.name

    @property
    def size(self) -> int:
        """The largest number of workers."""
        return self._pool.max_workers

    def submit(self, *args: Any, **kwargs: Any) -> Future[Any]:
        """Have a worker call the function; return the future of the result. Raises what `Pool.submit` raises."""
        return self._pool.submit(self._function, *args, **kwargs)

    def map(
        self,
        *iterables: Iterable[Any],
        ordered: bool = True,
        timeout: float | None = None,
        chunksize: int | None = None,
        progress: bool = False,
    ) -> Iterator[Any]:
        """Call the function with the items; return the results in order, or with `ordered=False` as they come.

        Args:
            iterables: one for each argument of the function; the shortest one ends the calls.
            ordered: whether the results come in the order of the items.
            timeout: seconds until which all results must be there; needs `ordered=True`.
            chunksize: how many items are sent to a process at once. Default: so many that each process gets four times
                some, as `multiprocessing.Pool.map` does it; one by one if each call has a time-out, or is not to be
                tried again, since the items of a chunk share their fate.
            progress: whether to show how many are done, if the standard error stream is a terminal.

        Raises:
            TimeoutError, Exception: as `Pool.map` raises them.
        """
        self._refuse_function("map", iterables)
        calls = list(zip(*iterators("map", iterables), strict=False))  # some of them may be endless
        lists = list(zip(*calls, strict=True))
        if chunksize is None:
            chunksize = self._chunk_for(len(calls))
        if ordered:
            return self._pool.map(self._function, *lists, timeout=timeout, chunksize=chunksize, progress=progress)
        if timeout is not None:
            raise ValueError("map(ordered=False) takes no timeout; use options(timeout=...) to limit each task")
        return self._pool.imap_unordered(self._function, *lists, chunksize=chunksize, progress=progress)

    def _refuse_function(self, method: str, iterables: tuple[Any, ...]) -> None:
        if iterables and callable(iterables[0]) and not isinstance(iterables[0], Iterable):
            name = getattr(self._function, "__name__", "its function")
            raise TypeError(
                f"{method} takes the items alone: this pool calls {name} with them; got {iterables[0]!r} in their place"
            )

    def _chunk_for(self, items: int) -> int:
        limits = self._pool._limits
        return 1 if limits.timeout is not None or not limits.retries else max(1, -(-items // (4 * self.size)))

    def imap(
        self, *iterables: Iterable[Any], ordered: bool = True, chunksize: int = 1, progress: bool = False
    ) -> Iterator[Any]:
        """Do what `map` does, but read the iterables only as far as the workers need it: they may be endless."""
        self._refuse_function("imap", iterables)
        lazily = self._pool.imap if ordered else self._pool.imap_unordered
        return lazily(self._function, *iterables, chunksize=chunksize, progress=progress)

    def results(
        self,
        futures: Iterable[Future[Any]],
        *,
        ordered: bool = True,
        timeout: float | None = None,
        progress: bool = False,
    ) -> Iterator[Any]:
        """Return the results of tasks that were submitted, see `Pool.results`."""
        return self._pool.results(futures, ordered=ordered, timeout=timeout, progress=progress)

    def options(self, *, timeout: float | None = NOT_GIVEN, retries: int = NOT_GIVEN) -> BoundPool:
        """Return this pool with another `timeout` or `retries`, see `Pool.options`."""
        return BoundPool(self._function, self._pool.options(timeout=timeout, retries=retries))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more tasks, and end the workers, see `Pool.shutdown`."""
        self._pool.shutdown(wait, cancel_futures=cancel_futures)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> NoReturn:
            raise no_attribute(self, name, _OTHER_NAMES, "pool")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._pool.__exit__(kind, error, traceback)

    def __repr__(self) -> str:
        return f"BoundPool({self._function!r}, {self._pool!r})"
