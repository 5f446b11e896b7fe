"""The life cycle of a worker with async hooks: the hooks run in an event loop, and the rest is as in any worker.

With `concurrency`, handlers of messages run in tasks of their own, see `concurrent_handlers`.

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

from suitkaise.errors import Reject
from suitkaise.exits import Crashed, ExitReason, Shutdown
from suitkaise.messaging.mailbox import Mailbox
from suitkaise.messaging.messages import Message
from suitkaise.platform.board import MESSAGES, PHASE, Phase, Slot
from suitkaise.workers.concurrent_handlers import CURRENT, Handlers
from suitkaise.workers.context import WorkerContext
from suitkaise.workers.event_loop import EventLoop
from suitkaise.workers.hooks import NoHandler, body_of
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

    async def wait_for_future(self, future: Any) -> bool:
        """Wait until the future is done; return False once the worker is asked to stop, or its time is over."""
        inside = self.event_loop.is_inside()
        return await (self.event_loop.wait_for_future(future) if inside else super().wait_for_future(future))

    def current_message(self) -> Message | None:
        """Return the message whose handler runs, in this task or in one that has started it."""
        current, loop = CURRENT.get(), self.opened
        if current is not None:
            return current[0] if current else None
        beside = loop is not None and loop.is_inside() and not loop.is_part_of_hook()
        return None if beside else super().current_message()

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
    _handlers: Handlers | None = None

    def _make_context(self, incarnation: Incarnation, mailbox: Mailbox, slot: Slot) -> AsyncContext:
        return AsyncContext(incarnation, mailbox, slot)

    def _build(self) -> Any:
        factory = getattr(self._recipe.target, "loop_factory", None) or asyncio.new_event_loop  # a function has none
        self.context.opened = event_loop = EventLoop(self.path, self._mailbox, self._log_error, factory)
        self._mailbox.sleeper = event_loop
        if self.incarnation.concurrency > 1:
            self._handlers = Handlers(self.incarnation.concurrency, self, event_loop.create_task, event_loop.stopping)
        return super()._build()

    def _hook(self, name: str) -> Callable[..., Any] | None:
        hook = super()._hook(name)
        return None if hook is None else partial(self.context.event_loop.run, hook)

    def _handler(self, message: Message, body: Any) -> Callable[[], Any]:
        return partial(self.context.event_loop.run, super()._handler(message, body))

    def _answer(self, message: Message, answer: Any) -> None:
        if asyncio.isfuture(answer) and message.reply is not None and message.kind != "get":
            self._replies.follow(message, lambda pass_on: answer.add_done_callback(partial(self._pass_on, pass_on)))
        else:
            super()._answer(message, answer)

    def _awaits_alone(self) -> bool:
        """Return whether a hook has to wait for the caller: it is the hook, or a task that the hook has started."""
        return self.context.opened is None or self.context.opened.is_part_of_hook()

    def _is_hook(self) -> bool:
        """Return whether the caller is a hook, and no task beside it."""
        return self.context.opened is not None and self.context.opened.is_in_hook()

    def _deadline(self) -> float | None:
        """Return the same for the handler that runs in this task."""
        message = self.context.current_message()
        return None if message is None else message.deadline

    def _pass_on(self, pass_on: Callable[[asyncio.Future[Any]], None], answer: asyncio.Future[Any]) -> None:
        """Answer with what a future of the event loop has got, unless it was cancelled because the worker ends."""
        if self.outcome is None or not answer.cancelled():
            pass_on(answer)

    # ------------------------------------------------------------ several handlers at once
    def receive(self, message: Message) -> None:
        """Handle one message; with `concurrency`, start its handler, and wait if no other one could start then."""
        if self._handlers is None:
            super().receive(message)
            return
        self._slot.words[MESSAGES] += 1
        if self._skips(message, time.monotonic()):
            return
        self._handlers.start(message)
        if self._handlers.full:
            self._run_until(self._handlers.wait_for_room)

    def idle(self) -> None:
        """Run `handle_timeout`, unless a handler runs."""
        if self._handlers is None or self._handlers.oldest is None:
            super().idle()

    def _run_until(self, wait: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run the event loop until `wait` returns; if it is interrupted, the worker ends."""
        try:
            self.context.event_loop.run(wait)
        except BaseException as error:
            self._fail("on_receive", error)

    def _await_handlers(self) -> None:
        """Wait for the handlers that run; if one has failed, the worker has failed."""
        if self._handlers is None or self.outcome is not None:
            return
        if not self.context.forced and self._interrupted is None:
            self._run_until(self._handlers.wait_for_all)
        if self._handlers.failure is not None and self.outcome is None:
            self._fail_with(*self._handlers.failure)

    def _mark_waiting(self) -> None:
        since = None if self._handlers is None else self._handlers.oldest
        if since is None:
            super()._mark_waiting()
        elif self.outcome is None:
            self._slot.seconds[PHASE] = since + Phase.ON_RECEIVE.mark

    def unanswered(self) -> list[Message]:
        """Take the messages that are handled now, or were to be answered later."""
        handled = [] if self._handlers is None else self._handlers.unanswered()
        return [*handled, *super().unanswered()]

    def is_over(self) -> bool:
        """Return whether the worker has ended."""
        return self.outcome is not None

    def handle(self, message: Message) -> Any:
        """Call the handler of a message; return its value, which may be a coroutine."""
        return super()._handler(message, body_of(message, self.path))()

    def answer(self, message: Message, value: Any) -> None:
        """Answer with the value that the handler has returned."""
        self._answer(message, value)

    def refused(self, message: Message, error: BaseException) -> bool:
        """Answer with a refusal, or that the handler was cancelled; return False for any other error."""
        if isinstance(error, (Reject, NoHandler)):
            self._refuse(message, error)
        elif isinstance(error, asyncio.CancelledError) and self.outcome is None:
            text = f"{self.path!r} has cancelled the handler of the message"
            self._replies.refuse(message, asyncio.CancelledError(text))
        else:
            return False
        return True

    def _fail_with(self, message: Message, error: BaseException) -> None:
        """Do the same, unless the handler has cancelled itself, or has awaited what was cancelled."""
        if self.context.event_loop.was_cancelled or not self.refused(message, error):
            super()._fail_with(message, error)

    def changed(self) -> None:
        """Show on the board since when the oldest handler runs; the time of `handle_timeout` begins anew."""
        self._mark_waiting()
        self._mailbox.busy_at = time.monotonic()

    def failed(self) -> None:
        """End the worker soon: a handler has failed."""
        self._mailbox.order_stop(Shutdown(), 0.0)

    # ------------------------------------------------------------ the end
    def finish(self, reason: ExitReason) -> None:
        """Run `on_finish` and `result`; a worker that was cancelled between two hooks has failed instead."""
        self._await_handlers()
        stray = self.context.event_loop.stray
        if stray is not None and self.outcome is None:
            self._fail(Phase.WAITING.hook, stray)
        else:
            super().finish(reason)

    def close(self) -> None:
        """Cancel the remaining tasks and close the event loop. On the board this is a part of `on_finish`."""
        self._end_background()  # first: its threads may use the event loop
        if self.context.opened is not None:
            self._slot.seconds[PHASE] = time.monotonic() + Phase.ON_FINISH.mark
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

    def _fail(self, phase: str, error: BaseException, reason: Crashed | None = None) -> None:
        if isinstance(error, asyncio.CancelledError) and self.context.opened is not None:  # find the cause
            stray = self.context.opened.stray
            error = error if stray is None else stray
            if self._interrupted is not None:
                error = ExitWith(self._interrupted)
        super()._fail(phase, error, reason)

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
