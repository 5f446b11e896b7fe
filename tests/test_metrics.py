"""The collector for Prometheus, and the dashboard that shows its metrics."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("prometheus_client")

from prometheus_client import CollectorRegistry, generate_latest

from suitkaise import Child, DynamicSupervisor, Process, Supervisor, Thread
from suitkaise.metrics import Collector
from tests.support import ROOT, eventually

DASHBOARD = ROOT / "examples" / "deploy" / "grafana.json"


class Works(Process):
    def loop(self) -> None:
        self.wait(0.01)

    def on_receive(self, message: Any) -> Any:
        return message


class Idle(Thread):
    def on_receive(self, message: Any) -> Any:
        return message


def values(registry: CollectorRegistry) -> dict[tuple[str, ...], float]:
    """Return all samples: by the name and the values of the labels, in the order of the labels' names."""
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in registry.collect()
        for sample in family.samples
    }


def test_the_metrics_of_a_tree() -> None:
    registry = CollectorRegistry()
    registry.register(Collector())
    assert values(registry) == {}
    tree = Supervisor("app", Works, Idle, DynamicSupervisor("jobs", max_restarts=math.inf), max_restarts=7)
    with tree.start() as running:
        pid = running["works"].pid
        assert pid is not None
        assert running["works"].ask("hello") == "hello"
        eventually(lambda: values(registry)["suitkaise_loops_total", "app/works"] > 3)
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: running["works"].incarnation == 2 and running["works"].is_alive())
        eventually(lambda: values(registry)["suitkaise_loops_total", "app/works"] > 3)
        found = values(registry)
    assert found["suitkaise_up", "process", "app/works"] == 1.0
    assert found["suitkaise_up", "supervisor", "app"] == 1.0
    assert found["suitkaise_restarts_total", "app/works"] == 1
    assert found["suitkaise_restarts_total", "app/idle"] == 0
    assert found["suitkaise_exits_total", "signaled", "app"] == 1
    assert found["suitkaise_last_loop_seconds", "app/works"] > 0
    assert found["suitkaise_loop_seconds_total", "app/works"] > 0
    assert found["suitkaise_messages_total", "app/works"] == 0  # of the new incarnation
    assert found["suitkaise_messages_queued", "app/idle"] == 0
    assert found["suitkaise_memory_bytes", "app/works"] > 1 << 20
    assert ("suitkaise_memory_bytes", "app/idle") not in found  # a thread has the program's
    assert found["suitkaise_uptime_seconds", "app/works"] > 0
    assert (found["suitkaise_restart_window_used", "app"], found["suitkaise_restart_window_allowed", "app"]) == (1, 7)
    assert found["suitkaise_restart_window_allowed", "app/jobs"] == math.inf
    assert values(registry) == {}


def test_a_worker_that_is_down_is_not_up_and_keeps_its_counts() -> None:
    with Supervisor("app", Child(Works, restart="temporary", id="once"), Idle).start() as running:
        registry = CollectorRegistry()
        registry.register(Collector(running))
        running["idle"].ask(1)
        running.terminate_child("idle")
        found = values(registry)
    assert found["suitkaise_up", "thread", "app/idle"] == 0.0
    assert found["suitkaise_messages_total", "app/idle"] == 1
    assert found["suitkaise_exits_total", "shutdown", "app"] == 1


class Fails(Thread):
    def on_receive(self, message: Any) -> Any:
        raise ValueError("as it was told")


def test_restarts_and_exits_go_on_over_the_restarts_of_the_supervisors_above() -> None:
    registry = CollectorRegistry()
    registry.register(Collector())
    inner = Supervisor("inner", Fails, max_restarts=1)
    with Supervisor("app", inner).start() as running:
        for number in range(1, 4):
            running["inner/fails"].ask_future("fail")
            key = "suitkaise_exits_total", "crashed", "app/inner"
            eventually(lambda: values(registry).get(key) == number, what=f"crash {number}")  # noqa: B023
            eventually(lambda: values(registry).get(("suitkaise_up", "thread", "app/inner/fails")) == 1.0)
        found = values(registry)
    assert found["suitkaise_restarts_total", "app/inner"] == 1
    assert found["suitkaise_restarts_total", "app/inner/fails"] == 2
    assert found["suitkaise_exits_total", "shutdown", "app"] == 1
    assert found["suitkaise_restart_window_used", "app/inner"] == 1


def test_a_collector_of_one_tree_tells_of_no_other() -> None:
    with Supervisor("one", Idle).start() as one, Supervisor("two", Idle).start():
        registry = CollectorRegistry()
        registry.register(Collector(one))
        assert {key[-1].partition("/")[0] for key in values(registry)} == {"one"}


@pytest.mark.parametrize("others", [False, True])
def test_a_collector_of_a_tree_that_has_ended_tells_of_no_later_tree_of_its_name(others: bool) -> None:
    registry = CollectorRegistry()
    with contextlib.ExitStack() as stack:
        if others:  # the same runtime goes on
            stack.enter_context(Supervisor("other", Idle).start())
        with Supervisor("app", Idle).start() as former:
            registry.register(Collector(former))
            assert values(registry)["suitkaise_up", "thread", "app/idle"] == 1.0
        with Supervisor("app", Idle).start():
            assert values(registry) == {}


def families() -> Iterator[tuple[str, str]]:
    for family in Collector().describe():
        yield family.name + ("_total" if family.type == "counter" else ""), family.type


@pytest.mark.parametrize("wrong", [Supervisor("app"), "app", 5])
def test_a_collector_of_what_is_no_running_tree_is_refused_before_a_scrape(wrong: Any) -> None:
    with pytest.raises(TypeError, match="Collector takes a running tree, or None for all of the program, not "):
        Collector(wrong)


def test_the_names_follow_the_conventions_of_prometheus_and_each_metric_has_a_text() -> None:
    assert all(family.documentation for family in Collector().describe())
    for name, kind in families():
        assert re.fullmatch(r"suitkaise_[a-z_]+[a-z]", name)
        assert name.endswith("_total") == (kind == "counter")
        assert not re.search(r"_(ms|milliseconds|mb|kb|count|sum|bucket)(_total)?$", name)
    registry = CollectorRegistry()
    registry.register(Collector())
    with pytest.raises(ValueError, match="Duplicated"):
        registry.register(Collector())
    assert b"# TYPE suitkaise_restarts_total counter" in generate_latest(registry)


def test_the_dashboard_asks_only_for_metrics_and_labels_that_there_are() -> None:
    names = dict(families())
    labels = {label for family in Collector().describe() for label in getattr(family, "_labelnames", ())}
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    queries += [one["query"] for one in dashboard["templating"]["list"] if one["type"] == "query"]
    assert len(queries) >= 8
    asked = {name for query in queries for name in re.findall(r"suitkaise_\w+", query)}
    assert asked <= set(names)
    assert asked >= set(names) - {"suitkaise_last_loop_seconds"}
    for query in queries:
        for part in re.findall(r"\bby \(([^)]*)\)", query):
            assert {label.strip() for label in part.split(",")} <= labels
        for part in re.findall(r"(\w+)\s*[=!]~?\"", query):
            assert part in labels | {"instance", "job"}
        for name in re.findall(r"(?:rate|increase)\((\w+)", query):
            assert names[name] == "counter"
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


def test_without_prometheus_client_the_error_tells_what_to_install() -> None:
    code = (
        "import sys; sys.modules['prometheus_client'] = None\n"
        "try: import suitkaise.metrics\n"
        "except ImportError as error: print(error)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert found.strip() == "suitkaise.metrics needs prometheus-client: pip install 'suitkaise-xprocess[metrics]'"


def test_the_page_names_each_metric() -> None:
    text = (ROOT / "docs" / "howto" / "metrics_and_health.md").read_text(encoding="utf-8")
    missing = {name for name, _ in families() if f"`{name}`" not in text} - {"suitkaise_restart_window_allowed"}
    assert missing == set()
