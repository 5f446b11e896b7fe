"""A bounded mailbox: the messages that wait for its worker, wherever they are, and the senders that wait for room.

All messages to such a worker go through the hub, so one place counts: other workers get no connection to it. The worker
has at most `WINDOW` messages in advance (see `inbox`), and the others wait at the hub.
"""

from __future__ import annotations

import concurrent.futures
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from suitkaise.errors import AskTimeout, MailboxFull, SuitkaiseError, WorkerDead
from suitkaise.messaging.answer import Answer
from suitkaise.messaging.inbox import Inbox, dropped_from, full_mailbox
from suitkaise.messaging.messages import MOST, MOST_BYTES, Message, Payload
from suitkaise.platform.board import SlotView
from suitkaise.specs.bounded import Bounded

if TYPE_CHECKING:
    from suitkaise.messaging.dead_letters import DeadLetters
    from suitkaise.messaging.pending import PendingMessages

__all__ = ["WINDOW", "BoundedMailbox", "BoundedReceiver"]

WINDOW = 64
"""Messages that a worker gets in advance."""

_PURGE = 1.0
"""Seconds after which the asks that wait for room are looked at again: whether their time is over."""


class BoundedReceiver(Protocol):
    """One incarnation of a worker with a bounded mailbox."""

    inbox: Inbox
    on_room: Callable[[int], None]
    """Called from any thread when the worker has taken messages out, with the number of told ones that were dropped."""

    def deliver(self, message: Message, *, accepted: bool = False) -> None:
        """Hand the message over; see `Receiver.deliver`."""
        ...


class _Blocked(NamedTuple):
    """A message whose sender waits for room: `room` becomes True, or is cancelled by the sender; an ask has none."""

    message: Message
    asker: str
    room: Answer[bool] | None


class BoundedMailbox:
    """The mailbox of the worker at `path`. Not thread-safe: the caller holds the lock of its address.

    `pending` are the messages that were accepted and wait at the hub.
    """

    def __init__(self, path: str, bound: Bounded, pending: PendingMessages, dead_letters: DeadLetters) -> None:
        self.bound = bound
        self.receiver: BoundedReceiver | None = None
        self._path = path
        self._pending = pending
        self._dead_letters = dead_letters
        self._blocked: deque[_Blocked] = deque()
        self._blocked_bytes = 0
        self._purge_at = 0.0
        self._moving = False
        self._moves_again = False

    def __len__(self) -> int:
        """Return how many messages wait that were accepted."""
        return len(self._pending) + (0 if self.receiver is None else self.receiver.inbox.waiting)

    @property
    def blocked(self) -> int:
        """How many messages wait to be accepted."""
        return len(self._blocked)

    @property
    def oldest(self) -> float | None:
        """When (monotonic) the oldest message that waits was accepted; None if there is none."""
        oldest = None if self.receiver is None else self.receiver.inbox.oldest
        return self._pending.oldest if oldest is None else oldest

    @property
    def full(self) -> bool:
        """Whether there is no room for another message."""
        return len(self) >= self.bound.size

    def _has_room_for(self, message: Message) -> bool:
        return not self.full and self._pending.has_room_for(message.body.size)

    def shown(self, view: SlotView) -> SlotView:
        """Return the worker's slot, with what waits here."""
        return replace(view, queued=len(self), oldest=self.oldest, blocked=self.blocked)

    # ------------------------------------------------------------ new messages
    def add(self, message: Message, asker: str, room: Answer[bool] | None) -> None:
        """Accept a message, or do what the bound says; `room` is set to whether it was accepted, at once or later.

        Raises:
            MailboxFull: it is full, and neither `room` nor an answer can wait; or too many messages wait already.
        """
        if self._blocked or not self._has_room_for(message):
            match self.bound.on_full:
                case "block" if room is not None or message.reply is not None:
                    self._block(_Blocked(message, asker, room))
                    self.move()
                    return
                case "drop_newest":
                    self._drop(message)
                    if room is not None:
                        room.set_result(False)
                    return
                case "drop_oldest":
                    self._make_room_for(message)
                case _:
                    raise full_mailbox(self._path, self.bound)
        self._accept(_Blocked(message, asker, room))
        self.move()

    def add_signal(self, message: Message) -> None:
        """Accept the report of a link or monitor, which is never refused, behind all messages that wait."""
        self._pending.add(message, accepted=True)
        self.move()

    def _accept(self, one: _Blocked) -> None:
        if one.room is not None:
            try:
                one.room.set_result(True)
            except concurrent.futures.InvalidStateError:  # the sender has just given up
                return
        self._pending.add(one.message, accepted=True, asker=one.asker)

    def _block(self, one: _Blocked) -> None:
        now = time.monotonic()
        if now >= self._purge_at:
            self._purge_at = now + _PURGE
            self._end_late(now)
        one.message.body.keep()
        size = one.message.body.size
        if len(self._blocked) >= MOST or (self._blocked and self._blocked_bytes + size > MOST_BYTES):
            raise full_mailbox(self._path, self.bound)
        self._blocked.append(one)
        self._blocked_bytes += size

    def _end_late(self, now: float) -> None:
        """Forget the asks whose time is over: their askers have got their error already."""
        for one in list(self._blocked):
            if one.message.deadline is not None and one.message.deadline < now:
                self._unblock(one)
                one.message.fail(AskTimeout(f"{self._path!r} had no room for the message in time", path=self._path))

    def withdraw(self, room: Any) -> None:
        """Forget a message whose sender has cancelled its `room`."""
        for one in list(self._blocked):
            if one.room is room:
                self._unblock(one)
                return

    def _unblock(self, one: _Blocked) -> None:
        self._blocked.remove(one)
        self._blocked_bytes -= one.message.body.size

    def take_asks(self, choose: Callable[[str], bool]) -> list[Message]:
        """Remove the asks that wait for room and whose asker is chosen, and return them."""
        chosen = [one for one in list(self._blocked) if one.asker and choose(one.asker)]
        for one in chosen:
            self._unblock(one)
        return [one.message for one in chosen]

    @property
    def has_asks(self) -> bool:
        """Whether asks of workers wait for room."""
        return any(one.asker for one in list(self._blocked))

    # ------------------------------------------------------------ drops
    def _make_room_for(self, message: Message) -> None:
        while not self._has_room_for(message):
            if self.receiver is not None and self.receiver.inbox.drop_oldest():
                continue
            oldest = self._pending.take_oldest()
            if oldest is None:  # only reports of links wait
                return
            self._drop(oldest)

    def _drop(self, message: Message) -> None:
        if message.reply is None:
            self.count_dropped(1)
        else:
            message.fail(dropped_from(self._path))

    def count_dropped(self, number: int) -> None:
        """Count told messages that were dropped."""
        self._dead_letters.add(self._path, f"its mailbox is full ({self.bound.on_full})", number)

    # ------------------------------------------------------------ messages on their way to the worker
    def move(self) -> None:
        """Accept what there is room for, and hand over what the worker has room for.

        A signal handler, or a `__del__`, may send to this worker in the midst of it: then the interrupted call goes on
        with what was added, since two that hand over at once would do that twice, or in a wrong order.
        """
        self._moves_again = True
        while self._moves_again and not self._moving:
            self._moves_again, self._moving = False, True
            try:
                self._move()
            finally:
                self._moving = False

    def _move(self) -> None:
        while True:
            while self._blocked and self._has_room_for(self._blocked[0].message):
                one = self._blocked[0]
                self._unblock(one)
                self._accept(one)
            if self.receiver is None or not self._hand_over(self.receiver):
                return
            if not (self._pending or self._blocked):
                return
            self.receiver.inbox.want_room()
            if self._window_is_full and not (self._blocked and self._has_room_for(self._blocked[0].message)):
                return

    @property
    def _window_is_full(self) -> bool:
        return self.receiver is not None and self.receiver.inbox.held >= min(WINDOW, self.bound.size)

    def _hand_over(self, receiver: BoundedReceiver) -> bool:
        """Return whether to go on; if not, the worker has ended, or rings when its connection takes more."""
        while self._pending and (self._pending.first.kind == "signal" or not self._window_is_full):
            entry = self._pending.take_first()  # first: what is sent meanwhile may drop the oldest that waits
            message, _, _, came = entry
            receiver.inbox.note(came)
            try:
                if not self._deliver(receiver, message):
                    self._pending.put_back(entry)
                    return False
            except WorkerDead:  # the incarnation has just ended: the messages wait for the next one
                self._pending.put_back(entry)
                self.receiver = None
                return False
            except SuitkaiseError as error:
                message.fail(error)
            except BaseException:  # of a signal handler
                self._pending.put_back(entry)
                raise
        return True

    def _deliver(self, receiver: BoundedReceiver, message: Message) -> bool:
        """Deliver a message; return False if too many bytes wait, and the worker rings when it has taken some out."""
        for wanted in (False, True):
            if wanted:  # the worker may have taken out all before it could see that, so this tries once more after it
                receiver.inbox.want_room()
            try:
                receiver.deliver(message, accepted=message.kind == "signal")
                return True
            except MailboxFull:
                continue
        return False

    # ------------------------------------------------------------ the end of an incarnation, and of the worker
    def detach(self) -> None:
        """Record the end of the incarnation, whose messages for the next one are back in `pending`."""
        self.receiver = None
        while self.bound.on_full == "drop_oldest" and len(self) > self.bound.size:
            oldest = self._pending.take_oldest()
            if oldest is None:
                break
            self._drop(oldest)
        self.move()

    def finish(self, error: Callable[[], WorkerDead]) -> None:
        """Refuse all that wait for room."""
        while self._blocked:
            one = self._blocked[0]
            self._unblock(one)
            if one.room is None:
                one.message.fail(error())
            elif not one.room.done():
                one.room.settle(False, Payload(error()))
