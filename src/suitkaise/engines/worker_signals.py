"""What signals do in a worker's process: finish, nothing, or a dump of the stacks."""

from __future__ import annotations

import _thread
import contextlib
import faulthandler
import os
import signal
from collections.abc import Callable
from functools import partial
from typing import Any

from suitkaise.exits import Signaled
from suitkaise.messaging.socket_mailbox import SocketMailbox
from suitkaise.platform.runtime_directory import stack_file

__all__ = ["DUMP", "HANDLED", "PROFILE", "WorkerSignals", "ignore_signals", "restore_signals"]

FROM_TERMINAL = (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)
"""A terminal sends these to a whole group of processes."""

HANDLED: frozenset[int] = frozenset({*FROM_TERMINAL, signal.SIGTERM})
"""The signals that have another effect in a worker's process than the usual one; besides, some dump stacks."""

DUMP: int = signal.SIGRTMIN + 7
"""Makes a worker's process write the stacks of its threads to a file, whatever the process does at the moment.

SIGUSR1 makes it write them to its standard error.
"""

PROFILE: int = signal.SIGRTMIN + 8
"""Makes a worker's process sample its threads for an observer, see `worker_profile`."""


class WorkerSignals:
    """The signal handlers of a worker's process.

    SIGTERM asks the worker to finish, and the signals that a terminal sends to a whole group of processes do nothing:
    the program alone decides about its workers. The handlers that do nothing are Python functions, not SIG_IGN, since
    every program that the worker starts would inherit SIG_IGN.

    Args:
        directory: the program's private directory. `DUMP` writes to a file in it, and SIGSEGV and other signals of a
            fault do.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._outputs: dict[int, int] = {}  # descriptors by the signals that dump to them
        ignore_signals(*FROM_TERMINAL)
        with contextlib.suppress(OSError):  # the hub's directory may be gone
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
            self._outputs[DUMP] = os.open(stack_file(directory, os.getpid()), flags, 0o600)
            faulthandler.enable(self._outputs[DUMP])
        self._outputs[signal.SIGUSR1] = 2
        for number, output in self._outputs.items():
            ignore_signals(number)  # where faulthandler does not work the signal must not end the process
            with contextlib.suppress(OSError, ValueError):
                faulthandler.register(number, output, all_threads=True)

        signal.signal(PROFILE, self._profile)

    def finish_with(self, mailbox: SocketMailbox, *, ignore_sigterm: bool) -> None:
        """Have SIGTERM order the mailbox to stop; or do nothing, for the storage, which ends after all others."""
        finish = partial(mailbox.order_stop, Signaled(signal.SIGTERM))
        signal.signal(signal.SIGTERM, _ignore if ignore_sigterm else lambda number, frame: finish())

    def _profile(self, number: int, frame: Any) -> None:
        """Start a thread, without a lock, which the interrupted code could hold; an error would be raised in a hook."""
        with contextlib.suppress(RuntimeError):  # no thread is left
            _thread.start_new_thread(_serve_profile, (self._directory, os.getpid()))

    def add_to_stacks(self, text: Callable[[], str]) -> None:
        """Add `text()` to each dump: the stacks of threads do not show where a coroutine or a command waits."""

        def dump(number: int, frame: Any) -> None:
            with contextlib.suppress(Exception):  # an exception would be raised in the worker's hook
                os.write(self._outputs[number], text().encode())

        for number, output in self._outputs.items():
            with contextlib.suppress(OSError, ValueError):
                faulthandler.unregister(number)
                signal.signal(number, dump)
                faulthandler.register(number, output, all_threads=True, chain=True)


def _serve_profile(directory: str, pid: int) -> None:
    from suitkaise.engines.worker_profile import serve_profile  # few workers are ever profiled

    serve_profile(directory, pid)


def ignore_signals(*numbers: int) -> None:
    """Have these signals do nothing in this process; programs that it starts do not inherit that."""
    for number in numbers:
        signal.signal(number, _ignore)


def restore_signals() -> None:
    """Give all signals their usual effect, or `multiprocessing` could not terminate its processes."""
    for number in HANDLED:
        signal.signal(number, signal.SIG_DFL)
    faulthandler.disable()  # the file is the worker's
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _ignore(number: int, frame: Any) -> None: ...
