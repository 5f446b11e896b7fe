"""The feed: looks at the program while pages are open, and passes what has changed to each of them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec

from suitkaise.errors import AskTimeout, RuntimeGone
from suitkaise.observer.incidents import Incidents
from suitkaise.observer.model import Model
from suitkaise.observer.program import ObservedProgram
from suitkaise.observer.resources import Resources

__all__ = ["MOST_PAGES", "Feed", "Page"]

logger: logging.Logger = logging.getLogger("suitkaise.observer")

MOST_PAGES = 1_000
"""How many pages may be open."""

BACKLOG = 32
"""How many messages may wait for a page; one that reads more slowly is dropped, and connects anew."""

TICK = 0.4
"""Seconds between two looks at the events."""

SECONDS = 1.0
"""Seconds between two looks at the state and the figures, at least."""

SHARE = 0.05
"""The part of its time that the observer looks at the program, at most: a large tree is looked at less often."""

EVENTS = 300
"""How many events a page gets when it is opened."""

HISTORY = 300
"""How many figures of each worker are kept for charts."""


class Page:
    """An open page: the messages that wait for it."""

    def __init__(self) -> None:
        self._messages: asyncio.Queue[bytes | None] = asyncio.Queue(BACKLOG + 1)
        self.dropped: bool = False

    def put(self, message: bytes) -> None:
        """Add a message; drop the page if too many wait."""
        if self._messages.qsize() >= BACKLOG:
            self.dropped = True
            self.close()
        elif not self.dropped:
            self._messages.put_nowait(message)

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
        self._program = program
        self._greeting = greeting
        self._pages: set[Page] = set()
        self._model = Model()
        self._incidents = Incidents()
        self._resources = Resources()
        self._events: deque[dict[str, Any]] = deque(maxlen=EVENTS)
        self._reports: dict[str, dict[str, Any]] = {}
        self._history: dict[str, deque[list[Any]]] = {}
        self._latest: dict[str, Any] = {}
        self._last_event = 0
        self._next_look = 0.0
        self._looked = 0.0
        self._whole: bytes | None = None
        self._silent = False
        self._idle = False  # whether the trees that there were have ended, and the program goes on
        self.ended: bool = False
        self._busy = asyncio.Lock()
        self._opened = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()
        self._thread = ThreadPoolExecutor(1, "suitkaise-observer")

    # ------------------------------------------------------------ pages
    async def open(self) -> Page | None:
        """Open a page, which gets the whole state first; None if too many are open."""
        if len(self._pages) >= MOST_PAGES:
            return None
        page = Page()
        async with self._busy:
            if not self.ended and time.monotonic() - self._looked > 2 * SECONDS:
                await self._look(everything=True)
            if self._whole is None:
                self._whole = _encode(self._state())
            page.put(self._whole)
            if self.ended:
                page.close()
                return page
            self._pages.add(page)
            self._empty.clear()
            self._opened.set()
        return page

    def forget(self, page: Page) -> None:
        """Forget a page that was closed."""
        self._pages.discard(page)
        if not self._pages:
            self._opened.clear()
            self._empty.set()

    async def all_closed(self) -> None:
        """Wait until no page is open."""
        await self._empty.wait()

    # ------------------------------------------------------------ questions of pages
    def report(self, id: str) -> dict[str, Any] | None:
        """Return the crash report of that id, if an event has named it."""
        return self._reports.get(id)

    def history(self, path: str) -> list[list[Any]]:
        """Return the figures of a worker so far: time, CPU, memory, loops per second, waiting messages."""
        return list(self._history.get(path, ()))

    def row(self, path: str) -> dict[str, Any] | None:
        """Return what is known of a worker or supervisor."""
        return self._model.rows.get(path)

    @property
    def storage(self) -> str | None:
        """The directory of the program's storage; None while it uses none, or has ended."""
        return None if self.ended else self._model.program.get("storage")

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
        """End the thread that asks the program."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _look(self, *, everything: bool = False, last: bool = False) -> None:
        loop = asyncio.get_running_loop()
        try:
            message = await loop.run_in_executor(self._thread, self._changes, everything, last)
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

    def _changes(self, everything: bool, last: bool) -> dict[str, Any] | None:
        """Ask the program, in a thread of its own; return what is to be told to the pages."""
        began = time.monotonic()
        news = self._program.events_after(self._last_event)
        self._last_event = news["last"]
        self._reports |= {report["id"]: report for report in news["reports"]}
        for id in list(self._reports)[: max(0, len(self._reports) - HISTORY)]:
            del self._reports[id]
        self._events.extend(news["events"])
        self._incidents.feed(news["events"], news["reports"])
        message: dict[str, Any] = {"type": "changes", "events": news["events"]}
        if not last and (everything or news["events"] or began >= self._next_look):
            overview = self._program.overview()
            self._idle = bool(self._model.rows and not overview["trees"])
            message["idle"] = self._idle
            if not self._idle:  # else pages show the trees as they were
                message |= self._model.update(overview)
                self._incidents.settle({p: row["status"] for p, row in self._model.rows.items()}, overview["time"])
            if everything or began >= self._next_look:
                message["figures"] = self._figures(overview["time"])
            message["time"] = overview["time"]
            self._looked = time.monotonic()
            if began >= self._next_look:
                self._next_look = began + max(SECONDS, (self._looked - began) / SHARE)
        elif not news["events"] and not last:
            return None
        message["incidents"] = self._incidents.changed()
        return message

    def _figures(self, now: float) -> dict[str, Any]:
        """Return the figures of all workers; those of threads have neither CPU nor memory of their own."""
        pids = {
            row["pid"]: path
            for path, row in self._model.rows.items()
            if row["kind"] in ("process", "command") and row["pid"] is not None
        }
        used = {pids[pid]: amount for pid, amount in self._resources.measure(pids).items()}
        figures: dict[str, Any] = {}
        for path in self._model.rows:
            of_loop = self._model.figures.get(path)
            if of_loop is None and path not in used:
                continue
            cpu, memory = used.get(path, (None, None))
            cpu = None if cpu is None else round(cpu, 3)
            figures[path] = (of_loop or {}) | {"cpu": cpu, "memory": memory}
            history = self._history.setdefault(path, deque(maxlen=HISTORY))
            of_loop = of_loop or {}
            history.append([round(now, 1), cpu, memory, of_loop.get("rate"), of_loop.get("queued")])
        for path in [path for path in self._history if path not in self._model.rows]:
            del self._history[path]
        self._latest = figures
        return figures

    # ------------------------------------------------------------ messages
    def _state(self) -> dict[str, Any]:
        return {
            "type": "state", "time": time.time(), "ended": self.ended, "silent": self._silent, "idle": self._idle,
            **self._greeting,
            **self._model.whole(), "figures": self._latest, "incidents": self._incidents.whole(),
            "events": list(self._events),
        }  # fmt: skip

    def _send(self, message: dict[str, Any]) -> None:
        data = _encode(message)
        for page in list(self._pages):
            page.put(data)


def _encode(message: dict[str, Any]) -> bytes:
    return b"data: " + msgspec.json.encode(message) + b"\n\n"
