"""The last lines that a worker process printed or logged, kept where they survive its SIGKILL.

A small ring of bytes in a memory-mapped file. The worker writes it with plain stores, without a system call; the first
line makes the file. Any process of the user can read the file at any time.
"""

from __future__ import annotations

import io
import mmap
import os
import sys
import threading

__all__ = ["LINES", "Tail", "last_lines", "lines_after"]

SIZE = 16 * 1024
_HEAD = 8
_ROOM = SIZE - _HEAD

LINES = 20
"""How many lines a crash report shows."""


class Tail:
    """The writer of a tail. Lines of several threads may mix, as they do on a terminal."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._lock = threading.RLock()  # a signal handler may print while its thread does
        self._detached = False
        self._map: mmap.mmap | None = None
        self._end = 0

    def write(self, text: str) -> None:
        """Append text, overwriting the oldest."""
        if self._detached:
            return
        data = text.encode("utf-8", "replace")[-_ROOM:]
        with self._lock:
            if self._map is None:
                self._map = _make(self._path)
            start = self._end % _ROOM
            first = data[: _ROOM - start]
            self._map[_HEAD + start : _HEAD + start + len(first)] = first
            self._map[_HEAD : _HEAD + len(data) - len(first)] = data[len(first) :]
            self._end += len(data)
            self._map[:_HEAD] = self._end.to_bytes(_HEAD, "little")

    def detach(self) -> None:
        """Stop writing, in a forked child of the worker: the child's output does not belong to the worker."""
        self._detached = True

    def record_output(self) -> None:
        """Record the output of Python code from now on (not of C code that writes to the descriptors)."""
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            if isinstance(stream, io.TextIOWrapper):
                setattr(sys, name, _Tee(stream, self))


class _Tee(io.TextIOWrapper):
    """A standard stream that also writes into the tail.

    Also without buffering (PYTHONUNBUFFERED, `-u`) a line is one write: Python would write each piece of a line by
    itself, and in an output that workers share the lines would mix.
    """

    def __init__(self, stream: io.TextIOWrapper, tail: Tail) -> None:
        super().__init__(
            stream.buffer,
            stream.encoding,
            stream.errors,
            line_buffering=stream.line_buffering or stream.write_through,
        )
        self._tail = tail
        self._stream = stream  # keeps it alive: its end would close the buffer

    def write(self, text: str) -> int:
        written = super().write(text)
        self._tail.write(text)
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


def last_lines(path: str, most: int = LINES) -> tuple[str, ...]:
    """Return the last lines in the tail at `path`, at most `most`; none if there is no such file."""
    text, _ = _bytes_after(path, 0)
    return tuple(text.decode("utf-8", "replace").splitlines()[-most:])


def lines_after(path: str, position: int) -> tuple[list[str], int]:
    """Return the whole lines that were written behind `position`, as far as they are kept, and the next position."""
    text, end = _bytes_after(path, position)
    whole, newline, rest = text.rpartition(b"\n")
    return (whole.decode("utf-8", "replace").split("\n") if newline else []), end - len(rest)


def _bytes_after(path: str, position: int) -> tuple[bytes, int]:
    """Return what is kept of the output behind `position`, and the position of its end.

    Of a line whose beginning was overwritten the rest is left out, unless it is all that there is.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(SIZE)
    except OSError:
        return b"", position
    end = int.from_bytes(data[:_HEAD], "little")
    ring = data[_HEAD:]
    kept = ring[:end] if end <= _ROOM else ring[end % _ROOM :] + ring[: end % _ROOM]
    new = max(0, end - position)
    if new > len(kept):
        return kept.partition(b"\n")[2] or kept, end
    return kept[len(kept) - new :], end
