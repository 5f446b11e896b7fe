"""The errors of pools, each with the cause in words."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from concurrent.futures import BrokenExecutor

from suitkaise.errors import SuitkaiseError, WorkerFailed
from suitkaise.exits import ExitReason, Hung, Signaled

__all__ = ["OTHER_NAMES", "PoolBroken", "TaskFailed", "TaskTimeout", "task_failed"]


class PoolBroken(SuitkaiseError, BrokenExecutor):
    """The pool can run nothing any more: no worker can be started, or its supervisor has ended."""


class TaskFailed(WorkerFailed):
    """A task has ended its worker at every attempt; the pool and all other tasks go on.

    `function` is the name of the task's function, `reasons` the exit reasons of the workers that ran it, one for each
    attempt, and `reason` the last of them.
    """

    function: str = ""
    reasons: tuple[ExitReason, ...] = ()

    @property
    def attempts(self) -> int:
        """How often the task was tried."""
        return len(self.reasons)


class TaskTimeout(TaskFailed, TimeoutError):
    """A task took longer than its `timeout` at its last attempt, so its worker was killed."""


OTHER_NAMES = {
    "apply": "submit(...).result()", "apply_async": "submit(...)", "starmap": "map(function, firsts, seconds)",
    "starmap_async": "map(function, firsts, seconds)", "map_async": "map(...), which does not wait",
    "close": "shutdown(wait=False)", "join": "shutdown()", "terminate": "shutdown(cancel_futures=True)",
    "delay": "submit(...)", "send": "submit(...)", "put": "submit(...)",
}  # fmt: skip
"""What pools of other libraries have, by the name that it has here."""


def task_failed(function: str, reasons: Sequence[ExitReason], path: str) -> TaskFailed:
    """Make the error for a task whose workers ended for these reasons; `path` is the last worker's."""
    last = reasons[-1]
    times = "" if len(reasons) == 1 else f" at each of {len(reasons)} attempts"
    error = (TaskTimeout if isinstance(last, Hung) else TaskFailed)(
        f"{function} ended its worker{times}: {_cause(last)}",
        path=path,
        reason=last,
        traceback=last.stack if isinstance(last, Hung) else "",
    )
    error.function = function
    error.reasons = tuple(reasons)
    return error


def _cause(reason: ExitReason) -> str:
    if isinstance(reason, Hung):
        return f"it took longer than its timeout of {reason.seconds:g} s"
    if reason == Signaled(signal.SIGKILL):
        return f"{reason}, which this program did not send; probably the system was out of memory"
    return str(reason)
