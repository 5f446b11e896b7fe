"""The lines of the table: what is shown of each worker and supervisor, filtered and sorted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from suitkaise.escapes import one_line
from suitkaise.observer.observation import Observation
from suitkaise.observer.words import budget, duration, memory, strategy

__all__ = ["COLUMNS", "Column", "Line", "lines_of", "to_rows"]


@dataclass(frozen=True, slots=True)
class Column:
    """A column. `rank`: of those that do not fit, the one with the highest is left out first."""

    name: str
    title: str
    width: int
    rank: int
    figure: bool = True


COLUMNS: tuple[Column, ...] = (
    Column("state", "STATE", 12, 0, figure=False),
    Column("pid", "PID", 8, 7, figure=False),
    Column("cpu", "CPU", 6, 1),
    Column("memory", "MEMORY", 10, 2),
    Column("rate", "LOOPS/S", 9, 3),
    Column("messages", "MESSAGES", 10, 8),
    Column("queued", "QUEUE", 6, 5),
    Column("restarts", "RESTARTS", 9, 4),
    Column("up", "UP", 11, 6),
)
"""The columns between the name and what the worker is doing, which get the rest of the width."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the table, and the numbers that it is sorted by."""

    path: str
    name: str
    state: str
    kind: str
    cells: Mapping[str, str]
    doing: str
    numbers: Mapping[str, float]

    @property
    def values(self) -> dict[str, Any]:
        """The line as plain values, ready for JSON."""
        numbers = {column.name: self.numbers.get(column.name) for column in COLUMNS if column.figure}
        pid = self.cells["pid"]
        return {
            "path": self.path, "kind": self.kind, "state": self.state, "pid": int(pid) if pid.isdecimal() else None,
            **numbers, "doing": self.doing,
        }  # fmt: skip


def lines_of(
    observation: Observation, now: float, *, scope: str = "", text: str = "", sort: str = "",
    failed: Mapping[str, float] = {},
) -> list[Line]:  # fmt: skip
    """Return the lines.

    Args:
        observation: what is known of the program.
        now: the Unix time.
        scope: only what is at and below this path.
        text: only lines in whose path, state, kind or node this occurs, and the supervisors above them.
        sort: a column; the workers with the highest figures come first, without their tree. Empty: as a tree.
        failed: until when (Unix time) a worker that has failed is shown so, even if it is back already.
    """
    rows = [row for path, row in observation.rows.items() if not scope or f"{path}/".startswith(f"{scope}/")]
    if text:
        rows = _fitting(rows, text.lower())
    if sort:
        rows = [row for row in rows if row["kind"] != "supervisor"]
        names = [one_line(row["path"]) for row in rows]
    else:
        names = _as_tree(rows)
    figures = observation.figures
    lines = [
        _line(row, name, figures.get(row["path"]) or {}, now, failed.get(row["path"], 0.0) > now)
        for row, name in zip(rows, names, strict=True)
    ]
    if sort:
        lines.sort(key=lambda line: -line.numbers.get(sort, -1.0))
    return lines


def _fitting(rows: list[dict[str, Any]], text: str) -> list[dict[str, Any]]:
    fitting = {
        row["path"]
        for row in rows
        if any(text in str(row[name]).lower() for name in ("path", "status", "kind", "node") if name in row)
    }
    above = {path[:end] for path in fitting for end in range(len(path)) if path[end] == "/"}
    return [row for row in rows if row["path"] in fitting or (row["path"] in above and row["kind"] == "supervisor")]


def _as_tree(rows: list[dict[str, Any]]) -> list[str]:
    """Return the names with the branches of the tree before them."""
    children: dict[str, list[str]] = {}
    for row in rows:
        children.setdefault(row["path"].rpartition("/")[0], []).append(row["path"])
    last = {paths[-1] for paths in children.values()}
    before: dict[str, str] = {}
    names = []
    for row in rows:
        path = row["path"]
        above = path.rpartition("/")[0]
        if above not in before:
            before[path] = ""
            names.append(one_line(path))
            continue
        names.append(f"{before[above]}{'└─ ' if path in last else '├─ '}{one_line(row['id'])}")
        before[path] = f"{before[above]}{'   ' if path in last else '│  '}"
    return names


def _line(row: dict[str, Any], name: str, figures: dict[str, Any], now: float, failed: bool) -> Line:
    supervisor = row["kind"] == "supervisor"
    up = None if row["started"] is None or row["pid"] is None or supervisor else max(0.0, now - row["started"])
    numbers = {
        column: float(value)
        for column, value in {
            "cpu": figures.get("cpu"), "memory": figures.get("memory"), "rate": figures.get("rate"),
            "messages": figures.get("messages"), "queued": figures.get("queued"), "restarts": row["restarts"],
            "up": up,
        }.items()
        if value is not None
    }  # fmt: skip
    cells = {column: _FORMS[column](value) for column, value in numbers.items()}
    cells["pid"] = "" if supervisor or row["pid"] is None else "thread" if row["kind"] == "thread" else str(row["pid"])
    state = "crashed" if failed and row["status"] in ("running", "starting", "restarting") else row["status"]
    cells["state"] = state
    return Line(row["path"], name, state, row["kind"], cells, _doing(row, figures), numbers)


_FORMS: dict[str, Callable[[float], str]] = {
    "cpu": lambda value: f"{value:.0%}",
    "memory": memory,
    "rate": lambda value: f"{value:,.0f}" if value >= 10 or not value else f"{value:.1f}",
    "messages": lambda value: f"{value:,.0f}" if value else "",
    "queued": lambda value: f"{value:,.0f}" if value else "",
    "restarts": lambda value: f"{value:,.0f}" if value else "",
    "up": duration,
}


def _doing(row: dict[str, Any], figures: dict[str, Any]) -> str:
    parts = []
    if row.get("node") and row["pid"] is not None:
        parts.append(f"on {one_line(row['node'])}{', which is lost' if row.get('node_lost') else ''}")
    if row["kind"] == "supervisor" and "max_restarts" in row:
        parts.append(f"{strategy(row)}, {budget(row)}")
    if figures.get("in_phase") is not None and figures.get("phase") not in ("", "waiting"):
        parts.append(f"in {figures['phase']} for {duration(figures['in_phase'])}")
    if row["last_exit"] is not None:
        parts.append(one_line(row["last_exit"]))
    if row["abandoned"]:
        parts.append(f"{row['abandoned']} abandoned threads")
    return "; ".join(parts)


def to_rows(lines: Iterable[Line]) -> list[list[str]]:
    """Return the lines as texts: the name, the columns, and what the worker is doing."""
    return [[line.name, *(line.cells.get(one.name, "") for one in COLUMNS), line.doing] for line in lines]
