"""A worker's inbox: what waits for it, how it learns of that, and how it waits.

The doorbell is one byte of the status board. Whoever puts something in sets it; a worker that loops looks at it
once a loop, which costs a memory read. A worker without a loop blocks. An order to stop goes ahead of everything.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import socket
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from suitkaise.exits import ExitReason
from suitkaise.messaging.actor import Envelope, envelope
from suitkaise.messaging.messages import Message
from suitkaise.messaging.wire import Frame, Parser, PeerClosed, WireError
from suitkaise.platform.board import BELL, QUEUED, Slot

__all__ = ["ITERATE", "STOP", "URGENT", "Mailbox", "Sleeper", "SocketMailbox", "ThreadMailbox"]

logger: logging.Logger = logging.getLogger("suitkaise.mailbox")

ITERATE: Any = object()
"""The message that a looping worker finds when no other waits: go on with your loops."""

STOP: Any = object()
"""The message that says: finish, for the reason in `mailbox.stop_reason`."""

URGENT = 2
"""What the bell is set to where orders may be among the messages: they are looked for before each one is handled."""

_READS = 16
"""How often the inbox reads at one go: a sender may be as quick as that, and the worker has other things to do."""

_LONGEST = 1e6
"""Seconds: longer waits are made in parts, since `poll` counts milliseconds in 32 bits."""

_ITERATE = envelope(ITERATE)
_STOP = envelope(STOP)


class Sleeper(Protocol):
    """Who blocks in place of the inbox, and does something else meanwhile: an event loop."""

    def block(self, seconds: float | None) -> None:
        """Return when `Mailbox.descriptor` is readable, `wake` was called, or the time is over; or earlier."""

    def wake(self) -> None:
        """End `block`, from any thread and from signal handlers."""


class Mailbox(ABC):
    """What both kinds of inboxes share. `put` and `order_stop` may be called from any thread, `get` from one."""

    def __init__(self, slot: Slot) -> None:
        self.bell: memoryview[Any] = slot.bytes[BELL : BELL + 1]
        self.stop_reason: ExitReason | None = None
        self.looping: bool = False
        self.suspended: bool = False
        self.rests: bool = True  # while suspended; else the worker itself sees to what that means
        self.deadline: float | None = None
        self.owner: int | None = None  # the worker's own thread
        self.finishing: bool = False
        self.sleeper: Sleeper | None = None
        self._words = slot.words
        self._waiting: deque[Envelope[Any]] = deque()
        self._batch = 0
        self._turn = False
        self._asleep = False
        self._helpers = threading.Lock()  # free once the worker is about to finish
        self._helpers.acquire()

    # ------------------------------------------------------------ from any thread
    def put(self, message: Message) -> None:
        """Add a message behind those that wait."""
        self._waiting.append(envelope(message))
        self.ring()

    def order_stop(self, reason: ExitReason) -> None:
        """Ask the worker to finish; the first reason counts."""
        if self.stop_reason is None:
            self.stop_reason = reason
        self.end_waits()

    def end_waits(self) -> None:
        """The worker is about to finish: every `wait` returns now. (Signal handlers call it too: no lock is taken.)"""
        self.finishing = True
        with contextlib.suppress(RuntimeError):  # it is free already
            self._helpers.release()
        self.ring()
        if self.sleeper is not None:  # somebody may wait in there while the inbox is awake
            self.sleeper.wake()

    def suspend(self, on: bool) -> None:
        """Hand out nothing but an order to stop, until it is switched off again."""
        self.suspended = on
        self.ring()

    def ring(self) -> None:
        """Let the worker look at its inbox soon."""
        try:
            self.bell[0] = 1
        except ValueError:  # it is closed: the worker is over
            return
        if self._asleep:
            (self.sleeper.wake if self.sleeper is not None else self._wake)()

    # ------------------------------------------------------------ from the worker's own thread
    def get(self) -> Envelope[Any]:
        """The next thing to do; blocks while there is none.

        Messages that wait are handled as a batch, then the loop has its turn: neither starves the other.
        """
        while True:
            if self.stop_reason is not None:
                return _STOP
            if self.suspended and self.rests:
                self.sleep(None, for_messages=False, resting=True)
                continue
            if self._batch:
                if self.bell[0] == URGENT:  # an order is behind the messages that wait
                    self._collect()
                    if self.stop_reason is not None or (self.suspended and self.rests):
                        continue
                self._batch -= 1
                self._turn = self.looping
                with contextlib.suppress(IndexError):  # drained by whoever has abandoned the worker
                    message = self._waiting.popleft()
                    self._words[QUEUED] = len(self._waiting)
                    return message
            if self.looping:
                if self._turn:
                    self._turn = False
                elif self.bell[0]:
                    self.bell[0] = 0  # cleared before looking, so that nothing is missed
                    self._look()
                    continue
                return _ITERATE
            if self.deadline is not None and time.monotonic() >= self.deadline:
                return _ITERATE
            self.sleep(None if self.deadline is None else min(self.deadline - time.monotonic(), _LONGEST))

    def _look(self) -> None:
        self._collect()
        self._batch = len(self._waiting)
        self._words[QUEUED] = self._batch

    def wait(self, seconds: float) -> bool:
        """Sleep at most `seconds`; True at once when the worker is asked to stop."""
        if threading.get_ident() != self.owner:
            return self._wait_in_a_helper(seconds)
        until = time.monotonic() + seconds
        while not self.finishing:
            now = time.monotonic()
            end = until if self.deadline is None else min(until, self.deadline)
            self.sleep(min(max(0.0, end - now), _LONGEST), for_messages=False)
            if now >= end:
                return self.finishing or end < until
        return True

    def _wait_in_a_helper(self, seconds: float) -> bool:
        """A thread that the worker has started by itself waits; the inbox is none of its business."""
        over = self._helpers.acquire(timeout=min(max(0.0, seconds), _LONGEST))
        if over:
            with contextlib.suppress(RuntimeError):
                self._helpers.release()
        return over

    def sleep(self, seconds: float | None, *, for_messages: bool = True, resting: bool = False) -> None:
        """Wait until something comes in, or the time is over. `resting`: because it is suspended."""
        self._asleep = True
        try:
            self._collect()  # only now: what came before this, nobody will wake it up for
            if not self.finishing and not (for_messages and self._waiting) and not (resting and not self.suspended):
                (self.sleeper.block if self.sleeper is not None else self._block)(seconds)
                self._collect()
        finally:
            self._asleep = False
        if for_messages:
            self.bell[0] = 0
            self._look()
        elif self._waiting:
            self.bell[0] = 1

    def wait_in(self, wait: Callable[..., None], *, for_messages: bool = True) -> bool:
        """Sleep in the caller's `wait(*descriptors)`; False when the hub is gone."""
        raise NotImplementedError("only a worker in a process of its own can sleep on descriptors")

    @property
    def descriptor(self) -> int | None:
        """What becomes readable when something comes in; None where whoever puts it in says so."""
        return None

    def take_in(self) -> int:
        """Take in what has arrived, so that an order is known at once; returns how many messages wait now."""
        self._collect()
        if self._waiting:
            self.bell[0] = 1
        return len(self._waiting)

    def empty(self) -> bool:
        """Pykka asks at the end whether it should answer what still waits: no, `drain` is for that."""
        return True

    def drain(self) -> list[Message]:
        """Take out all messages that were not handled."""
        self._collect()
        left = [one.message for one in self._waiting]
        self._waiting.clear()
        self._batch = 0
        return left

    @abstractmethod
    def _collect(self) -> None:
        """Take in what has arrived, without waiting."""

    @abstractmethod
    def _block(self, seconds: float | None) -> None:
        """Wait for something to arrive, or for `_wake`."""

    @abstractmethod
    def _wake(self) -> None:
        """End `_block`, from any thread."""

    def close(self) -> None:
        """Let go of what the inbox holds."""
        self.bell.release()


class ThreadMailbox(Mailbox):
    """The inbox of a worker in a thread: senders share its memory."""

    def __init__(self, slot: Slot) -> None:
        super().__init__(slot)
        self._woken = threading.Lock()  # free once it is; an event would deadlock in a signal handler
        self._woken.acquire()

    def _collect(self) -> None:
        """What was put in is there at once. A wake-up that came too early ends the next wait: `get` looks again."""

    def _block(self, seconds: float | None) -> None:
        self._woken.acquire(timeout=-1 if seconds is None else max(0.0, seconds))

    def _wake(self) -> None:
        with contextlib.suppress(RuntimeError):  # it is woken already
            self._woken.release()


class SocketMailbox(Mailbox):
    """The inbox of a worker in a process of its own: messages come from the hub through a socket.

    Args:
        slot: the worker's place on the board.
        sock: the control connection; it stays in blocking mode, reads here never wait.
        take: is given each frame; calls `put` or `order_stop` for what it means.
    """

    def __init__(self, slot: Slot, sock: socket.socket, take: Callable[[Frame], None]) -> None:
        super().__init__(slot)
        self._sock = sock
        self._take = take
        self._parser = Parser()
        self._bell_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)
        self._poll.register(self._bell_fd, select.POLLIN)
        self._open = True

    def put(self, message: Message) -> None:
        """Add a message; for `take` only. The bell is silent: whoever takes frames in looks at them, too."""
        self._waiting.append(envelope(message))

    @property
    def descriptor(self) -> int | None:
        """The control connection's descriptor, while it is open."""
        return self._sock.fileno() if self._open else None

    def adopt(self, parser: Parser, frames: list[Frame]) -> None:
        """Go on where someone else began to read the connection."""
        self._parser = parser
        for frame in frames:
            self._take(frame)
        self.bell[0] = 1

    def wait_in(self, wait: Callable[..., None], *, for_messages: bool = True) -> bool:
        """Sleep in the caller's `wait(*descriptors)`; False when the hub is gone."""
        self._asleep = True
        try:
            self._collect()
            if self.stop_reason is None and not (for_messages and self._waiting):
                wait(*([self._sock.fileno()] if self._open else []), self._bell_fd)
        finally:
            self._asleep = False
        self._block(0)
        self.bell[0] = 1  # have a look between the loops
        return self._open

    def _collect(self) -> None:
        for _ in range(_READS):
            if not self._open:
                return
            try:
                frames = self._parser.receive(self._sock, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except (PeerClosed, OSError):
                self._hub_gone()
                return
            except WireError as error:
                logger.error("the program that owns this worker talks nonsense: %s", error)
                with contextlib.suppress(OSError):
                    self._sock.shutdown(socket.SHUT_RD)  # the lifeline takes that for its end
                self._hub_gone()
                return
            for frame in frames:
                self._take(frame)
        self.bell[0] = self.bell[0] or 1  # there may be more

    def _hub_gone(self) -> None:
        # What is to be done then is the lifeline's business; here the socket just must not spin.
        self._open = False
        self._poll.unregister(self._sock)

    def _block(self, seconds: float | None) -> None:
        self._poll.poll(None if seconds is None else max(0.0, seconds * 1000))
        try:
            os.eventfd_read(self._bell_fd)
        except BlockingIOError:
            return

    def _wake(self) -> None:
        os.eventfd_write(self._bell_fd, 1)

    def close(self) -> None:
        """Let go of the descriptors; the socket itself belongs to whoever made it."""
        super().close()
        os.close(self._bell_fd)
