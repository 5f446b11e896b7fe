"""A worker's inbox: the messages that wait for the worker, and how the worker notices them and sleeps without them.

The bell is one byte of the status board. A sender sets it; a worker that loops reads it once a loop, which costs a
memory read. A worker without a loop blocks. An order to stop goes ahead of all messages.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from suitkaise.exits import ExitReason
from suitkaise.messaging.actor import Envelope, envelope
from suitkaise.messaging.held_back import holders, send_held
from suitkaise.messaging.messages import Message
from suitkaise.platform.board import BELL, LOOKED, QUEUED, Slot

__all__ = ["IDLE", "ITERATE", "STOP", "URGENT", "Mailbox", "Sleeper", "ThreadMailbox"]

ITERATE: Any = object()
"""The message that `get` returns to a looping worker when no other waits: run the next loop."""

STOP: Any = object()
"""The message that `get` returns to a worker that has to finish, for the reason in `mailbox.stop_reason`."""

IDLE: Any = object()
"""The message that `get` returns when none has come for `mailbox.idle` seconds, to a worker without a loop."""

URGENT = 2
"""The hub's byte of the bell if an order may be behind the messages: the worker then reads all input first."""

_LONGEST = 1e6
"""Seconds; longer waits are made in parts, since `poll` counts milliseconds in 32 bits."""

_A_SLEEP = 0.001
"""Seconds; a shorter wait may have found what was there before."""

_ITERATE = envelope(ITERATE)
_STOP = envelope(STOP)
_IDLE = envelope(IDLE)


class Sleeper(Protocol):
    """Blocks in place of the inbox, and runs something else meanwhile: an event loop."""

    def block(self, seconds: float | None) -> None:
        """Return when `Mailbox.descriptor` is readable, after `wake`, or after `seconds`; or earlier."""

    def wake(self) -> None:
        """End `block`, from any thread and from signal handlers."""


class _Bell:
    """A descriptor that is readable once it was rung.

    It is closed with the last reference to it: another thread that is about to ring it must not write to a file that
    has got its number meanwhile.
    """

    def __init__(self) -> None:
        self.descriptor: int = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def ring(self) -> None:
        """Make the descriptor readable."""
        os.eventfd_write(self.descriptor, 1)

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)


class Mailbox(ABC):
    """The common part of both kinds of inboxes. `put` and `order_stop` may be called from any thread, `get` from one.

    Three things must hold, and no queue of the standard library gives all of them.

    A loop must cost next to nothing while no message comes: a queue takes a lock and allocates at each look. So a
    sender puts the message in first and sets the bell after that, and the worker clears the bell first and looks for
    messages after that. In any other order, a message that comes between the two waits until the next one arrives.

    Falling asleep must not lose a wake-up: a message, a stop or a resume may come just before the worker blocks. So
    `sleep` first sets `_asleep`, then looks once more, and blocks only after that; a sender rings first and reads
    `_asleep` after that. One of the two sees the other's change, in whichever order they run. A wake-up that is not
    needed ends one wait early, and `get` looks again. Input of a socket ends `_block` at once.

    Signal handlers may call `put`, `order_stop` and `end_waits` at any bytecode, also inside of the same methods. A
    lock that is taken there could be held by the interrupted code itself, so none is taken: all changes are single
    atomic operations (a byte, an append), and a lock serves only as a flag that another thread can wait for.
    """

    def __init__(self, slot: Slot) -> None:
        self.bell: memoryview[int] = slot.words[BELL // 8 : BELL // 8 + 1]
        self.stop_reason: ExitReason | None = None
        self.looping: bool = False
        self.suspended: bool = False
        self.blocks_if_suspended: bool = True  # else the worker itself handles suspension
        self.deadline: float | None = None
        self.idle: float | None = None  # seconds without a message after which `get` returns `IDLE`
        self.busy_at: float = 0.0  # monotonic; `idle` counts from then on, if a handler has run beside `get`
        self.drain: float = 0.0  # seconds for which messages are handled before an order to stop
        self.owner: int | None = None  # the worker's own thread
        self.finishing: bool = False
        self.sleeper: Sleeper | None = None
        self._drain_until = 0.0
        self._slot = slot
        self._waiting: deque[Message] = deque()
        self._batch = 0
        self._turn = False
        self._looked = time.monotonic()
        self._asleep = False
        self._unfinished = threading.Lock()  # released once the worker is about to finish
        self._unfinished.acquire()
        self._bells: list[_Bell] = []  # of those that are in `woken`

    # ------------------------------------------------------------ from any thread
    @abstractmethod
    def put(self, message: Message) -> bool:
        """Add a message behind those that wait; return False if the inbox takes none any more."""

    def post(self, message: Message) -> None:
        """Add a message of the worker's own, from any thread of its process."""
        self._waiting.append(message)
        self.ring()

    def order_stop(self, reason: ExitReason, drain: float | None = None) -> None:
        """Ask the worker to finish, after messages that are handled within `drain` seconds (None: `self.drain`).

        The first reason counts. A later order can shorten the time, but not prolong it.
        """
        until = time.monotonic() + (self.drain if drain is None else drain)
        if self.stop_reason is None:
            self._drain_until = until  # first: the worker's thread looks at it when there is a reason
            self.stop_reason = reason
        elif drain is not None:
            self._drain_until = min(self._drain_until, until)
        self.end_waits()

    def end_waits(self) -> None:
        """End every `wait` now: the worker is about to finish."""
        self.finishing = True
        with contextlib.suppress(RuntimeError):  # the lock is released already
            self._unfinished.release()
        for bell in tuple(self._bells):
            bell.ring()
        self.ring()
        if self.sleeper is not None:  # a wait of the event loop may go on while the inbox is awake
            self.sleeper.wake()

    def suspend(self, on: bool) -> None:
        """Return only an order to stop from `get`, until suspension is switched off again."""
        self.suspended = on
        self.ring()

    def ring(self) -> None:
        """Make the worker look at its inbox soon."""
        try:
            self.bell[0] = 1
        except ValueError:  # the inbox is closed: the worker has ended
            return
        if self._asleep:
            (self.sleeper.wake if self.sleeper is not None else self._wake)()

    # ------------------------------------------------------------ from the worker's own thread
    def get(self) -> Message | Envelope[Any]:
        """Return the next message, `STOP`, `ITERATE` or `IDLE`; block while there is none.

        The messages that wait form a batch; after a batch comes one loop, so that neither starves the other.
        """
        idle_since = None
        while True:
            if self.stop_reason is not None:
                return self._get_before_stop()
            if self.suspended and self.blocks_if_suspended:
                idle_since = None
                self.sleep(None, for_messages=False, until_resumed=True)
                continue
            if self._batch:
                if self.bell[0] & 0xFF == URGENT:  # an order is behind the messages that wait
                    self._collect()
                    if self.stop_reason is not None or (self.suspended and self.blocks_if_suspended):
                        continue
                self._batch -= 1
                try:
                    message = self._waiting.popleft()
                except IndexError:  # drained meanwhile by the thread that has abandoned the worker
                    continue
                self._slot.words[QUEUED] = len(self._waiting)
                return message
            if self.looping:
                if self._turn:
                    self._turn = False
                elif self.bell[0]:
                    self.bell[0] = 0  # first: a message that comes after the look sets it again
                    self._look()
                    continue
                return _ITERATE
            if self.deadline is not None and time.monotonic() >= self.deadline:
                return _ITERATE
            until = self.deadline
            if self.idle is not None:
                now = time.monotonic()
                idle_since = max(now if idle_since is None else idle_since, self.busy_at)
                idle_until = idle_since + self.idle
                if now >= idle_until:
                    return _IDLE
                until = idle_until if until is None else min(until, idle_until)
            self.sleep(None if until is None else min(until - time.monotonic(), _LONGEST))

    def _get_before_stop(self) -> Message | Envelope[Any]:
        """Return the next message, if the order to stop leaves time for it, else `STOP`."""
        if time.monotonic() < self._drain_until:
            self._collect()
            with contextlib.suppress(IndexError):  # none is left
                message = self._waiting.popleft()
                self._slot.words[QUEUED] = len(self._waiting)
                return message
        return _STOP

    def _look(self, asleep_since: float | None = None) -> None:
        """Make a batch of what waits: that has come since the former look, or, after a sleep, just now."""
        former, self._looked = self._looked, time.monotonic()
        self._collect()
        self._batch = self._slot.words[QUEUED] = len(self._waiting)
        if self._batch:
            self._turn = self.looping
            slept = asleep_since is not None and self._looked - asleep_since > _A_SLEEP
            self._slot.seconds[LOOKED] = self._looked if slept else former

    def wait(self, seconds: float) -> bool:
        """Sleep at most `seconds`; return True at once when the worker is asked to stop."""
        if threading.get_ident() != self.owner:
            return self.wait_beside(seconds)
        until = time.monotonic() + seconds
        while not self.finishing:
            now = time.monotonic()
            end = until if self.deadline is None else min(until, self.deadline)
            self.sleep(min(max(0.0, end - now), _LONGEST), for_messages=False)
            if now >= end:
                return self.finishing or end < until
        return True

    def wait_beside(self, seconds: float) -> bool:
        """Wait in a thread that the user has started, or in a forked child, without touching the inbox."""
        over = self._unfinished.acquire(timeout=min(max(0.0, seconds), _LONGEST))
        if over:
            with contextlib.suppress(RuntimeError):
                self._unfinished.release()
        return over

    @property
    def is_over(self) -> bool:
        """Whether the worker is about to finish, or its time is over."""
        return self.finishing or (self.deadline is not None and time.monotonic() >= self.deadline)

    def look_for_orders(self) -> None:
        """Carry out an order that is urgent, if this thread is the worker's own, which reads them."""
        if threading.get_ident() == self.owner and self.bell[0] & 0xFF == URGENT:
            self.take_in()

    @contextlib.contextmanager
    def woken(self) -> Iterator[list[int]]:
        """Yield descriptors of which one is readable when the worker is about to finish, perhaps earlier.

        For a wait in any thread of the worker. It has to end by itself when the worker's time, `deadline`, is over.
        """
        send_held()
        bell = _Bell()
        self._bells.append(bell)  # first: what ends the waits from now on rings it
        try:
            if self.finishing:
                bell.ring()
            yield [bell.descriptor]
        finally:
            self._bells.remove(bell)

    def sleep(self, seconds: float | None, *, for_messages: bool = True, until_resumed: bool = False) -> None:
        """Wait for input, at most `seconds`; with `until_resumed` also for the end of a suspension."""
        if holders:
            send_held()
        began, since = time.monotonic(), None
        self._asleep = True
        try:
            if not for_messages or self.sleeper is not None:
                self._collect()  # after `_asleep` is set: no wake-up comes for earlier input
            if (
                not self.finishing
                and not (for_messages and self._waiting)
                and not (until_resumed and not self.suspended)
            ):
                since = began
                (self.sleeper.block if self.sleeper is not None else self._block)(seconds)
                if not for_messages:
                    self._collect()
        finally:
            self._asleep = False
        if for_messages:
            self.bell[0] = 0
            self._look(since)
        elif self._waiting:
            self.bell[0] = 1

    def wait_in(self, wait: Callable[..., None], *, for_messages: bool = True) -> bool:
        """Sleep in the caller's `wait(*descriptors)`; return False when the hub is gone."""
        raise NotImplementedError("only a worker in a process of its own can sleep on descriptors")

    @property
    def descriptor(self) -> int | None:
        """A descriptor that is readable when there is input; None if senders wake the worker themselves."""
        return None

    def take_in(self) -> int:
        """Read all input, so that an order takes effect at once; return how many messages wait now."""
        self._collect()
        if self._waiting:
            self.bell[0] = 1
        return len(self._waiting)

    @property
    def queued(self) -> int:
        """How many messages were put in and not taken out; for any thread, with a `ThreadMailbox`."""
        return len(self._waiting)

    def empty(self) -> bool:
        """Return True always: at the end, Pykka must not answer the messages that wait; `take_unhandled` does."""
        return True

    def take_unhandled(self) -> list[Message]:
        """Remove all messages that were not handled, and return those that were not for this incarnation alone."""
        self._collect()
        messages = []
        with contextlib.suppress(IndexError):
            while True:  # one by one: a sender may add one meanwhile
                messages.append(self._waiting.popleft())
        self._batch = 0
        return [one for one in messages if one.kind != "signal"]

    @abstractmethod
    def _collect(self) -> None:
        """Read all input that has arrived, without waiting."""

    @abstractmethod
    def _block(self, seconds: float | None) -> None:
        """Wait for input, or for `_wake`."""

    @abstractmethod
    def _wake(self) -> None:
        """End `_block`, from any thread."""

    def close(self) -> None:
        """Release the memory of the status board."""
        self.bell.release()


class ThreadMailbox(Mailbox):
    """The inbox of a worker in a thread: senders share its memory.

    A sender first adds its message, and then looks whether the inbox is shut. The thread that shuts the inbox first
    marks it as shut, and then takes out the messages that wait. So exactly one of the two takes each message: the
    sender removes its own if that is still there.
    """

    def __init__(self, slot: Slot) -> None:
        super().__init__(slot)
        self.is_shut: bool = False
        self._woken = threading.Lock()  # released to wake the worker; an Event could deadlock in a signal handler
        self._woken.acquire()

    def put(self, message: Message) -> bool:
        """Add a message behind those that wait; return False if the worker has ended or was abandoned."""
        self._waiting.append(message)
        if self.is_shut:
            try:
                self._waiting.remove(message)
            except ValueError:  # the thread that has shut the inbox has taken it out
                return True
            return False
        try:
            self.bell[0] = 1
        except ValueError:  # shut and closed meanwhile
            return True
        if self._asleep and (self.sleeper is not None or self._woken.locked()):
            (self.sleeper.wake if self.sleeper is not None else self._wake)()
        return True

    def shut(self) -> list[Message]:
        """Take no message any more; return what `take_unhandled` does."""
        self.is_shut = True
        return self.take_unhandled()

    def _collect(self) -> None:
        """Do nothing: senders append to the inbox themselves."""

    def _block(self, seconds: float | None) -> None:
        self._woken.acquire(timeout=-1 if seconds is None else max(0.0, seconds))

    def _wake(self) -> None:
        if self._woken.locked():  # else it is woken already, and has not got the interpreter yet
            try:
                self._woken.release()
            except RuntimeError:  # another thread was faster
                return
