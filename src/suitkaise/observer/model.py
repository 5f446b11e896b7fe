"""What pages know of a program: one row for each worker and supervisor, and what has changed since the last look."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

__all__ = ["Model"]

ROW = (
    "path", "id", "kind", "status", "pid", "incarnation", "restarts", "last_exit", "last_exit_clean", "abandoned",
    "node", "node_lost", "restart", "serial", "strategy", "dynamic", "restarts_used", "max_restarts", "max_seconds",
)  # fmt: skip
"""The facts of `runtime.overview` that change with events only."""

DRIFT = 0.25
"""Seconds by which two readings of one start time may differ: the uptime is told at another moment than the time."""

LONG = 2.0
"""Seconds in one phase from which on pages show how long it lasts."""


class Model:
    """The rows of one program, from overviews."""

    def __init__(self) -> None:
        self.program: dict[str, Any] = {}
        self.rows: dict[str, dict[str, Any]] = {}
        self.figures: dict[str, dict[str, Any]] = {}
        self.nodes: list[dict[str, Any]] = []
        self.used: dict[str, tuple[float | None, int]] = {}
        """CPU and memory of the workers on nodes, as their nodes have told them."""
        self._loops: dict[str, tuple[Any, int, float]] = {}

    def update(self, overview: dict[str, Any]) -> dict[str, Any]:
        """Take a new overview; return what has changed, ready for JSON.

        Returns:
            `rows`: of each changed row the facts that have changed. `removed`: the paths that are gone. `order`: all
            paths in start order, if that has changed. `program`: its facts, if they have changed.
        """
        now = overview["time"]
        rows, figures, used = {}, {}, {}
        for facts, depth in _walk(overview["trees"]):
            path = facts["path"]
            row = {name: facts[name] for name in ROW if name in facts}
            row["depth"] = depth
            row["started"] = self._started(path, facts, now)
            rows[path] = row
            if "memory" in facts:
                used[path] = facts["cpu"], facts["memory"]
            if "loops" in facts:
                figures[path] = self._figures(path, facts, now)
        program = {name: value for name, value in overview.items() if name not in ("trees", "nodes", "time", "uptime")}
        changes: dict[str, Any] = {
            "rows": {path: changed for path, row in rows.items() if (changed := _changed(self.rows.get(path), row))},
            "removed": [path for path in self.rows if path not in rows],
        }
        if list(rows) != list(self.rows):
            changes["order"] = list(rows)
        if program != self.program:
            changes["program"] = program
        self.program, self.rows, self.figures = program, rows, figures
        self.nodes, self.used = overview.get("nodes", []), used
        self._loops = {path: value for path, value in self._loops.items() if path in rows}
        return changes

    def whole(self) -> dict[str, Any]:
        """Return all rows, as a page needs them first."""
        return {"program": self.program, "rows": self.rows, "order": list(self.rows), "removed": []}

    def _started(self, path: str, facts: dict[str, Any], now: float) -> float | None:
        """Return the Unix time at which the incarnation was up: the same in each overview."""
        if facts["uptime"] is None:
            return None
        started: float = now - facts["uptime"]
        before = self.rows.get(path)
        if before is not None and before["started"] is not None and before["incarnation"] == facts["incarnation"]:
            known: float = before["started"]
            if abs(known - started) < DRIFT:
                return known
        return round(started, 3)

    def _figures(self, path: str, facts: dict[str, Any], now: float) -> dict[str, Any]:
        """Return what changes all the time, with the loops per second since the last look."""
        incarnation, loops, then = self._loops.get(path, (None, 0, now))
        same = incarnation == facts.get("serial") and now > then
        rate = max(0.0, (facts["loops"] - loops) / (now - then)) if same else None
        self._loops[path] = facts.get("serial"), facts["loops"], now
        long = facts["in_phase"] is not None and facts["in_phase"] >= LONG
        return {
            "loops": facts["loops"],
            "rate": None if rate is None else round(rate, 1),
            "last": round(facts["last_loop_time"], 6),
            "messages": facts["messages"],
            "queued": facts["queued"],
            "oldest": None if facts["oldest_message"] is None else round(facts["oldest_message"]),
            "blocked": facts["blocked"],
            "phase": facts["phase"] if facts["pid"] is not None else "",
            "in_phase": round(facts["in_phase"]) if long else None,
        }


def _walk(trees: list[dict[str, Any]], depth: int = 0) -> Iterator[tuple[dict[str, Any], int]]:
    for facts in trees:
        yield facts, depth
        yield from _walk(facts.get("children", []), depth + 1)


def _changed(before: dict[str, Any] | None, row: dict[str, Any]) -> dict[str, Any]:
    if before is None:
        return row
    changed = {name: value for name, value in row.items() if name not in before or before[name] != value}
    return changed | {name: None for name in before if name not in row}
