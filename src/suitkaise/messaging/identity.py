"""Who is running here: the identity of the worker that owns the current thread.

An owner is written `path#serial`; the serial number is larger than that of every earlier incarnation. Threads that
a worker starts by itself have no owner of their own; in a worker process they fall back to the process's worker.
"""

from __future__ import annotations

import threading

__all__ = ["current_owner", "is_starting", "set_owner", "set_starting"]

_of_thread = threading.local()
_of_process: str | None = None


def current_owner() -> str | None:
    """The owner of the current thread, or None outside of any worker."""
    owner: str | None = getattr(_of_thread, "owner", None)
    return owner if owner is not None else _of_process


def set_owner(owner: str | None, *, whole_process: bool = False) -> None:
    """Make `owner` the identity of this thread, or with `whole_process` of every thread without one."""
    global _of_process
    if whole_process:
        _of_process = owner
    else:
        _of_thread.owner = owner


def is_starting() -> bool:
    """Whether the current thread is in a worker's `on_start`: its supervisor waits for it."""
    return getattr(_of_thread, "starting", False)


def set_starting(starting: bool) -> None:
    """Say that this thread begins, or has ended, a worker's `on_start`."""
    _of_thread.starting = starting
