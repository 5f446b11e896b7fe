"""The life of a worker with async hooks: they run in an event loop, and all else is as in any life.

The life cycle stays plain code. Whenever it calls a hook, and wherever it waits, it lets the event loop run until that
is over; tasks that the worker has started go on all that time. All hooks run in one and the same task, so what one of
them enters (a `TaskGroup`, a context variable) another one can leave.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from suitkaise.exits import ExitReason
from suitkaise.messaging.messages import Message
from suitkaise.platform.board import PHASE, Phase
from suitkaise.workers.event_loop import EventLoop
from suitkaise.workers.incarnation import ExitWith, ForceFinish
from suitkaise.workers.lifecycle import Lifecycle

__all__ = ["AsyncLifecycle"]

_logger = logging.getLogger("suitkaise.worker")


class AsyncLifecycle(Lifecycle):
    """One incarnation of a worker with at least one async hook or public method."""

    has_tasks = True
    _opened: EventLoop | None = None
    _interrupted: ExitReason | None = None

    def _build(self) -> Any:
        self._opened = event_loop = EventLoop(self.path, self._mailbox, self._complain)
        self._mailbox.sleeper = event_loop
        return super()._build()

    @property
    def _event_loop(self) -> EventLoop:
        assert self._opened is not None
        return self._opened

    def _hook(self, name: str) -> Callable[..., Any] | None:
        hook = super()._hook(name)
        return None if hook is None else partial(self._event_loop.run, hook)

    def _handler(self, message: Message) -> Callable[[], Any]:
        return partial(self._event_loop.run, super()._handler(message))

    def finish(self, reason: ExitReason) -> None:
        """Run `on_finish` and `result`; but a life that was broken off between two hooks has failed."""
        if self._event_loop.stray is not None and self.outcome is None:
            self._fail(Phase.WAITING.hook, self._event_loop.stray)
        else:
            super().finish(reason)

    def leave(self) -> None:
        """Cancel the tasks that are left, and close the event loop. On the board that is a part of `on_finish`."""
        if self._opened is not None:
            self._slot.words[PHASE] = time.monotonic_ns() + Phase.ON_FINISH.mark
            self._opened.close(self._birth.grace)

    # ------------------------------------------------------------ what the worker calls
    def wait(self, seconds: float) -> bool:
        """Sleep, but not when asked to stop; not in a hook, where it would hold up the event loop."""
        if self._event_loop.is_inside():
            raise RuntimeError(
                f"wait({seconds!r}) would hold up this worker's event loop; make the hook async and say: "
                f"await self.wait_async({seconds!r})"
            )
        return super().wait(seconds)

    def wait_async(self, seconds: float) -> Coroutine[Any, Any, bool]:
        """Sleep in the worker's event loop, but not when asked to stop."""
        if not self._event_loop.is_inside():
            raise RuntimeError("wait_async() is for the worker's own event loop; elsewhere, say: self.wait(...)")
        return self._event_loop.wait(seconds)

    def force_finish(self) -> None:
        """Leave at once: also the hook that awaits something, if called from another task."""
        try:
            super().force_finish()
        finally:
            if not self._event_loop.is_in_hook():
                self._event_loop.interrupt()

    def stacks(self) -> str:
        """Where its tasks await, the worker's own first; from any thread, and from signal handlers."""
        return "" if self._opened is None else self._opened.stacks()

    def interrupt(self, reason: ExitReason) -> None:
        """Nobody waits for it any more: leave the `await` it may be in, and end for that reason."""
        self._interrupted = reason
        if self._opened is not None:
            self._opened.interrupt()

    # ------------------------------------------------------------ small things
    def _fail(self, phase: str, error: BaseException) -> None:
        if isinstance(error, asyncio.CancelledError) and self._opened is not None:  # it is not the cause
            error = ExitWith(self._interrupted) if self._interrupted is not None else self._opened.stray or error
        super()._fail(phase, error)

    def _complain(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """What asyncio has to say of a task that failed and that nobody awaits goes to the worker's log."""
        error = context.get("exception")
        if isinstance(error, (ForceFinish, SystemExit)):  # they are dealt with
            return
        about = context.get("task") or context.get("future") or context.get("handle")
        name = about.get_name() if isinstance(about, asyncio.Task) else about
        text = f"{self.path}: {context['message']}" + ("" if name is None else f" ({name})")
        _logger.error("%s", text, exc_info=error)
        if self.on_log_line is not None:
            self.on_log_line(f"error: {text}" + ("" if error is None else f": {error!r}"))
