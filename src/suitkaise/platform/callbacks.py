"""Threads for callbacks of the user's, which may block, or wait for a logging handler, and for messages to send."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable

from suitkaise.platform.locks import RLock
from suitkaise.platform.log_queue import QueuedLogger
from suitkaise.platform.processes import after_fork_in_child
from suitkaise.platform.threads import DaemonThread

__all__ = ["run_callback", "run_send"]

logger: QueuedLogger = QueuedLogger("suitkaise.messages")


class _Callbacks:
    """Calls functions one after the other, in a thread of that name. `what` they are is for the log."""

    def __init__(self, name: str, what: str) -> None:
        self._name = name
        self._what = what
        self._forget()
        after_fork_in_child(self._forget)

    def _forget(self) -> None:
        self._lock = RLock()  # a signal handler may settle an answer, too
        self._waiting: deque[Callable[[], object]] = deque()
        self.running: bool = False

    def run(self, callback: Callable[[], object]) -> None:
        """Call `callback` behind those that wait, in a thread that exists only while there are any; never blocks."""
        with self._lock:
            self._waiting.append(callback)
            if self.running:
                return
            self.running = True
        try:
            self._start()
        except (RuntimeError, MemoryError):  # no thread can be started
            self._run()
        except BaseException:  # of a signal handler; perhaps the thread was not started, and two of them do no harm
            with contextlib.suppress(RuntimeError, MemoryError):
                self._start()
            raise

    def _start(self) -> None:
        DaemonThread(target=self._run, name=self._name).start()

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self.running = False
                    return
                callback = self._waiting.popleft()
            try:
                callback()
            except BaseException as error:  # `sys.exit()` in one callback must not cost the others
                logger.error("%s in %s was ignored", type(error).__name__, self._what, exc_info=error)


_callbacks = _Callbacks("suitkaise-callbacks", "a callback of an answer")
_sends = _Callbacks("suitkaise-sends", "the sending of a message")


def run_callback(callback: Callable[[], object]) -> None:
    """Call `callback`, which may block, behind the others, in a thread for that; never blocks."""
    _callbacks.run(callback)


def run_send(send: Callable[[], object]) -> None:
    """Call `send`, which encodes a message and waits for no receiver, in another thread; never blocks."""
    _sends.run(send)
