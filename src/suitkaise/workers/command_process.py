"""A program as a child process in a session of its own, and its output, split into lines of text."""

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
from suitkaise.workers.command_start import start

__all__ = ["Lines", "Program"]

LONGEST = 16_384
"""Bytes of the longest line; a longer line is split."""


class Lines:
    r"""Splits one stream of output into lines. Bytes that are no UTF-8 are shown as `\xff`.

    >>> lines = Lines()
    >>> lines.feed(b"one\r\ntwo\nthr")
    ['one', 'two']
    >>> lines.feed(b"ee \xff\n"), lines.rest()
    (['three \\xff'], [])
    """

    def __init__(self, longest: int = LONGEST) -> None:
        self._longest = longest
        self._partial = bytearray()

    def feed(self, data: bytes) -> list[str]:
        """Add output; return the lines that are complete now."""
        self._partial += data
        *complete, partial = self._partial.split(b"\n")
        lines = [_text(piece) for line in complete for piece in self._pieces(line)]
        while len(partial) > self._longest:
            cut = self._cut(partial)
            lines.append(_text(partial[:cut]))
            partial = partial[cut:]
        self._partial = partial
        return lines

    def rest(self) -> list[str]:
        """Return the last line if it has no line end; the stream is over."""
        partial, self._partial = self._partial, bytearray()
        return [_text(partial)] if partial else []

    def _pieces(self, line: bytearray) -> list[bytearray]:
        pieces = []
        line = line.removesuffix(b"\r")
        while len(line) > self._longest:
            cut = self._cut(line)
            pieces.append(line[:cut])
            line = line[cut:]
        return [*pieces, line]

    def _cut(self, line: bytearray) -> int:
        """Return where to split a long line: between two characters."""
        for cut in range(self._longest, max(self._longest - 3, 1), -1):
            if line[cut] & 0xC0 != 0x80:
                return cut
        return self._longest


def _text(line: bytes | bytearray) -> str:
    return line.decode("utf-8", "backslashreplace")


_STEP = 1 << 12
"""Bytes of one read from a stream: requests are noticed between two reads. Further output stays in the pipe, and a full
pipe blocks its writer."""

_MOST_LEFT = 1 << 20
"""Bytes that are read at most after the program has ended: no pipe can hold more."""

_LONGEST_WAIT = 1e6
"""Seconds of the longest wait: `poll` counts milliseconds in 32 bits. The caller waits again."""


class Program:
    """Starts a program, and calls `on_line(stream, line)` with each line of its output.

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
        options: ProcessOptions | None = None,
    ) -> None:
        self._exits = _wake_at_exits()
        self._popen, outputs = start(argv, env, cwd, options or ProcessOptions())
        self.pid: int = self._popen.pid
        self._on_line = on_line
        self._streams: dict[int, tuple[str, Lines]] = {}
        for descriptor, name in outputs.items():
            os.set_blocking(descriptor, False)
            self._streams[descriptor] = name, Lines()

    @property
    def code(self) -> int | None:
        """None until `wait` has noticed the exit; then the exit code, or -n after the signal n."""
        return self._popen.returncode

    def wait(self, seconds: float | None, *others: int) -> None:
        """Wait until the program writes or ends, another descriptor is readable, or the time is over; or less."""
        poll = select.poll()
        for descriptor in (*self._streams, *others, self._exits):
            poll.register(descriptor, select.POLLIN)
        for descriptor, _ in poll.poll(None if seconds is None else min(max(0.0, seconds), _LONGEST_WAIT) * 1000):
            if descriptor in self._streams:
                self._read(descriptor)
            elif descriptor == self._exits:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._exits, _STEP)
                self._popen.poll()
                reap_adopted(self.pid)

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

    def clean_up(self) -> int:
        """Kill all remaining processes, read the rest of the output, and return the exit code."""
        if self.code is None:
            signal_groups([self.pid], signal.SIGKILL)
        code = self._popen.wait()
        kill_children()
        for descriptor in list(self._streams):
            for _ in range(_MOST_LEFT // _STEP):
                if descriptor not in self._streams or not self._read(descriptor):
                    break
        for name, lines in self._streams.values():  # another process holds the pipe open
            self._report(name, lines.rest())
        self._streams.clear()
        return code

    def _read(self, descriptor: int) -> bool:
        """Read and report some output; return False if there is none now."""
        name, lines = self._streams[descriptor]
        try:
            data = os.read(descriptor, _STEP)
        except BlockingIOError:
            return False
        except OSError:  # the terminal is closed: no process has it any more
            data = b""
        if not data:
            del self._streams[descriptor]
        self._report(name, lines.feed(data) if data else lines.rest())
        return bool(data)

    def _report(self, name: str, lines: list[str]) -> None:
        for line in lines:
            self._on_line(name, line)


def _wake_at_exits() -> int:
    """Return a descriptor that is readable when a child of this process has ended or was adopted as a zombie."""
    receiving, sending = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)  # Python does not notice a signal without a handler
    signal.set_wakeup_fd(sending, warn_on_full_buffer=False)
    return receiving
