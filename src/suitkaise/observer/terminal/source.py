"""Where the terminal observer gets its data: one program, and after its end the next one that runs the same tree."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable
from typing import Any, Literal

from suitkaise.errors import AskTimeout, RuntimeGone, SpecError
from suitkaise.observer.observation import SECONDS, Observation
from suitkaise.observer.program import ObservedProgram

__all__ = ["SHOWN_AS_FAILED", "Contact", "Source"]

logger: logging.Logger = logging.getLogger("suitkaise.observer")

Contact = Literal["waiting", "live", "silent", "ended"]
"""Nothing was found yet; the program answers; it does not answer; it has ended."""

SHOWN_AS_FAILED = 2.0
"""Seconds for which a worker that has failed is shown so, however quickly it is restarted."""

LINES = 300
"""How many of the last lines of a worker are shown."""


class Source:
    """One program at a time. `look` is for one thread at a time; the rest may be called from any thread.

    Args:
        find: returns the private directory of the program to observe; None if there is none now.
    """

    def __init__(self, find: Callable[[], str | None]) -> None:
        self._find = find
        self._program: ObservedProgram | None = None
        self._next_search = 0.0
        self._lines: tuple[Any, int, list[str]] = (None, 0, [])
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
    def lines(self, path: str) -> list[str]:
        """Return the last lines that a worker has printed and logged; for one thread at a time.

        Threads have no output of their own, and a worker that is down has what its last crash report holds.
        """
        row = None if self.observation is None else self.observation.rows.get(path)
        if row is None or row["kind"] not in ("process", "command"):
            return []
        serial = row.get("serial")
        if serial is None or self._program is None:
            return self._lines_of_last_crash(path)
        known, position, lines = self._lines
        if known != (path, serial):
            position, lines = 0, []
        new, position = self._program.lines(serial, position)
        lines = [*lines, *new][-LINES:]
        self._lines = (path, serial), position, lines
        return lines

    def _lines_of_last_crash(self, path: str) -> list[str]:
        known, _, lines = self._lines
        if known is not None and known[0] == path and lines:
            return lines
        assert self.observation is not None
        reports = [report for report in self.observation.reports.values() if report["path"] == path]
        return list(reports[-1].get("lines", ())) if reports else []

    # ------------------------------------------------------------ steering
    def change(self, action: str, path: str) -> None:
        """Have a worker's supervisor carry out an action; return when it is done. Raises what the program raises."""
        if self._program is None:
            raise RuntimeGone("the program has ended")
        self._program.change(action, path)

    def signal(self, path: str, number: int) -> int:
        """Send a signal to the process of a worker; return the pid.

        Raises:
            SpecError: it has no process of its own now.
            OSError: the system refuses it.
        """
        row = None if self.observation is None or self._program is None else self.observation.rows.get(path)
        if row is None or row["kind"] not in ("process", "command") or row["pid"] is None:
            raise SpecError(f"{path!r} has no process of its own now")
        if row.get("node") is not None:
            raise SpecError(f"{path!r} runs on the node {row['node']}, not on this machine")
        pid: int = row["pid"]
        os.kill(pid, signal.Signals(number))
        return pid
