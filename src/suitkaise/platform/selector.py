"""Waits until sources have input: epoll, with a callback for each source.

The `selectors` of the standard library are not made for signal handlers: one that comes while a source is registered,
and registers it too, gets an error, and one that raises can leave the source with the kernel alone, which then wakes
the thread that waits again and again. Here each step can be made twice, and what is known of a source is there before
the kernel can tell of it.
"""

from __future__ import annotations

import math
import select
from collections.abc import Callable
from typing import Protocol, TypeAlias

__all__ = ["Callback", "HasFileno", "Selector", "Source"]

Callback: TypeAlias = Callable[..., None]


class HasFileno(Protocol):
    """Anything with a file descriptor."""

    def fileno(self) -> int:
        """Return the descriptor."""
        ...


Source: TypeAlias = HasFileno | int


class Selector:
    """The sources that one thread waits for. Any thread may add one; that thread alone does all else.

    >>> import os
    >>> reader, writer = os.pipe()
    >>> selector = Selector()
    >>> selector.add(reader, print)
    >>> selector.select(0.0)
    []
    >>> os.write(writer, b"input")
    5
    >>> selector.select(None) == [(reader, print)]
    True
    >>> selector.close()
    >>> os.close(reader)
    >>> os.close(writer)
    """

    def __init__(self) -> None:
        self._poll = select.epoll()
        self._watched: dict[int, tuple[Source, Callback]] = {}
        self._numbers: dict[Source, int] = {}

    def add(self, source: Source, callback: Callback, *, writes: bool = False) -> None:
        """Have `select` return `source` when it can be read; if it `writes`, also when it can be written to.

        A source that is watched already has this callback, and these events, from now on.

        Raises:
            ValueError: it is closed.
            OSError: the kernel does not take it; it is not watched. (ValueError, if this selector is closed.)
        """
        number = source if isinstance(source, int) else source.fileno()
        if number < 0:
            raise ValueError(f"a source is closed: {source!r}")
        events = select.EPOLLIN | select.EPOLLOUT if writes else select.EPOLLIN
        self._numbers[source] = number
        self._watched[number] = source, callback
        try:
            self._poll.register(number, events)
        except FileExistsError:
            self._poll.modify(number, events)
        except (OSError, ValueError):
            self.remove(source)
            raise

    def __contains__(self, source: object) -> bool:
        return source in self._numbers

    def remove(self, source: Source) -> None:
        """Watch `source` no longer, whether or not it is closed; do nothing if it is not watched."""
        number = self._numbers.pop(source, None)
        if number is None or self._watched.get(number, (None,))[0] != source:  # the number is another source's now
            return
        del self._watched[number]
        try:
            self._poll.unregister(number)
        except (OSError, ValueError):  # it was closed, or never got so far
            return

    def watches(self, source: Source, callback: Callback) -> bool:
        """Return whether `source` is watched with that callback."""
        number = self._numbers.get(source)
        return number is not None and self._watched.get(number) == (source, callback)

    def select(self, seconds: float | None) -> list[tuple[Source, Callback]]:
        """Wait at most `seconds` (None: for ever); return the sources that are ready, with their callbacks."""
        milliseconds = -1.0 if seconds is None else math.ceil(max(0.0, seconds) * 1000) / 1000
        ready = self._poll.poll(milliseconds, max(1, len(self._watched)))
        return [watched for number, _ in ready if (watched := self._watched.get(number)) is not None]

    def close(self) -> None:
        """Close the epoll descriptor; do nothing if it is closed."""
        self._poll.close()
