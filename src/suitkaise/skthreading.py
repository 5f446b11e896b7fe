"""Threads in the words of the concept: `create_thread`, `SKThread`, setups, and what a thread can ask about itself.

`from suitkaise import skthreading` loads this module. Every thread that is made here is a child of a supervisor, as the
processes of `xprocess` are.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Never, NoReturn, Unpack

from suitkaise.concept.declare import Call
from suitkaise.concept.group import WorkerGroup, this_worker
from suitkaise.concept.setup import AfterLoop, BeforeLoop, OnFinish, OnStart, ThreadSetup
from suitkaise.errors import SpecError
from suitkaise.messaging.refs import WorkerRef
from suitkaise.specs.options import Options
from suitkaise.status import Status
from suitkaise.workers.worker import Thread

if TYPE_CHECKING:
    from suitkaise.pools import BoundPool
    from suitkaise.pools.executors import PoolOptions

__all__ = [
    "AfterLoop",
    "BeforeLoop",
    "OnFinish",
    "OnStart",
    "SKThread",
    "ThreadSetup",
    "add_last_result",
    "create_pool",
    "create_thread",
    "get_current_loop",
    "get_last_loop_time",
    "get_status",
    "get_thread_id",
    "get_thread_name",
    "get_thread_result",
    "get_thread_stats",
    "join_all",
    "list_threads",
    "recall",
    "rejoin",
    "shutdown",
]


class SKThread(Thread):
    """A worker in a thread, which runs its loop once, unless it says otherwise.

    `loop_infinitely = True` (in the class, or in `__init__`) has it loop until it is asked to rejoin; `num_loops`, that
    many times. A class without `loop` waits for messages. The hooks are those of `suitkaise.Thread`.

    >>> from suitkaise import skthreading
    >>> class Count(skthreading.SKThread):
    ...     num_loops = 3
    ...
    ...     def __on_start__(self):
    ...         self.count = 0
    ...
    ...     def __loop__(self):
    ...         self.count += 1
    ...         return self.count
    >>> thread = skthreading.create_thread(Count)
    >>> skthreading.get_thread_result(thread)
    3
    >>> skthreading.shutdown()
    """

    restart: ClassVar[str] = "transient"
    loop_infinitely: bool = False

    _worker_settings: ClassVar[tuple[str, ...]] = ("loop_infinitely",)
    _loops_of_class: ClassVar[float | None] = None
    _public_names: ClassVar[Mapping[str, str]] = {**Thread._public_names, "_loops_given": "num_loops"}

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "_num_loops" in vars(cls):  # where `Worker` has put the `num_loops` of the class
            cls._loops_of_class = vars(cls)["_num_loops"]
            del cls._num_loops
        _check_loops(cls, cls._loops_of_class, cls.loop_infinitely)

    @property
    def _num_loops(self) -> float | None:
        given: float | None = self.__dict__.get("_loops_given", self._loops_of_class)
        _check_loops(type(self), given, self.loop_infinitely)
        if given is None and type(self).loop is Thread.loop:  # without a loop, it waits for messages
            return None
        return math.inf if self.loop_infinitely else 1 if given is None else given

    @_num_loops.setter
    def _num_loops(self, loops: float | None) -> None:
        self.__dict__["_loops_given"] = loops
        _check_loops(type(self), loops, self.loop_infinitely)


def _check_loops(cls: type, number: float | None, infinitely: bool) -> None:
    if not isinstance(infinitely, bool | property):
        raise SpecError(f"{cls.__name__}: loop_infinitely must be True or False, not {infinitely!r}")
    Options(cls.__name__, {"num_loops": number}, {}, object).loops()
    if infinitely and number not in (None, math.inf):
        raise SpecError(f"{cls.__name__}: set loop_infinitely or num_loops, not both")


class _Threads(WorkerGroup):
    """The threads of this program."""

    _kind: ClassVar[Literal["thread"]] = "thread"
    _instead_in_workers: ClassVar[str] = (
        "skthreading makes threads of the main program; a worker starts threads of its own with self.start_thread(...)"
    )


_threads = _Threads("skthreading", max_restarts=3, max_seconds=5.0)


# ---------------------------------------------------------------- making threads
def create_thread(
    *what: Any,
    name: str | None = None,
    func: Any = None,
    setup: Any = None,
    args: tuple[Any, ...] | list[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    **unknown: Never,
) -> WorkerRef:
    """Start a thread; return its ref when it has started: `create_thread([name,] func, [setup], args, kwargs)`.

    The thread calls the function once, unless its setup or `kwargs` say otherwise: `loop_infinitely` and `num_loops` of
    a `ThreadSetup` or an `SKThread`, `join_after` (`math.inf`: until it is asked to rejoin) and `join_in` in `kwargs`.
    A thread that crashes or hangs is started again, up to 3 times within 5 seconds. At the end of the program it is
    waited for, as any thread is.

    Args:
        what: the name, the function or worker, the setup, `args` and `kwargs`, in this order; the name and the setup
            may be left out. Or give them by the keywords below.
        name: default: the name of the worker, or of the function. A name that is taken gets a number.
        func: a function; or an `SKThread` or `suitkaise.Thread` (an instance, or its class).
        setup: what the `build()` of a `ThreadSetup` returned. Or an `SKThread` without a loop, or its class: the
            function is its loop then, and gets `args` and `kwargs`.
        args: the positional arguments of the function (or of the worker's class).
        kwargs: its keyword arguments; the options of `Child` among them configure the thread.
        unknown: other keywords are refused; the error says where they belong.

    Raises:
        TypeError: `func` is not callable: the function was called instead of being passed.
        SpecError: an option is wrong or misspelt, or the parts do not go together.
        ChildStartFailed: `on_start` failed.
        SuitkaiseError: called in another process than the main program.

    >>> from suitkaise import skthreading
    >>> thread = skthreading.create_thread("adder", sum, args=([1, 2],))
    >>> skthreading.get_thread_result(thread)
    3
    >>> skthreading.shutdown()
    """
    return _threads._create(Call("create_thread", what, name, func, setup, args, kwargs, unknown))


def create_pool(func_or_worker: Any, size: int | None = None, **options: Unpack[PoolOptions]) -> BoundPool:
    """Make a pool of threads: see `suitkaise.pools.create_pool`."""
    from suitkaise.pools import create_pool

    return create_pool("thread", func_or_worker, size, **options)


# ---------------------------------------------------------------- inside of a thread
def add_last_result(results: list[Any]) -> None:
    """Append what the function returned in this loop to the list; for `AfterLoop`.

    Raises:
        RuntimeError: called outside of a worker.
    """
    results.append(this_worker("add_last_result").last_result)


def get_thread_name() -> str:
    """Return the name of the thread that calls this. Raises RuntimeError outside of a worker."""
    return this_worker("get_thread_name").ref.name


def get_thread_id() -> int:
    """Return the identity of this thread, as `threading.get_ident()`. Raises RuntimeError outside of a worker."""
    this_worker("get_thread_id")
    return threading.get_ident()


def get_current_loop() -> int:
    """Return the number of the loop that this thread is in, from 1. Raises RuntimeError outside of a worker."""
    return this_worker("get_current_loop").current_loop


def get_last_loop_time() -> float:
    """Return the seconds that the last loop of this thread took. Raises RuntimeError outside of a worker."""
    return this_worker("get_last_loop_time").last_loop_time


# ---------------------------------------------------------------- all threads
def list_threads() -> dict[str, Status]:
    """Return the status of each thread that was made here, by name."""
    return _threads._statuses()


def join_all(timeout: float | None = None) -> dict[str, Status]:
    """Wait until all threads have ended, at most `timeout` seconds; return their statuses.

    Raises:
        AskTimeout: some still run; the error names them.
    """
    return _threads._join_all(timeout)


def shutdown(timeout: float | None = None) -> None:
    """Ask all threads to finish, and wait until they have, at most `timeout` seconds. Their results stay known.

    Raises:
        AskTimeout: not all have ended in time; they go on to finish.
    """
    _threads.shutdown(timeout)


# ---------------------------------------------------------------- one thread, by its name or ref
def get_status(thread: str | WorkerRef) -> Status:
    """Return the status of a thread. Raises ChildNotFound."""
    return _threads._status_of(thread)


def recall(thread: str | WorkerRef) -> None:
    """Start a thread anew: ask it to finish, if it runs, and start it again. Returns when it is up.

    Raises:
        ChildNotFound: there is no such thread.
        ChildStartFailed: it did not start again.
        DeadlockError: a thread recalls itself.
    """
    _threads._live_ref(thread).recall()


def rejoin(thread: str | WorkerRef, timeout: float | None = None) -> None:
    """Ask a thread to finish its loop and end; return when it has, after at most `timeout` seconds.

    A thread that rejoins itself goes on until its loop is over.

    Raises:
        ChildNotFound: there is no such thread.
        AskTimeout: it still runs; it goes on to finish.
    """
    _threads._rejoin(thread, timeout)


def get_thread_result(thread: str | WorkerRef, timeout: float | None = None) -> Any:
    """Wait until a thread has ended for good, at most `timeout` seconds; return what its last loop returned.

    Raises:
        WorkerFailed: it ended without a result: it crashed or hung. The error has the cause.
        ChildNotFound: there is no such thread.
        AskTimeout: it still runs.
    """
    return _threads._result(thread, timeout)


def get_thread_stats(thread: str | WorkerRef) -> dict[str, Any]:
    """Return what is known of a thread now, or was at its end: see `CrossProcessing.get_process_stats`.

    Raises:
        ChildNotFound: there is no such thread.
    """
    return _threads._stats(thread)


_OTHER_NAMES = {
    "start": "create_thread(...)", "run": "create_thread(...)", "create": "create_thread(...)",
    "start_new_thread": "create_thread(...)", "join": "join_all(), or skthreading.get_thread_result(thread)",
    "wait": "join_all(), or skthreading.get_thread_result(thread)", "result": "get_thread_result(thread)",
    "get_result": "get_thread_result(thread)", "is_alive": "get_status(thread)", "status": "list_threads()",
    "threads": "list_threads()", "enumerate": "list_threads()", "get_threads": "list_threads()",
    "stop": "rejoin(thread)", "terminate": "rejoin(thread)", "kill": "rejoin(thread): a thread cannot be killed",
    "restart": "recall(thread)", "close": "shutdown()", "current_thread": "get_thread_name()",
    "get_ident": "get_thread_id()", "ThreadPool": "create_pool(function, size)", "Pool": "create_pool(function, size)",
}  # fmt: skip
"""What threading and its like have, by the name that it has here."""


if not TYPE_CHECKING:  # a type checker is to know the names that there are

    def __getattr__(name: str) -> NoReturn:
        hint = f"; use skthreading.{_OTHER_NAMES[name]}" if name in _OTHER_NAMES else ""
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}{hint}", name=name)
