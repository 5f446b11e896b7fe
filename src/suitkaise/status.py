"""What a worker, a supervisor and a whole tree are doing at one moment."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Any

from suitkaise.escapes import one_line, shortened
from suitkaise.exits import ExitReason, GaveUp, Hung, Killed, Shutdown, SignificantFailure
from suitkaise.records import dataclass, field

__all__ = ["ENDED", "Counts", "Status", "TreeStatus", "abandoned_threads", "status_after"]


class Status(StrEnum):
    """What a child is doing, as `ref.status` and `which_children` report it.

    - `created`: declared, and not started yet; `starting`: its `on_start` runs, or its process is being started.
    - `running`; `suspended`: held after its loop until it is resumed; `stopping`: it was asked to stop.
    - `restarting`: it has ended, and is being restarted, perhaps after a delay; its `on_start` may run already.
    - It has ended: `finished` (by itself), `stopped` (by an order), `crashed`, `killed`, `hung`; `ignored`: its
      `on_start` raised `Ignore`; `failed`: it needed more restarts than its `max_restarts` allows; a supervisor that
      gave up, or has ended because of a significant child that failed.
    - `abandoned`: a thread that does not end, and cannot be killed (rule 59).

    >>> Status.RUNNING == "running"
    True
    """

    CREATED = "created"
    STARTING = "starting"
    RUNNING = "running"
    SUSPENDED = "suspended"
    STOPPING = "stopping"
    FINISHED = "finished"
    CRASHED = "crashed"
    KILLED = "killed"
    HUNG = "hung"
    RESTARTING = "restarting"
    STOPPED = "stopped"
    IGNORED = "ignored"
    ABANDONED = "abandoned"
    FAILED = "failed"


ENDED: frozenset[Status] = frozenset({
    Status.FINISHED, Status.CRASHED, Status.KILLED, Status.HUNG, Status.STOPPED, Status.IGNORED, Status.ABANDONED,
    Status.FAILED,
})  # fmt: skip
"""What a child is that has ended, and is not being restarted."""


def status_after(reason: ExitReason) -> Status:
    """Return the status of a child that has ended by itself for this reason."""
    match reason:
        case Killed():
            return Status.KILLED
        case Hung():
            return Status.HUNG
        case Shutdown(GaveUp() | SignificantFailure()):
            return Status.FAILED
    return Status.FINISHED if reason.clean else Status.CRASHED


_LONGEST_REASON = 300
"""Bytes of an exit reason that the text of a status shows."""


@dataclass(frozen=True, slots=True)
class Counts:
    """The answer of `count_children` (rule 21).

    Args:
        specs: all children; a dynamic supervisor has one for each child.
        active: the children that run now.
        supervisors, workers: the children of each kind, running or not.
    """

    specs: int
    active: int
    supervisors: int
    workers: int


@dataclass(frozen=True, slots=True)
class TreeStatus:
    """A supervisor or worker, and everything below it, at one moment; `print` shows the tree.

    Args:
        path: the whole path, which begins with the name of the tree.
        kind: `"supervisor"`, `"process"`, `"thread"` or `"command"`.
        status: what it is doing.
        pid: the process that it runs in; None if it does not run.
        restarts: how often it was started again, also on request.
        last_exit: how its last incarnation has ended; None before the first end.
        children: the same of each child, in start order.
        abandoned: how many abandoned threads of it still run.
    """

    path: str
    kind: str
    status: Status
    pid: int | None
    restarts: int
    last_exit: ExitReason | None = None
    children: tuple[TreeStatus, ...] = field(default=())
    abandoned: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return the status as plain values, ready for JSON."""
        return {
            "path": self.path, "kind": self.kind, "status": str(self.status), "pid": self.pid,
            "restarts": self.restarts,
            "last_exit": None if self.last_exit is None else str(self.last_exit), "abandoned": self.abandoned,
            "children": [child.to_dict() for child in self.children],
        }  # fmt: skip

    def _repr_html_(self) -> str:
        """Show the tree in a notebook, as a table."""
        from html import escape  # 3 ms, for notebooks alone

        def rows(one: TreeStatus) -> Iterator[str]:
            indent = "\N{NO-BREAK SPACE}" * 4 * one.path.count("/")
            exit = "" if one.last_exit is None else _shown(one.last_exit)
            cells = (indent + one.path.rpartition("/")[2], one.kind, one.status, one.pid or "", one.restarts, exit)
            yield "".join(f"<td>{escape(str(cell))}</td>" for cell in cells)
            for child in one.children:
                yield from rows(child)

        head = "".join(f"<th>{name}</th>" for name in ("name", "kind", "status", "pid", "restarts", "last exit"))
        return f"<table><tr>{head}</tr>{''.join(f'<tr>{row}</tr>' for row in rows(self))}</table>"

    def __str__(self) -> str:
        pid = f"  pid {self.pid}" if self.pid is not None and self.kind in ("process", "command") else ""
        restarts = f"  {self.restarts} restart{'s' * (self.restarts > 1)}" if self.restarts else ""
        exit = f"  last exit: {_shown(self.last_exit)}" if self.last_exit is not None else ""
        abandoned = f"  {abandoned_threads(self.abandoned)}" if self.abandoned else ""
        name = "  " * self.path.count("/") + self.path.rpartition("/")[2]
        line = f"{name}  {self.kind}  {self.status}{pid}{restarts}{exit}{abandoned}"
        return "\n".join([line, *map(str, self.children)])


def _shown(reason: ExitReason) -> str:
    return one_line(shortened(str(reason), _LONGEST_REASON))


def abandoned_threads(number: int) -> str:
    """Return the number of abandoned threads as text."""
    return f"{number} abandoned thread{'s' * (number > 1)}"
