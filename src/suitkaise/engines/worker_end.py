"""The end of a worker's process: of what it has started, of its threads, of the runtime directory, and of itself."""

from __future__ import annotations

import _thread
import contextlib
import logging
import os
import select
import sys
import threading
import time
import traceback
from typing import NoReturn

from suitkaise.messaging.identity import current_path
from suitkaise.platform.marks import mark_of, worker_mark
from suitkaise.platform.processes import (
    descendants,
    finish_interpreter,
    has_ended,
    kill_children,
    kill_where,
    processes_where,
    request_end,
)
from suitkaise.platform.runtime_directory import STRAGGLERS, remove_when_unused
from suitkaise.platform.threads import current_frames

__all__ = ["end_process", "hold", "let_go"]

_logger = logging.getLogger("suitkaise.worker")

LINGER_NOTICE = 1.0
"""Seconds after which a process that waits for threads, before it ends, logs which ones."""

_held: list[tuple[str, int, int]] = []
"""The runtime directory, the descriptor that holds it, and the control connection's."""


def hold(directory: str, lock: int, control: int) -> None:
    """Keep the program's runtime directory until this process ends.

    Args:
        directory: the runtime directory.
        lock: the descriptor that holds it.
        control: the descriptor of the connection to the hub.
    """
    _held.append((directory, lock, control))


def let_go() -> None:
    """In a process that the worker has forked: leave the runtime directory to the worker."""
    for _, lock, _ in _held:
        os.close(lock)
    _held.clear()


def end_process(code: int, *, wait: bool = True) -> NoReturn:
    """End the process: end what it has started, join threads, run exit handlers, flush; without the teardown.

    The wait for children needs no time limit: the hub, the keeper or the lifeline kills this process at the end of its
    time, and then the keeper kills the children.
    """
    try:
        kill_children()
        ending = _end_descendants() if wait else []
        if wait and _lingering_threads():
            _thread.start_new_thread(_report_lingering, ())
        finish_interpreter(wait=wait)
        for pidfd in ending:
            has_ended(pidfd, None)
        _kill_descendants()
        _remove_directory()
    finally:
        os._exit(code)


def _lingering_threads() -> list[threading.Thread]:
    """Return the threads for which a process waits before it ends: all that are no daemons."""
    main = threading.main_thread()
    return [one for one in threading.enumerate() if not one.daemon and one is not main]


def _report_lingering() -> None:
    """Log once which threads hold up the end of the process, and where they stand."""
    time.sleep(LINGER_NOTICE)
    left, frames = _lingering_threads(), current_frames()
    stacks = (
        f"Thread {one.name!r} (most recent call last):\n"
        + "".join(traceback.format_stack(frames.get(one.ident or 0), limit=5)).rstrip()
        for one in left
    )
    if left:
        _logger.warning(
            "%r has finished, but its process waits for %d of its threads that are no daemons:\n%s",
            current_path(), len(left), "\n".join(stacks),
        )  # fmt: skip


def _end_descendants() -> list[int]:
    """Ask all that this process has started to end; return their pidfds. The keeper ends what has left the family.

    When the hub is gone, the keeper may be killed at any moment, too: then this process sees to those as well.
    """
    mark = mark_of(os.getpid())
    if mark is not None and mark.keep:
        return []
    found = descendants()
    for directory, _, control in _held:
        if mark is not None and _is_hung_up(control):
            found = set(processes_where(worker_mark(directory, mark.worker)))
    pidfds = []
    for pid in found - _trackers():
        with contextlib.suppress(OSError):
            pidfds.append(os.pidfd_open(pid))
            request_end(pid)
    return pidfds


def _trackers() -> set[int]:
    """Return the resource trackers of this process: of multiprocessing, and of its copies in joblib and others.

    A tracker ignores SIGTERM, and ends with the last process that uses it: this one would wait for it in vain.
    """
    modules = [module for name, module in list(sys.modules.items()) if name.endswith(".resource_tracker")]
    pids = (getattr(getattr(module, "_resource_tracker", None), "_pid", None) for module in modules)
    return {pid for pid in pids if pid is not None}


def _kill_descendants() -> None:
    """Kill what is left of what this process has started, if the hub is gone."""
    mark = mark_of(os.getpid())
    for directory, _, control in _held:
        if mark is not None and not mark.keep and _is_hung_up(control):
            kill_where(worker_mark(directory, mark.worker))


def _remove_directory() -> None:
    """Remove the program's directory if hub, keeper and all other workers are gone."""
    for directory, lock, control in _held:
        os.close(lock)
        if _is_hung_up(control):
            remove_when_unused(directory, STRAGGLERS)


def _is_hung_up(control: int) -> bool:
    """Return whether the hub is gone."""
    poll = select.poll()
    poll.register(control, select.POLLRDHUP)
    return bool(poll.poll(0))
