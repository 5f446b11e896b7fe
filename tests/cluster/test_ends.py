"""Ends of the program, and of nodes that are only out of reach: no worker runs twice, and none is left behind."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from suitkaise import Child, Process, Ray, Supervisor, sktree
from suitkaise.events import ChildExited, NodeLost
from tests.cluster.processes import ProcessCluster
from tests.support import ROOT, eventually, start_program, wait_gone

MakeCluster = Callable[..., ProcessCluster]

PROGRAM = """
import contextlib, os, sys, threading, time
from pathlib import Path
from suitkaise import Child, Process, Ray, Supervisor
from suitkaise.cluster import ray_cluster
from tests.cluster.processes import ProcessCluster

class Member(Process):
    def __init__(self, record):
        self.record = record


    def on_finish(self):
        with Path(self.record).open("a") as file:
            file.write(f"{self.name} finish\\n")

def tell_when_up():
    from suitkaise import SuitkaiseError, whereis
    while True:
        with contextlib.suppress(SuitkaiseError):  # before the start of the tree
            if whereis("app/member-1").status == "running":
                break
        time.sleep(0.05)
    print("up", flush=True)

cluster = ProcessCluster({"a": {}, "b": {}})
ray_cluster.join = lambda spec: cluster
tree = Supervisor("app", *(Child(Member, args=(sys.argv[1],), id=f"member-{n}") for n in range(2)), engine=Ray())
"""


class Writes(Process):
    """Writes who it is into the storage, again and again."""

    shutdown = 1.0

    def loop(self) -> None:
        self.tree.add("writer", os.getpid(), path="only")
        self.wait(0.01)

    def on_receive(self, message: Any) -> int:
        return os.getpid()


def test_a_node_that_is_cut_off_is_replaced_after_its_lease_and_writes_nothing_late(cluster: MakeCluster) -> None:
    nodes_of = cluster("a", "b")
    tree = Supervisor("app", Child(Writes, id="only"), max_restarts=0, engine=Ray(lease=1.0))
    storage = sktree.connect()
    try:
        with tree.start() as running, running.events() as events:
            first = running["only"].pid or 0
            (machine,) = [node.machine for node in nodes_of.nodes if first in [one.pid for one in node.family()]]
            frozen = nodes_of.on(machine)
            family = frozen.family()
            frozen.reachable = False
            for process in family:  # as if the machine slept
                process.suspend()
            lost = next(event for event in events if isinstance(event, NodeLost))
            assert "it was not heard for" in lost.why
            exited = next(event for event in events if isinstance(event, ChildExited))
            assert exited.at - lost.at > 1.0  # the rest of the lease, and the shutdown time
            second = running["only"].ask("who", timeout=30.0)
            assert second != first
            eventually(lambda: storage.get("writer", path="only", default=None) == second, what="it writes")
            for process in family:
                with contextlib.suppress(psutil.NoSuchProcess):  # one that goes on ends the others
                    process.resume()
            for process in family:
                wait_gone(process.pid)
            assert storage.get("writer", path="only") == second
    finally:
        sktree.disconnect()


@pytest.mark.parametrize(
    "end, number",
    [
        ("running = tree.start(); print('up'); time.sleep(60)", signal.SIGKILL),
        pytest.param("threading.Timer(0.1, tell_when_up).start(); tree.run()", signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param("running = tree.start(); print('up')", None, marks=pytest.mark.slow),
    ],
    ids=["it is killed", "SIGTERM", "its main module ends"],
)
def test_workers_finish_however_the_program_ends(end: str, number: int | None, tmp_path: Path) -> None:
    record = tmp_path / "record"
    environment = {"PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "src")))}
    with start_program(f"{PROGRAM}{end}\n", str(record), env=environment) as program:
        program.expect("up", timeout=50.0)
        if number is not None:
            program.send_signal(number)
        program.wait(50.0)
        eventually(lambda: not program.relatives(), what="the end of all that the program has started")
    assert sorted(record.read_text().split()[::2]) == ["member-0", "member-1"]
