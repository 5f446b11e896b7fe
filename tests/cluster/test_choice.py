"""`--on-a-cluster` runs trees on nodes that know nothing of them."""

from __future__ import annotations

import os
import signal

from suitkaise import Child, Supervisor
from tests.cluster.choice import all_trees_on_a_cluster
from tests.cluster.workers import Member
from tests.support import eventually


def test_a_tree_that_declares_no_engine_runs_on_nodes_and_the_next_one_finds_no_crashes_of_it() -> None:
    with all_trees_on_a_cluster("processes") as forget:
        with Supervisor("app", Child(Member, id="one")).start() as running:
            pid, node, _ = running["one"].ask("who", timeout=60.0)
            assert node not in (pid, os.getpid())
            os.kill(pid, signal.SIGKILL)
            assert eventually(running.crashes)
        forget()
        with Supervisor("app", Child(Member, id="one")).start() as running:
            assert running.crashes() == []
