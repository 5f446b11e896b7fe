"""The output of a command: read in the order in which it was written, split into lines, and passed on in batches.

The order. A reader of two pipes sees how much each of them holds, and not what was written first. So a pipe here holds
one write: it has one page, and is in packet mode (`O_DIRECT`), where each write takes a page of its own (`pipe(7)`). A
program that writes to stdout, then to stderr, and to stdout again waits in the third write until the first is read.
Then at most one write is in each pipe, and `epoll`, edge-triggered, lists the pipes in the order in which they have
become readable. A write of more than a page is several, which no other write of the same thread comes between.

A program that writes line by line would often wait for such a pipe. So the pipe of a stream that has been the only one
for a while is widened to many writes, until the other stream is written to: the place of that first write among the
lines of the wide pipe is not exact.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import time
from collections.abc import Callable
from typing import Protocol, TypeAlias

__all__ = ["Lines", "OutputPipes", "OutputSink", "Runs"]

Runs: TypeAlias = list[tuple[str, float, list[str], bool]]
"""Runs of lines, in order: the stream, the Unix time, the lines, and whether the (one) line is not complete yet."""

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

    @property
    def partial(self) -> str:
        """The beginning of a line that is not complete yet, without a character that is not complete yet."""
        data = self._partial
        for back in range(1, min(4, len(data)) + 1):  # the first byte of the last character
            if data[-back] & 0xC0 == 0xC0:
                incomplete = back < (2 if data[-back] < 0xE0 else 3 if data[-back] < 0xF0 else 4)
                return _text(data[:-back] if incomplete else data)
            if data[-back] & 0xC0 != 0x80:
                break
        return _text(data)

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


_PAGE = os.sysconf("SC_PAGE_SIZE")

_WIDE = 64
"""How many writes a wide pipe holds."""

_ALONE = 256
"""The number of writes after which the pipe of a stream is widened, if the other stream was not written to."""

_LINGER = 0.001
"""Seconds: a batch is complete when the program has written nothing for so long."""

_LONGEST_BATCH = 0.005
"""Seconds for which output is read before requests are looked at, and the batch is passed on."""

_BATCH = 1 << 16
"""Bytes of a batch."""

_QUIET = 0.2
"""Seconds after which a line that is not complete is passed on if the stream is quiet (a prompt)."""

_LONGEST_HIDDEN = 1.0
"""Seconds after which it is passed on although more is written (a progress bar)."""


class OutputSink(Protocol):
    """Where the output of a command goes, without waiting."""

    @property
    def wanted(self) -> bool:
        """Whether the program wants the output, also if it does not log it."""

    @property
    def blocked(self) -> bool:
        """Whether something waits to be sent: no further output should be read until `fileno()` is writable."""

    def fileno(self) -> int:
        """Return the descriptor over which the output is sent."""
        ...

    def send(self, pid: int, program: str, runs: Runs) -> None:
        """Send output, or as much as is possible without waiting."""

    def flush(self) -> None:
        """Send more of what waits, as much as is possible without waiting."""


class OutputPipes:
    """The pipes of a command's output.

    Calls `on_line(stream, line)` with each line, and with the beginning of a line that is not complete when its stream
    is quiet; the whole line follows later. Calls `on_output` with batches, in which the rest of that line follows.
    """

    def __init__(self, on_line: Callable[[str, str], None], on_output: Callable[[Runs], None]) -> None:
        self._on_line = on_line
        self._on_output = on_output
        self._epoll = select.epoll()
        self._streams: dict[int, _Stream] = {}
        self._writers: list[int] = []
        self._runs: Runs = []
        self._size = 0
        self._alone = -1  # the pipe that was read last
        self._reads = 0  # how many writes were read from that pipe since another one was read
        self._wide: int | None = None
        self._terminal: int | None = None

    def open(self, name: str) -> int:
        """Make the pipe of a stream; return the end that the program writes to."""
        try:
            reader, writer = os.pipe2(os.O_CLOEXEC | os.O_DIRECT)
        except OSError:  # no packet mode: several short writes may be read at once, and the order is less exact
            reader, writer = os.pipe2(os.O_CLOEXEC)
        with contextlib.suppress(OSError):
            fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, _PAGE)
        os.set_blocking(reader, False)
        self._streams[reader] = _Stream(name)
        self._epoll.register(reader, select.EPOLLIN | select.EPOLLET)
        self._writers.append(writer)
        return writer

    def add_terminal(self, name: str, controller: int) -> None:
        """Read a stream from a terminal instead.

        Its descriptor is open until `close`, also when no process has the terminal open: a process may open it again,
        and the end of a terminal is a SIGHUP for the program.
        """
        os.set_blocking(controller, False)
        self._terminal = controller
        self._streams[controller] = _Stream(name)
        self._epoll.register(controller, select.EPOLLIN | select.EPOLLET)

    def close_writers(self) -> None:
        """Close the ends that the program has now."""
        while self._writers:
            os.close(self._writers.pop())

    def fileno(self) -> int:
        """Return a descriptor that is readable when there is output."""
        return self._epoll.fileno()

    @property
    def seconds_until_quiet(self) -> float | None:
        """Seconds until a line that is not complete should be passed on; None if there is none."""
        due = [stream.due for stream in self._streams.values() if stream.due is not None]
        return max(0.0, min(due) - time.monotonic()) if due else None

    def read(self) -> None:
        """Read what the program writes, for a moment, and pass it on."""
        end = time.monotonic() + _LONGEST_BATCH
        while events := self._epoll.poll(_LINGER):
            for descriptor, flags in events:
                self._read(descriptor, ended=bool(flags & select.EPOLLHUP))
            if self._size >= _BATCH or time.monotonic() >= end:
                break
        self._pass_on()

    def _read(self, descriptor: int, *, ended: bool) -> None:
        """Read one write, or several from a wide pipe or a terminal; all if the stream has ended."""
        if descriptor != self._alone:
            self._alone, self._reads = descriptor, 0
        if self._wide is not None and descriptor != self._wide:
            with contextlib.suppress(OSError):  # the pipe is not empty: try again at the next read
                fcntl.fcntl(self._wide, fcntl.F_SETPIPE_SZ, _PAGE)
                self._wide = None
        most = _WIDE if descriptor in (self._wide, self._terminal) else 1
        writes: list[bytes] = []
        with contextlib.suppress(OSError):  # there is no more now; or no process has the terminal open
            while ended or len(writes) < most:
                writes.append(os.read(descriptor, _PAGE))
                if not writes[-1]:
                    break
        self._reads += len(writes)
        data = b"".join(writes)
        stream = self._streams[descriptor]
        if data:
            self._add(stream, stream.feed(data))
            self._size += len(data)
        if writes and not writes[-1]:
            self._end(descriptor)
        elif len(writes) == most > 1:
            self._epoll.modify(descriptor, select.EPOLLIN | select.EPOLLET)  # an event if there is more
        elif self._reads >= _ALONE and self._wide is None:
            with contextlib.suppress(OSError):  # the user's limit for pipes is reached
                fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, _WIDE * _PAGE)
                self._wide = descriptor

    def _end(self, descriptor: int) -> None:
        stream = self._streams.pop(descriptor)
        if descriptor == self._wide:
            self._wide = None
        self._epoll.unregister(descriptor)
        os.close(descriptor)
        self._add(stream, stream.rest())

    def _add(self, stream: _Stream, lines: list[str]) -> None:
        if not lines:
            return
        for line in lines:
            self._on_line(stream.name, line)
        if stream.shown:
            shown, stream.shown = stream.shown.rstrip("\r"), ""  # of the line itself, the last one belongs to its end
            rest = lines[0].removeprefix(shown).lstrip("\r")
            lines = [rest, *lines[1:]] if rest else lines[1:]
        last = self._runs[-1] if self._runs else None
        if last is not None and last[0] == stream.name and not last[3]:
            last[2].extend(lines)
        elif lines:
            self._runs.append((stream.name, time.time(), lines, False))

    def _pass_on(self) -> None:
        runs, self._runs, self._size = self._runs, [], 0
        if runs:
            self._on_output(runs)

    def show_partial_lines(self) -> None:
        """Pass on lines that are not complete, and whose time has come."""
        now = time.monotonic()
        for stream in self._streams.values():
            if stream.due is not None and stream.due <= now:
                partial = stream.show()
                self._on_line(stream.name, partial)
                visible = partial.removeprefix(stream.shown).rstrip("\r").rpartition("\r")[2]
                stream.shown = partial
                if visible:
                    self._runs.append((stream.name, time.time(), [visible], True))
        self._pass_on()

    def close(self) -> None:
        """Read the rest, at most what the pipes hold, and close them."""
        self.close_writers()
        for descriptor, _ in self._epoll.poll(0):  # in order
            self._read(descriptor, ended=True)
        for descriptor in list(self._streams):
            self._read(descriptor, ended=True)
        for descriptor in list(self._streams):  # another process holds the pipe open
            self._end(descriptor)
        self._epoll.close()
        self._pass_on()


class _Stream:
    """One stream, its last line, and how much of that is shown."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.shown = ""
        self.due: float | None = None
        self._since = 0.0
        self._lines = Lines()

    def feed(self, data: bytes) -> list[str]:
        lines = self._lines.feed(data)
        if data.endswith(b"\n"):
            self.due = None
            return lines
        now = time.monotonic()
        if lines or self.due is None:
            self._since = now
        self.due = min(now + _QUIET, self._since + _LONGEST_HIDDEN)
        return lines

    def show(self) -> str:
        self.due = None
        return self._lines.partial

    def rest(self) -> list[str]:
        return self._lines.rest()
