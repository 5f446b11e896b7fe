"""How many messages a worker gets over its direct connections, counted on the status board.

Each connection has two words: how many messages its sender has sent, each as a whole, and how many the worker has
taken. Each side stores its own. So the hub knows what a worker that was killed has left in its sockets, which are gone
then. A sender counts a message after it has sent it, and may lose its processor in between; so its word is twice the
number, and odd while it sends. The worker closes a connection by one bit beside its count: a worker that is killed, or
a signal handler that raises, between two stores would have its messages counted twice or never.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

__all__ = ["CONNECTIONS", "COUNTS_BYTES", "ConnectionCounts"]

CONNECTIONS = 128
"""Direct connections that a worker has at a time; further senders go through the hub."""

COUNTS_BYTES = CONNECTIONS * 16
"""Of the memory of one worker."""

_CLOSED = 1 << 63
"""Is added to the worker's count once a connection is closed: only what was taken counts then."""


class ConnectionCounts:
    """The counts of one worker. The hub adds connections, senders and the worker count, and the worker closes them."""

    def __init__(self, memory: memoryview[Any]) -> None:
        self._words: memoryview[int] = memory.cast("Q")
        self._used = 0  # by the hub: the numbers below this one were given to connections
        self._former = 0  # messages of connections whose numbers were given to others

    def add(self) -> int | None:
        """Return the number of a new connection, with both counts at zero; None if there are too many."""
        for number in range(self._used):
            if (taken := self._words[2 * number + 1]) & _CLOSED:
                self._former += taken ^ _CLOSED
                break
        else:
            if self._used == CONNECTIONS:
                return None
            number = self._used
            self._used += 1
        self._words[2 * number] = self._words[2 * number + 1] = 0
        return number

    def sent(self, number: int) -> memoryview[int]:
        """Return the word of the sender."""
        return self._words[2 * number : 2 * number + 1]

    def taken(self, number: int) -> memoryview[int]:
        """Return the word of the worker."""
        return self._words[2 * number + 1 : 2 * number + 2]

    def close(self, number: int) -> None:
        """Let another connection have this number."""
        self._words[2 * number + 1] |= _CLOSED

    @property
    def messages(self) -> int:
        """How many messages came over all connections."""
        return self._former + sum(
            taken ^ _CLOSED if taken & _CLOSED else max(sent >> 1, taken) for sent, taken in self._pairs()
        )

    @property
    def is_sent_to(self) -> bool:
        """Whether a sender sends at this moment, and has not counted that."""
        return any(sent & 1 and not taken & _CLOSED for sent, taken in self._pairs())

    def _pairs(self) -> Iterator[tuple[int, int]]:
        words = self._words[: 2 * self._used].tolist()
        return zip(words[::2], words[1::2], strict=True)

    def release(self) -> None:
        """Release the memory."""
        self._words.release()
