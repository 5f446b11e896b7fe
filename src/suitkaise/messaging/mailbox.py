"""A worker's inbox: the messages that wait for the worker, and how the worker notices them and sleeps without them.

The bell is one byte of the status board. A sender sets it; a worker that loops reads it once a loop, which costs a
memory read. A worker without a loop blocks. An order to stop goes ahead of all messages.
"""

from __future__ import annotations

import contextlib
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
from suitkaise.messaging.incoming import Incoming
from suitkaise.messaging.messages import Message
from suitkaise.messaging.wire import Frame, Parser, PeerClosed, WireError
from suitkaise.platform.board import BELL, DIRECT, LOOKED, QUEUED, Slot
from suitkaise.platform.log_queue import QueuedLogger

__all__ = ["IDLE", "ITERATE", "STOP", "URGENT", "Mailbox", "Sleeper", "SocketMailbox", "ThreadMailbox"]

logger: QueuedLogger = QueuedLogger("suitkaise.mailbox")

ITERATE: Any = object()
"""The message that `get` returns to a looping worker when no other waits: run the next loop."""

STOP: Any = object()
"""The message that `get` returns to a worker that has to finish, for the reason in `mailbox.stop_reason`."""

IDLE: Any = object()
"""The message that `get` returns when none has come for `mailbox.idle` seconds, to a worker without a loop."""

URGENT = 2
"""The hub's byte of the bell if an order may be behind the messages: the worker then reads all input first."""

_READS = 16
"""How many reads in a row the inbox does: a sender may be as quick, and would keep the worker from its loops."""

_LAST_READS = 64
"""How many reads take all that a socket holds, also where one that has not ended sends more meanwhile."""

_READY = 64
"""How many sockets are asked for at once whether they have input."""

MOST_SENDERS = 256
"""Connections that other workers may have to this one; further senders go through the hub."""

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
        """Return the next message, `STOP` or `ITERATE`; block while there is none.

        The messages that wait form a batch; after a batch comes one loop, so that neither starves the other.
        """
        idle_until = None
        while True:
            if self.stop_reason is not None:
                return self._get_before_stop()
            if self.suspended and self.blocks_if_suspended:
                idle_until = None
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
                idle_until = now + self.idle if idle_until is None else idle_until
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
            return self._wait_in_other_thread(seconds)
        until = time.monotonic() + seconds
        while not self.finishing:
            now = time.monotonic()
            end = until if self.deadline is None else min(until, self.deadline)
            self.sleep(min(max(0.0, end - now), _LONGEST), for_messages=False)
            if now >= end:
                return self.finishing or end < until
        return True

    def _wait_in_other_thread(self, seconds: float) -> bool:
        """Wait in a thread that the user has started, without touching the inbox."""
        over = self._unfinished.acquire(timeout=min(max(0.0, seconds), _LONGEST))
        if over:
            with contextlib.suppress(RuntimeError):
                self._unfinished.release()
        return over

    def sleep(self, seconds: float | None, *, for_messages: bool = True, until_resumed: bool = False) -> None:
        """Wait for input, at most `seconds`; with `until_resumed` also for the end of a suspension."""
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


class SocketMailbox(Mailbox):
    """The inbox of a worker in a process of its own: messages come through sockets, from the hub and other workers.

    Args:
        slot: the worker's slot of the status board.
        sock: the control connection; it stays in blocking mode, but reads here never wait.
        on_frame: called with each frame; calls `put`, `order_stop` or `accept` as the frame requires.
        parser: the one to read with, for typed headers.
    """

    def __init__(
        self, slot: Slot, sock: socket.socket, on_frame: Callable[[Frame], None], parser: Parser | None = None
    ) -> None:
        super().__init__(slot)
        self._sock = sock
        self._control = sock.fileno()
        self._on_frame = on_frame
        self._parser = Parser() if parser is None else parser
        self._descriptors: list[int] = []  # of connections whose frames were not handled yet
        self._incoming: dict[int, Incoming] = {}
        self._bell_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._poll = select.epoll()
        self._poll.register(sock, select.EPOLLIN)
        self._poll.register(self._bell_fd, select.EPOLLIN)
        self._ready: list[tuple[int, int]] = []
        self._open = True
        self._accepts = True

    def put(self, message: Message) -> bool:
        """Add a message, for `on_frame` only, without ringing: the thread that reads frames looks at them, too."""
        self._waiting.append(message)
        return True

    @property
    def descriptor(self) -> int | None:
        """A descriptor that is readable when there is input, while the control connection is open."""
        return self._poll.fileno() if self._open else None

    def adopt(self, parser: Parser, frames: list[Frame]) -> None:
        """Continue with the parser that has read the connection before, and the frames that it has found."""
        self._parser = parser
        for frame in frames:
            self._on_frame(frame)
        self.bell[0] = 1

    # ------------------------------------------------------------ direct connections
    def accept(self, sender: str = "", *, counted: bool = False) -> None:
        """Take messages from the connection that has come with the present frame; for `on_frame` only.

        Args:
            sender: the path of the worker at its other end.
            counted: whether the hub counts its messages.
        """
        descriptor = self._descriptors.pop(0)
        if descriptor < 0:
            logger.error("no file descriptor is left for a connection from another worker")
            return
        incoming = Incoming(descriptor, sender, counted=counted)
        if self._accepts and len(self._incoming) < MOST_SENDERS:
            self._incoming[descriptor] = incoming
            self._poll.register(descriptor, select.EPOLLIN)
            self.bell[0] = self.bell[0] or 1  # something may have come already, and its bell was heard
        else:  # the sender finds it cut, and sends through the hub
            self._take_from(incoming, incoming.cut())

    def take_direct(self) -> None:
        """Take the messages that other workers have sent directly; for `on_frame` only, before the report of an end.

        What a worker has sent is in the sockets when the hub tells its end.
        """
        for descriptor, _ in self._poll.poll(0, MOST_SENDERS + 2):
            for _ in range(_LAST_READS):
                if not self._collect_from(descriptor):
                    break

    def cut(self) -> None:
        """Take the messages that other workers have sent directly, and let them send no more."""
        self._accepts = False
        for descriptor, incoming in self._incoming.items():
            with contextlib.suppress(OSError):
                self._poll.unregister(descriptor)
            self._take_from(incoming, incoming.cut())

    def disconnect(self) -> None:
        """Close the connections of other workers."""
        self._accepts = False
        for incoming in self._incoming.values():
            incoming.close()
        self._incoming.clear()

    def _take_from(self, incoming: Incoming, messages: list[Message]) -> None:
        self._waiting.extend(messages)
        if not incoming.counted:
            self._slot.words[DIRECT] += len(messages)

    # ------------------------------------------------------------ reading
    def wait_in(self, wait: Callable[..., None], *, for_messages: bool = True) -> bool:
        """Sleep in the caller's `wait(*descriptors)`; return False when the hub is gone."""
        self._asleep = True
        try:
            self._collect()
            if self.stop_reason is None and not (for_messages and self._waiting):
                wait(self._poll.fileno())
        finally:
            self._asleep = False
        self._collect()
        self.bell[0] = 1  # look between the loops
        return self._open

    def _collect(self) -> None:
        ready, self._ready = self._ready or self._poll.poll(0, _READY), []
        for descriptor, _ in ready:
            if descriptor == self._control:
                self._collect_orders()
            elif descriptor == self._bell_fd:
                with contextlib.suppress(BlockingIOError):
                    os.eventfd_read(self._bell_fd)
            else:
                self._collect_from(descriptor)
                self.bell[0] = self.bell[0] or 1  # there may be more

    def _collect_orders(self) -> None:
        for _ in range(_READS):
            if not self._open:
                return
            try:
                frames = self._parser.receive(self._sock, socket.MSG_DONTWAIT, self._descriptors)
            except BlockingIOError:
                return
            except (PeerClosed, OSError):
                self._hub_gone()
                return
            except WireError as error:
                logger.error("invalid data from the hub: %s", error)
                with contextlib.suppress(OSError):
                    self._sock.shutdown(socket.SHUT_RD)  # the worker's lifeline treats that as the end of the hub
                self._hub_gone()
                return
            for frame in frames:
                self._on_frame(frame)
        self.bell[0] = self.bell[0] or 1  # there may be more

    def _collect_from(self, descriptor: int) -> bool:
        """Read once what another worker has sent directly; return whether there may be more."""
        incoming = self._incoming.get(descriptor)
        if incoming is None:
            return False
        try:
            self._take_from(incoming, incoming.receive())
        except BlockingIOError:
            return False
        except (PeerClosed, OSError, WireError) as error:
            if isinstance(error, WireError):
                logger.error("invalid data from another worker: %s", error)
            del self._incoming[descriptor]
            self._poll.unregister(descriptor)
            incoming.close()
            return False
        return True

    def _hub_gone(self) -> None:
        # The worker's lifeline ends the worker; here `poll` must just not return at once for ever.
        self._open = False
        self._poll.unregister(self._sock)

    def _block(self, seconds: float | None) -> None:
        self._ready = self._poll.poll(None if seconds is None else max(0.0, seconds), _READY)

    def _wake(self) -> None:
        os.eventfd_write(self._bell_fd, 1)

    def close(self) -> None:
        """Close the descriptors; the caller closes the socket."""
        super().close()
        self.disconnect()
        self._poll.close()
        os.close(self._bell_fd)
