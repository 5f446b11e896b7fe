"""Functions that are called at the end of the program, and of a process that multiprocessing has forked.

multiprocessing ends a process that it has forked, also by its forkserver, without the functions of `atexit`: these may
be meant for the parent alone. Those of this package are for every process that uses it. So each is registered here, and
the first use in such a process has multiprocessing call them.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import threading
from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["at_exit", "expect_exit"]

F = TypeVar("F", bound=Callable[[], object])

_LAST = -100
"""The priority for multiprocessing: after its functions, which wait for the children and the queues of the process."""


def at_exit(function: F) -> F:
    """Call a function at the end of the process, the last one first; a decorator. To do it again makes it the last one.

    It may be called twice in a process that multiprocessing has spawned.
    """
    if function in _functions:
        _functions.remove(function)
        atexit.unregister(function)
    _functions.append(function)
    atexit.register(function)
    return function


def expect_exit() -> None:
    """Have the functions called at the end of this process, if multiprocessing has forked it; by what needs them."""
    global _expected_in
    processes: Any = sys.modules.get("multiprocessing.process")
    if processes is None or processes.parent_process() is None or _expected_in == os.getpid():
        return
    from multiprocessing.util import Finalize

    Finalize(None, _call_all, exitpriority=_LAST)
    _expected_in = os.getpid()


def _call_all() -> None:
    threading._shutdown()  # type: ignore[attr-defined]  # as Python does before it calls the functions of `atexit`
    with contextlib.ExitStack() as end:  # every one is called, even if one fails
        for function in _functions:
            end.callback(function)


@atexit.register  # before all others, so it is called after them
def _end_by_sigint() -> None:
    """Have Python end the program by SIGINT if Ctrl-C ends it, as a shell expects it of what it runs in a loop.

    Python notes that no code has caught the KeyboardInterrupt, and forgets it when a text is run as code, as the import
    of a module does that makes a namedtuple; what the functions do may import some. Then Python must note it again.
    """
    traceback = getattr(sys, "last_traceback", None)
    if (
        traceback is not None
        and sys.last_type is KeyboardInterrupt
        and traceback.tb_frame.f_back is None  # it has left the program, and not an interpreter within it
        and not hasattr(sys, "ps1")
    ):
        with contextlib.suppress(KeyboardInterrupt):
            exec("raise KeyboardInterrupt")  # noqa: S102  (nothing else has Python note it)


_functions: list[Callable[[], object]] = []
_expected_in = -1
