"""Writes with `wait=False`: one daemon thread a process sends them, and their errors are kept for `flush`.

The thread collects the requests of clients for a millisecond, sleeps until replies arrive or a connection
breaks, and ends when nothing is under way. At the end of the program, pending writes get a moment to arrive.
"""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections import deque
from typing import Protocol

from suitkaise.errors import StorageError
from suitkaise.platform.exit_functions import at_exit, expect_exit
from suitkaise.platform.locks import RLock
from suitkaise.platform.log_queue import QueuedLogger
from suitkaise.platform.threads import DaemonThread

__all__ = [
    "RETRY_AFTER",
    "Pipelined",
    "pop_background_error",
    "record_background_error",
    "reset_after_fork",
    "schedule",
    "wake",
]

logger: QueuedLogger = QueuedLogger("suitkaise.storage")

COLLECT = 0.001
"""Seconds for which writes and replies are collected: more often would only disturb the thread that writes."""

LINGER = 0.1
"""Seconds without work after which the thread ends."""

RETRY_AFTER = 0.02
"""Seconds after which a client whose connection broke tries again."""

AT_EXIT = 2.0
"""Seconds for which the end of the program waits for writes under way."""

_MAX_ERRORS = 100  # for each storage


class Pipelined(Protocol):
    """A client with writes under way."""

    def pump(self) -> bool:
        """Send and receive without waiting; return whether replies are still missing."""

    def fileno(self) -> int:
        """Return the descriptor to wait for; -1 while there is none."""

    def drain(self, timeout: float) -> None:
        """Wait until nothing is under way, at most `timeout` seconds."""


def schedule(client: Pipelined) -> None:
    """Call `pump` of a client that has something to send, soon and until it returns False.

    Raises:
        OSError, RuntimeError: no thread can be started now.
    """
    global _pump
    with _lock:
        if _pump is None:
            expect_exit()
            _pump = _Pump()
        _pump.add(client)


def wake() -> None:
    """Have the thread look again: another thread took the replies that it waits for, or closed their connection."""
    with _lock:
        if _pump is not None:
            _pump.ring()


def record_background_error(directory: str, error: StorageError) -> None:
    """Keep the error of a failed write with `wait=False` for the next `flush` of any thread."""
    errors = _errors.setdefault(directory, deque())
    if len(errors) < _MAX_ERRORS:
        errors.append(error)


def pop_background_error(directory: str | None = None) -> StorageError | None:
    """Return the first error that was recorded since the last call, with the others as its notes.

    Args:
        directory: the storage; None: all storages.
    """
    directories = list(_errors) if directory is None else [directory]
    errors: list[StorageError] = []
    for one in directories:
        with contextlib.suppress(LookupError):  # one by one, since other threads record further ones meanwhile
            while True:
                errors.append(_errors[one].popleft())
    if not errors:
        return None
    first, *others = errors
    for other in others[:9]:
        first.add_note(f"also refused: {other}")
    if len(others) > 9:
        first.add_note(f"and {len(others) - 9} or more others")
    return first


def reset_after_fork() -> None:
    """In a forked child: drop the parent's thread and errors. The parent sends the writes under way."""
    global _pump, _lock
    if _pump is not None:
        _pump.close_in_child()
    _pump = None
    _lock = RLock()
    _errors.clear()


class _Pump:
    """The thread of the pipeline; `_lock` guards the state that other threads use, too."""

    def __init__(self) -> None:
        self._new: set[Pipelined] = set()
        self._active: set[Pipelined] = set()
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        try:
            DaemonThread(target=self._run, name="suitkaise-storage-pipeline").start()
        except Exception:  # Ctrl-C may leave the thread started: it ends by itself then
            os.close(self._bell)
            raise

    def add(self, client: Pipelined) -> None:
        """Have the thread call `pump` of a client."""
        self._new.add(client)
        self.ring()

    def ring(self) -> None:
        """Wake the thread."""
        os.eventfd_write(self._bell, 1)

    def _run(self) -> None:
        while self._wait():
            time.sleep(COLLECT)
            with _lock:
                self._active |= self._new
                self._new.clear()
            self._active = {client for client in self._active if client.pump()}

    def _wait(self) -> bool:
        """Sleep until there is work; return False if the thread is to end."""
        poll = select.poll()
        poll.register(self._bell, select.POLLIN)
        timeout = None if self._active else LINGER
        for client in self._active:
            descriptor = client.fileno()
            if descriptor >= 0:
                poll.register(descriptor, select.POLLIN)
            else:
                timeout = RETRY_AFTER
        if not poll.poll(None if timeout is None else timeout * 1000) and not self._active:
            return not self._end_if_idle()
        try:
            os.eventfd_read(self._bell)
        except BlockingIOError:
            pass
        return True

    def _end_if_idle(self) -> bool:
        global _pump
        with _lock:
            if self._new:
                return False
            if _pump is self:
                _pump = None
            os.close(self._bell)
            return True

    def finish(self) -> None:
        """Wait a moment for the writes under way."""
        deadline = time.monotonic() + AT_EXIT
        for client in self._active | self._new:
            client.drain(max(0.0, deadline - time.monotonic()))

    def close_in_child(self) -> None:
        """Close the descriptor in a forked child, which does not have the thread."""
        os.close(self._bell)


_pump: _Pump | None = None
_lock = RLock()  # reentrant, since a signal handler may write, too
_errors: dict[str, deque[StorageError]] = {}


@at_exit
def _at_exit() -> None:
    if _pump is not None:
        _pump.finish()
    error = pop_background_error()
    if error is not None:
        text = "\n".join([str(error), *getattr(error, "__notes__", ())])
        logger.warning("writes with wait=False failed, and no flush reported it: %s", text)
