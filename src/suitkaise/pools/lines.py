"""The workers of a pool, as its scheduler sees them: what each was given, and how tasks get there."""

from __future__ import annotations

import contextlib
import socket
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

from suitkaise.engines.engine import WorkerHandle
from suitkaise.errors import WorkerDead
from suitkaise.exits import Hung
from suitkaise.messaging import codec
from suitkaise.messaging.messages import Message, Payload
from suitkaise.platform.reactor import TimerHandle
from suitkaise.pools.channel import CHUNK, ERROR, MIXED, TASK, Channel, Data, PayloadLost
from suitkaise.pools.runners import ProcessRunner, ThreadRunner
from suitkaise.pools.task import Outcomes, Owner, Task
from suitkaise.specs import Child

__all__ = ["Initializer", "PoolWorker", "ProcessWorker", "ThreadWorker"]

Initializer = tuple[Callable[..., object] | None, tuple[Any, ...]]


class PoolWorker(ABC):
    """One worker of the pool. Its scheduler holds a lock during all calls but `answers`."""

    window: ClassVar[int]
    """How many tasks it may have at once: one runs, and the others wait, so that the worker need not."""

    def __init__(self, id: str, initializer: Initializer) -> None:
        self.id: str = id
        self.initializer: Initializer = initializer
        self.tasks: deque[Task] = deque()
        self.given: int = 0
        self.since: float = 0.0  # when its first task has begun
        self.is_asked_for: bool = False  # its supervisor is to start it
        self.leaving: bool = False
        self.is_overdue: bool = False  # it is killed, and gets no task any more
        self.settling: bool = False  # it runs the callbacks of a future
        self.handle: WorkerHandle | None = None
        self.timer: TimerHandle | None = None

    @abstractmethod
    def child(self) -> Child:
        """Return the declaration of the worker. Raises OSError if the system has no room for it."""

    def can_take(self, task: Task) -> bool:
        """Return whether `send` runs no code of the user's for this task: whether it is encoded, if it has to be."""
        return True

    @abstractmethod
    def send(self, task: Task) -> bool:
        """Give it one more task; return False if the task does not fit now. Raises what the system raises."""

    @abstractmethod
    def take_back(self) -> list[Task]:
        """Return the tasks that it has not begun, and will not begin."""

    def answers(self) -> Iterator[tuple[int, Any, BaseException | None]]:
        """Return the number of each answered task that has arrived, with the result or the error."""
        return iter(())

    def kill(self, hung: Hung) -> None:
        """End the worker, since its task hangs."""
        if self.handle is not None:
            self.handle.kill_hung(hung)

    def stop_timer(self) -> None:
        """Forget the deadline of its task."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def close(self) -> None:
        """Release what belongs to the worker, which has ended."""
        self.stop_timer()


class ProcessWorker(PoolWorker):
    """A worker in a process of its own."""

    window = 8

    def __init__(self, id: str, initializer: Initializer) -> None:
        super().__init__(id, initializer)
        self.channel: Channel
        self._unread: Channel
        self._ends: tuple[Channel, ...] = ()

    def child(self) -> Child:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._ends = self.channel, self._unread = Channel(ours), Channel(theirs)
        return Child(
            ProcessRunner,
            id=self.id,
            args=(theirs,),
            kwargs={"initializer": self.initializer[0], "initargs": self.initializer[1]},  # errors name them
            restart="temporary",
            finish_timeout=60.0,  # a worker without any limit would not write its stacks when it is killed as hung
        )

    def can_take(self, task: Task) -> bool:
        return task.data is not None

    def send(self, task: Task) -> bool:
        kind = TASK if task.items is None else CHUNK
        return self.channel.send(kind, task.number, task.encode(), wait=False)

    def take_back(self) -> list[Task]:
        numbers = self._unread.take_back()
        taken = [task for task in self.tasks if task.number in numbers]
        for task in taken:
            self.tasks.remove(task)
        return taken

    def answers(self) -> Iterator[tuple[int, Any, BaseException | None]]:
        while True:
            try:
                message = self.channel.receive()
            except PayloadLost as lost:
                yield lost.number, None, lost
                continue
            if message is None:
                return
            kind, number, data = message
            value, error = None, None
            try:
                value = _decoded(kind, data)
            except BaseException as failure:
                error = failure
            if kind == ERROR and error is None:
                value, error = None, value
            yield number, value, error
            del message, data, value, error

    def close(self) -> None:
        super().close()
        for end in self._ends:
            end.close()


def _decoded(kind: int, data: Data) -> Any:
    if kind != MIXED:
        return codec.loads(data)
    values, errors = codec.loads(data)
    failed = {index: codec.loads(error) for index, error in errors.items()}
    return Outcomes([None if index in failed else codec.loads(value) for index, value in enumerate(values)], failed)


class ThreadWorker(PoolWorker):
    """A worker in a thread of the program."""

    window = 1

    def __init__(self, id: str, initializer: Initializer, scheduler: Owner) -> None:
        super().__init__(id, initializer)
        self._scheduler = scheduler
        self._waiting: Task | None = None
        self._awake = False

    def child(self) -> Child:
        return Child(ThreadRunner, id=self.id, args=(self, *self.initializer), restart="temporary")

    def send(self, task: Task) -> bool:
        self._waiting = task
        if not self._awake and self.handle is not None:
            with contextlib.suppress(WorkerDead):  # the scheduler is about to notice
                self.handle.deliver(Message("message", Payload(None)))
                self._awake = True
        return True

    def take_back(self) -> list[Task]:
        if self._waiting is None:
            return []
        self._waiting = None
        return [self.tasks.pop()]

    def next(self) -> Task | None:
        """Return the next task, for its own thread."""
        with self._scheduler.lock:
            task, self._waiting = self._waiting, None
            self._awake = task is not None
        return task

    def finished(self, task: Task, value: Any, error: BaseException | None) -> None:
        """Take the result from its own thread."""
        self._scheduler.answered(self, task.number, value, error)
