"""A mark that a process hands down to all that it starts, so that it is known later which worker has started what.

A process that has lost its parent names no ancestor any more, and it may have left its session, its group and its
environment behind. Resource limits stay: every process inherits them, through fork and exec, and anybody may read
them. So the mark is the soft limit of the one resource that the kernel does not limit: `RLIMIT_LOCKS`, which has had
no effect since Linux 2.4.25 (`getrlimit(2)`).

The upper half of a mark tells the program, the lower half the number of the worker, and one bit whether the worker's
processes are to be kept.
"""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Callable

from suitkaise.platform.limits import resource
from suitkaise.records import dataclass

__all__ = ["RLIMIT_LOCKS", "Mark", "mark_of", "program_number", "worker_mark"]

RLIMIT_LOCKS = 10
"""The number of the resource; Python's `resource` has no name for it."""

_NUMBERS = 1 << 31


def program_number(name: str) -> int:
    """Return the number of a program in marks, made from a name that no other program has."""
    return zlib.crc32(name.encode("utf-8", "surrogateescape")) >> 1  # limits from 2**63 on may mean infinity


@dataclass(frozen=True, slots=True)
class Mark:
    """The mark of a worker's process.

    Args:
        program: see `program_number`.
        worker: tells the workers of a program apart.
        keep: whether the processes that the worker has started are left alone.
    """

    program: int
    worker: int
    keep: bool

    def put_on(self, pid: int) -> None:
        """Mark a process, 0 for this one, and all that it starts from now on."""
        value = (self.program << 32) + (self.worker % _NUMBERS << 1) + self.keep
        with contextlib.suppress(OSError, ValueError):  # somebody has lowered the hard limit: there will be no mark
            resource.prlimit(pid, RLIMIT_LOCKS, (value, resource.getrlimit(RLIMIT_LOCKS)[1]))


def mark_of(pid: int) -> Mark | None:
    """Return the mark of a process; None if it has none, or is gone."""
    try:
        with open(f"/proc/{pid}/limits", "rb") as file:
            limits = file.read()
    except OSError:
        return None
    soft = limits.partition(b"Max file locks")[2].split(None, 1)[0:1]
    if not soft or not soft[0].isdigit():
        return None
    value = int(soft[0])
    return Mark(value >> 32, (value & 0xFFFFFFFF) >> 1, bool(value & 1)) if value >> 32 else None


def worker_mark(program: str, worker: int | None = None, *, kept: bool = False) -> Callable[[int], bool]:
    """Return a function that finds the processes of one worker, or of all; those to be kept only with `kept`."""
    number = program_number(program)

    def has_mark(pid: int) -> bool:
        mark = mark_of(pid)
        if mark is None or mark.program != number or worker not in (None, mark.worker):
            return False
        return kept or not mark.keep

    return has_mark
