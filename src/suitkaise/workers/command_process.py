"""A program as a child process in a session of its own."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
from collections.abc import Callable, Mapping

from suitkaise.platform.processes import children, die_with_parent, kill_children
from suitkaise.workers.output import OutputPipes, OutputSink, Runs

__all__ = ["Program"]

_LONGEST_WAIT = 1e6
"""Seconds of the longest wait: `poll` counts milliseconds in 32 bits. The caller waits again."""


class Program:
    """Starts a program, and calls `on_line(stream, line)` with each line of its output, complete or not.

    `on_output` gets all output in larger pieces, for `sink`; while the sink is blocked, nothing more is read.

    Raises:
        OSError: the program cannot be started: no such program, no such folder, not executable.
    """

    def __init__(
        self,
        argv: tuple[str, ...],
        env: Mapping[str, str],
        cwd: str | None,
        on_line: Callable[[str, str], None],
        on_output: Callable[[Runs], None] = lambda runs: None,
        sink: OutputSink | None = None,
    ) -> None:
        self._sink = sink
        self._output = OutputPipes(on_line, on_output)
        try:
            self._popen = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=self._output.open("stdout"), stderr=self._output.open("stderr"),
                env=env, cwd=cwd, start_new_session=True,
                preexec_fn=die_with_parent,  # noqa: PLW1509  (the guard's other thread only waits for the hub's end)
            )  # fmt: skip
        except OSError as error:
            self._output.close()
            raise _explained(error, argv, env, cwd) from None
        self._output.close_writers()
        self.pid: int = self._popen.pid
        self._pidfd = os.pidfd_open(self.pid)

    @property
    def code(self) -> int | None:
        """None until `wait` has noticed the exit; then the exit code, or -n after the signal n."""
        return self._popen.returncode

    def wait(self, seconds: float | None, *others: int) -> None:
        """Wait until the program writes or ends, another descriptor is readable, or the time is over; or less."""
        poll = select.poll()
        for descriptor in (*others, *([] if self.code is not None else [self._pidfd])):
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
            elif descriptor == self._pidfd:
                self._popen.poll()
        if sink is not None and blocked:
            sink.flush()
        output.show_partial_lines()

    def signal(self, number: int) -> None:
        """Send a signal to the process group, unless the program has ended."""
        if self.code is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)

    def stop(self, number: int) -> None:
        """Send a signal to the process group, suspended or not, and wait until no process of the group is left."""
        self.signal(number)
        self.signal(signal.SIGCONT)
        while self.code is None:
            self.wait(None)
        while members := self._members():
            self.wait(None, *members)
            for pidfd in members:
                os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)
                os.close(pidfd)

    def _members(self) -> list[int]:
        """Return pidfds of the remaining processes of the group, which are children of this process now."""
        return [os.pidfd_open(pid) for pid in children() if os.getpgid(pid) == self.pid]

    def clean_up(self) -> int:
        """Kill all remaining processes, read the rest of the output, and return the exit code."""
        self.signal(signal.SIGKILL)
        code = self._popen.wait()
        kill_children()
        self._output.close()
        return code


def _explained(error: OSError, argv: tuple[str, ...], env: Mapping[str, str], cwd: str | None) -> OSError:
    """Return the error with a text that names the program or the folder, and the path that was searched."""
    if cwd is not None and error.filename == cwd:
        return type(error)(error.errno, f"cwd: {error.strerror}", cwd)
    text = error.strerror or "it cannot be started"
    if isinstance(error, FileNotFoundError) and "/" not in argv[0]:
        text = f"no such program in PATH ({env.get('PATH', os.defpath)})"
        if len(argv) == 1 and " " in argv[0]:
            text += "; a command's arguments are given one by one: Command('sleep', '5')"
    return type(error)(error.errno, text, argv[0])
