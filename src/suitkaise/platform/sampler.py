"""A sampling profiler of threads of this process: where they are, looked at many times a second.

It runs in a thread of its own and changes nothing in the others: they are slowed by the time of the looks alone, some
ten microseconds each. A look needs the interpreter, so it happens when the running thread lets it go. By itself that is
so when the thread waits, or after five milliseconds, so waiting would be seen more often than it happens: while it
samples, threads let go sooner. What runs in C code without letting go is not seen before that ends.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any

from suitkaise.platform.locks import RLock
from suitkaise.platform.threads import current_frames

__all__ = ["MOST_FRAMES", "sample"]

MOST_FRAMES = 200
"""Of a deeper stack, the innermost functions count."""

MOST_STACKS = 20_000
"""Different stacks that are kept; further ones count as one."""

SWITCH = 0.0002
"""Seconds after which a running thread lets a waiting one have the interpreter, while this samples."""

BUSY = 0.1
"""The part of the time between two looks from which on a thread has been on the CPU."""

_OTHER: tuple[CodeType, ...] = ()


def sample(
    seconds: float,
    rate: float,
    wanted: Callable[[threading.Thread], bool],
    stopped: Callable[[float], bool],
) -> dict[str, Any]:
    """Look at the threads of this process; return how often each stack was found, ready for JSON.

    Args:
        seconds: for how long.
        rate: looks a second.
        wanted: whether a thread is looked at. When all of these have ended, the profile ends.
        stopped: waits that many seconds, and returns True at once when the profile is to end.

    Returns:
        The `seconds` that it took; `frames`: the functions, each as name, file and first line; `stacks`: each as the
        name of its thread, the indices of its frames from outside to inside, and how often it was found; `on_cpu`: how
        often a thread had used the CPU since the look before; None if the system does not tell.
    """
    with _often:
        return _sample(seconds, rate, wanted, stopped)


class _SwitchesOften:
    """Has running threads let go of the interpreter sooner, while at least one profile is made in this process."""

    def __init__(self) -> None:
        self._lock = RLock()
        self._profiles = 0
        self._former = 0.0

    def __enter__(self) -> None:
        with self._lock:
            if not self._profiles:
                self._former = sys.getswitchinterval()
                sys.setswitchinterval(min(SWITCH, self._former))
            self._profiles += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._profiles -= 1
            if not self._profiles:
                sys.setswitchinterval(self._former)


_often = _SwitchesOften()


def _sample(
    seconds: float, rate: float, wanted: Callable[[threading.Thread], bool], stopped: Callable[[float], bool]
) -> dict[str, Any]:
    found: dict[tuple[str, tuple[CodeType, ...]], int] = {}
    used: dict[int, int] = {}
    own = threading.get_ident()
    began = now = time.monotonic()
    looks, on_cpu, seen = 0, 0, False
    while now < began + seconds:
        looks += 1
        threads = [thread for thread in threading.enumerate() if thread.ident != own and wanted(thread)]
        if not threads and seen:
            break
        seen = seen or bool(threads)
        stacks = current_frames()
        for thread in threads:
            frame = stacks.get(thread.ident or 0)
            if frame is None:
                continue
            key = thread.name, _stack(frame)
            if key not in found and len(found) >= MOST_STACKS:
                key = thread.name, _OTHER
            found[key] = found.get(key, 0) + 1
            on_cpu += _was_busy(thread, used, rate)
        del stacks
        now = time.monotonic()
        if stopped(max(0.0, min(began + looks / rate, began + seconds) - now)):
            break
        now = time.monotonic()
    return _profile(found, time.monotonic() - began, on_cpu if any(used.values()) else None)


def _stack(frame: FrameType | None) -> tuple[CodeType, ...]:
    codes: list[CodeType] = []
    while frame is not None and len(codes) < MOST_FRAMES:
        codes.append(frame.f_code)
        frame = frame.f_back
    codes.reverse()
    return tuple(codes)


def _was_busy(thread: threading.Thread, used: dict[int, int], rate: float) -> bool:
    """Return whether the thread has used the CPU since the last look."""
    number = os.getpid() if thread is threading.main_thread() else thread.native_id or 0  # that of a fork's is stale
    try:
        with open(f"/proc/self/task/{number}/schedstat", "rb") as file:
            now = int(file.read().split()[0])
    except (OSError, ValueError, IndexError):
        return False
    before, used[number] = used.get(number), now
    return before is not None and now - before > BUSY * 1e9 / rate


def _profile(found: dict[tuple[str, tuple[CodeType, ...]], int], seconds: float, on_cpu: int | None) -> dict[str, Any]:
    numbers: dict[CodeType, int] = {}
    stacks = [
        [thread, [numbers.setdefault(code, len(numbers)) for code in codes], count]
        for (thread, codes), count in found.items()
    ]
    frames = [[code.co_qualname, code.co_filename, code.co_firstlineno] for code in numbers]
    return {"seconds": seconds, "frames": frames, "stacks": stacks, "on_cpu": on_cpu}
