"""What is kept of the times of a worker's loops, in the same memory for any number of loops, at no cost for a loop.

The fastest and the slowest loops are exact. The percentiles come from a sample, which has all times while there are few
of them. Later, one loop is taken at random from each block of loops of the same size; when the sample is full, every
second time is dropped, again at random, and the blocks become twice as large. So every loop has had the same chance,
and the life cycle does nothing for the loops between two samples.
"""

from __future__ import annotations

import functools
import heapq
import math
from collections.abc import Iterator
from itertools import compress

__all__ = ["KEPT", "SLOWEST", "LoopTimes"]

KEPT = 256
"""The least number of times in a sample that does not have all of them; the largest is twice that."""

SLOWEST = 5
"""How many of the slowest loops are kept with their numbers."""


class LoopTimes:
    """The times of the loops of one incarnation, in seconds. The life cycle reads and writes `fastest` itself."""

    __slots__ = ("_numbers", "_slow", "fastest", "next", "sample")

    def __init__(self) -> None:
        self.fastest: float = math.inf
        self.sample: list[float] = []
        self._slow: list[tuple[float, int]] = []  # a heap of (time, -number)
        self._numbers = _numbers(self.sample)
        self.next: int = next(self._numbers)
        """The number of the next loop whose time is to be passed to `add`."""

    def add(self, took: float) -> int:
        """Take the time of loop `next` into the sample; select the next loop, and return its number."""
        self.sample.append(took)
        self.next = number = next(self._numbers)
        return number

    @property
    def floor(self) -> float:
        """The time that a loop must exceed to be one of the slowest."""
        return -1.0 if len(self._slow) < SLOWEST else self._slow[0][0]

    def add_slow(self, number: int, took: float) -> float:
        """Take a loop that exceeds the floor into the slowest ones; return the new floor."""
        if len(self._slow) < SLOWEST:
            heapq.heappush(self._slow, (took, -number))
        else:
            heapq.heapreplace(self._slow, (took, -number))
        return self.floor

    @property
    def slowest(self) -> list[tuple[int, float]]:
        """The numbers and times of the slowest loops, the slowest first."""
        return [(-number, took) for took, number in sorted(self._slow, reverse=True)]


def _numbers(sample: list[float]) -> Iterator[int]:
    """Yield the number of each loop whose time is to be appended to the sample; thin the sample out when it is full."""
    yield from range(1, 2 * KEPT + 1)
    end, size, chance = 2 * KEPT, 1, 1
    while True:
        sample[:] = compress(sample, _one_of_two())
        size *= 2
        for _ in range(KEPT):
            chance = (chance * 1103515245 + 12345) & 0x7FFFFFFF
            yield end + 1 + (chance >> 8) % size  # the lower bits repeat soon
            end += size


@functools.cache
def _one_of_two() -> tuple[int, ...]:
    """Return which times to keep of a full sample: one of each two, at random."""
    import random  # a generator of its own: the user's random numbers are left alone

    bits = random.Random(1).getrandbits(KEPT)
    return tuple(bit for number in range(KEPT) for bit in ((0, 1) if bits >> number & 1 else (1, 0)))
