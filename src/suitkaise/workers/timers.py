"""Timers of a worker: messages that it gets, or sends, after some time.

They are OTP's `erlang:send_after` and `timer:send_interval`.

A timer belongs to one incarnation, and ends with it. Its message goes into the worker's own inbox, behind those that
wait. `cancel` is final: a message that waits in the inbox already is not handled any more. A timer that fires again
and again never has more than one message waiting: what a slow worker misses is left out.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from typing import Any, NoReturn

from suitkaise.errors import SuitkaiseError, WorkerDead
from suitkaise.messaging.held_back import send_held
from suitkaise.messaging.mailbox import Mailbox
from suitkaise.messaging.messages import Message, Payload
from suitkaise.messaging.portable_errors import text_of
from suitkaise.messaging.protocol import RequestKind
from suitkaise.messaging.refs import WorkerRef
from suitkaise.messaging.tracing import carrier
from suitkaise.platform.board import OWN, OWN_TAKEN, Slot
from suitkaise.platform.callbacks import run_send
from suitkaise.platform.locks import RLock
from suitkaise.platform.reactor import Reactor, TimerHandle
from suitkaise.specs.options import is_number

__all__ = ["CANCELLED", "CallAt", "Timer", "Timers"]

CallAt = Callable[[float, Callable[[], None]], TimerHandle]
"""Calls a function at a time (seconds, monotonic), in a thread that the function must not block."""

CANCELLED: Any = object()
"""Stands for the message of a timer that was cancelled while the message waited in the inbox."""


class Timers:
    """The timers of one incarnation. The methods may be called from any thread of the worker.

    Args:
        path: the worker's path.
        mailbox: the worker's own inbox.
        slot: the worker's slot of the status board.
        call_at: how to be called at a time; None: by a thread that the first timer starts.
    """

    def __init__(self, path: str, mailbox: Mailbox, slot: Slot, call_at: CallAt | None = None) -> None:
        self.path: str = path
        self.slot: Slot = slot
        self.mailbox: Mailbox = mailbox
        self.call_at: CallAt | None = call_at
        self.lock: RLock = RLock()  # a signal handler may set or cancel a timer, too
        self._own: Reactor | None = None
        self._active: set[Timer] = set()
        self._closed = False

    def start(self, seconds: float, message: Any, to: WorkerRef | None, *, repeats: bool) -> Timer:
        """Set a timer.

        Raises:
            ValueError: `seconds` is no such time.
            TypeError: `to` is no ref.
            WorkerDead: the worker has ended.
        """
        _check(seconds, to, repeats=repeats)
        send_held()  # the thread for timers sends its message
        with self.lock:
            if self._closed:
                raise WorkerDead.just_ended(self.path)
            if self.call_at is None:
                self._own = Reactor()
                self.call_at = self._own.call_at
            timer = Timer(self, self.call_at, message, to, seconds, repeats=repeats)
            self._active.add(timer)
            return timer

    def forget(self, timer: Timer) -> None:
        """Remove a timer that fires no more; the caller holds the lock."""
        self._active.discard(timer)

    def close(self) -> None:
        """Cancel all timers: the incarnation ends."""
        with self.lock:
            self._closed = True
            for timer in list(self._active):
                timer.cancel()
            own, self._own = self._own, None
        if own is not None:
            own.close()


class Timer:
    """A timer, as `self.send_after` and `self.every` return it."""

    __slots__ = ("_active", "_call_at", "_due", "_handle", "_interval", "_message", "_on_its_way", "_timers", "_to")

    def __init__(
        self, timers: Timers, call_at: CallAt, message: Any, to: WorkerRef | None, seconds: float, *, repeats: bool
    ) -> None:
        self._timers = timers
        self._call_at = call_at
        self._message = message
        self._to = to
        self._interval = seconds if repeats else None
        self._due = time.monotonic() + seconds
        self._active = True
        self._on_its_way = False
        self._handle: TimerHandle | None = call_at(self._due, self._fire)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a timer belongs to the worker that has set it, and can be cancelled there only")

    @property
    def active(self) -> bool:
        """Whether a message is still to come: the timer was not cancelled, its worker lives, and it is not over."""
        return self._active

    def cancel(self) -> bool:
        """Have no message delivered any more, also none that waits in the inbox; return whether one was to come.

        A message to another worker that has left is not called back.
        """
        with self._timers.lock:
            was_active, self._active = self._active, False
            if self._handle is not None:
                self._handle.cancel()
                self._handle = None
            self._timers.forget(self)
            return was_active

    def _fire(self) -> None:
        """Deliver the message; called in the thread for timers."""
        with self._timers.lock:
            if not self._active:
                return
            self._handle = None
            if self._interval is not None:
                now = time.monotonic()
                missed = max(0.0, (now - self._due) // self._interval)
                self._due += (missed + 1) * self._interval
                self._handle = self._call_at(self._due, self._fire)
                if self._on_its_way:  # the last message waits still
                    return
            self._on_its_way = True
            if self._to is None:
                self._timers.slot.words[OWN] += 1
                self._timers.mailbox.post(Message("signal", _DueMessage(self)))
        if self._to is not None:
            run_send(self._send)

    def take(self, *, sends: bool = False) -> Any:
        """Return the message, for the handler that is called with it next; `CANCELLED` if it is not to be called.

        `sends`: it is sent next, and on its way still.
        """
        with self._timers.lock:
            self._on_its_way = sends
            if not self._active:
                return CANCELLED
            if self._interval is None:
                self._active = False
                self._timers.forget(self)
            return self._message

    def _send(self) -> None:
        """Send the message to another worker, in whose bounded mailbox it waits for room: no other one waits for it."""
        message = self.take(sends=True)
        if message is CANCELLED or self._to is None:
            return
        try:
            accepted = self._to._router.post(
                self._to.path, Message("message", Payload(message), carrier=carrier()), waits=True
            )
        except BaseException as error:  # also of the user's code that encodes the message: the next one may be sent
            self._note_sent(error)
        else:
            if accepted is None:
                self._note_sent(None)
            else:
                accepted.when_done(lambda done: self._note_sent(None if done.cancelled() else done.exception()))

    def _note_sent(self, error: BaseException | None) -> None:
        self._on_its_way = False
        to = self._to
        if error is not None and to is not None:
            kind = "" if isinstance(error, SuitkaiseError) else f"{type(error).__name__}: "
            why = f"sent by a timer of {self._timers.path!r}: {kind}{text_of(error)}"

            def report() -> None:
                with contextlib.suppress(SuitkaiseError):  # the program is gone
                    to._router.request(RequestKind.DEAD_LETTER, to.path, (why, 1))

            run_send(report)

    def __repr__(self) -> str:
        kind = "send_after" if self._interval is None else f"every {self._interval:g} s"
        return f"<Timer of {self._timers.path!r}, {kind}, {'active' if self._active else 'over'}>"


class _DueMessage(Payload):
    """The message of a timer in the inbox; taken from the timer just before its handler is called."""

    __slots__ = ("_timer",)

    def __init__(self, timer: Timer) -> None:
        super().__init__()
        self._timer = timer

    @property
    def value(self) -> Any:
        """The message, or `CANCELLED`. It is taken by that: a second time it is `CANCELLED`."""
        self._timer._timers.slot.words[OWN_TAKEN] += 1
        return self._timer.take()

    def peek(self) -> Any:
        """Return the message, and leave it to its handler."""
        return self._timer._message


def _check(seconds: Any, to: Any, *, repeats: bool) -> None:
    name = "every" if repeats else "send_after"
    if not (is_number(seconds) and 0 <= seconds < math.inf and (seconds > 0 or not repeats)):
        least = "> 0" if repeats else ">= 0"
        raise ValueError(f"{name}: seconds must be a number {least}, not {seconds!r}")
    if not (to is None or isinstance(to, WorkerRef)):
        raise TypeError(f"{name}: to must be the ref of a worker, not {to!r}")
