"""The identity of the worker that owns the current thread.

An owner is written `path#serial`; the serial number is larger than that of every earlier incarnation. A thread that a
worker starts by itself has no owner of its own; in a worker's process its owner is the process's worker. The same holds
for the worker object.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Protocol

__all__ = [
    "Stoppable",
    "awaits_alone",
    "current_owner",
    "current_path",
    "deadline_of_ask",
    "handles_alone",
    "is_hook",
    "is_starting",
    "own_thread_of",
    "owner_of",
    "reads_answers",
    "set_own_thread",
    "set_owner",
    "set_reads_answers",
    "set_starting",
    "set_supervises",
    "set_worker",
    "split_owner",
    "stoppable",
    "supervises",
    "worker_of_thread",
]


class Stoppable(Protocol):
    """A running worker, to which a thread of its own belongs."""

    @property
    def forked(self) -> bool:
        """Whether this is a process that the worker has forked."""
        ...

    def wait_for_input(self, descriptor: int | None) -> bool:
        """Wait until the descriptor is readable (None: do not wait, but look for an order), or earlier.

        Return False once the worker is asked to stop, or its time is over.
        """
        ...

    async def wait_for_future(self, future: Any) -> bool:
        """Do the same with a future of the event loop that runs."""
        ...


_of_thread = threading.local()  # read by its `__dict__`: without the attribute, `getattr` takes 1 us
_of_process: str | None = None
_worker_of_process: Any = None


def owner_of(path: str, serial: int) -> str:
    """Return the owner string of the incarnation with this serial number at `path`."""
    return f"{path}#{serial}"


def split_owner(owner: str) -> tuple[str, int]:
    """Return the path and the serial number of an owner string.

    >>> split_owner("app/team/count#12")
    ('app/team/count', 12)
    """
    path, _, serial = owner.rpartition("#")
    return path, int(serial)


def current_path() -> str:
    """Return the path of the worker that owns the current thread; empty outside of any worker."""
    owner = _of_thread.__dict__.get("owner") or _of_process
    return "" if owner is None else owner.rpartition("#")[0]


def current_owner() -> str | None:
    """Return the owner of the current thread, or None outside of any worker."""
    owner: str | None = _of_thread.__dict__.get("owner")
    return owner if owner is not None else _of_process


def set_owner(owner: str | None, *, whole_process: bool = False) -> None:
    """Set the owner of this thread, or with `whole_process` of all threads without an owner of their own."""
    global _of_process
    if whole_process:
        _of_process = owner
    else:
        _of_thread.owner = owner


def worker_of_thread() -> Any:
    """Return the object of the worker that owns the current thread, or None outside of any running worker."""
    worker = _of_thread.__dict__.get("worker")
    return worker if worker is not None else _worker_of_process


def set_worker(worker: Any) -> None:
    """Set the object of the worker that runs in this thread; None: it is over.

    A worker that owns the whole process is then the worker of all threads of the process without one of their own.
    """
    global _worker_of_process
    _of_thread.worker = worker
    if _of_process is not None and _of_thread.__dict__.get("owner") is None:
        _worker_of_process = worker


def stoppable() -> Stoppable | None:
    """Return what waits for input as long as the worker of the current thread is not asked to stop; None: no worker.

    A child that the worker has forked is none: the orders are its parent's, which the child must not read.
    """
    worker = worker_of_thread()
    context = None if worker is None else worker._worker_context
    return None if context is None or context.forked else context


def is_starting() -> bool:
    """Return whether the current thread is in a worker's `on_start`, for which its supervisor waits."""
    return bool(_of_thread.__dict__.get("starting"))


def handles_alone() -> bool | None:
    """Return whether a worker answers nothing while the current thread waits; None if this is no worker's own thread.

    It is False while some other thread of the worker may answer a message, or other handlers go on meanwhile.
    """
    check: Callable[[], bool] | None = _of_thread.__dict__.get("handles_alone")
    return None if check is None else check()


def own_thread_of() -> str:
    """Return the path of the worker, or background thread, that handles its messages in this thread; else ""."""
    return _of_thread.__dict__.get("own_path") or ""


def awaits_alone() -> bool:
    """Return whether the worker whose own thread this is answers nothing while the caller awaits something."""
    check: Callable[[], bool] | None = _of_thread.__dict__.get("awaits_alone")
    return check is None or check()


def is_hook() -> bool:
    """Return whether the caller is an async hook itself, which goes on only after its `await`, and no task beside."""
    check: Callable[[], bool] | None = _of_thread.__dict__.get("is_hook")
    return check is not None and check()


def set_own_thread(
    path: str,
    handles_alone: Callable[[], bool] | None = None,
    awaits_alone: Callable[[], bool] | None = None,
    is_hook: Callable[[], bool] | None = None,
    deadline: Callable[[], float | None] | None = None,
) -> None:
    """Record that this is the own thread of the worker at `path`; "": of none any more.

    The others return what the functions `handles_alone`, `awaits_alone`, `is_hook` and `deadline_of_ask` are to return.
    """
    _of_thread.own_path = path
    _of_thread.handles_alone = handles_alone
    _of_thread.awaits_alone = awaits_alone
    _of_thread.is_hook = is_hook
    _of_thread.deadline = deadline


def deadline_of_ask() -> float | None:
    """Return until when (monotonic) the asker waits whose message this thread, a worker's own, handles; else None."""
    deadline: Callable[[], float | None] | None = _of_thread.__dict__.get("deadline")
    return None if deadline is None else deadline()


def reads_answers() -> bool:
    """Return whether the current thread reads the answers of the hub: it can wait for none.

    Code of users gets there by the garbage collector, which runs `__del__` in any thread.
    """
    return bool(_of_thread.__dict__.get("reads_answers"))


def set_reads_answers() -> None:
    """Record that this thread reads the answers of the hub."""
    _of_thread.reads_answers = True


def supervises() -> bool:
    """Return whether the current thread is the one of a supervisor: it must wait for no worker."""
    return bool(_of_thread.__dict__.get("supervises"))


def set_supervises() -> None:
    """Record that this thread is the one of a supervisor."""
    _of_thread.supervises = True


def set_starting(starting: bool) -> None:
    """Record that this thread begins, or has ended, a worker's `on_start`."""
    _of_thread.starting = starting
