"""Incidents: from the events of a tree, one story for each failure, from the crash until all is up again.

An incident begins with an abnormal end. What its supervisor does then belongs to it: the pause, the siblings that the
strategy stops and starts again, further failures, and, if the supervisor gives up, what the supervisor above does.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

__all__ = ["KEPT", "MOST_STEPS", "Incident", "Incidents"]

KEPT = 100
"""How many incidents are kept; of the worker that has the most, the oldest is dropped."""

MOST_STEPS = 100
"""How many steps an incident shows; of further ones it tells the number."""

LATE = 3.0
"""Seconds after the last step at which the state of the workers decides what became of the ones that were down."""

_UP = ("running", "suspended")
_ON_THE_WAY = ("starting", "restarting", "stopping", "created", "")
_STAYS_DOWN = ("stays down", "is given up", "is being stopped")


@dataclass(slots=True)
class Incident:
    """One incident.

    `scope` is the supervisor whose children it concerns, `down` those that are to come back, `lost` those that are not,
    and `below` the supervisors under `scope` that are stopped and started again with all that is below them.
    """

    id: int
    path: str
    scope: str
    began: float
    reason: str
    where: str
    state: str = "open"
    ended: float | None = None
    reports: list[str] = field(default_factory=list)
    affected: list[str] = field(default_factory=list)
    down: set[str] = field(default_factory=set)
    lost: set[str] = field(default_factory=set)
    below: set[str] = field(default_factory=set)
    steps: list[dict[str, Any]] = field(default_factory=list)
    more: int = 0

    def concerns(self, path: str) -> bool:
        """Return whether an event at this path belongs to the incident, while it is open."""
        if self.scope in (path, path.rpartition("/")[0]):
            return True
        return any(path.startswith(f"{one}/") for one in self.below)

    def to_dict(self) -> dict[str, Any]:
        """Return the incident as plain values, ready for JSON."""
        return {
            "id": self.id, "path": self.path, "scope": self.scope, "began": self.began, "ended": self.ended,
            "reason": self.reason, "where": self.where, "state": self.state, "reports": self.reports,
            "affected": self.affected, "steps": self.steps, "more": self.more,
        }  # fmt: skip


class Incidents:
    """The newest incidents of a program; `feed` takes its events in their order, as `EventHistory` tells them."""

    def __init__(self) -> None:
        self._all: dict[int, Incident] = {}
        self._settling: dict[str, Incident] = {}
        self._changed: set[int] = set()
        self._dropped: list[int] = []
        self._verdicts: dict[str, str] = {}
        self._next = 1

    def feed(self, events: list[dict[str, Any]], reports: list[dict[str, Any]]) -> None:
        """Take the next events and the crash reports that they name."""
        self._verdicts |= {report["id"]: report["verdict"] for report in reports}
        for event in events:
            self._feed(event)
        self._verdicts.clear()

    def settle(self, statuses: dict[str, str], now: float) -> None:
        """Close incidents by the state of the workers, where no event has told how it went on."""
        for incident in self._open():
            if now - _last_time(incident) < LATE:
                continue
            for path in list(incident.down):
                status = statuses.get(path, "gone")
                if status not in _ON_THE_WAY:
                    incident.down.discard(path)
                    if status not in _UP:
                        incident.lost.add(path)
            self._close_if_over(incident, now)

    def changed(self) -> list[dict[str, Any]]:
        """Return the incidents that have changed since the last call."""
        changed = [incident.to_dict() for id, incident in self._all.items() if id in self._changed]
        self._changed.clear()
        return changed

    def dropped(self) -> list[int]:
        """Return the ids of the incidents that were dropped since the last call."""
        dropped, self._dropped = self._dropped, []
        return dropped

    def whole(self) -> list[dict[str, Any]]:
        """Return all incidents, the newest last."""
        return [incident.to_dict() for incident in self._all.values()]

    # ------------------------------------------------------------ events
    def _feed(self, event: dict[str, Any]) -> None:
        kind, path = event["event"], event["path"]
        incident = self._concerned(path)
        failed = event["level"] == "error" and kind in (
            "child_exited", "child_start_failure", "child_stop_error", "child_abandoned",
        )  # fmt: skip
        if incident is None and failed:
            incident = self._begin(event)
        if incident is None:
            settling = self._settling.pop(path, None) if kind == "child_started" else None
            if settling is not None:  # a sibling that the strategy had stopped
                self._add(settling, event)
                settling.ended = event["at"]
            return
        self._add(incident, event)
        match kind:
            case "child_exited" if path == incident.scope:  # it has given up: the supervisor above goes on
                self._escalate(incident, path)
            case _ if failed:
                self._note_failure(incident, event)
            case "child_restarting":
                incident.down.add(path)
                incident.lost.discard(path)
            case "child_started":
                incident.down.discard(path)
                incident.lost.discard(path)
                incident.below.discard(path)
                self._settling.pop(path, None)
            case "child_stopped" if path in incident.down:  # by an order
                incident.down.discard(path)
                incident.lost.add(path)
            case "child_stopped":
                self._settling[path] = incident
            case "child_given_up":
                incident.down.discard(path)
                incident.lost.add(path)
            case "supervisor_stopping" if path != incident.scope:
                incident.below.add(path)
            case "supervisor_stopped" if "/" not in path:
                self._close(incident, "gave up" if "gave up" in event["text"] else "stopped", event["at"])
            case _:
                pass
        self._close_if_over(incident, event["at"])

    def _begin(self, event: dict[str, Any]) -> Incident:
        path = event["path"]
        incident = Incident(
            self._next, path, path.rpartition("/")[0] or path, event["at"],
            str(event.get("reason") or event["text"]), event.get("where", ""),
        )  # fmt: skip
        self._next += 1
        self._all[incident.id] = incident
        if len(self._all) > KEPT:
            often, _ = Counter(one.path for one in self._all.values()).most_common(1)[0]
            oldest = next(one for one in self._all.values() if one.path == often)
            del self._all[oldest.id]
            self._dropped.append(oldest.id)
            self._settling = {path: one for path, one in self._settling.items() if one is not oldest}
        return incident

    def _note_failure(self, incident: Incident, event: dict[str, Any]) -> None:
        path, report = event["path"], event.get("report", "")
        if report:
            incident.reports.append(report)
        if self._verdicts.get(report) in _STAYS_DOWN:
            incident.down.discard(path)
            incident.lost.add(path)
        elif path.rpartition("/")[0] == incident.scope:  # one that is deeper is its own supervisor's matter
            incident.down.add(path)

    def _escalate(self, incident: Incident, path: str) -> None:
        above = path.rpartition("/")[0]
        if above:
            incident.scope = above
            incident.down, incident.below = {path}, {path}

    def _concerned(self, path: str) -> Incident | None:
        """Return the open incident that an event at this path belongs to: the one with the nearest scope."""
        fitting = [one for one in self._open() if one.concerns(path)]
        return max(fitting, key=lambda one: len(one.scope), default=None)

    def _open(self) -> list[Incident]:
        return [incident for incident in self._all.values() if incident.state == "open"]

    def _add(self, incident: Incident, event: dict[str, Any]) -> None:
        self._changed.add(incident.id)
        if event["path"] not in incident.affected and event["path"] != incident.scope:
            incident.affected.append(event["path"])
        if len(incident.steps) >= MOST_STEPS:
            incident.more += 1
            return
        incident.steps.append({name: event[name] for name in ("event", "path", "at", "level", "text", "number")})

    def _close_if_over(self, incident: Incident, at: float) -> None:
        gave_up = bool(incident.steps) and incident.steps[-1]["event"].startswith("supervisor_")
        if incident.state == "open" and not incident.down and not gave_up:
            self._close(incident, "down" if incident.lost else "recovered", at)

    def _close(self, incident: Incident, state: str, at: float) -> None:
        incident.state, incident.ended = state, at
        incident.down.clear()
        self._changed.add(incident.id)


def _last_time(incident: Incident) -> float:
    return float(incident.steps[-1]["at"]) if incident.steps else incident.began
