"""Events, reports and overviews as a program tells them, written by hand."""

from __future__ import annotations

from typing import Any

_ERRORS = ("child_start_failure", "child_abandoned", "child_stop_error", "child_given_up", "supervisor_gave_up")


class Story:
    """Events in their order, a tenth of a second apart."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.reports: list[dict[str, Any]] = []

    def tell(self, event: str, path: str, *, verdict: str = "", **fields: Any) -> Story:
        number = len(self.events) + 1
        error = event in _ERRORS or (event == "child_exited" and not fields.pop("clean", False))
        told = {"event": event, "path": path, "at": 100 + number / 10, "number": number}
        told |= {"level": "error" if error else "info", "text": event} | fields
        if verdict:
            told["report"] = f"r{number}"
            self.reports.append({"id": f"r{number}", "verdict": verdict})
        self.events.append(told)
        return self


def worker(path: str, **facts: Any) -> dict[str, Any]:
    return {
        "path": path, "id": path.rpartition("/")[2], "kind": "process", "status": "running", "pid": 7,
        "incarnation": 1, "restarts": 0, "uptime": 5.0, "last_exit": None, "last_exit_clean": None, "abandoned": 0,
        "restart": "permanent", "serial": 1, "phase": "loop", "in_phase": 0.1, "loops": 10, "last_loop_time": 0.01,
        "total_loop_time": 0.1, "messages": 0, "queued": 0, "oldest_message": None, "blocked": 0, "looping": True,
    } | facts  # fmt: skip


def supervisor(path: str, *children: dict[str, Any], **facts: Any) -> dict[str, Any]:
    return {
        "path": path, "id": path.rpartition("/")[2], "kind": "supervisor", "status": "running", "pid": 1,
        "incarnation": 1, "restarts": 0, "uptime": 5.0, "last_exit": None, "last_exit_clean": None, "abandoned": 0,
        "strategy": "one_for_one", "dynamic": False, "restarts_used": 0, "max_restarts": 3, "max_seconds": 5.0,
        "children": list(children),
    } | facts  # fmt: skip


def overview(*trees: dict[str, Any], time: float = 100.0) -> dict[str, Any]:
    return {"pid": 1, "directory": "/d", "command": ["app"], "folder": "/", "python": "3.11", "started": 90.0,
            "time": time, "trees": list(trees)}  # fmt: skip
