"""CPU and memory of workers, each with the processes that it has started."""

from __future__ import annotations

import time
from collections.abc import Iterable

import psutil

__all__ = ["Resources"]


class Resources:
    """Measures processes; the CPU is that since the last measurement."""

    def __init__(self) -> None:
        self._before: dict[tuple[int, float], float] = {}
        self._at = time.monotonic()

    def measure(self, workers: Iterable[int]) -> dict[int, tuple[float | None, int]]:
        """Return the CPU (1.0: one core; None at the first time) and the memory in bytes, by the pid of the worker."""
        wanted = set(workers)
        parents: dict[int, int] = {}
        seconds: dict[tuple[int, float], float] = {}
        used: dict[int, tuple[float | None, int]] = {}
        now = time.monotonic()
        passed = max(now - self._at, 1e-3)
        for process in psutil.process_iter(["ppid", "cpu_times", "memory_info", "create_time"]):
            facts = process.info
            times, memory = facts["cpu_times"], facts["memory_info"]
            parents[process.pid] = facts["ppid"] or 0
            if times is None or memory is None:
                continue
            key = (process.pid, facts["create_time"] or 0.0)
            seconds[key] = times.user + times.system
            before = self._before.get(key)
            used[process.pid] = (None if before is None else max(0.0, seconds[key] - before) / passed, memory.rss)
        self._before, self._at = seconds, now
        return _by_worker(wanted, parents, used)


def _by_worker(
    wanted: set[int], parents: dict[int, int], used: dict[int, tuple[float | None, int]]
) -> dict[int, tuple[float | None, int]]:
    """Add what each process uses to the nearest worker above it."""
    found: dict[int, tuple[float | None, int]] = {}
    for pid, (cpu, memory) in used.items():
        owner, seen = pid, set()
        while owner not in wanted and owner in parents and owner not in seen:
            seen.add(owner)
            owner = parents[owner]
        if owner in wanted:
            total, bytes_so_far = found.get(owner, (None, 0))
            total = total if cpu is None else (total or 0.0) + cpu
            found[owner] = (total, bytes_so_far + memory)
    return found
