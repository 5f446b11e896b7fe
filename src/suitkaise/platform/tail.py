r"""The last lines that a worker process printed or logged, kept where they survive its SIGKILL.

A small ring of bytes in a memory-mapped file. The worker writes it with plain stores, without a system call; the first
line makes the file. Any process of the user can read the file at any time.

Text of the standard streams begins with a mark, which tells the stream and the time: `\0o1732672800.250000\0`. It
stands before the first line of a write, and where another stream goes on in the middle of a line. Text with the mark
`RECORDED` reaches the program in another way, too: log records, and the output of a command.
"""

from __future__ import annotations

import io
import mmap
import os
import re
import sys
import time
from collections.abc import Callable
from typing import TypeAlias

from suitkaise.platform.locks import RLock

__all__ = ["LINES", "OF_COMMAND", "RECORDED", "Printed", "Tail", "TailReader", "last_lines"]

SIZE = 16 * 1024
_HEAD = 8
_ROOM = SIZE - _HEAD

LINES = 20
"""How many lines a crash report shows."""

PIECE = 2_048
"""Characters that are written at a time, at most."""

STREAMS = {"o": "stdout", "e": "stderr"}
"""The letters of the marks of standard streams."""

RECORDED = "r"
"""The letter of what reaches the program in another way, too."""

OF_COMMAND = "c"
"""The letter of a command's output, each line of which begins with the name of its stream: `stdout: `."""

_MARK = re.compile(r"\0([oecr])([0-9.]*)\0")


class Tail:
    """The writer of a tail. Lines of several threads may mix, as they do on a terminal.

    While the byte `listening` is set, each line of a standard stream is passed to `send`, too, with the position in the
    tail where the bytes begin.

    Args:
        path: the file; None: nothing is recorded until `begin`.
    """

    def __init__(self, path: str | None = None) -> None:
        self._path = path
        self._lock = RLock()  # a signal handler may print while its thread does
        self._detached = False
        self._memory: memoryview[int] | None = None
        self._position: memoryview[int]
        self._end = 0
        self._letter = RECORDED
        self._new_line = True
        self._sent: int | None = None
        self.listening: memoryview[int] | bytearray = bytearray(1)
        self.send: Callable[[int, bytes], None] = lambda position, data: None

    def write(self, text: str, letter: str = RECORDED) -> None:
        """Append text, overwriting the oldest."""
        if self._detached or self._path is None:
            return
        if len(text) <= PIECE:
            self._write(text, letter)
            return
        text = text if self.listening[0] else text[-_ROOM:]
        for start in range(0, len(text), PIECE):  # each with a mark: the first ones may be overwritten
            self._write(text[start : start + PIECE], letter, mark=True)

    def _write(self, text: str, letter: str, *, mark: bool = False) -> None:
        with self._lock:
            if "\0" in text:
                text = text.replace("\0", "\\0")
            marked = text
            if letter != self._letter or mark or (self._new_line and letter != RECORDED):
                self._letter = letter
                marked = f"\0{letter}{time.time():.6f}\0{text}"
            data = marked.encode("utf-8", "replace")
            size = len(data)
            memory = self._memory or self._open()
            start = self._end % _ROOM + _HEAD
            if start + size <= SIZE:
                memory[start : start + size] = data
            else:
                data = data[-_ROOM:]
                size = len(data)
                first = SIZE - start
                memory[start:SIZE] = data[:first]
                memory[_HEAD : _HEAD + size - first] = data[first:]
            self._end += size
            self._position[0] = self._end
            if text:
                self._new_line = text[-1] == "\n"
            if self.listening[0]:
                if self._sent is None:
                    self._sent = self._end - size
                if (self._new_line and letter != RECORDED) or self._end - self._sent > _ROOM // 2:
                    self._send_new()
            elif self._sent is not None:
                self._sent = None

    def _open(self) -> memoryview[int]:
        assert self._path is not None
        self._memory = memory = memoryview(_make(self._path))
        self._position = memory[:_HEAD].cast("Q")
        return memory

    def _send_new(self) -> None:
        assert self._memory is not None
        position = max(self._sent or 0, self._end - _ROOM)
        start, end = position % _ROOM + _HEAD, self._end % _ROOM + _HEAD
        memory = self._memory
        data = bytes(memory[start:end]) if start < end else bytes(memory[start:]) + bytes(memory[_HEAD:end])
        self._sent = self._end
        self.send(position, data)

    def begin(self, path: str) -> None:
        """Record to the file at `path` from now on."""
        self._path = path

    def detach(self) -> None:
        """Stop writing, in a forked child of the worker: the child's output does not belong to the worker."""
        self._detached = True

    def record_output(self) -> None:
        """Record the output of Python code from now on (not of C code that writes to the descriptors)."""
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            if isinstance(stream, io.TextIOWrapper):
                setattr(sys, name, _Tee(stream, self, name[3]))


class _Tee(io.TextIOWrapper):
    """A standard stream that also writes into the tail.

    Also without buffering (PYTHONUNBUFFERED, `-u`) a line is one write: Python would write each piece of a line by
    itself, and in an output that workers share the lines would mix.
    """

    def __init__(self, stream: io.TextIOWrapper, tail: Tail, letter: str) -> None:
        super().__init__(
            stream.buffer,
            stream.encoding,
            stream.errors,
            line_buffering=stream.line_buffering or stream.write_through,
        )
        self._tail = tail
        self._letter = letter
        self._stream = stream  # keeps it alive: its end would close the buffer

    def write(self, text: str) -> int:
        written = super().write(text)
        self._tail.write(text, self._letter)
        return written


def _make(path: str) -> mmap.mmap:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError:  # the program and its directory are gone: no process will read the tail
        return mmap.mmap(-1, SIZE)
    try:
        os.posix_fallocate(descriptor, 0, SIZE)
        return mmap.mmap(descriptor, SIZE)
    except OSError:  # no room is left: a store into the mapped file would raise SIGBUS
        return mmap.mmap(-1, SIZE)
    finally:
        os.close(descriptor)


Printed: TypeAlias = tuple[str, float, str]
"""A line of a standard stream: the stream, the Unix time (0.0: unknown), the text."""


class TailReader:
    """Reads the tail of one incarnation from where it has stopped, and splits it into lines of each stream."""

    def __init__(self, path: str) -> None:
        self.path: str = path
        self._position = 0
        self._letter = RECORDED
        self._time = 0.0
        self._partial: dict[str, tuple[float, str]] = {}

    def read(self, *, all: bool = False) -> list[Printed]:
        """Return the lines that are new in the file; with `all` those that are not complete, too."""
        text, end = _bytes_after(self.path, self._position)
        lines = self._feed(text, end - len(text))
        if all:
            for letter in self._partial:
                self._letter = letter
                self._split("\n" if self._partial[letter][1] else "", lines)
        return lines

    def take(self, position: int, data: bytes) -> list[Printed]:
        """Return the lines in data that the worker has sent; what is missing before it is read from the file."""
        lines: list[Printed] = []
        if position > self._position:
            text, end = _bytes_after(self.path, self._position)
            start = end - len(text)
            lines = self._feed(text[: max(0, position - start)], min(start, position))
        if position < self._position:
            data = data[self._position - position :]
        if data:
            lines += self._feed(data, max(position, self._position))
        return lines

    def _feed(self, data: bytes, position: int) -> list[Printed]:
        if position > self._position:
            self._partial.clear()
        self._position = position + len(data)
        found: list[Printed] = []
        first, *marked = _MARK.split(data.decode("utf-8", "replace"))
        self._split(first, found)
        for letter, time_text, text in zip(marked[::3], marked[1::3], marked[2::3], strict=True):
            self._letter = letter
            self._time = float(time_text or 0)
            self._split(text, found)
        return found

    def _split(self, text: str, found: list[Printed]) -> None:
        began, partial = self._partial.get(self._letter, (0.0, ""))
        began = began if partial else self._time
        *lines, rest = (partial + text).split("\n")
        for line in lines:
            if self._letter == OF_COMMAND:
                stream, _, text = line.partition(": ")
                found.append((stream, began, text))
            elif self._letter != RECORDED:
                found.append((STREAMS[self._letter], began, line))
            began = self._time
        if len(rest) > _ROOM:  # a progress bar that never ends its line
            if self._letter in STREAMS:
                found.append((STREAMS[self._letter], began, rest))
            rest = ""
        self._partial[self._letter] = began, rest


def last_lines(path: str, most: int = LINES) -> tuple[str, ...]:
    """Return the last lines in the tail at `path`, at most `most`; none if there is no such file."""
    text, _ = _bytes_after(path, 0)
    return tuple(_plain(text).splitlines()[-most:])


def _plain(data: bytes) -> str:
    return _MARK.sub("", data.decode("utf-8", "replace"))


def _bytes_after(path: str, position: int) -> tuple[bytes, int]:
    """Return what is kept of the output behind `position`, and the position of its end.

    Of a line whose beginning was overwritten the rest is left out, unless it is all that there is.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(SIZE)
    except OSError:
        return b"", position
    end = int.from_bytes(data[:_HEAD], sys.byteorder)
    ring = data[_HEAD:]
    kept = ring[:end] if end <= _ROOM else ring[end % _ROOM :] + ring[: end % _ROOM]
    new = max(0, end - position)
    if new > len(kept):
        return kept.partition(b"\n")[2] or kept, end
    return kept[len(kept) - new :], end
