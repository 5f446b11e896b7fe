"""File descriptors: their numbers, and some that are kept for the start of workers."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import threading
from collections.abc import Callable
from typing import TypeVar

__all__ = ["DescriptorReserve", "above_streams"]

T = TypeVar("T")


def above_streams(descriptor: int) -> int:
    """Return the descriptor, moved if it has the number of a standard stream, which the program has closed."""
    if descriptor > 2:
        return descriptor
    try:
        return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 3)
    finally:
        os.close(descriptor)


class DescriptorReserve:
    """Descriptors that a program keeps, so that it can restart its workers when its own code has used up all others.

    The start of a worker needs three, and two of them for as long as the worker runs.
    """

    def __init__(self, size: int = 8) -> None:
        self._size = size
        self._kept: list[int] = []
        self._lock = threading.Lock()
        self._closed = False
        self.refill()

    def call(self, function: Callable[[], T]) -> T:
        """Return `function()`; if it fails because no descriptor is left, free the kept ones and call it once more.

        Raises:
            OSError: the function raised it, for another reason or again.
        """
        try:
            return function()
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE) or not self._free():
                raise
        return function()

    def refill(self) -> None:
        """Keep the full number again, or as many as there are."""
        if len(self._kept) == self._size:
            return
        with self._lock, contextlib.suppress(OSError):
            while len(self._kept) < self._size and not self._closed:
                self._kept.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))

    def close(self) -> None:
        """Free all of them for good."""
        self._closed = True
        self._free()

    def _free(self) -> bool:
        with self._lock:
            kept, self._kept = self._kept, []
        for descriptor in kept:
            os.close(descriptor)
        return bool(kept)
