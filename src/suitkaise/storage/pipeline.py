"""Sees to it that writes which nobody waits for reach the storage actor: one daemon thread a process.

It collects for a millisecond what clients have to send, sleeps until there are replies or a connection
breaks, and ends when nothing is under way. At the end of the program what is left gets a moment to arrive.
"""

from __future__ import annotations

import atexit
import logging
import os
import select
import threading
import time
from typing import Protocol

from suitkaise.storage.refusals import pop_background_error

__all__ = ["Pipelined", "schedule", "wake"]

logger: logging.Logger = logging.getLogger("suitkaise.storage")

COLLECT = 0.001
"""Seconds that writes are collected for, and replies: more often would only disturb the thread that writes."""

LINGER = 0.1
"""Seconds after which the thread ends if there is nothing to do."""

RETRY_AFTER = 0.02
"""Seconds after which a client whose connection broke tries again."""

AT_EXIT = 2.0
"""Seconds that writes which are under way at the end of the program are waited for."""


class Pipelined(Protocol):
    """A client with writes under way."""

    def pump(self) -> bool:
        """Send and receive what can be; whether replies are missing still."""

    def fileno(self) -> int:
        """The descriptor to wait for; -1 if there is none."""

    def settle(self, timeout: float) -> None:
        """Wait until nothing is under way, at most `timeout` seconds."""


def schedule(client: Pipelined) -> None:
    """`client` has something to send; it is asked to make progress soon, and until it has nothing left."""
    global _pump
    with _lock:
        if _pump is None:
            _pump = _Pump()
        _pump.add(client)


def wake() -> None:
    """Replies that the thread may be waiting for have come elsewhere, or their connection is closed: it looks again."""
    with _lock:
        if _pump is not None:
            _pump.ring()


class _Pump:
    """The thread; `_lock` guards what others may touch."""

    def __init__(self) -> None:
        self._fresh: set[Pipelined] = set()
        self._active: set[Pipelined] = set()
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        threading.Thread(target=self._run, name="suitkaise storage pipeline", daemon=True).start()

    def add(self, client: Pipelined) -> None:
        self._fresh.add(client)
        self.ring()

    def ring(self) -> None:
        os.eventfd_write(self._bell, 1)

    def _run(self) -> None:
        while self._wait():
            time.sleep(COLLECT)
            with _lock:
                self._active |= self._fresh
                self._fresh.clear()
            self._active = {client for client in self._active if client.pump()}

    def _wait(self) -> bool:
        """Sleep until there is something to do; False: there is not, and the thread is to end."""
        poll = select.poll()
        poll.register(self._bell, select.POLLIN)
        patience = None if self._active else LINGER
        for client in self._active:
            descriptor = client.fileno()
            if descriptor >= 0:
                poll.register(descriptor, select.POLLIN)
            else:
                patience = RETRY_AFTER
        if not poll.poll(None if patience is None else patience * 1000) and not self._active:
            return not self._retire()
        try:
            os.eventfd_read(self._bell)
        except BlockingIOError:
            pass
        return True

    def _retire(self) -> bool:
        global _pump
        with _lock:
            if self._fresh:
                return False
            _pump = None
            os.close(self._bell)
            return True

    def finish(self) -> None:
        """Wait for what is under way, for a moment."""
        deadline = time.monotonic() + AT_EXIT
        for client in self._active | self._fresh:
            client.settle(max(0.0, deadline - time.monotonic()))

    def abandon(self) -> None:
        """In a forked child: the thread is not here, and what is under way is the parent's to send."""
        os.close(self._bell)


_pump: _Pump | None = None
_lock = threading.RLock()  # since a signal handler may write, too


def _at_exit() -> None:
    if _pump is not None:
        _pump.finish()
    error = pop_background_error()
    if error is not None:
        logger.warning("at the end of the program: %s", "\n".join([str(error), *getattr(error, "__notes__", ())]))


def _after_fork_in_child() -> None:
    global _pump, _lock
    if _pump is not None:
        _pump.abandon()
    _pump = None
    _lock = threading.RLock()


atexit.register(_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
