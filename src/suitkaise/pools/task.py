"""A task of a pool, from `submit` to its result, and its future."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Generic, Protocol, TypeVar

from suitkaise.errors import NotSerializable
from suitkaise.exits import ExitReason
from suitkaise.messaging import codec
from suitkaise.messaging.answer import checked_timeout
from suitkaise.messaging.tracing import Carrier, Traced, carrier
from suitkaise.platform.condition import OwnFuture
from suitkaise.platform.locks import RLock
from suitkaise.records import dataclass, field

__all__ = ["Limits", "Outcomes", "Owner", "PoolFuture", "Task", "name_of"]

T = TypeVar("T")


class Owner(Protocol):
    """The scheduler, as far as its tasks and workers know it."""

    @property
    def lock(self) -> RLock:
        """The lock that guards tasks and workers."""

    def withdraw(self, task: Task) -> bool:
        """Return whether the task has not begun; if so, it never will."""
        ...

    def check_drained(self) -> None:
        """If the pool was shut down and no task is left, end it."""

    def settle_parts(self, task: Task, outcomes: Outcomes) -> None:
        """Set the result of a chunk that was taken apart."""

    def answered(self, worker: Any, number: int, value: Any, error: BaseException | None) -> None:
        """Take the answer of a worker to its first task."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The options of a task: seconds for each attempt (None: no limit), and attempts after the first one."""

    timeout: float | None
    retries: int


class PoolFuture(OwnFuture[T], Generic[T]):
    """The future of a task. `cancel` also takes a task back that waits in a worker behind another one."""

    _task: Task | None = None

    def result(self, timeout: float | None = None) -> T:
        """Do what `concurrent.futures.Future.result` does. Raises TypeError if the timeout is no number."""
        error = self.exception(timeout)
        if error is not None:  # `Future.result` asks whether it is true, and an exception may have a length of 0
            raise error
        return super().result(0)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Do what `concurrent.futures.Future.exception` does. Raises TypeError if the timeout is no number."""
        return super().exception(checked_timeout(timeout))

    def cancel(self) -> bool:
        """Cancel the task unless it has begun; return whether it is cancelled."""
        task = self._task
        if task is not None and not task.scheduler.withdraw(task):
            return False
        if not super().cancel():
            return False
        if task is not None:
            with task.scheduler.lock:  # another thread may cancel it, too
                first = self._task is not None
                self.finish()
            if first:
                self.set_running_or_notify_cancel()
                task.scheduler.check_drained()
        return True

    def finish(self) -> None:
        """Let go of the task and its arguments: a future may be kept for long."""
        task, self._task = self._task, None
        if task is not None:
            task.release()


@dataclass(slots=True, eq=False)
class Task:
    """One call of a function, or with `items` one call for each of them (a chunk)."""

    scheduler: Owner
    future: PoolFuture[Any]
    limits: Limits
    function: Callable[..., Any]
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    items: Sequence[tuple[Any, ...]] | None = None
    number: int = 0
    data: bytes | None = None
    reasons: list[ExitReason] = field(default_factory=list)
    begun: bool = False
    withdrawn: bool = False
    encoding: bool = False
    carrier: Carrier | None = field(default_factory=carrier)  # the tracing context of the caller that submits it

    @property
    def call(self) -> Callable[..., Any]:
        """The function as a worker calls it."""
        return self.function if self.carrier is None else Traced(self.function, self.carrier)

    @property
    def seconds(self) -> float | None:
        """The time for one attempt."""
        timeout = self.limits.timeout
        return timeout if timeout is None or self.items is None else timeout * len(self.items)

    def encode(self) -> bytes:
        """Return the bytes that a worker process gets.

        Raises:
            NotSerializable: the function or an argument cannot be sent.
        """
        what = (self.call, self.args, self.kwargs) if self.items is None else (self.call, self.items)
        if self.data is None:
            try:
                self.data = codec.dumps(what, root=name_of(self.function))
            except NotSerializable:
                self._name_the_culprit()
                raise
            self.args, self.kwargs = (), {}  # large arguments need not be kept twice
        return self.data

    def _name_the_culprit(self) -> None:
        """Raise NotSerializable with the path that a user knows, if a part cannot be sent by itself either."""
        name = name_of(self.function)
        codec.dumps(self.function, root=name)
        for args in [self.args] if self.items is None else self.items:
            for index, value in enumerate(args):
                codec.dumps(value, root=f"{name}.args[{index}]")
        for key, value in self.kwargs.items():
            codec.dumps(value, root=f"{name}.kwargs[{key!r}]")

    def begin(self) -> None:
        """Mark the future as running."""
        if not self.begun:
            self.begun = True
            self.future.set_running_or_notify_cancel()

    def release(self) -> None:
        """Drop the function, the arguments and their encoded form."""
        self.function, self.args, self.kwargs, self.items, self.data = _nothing, (), {}, None, None

    def split(self) -> list[Task]:
        """Return a task for each item of a chunk that has ended its worker; together they settle its future.

        So the one item that ends workers is found, and the others get their results. They count as begun, as the chunk
        has: none of them can be cancelled.
        """
        assert self.items is not None
        parts = [
            Task(
                self.scheduler, PoolFuture(), self.limits, self.function, item, reasons=list(self.reasons), begun=True,
                carrier=self.carrier,
            )
            for item in self.items
        ]  # fmt: skip
        whole = _Whole(self, len(parts))
        for index, part in enumerate(parts):
            part.future._task = part
            part.future.add_done_callback(functools.partial(whole.add, index))
        return parts


@dataclass(frozen=True, slots=True)
class Outcomes:
    """The results of the items of a chunk, and the errors of those that failed, by index."""

    values: list[Any]
    errors: dict[int, BaseException] = field(default_factory=dict)


class _Whole:
    """Collects the results of a chunk that was taken apart."""

    def __init__(self, task: Task, count: int) -> None:
        self._task = task
        self._left = count
        self._outcomes = Outcomes([None] * count)

    def add(self, index: int, part: Future[Any]) -> None:
        error = part.exception()
        if error is None:
            self._outcomes.values[index] = part.result()
        else:
            self._outcomes.errors[index] = error
        self._left -= 1  # all parts are settled in the thread of the scheduler
        if not self._left:
            self._task.scheduler.settle_parts(self._task, self._outcomes)


def _nothing() -> None: ...


def name_of(function: Any) -> str:
    """Return the name of a function, for messages."""
    while isinstance(function, functools.partial):
        function = function.func
    return getattr(function, "__qualname__", None) or type(function).__qualname__
