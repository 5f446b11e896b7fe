"""What the trees of this program are doing, as metrics for Prometheus; of the extra `metrics`.

`Collector` reads the same overview as the command line does: the policies and the status board. No worker is asked and
no file is written, so restarts leave nothing behind.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from typing import Any

from suitkaise.platform.processes import memory_of
from suitkaise.runtime import runtime as runtimes
from suitkaise.runtime.running_tree import RunningTree
from suitkaise.status import Status

try:
    from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
    from prometheus_client.registry import Collector as _Collector
except ImportError as _error:
    raise ImportError(
        "suitkaise.metrics needs prometheus-client: pip install 'suitkaise-xprocess[metrics]'", name="prometheus_client"
    ) from _error

__all__ = ["Collector", "page"]

_GAUGES = {
    "up": ("1 if the worker or supervisor is running, else 0", ("path", "kind", "node")),
    "uptime_seconds": ("Time since the start of the worker's incarnation", ("path", "node")),
    "last_loop_seconds": ("Time that the worker's last loop took", ("path", "node")),
    "messages_queued": ("Messages that wait for the worker", ("path", "node")),
    "messages_blocked": ("Messages that wait for room in the worker's bounded mailbox", ("path", "node")),
    "oldest_message_seconds": ("Time that the oldest message has waited for the worker, at most", ("path", "node")),
    "memory_bytes": ("Memory (RSS) of the worker's process and all below it", ("path", "node")),
    "restart_window_used": ("Restarts that the supervisor's window holds", ("supervisor",)),
    "restart_window_allowed": ("Restarts that the window may hold (max_restarts)", ("supervisor",)),
    "node_up": ("1 if the node of the cluster is ready for workers, 0 if it is lost, or starts", ("node",)),
    "node_workers": ("Workers of this program on the node", ("node",)),
    "node_silent_seconds": ("Time since the node was heard last", ("node",)),
    "node_cpus_used": ("Processors of the node's machine that are at work", ("node",)),
    "node_cpus": ("Processors of the node's machine", ("node",)),
    "node_memory_used_bytes": ("Memory of the node's machine that is in use", ("node",)),
    "node_memory_bytes": ("Memory of the node's machine", ("node",)),
}
_COUNTERS = {
    "restarts": ("Restarts of the worker or supervisor, all incarnations together", ("path",)),
    "exits": ("Ends of the children of a supervisor, by the kind of the exit reason", ("supervisor", "reason")),
    "loops": ("Loops of the worker's incarnation", ("path", "node")),
    "loop_seconds": ("Time that these loops took", ("path", "node")),
    "messages_skipped": ("Messages that were dropped, or whose asker waited no longer", ("path", "node")),
    "messages": ("Messages that the worker's incarnation has handled", ("path", "node")),
}
"""What is counted over all incarnations has no node: a worker that is restarted elsewhere goes on in its series."""


class Collector(_Collector):
    """A collector for a `prometheus_client` registry, which reads the trees at each scrape.

    Counters of a worker (`loops`, `messages`) begin anew with each incarnation, as those of a restarted program do;
    `rate()` and `increase()` take that into account.

    Args:
        running: the tree to tell of (default None: all trees that run in this program at the moment of the scrape).

    Raises:
        ImportError: at the import of this module, without the extra `metrics`.
        TypeError: this is no running tree.

    >>> from prometheus_client import CollectorRegistry, generate_latest
    >>> from suitkaise import Supervisor, Thread
    >>> class Idle(Thread):
    ...     def on_receive(self, message): ...
    >>> registry = CollectorRegistry()
    >>> registry.register(Collector())
    >>> with Supervisor("app", Idle).start():
    ...     print(registry.get_sample_value("suitkaise_up", {"path": "app/idle", "kind": "thread"}))
    1.0
    """

    def __init__(self, running: RunningTree | None = None) -> None:
        if not isinstance(running, RunningTree | None):
            raise TypeError(f"Collector takes a running tree, or None for all of the program, not {running!r}")
        self._running = running

    def describe(self) -> Iterable[Metric]:
        """Return the metrics without values; a registry asks for them, to refuse two of one name."""
        return list(_families().values())

    def collect(self) -> Iterable[Metric]:
        """Return the metrics as they are now."""
        families = _families()
        runtime = runtimes.current() if self._running is None else self._running._runtime
        overview = {"trees": [], "nodes": []} if runtime is None else runtime.overview()
        _add_nodes(families, overview["nodes"])
        for facts in self._facts(overview["trees"]):
            if facts["kind"] == "supervisor":
                _add_supervisor(families, facts)
            else:
                _add_worker(families, facts)
            up = float(facts["status"] == Status.RUNNING and not facts.get("node_lost"))
            families["up"].add_metric([facts["path"], facts["kind"], *_node(facts)], up)
            families["restarts"].add_metric([facts["path"]], facts.get("all_restarts", facts["restarts"]))
        return list(families.values())

    def _facts(self, trees: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        running = self._running
        if running is not None and runtimes.running_trees().get(running.name) is not running._root:
            return  # it has ended; a later tree may have its name
        for tree in trees:
            if running is None or tree["path"] == running.name:
                yield from _walk(tree)


def page() -> tuple[str, bytes]:
    """Return the media type and the text with the metrics of all trees of this program, as a scrape wants them."""
    registry = CollectorRegistry()
    registry.register(Collector())
    return CONTENT_TYPE_LATEST, generate_latest(registry)


def _families() -> dict[str, Any]:
    gauges = {
        name: GaugeMetricFamily(f"suitkaise_{name}", text, labels=labels) for name, (text, labels) in _GAUGES.items()
    }
    counters = {
        name: CounterMetricFamily(f"suitkaise_{name}", text, labels=labels)  # `_total` is added by the client
        for name, (text, labels) in _COUNTERS.items()
    }
    return {**gauges, **counters}


def _walk(facts: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield facts
    for child in facts.get("children", ()):
        yield from _walk(child)


def _add_supervisor(families: dict[str, Any], facts: dict[str, Any]) -> None:
    if "max_restarts" not in facts:  # it is down
        return
    path = [facts["path"]]
    allowed = facts["max_restarts"]
    families["restart_window_used"].add_metric(path, facts["restarts_used"])
    families["restart_window_allowed"].add_metric(path, math.inf if allowed is None else allowed)
    for reason, number in facts["exits"].items():
        families["exits"].add_metric([*path, re.sub(r"(?<=[a-z])(?=[A-Z])", "_", reason).lower()], number)


def _add_nodes(families: dict[str, Any], nodes: list[dict[str, Any]]) -> None:
    """Add the machines; a machine with several nodes, some for one worker alone, counts once."""
    by_name: dict[str, list[dict[str, Any]]] = {}
    for node in nodes:
        by_name.setdefault(node["name"], []).append(node)
    for name, same in by_name.items():
        told = [one for one in same if one["cpus"] is not None]
        heard = [one["silent"] for one in same if one["silent"] is not None]
        values = {
            "up": any(one["status"] == "running" for one in same),
            "workers": sum(one["workers"] for one in same),
            "silent_seconds": min(heard, default=None),
            "cpus_used": told[-1]["cpu"] if told else None,
            "cpus": told[-1]["cpus"] if told else None,
            "memory_used_bytes": told[-1]["memory"] if told else None,
            "memory_bytes": told[-1]["memory_total"] if told else None,
        }
        for what, value in values.items():
            if value is not None:
                families[f"node_{what}"].add_metric([name], float(value))


def _node(facts: dict[str, Any]) -> list[str]:
    """Return the label of the node; a worker of this machine has none, which is the same as an empty one."""
    return [facts["node"]] if facts.get("node") else []


def _add_worker(families: dict[str, Any], facts: dict[str, Any]) -> None:
    path = [facts["path"], *_node(facts)]
    if facts["uptime"] is not None:
        families["uptime_seconds"].add_metric(path, facts["uptime"])
    if "memory" in facts:  # as its node has told
        families["memory_bytes"].add_metric(path, facts["memory"])
    elif facts["pid"] is not None and facts["kind"] in ("process", "command") and "node" not in facts:
        families["memory_bytes"].add_metric(path, memory_of(facts["pid"]))
    if "loops" in facts:
        families["loops"].add_metric(path, facts["loops"])
        families["loop_seconds"].add_metric(path, facts["total_loop_time"])
        families["last_loop_seconds"].add_metric(path, facts["last_loop_time"])
        families["messages"].add_metric(path, facts["messages"])
        families["messages_skipped"].add_metric(path, facts["skipped"])
        families["messages_queued"].add_metric(path, facts["queued"])
        families["messages_blocked"].add_metric(path, facts["blocked"])
        families["oldest_message_seconds"].add_metric(path, facts["oldest_message"] or 0.0)
