"""An event loop that runs only while its caller waits: for one hook, or in place of a blocking inbox."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import itertools
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from types import FrameType
from typing import Any

from suitkaise.exits import Shutdown
from suitkaise.messaging.mailbox import Mailbox

__all__ = ["EventLoop", "take_cancellation"]

_MOST = 1_000
"""Messages that are received at most while a hook awaits something. Further messages stay in the socket, as all do
while a plain hook runs, so that their senders get `MailboxFull`."""

_SHOWN = 20
"""How many tasks a stack dump shows."""

_HOOK: contextvars.ContextVar[int] = contextvars.ContextVar("suitkaise_hook")
"""The number of the hook that runs; a task that it starts inherits it."""

_numbers = itertools.count(1)


async def take_cancellation() -> None:
    """Have the cancellation that the caller has requested of its own task raised here, if it was not raised yet."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        await asyncio.sleep(0)


class _WorkerTask(asyncio.Task[None]):
    """The worker's task, in which all hooks run: the cancellation of a hook by itself is not one of the worker."""

    is_hook: Callable[[], bool]
    cancelled_by_others = False

    def cancel(self, msg: Any = None) -> bool:
        if not self.is_hook():
            self.cancelled_by_others = True
        return super().cancel(msg)


class EventLoop:
    """An event loop that runs one hook, or until the mailbox gets something (it is the mailbox's `Sleeper`).

    `stray` is an exception that ends the worker and was not raised by a hook: a cancellation while no hook ran (by a
    task group), or `SystemExit` in a task, which cancels the current hook. A stop is then requested of the mailbox.
    """

    def __init__(
        self,
        name: str,
        mailbox: Mailbox,
        log_error: Callable[[asyncio.AbstractEventLoop, dict[str, Any]], None],
        loop_factory: Callable[[], asyncio.AbstractEventLoop],
    ) -> None:
        self.stray: BaseException | None = None
        self._mailbox = mailbox
        self._log_error = log_error
        self._thread = threading.get_ident()
        self._job: Callable[[], Any] | None = None
        self._number = 0  # of the job
        self._done: tuple[Any, BaseException | None] | None = None
        self._ending = False
        self._reading: int | None = None
        self._waits = 0
        self._loop = loop = loop_factory()
        if not isinstance(loop, asyncio.AbstractEventLoop):
            raise TypeError(f"loop_factory must return an event loop, not {loop!r}")
        loop.set_exception_handler(log_error)
        self._job_ready: asyncio.Future[None] = loop.create_future()
        self._stopping: asyncio.Future[None] = loop.create_future()
        self._task = _WorkerTask(self._work(), loop=loop, name=name)
        self._task.is_hook = self.is_part_of_hook
        self._resume_reading()

    def run(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call a hook in the worker's task; if the hook is async, run the loop until the hook is done."""
        self._job = partial(function, *args)
        if not self._job_ready.done():
            self._job_ready.set_result(None)
        while self._done is None:
            self._run_loop()
        (value, error), self._done = self._done, None
        if error is None:
            return value
        try:
            raise error
        finally:
            del error  # its traceback refers to this frame

    async def _work(self) -> None:
        """Run one job after another: this is the worker's task."""
        while not self._ending:
            value = error = None
            try:
                await self._job_ready
                assert self._job is not None
                self._number = next(_numbers)
                self._task.cancelled_by_others = False
                _HOOK.set(self._number)
                value = self._job()
                if isinstance(value, Coroutine):  # `asyncio.iscoroutine` takes generators, too, before Python 3.12
                    value = await value
            except BaseException as caught:
                error = caught
            if self._task.cancelling() and self._job is not None and not self._task.cancelled_by_others:
                error = await self._end_cancellation(error)
            self._job_ready = self._loop.create_future()
            if self._job is not None:
                self._job, self._done = None, (value, error)
            elif error is not None and not self._ending:
                self._set_stray(error)
            self._loop.stop()

    async def _end_cancellation(self, error: BaseException | None) -> BaseException | None:
        """Take back the cancellation of a hook by itself; return the error of the hook."""
        try:
            await take_cancellation()
        except asyncio.CancelledError as pending:  # the hook has ended before its next `await`
            error = pending if error is None else error
        while not self._task.cancelled_by_others and self._task.uncancel():
            pass
        return error

    @property
    def was_cancelled(self) -> bool:
        """Whether the last hook was cancelled by others than itself, and so the worker was."""
        return self._task.cancelled_by_others

    def _run_loop(self) -> None:
        """Run the loop until a callback stops it."""
        try:
            self._loop.run_forever()
        except (SystemExit, KeyboardInterrupt) as error:  # from a task or a callback; the loop is intact
            self._set_stray(error)
            if self._job is not None:
                self._task.cancel()

    def _set_stray(self, error: BaseException) -> None:
        self.stray = error if self.stray is None else self.stray
        self._mailbox.order_stop(Shutdown())

    # ------------------------------------------------------------ waiting
    def block(self, seconds: float | None) -> None:
        """Run the loop until a frame arrives, `wake` is called, or the time is over."""
        timer = None if seconds is None else self._loop.call_later(seconds, self._loop.stop)
        self._resume_reading()
        try:
            self._run_loop()
        finally:
            if timer is not None:
                timer.cancel()

    def wake(self) -> None:
        """End `block`, and all waits if the worker is to finish."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: no task waits
            self._loop.call_soon_threadsafe(self._on_wake)

    def _on_wake(self) -> None:
        if self._mailbox.finishing and not self._stopping.done():
            self._stopping.set_result(None)
        self._loop.stop()

    async def wait(self, seconds: float) -> bool:
        """Sleep at most `seconds`; return True as soon as the worker is asked to stop, or its time is over."""
        deadline = self._mailbox.deadline
        remaining = seconds if deadline is None else deadline - time.monotonic()
        await self._wait_for([self._stopping], min(seconds, remaining))
        return self._mailbox.finishing or remaining < seconds

    async def wait_for_future(self, future: asyncio.Future[Any]) -> bool:
        """Wait until the future is done; return False as soon as the worker is asked to stop, or its time is over."""
        deadline = self._mailbox.deadline
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        await self._wait_for([self._stopping, future], left)
        return not self._mailbox.is_over

    async def _wait_for(self, futures: list[asyncio.Future[Any]], seconds: float | None) -> None:
        # Awaited even after a stop request: a task that waits in a loop must let the other tasks run.
        self._waits += 1
        self._resume_reading()
        try:
            await asyncio.wait(futures, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._waits -= 1

    def _resume_reading(self) -> None:
        descriptor = self._mailbox.descriptor
        if descriptor is not None and self._reading is None:
            self._loop.add_reader(descriptor, self._on_readable)
            self._reading = descriptor

    def _on_readable(self) -> None:
        waiting = self._mailbox.take_in()
        if self._mailbox.descriptor is None or (waiting >= _MOST and not self._waits):
            self._pause_reading()
        self._loop.stop()

    def _pause_reading(self) -> None:
        if self._reading is not None:
            self._loop.remove_reader(self._reading)
            self._reading = None

    # ------------------------------------------------------------ other tasks
    def create_task(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start a task beside the worker's own."""
        return self._loop.create_task(coroutine, name=self._task.get_name())

    @property
    def stopping(self) -> asyncio.Future[None]:
        """A future that is done as soon as the worker is asked to stop."""
        return self._stopping

    # ------------------------------------------------------------ the caller
    def is_inside(self) -> bool:
        """Return whether the caller runs in this event loop."""
        return self._thread == threading.get_ident() and self._loop.is_running()

    def is_in_hook(self) -> bool:
        """Return whether the caller runs in the worker's own task."""
        return self.is_inside() and asyncio.current_task(self._loop) is self._task

    def is_part_of_hook(self) -> bool:
        """Return whether the caller runs in the current hook, or in a task that this hook has started."""
        return self._job is not None and self.is_inside() and _HOOK.get(0) == self._number

    def interrupt(self) -> None:
        """Cancel the current hook, if there is one; may be called from any thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._cancel_hook)

    def _cancel_hook(self) -> None:
        if self._job is not None:
            self._task.cancel()
            self._task.cancelled_by_others = True  # also if the hook has asked for it, in another thread, say

    # ------------------------------------------------------------ closing
    def close(self, grace: float) -> None:
        """Cancel all tasks, wait for them at most `grace` seconds, and close the loop."""
        self._ending = True
        closing = self._loop.create_task(self._end_tasks(grace))
        closing.add_done_callback(lambda _: self._loop.stop())
        while not closing.done():
            self._run_loop()
        if not closing.cancelled() and (error := closing.exception()) is not None:
            self._log_error(self._loop, {"message": "the event loop was not closed properly", "exception": error})
        self._pause_reading()
        self._loop.close()

    async def _end_tasks(self, grace: float) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        if tasks:  # none: no hook was called, and the worker's own task has ended as it began
            await self._cancel(tasks, grace)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace):
                await self._loop.shutdown_asyncgens()

    async def _cancel(self, tasks: set[asyncio.Task[Any]], grace: float) -> None:
        for task in tasks:
            task.cancel()
        done, left = await asyncio.wait(tasks, timeout=grace)
        for task in done:
            if not task.cancelled() and (error := task.exception()) is not None:
                self._log_error(self._loop, {"message": "a task failed at the end", "exception": error, "task": task})
        for task in left:
            self._log_error(self._loop, {"message": f"a task did not end when it was cancelled, within {grace:g} s",
                                        "task": task})  # fmt: skip

    # ------------------------------------------------------------ stack dumps
    def stacks(self) -> str:
        """Return where the tasks await, the worker's own task first."""
        tasks = sorted(asyncio.all_tasks(self._loop), key=lambda task: task is not self._task)
        return "".join(
            f"\nTask {task.get_name()!r} (most recent call first):\n{_stack(task)}" for task in tasks[:_SHOWN]
        )


def _stack(task: asyncio.Task[Any]) -> str:
    """Return where a task awaits, in the format of `faulthandler`."""
    frames = [one for one in _frames(task.get_coro()) if one.f_code is not EventLoop._work.__code__]
    lines = (
        f'  File "{one.f_code.co_filename}", line {one.f_lineno} in {one.f_code.co_name}\n' for one in reversed(frames)
    )
    return "".join(lines) or "  the task awaits nothing: see the stack of its thread\n"


def _frames(awaited: Any) -> Iterator[FrameType]:
    """Yield the frames of a coroutine and of the objects that it awaits, generators included, the outermost first."""
    while awaited is not None:
        kind = next((kind for kind in ("cr", "gi", "ag") if hasattr(awaited, f"{kind}_frame")), None)
        frame = getattr(awaited, f"{kind}_frame", None)
        if frame is not None:
            yield frame
        awaited = getattr(awaited, "gi_yieldfrom" if kind == "gi" else f"{kind}_await", None)
