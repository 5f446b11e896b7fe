"""The end of a program in which a logging handler, or a write to a stream without a reader, blocks for ever.

Python itself would wait then: for the lock of the handler (`logging.shutdown`), and for the lock of the stream that the
blocked thread writes to, when the main module is over and again when the interpreter ends (there it gives up by an
abort of the process).
"""

from __future__ import annotations

import _thread
import contextlib
import logging
import os
import select
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from suitkaise.platform.processes import after_fork_in_child
from suitkaise.platform.threads import DaemonThread

__all__ = ["MOMENT", "end_program_after", "leave_streams", "returns_within", "shield_streams"]

MOMENT = 0.25
"""Seconds that a handler or a stream gets at the end of the program before it counts as blocked."""

_unfinished: list[threading.Thread] = []
after_fork_in_child(_unfinished.clear)


def returns_within(seconds: float, what: Callable[[], object]) -> bool:
    """Call `what`, which writes to a stream, in a thread; return whether it has returned in time."""
    thread = DaemonThread(target=what, name="suitkaise-write")
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        _unfinished.append(thread)
    return not thread.is_alive()


class _Shielded:
    """A standard stream that something blocks in: `flush` does not wait for it."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def flush(self) -> None:
        with contextlib.suppress(RuntimeError):  # no thread can be started, as in `leave_streams`
            returns_within(MOMENT, self.stream.flush)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def shield_streams() -> None:
    """Replace the standard streams that are blocked: Python flushes them when the main module is over."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if not isinstance(stream, _Shielded | None) and not returns_within(MOMENT, stream.flush):
            setattr(sys, name, _Shielded(stream))


def leave_streams(*, blocked: bool) -> None:
    """At the end of the interpreter: wait neither for a handler nor for a stream that blocks, if there is one."""
    if not blocked and not any(thread.is_alive() for thread in _unfinished):
        return
    known: list[Any] = logging._handlerList  # type: ignore[attr-defined]
    handlers = [handler for handler in known if _is_free(handler())]
    known.clear()  # Python calls `logging.shutdown` afterwards; from 3.14 on it cannot be unregistered any more
    try:
        returns_within(MOMENT, lambda: logging.shutdown(handlers))
    except RuntimeError:  # Python 3.12 starts no thread at its end
        logging.shutdown([handler for handler in handlers if _is_writable(getattr(handler(), "stream", None))])
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        stream = stream.stream if isinstance(stream, _Shielded) else stream
        if stream is not None:
            setattr(sys, name, stream if _flush(stream) else None)


def _flush(stream: Any) -> bool:
    """Flush a stream; return whether that was done in time."""
    try:
        return returns_within(MOMENT, stream.flush)
    except RuntimeError:
        if not _is_writable(stream):
            return False
        stream.flush()
        return True


def _is_writable(stream: Any) -> bool:
    """Return whether the file behind a stream takes data now; a stream without a file does."""
    try:
        descriptor = stream.fileno()
    except (AttributeError, OSError, ValueError):
        return True
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return bool(poll.poll(MOMENT * 1000))


def _is_free(handler: Any) -> bool:
    lock = getattr(handler, "lock", None)
    if lock is None:
        return handler is not None
    if lock.acquire(blocking=False):
        lock.release()
        return True
    return False


def end_program_after(seconds: float, code: int) -> None:
    """End this process with that exit code at the latest after `seconds`, whatever blocks by then."""

    def end() -> None:
        time.sleep(seconds)
        os._exit(code)

    _thread.start_new_thread(end, ())  # not a `Thread`: a signal handler may have interrupted the start of another one
