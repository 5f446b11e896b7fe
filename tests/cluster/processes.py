"""A cluster without Ray: each machine is this one, and each node a process that a test starts and may kill."""

from __future__ import annotations

import base64
import subprocess
import sys
import threading
from collections.abc import Mapping
from concurrent.futures import Future

import psutil

from suitkaise.cluster.machines import Ended, Machine
from suitkaise.cluster.node import Settings
from suitkaise.messaging import codec
from suitkaise.specs.cluster import Place

PROGRAM = """
import base64, sys
from suitkaise.cluster.node import Node
from suitkaise.messaging import codec
Node(codec.loads(base64.b64decode(sys.argv[1])), sys.argv[2]).run()
"""


class ProcessCluster:
    """Machines by name, with their resources."""

    host = "127.0.0.1"

    def __init__(self, machines: Mapping[str, Mapping[str, float]]) -> None:
        self.alive = dict(machines)
        self.nodes: list[NodeInProcess] = []
        self.closed = False

    def machines(self) -> list[Machine]:
        return [Machine(name, name, "127.0.0.1") for name in self.alive]

    def start(self, settings: Settings, machine: Machine | None, place: Place) -> NodeInProcess:
        wanted = place.resources or {}
        fit = [
            name
            for name, resources in self.alive.items()
            if all(resources.get(one, 0) >= amount for one, amount in wanted.items())
        ]
        node = NodeInProcess(settings, machine.id if machine is not None else fit[0])
        self.nodes.append(node)
        return node

    def close(self) -> None:
        self.closed = True
        for node in self.nodes:
            node.process.wait(10)

    def on(self, machine: str) -> NodeInProcess:
        """Return the newest node on a machine."""
        return [node for node in self.nodes if node.machine == machine][-1]


class NodeInProcess:
    def __init__(self, settings: Settings, machine: str) -> None:
        self.ended: Future[Ended] = Future()
        self.machine = machine
        self.reachable = True
        data = base64.b64encode(codec.dumps(settings)).decode()
        self.process = subprocess.Popen([sys.executable, "-c", PROGRAM, data, machine], stdin=subprocess.DEVNULL)
        threading.Thread(target=self._wait, daemon=True).start()

    def _wait(self) -> None:
        self.ended.set_result(Ended(f"its process has ended with code {self.process.wait()}", certain=True))

    def kill(self) -> None:
        if self.reachable:
            self.process.kill()

    def family(self) -> list[psutil.Process]:
        """Return the process, its keeper and its workers."""
        process = psutil.Process(self.process.pid)
        return [process, *process.children(recursive=True)]
