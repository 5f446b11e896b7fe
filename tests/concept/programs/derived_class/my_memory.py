"""The memory tracker of the concept's class example."""

from __future__ import annotations


class mem_usage:  # noqa: N801  the concept's own spelling
    class MemoryUsageTracker:
        """Is over the limit at the fourth look of a process."""

        def __init__(self) -> None:
            self.looks = 0

        def over_limit(self) -> bool:
            self.looks += 1
            return self.looks == 4
