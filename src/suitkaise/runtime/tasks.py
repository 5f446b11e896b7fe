"""One-shot tasks in processes of their own (Elixir's `Task.Supervisor.async_nolink` and `async_stream`).

A task is a temporary child of the tree's dynamic supervisor `tasks`: nobody restarts it, it ends with the tree, and its
crash is reported as that of any worker.
"""

from __future__ import annotations

import contextlib
import contextvars
import itertools
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, Generic, TypeVar

from suitkaise.errors import (
    AskTimeout,
    ChildAlreadyPresent,
    ChildAlreadyStarted,
    ChildNotFound,
    SpecError,
    SuitkaiseError,
    WorkerFailed,
)
from suitkaise.exits import Crashed, Normal
from suitkaise.messaging.answer import DEFAULT_TIMEOUT, Answer, checked_timeout
from suitkaise.messaging.held_back import send_held
from suitkaise.messaging.messages import Payload
from suitkaise.messaging.protocol import AdminAction, RequestKind
from suitkaise.messaging.router import router
from suitkaise.messaging.supervisor_ref import Administration
from suitkaise.platform.locks import RLock
from suitkaise.specs import Child
from suitkaise.specs.options import is_whole
from suitkaise.specs.recipe import Recipe, Startable, if_called, snapshot
from suitkaise.specs.supervisor import DynamicSupervisorSpec
from suitkaise.workers.once import once

__all__ = ["SUPERVISOR", "Stream", "Task", "Tasks"]

A = TypeVar("A")
T = TypeVar("T")

SUPERVISOR = "tasks"
"""The id of the dynamic supervisor of the tasks, right below the root."""

_MOMENT = 0.1
"""Seconds for which the first task may hold up its caller: the root is busy while another child starts or stops."""


class Task(Answer[T], Generic[T]):
    """The future of a function that runs once in a process of its own, as `running.task` returns it.

    Wait for it with `get(timeout)` or `result(timeout)`, or `await` it. It gets the function's value, or `WorkerFailed`
    if the function raised an error or its process died; the `__cause__` of that is the function's own error.
    """

    path: str
    """The path of the task's worker: `app/tasks/compute-1`."""

    def __init__(self, tree: Administration, id: str) -> None:
        super().__init__()
        self._tree = tree
        self.path = f"{tree.path}/{SUPERVISOR}/{id}"

    def get(self, timeout: float | None = DEFAULT_TIMEOUT) -> T:
        """Wait at most `timeout` seconds (default 5.0; None: for ever) for the function's value.

        Raises:
            AskTimeout: the task has not ended; it goes on.
            WorkerFailed: the function raised an error, which is the `__cause__`, or its process died.
        """
        try:
            return super().get(timeout)
        except AskTimeout:
            raise self.not_in_time(timeout) from None

    def not_in_time(self, timeout: float | None) -> AskTimeout:
        """Return the error of a wait that has taken so many seconds."""
        return AskTimeout(f"{self.path!r} has not ended after {timeout} s", path=self.path)

    def cancel(self) -> bool:
        """Kill the task's process, and cancel the future; return False if the task is done already."""
        if not super().cancel():
            return False
        self._kill()
        return True

    def _kill(self, again: bool = True) -> None:
        try:
            order = self._tree._administer(SUPERVISOR, AdminAction.KILL_CHILD, self.path.rpartition("/")[2])
        except SuitkaiseError:  # the tree has ended, and with it the task
            return
        if again:  # a stop of the tree drops what waits for the start of the process, which it then only asks to finish
            order.when_done(lambda done: None if order.outcome()[0] else self._kill(again=False))

    def begin_when(self, added: Answer[Any], child: Child) -> None:
        """Begin when the supervisor of the tasks is there, or get the error why it is not."""
        context = contextvars.copy_context()  # of the caller, in whose trace the process starts

        def begin() -> None:
            try:
                _check(added)
                if not self.cancelled():
                    self.begin(child)
            except Exception as error:  # of any kind: the future must end
                self.settle(False, Payload(error))

        added.add_done_callback(lambda done: context.run(begin))  # by which the arguments may be pickled

    def begin(self, child: Child) -> None:
        """Have the child started, and its result passed on, without waiting for either."""
        started = self._tree._administer(SUPERVISOR, AdminAction.START_CHILD, child)
        started.when_done(lambda done: self._on_started(started))

    def _on_started(self, started: Answer[Any]) -> None:
        ok, payload = started.outcome()
        if not ok:
            self.settle(False, payload)
        elif self.cancelled():  # before there was a process
            self._kill()
        else:
            result = router().request(RequestKind.RESULT, self.path)
            result.when_done(lambda done: self._on_over(result))

    def _on_over(self, result: Answer[Any]) -> None:
        ok, payload = result.outcome()
        reason = router().request(RequestKind.JOIN, self.path).result(0)
        if ok and reason != Normal():
            error = WorkerFailed(f"{self.path!r} was stopped before it ran: {reason}", path=self.path, reason=reason)
            ok, payload = False, Payload(error)
        elif isinstance(reason, Crashed) and isinstance(error := payload.value, WorkerFailed):
            error.__cause__ = reason.error
            payload = Payload(error)
        self.settle(ok, payload)


class Tasks:
    """Starts the tasks of one tree."""

    def __init__(self, tree: Administration) -> None:
        self._tree = tree
        self._lock = RLock()  # a signal handler may start a task, too
        self._added: Answer[Any] | None = None
        self._numbers = itertools.count(1)

    def start(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Task[Any]:
        """Start a task.

        Raises:
            SpecError: this is no function, or the arguments do not fit.
            SuitkaiseError: the tree does not run, or has another child of that id.
        """
        if isinstance(function, type) and not issubclass(function, Startable):
            name = function.__name__
            raise SpecError(
                f"a task is a function that is called once, not the class {name}; give it lambda: {name}(...)"
            )
        if not callable(function) or isinstance(function, (type, Startable)):
            raise SpecError(f"a task is a function that is called once, not {function!r}{if_called(function)}")
        plain = Child(function, args=args, kwargs=kwargs)  # which checks the function and its arguments
        send_held()  # here: another thread may begin it
        added = self._supervise()
        id = f"{plain.id}-{next(self._numbers)}"
        worker = Recipe(once(function), (function, snapshot(args), snapshot(kwargs)))
        task: Task[Any] = Task(self._tree, id)
        child = Child(worker, id=id, restart="temporary")
        if added.done():
            _check(added)
            task.begin(child)
        else:
            task.begin_when(added, child)
        return task

    def _supervise(self) -> Answer[Any]:
        """Have the supervisor of the tasks added, unless there is one; return the answer to that.

        It is looked for each time, since the program may delete it as any child.
        """
        with self._lock:
            if self._added is None or self._added.done():
                self._added = self._add()
                with contextlib.suppress(TimeoutError):
                    self._added.exception(_MOMENT)
            return self._added

    def _add(self) -> Answer[Any]:
        try:
            there = self._tree.get_child_spec(SUPERVISOR)
        except ChildNotFound:
            supervisor = Child(DynamicSupervisorSpec(SUPERVISOR))
            return self._tree._administer("", AdminAction.START_CHILD, supervisor)
        if not isinstance(there.what, DynamicSupervisorSpec):
            raise SpecError(
                f"{self._tree.path!r} has a child {SUPERVISOR!r}, which is no DynamicSupervisor, and tasks "
                "need one of that name; rename the child"
            )
        answer: Answer[Any] = Answer()
        answer.set_result(None)
        return answer

    def stream(
        self, function: Callable[[A], T], items: Iterable[A], limit: int | None, timeout: float | None
    ) -> Stream[T]:
        """Return the values of the function for the items, in order; at most `limit` tasks are there at a time."""
        if limit is not None and not is_whole(limit, 1):
            raise SpecError(f"stream: limit must be a whole number >= 1, or None, not {limit!r}")
        checked_timeout(timeout)
        return Stream(self._in_order(function, iter(items), limit or len(os.sched_getaffinity(0))), timeout)

    def _in_order(self, function: Callable[[A], T], items: Iterator[A], limit: int) -> Generator[Task[T], None, None]:
        """Yield one task after the other; it is over when the next one is asked for."""
        tasks: deque[Task[T]] = deque()
        failure: Exception | None = None  # of the next item: it comes at its place, after the values before
        try:
            while True:
                if failure is None:
                    try:
                        for item in itertools.islice(items, limit - len(tasks)):
                            tasks.append(self.start(function, (item,), {}))
                    except Exception as error:
                        failure = error
                if not tasks:
                    if failure is not None:
                        raise failure
                    return
                yield tasks[0]
                tasks.popleft()
        finally:
            del failure  # its traceback refers to this frame
            for task in tasks:
                task.cancel()


class Stream(Generic[T]):
    """The values of a function for many items, as `running.stream` returns them: for a `for` or an `async for` loop.

    The first error ends it. It is closed when the loop is left, as a generator is: the tasks that run are cancelled.
    """

    def __init__(self, tasks: Generator[Task[T], None, None], timeout: float | None) -> None:
        self._tasks = tasks
        self._timeout = timeout

    def __iter__(self) -> Stream[T]:
        return self

    def __next__(self) -> T:
        try:
            return next(self._tasks).get(self._timeout)
        except BaseException:
            self.close()
            raise

    def __aiter__(self) -> Stream[T]:
        return self

    async def __anext__(self) -> T:
        try:
            return await self._value_of(next(self._tasks))
        except StopIteration:
            raise StopAsyncIteration from None
        except BaseException:
            self.close()
            raise

    async def _value_of(self, task: Task[T]) -> T:
        import asyncio  # takes 35 ms: only an event loop pays for it

        try:
            async with asyncio.timeout(self._timeout) as limit:
                return await task
        except TimeoutError:
            if limit.expired():
                raise task.not_in_time(self._timeout) from None
            raise

    def close(self) -> None:
        """Cancel the tasks that run. The stream is over."""
        self._tasks.close()


def _check(added: Answer[Any]) -> None:
    """Raise the error why the supervisor of the tasks was not added, unless another caller has added it."""
    with contextlib.suppress(ChildAlreadyStarted, ChildAlreadyPresent):
        added.result(0)
