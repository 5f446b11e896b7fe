"""What a program tells about its trees, as plain values: the one model that all observers read.

It is read from the policies, which know the children, and from the status board, which workers write themselves. No
worker is asked, so a worker that hangs delays nothing.
"""

from __future__ import annotations

import contextlib
import math
import os
import platform
import sys
import time
from typing import Any

from suitkaise.errors import ChildNotFound, RuntimeGone
from suitkaise.messaging.address import Address
from suitkaise.messaging.registry import Registry
from suitkaise.messaging.supervisor_ref import ChildLine
from suitkaise.policy.base import BasePolicy
from suitkaise.specs import DynamicSupervisorSpec
from suitkaise.supervision.interface import SupervisorInterface

__all__ = ["overview"]

_STARTED = time.time()
_BEGAN = time.monotonic()


def overview(
    directory: str,
    storage: str | None,
    registry: Registry,
    roots: dict[str, SupervisorInterface],
    nodes: list[dict[str, Any]],
) -> dict[str, Any]:
    """Return what this program is and what its trees are doing; ready for JSON.

    Args:
        directory: the private directory of the program.
        storage: the directory of its storage; None while it uses none.
        registry: knows the incarnations.
        roots: the roots of the trees that run, by name.
        nodes: what the nodes of its clusters are and do.
    """
    return {
        "pid": os.getpid(),
        "directory": directory,
        "storage": storage,
        "command": sys.orig_argv,
        "folder": _folder(),
        "python": platform.python_version(),
        "started": _STARTED,
        "uptime": time.monotonic() - _BEGAN,
        "time": time.time(),
        "nodes": nodes,
        "trees": [_supervisor(registry, root) for root in roots.values()],
    }


def _folder() -> str:
    try:
        return os.getcwd()
    except OSError:  # the folder was removed
        return ""


def _supervisor(registry: Registry, supervisor: SupervisorInterface, line: ChildLine | None = None) -> dict[str, Any]:
    spec = supervisor.spec
    facts = _child(registry, supervisor.path, line) | {
        "kind": "supervisor",
        "status": str(supervisor.status if line is None else line.status),
        "strategy": spec.strategy,
        "dynamic": isinstance(spec, DynamicSupervisorSpec),
        "exits": dict(supervisor.policy.exits),
        "restarts_used": supervisor.policy.restarts_used(time.monotonic()),
        "max_restarts": _number(spec.max_restarts),
        "max_seconds": _number(spec.max_seconds),
    }
    facts["children"] = []
    for child in supervisor.which_children():
        below = supervisor.child(child.id)
        if below is None:
            facts["children"].append(_child(registry, f"{supervisor.path}/{child.id}", child, supervisor.policy))
        else:
            facts["children"].append(_supervisor(registry, below, child))
        before = supervisor.policy.restarts_before.get(child.id, 0)
        facts["children"][-1]["all_restarts"] = before + child.restarts
    return facts


def _child(registry: Registry, path: str, line: ChildLine | None, policy: BasePolicy | None = None) -> dict[str, Any]:
    address = _address(registry, path)
    pid, incarnation, uptime, view = (None, 0, None, None) if address is None else address.stats()
    facts: dict[str, Any] = {
        "path": path,
        "id": path.rpartition("/")[2],
        "kind": "supervisor" if line is None else line.kind,
        "status": "" if line is None else str(line.status),
        "pid": pid,
        "incarnation": incarnation,
        "restarts": 0 if line is None else line.restarts,
        "uptime": uptime,
        "last_exit": None if line is None or line.last_exit is None else str(line.last_exit),
        "last_exit_clean": None if line is None or line.last_exit is None else line.last_exit.clean,
        "abandoned": 0 if line is None else line.abandoned,
    }
    if policy is not None and line is not None:
        with contextlib.suppress(ChildNotFound):  # it was removed meanwhile
            facts["restart"] = policy.get_child_spec(line.id).restart
    receiver: Any = None if address is None else address.receiver
    if hasattr(receiver, "where"):  # it runs on a node of a cluster: its pid means nothing here
        facts["node"] = receiver.where
        facts["node_lost"] = receiver.is_lost
        if (used := receiver.used) is not None:
            facts["cpu"], facts["memory"] = used
    if address is not None and pid is not None:
        facts["serial"] = address.watchers.serial
    if view is not None and (line is None or line.kind != "supervisor"):
        facts |= {
            "phase": view.phase.hook,
            "in_phase": max(0.0, time.monotonic() - view.since) if view.since else None,
            "loops": view.loops,
            "last_loop_time": view.last_loop_time,
            "total_loop_time": view.total_loop_time,
            "messages": view.messages,
            "skipped": view.skipped,
            "queued": view.queued,
            "oldest_message": None if view.oldest is None else max(0.0, time.monotonic() - view.oldest),
            "blocked": view.blocked,
            "looping": view.looping,
        }
    return facts


def _address(registry: Registry, path: str) -> Address | None:
    try:
        return registry.find(path)
    except (ChildNotFound, RuntimeGone):
        return None


def _number(value: float) -> float | None:
    """Return the number; None for infinity, which JSON does not have."""
    return None if value == math.inf else value
