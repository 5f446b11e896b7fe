"""The logs that pages follow: each is read once, however many pages follow it, and only while one does."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from suitkaise.errors import RuntimeGone
from suitkaise.messaging.log_reader import LogReader
from suitkaise.messaging.log_rings import Line

__all__ = ["LINES", "LogFeed"]

logger: logging.Logger = logging.getLogger("suitkaise.observer")

LINES = 400
"""How many lines of a log a page shows, at most."""

BETWEEN = 0.5
"""Seconds between two messages with lines of one log, at least."""


class LogPage(Protocol):
    """A page, which gets messages."""

    def put_message(self, message: dict[str, Any]) -> None:
        """Add a message."""


class LogFeed:
    """Reads the logs that pages follow. All methods are called in the event loop.

    Args:
        read: returns a reader of a worker's log, or of all workers below a supervisor.
    """

    def __init__(self, read: Callable[[str], LogReader]) -> None:
        self._read = read
        self._logs: dict[str, _Log] = {}

    def follow(self, page: LogPage, path: str) -> None:
        """Put the log of `path` into a page from now on, in place of the former one; an empty path is for none."""
        self.forget(page)
        if not path:
            return
        log = self._logs.get(path)
        if log is None:
            log = self._logs[path] = _Log(path)
            log.task = asyncio.ensure_future(self._run(log))
        elif log.has_begun:
            page.put_message(log.message(list(log.lines), first=True))
        log.pages.append(page)

    def forget(self, page: LogPage) -> None:
        """Put no log into a page any more."""
        for log in list(self._logs.values()):
            if page in log.pages:
                log.pages.remove(page)
                if not log.pages:
                    del self._logs[log.path]
                    log.end()

    def close(self) -> None:
        """Follow nothing any more."""
        for log in self._logs.values():
            log.end()
        self._logs.clear()

    async def _run(self, log: _Log) -> None:
        reader = self._read(log.path)
        while True:
            try:
                news = reader.take(await reader.request())
            except Exception as error:  # the next read may do
                if not isinstance(error, RuntimeGone):  # the feed tells pages when the program has ended
                    logger.warning("the log of %r cannot be read: %s", log.path, error)
                await asyncio.sleep(2 * BETWEEN)
                continue
            if news.lines or news.skipped or not log.has_begun:
                log.tell(news.lines, sum(news.skipped.values()), first=not log.has_begun)
            await asyncio.sleep(2 * BETWEEN if news.ended else BETWEEN)  # a tree of that name may begin again


class _Log:
    """A log that is read for pages."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.pages: list[LogPage] = []
        self.lines: deque[Line] = deque(maxlen=LINES)
        self.has_begun = False
        self.task: asyncio.Task[None] | None = None

    def tell(self, lines: list[Line], skipped: int, *, first: bool) -> None:
        self.has_begun = True
        self.lines += lines
        if not first:
            skipped += max(0, len(lines) - LINES)
        message = self.message(lines[-LINES:], skipped, first=first)
        for page in list(self.pages):
            page.put_message(message)

    def message(self, lines: list[Line], skipped: int = 0, *, first: bool) -> dict[str, Any]:
        return {"type": "log", "path": self.path, "first": first, "skipped": skipped, "lines": lines}

    def end(self) -> None:
        if self.task is not None:
            self.task.cancel()
