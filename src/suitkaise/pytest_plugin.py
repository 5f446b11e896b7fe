"""The pytest plugin: the fixture `tree`, which stops what a test has started and fails if something is left."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, TypeAlias

import pytest

if TYPE_CHECKING:
    from suitkaise.runtime.running_tree import RunningTree
    from suitkaise.supervisor import Supervisor

__all__ = ["StartTree", "tree"]

GRACE = 5.0
"""Seconds that processes, threads and descriptors have to go after the trees have stopped."""

StartTree: TypeAlias = "Callable[[Supervisor], RunningTree]"
"""The value of the fixture `tree`: starts a tree and returns it; the end of the test stops it."""


@pytest.fixture
def tree() -> Iterator[StartTree]:
    """Start trees in a test: `running = tree(Supervisor(...))`. They are stopped at its end, the newest first.

    The test fails if a process, a thread, or an open file or socket that has appeared during the test is there five
    seconds after that.
    """
    before = _Footprint()
    started: list[RunningTree] = []

    def start(supervisor: Supervisor) -> RunningTree:
        from suitkaise.runtime.running_tree import RunningTree

        if isinstance(supervisor, RunningTree):
            started.append(supervisor)  # the test after this one finds its name free
            raise TypeError(
                f"the fixture starts trees itself: tree(Supervisor(...)) without .start(), not {supervisor!r}"
            )
        started.append(supervisor.start())
        return started[-1]

    yield start
    for running in reversed(started):
        running.stop()
    started.clear()
    left = before.left()
    if left:
        pytest.fail(f"left behind, {GRACE:g} s after the trees have stopped:\n  " + "\n  ".join(left), pytrace=False)


class _Footprint:
    """Everything that belongs to this program at one moment."""

    def __init__(self) -> None:
        self._processes = set(_processes())
        self._threads = set(threading.enumerate())
        self._files = _open_files()

    def left(self) -> list[str]:
        """Return what has appeared since then and does not go."""
        gc.collect()  # an object in a reference cycle is garbage, not a leak
        deadline = time.monotonic() + GRACE
        while (new := self._new()) and time.monotonic() < deadline:
            time.sleep(0.01)
        return new

    def _new(self) -> list[str]:
        processes = {pid: name for pid, name in _processes().items() if pid not in self._processes}
        threads = [one for one in threading.enumerate() if one not in self._threads]
        files = _open_files() - self._files
        return [
            *(f"process {pid}: {name}" for pid, name in processes.items()),
            *(f"thread {thread.name}" for thread in threads),
            *(f"file or socket {file}" + (f" ({count} times)" if count > 1 else "") for file, count in files.items()),
        ]


def _processes() -> dict[int, str]:
    """Return the descendants of this process that are alive, with their names."""
    import psutil

    found = {}
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if process.status() != psutil.STATUS_ZOMBIE:
                found[process.pid] = " ".join(process.cmdline()) or process.name()
    return found


def _open_files() -> Counter[str]:
    """Count what the descriptors of this process lead to."""
    found: Counter[str] = Counter()
    for number in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # the one that has listed the directory is closed
            found[os.readlink(f"/proc/self/fd/{number}")] += 1
    return found
