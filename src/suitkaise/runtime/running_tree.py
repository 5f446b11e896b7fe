"""A running tree: look at it, administer it, stop it."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Coroutine, Iterable, Iterator
from concurrent.futures import Future
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, ParamSpec, Self, TypeVar, overload

from suitkaise.crashes import CrashReport
from suitkaise.engines.engine import Exit
from suitkaise.errors import AskTimeout, ChildNotFound, DeadlockError, RuntimeGone, no_attribute
from suitkaise.exits import ExitReason
from suitkaise.messaging.answer import Answer, checked_timeout
from suitkaise.messaging.event_bus import Subscription
from suitkaise.messaging.held_back import send_held
from suitkaise.messaging.identity import current_path
from suitkaise.messaging.protocol import AdminAction
from suitkaise.messaging.refs import WorkerRef
from suitkaise.messaging.supervisor_ref import Administration, ChildLine, ref_to
from suitkaise.platform.flag import Flag
from suitkaise.platform.log_queue import QueuedLogger
from suitkaise.platform.threads import DaemonThread
from suitkaise.runtime import runtime as runtimes
from suitkaise.runtime.runtime import Runtime
from suitkaise.runtime.tasks import Stream, Task, Tasks
from suitkaise.specs import SupervisorSpec
from suitkaise.specs.options import checked_drain
from suitkaise.status import Status, TreeStatus, abandoned_threads
from suitkaise.supervision.interface import SupervisorInterface

if TYPE_CHECKING:
    import asyncio

__all__ = ["REPEAT", "RunningTree", "stop_former", "wait_until_done"]

logger: QueuedLogger = QueuedLogger("suitkaise")

REPEAT = 1.0
"""Seconds within which the same signal again is the same request (rule 70).

`timeout`, for example, sends its signal to the process and then to the process's group: two within a millisecond.
"""

A = TypeVar("A")
P = ParamSpec("P")
T = TypeVar("T")


class RunningTree(Administration):
    """A running tree, from `Supervisor.start()`; a context manager that stops the tree at the end of its block.

    Paths are relative to the tree: `running["counters/count-a"]`.

    >>> from suitkaise import DynamicSupervisor, Supervisor, Thread
    >>> class Work(Thread): ...
    >>> with Supervisor("app", Work, DynamicSupervisor("jobs")).start() as running:
    ...     job = running.start_child(Work("first"), under="jobs")
    ...     print([ref.path for ref in running], "work" in running)
    ...     running.terminate_child("work")
    ...     print(running["work"].status, running.count_children())
    ['app/work', 'app/jobs', 'app/jobs/first'] True
    stopped Counts(specs=2, active=1, supervisors=1, workers=1)
    """

    def __init__(self, supervisor: SupervisorInterface, runtime: Runtime) -> None:
        self._root = supervisor
        self._runtime = runtime
        self._run = runtime.crashes.run_of(self.name)
        self._reason: ExitReason | None = None
        self._leaving: dict[str, list[int]] = {}  # under "thread": that of the first call that leaves the runtime
        self._left = Flag()
        self._hub = os.getpid()
        self._ended = Flag()
        self._tasks: Tasks = Tasks(self)
        newest[self.name] = self
        supervisor.exited.add_done_callback(self._on_exit)

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"a running tree belongs to its program; others find its supervisor by whereis({self.name!r})")

    def _on_exit(self, exited: Future[Exit]) -> None:
        self._reason = exited.result().reason
        self._ended.set()

    # ------------------------------------------------------------ questions
    @property
    def name(self) -> str:
        """The tree's name, which is its path."""
        return self._root.path

    @property
    def path(self) -> str:  # type: ignore[override]
        """The tree's name, which all paths of its workers begin with."""
        return self._root.path

    @property
    def spec(self) -> SupervisorSpec:
        """The declaration that the tree was started from."""
        return self._root.spec

    def __getitem__(self, path: str) -> WorkerRef:
        """Return the ref of the worker or supervisor at `path`. Raises ChildNotFound (a LookupError).

        For a supervisor it is a `SupervisorRef`. Type checkers know a `WorkerRef`; for them, administer its children
        from here, by their paths: `running.start_child(child, under="jobs")`, `running.terminate_child("jobs/one")`.
        """
        if not isinstance(path, str):
            raise TypeError(f"running[...] takes the path of a worker below {self.name!r}, a str, not {path!r}")
        path = str.__str__(path)  # of a member of an enum
        try:
            kind = self._runtime.registry.kind_of(f"{self.name}/{path}")
        except ChildNotFound as error:
            if not path.startswith(f"{self.name}/"):
                raise
            short = path.removeprefix(f"{self.name}/")
            raise ChildNotFound(f"paths are relative to the tree: {short!r}; {error}", path=error.path) from None
        return ref_to(f"{self.name}/{path}", kind)

    def __contains__(self, path: object) -> bool:
        """Return whether there is a child at this path, or of this ref, now."""
        if isinstance(path, WorkerRef):
            return path.path.startswith(f"{self.name}/") and path.path in self._runtime.registry
        return isinstance(path, str) and f"{self.name}/{str.__str__(path)}" in self._runtime.registry

    def __iter__(self) -> Iterator[WorkerRef]:
        """Iterate over the refs of all workers and supervisors below, in start order, depth first."""
        yield from self._refs(self._root)

    def _refs(self, supervisor: SupervisorInterface) -> Iterator[WorkerRef]:
        for info in supervisor.which_children():
            yield info.ref
            below = supervisor.child(info.id)
            if below is not None:
                yield from self._refs(below)

    def status(self) -> TreeStatus:
        """Return the status of the whole tree at this moment."""
        supervisor = self._root
        return TreeStatus(
            self.name, "supervisor", supervisor.status, os.getpid(), 0, self._reason, self._lines(supervisor)
        )

    def _lines(self, supervisor: SupervisorInterface) -> tuple[TreeStatus, ...]:
        lines = []
        for info in supervisor.which_children():
            below = supervisor.child(info.id)
            lines.append(
                TreeStatus(
                    f"{supervisor.path}/{info.id}",
                    info.kind,
                    info.status,
                    self._pid(supervisor, info),
                    info.restarts,
                    info.last_exit,
                    () if below is None else self._lines(below),
                    info.abandoned,
                )
            )
        return tuple(lines)

    def _pid(self, supervisor: SupervisorInterface, info: ChildLine) -> int | None:
        try:
            return self._runtime.registry.find(f"{supervisor.path}/{info.id}").pid
        except (ChildNotFound, RuntimeGone):
            return None

    def events(self) -> Subscription:
        """Return an iterator over the events of this tree from now on; the iterator ends with the tree."""
        subscription = self._runtime.bus.events(self.name)
        if self._root.status in (Status.STOPPED, Status.FAILED):
            subscription.close()  # the last event may have been before the subscription
        return subscription

    def crashes(self) -> list[CrashReport]:
        """Return the reports of the newest abnormal exits in this tree, the newest last (rule 58).

        A program keeps 100 reports in memory. All are on disk, too, and outlive the program: see `suitkaise crashes`.
        """
        return self._runtime.crashes.reports(self.name, self._run)

    # ------------------------------------------------------------ administration
    def recall(self, id: str | WorkerRef) -> WorkerRef:
        """Stop a child by its shutdown, if it runs, and start it again: without its siblings, and not counted.

        Raises:
            ChildNotFound: there is no such child.
            ChildStartFailed: it failed to start; it stays stopped.
            DeadlockError: the child is the calling worker, or above it.
        """
        ref: WorkerRef = self._change_child(AdminAction.RECALL_CHILD, id)
        return ref

    # ------------------------------------------------------------ tasks
    @overload
    def task(self, function: Callable[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs) -> Task[T]: ...

    @overload
    def task(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Task[T]: ...

    def task(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Task[Any]:
        """Call `function(*args, **kwargs)` once, in a process of its own; return the future of its value, at once.

        The process is a temporary child of the dynamic supervisor `tasks` below the root, which is added with the first
        task unless the tree declares it (`DynamicSupervisor("tasks", max_children=8)`). It is not restarted, it ends
        with the tree, and the function may be `async def`.

        The future gets the function's value. It gets `WorkerFailed` if the function raised an error, its process died,
        or the tree stopped before; `WorkerDead`, `ChildStartFailed`, `MaxChildren` or `NotSerializable` if it could not
        be started. `task.cancel()` kills the process.

        Raises:
            SpecError: this is no function, or the arguments do not fit.
            WorkerDead: the tree does not run any more.

        >>> from suitkaise import Supervisor
        >>> with Supervisor("app").start() as running:
        ...     task = running.task(divmod, 17, 5)
        ...     print(task.path, task.result())
        app/tasks/divmod-1 (3, 2)
        """
        self._check_hub()
        return self._tasks.start(function, args, kwargs)

    @overload
    def stream(
        self,
        function: Callable[[A], Coroutine[Any, Any, T]],
        items: Iterable[A],
        *,
        limit: int | None = None,
        timeout: float | None = None,
    ) -> Stream[T]: ...

    @overload
    def stream(
        self,
        function: Callable[[A], T],
        items: Iterable[A],
        *,
        limit: int | None = None,
        timeout: float | None = None,
    ) -> Stream[T]: ...

    def stream(
        self,
        function: Callable[[Any], Any],
        items: Iterable[Any],
        *,
        limit: int | None = None,
        timeout: float | None = None,
    ) -> Stream[Any]:
        """Return `function(item)` for each item, in their order, to a `for` or an `async for` loop.

        Each call is a task of its own, see `task`. Items are taken only as tasks can begin. The first error of a task
        is raised, and then, or when the loop is left, the tasks that run are cancelled. An error of `items` itself
        comes at its place, after the values of the items before. For very many short calls, a pool does with few
        processes.

        Args:
            function: takes one item.
            items: any iterable, which may be endless.
            limit: how many tasks there are at a time, done or not (default None: one for each processor).
            timeout: seconds to wait for each value at most (default None: no limit).

        Raises:
            SpecError: `limit` is no whole number >= 1.
            WorkerFailed: a task has failed.
            AskTimeout: a value has not come in time.
            Exception: what taking the next item has raised.

        >>> from suitkaise import Supervisor
        >>> with Supervisor("app").start() as running:
        ...     print(list(running.stream(abs, [-3, 2, -1], limit=2)))
        [3, 2, 1]
        """
        self._check_hub()
        return self._tasks.stream(function, items, limit, timeout)

    # ------------------------------------------------------------ for both
    def _administer(self, under: str, action: AdminAction, argument: Any) -> Answer[Any]:
        self._check_hub()
        send_held()
        return self._supervisor(under).administer(action, argument)

    def _check_hub(self) -> None:
        if os.getpid() != self._hub:
            raise RuntimeGone(
                f"this is a forked copy of the program; {self.name!r} runs in the original", path=self.name
            )

    def _supervisor(self, path: str) -> SupervisorInterface:
        supervisor = self._root
        for name in path.split("/") if path else ():
            below = supervisor.child(name)
            if below is None:
                if self._root.exited.done():
                    raise self._root.policy.stopping_error()
                whole = f"{self.name}/{path}"
                raise ChildNotFound(f"no running supervisor at {whole!r}", path=whole)
            supervisor = below
        return supervisor

    # ------------------------------------------------------------ the end
    def wait(self, timeout: float | None = None) -> ExitReason:
        """Wait until the tree has ended, at most `timeout` seconds (None: no limit); return the root's exit reason.

        Raises:
            AskTimeout: the tree still runs, or is still being cleared away; that goes on.
            DeadlockError: the caller is a worker of this tree.
        """
        self._refuse_workers()
        self._check_hub()
        seconds = checked_timeout(timeout)
        deadline = None if seconds is None else time.monotonic() + seconds
        if not self._ended.wait(seconds):
            raise AskTimeout(f"{self.name!r} still runs after {timeout} s", path=self.name)
        self._leave(deadline)
        interrupts = self._leaving["thread"] == [threading.get_ident()]  # this is a signal handler
        if not interrupts and not self._left.wait(None if deadline is None else max(0.0, deadline - time.monotonic())):
            raise AskTimeout(
                f"{self.name!r} has ended, but is still being cleared away after {timeout} s", path=self.name
            )
        return self._root.exited.result().reason

    def _refuse_workers(self) -> None:
        caller = current_path()
        if caller.startswith(f"{self.name}/"):
            raise DeadlockError(
                f"{caller!r} is a worker of {self.name!r} and would wait for itself; to end the tree from inside, call "
                f"whereis({self.name!r}).rejoin()",
                path=self.name,
            )

    def stop(self, timeout: float | None = None, *, drain: float | None = None) -> ExitReason:
        """Stop all workers in reverse start order; return the exit reason. A tree that has ended stays as it is.

        Abandoned threads (rule 59) run on; a warning in the log names them (rule 46).

        Args:
            timeout: seconds to wait for the end (default None: no limit).
            drain: seconds for which each worker handles messages before it finishes, see `terminate_child` (rule 72).

        Raises:
            SpecError: `drain` is no such time; nothing is stopped.
            AskTimeout: the tree has not ended in time; it goes on stopping (rule 45).
            DeadlockError: the caller is a worker of this tree; nothing is stopped.
        """
        self._refuse_workers()
        checked_timeout(timeout)
        send_held()
        self._root.stop(checked_drain(drain), "stop")
        return self.wait(timeout)

    @contextlib.contextmanager
    def _killed_by_ctrl_c(self) -> Iterator[None]:
        """Kill the tree if Ctrl-C ends the block, which stops it after another one a second ago or more (rule 70)."""
        begun = time.monotonic()
        try:
            yield
        except KeyboardInterrupt:
            if time.monotonic() - begun >= REPEAT:
                self._root.kill("a second Ctrl-C")
            raise

    def _leave(self, deadline: float | None) -> None:
        """Leave the runtime, once; in another thread if the caller has a deadline."""
        thread = [threading.get_ident()] if deadline is None else []
        if self._leaving.setdefault("thread", thread) is not thread:
            return
        if deadline is None:
            self._clear_away()
            return
        try:
            DaemonThread(target=self._clear_away, name="suitkaise-leave").start()
        except RuntimeError:  # no thread is left
            self._clear_away()

    def _clear_away(self) -> None:
        try:
            self._runtime.storage.await_clean_up()
            left = [path for path in self._runtime.abandoned() if path.startswith(f"{self.name}/")]
            if left:
                what = abandoned_threads(len(left))
                logger.warning("%r has stopped, but leaves %s running: %s", self.name, what, ", ".join(left))
            runtimes.leave(self.name)
        finally:
            self._left.set()
            self._leaving["thread"] = []  # the number may be another thread's soon

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if os.getpid() == self._hub:  # a forked copy of the program must not stop the tree
            after_ctrl_c = kind is not None and issubclass(kind, KeyboardInterrupt)
            with self._killed_by_ctrl_c() if after_ctrl_c else contextlib.nullcontext():
                self.stop()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await run_in_thread_shielded(self.__exit__, kind, error, traceback)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> NoReturn:
            raise no_attribute(self, name, _OTHER_NAMES, "running")

    def __str__(self) -> str:
        """Return the tree with its state at this moment, a line for each supervisor and worker."""
        return str(self.status())

    def _repr_html_(self) -> str:
        """Show the tree with its state in a notebook."""
        return self.status()._repr_html_()

    def __repr__(self) -> str:
        state = "running" if self._reason is None else f"ended: {self._reason}"
        return f"RunningTree({self.name!r}, {state})"


_OTHER_NAMES = {
    "join": "wait()", "shutdown": "stop()", "terminate": "stop()", "close": "stop()", "kill": "stop()",
    "add_child": "start_child(...)", "add": "start_child(...)", "spawn": "start_child(...)",
    "restart": "recall(id)", "children": "which_children()",
}  # fmt: skip
"""What supervisors, processes and pools of other libraries have, by the name that it has here."""


newest: weakref.WeakValueDictionary[str, RunningTree] = weakref.WeakValueDictionary()
"""The trees that were started last, by their names."""


def stop_former(name: str) -> None:
    """In an interactive session: stop the tree of that name that runs, since the line or cell was run again."""
    former = newest.get(name)
    if former is not None and hasattr(sys, "ps1") and name in runtimes.running_trees():
        logger.warning("a tree named %r runs already in this session; it is stopped, and replaced by this one", name)
        former.stop()


async def run_in_thread_shielded(function: Callable[..., T], *args: Any) -> T:
    """Call a function in a thread. If cancelled, raise once the call has returned."""
    import asyncio  # 35 ms

    from suitkaise.runtime.start import in_thread

    call = in_thread(function, *args)
    try:
        return await asyncio.shield(call)
    except asyncio.CancelledError:
        await wait_until_done(call)
        raise


async def wait_until_done(future: asyncio.Future[Any]) -> None:
    """Wait until the future is done, however often the waiting task is cancelled: no tree is left half stopped."""
    import asyncio

    while not future.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait([future])
