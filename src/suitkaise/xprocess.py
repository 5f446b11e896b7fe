"""Processes in the words of the concept: `CrossProcessing`, setups, and what a process can ask about itself.

`from suitkaise import xprocess` loads this module. Every process that is made here is a child of a supervisor.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Never, NoReturn, Self, Unpack

from suitkaise.concept.declare import Call
from suitkaise.concept.group import WorkerGroup, this_worker
from suitkaise.concept.setup import AfterLoop, BeforeLoop, OnFinish, OnStart, ProcessSetup
from suitkaise.errors import ChildNotFound, no_attribute
from suitkaise.messaging.refs import WorkerRef
from suitkaise.specs.options import checked_id, checked_intensity
from suitkaise.status import Status
from suitkaise.workers.worker import Process

if TYPE_CHECKING:
    from suitkaise.pools import BoundPool
    from suitkaise.pools.executors import PoolOptions

__all__ = ["AfterLoop", "BeforeLoop", "CrossProcessing", "OnFinish", "OnStart", "Process", "ProcessSetup"]


class CrossProcessing(WorkerGroup):
    """Makes processes, keeps them alive, and knows them by name.

    The processes are children of a supervisor (`one_for_one`), which starts with the first of them. One that crashes,
    is killed or hangs is started again: they are `transient`. One that would need more than `max_restarts` within
    `max_seconds` is given up alone. The processes of the program itself may use the object, too: it travels as the path
    of its supervisor.

    At the end of the program, `CrossProcessing` waits for its processes, as `multiprocessing` does; Ctrl-C asks them to
    finish then, and a second one kills them. As a context manager it asks them to finish at the end of the block.

    Args:
        name: the name of the supervisor, which the paths of the processes begin with (default `"xprocess"`); it gets a
            number while another tree of that name runs.
        max_restarts: restarts that each process may need within `max_seconds` (default 3).
        max_seconds: the length of that window, in seconds (default 5.0).

    >>> from suitkaise import xprocess
    >>> def count(start, step=1):
    ...     xp.get_current_loop()
    ...     return start + step
    >>> with xprocess.CrossProcessing() as xp:
    ...     ref = xp.create_process("counter", count, args=(1,), kwargs={"step": 2, "join_after": 3})
    ...     xp.get_process_result("counter")
    3
    """

    Process: ClassVar[type[Process]] = Process
    ProcessSetup: ClassVar[type[ProcessSetup]] = ProcessSetup
    OnStart: ClassVar[type[OnStart]] = OnStart
    BeforeLoop: ClassVar[type[BeforeLoop]] = BeforeLoop
    AfterLoop: ClassVar[type[AfterLoop]] = AfterLoop
    OnFinish: ClassVar[type[OnFinish]] = OnFinish

    _kind: ClassVar[Literal["process"]] = "process"
    _modules: ClassVar[tuple[str, ...]] = (__name__, "suitkaise.concept.setup_worker")
    _instead_in_workers: ClassVar[str] = (
        "use the CrossProcessing of the main program, with which it has made a process already; "
        "pass it as an argument, or let the function name it"
    )

    def __init__(self, name: str = "xprocess", *, max_restarts: float = 3, max_seconds: float = 5.0) -> None:
        name = checked_id(name, "CrossProcessing")
        checked_intensity(f"CrossProcessing {name!r}", max_restarts, max_seconds)
        super().__init__(name, max_restarts=max_restarts, max_seconds=max_seconds)

    # ------------------------------------------------------------ making processes
    def create_process(
        self,
        *what: Any,
        name: str | None = None,
        func: Any = None,
        setup: Any = None,
        args: tuple[Any, ...] | list[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **unknown: Never,
    ) -> WorkerRef:
        """Start a process; return its ref when it has started: `create_process([name,] func, [setup], args, kwargs)`.

        The process calls the function once a loop, until `join_in` or `join_after` ends it, `rejoin` is called, or the
        program ends. A `Process` of your own brings its loop with it.

        Args:
            what: the name, the function or worker, the setup, `args` and `kwargs`, in this order; the name and the
                setup may be left out. Or give them by the keywords below.
            name: default: the name of the worker, or of the function. A name that is taken gets a number, with a
                warning if you have given it.
            func: a function; or a `Process` (an instance, or its class), or a `Command`.
            setup: what the `build()` of a `ProcessSetup` returned. Or a `Process` without a loop, or its class: the
                function is its loop then, and gets `args` and `kwargs`.
            args: the positional arguments of the function (or of the worker's class).
            kwargs: its keyword arguments. The options of `Child` among them configure the process instead: `join_in`,
                `join_after` (or `num_loops`), `restart`, `max_restarts`, `max_seconds`, `loop_timeout` and the other
                limits, `backoff`, `shutdown`, `spares`, `early_restart`, `drain`, `env`, `keep_children`, `max_memory`,
                `mailbox`, `concurrency`, `place`, `user`, `group`.
            unknown: other keywords are refused; the error says where they belong.

        Raises:
            TypeError: `func` is not callable: the function was called instead of being passed.
            SpecError: an option is wrong or misspelt, or the parts do not go together.
            ChildStartFailed: `on_start` failed.
            NotSerializable: the function, its arguments or its setup cannot be sent to a process.
            SuitkaiseError: called in a worker, and the main program has made no process with this object.
        """
        _check_made(self, "create_process")
        return self._create(Call("create_process", what, name, func, setup, args, kwargs, unknown))

    def create_pool(self, func_or_worker: Any, size: int | None = None, **options: Unpack[PoolOptions]) -> BoundPool:
        """Make a pool of processes: see `suitkaise.pools.create_pool`."""
        _check_made(self, "create_pool")
        from suitkaise.pools import create_pool

        return create_pool("process", func_or_worker, size, **options)

    # ------------------------------------------------------------ inside of a process
    def get_process_name(self) -> str:
        """Return the name of the process that calls this. Raises RuntimeError outside of a worker."""
        return this_worker("get_process_name").ref.name

    def get_process_id(self) -> int:
        """Return the process id of the process that calls this. Raises RuntimeError outside of a worker."""
        this_worker("get_process_id")
        return os.getpid()

    def get_current_loop(self) -> int:
        """Return the number of the loop that this process is in, from 1. Raises RuntimeError outside of a worker."""
        return this_worker("get_current_loop").current_loop

    def get_last_loop_time(self) -> float:
        """Return the seconds that the last loop of this process took; in an `AfterLoop`, the loop before it.

        Raises:
            RuntimeError: called outside of a worker.
        """
        return this_worker("get_last_loop_time").last_loop_time

    # ------------------------------------------------------------ all processes
    def list_processes(self) -> dict[str, Status]:
        """Return the status of each process, by name, in the order in which they were made.

        A `temporary` process is left out after its end; `get_status` knows it for a while.
        """
        return self._statuses()

    def join_all(self, timeout: float | None = None) -> dict[str, Status]:
        """Wait until all processes have ended, restarts included; return their statuses.

        Args:
            timeout: seconds to wait (default None: no limit).

        Raises:
            AskTimeout: some still run; the error names them.
        """
        return self._join_all(timeout)

    # ------------------------------------------------------------ one process, by its name or ref
    def get_status(self, name: str | WorkerRef) -> Status:
        """Return the status of a process: `running`, `restarting`, `finished`, `crashed`, `killed`, `hung`, ...

        Raises:
            ChildNotFound: there is no such process; the error names the nearest.
        """
        return self._status_of(name)

    def recall(self, name: str | WorkerRef) -> None:
        """Start a process anew: ask it to finish, if it runs, and start it again. Returns when it is up.

        Raises:
            ChildNotFound: there is no such process.
            ChildStartFailed: it did not start again.
            DeadlockError: a process recalls itself.
        """
        self._live_ref(name).recall()

    def rejoin(self, name: str | WorkerRef, timeout: float | None = None) -> None:
        """Ask a process to finish its loop and end; return when it has. It is not started again.

        A process that rejoins itself goes on until its loop is over.

        Args:
            name: the name or ref.
            timeout: seconds to wait for the end (default None: no limit). `ref.rejoin()` asks, and does not wait.

        Raises:
            ChildNotFound: there is no such process.
            AskTimeout: it still runs; it goes on to finish.
        """
        self._rejoin(name, timeout)

    def kill(self, name: str | WorkerRef) -> None:
        """Kill a process; return when it is gone. It is not started again, unlike after `ref.kill()`, which is a fault.

        Raises:
            ChildNotFound: there is no such process.
            DeadlockError: a process kills itself.
        """
        ref = self._live_ref(name)  # first: without one, no supervisor is to be started
        with contextlib.suppress(ChildNotFound):  # a temporary one that has ended
            self._supervisor().kill_child(ref.name)

    def get_process_result(self, name: str | WorkerRef, timeout: float | None = None) -> Any:
        """Wait until a process has ended for good; return what its last loop returned, or its `result()`.

        Args:
            name: the name or ref.
            timeout: seconds to wait (default None: no limit).

        Raises:
            WorkerFailed: it ended without a result: it crashed, was killed or hung. The error has the cause.
            ChildNotFound: there is no such process.
            AskTimeout: it still runs.
        """
        return self._result(name, timeout)

    def get_process_stats(self, name: str | WorkerRef) -> dict[str, Any]:
        """Return what is known of a process now, or was at its end.

        The keys: `name`, `kind`, `status`, `pid` (None after the end), `restarts`, `uptime` (seconds since this start),
        `loops`, `total_loop_time`, `mean_loop_time`, `last_loop_time` (seconds, of this start), `messages` (handled),
        `memory` (bytes now, None after the end), `last_exit` (an exit reason).

        Raises:
            ChildNotFound: there is no such process.
        """
        return self._stats(name)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> NoReturn:
            raise no_attribute(self, name, _OTHER_NAMES, "xp")

    # ------------------------------------------------------------ the end
    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        running = self._running
        after_ctrl_c = kind is not None and issubclass(kind, KeyboardInterrupt)
        with running._killed_by_ctrl_c() if running is not None and after_ctrl_c else contextlib.nullcontext():
            self.shutdown()


_OTHER_NAMES = {
    "start": "create_process(...)", "run": "create_process(...)", "create": "create_process(...)",
    "start_process": "create_process(...)", "create_thread": "create_process(...), or skthreading.create_thread(...)",
    "join": "join_all(), or xp.get_process_result(name)", "wait": "join_all(), or xp.get_process_result(name)",
    "result": "get_process_result(name)", "get_result": "get_process_result(name)", "is_alive": "get_status(name)",
    "processes": "list_processes()", "active_children": "list_processes()", "get_processes": "list_processes()",
    "stop": "rejoin(name)", "terminate": "rejoin(name), or xp.kill(name)", "restart": "recall(name)",
    "close": "shutdown()", "current_process": "get_process_name()", "Pool": "create_pool(function, size)",
    "map": "create_pool(function, size)", "submit": "create_pool(function, size)",
}  # fmt: skip
"""What multiprocessing and its like have, by the name that it has here."""


def _check_made(xp: Any, function: str) -> None:
    if not isinstance(xp, CrossProcessing):  # `xp = CrossProcessing`, without parentheses
        raise TypeError(
            f"{function}() was called on the class CrossProcessing; "
            f"make xp = xprocess.CrossProcessing() once, and call xp.{function}(...)"
        )


if not TYPE_CHECKING:  # a type checker is to know the names that there are

    def __getattr__(name: str) -> NoReturn:
        there = name[:1] != "_" and hasattr(CrossProcessing, name)
        here = f"{name}(...)" if there else _OTHER_NAMES.get(name)
        hint = f"; make xp = xprocess.CrossProcessing() once, and call xp.{here}" if here else ""
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}{hint}", name=name)
