"""An event loop that runs while somebody waits for it: for one call, or in place of an inbox that blocks."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from types import FrameType
from typing import Any

from suitkaise.exits import Shutdown
from suitkaise.messaging.mailbox import Mailbox

__all__ = ["EventLoop"]

_MOST = 1_000
"""How many messages are taken in while a hook takes its time. The others wait where they come from, as all do while a
plain hook takes its time: so their senders get to know (`MailboxFull`)."""

_SHOWN = 20
"""How many tasks a stack dump shows."""


class EventLoop:
    """An event loop that runs while it is called: for one hook, or for some time (it is the mailbox's `Sleeper`).

    `stray` is what ends the worker, and does not come from a hook: a cancellation while no hook ran (by a task group,
    say), or `SystemExit` in some task, which cancels the hook that runs. The mailbox orders a stop then.
    """

    def __init__(
        self, name: str, mailbox: Mailbox, complain: Callable[[asyncio.AbstractEventLoop, dict[str, Any]], None]
    ) -> None:
        self.stray: BaseException | None = None
        self._mailbox = mailbox
        self._complain = complain
        self._thread = threading.get_ident()
        self._job: Callable[[], Any] | None = None
        self._done: tuple[Any, BaseException | None] | None = None
        self._ending = False
        self._heard: int | None = None
        self._waits = 0
        self._loop = loop = asyncio.new_event_loop()
        loop.set_exception_handler(complain)
        self._bid: asyncio.Future[None] = loop.create_future()
        self._stopping: asyncio.Future[None] = loop.create_future()
        self._task = loop.create_task(self._work(), name=name)
        self._listen()

    def run(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call a hook inside of the loop, in the worker's task; if it is async, let the loop run until it is done."""
        self._job = partial(function, *args)
        if not self._bid.done():
            self._bid.set_result(None)
        while self._done is None:
            self._turn()
        (value, error), self._done = self._done, None
        if error is None:
            return value
        try:
            raise error
        finally:
            del error  # its traceback knows this frame

    async def _work(self) -> None:
        """The worker's task: one job after the other."""
        while not self._ending:
            value = error = None
            try:
                await self._bid
                assert self._job is not None
                value = self._job()
                if asyncio.iscoroutine(value):
                    value = await value
            except BaseException as caught:
                error = caught
            self._bid = self._loop.create_future()
            if self._job is not None:
                self._job, self._done = None, (value, error)
            elif error is not None and not self._ending:
                self._astray(error)
            self._loop.stop()

    def _turn(self) -> None:
        """Let the loop run until something stops it."""
        try:
            self._loop.run_forever()
        except (SystemExit, KeyboardInterrupt) as error:  # from a task or a callback; the loop itself is well
            self._astray(error)
            if self._job is not None:
                self._task.cancel()

    def _astray(self, error: BaseException) -> None:
        self.stray = self.stray or error
        self._mailbox.order_stop(Shutdown())

    # ------------------------------------------------------------ where the worker waits
    def block(self, seconds: float | None) -> None:
        """Let the loop run until something comes in, or the time is over."""
        timer = None if seconds is None else self._loop.call_later(seconds, self._loop.stop)
        self._listen()
        try:
            self._turn()
        finally:
            if timer is not None:
                timer.cancel()

    def wake(self) -> None:
        """End `block`, and all waits if the worker is about to finish."""
        with contextlib.suppress(RuntimeError):  # it is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._woken)

    def _woken(self) -> None:
        if self._mailbox.finishing and not self._stopping.done():
            self._stopping.set_result(None)
        self._loop.stop()

    async def wait(self, seconds: float) -> bool:
        """Sleep at most `seconds`; True as soon as the worker is asked to stop, or its time is over."""
        deadline = self._mailbox.deadline
        left = seconds if deadline is None else deadline - time.monotonic()
        # Also when it is asked to stop already: who waits again and again must not keep the others from their turns.
        self._waits += 1
        self._listen()
        try:
            await asyncio.wait([self._stopping], timeout=min(seconds, left))
        finally:
            self._waits -= 1
        return self._mailbox.finishing or left < seconds

    def _listen(self) -> None:
        descriptor = self._mailbox.descriptor
        if descriptor is not None and self._heard is None:
            self._loop.add_reader(descriptor, self._hear)
            self._heard = descriptor

    def _hear(self) -> None:
        waiting = self._mailbox.take_in()
        if self._mailbox.descriptor is None or (waiting >= _MOST and not self._waits):
            self._deafen()
        self._loop.stop()

    def _deafen(self) -> None:
        if self._heard is not None:
            self._loop.remove_reader(self._heard)
            self._heard = None

    # ------------------------------------------------------------ who asks
    def is_inside(self) -> bool:
        """Whether the caller runs in this loop."""
        return self._thread == threading.get_ident() and self._loop.is_running()

    def is_in_hook(self) -> bool:
        """Whether the caller is a hook."""
        return self.is_inside() and asyncio.current_task(self._loop) is self._task

    def interrupt(self) -> None:
        """Cancel the hook that runs, if one does; from any thread."""
        with contextlib.suppress(RuntimeError):  # it is closed
            self._loop.call_soon_threadsafe(lambda: self._job is not None and self._task.cancel())

    # ------------------------------------------------------------ the end
    def close(self, grace: float) -> None:
        """Cancel all tasks, wait for them at most `grace` seconds, and close the loop."""
        self._ending = True
        last = self._loop.create_task(self._end_tasks(grace))
        last.add_done_callback(lambda _: self._loop.stop())
        while not last.done():
            self._turn()
        if not last.cancelled() and (error := last.exception()) is not None:
            self._complain(self._loop, {"message": "the event loop did not end well", "exception": error})
        self._deafen()
        self._loop.close()

    async def _end_tasks(self, grace: float) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        done, left = await asyncio.wait(tasks, timeout=grace)
        for task in done:
            if not task.cancelled() and (error := task.exception()) is not None:
                self._complain(self._loop, {"message": "a task failed at the end", "exception": error, "task": task})
        for task in left:
            self._complain(self._loop, {"message": f"a task did not end when it was cancelled, within {grace:g} s",
                                        "task": task})  # fmt: skip
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace):
                await self._loop.shutdown_asyncgens()

    # ------------------------------------------------------------ what it does now
    def stacks(self) -> str:
        """Where the tasks await, the worker's own first."""
        tasks = sorted(asyncio.all_tasks(self._loop), key=lambda task: task is not self._task)
        return "".join(
            f"\nTask {task.get_name()!r} (most recent call first):\n{_stack(task)}" for task in tasks[:_SHOWN]
        )


def _stack(task: asyncio.Task[Any]) -> str:
    """What a task awaits, in the way of `faulthandler`."""
    frames = [one for one in _frames(task.get_coro()) if one.f_code is not EventLoop._work.__code__]
    lines = (
        f'  File "{one.f_code.co_filename}", line {one.f_lineno} in {one.f_code.co_name}\n' for one in reversed(frames)
    )
    return "".join(lines) or "  it awaits nothing: the stack of its thread tells\n"


def _frames(awaited: Any) -> Iterator[FrameType]:
    """The frames of a coroutine and of what it awaits, the outermost first; generators await, too, in their way."""
    while awaited is not None:
        kind = next((kind for kind in ("cr", "gi", "ag") if hasattr(awaited, f"{kind}_frame")), None)
        frame = getattr(awaited, f"{kind}_frame", None)
        if frame is not None:
            yield frame
        awaited = getattr(awaited, "gi_yieldfrom" if kind == "gi" else f"{kind}_await", None)
