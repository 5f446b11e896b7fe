"""Forks: a child may be sent a signal before it has run a line, and must not lose it to its parent's handlers."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Set

__all__ = ["in_forked_children"]


def in_forked_children(settle: Callable[[], object], *, signals: Callable[[], Set[int]]) -> None:
    """From now on, call `settle` in every child that this process forks (`os.fork`, multiprocessing).

    Until then the child holds back the `signals`, whose handlers `settle` may replace: Python forgets what has come
    for a handler of the parent's, so who terminates a process that was forked this moment would wait for ever. What
    comes for the parent itself meanwhile is handled once it has forked, where no error that the handler raises gets
    out: `signals`, which is asked before each fork, names none whose handler would raise one.
    """
    thread = threading.local()

    def hold() -> None:
        wanted = signals()
        thread.held = wanted - signal.pthread_sigmask(signal.SIG_BLOCK, wanted)

    def release() -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, getattr(thread, "held", ()))  # unless this began within the fork

    def begin() -> None:
        try:
            settle()
        finally:
            release()

    os.register_at_fork(before=hold, after_in_parent=release, after_in_child=begin)
