"""File descriptors: their numbers, those that come over a socket, and some that are kept for the start of workers."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import socket
import time
from array import array
from collections.abc import Callable
from typing import TypeVar

from suitkaise.platform.locks import RLock

__all__ = ["DescriptorReserve", "above_streams", "await_readable", "keep_to_this_process", "receive_descriptors"]

T = TypeVar("T")

_LONGEST = 1e6
"""Seconds; `poll` counts milliseconds in 32 bits."""


def await_readable(*descriptors: int, until: float | None = None) -> None:
    """Return when one of the descriptors is readable, or at that time (monotonic), or earlier."""
    poll = select.poll()
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    poll.poll(None if until is None else max(0.0, min(until - time.monotonic(), _LONGEST)) * 1000)


def above_streams(descriptor: int) -> int:
    """Return the descriptor, moved if it has the number of a standard stream, which the program has closed."""
    if descriptor > 2:
        return descriptor
    try:
        return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 3)
    finally:
        os.close(descriptor)


def keep_to_this_process(file: str | os.PathLike[str]) -> None:
    """Let no program that is executed inherit the descriptors that this process has of a file."""
    with contextlib.suppress(OSError):
        found = os.stat(file)
        for name in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):  # it was closed meanwhile
                if os.path.samestat(os.fstat(int(name)), found):
                    os.set_inheritable(int(name), False)


def receive_descriptors(sock: socket.socket, size: int, most: int) -> tuple[bytes, list[int]]:
    """Receive up to `size` bytes and up to `most` descriptors, which no program that is executed inherits.

    `socket.recv_fds` leaves them inheritable: it does not pass its flags on.
    """
    descriptors = array("i")
    room = socket.CMSG_LEN(most * descriptors.itemsize)
    data, ancillary, _, _ = sock.recvmsg(size, room, socket.MSG_CMSG_CLOEXEC)
    for level, kind, sent in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(sent[: len(sent) - len(sent) % descriptors.itemsize])
    return data, list(descriptors)


class DescriptorReserve:
    """Descriptors that a program keeps, so that it can restart its workers when its own code has used up all others.

    The start of a worker needs three, and two of them for as long as the worker runs.
    """

    def __init__(self, size: int = 8) -> None:
        self._size = size
        self._kept: list[int] = []
        self._lock = RLock()
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
