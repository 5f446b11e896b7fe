"""The observation of one program: what its observers know of it, kept up by looks at its events, state and figures.

Both faces read it: the web page's feed passes the changes on to its pages, and the terminal shows what they leave.
"""

from __future__ import annotations

import time
from collections import deque
from typing import Any

from suitkaise.observer.incidents import Incidents
from suitkaise.observer.model import Model
from suitkaise.observer.program import ObservedProgram
from suitkaise.platform.resources import Resources

__all__ = ["SECONDS", "TICK", "Observation"]

TICK = 0.4
"""Seconds between two looks at the events."""

SECONDS = 1.0
"""Seconds between two looks at the state and the figures, at least."""

SHARE = 0.05
"""The part of its time that the observer looks at the program, at most: a large tree is looked at less often."""

EVENTS = 300
"""How many events are kept."""

HISTORY = 300
"""How many figures of each worker are kept for charts, and how many crash reports."""


class Observation:
    """What is known of one program. `look` is for one thread at a time; the others read what it has left."""

    def __init__(self, program: ObservedProgram) -> None:
        self._program = program
        self._model = Model()
        self._incidents = Incidents()
        self._resources = Resources()
        self._last_event = 0
        self._next_look = 0.0
        self.looked: float = 0.0
        """When the state was looked at last, by the monotonic clock."""
        self.idle: bool = False
        """Whether the trees that there were have ended, and the program goes on."""
        self.events: deque[dict[str, Any]] = deque(maxlen=EVENTS)
        self.reports: dict[str, dict[str, Any]] = {}
        self.history: dict[str, deque[list[Any]]] = {}
        self.figures: dict[str, Any] = {}

    @property
    def program(self) -> dict[str, Any]:
        """The facts of the program itself."""
        return self._model.program

    @property
    def rows(self) -> dict[str, dict[str, Any]]:
        """The facts of each worker and supervisor, in start order, as `Model` holds them."""
        return self._model.rows

    @property
    def nodes(self) -> list[dict[str, Any]]:
        """What the nodes of the program's clusters are and do, see `cluster.remote_node.RemoteNode.facts`."""
        return self._model.nodes

    def look(self, *, everything: bool = False, last: bool = False) -> dict[str, Any] | None:
        """Ask the program; return what has changed, ready for JSON; None if nothing has.

        Args:
            everything: look at the state and the figures, too, although it is early.
            last: look at the events only: the program is about to end.

        Raises:
            AskTimeout: the program does not answer.
            RuntimeGone: it has ended.
        """
        began = time.monotonic()
        news = self._program.events_after(self._last_event)
        self._last_event = news["last"]
        self.reports |= {report["id"]: report for report in news["reports"]}
        for id in list(self.reports)[: max(0, len(self.reports) - HISTORY)]:
            del self.reports[id]
        self.events.extend(news["events"])
        self._incidents.feed(news["events"], news["reports"])
        message: dict[str, Any] = {"type": "changes", "events": news["events"]}
        if not last and (everything or news["events"] or began >= self._next_look):
            overview = self._program.overview()
            self.idle = bool(self.rows and not overview["trees"])
            message["idle"] = self.idle
            if not self.idle:  # else pages show the trees as they were
                message |= self._model.update(overview)
                self._incidents.settle({p: row["status"] for p, row in self.rows.items()}, overview["time"])
            if everything or began >= self._next_look:
                message["figures"] = self._measure(overview["time"])
                message["nodes"] = self.nodes
            message["time"] = overview["time"]
            self.looked = time.monotonic()
            if began >= self._next_look:
                self._next_look = began + max(SECONDS, (self.looked - began) / SHARE)
        elif not news["events"] and not last:
            return None
        message["incidents"] = self._incidents.changed()
        message["dropped"] = self._incidents.dropped()
        return message

    def last_lines_of(self, path: str, most: int) -> int:
        """Return how many of the last lines of each worker below `path` are wanted, if about `most` are shown."""
        return max(10, most // max(1, sum(one.startswith(f"{path}/") for one in self.rows)))

    def whole(self) -> dict[str, Any]:
        """Return all that is known, as an observer needs it first."""
        return {
            "idle": self.idle, **self._model.whole(), "figures": self.figures, "incidents": self.incidents(),
            "nodes": self.nodes, "events": list(self.events),
        }  # fmt: skip

    def incidents(self) -> list[dict[str, Any]]:
        """Return the incidents, the newest last."""
        return self._incidents.whole()

    def _measure(self, now: float) -> dict[str, Any]:
        """Return the figures of all workers; those of threads have neither CPU nor memory of their own."""
        pids = {
            row["pid"]: path
            for path, row in self.rows.items()
            if row["kind"] in ("process", "command") and row["pid"] is not None and row.get("node") is None
        }
        measured = self._resources.measure(pids) if pids else {}
        used = {**self._model.used, **{pids[pid]: amount for pid, amount in measured.items()}}
        figures: dict[str, Any] = {}
        for path in self.rows:
            of_loop = self._model.figures.get(path, {})
            if not of_loop and path not in used:
                continue
            cpu, memory = used.get(path, (None, None))
            cpu = None if cpu is None else round(cpu, 3)
            figures[path] = of_loop | {"cpu": cpu, "memory": memory}
            history = self.history.setdefault(path, deque(maxlen=HISTORY))
            history.append([round(now, 1), cpu, memory, of_loop.get("rate"), of_loop.get("queued")])
        for path in [path for path in self.history if path not in self.rows]:
            del self.history[path]
        self.figures = figures
        return figures
