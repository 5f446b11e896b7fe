"""Functions of bare processes that report their start. Few imports, so that each way to start them is fast."""

from __future__ import annotations

import os
import time


def started(path: str) -> None:
    """Report the start: write the time into the named pipe at `path`."""
    now = time.monotonic_ns()
    descriptor = os.open(path, os.O_WRONLY)
    os.write(descriptor, now.to_bytes(8, "little"))
    os.close(descriptor)


def idle(path: str, size: int = 0) -> None:
    """Report the start, take `size` bytes of memory and report that, and wait to be killed."""
    started(path)
    if size:
        memory = bytearray(size)
        touch(memory)
        started(path)
    time.sleep(3600)


def touch(memory: bytearray) -> None:
    """Write to each page, so that it really takes memory."""
    memory[::4096] = b"x" * len(range(0, len(memory), 4096))


def crash() -> None:
    """Kill this process at once."""
    os.kill(os.getpid(), 9)


# ------------------------------------------------------------ tasks of pools
def increment(number: int) -> int:
    return number + 1


def length(data: bytes) -> int:
    return len(data)


def die_once(mark: str) -> None:
    """Kill this process, if the file `mark` is not there yet; `""`: do nothing."""
    if mark and not os.path.exists(mark):
        with open(mark, "w"):
            os.kill(os.getpid(), 9)
