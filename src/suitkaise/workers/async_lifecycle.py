"""The life cycle of a worker with async hooks: the hooks run in an event loop, and the rest is as in any worker.

The life cycle itself stays plain code. Whenever it calls a hook, and wherever it waits, the event loop runs until the
hook or the wait is done; tasks that the worker has started go on meanwhile. All hooks run in the same task, so that
one hook can leave what another has entered (a `TaskGroup`, a context variable).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from suitkaise.exits import ExitReason
from suitkaise.messaging.mailbox import Mailbox
from suitkaise.messaging.messages import Message
from suitkaise.platform.board import PHASE, Phase, Slot
from suitkaise.workers.context import WorkerContext
from suitkaise.workers.event_loop import EventLoop
from suitkaise.workers.incarnation import ExitWith, ForceFinish, Incarnation
from suitkaise.workers.lifecycle import Lifecycle

__all__ = ["AsyncContext", "AsyncLifecycle"]

_logger = logging.getLogger("suitkaise.worker")


class AsyncContext(WorkerContext):
    """The context of a worker that has an event loop; the life cycle sets `opened` in the worker's own thread."""

    opened: EventLoop | None = None

    @property
    def event_loop(self) -> EventLoop:
        """The event loop."""
        assert self.opened is not None
        return self.opened

    def wait(self, seconds: float) -> bool:
        """Sleep at most `seconds`; raise RuntimeError in the event loop, which the sleep would block."""
        if self.event_loop.is_inside():
            raise RuntimeError(
                f"wait({seconds!r}) would block this worker's event loop; make the hook async and use "
                f"await self.wait_async({seconds!r})"
            )
        return super().wait(seconds)

    def wait_async(self, seconds: float) -> Coroutine[Any, Any, bool]:
        """Sleep in the worker's event loop; the result is True as soon as the worker is asked to stop."""
        if not self.event_loop.is_inside():
            raise RuntimeError("wait_async() works in the worker's own event loop only; elsewhere, use self.wait(...)")
        return self.event_loop.wait(seconds)

    def force_finish(self) -> None:
        """Finish at once; called from another task or thread, also leave the `await` of the current hook."""
        try:
            super().force_finish()
        finally:
            if not self.event_loop.is_in_hook():
                self.event_loop.interrupt()


class AsyncLifecycle(Lifecycle):
    """Runs one incarnation of a worker that has at least one async hook or async public method."""

    has_tasks = True
    context: AsyncContext
    _interrupted: ExitReason | None = None

    def _make_context(self, incarnation: Incarnation, mailbox: Mailbox, slot: Slot) -> AsyncContext:
        return AsyncContext(incarnation, mailbox, slot)

    def _build(self) -> Any:
        self.context.opened = event_loop = EventLoop(self.path, self._mailbox, self._log_error)
        self._mailbox.sleeper = event_loop
        return super()._build()

    def _hook(self, name: str) -> Callable[..., Any] | None:
        hook = super()._hook(name)
        return None if hook is None else partial(self.context.event_loop.run, hook)

    def _handler(self, message: Message) -> Callable[[], Any]:
        return partial(self.context.event_loop.run, super()._handler(message))

    def _answer(self, message: Message, answer: Any) -> None:
        if asyncio.isfuture(answer) and message.reply is not None and message.kind != "get":
            self._replies.follow(message, lambda pass_on: answer.add_done_callback(partial(self._pass_on, pass_on)))
        else:
            super()._answer(message, answer)

    def _pass_on(self, pass_on: Callable[[asyncio.Future[Any]], None], answer: asyncio.Future[Any]) -> None:
        """Answer with what a future of the event loop has got, unless it was cancelled because the worker ends."""
        if self.outcome is None or not answer.cancelled():
            pass_on(answer)

    def finish(self, reason: ExitReason) -> None:
        """Run `on_finish` and `result`; a worker that was cancelled between two hooks has failed instead."""
        stray = self.context.event_loop.stray
        if stray is not None and self.outcome is None:
            self._fail(Phase.WAITING.hook, stray)
        else:
            super().finish(reason)

    def close(self) -> None:
        """Cancel the remaining tasks and close the event loop. On the board this is a part of `on_finish`."""
        self._end_background()  # first: its threads may use the event loop
        if self.context.opened is not None:
            self._slot.words[PHASE] = time.monotonic_ns() + Phase.ON_FINISH.mark
            self.context.opened.close(self.incarnation.grace)
        super().close()

    def stacks(self) -> str:
        """Return where the tasks await, the worker's own task first; for any thread and signal handler."""
        return "" if self.context.opened is None else self.context.opened.stacks()

    def interrupt(self, reason: ExitReason) -> None:
        """Leave the `await` of the current hook, and end for that reason."""
        super().interrupt(reason)
        self._interrupted = reason
        if self.context.opened is not None:
            self.context.opened.interrupt()

    def _fail(self, phase: str, error: BaseException) -> None:
        if isinstance(error, asyncio.CancelledError) and self.context.opened is not None:  # find the cause
            error = ExitWith(self._interrupted) if self._interrupted is not None else self.context.opened.stray or error
        super()._fail(phase, error)

    def _log_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Write asyncio's report of a failed task that nothing awaits to the worker's log."""
        error = context.get("exception")
        if isinstance(error, (ForceFinish, SystemExit)):  # handled elsewhere
            return
        about = context.get("task") or context.get("future") or context.get("handle")
        name = about.get_name() if isinstance(about, asyncio.Task) else about
        text = f"{self.path}: {context['message']}" + ("" if name is None else f" ({name})")
        _logger.error("%s", text, exc_info=error)
        if self.context.on_log_line is not None:
            self.context.on_log_line(f"error: {text}" + ("" if error is None else f": {error!r}"))
