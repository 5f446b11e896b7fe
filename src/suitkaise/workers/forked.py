"""Forks of a worker's process (`os.fork` in a hook): a fork ends where the hook ends, as a program of its own.

The fork returns from the hook into a copy of the life cycle of its parent. It must not go on there: it would answer the
parent's messages, run the parent's hooks, and write to the parent's slot of the status board.
"""

from __future__ import annotations

import os
import sys
import weakref
from typing import NoReturn

from suitkaise.exits import ExitCode, Normal
from suitkaise.platform.processes import finish_interpreter
from suitkaise.workers.incarnation import ExitWith, ForceFinish, reason_of_exit

__all__ = ["Forks", "end_fork"]


class Forks(list[int]):
    """Empty, but in the forks of the process that made it: there it holds the pid of the fork.

    A list, because a loop asks after each hook, and the truth of a list costs 5 ns.
    """

    __slots__ = ("__weakref__",)

    def __init__(self) -> None:
        super().__init__()
        _all[id(self)] = self


_all: weakref.WeakValueDictionary[int, Forks] = weakref.WeakValueDictionary()


def _mark() -> None:
    for forks in _all.values():
        forks.append(os.getpid())


os.register_at_fork(after_in_child=_mark)


def end_fork(error: BaseException | None = None) -> NoReturn:
    """End this process as Python ends a program that `error` has ended: its exit code, its traceback on stderr."""
    code = 1
    try:
        if error is None or isinstance(error, (ForceFinish, ExitWith)):
            code = 0
        elif isinstance(error, SystemExit):
            reason = reason_of_exit(error)
            code = reason.code if isinstance(reason, ExitCode) else 0 if isinstance(reason, Normal) else 1
        else:
            sys.excepthook(type(error), error, error.__traceback__)
        finish_interpreter()
    finally:
        os._exit(code & 0xFF)
