"""What is kept of the times of a worker's loops, in the same memory for any number of loops, at no cost for a loop.

The fastest and the slowest loops are exact. The percentiles come from a sample, which has all times while there are few
of them. Later, one loop is taken at random from each block of loops of the same size; when the sample is full, every
second time is dropped, again at random, and the blocks become twice as large. So every loop has had the same chance,
and the life cycle does nothing for the loops between two samples.
"""

from __future__ import annotations

import heapq

__all__ = ["KEPT", "SLOWEST", "LoopTimes"]

KEPT = 1_024
"""The least number of times in a sample that does not have all of them; the largest is twice that."""

SLOWEST = 5
"""How many of the slowest loops are kept with their numbers."""


class LoopTimes:
    """The times of the loops of one incarnation, in nanoseconds. The life cycle reads and writes `fastest` itself."""

    __slots__ = ("_end", "_random", "_slow", "_stride", "fastest", "next", "sample")

    def __init__(self) -> None:
        self.fastest: int = 1 << 62
        self.next: int = 1
        """The number of the next loop whose time is to be passed to `add`."""
        self.sample: list[int] = []
        self._slow: list[tuple[int, int]] = []  # a heap of (time, -number)
        self._stride = 1
        self._end = 1  # of the block of loops that `next` is in
        self._random = 1

    def add(self, took: int) -> None:
        """Take the time of loop `next` into the sample, and select the next loop."""
        self.sample.append(took)
        if len(self.sample) == 2 * KEPT:
            self._stride *= 2
            self.sample = [self.sample[number + self._draw(2)] for number in range(0, 2 * KEPT, 2)]
        self.next = self._end + 1 + self._draw(self._stride)
        self._end += self._stride

    def _draw(self, below: int) -> int:
        """Return a random number below a power of two; the user's own random numbers are left alone."""
        self._random = (self._random * 6364136223846793005 + 1442695040888963407) % (1 << 64)
        return (self._random >> 33) % below

    @property
    def floor(self) -> int:
        """The time that a loop must exceed to be one of the slowest."""
        return -1 if len(self._slow) < SLOWEST else self._slow[0][0]

    def add_slow(self, number: int, took: int) -> int:
        """Take a loop that exceeds the floor into the slowest ones; return the new floor."""
        if len(self._slow) < SLOWEST:
            heapq.heappush(self._slow, (took, -number))
        else:
            heapq.heapreplace(self._slow, (took, -number))
        return self.floor

    @property
    def slowest(self) -> list[tuple[int, int]]:
        """The numbers and times of the slowest loops, the slowest first."""
        return [(-number, took) for took, number in sorted(self._slow, reverse=True)]
