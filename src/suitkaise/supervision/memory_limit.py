"""The memory limit of a child (rule 83): a worker that grows above it is restarted, at twice the limit it is killed.

The memory is read from `/proc`, once a second and only for children that have a limit: some 50 microseconds in the I/O
thread. No worker is asked, so one that hangs while it grows is noticed, too.
"""

from __future__ import annotations

from collections.abc import Callable

from suitkaise.engines.engine import WorkerHandle
from suitkaise.escapes import figure
from suitkaise.events import ChildOverMemory, Event
from suitkaise.platform.processes import memory_of
from suitkaise.platform.reactor import TimerHandle

__all__ = ["MemoryWatch"]

INTERVAL = 1.0
"""Seconds between two looks."""


class MemoryWatch:
    """Looks at the memory of one incarnation, from now until its end.

    Args:
        limit: bytes that it may use.
        path: the worker's path.
        handle: the incarnation.
        clock: returns the time in seconds (monotonic).
        call_at: sets a timer.
        publish: takes the event about a worker over its limit.
        recycle: orders the restart.
    """

    def __init__(
        self,
        limit: int,
        path: str,
        handle: WorkerHandle,
        clock: Callable[[], float],
        call_at: Callable[[float, Callable[[], None]], TimerHandle],
        publish: Callable[[Event], None],
        recycle: Callable[[], None],
    ) -> None:
        self._limit = limit
        self._path = path
        self._handle = handle
        self._clock = clock
        self._call_at = call_at
        self._publish = publish
        self._recycle = recycle
        self._recycled = False
        self._timer: TimerHandle = call_at(clock() + INTERVAL, self._look)
        handle.exited.add_done_callback(lambda exited: self._timer.cancel())

    def _look(self) -> None:
        view = self._handle.snapshot()
        if view is None:  # it has ended, or is a thread that stands for a process (`suitkaise run --debug`)
            return
        used = memory_of(view.pid) if view.pid else 0  # it has no process yet
        if used > 2 * self._limit:
            limit = figure(self._limit / 2**20, 4)
            self._handle.kill(f"it used {used / 2**20:.1f} MiB, more than twice its max_memory of {limit} MiB")
            return
        if used > self._limit and self._handle.ready.done() and not self._recycled:
            self._recycled = True
            self._publish(ChildOverMemory(self._path, self._clock(), used, self._limit))
            self._recycle()
        self._timer = self._call_at(self._clock() + INTERVAL, self._look)
        if self._handle.exited.done():  # the incarnation may have ended before the timer was set
            self._timer.cancel()
