"""A node that is lost, and a flood of log records from a node, as an operator sees them."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable
from typing import Any

import pytest

from suitkaise import Child, Ray, Supervisor
from suitkaise.cli.health import readiness
from suitkaise.cluster.node_logs import WINDOW
from suitkaise.runtime.runtime import current
from tests.cluster.processes import ProcessCluster
from tests.cluster.workers import Member
from tests.support import eventually


def test_a_node_that_is_lost_is_told_until_another_comes(cluster: Callable[..., ProcessCluster]) -> None:
    machines = cluster("left", "right")
    with Supervisor("lost", Child(Member, copies=2, shutdown=0.5), engine=Ray()).start() as running:
        for copy in range(2):
            running[f"member-{copy}"].ask("who", timeout=60.0)
        del machines.alive["right"]
        machines.on("right").process.kill()

        def lost() -> Any:
            runtime = current()
            assert runtime is not None
            return [node for node in runtime.overview()["nodes"] if node["status"] == "lost"]

        (node,) = eventually(lost)
        assert node["name"] == "right"
        assert node["why"]
        eventually(lambda: not readiness(), timeout=30.0)
        assert [one["name"] for one in lost()] == ["right"]


def test_a_flood_of_records_on_a_node_delays_no_other_message_and_what_is_dropped_is_counted(
    cluster: Callable[..., ProcessCluster], caplog: pytest.LogCaptureFixture
) -> None:
    cluster("only")
    go_on, seen = threading.Event(), 0

    class Blocks(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            nonlocal seen
            if "flood" in record.getMessage():
                seen += 1
                go_on.wait(60.0)

    handler = Blocks()
    logging.getLogger("suitkaise.worker").addHandler(handler)
    try:
        with Supervisor("flooded", Child(Member, id="loud"), Child(Member, id="calm"), engine=Ray()).start() as running:
            running["calm"].ask("who", timeout=60.0)
            flood = running["loud"].ask_future(("flood", 30_000))
            assert running["calm"].ask("still there", timeout=30.0) == "still there"
            assert flood.get(60.0) == 30_000  # it is not held up for ever by a handler that blocks
            go_on.set()
            pattern = re.compile(r"(\d+) log records were dropped")
            eventually(
                lambda: seen + sum(int(found[1]) for found in pattern.finditer(caplog.text)) >= 30_000, timeout=30.0
            )
            assert seen + sum(int(found[1]) for found in pattern.finditer(caplog.text)) == 30_000
            assert seen <= 3 * WINDOW
    finally:
        go_on.set()
        logging.getLogger("suitkaise.worker").removeHandler(handler)
