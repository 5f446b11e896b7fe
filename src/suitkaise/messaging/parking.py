"""Messages that wait for a worker which is not there at the moment: first in, first out, and bounded."""

from __future__ import annotations

from collections import deque

from suitkaise.errors import MailboxFull
from suitkaise.messaging.messages import Message

__all__ = ["MOST", "MOST_BYTES", "Parking"]

MOST = 10_000
"""How many messages may wait for a worker that is being restarted."""

MOST_BYTES = 64 << 20
"""And how many bytes, if it is in a process of its own. (To a thread the values themselves go, not copies.)"""


class Parking:
    """What waits for the worker at `path`. The caller sees to it that one thread at a time uses it."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._waiting: deque[tuple[Message, int]] = deque()
        self._bytes = 0

    def add(self, message: Message, *, accepted: bool = False) -> None:
        """Keep a message behind the others.

        Raises:
            MailboxFull: too many wait, or too much; this one is not kept. Not if it was `accepted` already.
        """
        size = message.body.size
        if not accepted:
            if len(self._waiting) >= MOST:
                self._refuse(f"{MOST} messages wait")
            if self._waiting and self._bytes + size > MOST_BYTES:  # a single one may have any size
                self._refuse(f"{self._bytes} bytes of messages wait")
        self._waiting.append((message, size))
        self._bytes += size

    def _refuse(self, what: str) -> None:
        raise MailboxFull(f"{what} already for {self._path!r} to come back", path=self._path)

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def first(self) -> Message:
        """The one that has waited longest."""
        return self._waiting[0][0]

    def drop_first(self) -> None:
        """It waits no more."""
        self._bytes -= self._waiting.popleft()[1]

    def drop_signals(self) -> None:
        """What links and monitors tell is for one incarnation alone."""
        self._waiting = deque(one for one in self._waiting if one[0].kind != "signal")
        self._bytes = sum(size for _, size in self._waiting)

    def take_all(self) -> list[Message]:
        """All that wait; none does any more."""
        messages = [message for message, _ in self._waiting]
        self._waiting.clear()
        self._bytes = 0
        return messages
