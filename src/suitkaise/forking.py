"""Forks: a child may be sent a signal before it has run a line, and must not lose it to its parent's handlers."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Set

__all__ = ["in_forked_children"]


def in_forked_children(settle: Callable[[], object], *, signals: Set[signal.Signals]) -> None:
    """From now on, call `settle` in every child that this process forks (`os.fork`, multiprocessing).

    Until then the child holds back the `signals`, whose handlers `settle` may replace: Python forgets what has come
    for a handler of the parent's, so who terminates a process that was forked this moment would wait for ever.
    """
    masks = threading.local()

    def hold() -> None:
        masks.before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)

    def release() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, masks.before)

    def begin() -> None:
        try:
            settle()
        finally:
            release()

    os.register_at_fork(before=hold, after_in_parent=release, after_in_child=begin)
