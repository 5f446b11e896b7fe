"""What signals do while a tree runs in the foreground: stop it, kill it, or print the stacks of the program."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import select
import signal
import sys
import threading
import time
from types import FrameType
from typing import Any, NoReturn, Self

from suitkaise.errors import ChildStartFailed, SuitkaiseError
from suitkaise.exits import ExitReason, Shutdown, origin
from suitkaise.platform.blocked_streams import end_program_after
from suitkaise.platform.flag import Flag
from suitkaise.platform.processes import after_fork_in_child, has_default_action
from suitkaise.policy.actions import KillAll, StopAll
from suitkaise.runtime.running_tree import REPEAT, RunningTree
from suitkaise.runtime.start import added
from suitkaise.specs import SupervisorSpec
from suitkaise.supervision.interface import SupervisorInterface

__all__ = ["SignalCount", "SignalHandling"]


class SignalCount:
    """Tells the first request to stop from a second one, which is to kill (rule 70).

    SIGHUP says that the terminal is gone. Nobody waits there who could lose patience, so SIGHUP is neither the first
    nor a second request: a service manager may send SIGTERM and SIGHUP together, and they arrive in the order of their
    numbers.

    >>> count = SignalCount()
    >>> [count.is_second(signal.SIGTERM, now) for now in (0.0, 0.01, 2.0)]
    [False, False, True]
    """

    def __init__(self) -> None:
        self._first: tuple[int, float] | None = None

    def is_second(self, number: int, now: float) -> bool:
        """Count a signal that has arrived at `now` (seconds); return whether it is a second request."""
        if number == signal.SIGHUP:
            return False
        if self._first is None:
            self._first = number, now
        first, at = self._first
        return number != first or now - at >= REPEAT


LAST_RESORT = 6.0
"""Seconds after a second signal; the program ends then, whatever its main thread waits for (rule 76)."""


class SignalHandling:
    """Handles signals while a tree runs; a context manager, which installs handlers in the main thread only.

    SIGINT, SIGTERM and SIGHUP stop the tree gracefully, and a second signal kills it (see `SignalCount`). A SIGINT or
    SIGHUP that is ignored, as in the background jobs of a shell or under `nohup`, stays ignored.

    SIGUSR1 prints the stacks of all threads, unless the program has a use for it. All other signals keep their effect.
    """

    def __init__(self) -> None:
        self.old: dict[int, Any] = {}
        self._stopped = False  # by a signal
        self._count = SignalCount()
        self._dumps_stacks = False
        self._supervisor: SupervisorInterface | None = None
        self._pipe: tuple[int, int] | None = None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._pipe = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
            self._old_wakeup_fd = signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                if number != signal.SIGTERM and signal.getsignal(number) is signal.SIG_IGN:
                    continue
                self.old[number] = signal.signal(number, self._on_signal)
            if has_default_action(signal.SIGUSR1):
                with contextlib.suppress(Exception):  # there is no standard error
                    faulthandler.register(signal.SIGUSR1, sys.__stderr__ or sys.stderr, all_threads=True)
                    self._dumps_stacks = True
            _active.append(self)
        return self

    def __exit__(self, *error: object) -> None:
        if self._pipe is not None:
            self.restore()
            _active.remove(self)
            pipe, self._pipe = self._pipe, None
            os.close(pipe[0])
            os.close(pipe[1])

    def restore(self) -> None:
        """Restore the earlier handlers; also in a forked child, which runs no tree."""
        for number, handler in self.old.items():
            signal.signal(number, handler)
        if self._dumps_stacks:
            faulthandler.unregister(signal.SIGUSR1)
        signal.set_wakeup_fd(self._old_wakeup_fd)

    def wait(self, event: Flag) -> None:
        """Wait for `event`, which the start or the end of the tree sets, while signals are handled.

        Waiting on the event's lock would not do: a signal that arrives just before the thread blocks on a lock is
        not handled until the lock is free. So the thread polls a pipe, the signal module's wakeup descriptor, which
        the event writes to as well.
        """
        if self._pipe is None:
            event.wait()
            return
        poll = select.poll()
        poll.register(self._pipe[0], select.POLLIN)
        with event.waking(self._wake):
            while not event.is_set():
                poll.poll()
                with contextlib.suppress(BlockingIOError):
                    os.read(self._pipe[0], 4096)

    def _wake(self) -> None:
        pipe = self._pipe
        if pipe is not None:
            with contextlib.suppress(OSError):  # the pipe is full, or closed at this moment: no thread waits for it
                os.write(pipe[1], b"!")

    def start(self, tree: SupervisorSpec) -> RunningTree | ExitReason:
        """Start the tree; if a signal, or an order of an administrator, stops it meanwhile, return the exit reason."""
        try:
            with added(tree) as (runtime, supervisor):
                self._supervisor = supervisor
                supervisor.begin(self.wait)
                return RunningTree(supervisor, runtime)
        except SuitkaiseError as error:
            ordered = self._stopped or (error.reason is not None and origin(error.reason)[1].clean)
            if not ordered or self._supervisor is None or isinstance(error, ChildStartFailed):
                raise
            return self._supervisor.exited.result().reason

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        supervisor = self._supervisor
        if supervisor is None:
            self._die(number)
        if not self._count.is_second(number, time.monotonic()):
            self._stopped = True
            supervisor.tell(StopAll(Shutdown(f"signal {number} ({signal.Signals(number).name})")))
        else:
            end_program_after(LAST_RESORT, 128 + number)
            supervisor.tell(KillAll(f"a second signal, {signal.Signals(number).name}"))
            with contextlib.suppress(Exception):
                supervisor.exited.result(5.0)
            self._die(number)

    def _die(self, number: int) -> NoReturn:
        raise SystemExit(128 + number)


_active: list[SignalHandling] = []


def _handled() -> set[int]:
    return {number for signals in _active for number in signals.old}


def _restore() -> None:
    for signals in reversed(_active):
        signals.restore()


after_fork_in_child(_restore, signals=_handled)
