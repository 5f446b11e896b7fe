"""A tree that is what its program is there for: it runs until it ends, and signals end it."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
from concurrent.futures import Future
from types import FrameType
from typing import Any, NoReturn, Self

from suitkaise.errors import ChildStartFailed, SuitkaiseError, TreeFailed
from suitkaise.exits import Crashed, ExitReason, GaveUp, Killed, Shutdown
from suitkaise.platform.processes import after_fork_in_child
from suitkaise.policy.actions import KillAll, StopAll
from suitkaise.runtime.running_tree import RunningTree
from suitkaise.runtime.start import added
from suitkaise.specs import SupervisorSpec
from suitkaise.supervision.interface import SupervisorInterface

__all__ = ["run", "runs"]


def run(tree: SupervisorSpec) -> ExitReason:
    """See `Supervisor.run`."""
    global runs
    runs += 1
    with _Signals() as signals:
        running = signals.guard(tree)
        if isinstance(running, ExitReason):
            return running
        signals.wait(running._ended)
        reason = running.wait()
        running.stop()
    match reason:
        case Shutdown(GaveUp() as gave_up):
            path, cause, what = gave_up.path, gave_up.reason, str(gave_up)
        case Crashed():
            path, cause, what = tree.name, reason, f"failed: {reason}"
        case Killed():
            path, cause, what = tree.name, reason, f"was {reason}"
        case _:
            return reason
    traceback = cause.traceback if isinstance(cause, Crashed) else ""
    raise TreeFailed(f"{tree.name!r} {what}", path=path, reason=reason, traceback=traceback)


runs: int = 0
"""How many trees this program has run with `run`; the command line looks at it."""


class _Signals:
    """SIGINT and SIGTERM while a tree runs: the first one stops it gracefully, the second one kills it."""

    def __init__(self) -> None:
        self.old: dict[int, Any] = {}
        self._first: int | None = None
        self._supervisor: SupervisorInterface | None = None
        self._alarm: tuple[int, int] | None = None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._alarm = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
            self._old_alarm = signal.set_wakeup_fd(self._alarm[1], warn_on_full_buffer=False)
            for number in (signal.SIGINT, signal.SIGTERM):
                if number == signal.SIGINT and signal.getsignal(number) is signal.SIG_IGN:
                    continue  # a shell's job in the background: Ctrl-C is not meant for it
                self.old[number] = signal.signal(number, self._on_signal)
            _handling.append(self)
        return self

    def __exit__(self, *error: object) -> None:
        if self._alarm is not None:
            self.let_go()
            _handling.remove(self)
            alarm, self._alarm = self._alarm, None
            os.close(alarm[0])
            os.close(alarm[1])

    def let_go(self) -> None:
        """Leave the signals to whom they were left before. Of the main thread, and of a forked child: it is no tree."""
        for number, handler in self.old.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._old_alarm)

    def wait(self, event: threading.Event) -> None:
        """Wait for `event`, which the tree's start or end sets, and for signals.

        A lock would not do: a signal that comes just before the thread goes to sleep on it is not handled.
        """
        supervisor = self._supervisor
        if self._alarm is None or supervisor is None:
            event.wait()
            return
        supervisor.ready.add_done_callback(self._ring)
        supervisor.exited.add_done_callback(self._ring)
        poll = select.poll()
        poll.register(self._alarm[0], select.POLLIN)
        while not event.is_set():
            poll.poll()
            with contextlib.suppress(BlockingIOError):
                os.read(self._alarm[0], 4096)

    def _ring(self, done: Future[Any]) -> None:
        alarm = self._alarm
        if alarm is not None:
            with contextlib.suppress(OSError):  # full, or closed this moment: nobody sleeps on it
                os.write(alarm[1], b"!")

    def guard(self, tree: SupervisorSpec) -> RunningTree | ExitReason:
        """Start the tree; a signal during the start stops it too, and that is the reason."""
        try:
            with added(tree) as (runtime, supervisor):
                self._supervisor = supervisor
                supervisor.begin(self.wait)
                return RunningTree(supervisor, runtime)
        except SuitkaiseError as error:
            if self._first is None or self._supervisor is None or isinstance(error, ChildStartFailed):
                raise
            return self._supervisor.exited.result().reason

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        supervisor = self._supervisor
        if supervisor is None:
            self._die(number)
        if self._first is None:
            self._first = number
            supervisor.tell(StopAll(Shutdown(f"signal {number} ({signal.Signals(number).name})")))
        else:
            supervisor.tell(KillAll(f"a second signal, {signal.Signals(number).name}"))
            with contextlib.suppress(Exception):
                supervisor.exited.result(5.0)
            self._die(number)

    def _die(self, number: int) -> NoReturn:
        raise SystemExit(128 + number)


_handling: list[_Signals] = []


def _handled() -> set[int]:
    return {number for signals in _handling for number in signals.old}


def _let_go() -> None:
    for signals in reversed(_handling):
        signals.let_go()


after_fork_in_child(_let_go, signals=_handled)
