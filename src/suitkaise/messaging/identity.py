"""Who is running here: the identity of the worker that owns the current thread.

An owner is written `path#serial`; the serial number is larger than that of every earlier incarnation. Threads that
a worker starts by itself have no owner of their own; in a worker process they fall back to the process's worker.
"""

from __future__ import annotations

import threading

__all__ = ["current_owner", "current_path", "is_starting", "owner_of", "set_owner", "set_starting", "split_owner"]

_of_thread = threading.local()
_of_process: str | None = None


def owner_of(path: str, serial: int) -> str:
    """The owner of the incarnation with this serial number at `path`."""
    return f"{path}#{serial}"


def split_owner(owner: str) -> tuple[str, int]:
    """The path and the serial number of an owner.

    >>> split_owner("app/team/count#12")
    ('app/team/count', 12)
    """
    path, _, serial = owner.rpartition("#")
    return path, int(serial)


def current_path() -> str:
    """The path of the worker that owns the current thread; empty outside of any worker."""
    owner = current_owner()
    return "" if owner is None else split_owner(owner)[0]


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
