"""Where the terminal observer gets its data: one program, and after its end the next one that runs the same tree."""

from __future__ import annotations

import concurrent.futures
import logging
import os
import signal
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Literal

from suitkaise.errors import AskTimeout, RuntimeGone, SpecError
from suitkaise.messaging.answer import Answer
from suitkaise.messaging.log_reader import LogReader
from suitkaise.messaging.log_rings import Line
from suitkaise.observer.observation import SECONDS, TICK, Observation
from suitkaise.observer.program import ObservedProgram

__all__ = ["SHOWN_AS_FAILED", "SKIPPED", "Contact", "Source"]

logger: logging.Logger = logging.getLogger("suitkaise.observer")

Contact = Literal["waiting", "live", "silent", "ended"]
"""Nothing was found yet; the program answers; it does not answer; it has ended."""

SHOWN_AS_FAILED = 2.0
"""Seconds for which a worker that has failed is shown so, however quickly it is restarted."""

LINES = 300
"""How many of the last lines of a worker are shown."""

SKIPPED = "skipped"
"""The stream of the lines that tell how many lines were not kept until they were read."""


class Source:
    """One program at a time. `look` is for one thread at a time; the rest may be called from any thread.

    Args:
        find: returns the private directory of the program to observe; None if there is none now.
    """

    def __init__(self, find: Callable[[], str | None]) -> None:
        self._find = find
        self._program: ObservedProgram | None = None
        self._next_search = 0.0
        self._log_of = ""
        self._log: LogReader | None = None
        self._news: Answer[Any] | None = None
        self._lines: deque[Line] = deque(maxlen=LINES)
        self.contact: Contact = "waiting"
        self.ended: float = 0.0
        """When the program has ended (Unix time)."""
        self.observation: Observation | None = None
        """What is known of the program; after its end, of its last state."""
        self.failed: dict[str, float] = {}
        """Until when (Unix time) each worker that has failed is shown so."""

    def look(self, *, everything: bool = False) -> None:
        """Look at the program; without one, search for it."""
        if self._program is None and not self._search():
            return
        assert self.observation is not None
        try:
            changes = self.observation.look(everything=everything)
        except AskTimeout:
            self.contact = "silent"
        except RuntimeGone:
            self._lose()
        except Exception as error:  # it is about to end, or a tree changed while it was read: the next look may do
            logger.info("the program could not be looked at: %s", error)
        else:
            self.contact = "live"
            now = time.time()
            self.failed = {path: until for path, until in self.failed.items() if until > now}
            for event in changes["events"] if changes is not None else ():
                if event["level"] == "error" and "path" in event and now - event["at"] < SHOWN_AS_FAILED:
                    self.failed[event["path"]] = event["at"] + SHOWN_AS_FAILED

    def _search(self) -> bool:
        if time.monotonic() < self._next_search:
            return False
        self._next_search = time.monotonic() + SECONDS
        directory = self._find()
        if directory is None:
            return False
        self._program = ObservedProgram(directory)
        self.observation = Observation(self._program)
        self.failed.clear()
        self._log = self._news = None
        return True

    def _lose(self) -> None:
        self.close()
        self._program = None
        self.contact = "ended"
        self.ended = time.time()

    def close(self) -> None:
        """Close the connection; a look that waits for an answer ends."""
        if self._program is not None:
            self._program.close()

    # ------------------------------------------------------------ one worker
    def lines(self, path: str) -> list[Line]:
        """Return the last lines that a worker, or all workers below a supervisor, have printed and logged.

        For one thread at a time. Of a program that has ended, it returns what was read before.
        """
        if self._log_of != path:
            self._forget_log()
            self._log_of = path
        if self._program is None or self.observation is None:
            return list(self._lines)
        try:
            if self._log is None:
                self._log = self._program.log(path, last=self.observation.last_lines_of(path, LINES))
                self._news = self._log.request()
                concurrent.futures.wait([self._news], TICK)
            if self._news is None:
                self._news = self._log.request()
            if self._news.done():
                news = self._log.take(self._news.get(0))
                self._news = None if news.ended else self._log.request()
                self._lines += [
                    (worker, 0, SKIPPED, time.time(), f"[{count} lines were skipped]")
                    for worker, count in news.skipped.items()
                ]
                self._lines += news.lines
        except RuntimeGone:  # `look` tells the end
            self._news = None
        return list(self._lines)

    def _forget_log(self) -> None:
        if self._news is not None:
            self._news.cancel()
        self._log = self._news = None
        self._lines.clear()

    # ------------------------------------------------------------ steering
    def change(self, action: str, path: str) -> None:
        """Have a worker's supervisor carry out an action; return when it is done. Raises what the program raises."""
        if self._program is None:
            raise RuntimeGone("the program has ended")
        self._program.change(action, path)

    def signal(self, path: str, number: int) -> None:
        """Send a signal to the process of a worker.

        Raises:
            SpecError: it has no process of its own now.
            OSError: the system refuses it.
            SuitkaiseError: its node refuses it.
        """
        program = self._program
        row = None if self.observation is None or program is None else self.observation.rows.get(path)
        if program is None or row is None or row["kind"] not in ("process", "command") or row["pid"] is None:
            raise SpecError(f"{path!r} has no process of its own now")
        if row.get("node") is not None:
            program.signal(path, number)
        else:
            os.kill(row["pid"], signal.Signals(number))
