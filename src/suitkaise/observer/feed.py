"""The feed: looks at the program while pages are open, and passes what has changed to each of them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import msgspec

from suitkaise.errors import AskTimeout, RuntimeGone
from suitkaise.observer.log_feed import LINES, LogFeed
from suitkaise.observer.observation import SECONDS, TICK, Observation
from suitkaise.observer.program import ObservedProgram

__all__ = ["MOST_PAGES", "Feed", "Page"]

logger: logging.Logger = logging.getLogger("suitkaise.observer")

MOST_PAGES = 1_000
"""How many pages may be open."""

BACKLOG = 32
"""How many messages may wait for a page; one that reads more slowly is dropped, and connects anew."""


class Page:
    """An open page: the messages that wait for it. `name`: the page has chosen it, for its requests."""

    def __init__(self, name: str = "") -> None:
        self.name: str = name
        self._messages: asyncio.Queue[bytes | None] = asyncio.Queue(BACKLOG + 1)
        self.dropped: bool = False

    def put(self, message: bytes) -> None:
        """Add a message; drop the page if too many wait."""
        if self._messages.qsize() >= BACKLOG:
            self.dropped = True
            self.close()
        elif not self.dropped:
            self._messages.put_nowait(message)

    def put_message(self, message: dict[str, Any]) -> None:
        """Add a message for this page alone, or for a few."""
        self.put(_encode(message))

    def close(self) -> None:
        """End the page's stream; a dropped page gets no further message."""
        while self.dropped and not self._messages.empty():
            self._messages.get_nowait()
        with contextlib.suppress(asyncio.QueueFull):
            self._messages.put_nowait(None)

    async def messages(self) -> AsyncIterator[bytes]:
        """Yield the messages until the page is closed."""
        while (message := await self._messages.get()) is not None:
            yield message


class Feed:
    """Looks at one program for all pages.

    Args:
        program: the program.
        greeting: what each page gets with its first message.
    """

    def __init__(self, program: ObservedProgram, greeting: dict[str, Any]) -> None:
        self._observation = Observation(program)
        self._logs = LogFeed(lambda path: program.log(path, last=self._observation.last_lines_of(path, LINES)))
        self._greeting = greeting
        self._pages: dict[Page, None] = {}  # in the order in which they were opened
        self._whole: bytes | None = None
        self._silent = False
        self.ended: bool = False
        self._busy = asyncio.Lock()
        self._opened = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()
        self._thread = ThreadPoolExecutor(1, "suitkaise-observer")

    # ------------------------------------------------------------ pages
    async def open(self, name: str = "") -> Page | None:
        """Open a page, which gets the whole state first; None if too many are open."""
        if len(self._pages) >= MOST_PAGES:
            return None
        page = Page(name)
        async with self._busy:
            if not self.ended and time.monotonic() - self._observation.looked > 2 * SECONDS:
                await self._look(everything=True)
            if self._whole is None:
                self._whole = _encode(self._state())
            page.put(self._whole)
            if self.ended:
                page.close()
                return page
            self._pages[page] = None
            self._empty.clear()
            self._opened.set()
        return page

    def forget(self, page: Page) -> None:
        """Forget a page that was closed."""
        self._logs.forget(page)
        self._pages.pop(page, None)
        if not self._pages:
            self._opened.clear()
            self._empty.set()

    async def all_closed(self) -> None:
        """Wait until no page is open."""
        await self._empty.wait()

    # ------------------------------------------------------------ the log of a worker
    def follow(self, name: str, path: str) -> bool:
        """Put the log of a worker, or of all workers below a supervisor, into a page, in place of the former one.

        Returns:
            Whether there is such a page. An empty path is for no log.
        """
        # The last one: a page that has connected anew has a former stream, which may not be known to be closed yet.
        page = next((page for page in reversed(self._pages) if page.name == name), None)
        if page is not None:
            self._logs.follow(page, path)
        return page is not None

    # ------------------------------------------------------------ questions of pages
    def report(self, id: str) -> dict[str, Any] | None:
        """Return the crash report of that id, if an event has named it."""
        return self._observation.reports.get(id)

    def history(self, path: str) -> list[list[Any]]:
        """Return the figures of a worker so far: time, CPU, memory, loops per second, waiting messages."""
        return list(self._observation.history.get(path, ()))

    @property
    def storage(self) -> str | None:
        """The directory of the program's storage; None while it uses none, or has ended."""
        return None if self.ended else self._observation.program.get("storage")

    # ------------------------------------------------------------ looks
    async def run(self) -> None:
        """Look at the program, while pages are open, until it ends."""
        while not self.ended:
            await self._opened.wait()
            async with self._busy:
                if not self.ended:
                    await self._look()
            await asyncio.sleep(TICK)

    async def end(self) -> None:
        """Tell all pages that the program has ended, after its last events."""
        async with self._busy:
            if self.ended:
                return
            if self._pages:
                await self._look(last=True)
            self.ended = True
            self._whole = None
            self._send({"type": "ended", "time": time.time()})
            for page in self._pages:
                page.close()
            self._opened.set()

    def close(self) -> None:
        """End the thread that asks the program, and follow no log."""
        self._logs.close()
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _look(self, *, everything: bool = False, last: bool = False) -> None:
        loop = asyncio.get_running_loop()
        try:
            look = partial(self._observation.look, everything=everything, last=last)
            message = await loop.run_in_executor(self._thread, look)
        except AskTimeout:
            if not self._silent:
                self._silent = True
                self._whole = None
                self._send({"type": "silent", "silent": True})
            return
        except RuntimeGone:  # `watch` tells the end
            return
        except Exception as error:  # it is about to end, or a tree changed while it was read: the next look may do
            logger.info("the program could not be looked at: %s", error)
            return
        if self._silent:
            self._silent = False
            self._send({"type": "silent", "silent": False})
        if message is not None:
            self._whole = None
            self._send(message)

    # ------------------------------------------------------------ messages
    def _state(self) -> dict[str, Any]:
        return {
            "type": "state", "time": time.time(), "ended": self.ended, "silent": self._silent, **self._greeting,
            **self._observation.whole(),
        }  # fmt: skip

    def _send(self, message: dict[str, Any]) -> None:
        data = _encode(message)
        for page in list(self._pages):
            page.put(data)


def _encode(message: dict[str, Any]) -> bytes:
    return b"data: " + msgspec.json.encode(message) + b"\n\n"
