"""The scheduler of a pool: which worker gets which task, what becomes of the tasks of a worker that dies, and the end.

The workers are temporary children of a supervisor of the pool's own. The scheduler starts one when a task waits and no
worker is free, at most `max_workers` at a time; so no death of a worker counts as a restart. A worker gets a few tasks
ahead, so that it need not wait for the next one. When another worker has nothing to do, or a task is cancelled, or the
worker dies, the tasks that it has not begun are taken back; they were not tried.
"""

from __future__ import annotations

import contextlib
import contextvars
import itertools
import logging
import math
import os
import time
import weakref
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Any

from suitkaise.engines.engine import Exit
from suitkaise.errors import NotSerializable, RuntimeGone, SuitkaiseError
from suitkaise.exits import ExitReason, Hung
from suitkaise.messaging.held_back import send_held
from suitkaise.messaging.identity import current_owner
from suitkaise.messaging.protocol import AdminAction
from suitkaise.platform.flag import Flag
from suitkaise.platform.locks import RLock
from suitkaise.platform.reactor import Reactor
from suitkaise.platform.threads import DaemonThread
from suitkaise.pools.errors import PoolBroken, task_failed
from suitkaise.pools.lines import PoolWorker, ProcessWorker
from suitkaise.pools.task import Outcomes, Task, name_of
from suitkaise.runtime import start as starting
from suitkaise.specs.supervisor import DynamicSupervisorSpec

if TYPE_CHECKING:
    from suitkaise.runtime.running_tree import RunningTree
    from suitkaise.supervision.interface import SupervisorInterface

__all__ = ["FAILED_STARTS", "Scheduler", "live"]

logger: logging.Logger = logging.getLogger("concurrent.futures")  # that which tells of the other errors of callbacks

FAILED_STARTS = 3
"""How many starts of workers may fail in a row; then the pool is broken, unless some workers still run."""

START_AGAIN = 1.0
"""Seconds after which one more start is tried then, as long as some workers still run and a task waits."""

STALLED = 0.02
"""Seconds: a worker whose task takes longer gets no more tasks ahead, and loses those that it has to the others."""


class Scheduler:
    """The part of a pool that has threads: it lives until all tasks are done, even if nobody has the pool any more.

    All its state is guarded by `lock`. Futures are settled and tasks encoded without it: a callback, or the
    `__reduce__` of an argument, may call anything, and may wait for a thread that submits a task.

    Args:
        name: the name of the pool's supervisor.
        max_workers: the largest number of workers.
        max_tasks: how many tasks a worker gets before another one takes its place.
        make_worker: makes a worker for an id.
        processes: whether the workers are processes.
    """

    def __init__(
        self,
        name: str,
        max_workers: int,
        max_tasks: float | None,
        make_worker: Callable[[Scheduler, str], PoolWorker],
        *,
        processes: bool,
    ) -> None:
        self.name: str = name
        self.max_workers: int = max_workers
        self.lock: RLock = RLock()
        self._max_tasks = math.inf if max_tasks is None else max_tasks
        self._make_worker = make_worker
        self._has_processes = processes
        self._queue: deque[Task] = deque()
        self._unencoded: deque[Task] = deque()  # are to be encoded now, since a worker waits for them
        self._numbers = itertools.count(1)
        self._ids = itertools.count(1)
        self._workers: list[PoolWorker] = []  # those that take tasks
        self._idle: list[PoolWorker] = []
        self._starting: set[PoolWorker] = set()
        self._failed = 0  # starts in a row
        self._last_failure: BaseException | None = None
        self._parts = 0  # chunks that were taken apart
        self._process = os.getpid()
        self._context = contextvars.copy_context()  # that of the workers; a task may be submitted in any other one
        self._closing = False
        self._broken: PoolBroken | None = None
        self._supervisor: SupervisorInterface | None = None
        self._running: RunningTree | None = None
        self._reactor: Reactor | None = None
        self._drained = Flag()
        self._end = RLock()  # a signal handler may shut the pool down, too
        self._ended = False

    # ------------------------------------------------------------ from any thread
    def submit(self, task: Task) -> None:
        """Take a task.

        Raises:
            PoolBroken: the pool can run nothing any more.
            RuntimeError: the pool was shut down.
            RuntimeGone: this is a forked copy of the program.
        """
        if os.getpid() != self._process:
            raise RuntimeGone(f"this is a forked copy of the program; the pool {self.name!r} runs in the original")
        send_held()
        try:
            with self.lock:
                if self._broken is not None:
                    raise PoolBroken(str(self._broken)) from self._broken.__cause__
                if self._closing:
                    raise RuntimeError("cannot schedule new futures after shutdown")
                if self._supervisor is None:
                    self._context.copy().run(self._start)
                task.number = next(self._numbers)
                task.future._task = task
                self._queue.append(task)
                failed = self._dispatch() if len(self._queue) == 1 else []
                new = self._new_worker()
            self._go_on(failed, new)
        except BaseException as error:
            if self._reactor is not None and not isinstance(error, Exception):
                self._reactor.call_soon_threadsafe(self._mend)
            raise

    def withdraw(self, task: Task) -> bool:
        """Return whether the task has not begun; if so, it never will."""
        if os.getpid() != self._process:
            return False
        with self.lock:
            if task.begun:
                return False
            task.withdrawn = True
            holder = next((worker for worker in self._workers if task in worker.tasks), None)
            if holder is not None:
                self._take_back(holder)
                task.withdrawn = task not in holder.tasks
            failed = self._dispatch()
        self._go_on(failed)
        return task.withdrawn

    def shutdown(self, *, wait: bool, cancel: bool) -> None:
        """Take no more tasks; end when those that there are have finished, or with `cancel` the running ones."""
        if os.getpid() != self._process:
            return
        send_held()
        with self.lock:
            self._closing = True
            waiting: list[Task] = []
            if cancel:
                waiting = [*itertools.chain.from_iterable(worker.tasks for worker in self._workers), *self._queue]
        for task in reversed(waiting):  # the last one first: a worker then gets none that is about to be cancelled
            task.future.cancel()
        self.check_drained()
        if wait and not self._is_own_thread():
            self._drained.wait()
            self._close()

    def kill(self) -> None:
        """End the workers at once: tasks that have not begun are cancelled, and those that run fail.

        Return when all is gone, unless this is a thread of the pool.
        """
        self.shutdown(wait=False, cancel=True)
        if os.getpid() != self._process:
            return
        self._break("its workers were killed")
        if self._running is None:
            return
        assert self._supervisor is not None
        self._supervisor.kill("the workers of the pool are killed")
        if not self._is_own_thread():
            self._close()

    def _is_own_thread(self) -> bool:
        """Return whether this is a thread of the pool, which runs its tasks and the callbacks of its futures."""
        owner = current_owner()
        inside = self._reactor is not None and self._reactor.in_thread
        return inside or (owner is not None and owner.startswith(f"{self.name}/"))

    def interrupt(self) -> None:
        """End the workers without waiting for the tasks, which fail: Ctrl-C has ended the program that needs them."""
        if os.getpid() != self._process:
            return
        with self.lock:
            self._closing = True
        self._break("Ctrl-C has ended the program")
        if self._running is not None:
            with self._running._killed_by_ctrl_c():
                self._close()

    def check_drained(self) -> None:
        """If the pool was shut down and no task is left, end it."""
        with self.lock:
            if not self._closing or self._drained.is_set() or self._parts:
                return
            if any(not task.withdrawn for task in self._queue) or any(
                worker.tasks or worker.settling for worker in self._workers
            ):
                return
            self._drained.set()
        if self._running is not None:
            try:
                DaemonThread(target=self._close, name=f"{self.name}-close").start()
            except RuntimeError:  # the program ends: its exit hook closes the pool
                return

    # ------------------------------------------------------------ the tree
    def _start(self) -> None:
        """Start the supervisor, with the lock held."""
        tree = DynamicSupervisorSpec(self.name)
        reactor = Reactor()  # first: where none can be made, no supervisor stays behind
        try:
            with starting.added(tree, processes=self._has_processes) as (runtime, supervisor):
                from suitkaise.pools import at_exit  # noqa: F401  (after the runtime, see there)
                from suitkaise.runtime.running_tree import RunningTree

                supervisor.begin()
                self._running = RunningTree(supervisor, runtime)
        except BaseException:
            reactor.close()
            raise
        reactor.on_end = lambda error: self._break(f"its I/O thread has ended: {error!r}")
        self._reactor = reactor
        self._supervisor = supervisor
        live.add(self)
        this = weakref.ref(self)  # the supervisor is remembered after the end of the pool, with what it refers to
        supervisor.exited.add_done_callback(lambda exited: _on_tree_over(this()))

    def _close(self) -> None:
        """Stop the workers and the supervisor, once; return when all is gone."""
        with self._end:
            if self._ended or self._running is None:
                return
            self._ended = True
            assert self._reactor is not None
            try:
                self._running.stop()
            finally:  # also after a second Ctrl-C, in a program that goes on
                self._reactor.close()
                with self.lock:
                    for worker in (*self._workers, *self._starting):
                        worker.close()
                    self._workers.clear()
                    self._starting.clear()
                    self._idle.clear()
                live.discard(self)

    def _break_without_workers(self) -> None:
        self._break(f"no worker could be started: {self._last_failure}", self._last_failure)

    def _break(self, why: str, cause: BaseException | None = None) -> None:
        """Fail all tasks: none of them can be run any more."""
        with self.lock:
            if self._drained.is_set() or self._broken is not None:
                return
            if self._supervisor is not None and self._supervisor.exited.done():
                why = f"its supervisor has ended: {self._supervisor.exited.result().reason}"
            error = PoolBroken(f"the pool {self.name!r} is broken: {why}")
            error.__cause__ = cause
            self._broken = error
            tasks = [*self._queue, *itertools.chain.from_iterable(worker.tasks for worker in self._workers)]
            self._queue.clear()
            for worker in self._workers:
                worker.tasks.clear()
        for task in tasks:
            if not task.withdrawn:
                self.settle(task, None, error)
        self.check_drained()

    # ------------------------------------------------------------ giving tasks to workers, with the lock held
    def _dispatch(self) -> list[tuple[Task, BaseException]]:
        """Give waiting tasks to workers with room; return those that cannot be sent, with the error."""
        failed: list[tuple[Task, BaseException]] = []
        while self._queue:
            worker = self._free_worker()
            if worker is None or not self._give(worker, failed):
                break
        return failed

    def _free_worker(self) -> PoolWorker | None:
        if self._idle:
            return self._idle[-1]
        late = time.monotonic() - STALLED
        return min((worker for worker in self._workers if self._has_room(worker, late)), key=_load, default=None)

    def _has_room(self, worker: PoolWorker, late: float) -> bool:
        count = len(worker.tasks)
        barred = worker.leaving or worker.is_overdue or worker.settling
        return count < worker.window and not (barred or (count and worker.since < late))

    def _take_back_from_stalled(self, late: float) -> None:
        for worker in self._workers:
            if len(worker.tasks) > 1 and worker.since < late:
                self._take_back(worker)

    def _give(self, worker: PoolWorker, failed: list[tuple[Task, BaseException]]) -> bool:
        """Give the first waiting task to the worker; return False if it does not fit."""
        task = self._queue.popleft()
        if task.withdrawn:
            return True
        if not worker.can_take(task):
            if not task.encoding:
                task.encoding = True
                self._unencoded.append(task)
            self._queue.appendleft(task)
            return False
        try:
            if not worker.send(task):
                self._queue.appendleft(task)
                return False
        except Exception as error:
            failed.append((task, error))
            return True
        worker.tasks.append(task)
        worker.given += 1
        if self._idle and self._idle[-1] is worker:
            self._idle.pop()
        if len(worker.tasks) == 1:
            self._begin(worker)
        if worker.given >= self._max_tasks:
            worker.leaving = True
        return True

    def _begin(self, worker: PoolWorker) -> None:
        """Note that the worker begins its first task about now."""
        task = worker.tasks[0]
        worker.since = time.monotonic()
        task.begin()
        seconds = task.seconds
        if seconds is not None:
            assert self._reactor is not None
            worker.timer = self._reactor.call_at(worker.since + seconds, partial(self._overdue, worker, task))

    def _take_back(self, worker: PoolWorker) -> None:
        """Put the tasks that the worker has not begun back to the front of the queue."""
        first = worker.tasks[0] if worker.tasks else None
        tasks = worker.take_back()
        worker.given -= len(tasks)
        worker.leaving = worker.given >= self._max_tasks
        self._queue.extendleft(reversed(tasks))
        if not tasks or (worker.tasks and worker.tasks[0] is first):
            return
        worker.stop_timer()  # it has not even begun the first one
        if worker.tasks:
            self._begin(worker)
        elif worker in self._workers and not worker.is_overdue:
            self._idle.append(worker)

    def _rest(self, worker: PoolWorker) -> None:
        """Find work for a worker that has none: the next task, or one that waits in another worker."""
        if not self._queue:
            other = max(self._workers, key=_load)
            if len(other.tasks) > 1:
                self._take_back(other)
        self._idle.append(worker)

    def _new_worker(self) -> PoolWorker | None:
        """Return one more worker to start, if a task waits for one."""
        if (self._closing and self._drained.is_set()) or (self._queue and self._queue[0].encoding):
            return None
        if len(self._starting) + len(self._workers) >= self.max_workers or self._failed >= FAILED_STARTS:
            return None
        waiting = len(self._queue)
        if not waiting:
            if self._idle:
                return None
            waiting = sum(len(worker.tasks) - 1 for worker in self._workers if worker.tasks)
        if waiting <= len(self._starting) or self._broken is not None:
            return None
        worker = self._make_worker(self, f"worker-{next(self._ids)}")
        self._starting.add(worker)
        return worker

    def _mend(self) -> None:
        """Make everything whole after Ctrl-C has interrupted a thread in `submit`; in the pool's own thread."""
        with self.lock:
            barred = [one for one in self._workers if one.tasks or one.leaving or one.is_overdue or one.settling]
            self._idle = [worker for worker in self._workers if worker not in barred]
            for task in self._queue:
                task.encoding = task in self._unencoded
            failed = self._dispatch()
            new = self._new_worker()
            starting = [worker for worker in self._starting if worker is not new]
        for worker in starting:
            self._start_worker(worker)
        self._go_on(failed, new)

    # ------------------------------------------------------------ the life of a worker
    def _start_worker(self, worker: PoolWorker) -> None:
        """Start a worker, once, in the pool's own thread: no signal handler interrupts it."""
        if worker.is_asked_for:
            return
        worker.is_asked_for = True
        assert self._supervisor is not None
        start = self._supervisor.administer
        try:
            child = worker.child()
        except Exception as error:  # no descriptor is left, for example
            self._failed_to_start(worker, error)
            return
        answer = self._context.copy().run(start, AdminAction.START_CHILD, child)
        answer.when_done(partial(self._on_started, worker))

    def _on_started(self, worker: PoolWorker, answer: Future[Any]) -> None:
        """Hand the news of a start to the pool's own thread: this is the supervisor's."""
        assert self._supervisor is not None
        assert self._reactor is not None
        error = answer.exception()
        handle: Any = self._supervisor.handles.get(worker.id)
        if error is None and handle is None:
            error = SuitkaiseError(f"{worker.id!r} has just ended")
        if error is not None:
            failure = error
            self._reactor.call_soon_threadsafe(lambda: self._failed_to_start(worker, failure))
            return
        worker.handle = handle
        self._reactor.call_soon_threadsafe(lambda: self._join(worker))

    def _failed_to_start(self, worker: PoolWorker, error: BaseException) -> None:
        with self.lock:
            worker.close()
            self._starting.discard(worker)
            self._last_failure = error
            self._failed = FAILED_STARTS if isinstance(error, NotSerializable) else self._failed + 1
            given_up = self._failed >= FAILED_STARTS and not self._starting
            over = given_up and not self._workers
            new = self._new_worker()
        if over:
            self._break_without_workers()
        elif given_up and self._reactor is not None:
            self._reactor.call_at(time.monotonic() + START_AGAIN, self._start_again)
        self._go_on([], new)

    def _start_again(self) -> None:
        """Try one more start after several that have failed."""
        with self.lock:
            self._failed = min(self._failed, FAILED_STARTS - 1)
            new = self._new_worker()
        self._go_on([], new)

    def _join(self, worker: PoolWorker) -> None:
        """Give the first tasks to a worker that has started."""
        assert self._reactor is not None
        assert worker.handle is not None
        with self.lock:
            self._starting.discard(worker)
            self._failed = 0
            self._workers.append(worker)
            if isinstance(worker, ProcessWorker):
                self._reactor.add_reader(worker.channel, partial(self._read, worker))
            self._take_back_from_stalled(math.inf)  # all that wait: the tasks begin in the order of their submission
            self._idle.append(worker)
            failed = self._dispatch()
            new = self._new_worker()
        worker.handle.exited.add_done_callback(partial(self._on_exit, worker))
        self._go_on(failed, new)

    def _read(self, worker: PoolWorker) -> None:
        """Take the answers that have arrived from a process."""
        for number, value, error in worker.answers():
            self.answered(worker, number, value, error)
            del value, error

    def answered(self, worker: PoolWorker, number: int, value: Any, error: BaseException | None) -> None:
        """Take the answer of a worker to its first task, and give it the next one: a thread, after the callbacks."""
        here = not isinstance(worker, ProcessWorker)  # this is its thread, which runs the callbacks of the future
        failed: list[tuple[Task, BaseException]] = []
        new: PoolWorker | None = None
        with self.lock:
            if not worker.tasks or worker.tasks[0].number != number:
                return  # the pool is broken, or this thread was abandoned
            task = worker.tasks.popleft()
            worker.stop_timer()
            worker.settling = here
            if not here:
                failed, new = self._next(worker)
        self.settle(task, value, error)
        if here:
            with self.lock:
                worker.settling = False
                if worker in self._workers:
                    failed, new = self._next(worker)
        self._go_on(failed, new)
        if self._closing:
            self.check_drained()

    def _next(self, worker: PoolWorker) -> tuple[list[tuple[Task, BaseException]], PoolWorker | None]:
        """Give the next tasks to a worker that has finished one, with the lock held; return what `_go_on` takes."""
        if worker.tasks:
            self._begin(worker)
        failed: list[tuple[Task, BaseException]] = []
        if self._queue:
            late = time.monotonic() - STALLED
            self._take_back_from_stalled(late)
            while self._queue and self._has_room(worker, late) and self._give(worker, failed):
                pass
        if not worker.tasks and not worker.is_overdue:
            if worker.leaving:
                self._dismiss(worker)
            else:
                self._rest(worker)
                failed += self._dispatch()
        return failed, self._new_worker() if self._queue else None

    def _dismiss(self, worker: PoolWorker) -> None:
        """Have a worker end that has run as many tasks as it may."""
        assert self._supervisor is not None
        self._supervisor.administer(AdminAction.TERMINATE_CHILD, worker.id)

    def _overdue(self, worker: PoolWorker, task: Task) -> None:
        """End a worker whose task takes too long, unless it has begun another task meanwhile.

        Its death takes a moment. What it would begin until then would be taken for the task that takes too long.
        """
        self._read(worker)
        with self.lock:
            if not worker.tasks or worker.tasks[0] is not task or task.seconds is None:
                return
            worker.is_overdue = True
            seconds = task.seconds
            self._take_back(worker)
            if worker.tasks and worker.tasks[-1] is not task:
                worker.is_overdue = False
            else:
                worker.kill(Hung("loop", seconds))
            failed = self._dispatch()
            new = self._new_worker()
        self._go_on(failed, new)

    def _on_exit(self, worker: PoolWorker, exited: Future[Exit]) -> None:
        assert self._reactor is not None
        reason = exited.result().reason
        self._reactor.call_soon_threadsafe(lambda: self._leave(worker, reason))

    def _leave(self, worker: PoolWorker, reason: ExitReason) -> None:
        """Find out what became of the tasks of a worker that has ended."""
        assert self._reactor is not None
        self._read(worker)  # what it has answered before
        with self.lock:
            if worker not in self._workers:
                return
            worker.stop_timer()
            self._workers.remove(worker)
            if worker in self._idle:
                self._idle.remove(worker)
            self._take_back(worker)
            failed: list[tuple[Task, BaseException]] = []
            for task in worker.tasks:
                self._judge(task, worker, reason, failed)
            worker.tasks.clear()
            failed += self._dispatch()
            new = self._new_worker()
            over = not self._workers and not self._starting and self._failed >= FAILED_STARTS
        if isinstance(worker, ProcessWorker):
            self._reactor.remove_reader(worker.channel)
        worker.close()
        if over:
            self._break_without_workers()
        self._go_on(failed, new)
        self.check_drained()

    def _judge(
        self, task: Task, worker: PoolWorker, reason: ExitReason, failed: list[tuple[Task, BaseException]]
    ) -> None:
        """Try a task again whose worker has ended, or fail it."""
        task.reasons.append(reason)
        abandoned = not isinstance(worker, ProcessWorker)  # a thread still runs the task
        if abandoned or len(task.reasons) > task.limits.retries:
            failed.append((task, task_failed(name_of(task.function), task.reasons, f"{self.name}/{worker.id}")))
        elif task.items is not None and len(task.items) > 1:
            self._parts += 1
            parts = task.split()
            for part in parts:
                part.number = next(self._numbers)
            self._queue.extendleft(reversed(parts))
        else:
            self._queue.appendleft(task)

    # ------------------------------------------------------------ without the lock
    def _go_on(self, failed: list[tuple[Task, BaseException]], new: PoolWorker | None = None) -> None:
        """Settle these tasks, start this worker, and encode the task for which a worker waits."""
        self._settle_failed(failed)
        self._start_soon(new)
        while True:
            try:
                task = self._unencoded.popleft()
            except IndexError:
                return
            self._encode(task)

    def _start_soon(self, worker: PoolWorker | None) -> None:
        if worker is not None and self._reactor is not None:
            self._reactor.call_soon_threadsafe(lambda: self._start_worker(worker))

    def _encode(self, task: Task) -> None:
        """Encode a task for which a worker waits, and give it to the worker."""
        failure: BaseException | None = None
        try:
            task.encode()
        except BaseException as error:
            failure = error
        failed: list[tuple[Task, BaseException]] = []
        with self.lock:
            task.encoding = False
            if failure is not None and task in self._queue:
                self._queue.remove(task)
                failed = [(task, failure)]
            failed += self._dispatch()
            new = self._new_worker()
        self._settle_failed(failed)
        self._start_soon(new)
        try:
            if failure is not None and not isinstance(failure, Exception):
                raise failure  # Ctrl-C, for example
        finally:
            del failure, failed

    # ------------------------------------------------------------ results
    def _settle_failed(self, failed: list[tuple[Task, BaseException]]) -> None:
        for task, error in failed:
            self.settle(task, None, error)
        if failed:
            self.check_drained()

    def settle_parts(self, task: Task, outcomes: Outcomes) -> None:
        """Set the result of a chunk that was taken apart."""
        self.settle(task, outcomes, None)
        with self.lock:
            self._parts -= 1
        self.check_drained()

    def settle(self, task: Task, value: Any, error: BaseException | None) -> None:
        """Set the result or the error of a task; callbacks of the user run here."""
        if not task.begun:
            with self.lock:
                if task.withdrawn:  # cancelled meanwhile
                    return
                task.begin()
        future = task.future
        future.finish()
        try:
            if error is None:
                future.set_result(value)
            else:
                future.set_exception(error)
        except BaseException:  # `sys.exit()` in a callback; the future itself logs an Exception of one
            if not self._is_own_thread():
                raise
            with contextlib.suppress(BaseException):  # an error in a log handler
                logger.exception("exception calling callback for %r", future)


def _on_tree_over(scheduler: Scheduler | None) -> None:
    if scheduler is not None and scheduler._reactor is not None:
        scheduler._reactor.call_soon_threadsafe(lambda: scheduler._break("its supervisor has ended"))


def _load(worker: PoolWorker) -> int:
    return len(worker.tasks)


live: set[Scheduler] = set()
"""The schedulers whose supervisors run; the exit hook of the program ends them."""
