"""A thread for callbacks of the user's, which may block, or wait for a logging handler."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable

from suitkaise.platform.log_queue import QueuedLogger
from suitkaise.platform.processes import after_fork_in_child
from suitkaise.platform.threads import DaemonThread

__all__ = ["run_callback"]

logger: QueuedLogger = QueuedLogger("suitkaise.messages")

_lock = threading.RLock()  # a signal handler may settle an answer, too
_waiting: deque[Callable[[], object]] = deque()
_running = False


def run_callback(callback: Callable[[], object]) -> None:
    """Call `callback` behind those that wait, in a thread that exists only while there are any; never blocks."""
    global _running
    with _lock:
        _waiting.append(callback)
        if _running:
            return
        _running = True
    try:
        _start()
    except (RuntimeError, MemoryError):  # no thread can be started
        _run()
    except BaseException:  # of a signal handler; perhaps the thread was not started, and two of them do no harm
        with contextlib.suppress(RuntimeError, MemoryError):
            _start()
        raise


def _start() -> None:
    DaemonThread(target=_run, name="suitkaise-callbacks").start()


def _run() -> None:
    global _running
    while True:
        with _lock:
            if not _waiting:
                _running = False
                return
            callback = _waiting.popleft()
        try:
            callback()
        except BaseException as error:  # `sys.exit()` in one callback must not cost the others
            logger.error("%s in a callback of an answer was ignored", type(error).__name__, exc_info=error)


def _forget() -> None:
    global _running, _lock
    _lock = threading.RLock()
    _waiting.clear()
    _running = False


after_fork_in_child(_forget)
