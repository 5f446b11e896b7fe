"""The messages that wait at the hub for a worker that is down, or whose bounded mailbox holds no more in advance."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import TypeAlias

from suitkaise.errors import MailboxFull
from suitkaise.messaging.messages import MOST, MOST_BYTES, Message

__all__ = ["PendingMessages"]


_Entry: TypeAlias = tuple[Message, int, str, float]
"""A message, its size, its asker, and when it came (monotonic)."""


class PendingMessages:
    """The messages that wait for the worker at `path`. Not thread-safe: the caller holds a lock.

    But a signal handler, or a `__del__`, may add a message in the midst of any method, so none iterates over the deque,
    but over a list of it: while Python 3.11 makes a tuple, it may collect garbage.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._waiting: deque[_Entry] = deque()
        self._bytes = 0

    def add(self, message: Message, *, accepted: bool = False, asker: str = "") -> None:
        """Add a message behind the others; `asker` is the path of the worker that waits for its answer.

        Raises:
            MailboxFull: too many messages or bytes wait, and the hub has not `accepted` the message before.
        """
        message.body.keep()
        size = message.body.size
        if not accepted:
            if len(self._waiting) >= MOST:
                self._refuse(f"{MOST} messages")
            if self._waiting and self._bytes + size > MOST_BYTES:  # a single one may have any size
                self._refuse(f"{self._bytes} bytes of messages")
        self._waiting.append((message, size, asker, time.monotonic()))
        self._bytes += size

    def has_room_for(self, size: int) -> bool:
        """Return whether a message of that many bytes may wait, too."""
        return not self._waiting or self._bytes + size <= MOST_BYTES

    def add_in_front(self, messages: Iterable[Message]) -> None:
        """Add messages in front of the others, in their order."""
        now = time.monotonic()
        returned = [
            (message, message.body.size, "" if message.reply is None else message.asker, now) for message in messages
        ]
        self._waiting.extendleft(reversed(returned))
        self._bytes += sum(size for _, size, _, _ in returned)

    def _refuse(self, what: str) -> None:
        raise MailboxFull(f"{what} already wait for the restart of {self._path!r}", path=self._path)

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def has_asks(self) -> bool:
        """Whether asks of workers wait."""
        return any(asker for _, _, asker, _ in list(self._waiting))

    def take_asks(self, choose: Callable[[str], bool]) -> list[Message]:
        """Remove the asks of the workers that `choose` returns True for, and return them."""
        return self._take(lambda message, asker: bool(asker) and choose(asker))

    def _take(self, chosen: Callable[[Message, str], bool]) -> list[Message]:
        """Remove and return those of the messages that wait now which are chosen; the others keep their places."""
        taken: list[Message] = []
        kept: list[_Entry] = []
        try:
            for _ in range(len(self._waiting)):
                kept.append(self.take_first())
                message, _, asker, _ = kept[-1]
                if chosen(message, asker):
                    taken.append(message)
                    kept.pop()
        finally:
            for entry in reversed(kept):
                self.put_back(entry)
        return taken

    @property
    def first(self) -> Message:
        """The message that has waited longest."""
        return self._waiting[0][0]

    def take_first(self) -> _Entry:
        """Remove and return the message that has waited longest, for `put_back` if it stays here."""
        entry = self._waiting.popleft()
        self._bytes -= entry[1]
        return entry

    def put_back(self, entry: _Entry) -> None:
        """Add what `take_first` has returned in front of the others again."""
        self._waiting.appendleft(entry)
        self._bytes += entry[1]

    def take_oldest(self) -> Message | None:
        """Remove and return the oldest message that is no report of a link or monitor; None if there is none."""
        reports: list[_Entry] = []
        try:
            while self._waiting:
                entry = self.take_first()
                if entry[0].kind != "signal":
                    return entry[0]
                reports.append(entry)
            return None
        finally:
            for entry in reversed(reports):
                self.put_back(entry)

    @property
    def oldest(self) -> float | None:
        """When (monotonic) the message came that has waited longest; None if none waits."""
        return self._waiting[0][3] if self._waiting else None

    def drop_signals(self) -> None:
        """Remove the messages of links and monitors: they are for one incarnation alone."""
        self._take(lambda message, _: message.kind == "signal")

    def take_all(self) -> list[Message]:
        """Remove all messages and return them."""
        messages = []
        while self._waiting:
            messages.append(self.take_first()[0])
        return messages
