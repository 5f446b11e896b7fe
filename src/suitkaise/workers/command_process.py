"""A program as a child process in a session of its own."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Callable, Mapping

from suitkaise.platform.processes import (
    children,
    descendants,
    in_other_sessions,
    kill_children,
    reap_adopted,
    signal_groups,
)
from suitkaise.workers.command_options import ProcessOptions
from suitkaise.workers.command_start import OpenFile, start
from suitkaise.workers.output import OutputPipes, OutputSink, Runs

__all__ = ["Program"]

_LONGEST_WAIT = 1e6
"""Seconds of the longest wait: `poll` counts milliseconds in 32 bits. The caller waits again."""


class Program:
    """Starts a program, and calls `on_line(stream, line)` with each line of its output, complete or not.

    `on_output` gets all output in larger pieces, for `sink`; while the sink is blocked, nothing more is read.
    `open_file` opens the files of its standard streams, as `os.open` does.

    For the main thread of a subreaper only: SIGCHLD wakes `wait`, which reaps the program, and the processes that the
    program has left behind.

    Raises:
        OSError: the program cannot be started, see `start`.
    """

    def __init__(
        self,
        argv: tuple[str, ...],
        env: Mapping[str, str],
        cwd: str | None,
        on_line: Callable[[str, str], None],
        on_output: Callable[[Runs], None] = lambda runs: None,
        sink: OutputSink | None = None,
        options: ProcessOptions | None = None,
        open_file: OpenFile = os.open,
    ) -> None:
        self._exits = _wake_at_exits()
        self._sink = sink
        self._output = OutputPipes(on_line, on_output)
        try:
            self._popen = start(argv, env, cwd, options or ProcessOptions(), self._output, open_file)
        except BaseException:
            self._output.close()
            raise
        self._output.close_writers()
        self.pid: int = self._popen.pid

    @property
    def code(self) -> int | None:
        """None until `wait` has noticed the exit; then the exit code, or -n after the signal n."""
        return self._popen.returncode

    def wait(self, seconds: float | None, *others: int) -> None:
        """Wait until the program writes or ends, another descriptor is readable, or the time is over; or less."""
        poll = select.poll()
        for descriptor in (*others, self._exits):
            poll.register(descriptor, select.POLLIN)
        output, sink = self._output, self._sink
        blocked = sink is not None and sink.blocked
        if sink is not None and blocked:
            poll.register(sink, select.POLLOUT | (select.POLLIN if sink.fileno() in others else 0))
        else:
            poll.register(output, select.POLLIN)
        waits = [_LONGEST_WAIT, *(one for one in (seconds, output.seconds_until_quiet) if one is not None)]
        for descriptor, _ in poll.poll(max(0.0, min(waits)) * 1000):
            if descriptor == output.fileno():
                output.read()
            elif descriptor == self._exits:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._exits, 4096)
                self._popen.poll()
                reap_adopted(self.pid)
        if sink is not None and blocked:
            sink.flush()
        output.show_partial_lines()

    def signal(self, *numbers: int) -> None:
        """Send signals to all processes of the program, unless it has ended."""
        if self.code is None:
            signal_groups(in_other_sessions(descendants()), *numbers)

    def stop(self, number: int, *, main_only: bool = False) -> None:
        """Send a signal to all processes of the program, suspended or not, and wait until none of them is left.

        With `main_only`, send it to the program's own process, and wait for the end of that process.
        """
        if not main_only:
            self.signal(number, signal.SIGCONT)
        elif self.code is None:
            with contextlib.suppress(PermissionError):  # it runs as another user
                os.kill(self.pid, number)
            self.signal(signal.SIGCONT)
        while self.code is None or (not main_only and any(in_other_sessions(children()))):
            self.wait(None)

    def left_behind(self) -> list[int]:
        """Return the processes of the program that are left when it has ended."""
        return sorted(in_other_sessions(descendants()))

    def clean_up(self) -> int:
        """Kill all remaining processes, read the rest of the output, and return the exit code."""
        if self.code is None:
            signal_groups([self.pid], signal.SIGKILL)
        code = self._popen.wait()
        kill_children()
        self._output.close()
        return code


def _wake_at_exits() -> int:
    """Return a descriptor that is readable when a child of this process has ended or was adopted as a zombie."""
    receiving, sending = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)  # Python does not notice a signal without a handler
    signal.set_wakeup_fd(sending, warn_on_full_buffer=False)
    return receiving
