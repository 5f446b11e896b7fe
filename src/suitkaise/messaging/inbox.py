"""The messages that a worker with a bounded mailbox has got and not taken out, as hub and worker count them together.

Both use words of the worker's slot on the status board:

- The worker counts the messages that it has taken out (`MESSAGES`), so the hub knows at each moment how many wait.
- The hub tells that it waits for room (`WANTED`). The worker looks at that word after it has taken a message out, and
  rings then.
- The hub drops what the worker has got already by its number (`DROPPED`): the worker handles no message up to that
  number. If it takes one out in the same moment, that one is handled: then there is room without a drop.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from suitkaise.errors import MailboxFull
from suitkaise.messaging.messages import Message
from suitkaise.platform.board import DROPPED, MESSAGES, OWN, OWN_TAKEN, WANTED, Slot
from suitkaise.platform.locks import RLock
from suitkaise.specs.bounded import Bounded

__all__ = ["Inbox", "Taken", "dropped_from", "full_mailbox"]


def full_mailbox(path: str, bound: Bounded | None = None) -> MailboxFull:
    """Return the error for a message that the worker at `path` has no room for."""
    of = "" if bound is None else f": {bound.size} message{'s wait' if bound.size > 1 else ' waits'} for it"
    return MailboxFull(f"the mailbox of {path!r} is full{of}", path=path)


def dropped_from(path: str) -> MailboxFull:
    """Return the error for the asker of a message that was dropped to make room for a newer one, or was the newest."""
    return MailboxFull(f"the mailbox of {path!r} is full: the message was dropped", path=path)


class Inbox:
    """The messages that one incarnation has got, those of its own timers included; for the hub."""

    def __init__(self, slot: Slot) -> None:
        self.delivered: int = 0
        self._words = slot.words
        self._fence = RLock()
        self._times: deque[float] = deque()  # when those that are held were accepted

    def note(self, time: float) -> None:
        """Record when the message was accepted that is delivered now."""
        while len(self._times) > max(0, self.held):
            self._times.popleft()
        self._times.append(time)

    @property
    def oldest(self) -> float | None:
        """When (monotonic) the oldest to be handled was accepted, timers left out; None if there is none."""
        try:
            waiting = self.delivered + self._words[OWN_TAKEN] - max(self._words[MESSAGES], self._words[DROPPED])
        except ValueError:  # the incarnation has ended
            return None
        return self._times[-waiting] if 0 < waiting <= len(self._times) else None

    @property
    def held(self) -> int:
        """How many were not taken out."""
        try:
            return self.delivered + self._words[OWN] - self._words[MESSAGES]
        except ValueError:  # the incarnation has ended
            return 0

    @property
    def waiting(self) -> int:
        """How many of them are to be handled."""
        try:
            return max(0, self.delivered + self._words[OWN] - max(self._words[MESSAGES], self._words[DROPPED]))
        except ValueError:
            return 0

    def drop_oldest(self) -> bool:
        """Drop the oldest one that is to be handled; return False if there is none."""
        try:
            past = max(self._words[MESSAGES], self._words[DROPPED])
            if past >= self.delivered + self._words[OWN]:
                return False
            self._words[DROPPED] = past + 1
        except ValueError:
            return False
        return True

    @property
    def counts(self) -> tuple[int, int]:
        """How many messages were taken out, and how many its own timers have put in."""
        return self._words[MESSAGES], self._words[OWN]

    def drop_up_to(self, number: int) -> None:
        """Drop what the worker has got up to this number and has not begun to handle."""
        try:
            self._words[DROPPED] = max(number, self._words[DROPPED])
        except ValueError:
            return

    def want_room(self) -> None:
        """Have the worker ring when it has taken out the next message; look again after this."""
        try:
            self._words[WANTED] = 1
        except ValueError:
            return
        with self._fence:  # a processor may read the next word before it shows this one; taking a lock keeps the order
            pass


class Taken:
    """The same, for the worker: it calls this when it has taken a message out.

    Args:
        slot: its slot.
        ring: tells the hub that there is room, and how many told messages were dropped since the last time.
    """

    def __init__(self, slot: Slot, ring: Callable[[int], None]) -> None:
        self._words = slot.words
        self._ring = ring
        self._fence = RLock()

    def __call__(self, message: Message, number: int) -> bool:
        """Return whether the message with this number, counted from 1, is dropped."""
        words = self._words
        with self._fence:
            pass
        dropped = words[DROPPED] >= number and message.kind != "signal"
        told = dropped and message.reply is None
        if words[WANTED] or told:
            words[WANTED] = 0  # first: if the hub wants room again, it sets this again, or looks after the ring
            self._ring(int(told))
        return dropped
