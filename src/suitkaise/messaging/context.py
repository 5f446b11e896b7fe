"""Who is running here: the identity of the worker that owns the current thread.

An owner is written `path#serial`; the serial number is larger than that of every earlier incarnation.
Threads that a worker starts by
itself have no owner of their own; in a worker process they fall back to the process's worker.
"""

from __future__ import annotations

import threading

__all__ = ["current_owner", "set_owner"]

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
