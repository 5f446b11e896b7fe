"""Messages that a thread holds back for a moment, to send many of them with one system call.

Where a thread tells a worker many small messages, each right after the one before, the later ones of this burst are
held back. They are sent when they are enough, and before the thread does anything that others could notice: it sends
another message, a request or an answer, submits a task or returns its result, stores a value or a checkpoint, sets a
timer, logs in a worker's process, starts or stops a tree, a pool or a thread of a worker, forks, waits for its next
message, or ends. And the I/O thread sends them a millisecond later. So only a thread that computes, prints or waits
elsewhere right after its burst can be ahead of its last messages, until the I/O thread gets the interpreter; and they
are lost if the process is killed, or calls `os._exit`, before that.
"""

from __future__ import annotations

import threading
from typing import Any, Protocol

__all__ = ["Holder", "holders", "never", "send_held"]


class Holder(Protocol):
    """A connection that holds messages back."""

    def end_burst(self) -> None:
        """Send what is held back; hold nothing back until there is another burst."""
        ...


holders: dict[int, Holder] = {}
"""The connections over which threads have held messages back, by the numbers of the threads."""


def never(path: str, value: Any) -> bool:
    """Hold nothing back: there are no direct connections."""
    return False


def send_held() -> None:
    """Send what this thread holds back, since it does something else now: its burst is over."""
    if not holders:
        return
    thread = threading.get_ident()
    holder = holders.get(thread)
    if holder is not None:
        holder.end_burst()
        if holders.get(thread) is holder:  # not earlier: a signal handler may raise, or send something, before that
            holders.pop(thread, None)
