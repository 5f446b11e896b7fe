"""Sees to it that writes which nobody waits for reach the storage actor: one daemon thread a process.

It sleeps until a client has something that is not sent, or replies come, or a connection breaks; a client
that has nothing under way costs nothing. At the end of the program what is left gets a moment to arrive.
"""

from __future__ import annotations

import atexit
import logging
import os
import select
import threading
import time
from collections import deque
from typing import Protocol

from suitkaise.errors import StorageError

__all__ = ["Pipelined", "schedule"]

logger = logging.getLogger("suitkaise.storage")

AT_EXIT = 2.0
"""Seconds that writes which are under way at the end of the program are waited for."""


class Pipelined(Protocol):
    """A client with writes under way."""

    def progress(self) -> bool:
        """Send and receive what can be; whether replies are missing still."""

    def fileno(self) -> int:
        """The descriptor to wait for; -1 if there is none."""

    def flush(self, timeout: float | None = None) -> None:
        """Wait until nothing is under way."""


def schedule(client: Pipelined) -> None:
    """`client` has something to send."""
    global _pump
    if _pump is None:
        with _starting:
            if _pump is None:
                _pump = _Pump()
    _pump.schedule(client)


class _Pump:
    def __init__(self) -> None:
        self._fresh: deque[Pipelined] = deque()
        self._active: set[Pipelined] = set()
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        threading.Thread(target=self._run, name="suitkaise storage pipeline", daemon=True).start()

    def schedule(self, client: Pipelined) -> None:
        self._fresh.append(client)
        os.eventfd_write(self._bell, 1)

    def _run(self) -> None:
        while True:
            poll = select.poll()
            poll.register(self._bell, select.POLLIN)
            waiting: dict[int, Pipelined] = {}
            for client in self._active:
                descriptor = client.fileno()
                if descriptor >= 0:
                    waiting[descriptor] = client
                    poll.register(descriptor, select.POLLIN)
            due = {waiting[descriptor] for descriptor, _ in poll.poll() if descriptor in waiting}
            try:
                os.eventfd_read(self._bell)
            except BlockingIOError:
                pass
            while self._fresh:
                due.add(self._fresh.popleft())
            for client in due:
                if client.progress():
                    self._active.add(client)
                else:
                    self._active.discard(client)

    def finish(self) -> None:
        deadline = time.monotonic() + AT_EXIT
        for client in [*self._active, *self._fresh]:
            try:
                client.flush(max(0.0, deadline - time.monotonic()))
            except StorageError as error:
                logger.warning("at the end of the program: %s", error)


_pump: _Pump | None = None
_starting = threading.Lock()


def _at_exit() -> None:
    if _pump is not None:
        _pump.finish()


def _after_fork_in_child() -> None:
    """What the parent has under way is the parent's to send, and so is its thread."""
    global _pump, _starting
    if _pump is not None:
        os.close(_pump._bell)
    _pump = None
    _starting = threading.Lock()


atexit.register(_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
