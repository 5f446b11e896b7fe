"""One resource tracker of `multiprocessing` for a program and its workers.

A resource tracker is a process that removes what its users have left behind (shared memory, semaphores) when the last
of them has ended. A worker with a tracker of its own would lose others their shared memory: at the worker's end the
tracker removes every segment that the worker has attached to. `multiprocessing` gives its own child processes the
tracker of their parent. A worker gets that of the program as soon as the worker needs one, and the program starts it as
soon as anyone does.
"""

from __future__ import annotations

import contextlib
import os
from typing import Any

from suitkaise.messaging.answer import DEFAULT_TIMEOUT, Answer
from suitkaise.messaging.protocol import RequestKind
from suitkaise.messaging.router import router
from suitkaise.platform.imports import when_imported
from suitkaise.platform.locks import RLock
from suitkaise.platform.processes import after_fork_in_child
from suitkaise.platform.threads import DaemonThread

__all__ = ["serve_tracker", "share_tracker"]


# ------------------------------------------------------------ in the hub
def serve_tracker() -> Answer[tuple[int, int]]:
    """Answer a worker's request for the program's tracker: this pid, and the descriptor of the pipe to the tracker."""
    answer: Answer[tuple[int, int]] = Answer()

    def find() -> None:
        try:
            from multiprocessing import resource_tracker  # it takes 5 ms to import, and few programs need it

            descriptor = resource_tracker.getfd()
            assert descriptor is not None
            answer.set_result((os.getpid(), descriptor))
        except Exception as error:
            answer.set_exception(error)

    DaemonThread(target=find, name="suitkaise-tracker-start").start()
    return answer


# ------------------------------------------------------------ in a worker's process
_lock = RLock()


def _renew_lock() -> None:
    global _lock
    _lock = RLock()


after_fork_in_child(_renew_lock)


def share_tracker() -> None:
    """Have this process use the tracker of the program, if it ever uses one."""
    when_imported("multiprocessing.resource_tracker", _replace)


def _replace(module: Any) -> None:
    """Have the tracker's object ask the hub before it would start a process."""

    class SharedTracker(module.ResourceTracker):  # type: ignore[misc]
        """Finds the pipe to the program's tracker at its first use. Without the program, it is as any other tracker."""

        _fd: int | None
        _asked_in = -1  # the process that has asked for the pipe

        def ensure_running(self) -> Any:
            self._find_pipe()
            return super().ensure_running()

        def _ensure_running_and_write(self, msg: Any = None) -> Any:  # in Python 3.14
            self._find_pipe()
            return super()._ensure_running_and_write(msg)

        def _find_pipe(self) -> None:
            with _lock:
                if self._fd is None and self._asked_in != os.getpid():
                    self._asked_in = os.getpid()
                    self._fd = _pipe_to_the_program()

    tracker = module._resource_tracker
    if tracker._fd is None:  # it is not in use
        tracker.__class__ = SharedTracker


def _pipe_to_the_program() -> int | None:
    """Open the pipe to the program's tracker; None if that is not possible."""
    with contextlib.suppress(Exception):
        pid, number = router().request(RequestKind.RESOURCE_TRACKER, "").get(DEFAULT_TIMEOUT)
        descriptor = os.open(f"/proc/{pid}/fd/{number}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        os.set_blocking(descriptor, True)
        return descriptor
    return None
