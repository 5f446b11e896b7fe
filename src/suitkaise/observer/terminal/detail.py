"""The detail of one worker or supervisor: its facts, and its incidents as stories, the newest first."""

from __future__ import annotations

import time
from typing import Any

from rich.text import Text

from suitkaise.escapes import escaped, one_line
from suitkaise.observer.observation import Observation
from suitkaise.observer.words import Mood, budget, duration, memory, mood, strategy, took

__all__ = ["TONES", "detail_of"]

TONES: dict[Mood, str] = {"good": "#8ad4a1", "bad": "#d17e92", "soon": "#ffc473", "": ""}
"""The colours of texts; those of the table come from the theme, and are the same."""

INCIDENTS = 5
"""How many incidents are told."""

TRACEBACK = 40
"""How many of the last lines of a traceback are shown."""

_INCIDENT_TONES: dict[str, Mood] = {"open": "soon", "recovered": "good", "down": "bad", "gave up": "bad"}


def detail_of(observation: Observation, path: str, now: float) -> Text:
    """Return what is known of the worker or supervisor at `path`."""
    row = observation.rows.get(path)
    if row is None:
        return Text("This worker is gone.", "dim")
    text = Text()
    text.append(one_line(path), "bold")
    text.append("  ")
    text.append(row["status"], TONES[mood(row["status"])])
    text.append(f"  {row['kind']}", "dim")
    incidents = [one for one in reversed(observation.incidents()) if _concerns(one, row)]
    facts = _facts(row, observation.figures.get(path) or {}, now)
    if row["last_exit"] is not None and not incidents:  # else a story tells it
        facts.append(("last exit", one_line(row["last_exit"])))
    for name, value in facts:
        text.append(f"\n{name:<11}", "dim")
        text.append(value)
    if not incidents:
        text.append("\n\nNo incident.", "dim")
    for number, incident in enumerate(incidents[:INCIDENTS]):
        text.append("\n\n")
        _tell(text, incident, observation, whole=number == 0)
    return text


def _facts(row: dict[str, Any], figures: dict[str, Any], now: float) -> list[tuple[str, str]]:
    facts: list[tuple[str, str]] = []
    if row["kind"] == "supervisor":
        if "max_restarts" in row:
            facts.append(("strategy", strategy(row)))
            facts.append(("restarts", budget(row)))
    else:
        up = "" if row["started"] is None else f", up {duration(max(0.0, now - row['started']))}"
        if row["pid"] is not None:
            node = f" on {row['node']}" if row.get("node") else ""
            node += " (lost)" if row.get("node_lost") else ""
            facts.append(("pid", f"{row['pid']}{node}, incarnation {row['incarnation']}{up}"))
        facts.append(("restarts", f"{row['restarts']}; restart={row.get('restart', '')}"))
    if figures.get("memory") is not None:
        cpu = "" if figures.get("cpu") is None else f", CPU {figures['cpu']:.0%}"
        facts.append(("memory", f"{memory(figures['memory'])}{cpu} (with its processes)"))
    if figures.get("loops"):
        rate = "" if figures.get("rate") is None else f", {figures['rate']:,g} a second"
        facts.append(("loops", f"{figures['loops']:,}{rate}; the last took {took(figures['last'])}"))
    if figures.get("messages") or figures.get("queued"):
        facts.append(("messages", f"{figures['messages']:,} handled, {figures['queued']:,} wait"))
    if figures.get("in_phase") is not None and row["pid"] is not None:
        facts.append(("in", f"{figures['phase']} for {duration(figures['in_phase'])}"))
    return facts


def _concerns(incident: dict[str, Any], row: dict[str, Any]) -> bool:
    path = row["path"]
    if row["kind"] == "supervisor":
        return any(f"{one}/".startswith(f"{path}/") for one in (incident["path"], incident["scope"]))
    return path == incident["path"] or path in incident["affected"]


def _tell(text: Text, incident: dict[str, Any], observation: Observation, *, whole: bool) -> None:
    state = incident["state"]
    took = "" if incident["ended"] is None else f" after {duration(max(0.0, incident['ended'] - incident['began']))}"
    text.append(f"{time.strftime('%H:%M:%S', time.localtime(incident['began']))} ", "dim")
    text.append("goes on" if state == "open" else f"{state}{took}", TONES[_INCIDENT_TONES.get(state, "")])
    text.append(f"  {one_line(incident['path'])}", "bold")
    if not whole:
        text.append(f"\n  {one_line(incident['reason'])}")
        return
    for step in incident["steps"]:
        text.append(f"\n  {step['at'] - incident['began']:+7.2f} s  ", "dim")
        text.append(
            f"{_short(step['path'], incident)} {one_line(step['text'])}",
            TONES["bad" if step["level"] == "error" else ""],
        )
    if incident["more"]:
        text.append(f"\n  and {incident['more']} steps more", "dim")
    reports = [observation.reports[id] for id in incident["reports"] if id in observation.reports]
    if reports:
        _report(text, reports[0])


def _short(path: str, incident: dict[str, Any]) -> str:
    """Return a path without that of the supervisor whose children the incident concerns."""
    return one_line(path.removeprefix(f"{incident['scope']}/"))


def _report(text: Text, report: dict[str, Any]) -> None:
    lines = escaped(str(report.get("traceback") or "")).rstrip().splitlines()
    if lines:
        text.append("\n")
    for line in lines[-TRACEBACK:]:
        text.append(f"\n  {line}", "dim" if line.startswith(" ") else "")
