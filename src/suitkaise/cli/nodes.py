"""`suitkaise nodes`: the machines of the clusters that programs use, and what runs there."""

from __future__ import annotations

import argparse
import json
from typing import Any

from suitkaise.cli.command import CLEAN, NO_PROGRAM, tell
from suitkaise.cli.display import Column, print_table
from suitkaise.cli.show import chosen
from suitkaise.observer.words import duration, memory

__all__ = ["nodes"]

_NODES = [
    Column("NODE", "name"), Column("STATE", "status"), Column("WORKERS", "number"), Column("CPU", "number", 1),
    Column("MEMORY", "number", 2), Column("PID", "number", 3), Column("LAST HEARD / WHY", "end", 4),
]  # fmt: skip


def nodes(options: argparse.Namespace) -> int:
    """List the nodes of the clusters that programs use."""
    programs, _ = chosen(options)
    if options.json:
        print(json.dumps([node | {"program": program.facts["pid"]} for program in programs for node in program.nodes]))
        return CLEAN if programs else NO_PROGRAM
    rows = [_node_row(node) for program in programs for node in program.nodes]
    if rows:
        print_table(_NODES, rows)
    else:
        tell(f"no tree of this user {'runs on a cluster' if programs else 'is running'}")
    return CLEAN if programs else NO_PROGRAM


def _node_row(node: dict[str, Any]) -> list[str]:
    cpu = "" if node["cpu"] is None else f"{node['cpu']:.1f} of {node['cpus']}"
    used = "" if node["memory"] is None else f"{memory(node['memory'])} of {memory(node['memory_total'])}"
    seen = "" if node["silent"] is None else f"{duration(node['silent'])} ago"
    name = f"{node['name']}, for its worker alone" if node["dedicated"] else node["name"]
    why = node["why"] if node["status"] == "lost" else seen
    return [name, node["status"], str(node["workers"]), cpu, used, str(node["pid"] or ""), why]
