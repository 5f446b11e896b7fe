"""A running tree, as its owner holds it: start, look, administer, stop."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from types import FrameType, TracebackType
from typing import Any, NoReturn, Self

from suitkaise.engines.engine import Exit
from suitkaise.errors import (
    AskTimeout,
    ChildNotFound,
    ChildStartFailed,
    DeadlockError,
    RuntimeGone,
    SuitkaiseError,
    TreeFailed,
)
from suitkaise.exits import Crashed, ExitReason, GaveUp, Shutdown, StartFailure
from suitkaise.messaging.administration import Administration, ChildLine, ref_to
from suitkaise.messaging.bus import Subscription
from suitkaise.messaging.context import current_owner
from suitkaise.messaging.messages import Answer, patience, with_note
from suitkaise.messaging.refs import WorkerRef
from suitkaise.observe.crashes import CrashReport
from suitkaise.specs import Supervisor
from suitkaise.statuses import Status
from suitkaise.supervision import runtime as runtimes
from suitkaise.supervision.executor import Executor
from suitkaise.supervision.runtime import Runtime
from suitkaise.supervision.steps import Begin, Halt, StopAll

__all__ = ["ChildLine", "RunningTree", "TreeStatus", "begin", "run", "start"]

logger: logging.Logger = logging.getLogger("suitkaise")


@dataclass(frozen=True, slots=True)
class TreeStatus:
    """A supervisor or worker and everything below it, at one moment. `print` shows it as a tree."""

    path: str
    kind: str
    status: Status
    pid: int | None
    restarts: int
    last_exit: ExitReason | None = None
    children: tuple[TreeStatus, ...] = field(default=())
    abandoned: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Plain values only, for JSON."""
        return {
            "path": self.path, "kind": self.kind, "status": str(self.status), "pid": self.pid,
            "restarts": self.restarts,
            "last_exit": None if self.last_exit is None else str(self.last_exit), "abandoned": self.abandoned,
            "children": [child.to_dict() for child in self.children],
        }  # fmt: skip

    def __str__(self) -> str:
        pid = f"  pid {self.pid}" if self.pid is not None and self.kind in ("process", "command") else ""
        restarts = f"  {self.restarts} restarts" if self.restarts else ""
        exit = f"  last exit: {self.last_exit}" if self.last_exit is not None else ""
        left = f"  {_threads(self.abandoned)}" if self.abandoned else ""
        name = "  " * self.path.count("/") + self.path.rpartition("/")[2]
        line = f"{name}  {self.kind}  {self.status}{pid}{restarts}{exit}{left}"
        return "\n".join([line, *map(str, self.children)])


def _threads(number: int) -> str:
    return f"{number} abandoned thread{'s' * (number > 1)}"


def begin(executor: Executor, wait: Callable[[threading.Event], object] = threading.Event.wait) -> None:
    """Start the children of a new executor, and `wait` until they are up.

    Raises:
        ChildStartFailed: one failed; everything is stopped again.
    """
    up = threading.Event()
    executor.ready.add_done_callback(lambda done: up.set())
    executor.exited.add_done_callback(lambda done: up.set())
    executor.tell(Begin())
    try:
        wait(up)
    except BaseException:
        executor.tell(StopAll(Shutdown("its start was interrupted")))
        executor.exited.result()
        raise
    if not executor.ready.done():
        raise _start_error(executor.exited.result().reason)


def _start_error(reason: ExitReason) -> SuitkaiseError:
    failure = reason.detail if isinstance(reason, Shutdown) else None
    if not isinstance(failure, StartFailure):
        return SuitkaiseError(f"the tree ended while it started: {reason}", reason=reason)
    cause = failure.reason
    traceback = cause.traceback if isinstance(cause, Crashed) else ""
    error = ChildStartFailed(str(failure), path=failure.path, reason=cause, traceback=traceback)
    with_note(error, traceback)
    return error


def start(tree: Supervisor, wait: Callable[[threading.Event], object] = threading.Event.wait) -> RunningTree:
    """See `Supervisor.start`; `wait` is how to wait until it is up."""
    runtime = runtimes.enter()
    try:
        executor = runtime.add(tree)
    except BaseException:
        runtimes.leave()
        raise
    try:
        begin(executor, wait)
    except BaseException:
        runtimes.leave(tree.name)
        raise
    return RunningTree(executor, runtime)


def run(tree: Supervisor) -> ExitReason:
    """See `Supervisor.run`."""
    global runs
    runs += 1
    with _Signals() as signals:
        running = signals.guard(tree)
        signals.wait(running._ended)
        reason = running.wait()
        running.stop()
    if isinstance(reason, Shutdown) and isinstance(reason.detail, GaveUp):
        gave_up = reason.detail
        cause = gave_up.reason
        traceback = cause.traceback if isinstance(cause, Crashed) else ""
        error = TreeFailed(f"{tree.name!r} {gave_up}", path=gave_up.path, reason=reason, traceback=traceback)
        with_note(error, traceback)
        raise error
    return reason


runs: int = 0
"""How many trees this program has run with `run`; the command line looks at it."""


class _Signals:
    """SIGINT and SIGTERM while a tree runs: the first one stops it gracefully, the second one kills it."""

    def __init__(self) -> None:
        self._old: dict[int, Any] = {}
        self._first: int | None = None
        self._executor: Executor | None = None
        self._pid = os.getpid()
        self._alarm: tuple[int, int] | None = None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._alarm = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
            self._old_alarm = signal.set_wakeup_fd(self._alarm[1], warn_on_full_buffer=False)
            for number in (signal.SIGINT, signal.SIGTERM):
                self._old[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)
        if self._alarm is not None:
            signal.set_wakeup_fd(self._old_alarm)
            alarm, self._alarm = self._alarm, None
            os.close(alarm[0])
            os.close(alarm[1])

    def wait(self, event: threading.Event) -> None:
        """Wait for `event`, which the tree's start or end sets, and for signals.

        A lock would not do: a signal that comes just before the thread goes to sleep on it is not handled.
        """
        executor = self._executor
        if self._alarm is None or executor is None:
            event.wait()
            return
        executor.ready.add_done_callback(self._ring)
        executor.exited.add_done_callback(self._ring)
        poll = select.poll()
        poll.register(self._alarm[0], select.POLLIN)
        while not event.is_set():
            poll.poll()
            with contextlib.suppress(BlockingIOError):
                os.read(self._alarm[0], 4096)

    def _ring(self, done: Future[Any]) -> None:
        alarm = self._alarm
        if alarm is not None:
            with contextlib.suppress(OSError):  # full, or closed this moment: nobody sleeps on it
                os.write(alarm[1], b"!")

    def guard(self, tree: Supervisor) -> RunningTree:
        """Start the tree; a signal during the start stops it too."""
        runtime = runtimes.enter()
        try:
            executor = self._executor = runtime.add(tree)
        except BaseException:
            runtimes.leave()
            raise
        try:
            begin(executor, self.wait)
        except SuitkaiseError as error:
            runtimes.leave(tree.name)
            if self._first is not None and not isinstance(error, ChildStartFailed):
                raise SystemExit(0) from None
            raise
        except BaseException:
            runtimes.leave(tree.name)
            raise
        return RunningTree(executor, runtime)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:  # a forked child of this program: it is no tree, so it does as it always would
            signal.signal(number, self._old[number])
            os.kill(os.getpid(), number)
            return
        executor = self._executor
        if executor is None:
            self._die(number)
        if self._first is None:
            self._first = number
            executor.tell(StopAll(Shutdown(f"signal {number} ({signal.Signals(number).name})")))
        else:
            executor.tell(Halt(f"a second signal, {signal.Signals(number).name}"))
            with contextlib.suppress(Exception):
                executor.exited.result(5.0)
            self._die(number)

    def _die(self, number: int) -> NoReturn:
        raise SystemExit(128 + number)


class RunningTree(Administration):
    """What `Supervisor.start()` returns; a context manager that stops the tree at the end of its block.

    Paths given to its methods are relative to it: `running["counters/count-a"]`.
    """

    def __init__(self, executor: Executor, runtime: Runtime) -> None:
        self._executor = executor
        self._runtime = runtime
        self._reason: ExitReason | None = None
        self._left = False
        self._lock = threading.Lock()
        self._hub = os.getpid()
        self._ended = threading.Event()
        executor.exited.add_done_callback(self._on_exit)

    def _on_exit(self, exited: Future[Exit]) -> None:
        self._reason = exited.result().reason
        self._ended.set()

    # ------------------------------------------------------------ looking
    @property
    def name(self) -> str:
        """The tree's name, which is its path."""
        return self._executor.path

    @property
    def path(self) -> str:  # type: ignore[override]
        """The tree's name again: what stands before the paths of all its workers."""
        return self._executor.path

    @property
    def spec(self) -> Supervisor:
        """The declaration it was started from."""
        return self._executor.spec

    def __getitem__(self, path: str) -> WorkerRef:
        """The ref of the worker at `path`. Raises ChildNotFound (a LookupError) if there is none."""
        if not isinstance(path, str):
            raise TypeError(f"a worker is found by its path below {self.name!r}, a str, not by {path!r}")
        kind = self._runtime.registry.kind_of(f"{self.name}/{path}")
        return ref_to(f"{self.name}/{path}", kind)

    def __contains__(self, path: object) -> bool:
        return f"{self.name}/{path}" in self._runtime.registry

    def __iter__(self) -> Iterator[WorkerRef]:
        """The refs of all workers and supervisors below, in start order, depth first."""
        yield from self._refs(self._executor)

    def _refs(self, executor: Executor) -> Iterator[WorkerRef]:
        for info in executor.which_children():
            yield info.ref
            below = executor.child(info.id)
            if below is not None:
                yield from self._refs(below)

    def status(self) -> TreeStatus:
        """The whole tree at this moment."""
        executor = self._executor
        over = executor.exited.done()
        status = Status.STOPPED if over else Status.RUNNING
        return TreeStatus(self.name, "supervisor", status, os.getpid(), 0, self._reason, self._lines(executor))

    def _lines(self, executor: Executor) -> tuple[TreeStatus, ...]:
        lines = []
        for info in executor.which_children():
            below = executor.child(info.id)
            lines.append(
                TreeStatus(
                    f"{executor.path}/{info.id}",
                    info.kind,
                    info.status,
                    self._pid(executor, info),
                    info.restarts,
                    info.last_exit,
                    () if below is None else self._lines(below),
                    info.abandoned,
                )
            )
        return tuple(lines)

    def _pid(self, executor: Executor, info: ChildLine) -> int | None:
        try:
            return self._runtime.registry.find(f"{executor.path}/{info.id}").pid
        except ChildNotFound:
            return None

    def events(self) -> Subscription:
        """What happens in this tree from now on, as an iterator of events; it ends with the tree."""
        subscription = self._runtime.bus.events(self.name)
        if self._ended.is_set():
            subscription.close()
        return subscription

    def crashes(self) -> list[CrashReport]:
        """The reports of the newest abnormal ends in this tree, at most 100 in the program, the newest last (rule 58).

        They are on disk, too, and outlive the program: see `suitkaise crashes`.
        """
        return self._runtime.crashes.reports(self.name)

    # ------------------------------------------------------------ administration
    def recall(self, id: str) -> WorkerRef:
        """Stop a child by its shutdown, if it runs, and start it again: alone, and not counted.

        Raises:
            ChildNotFound: there is no such child.
            ChildStartFailed: it did not start; it stays stopped.
            DeadlockError: it is the calling worker, or above it.
        """
        ref: WorkerRef = self._change_child("recall", id)
        return ref

    def _administer(self, under: str, what: str, argument: Any) -> Answer[Any]:
        self._check_hub()
        return self._supervisor(under).administer(what, argument)

    def _check_hub(self) -> None:
        if os.getpid() != self._hub:
            raise RuntimeGone(
                f"this is a forked copy of the program; {self.name!r} runs in the original", path=self.name
            )

    def _supervisor(self, path: str) -> Executor:
        executor = self._executor
        for name in path.split("/") if path else ():
            below = executor.child(name)
            if below is None:
                whole = f"{self.name}/{path}"
                raise ChildNotFound(f"no running supervisor at {whole!r}", path=whole)
            executor = below
        return executor

    # ------------------------------------------------------------ the end
    def wait(self, timeout: float | None = None) -> ExitReason:
        """Wait until the tree has ended, at most `timeout` seconds; returns the root's exit reason.

        Raises:
            AskTimeout: it still runs.
            DeadlockError: a worker of this very tree waits for its end.
        """
        owner = current_owner()
        if owner is not None and owner.startswith(f"{self.name}/"):
            raise DeadlockError(f"{owner!r} is a worker of {self.name!r} and would wait for itself", path=self.name)
        self._check_hub()
        if not self._ended.wait(patience(timeout)):
            raise AskTimeout(f"{self.name!r} still runs after {timeout} s", path=self.name)
        reason = self._executor.exited.result().reason
        self._leave()
        return reason

    def stop(self, timeout: float | None = None) -> ExitReason:
        """Stop all workers in reverse start order; returns the exit reason. On a tree that has ended: no error.

        Threads that had to be abandoned (rule 59) stay behind; a warning in the log names them (rule 46).

        Raises:
            AskTimeout: `timeout` seconds were not enough; the stopping goes on (rule 45).
        """
        patience(timeout)
        self._executor.tell(StopAll(Shutdown("stop")))
        return self.wait(timeout)

    def _leave(self) -> None:
        with self._lock:
            if self._left:
                return
            self._left = True
        self._runtime.await_clean_up()
        left = [path for path in self._runtime.left() if path.startswith(f"{self.name}/")]
        if left:
            logger.warning("%r has stopped, but leaves %s behind: %s", self.name, _threads(len(left)), ", ".join(left))
        runtimes.leave(self.name)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if os.getpid() == self._hub:  # a forked child that leaves the block stops nothing
            self.stop()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        import asyncio

        await asyncio.to_thread(self.stop)

    def __repr__(self) -> str:
        state = "running" if self._reason is None else f"ended: {self._reason}"
        return f"RunningTree({self.name!r}, {state})"
