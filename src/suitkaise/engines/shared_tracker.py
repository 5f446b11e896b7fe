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
def share_tracker() -> None:
    """Have this process use the tracker of the program, if it ever uses one."""
    when_imported("multiprocessing.resource_tracker", _replace)


def _replace(module: Any) -> None:
    """Have the tracker's object ask the hub before it would start a process."""

    class SharedTracker(module.ResourceTracker):  # type: ignore[misc]
        """Finds the pipe to the program's tracker at its first use. Without the program, it is as any other tracker."""

        @property
        def _fd(self) -> int | None:
            if "_fd" not in self.__dict__:
                self.__dict__["_fd"] = None
                self.__dict__["_fd"] = _pipe_to_the_program()
            return self.__dict__["_fd"]  # type: ignore[no-any-return]

        @_fd.setter
        def _fd(self, descriptor: int | None) -> None:
            self.__dict__["_fd"] = descriptor

    tracker = module._resource_tracker
    if tracker.__dict__.get("_fd") is None:  # it is not in use
        tracker.__dict__.pop("_fd", None)
        tracker.__class__ = SharedTracker


def _pipe_to_the_program() -> int | None:
    """Open the pipe to the program's tracker; None if that is not possible."""
    with contextlib.suppress(Exception):
        pid, number = router().request(RequestKind.RESOURCE_TRACKER, "").get(DEFAULT_TIMEOUT)
        descriptor = os.open(f"/proc/{pid}/fd/{number}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        os.set_blocking(descriptor, True)
        return descriptor
    return None
