"""Facts as people read them: spans of time, amounts of memory, and whether a status is good."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from suitkaise.escapes import figure

__all__ = ["DONE", "GUIDES", "Mood", "budget", "duration", "memory", "mood", "strategy", "took", "with_room"]

Mood = Literal["good", "bad", "soon", ""]

_MOODS: dict[str, Mood] = {
    "running": "good", "finished": "good", "crashed": "bad", "killed": "bad", "hung": "bad", "failed": "bad",
    "abandoned": "bad", "restarting": "soon", "starting": "soon", "stopping": "soon", "suspended": "soon",
    "lost": "bad", "ok": "good", "warning": "soon", "error": "bad",
}  # fmt: skip


DONE: Mapping[str, str] = {
    "restart": "restarted", "stop": "stopped", "start": "started", "suspend": "suspended", "resume": "resumed",
}  # fmt: skip
"""What is told when a worker or supervisor was steered."""


def mood(status: str) -> Mood:
    """Return whether a status, or a finding, is good, bad, or about to change; empty for neither (`stopped`)."""
    return _MOODS.get(status, "")


def budget(facts: Mapping[str, Any]) -> str:
    """Return how many of its restarts a supervisor has used.

    >>> budget({"restarts_used": 1, "max_restarts": 3.0, "max_seconds": 5.0})
    '1 of 3 restarts in 5 s'
    >>> budget({"restarts_used": 4, "max_restarts": 3.0, "max_seconds": 5.0})  # the fourth was one too many
    '3 of 3 restarts in 5 s'
    """
    used, allowed = facts["restarts_used"], facts["max_restarts"]
    if allowed is None:
        return f"{used} of any number of restarts"
    return f"{figure(min(used, allowed), 6)} of {figure(allowed, 6)} restarts in {figure(facts['max_seconds'], 6)} s"


def strategy(facts: Mapping[str, Any]) -> str:
    """Return the strategy of a supervisor, `dynamic` for a dynamic one.

    >>> strategy({"strategy": "one_for_one", "dynamic": True})
    'dynamic'
    """
    return "dynamic" if facts.get("dynamic") else facts.get("strategy", "")


GUIDES = "│├└─… "
"""The characters of the branch before a name."""


def with_room(line: str, width: int) -> str:
    """Return a line of a tree without outer steps of its branch, if they leave too little of the width to the name.

    >>> with_room("│  │  │  └─ worker-0", 20), with_room("│  │  │  └─ worker-0", 16)
    ('│  │  │  └─ worker-0', '…  └─ worker-0')
    """
    name = line.lstrip(GUIDES)
    branch = line[: len(line) - len(name)]
    room = width - min(len(name), width // 2)
    return line if len(branch) <= room else f"…  {branch[len(branch) - room // 3 * 3 + 3 :]}{name}"


def duration(seconds: float) -> str:
    """Return a span of time as text.

    >>> duration(0.25), duration(75), duration(7322), duration(200_000)
    ('250 ms', '1 min 15 s', '2 h 2 min', '2 d 7 h')
    """
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    minutes, left = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {left} s"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes} min"
    return f"{hours // 24} d {hours % 24} h"


def took(seconds: float) -> str:
    """Return how long a loop took, as text.

    >>> took(0.000_02), took(0.0123), took(5.0)
    ('0.02 ms', '12.3 ms', '5.0 s')
    """
    return f"{seconds * 1000:.3g} ms" if seconds < 0.9995 else duration(seconds)


def memory(size: float) -> str:
    """Return an amount of memory as text.

    >>> memory(900), memory(13_000_000), memory(5 << 30)
    ('900 B', '12.4 MiB', '5.0 GiB')
    """
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            return f"{size:.0f} {unit}" if unit in ("B", "KiB") else f"{size:.1f} {unit}"
        size /= 1024
    raise AssertionError
