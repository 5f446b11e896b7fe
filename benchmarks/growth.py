"""What one program does for a thousand nodes and a hundred thousand workers: in a simulation, and over TCP.

First a tree of that size on the simulated engine. Then the program's real supervisors and its real engine for clusters
against a process that plays the nodes, `growth_nodes.py`. The program cannot tell it from a cluster, but its workers do
nothing. Both run on this machine: two processors should be free. Each size is measured in a program of its own.
"""

from __future__ import annotations

import gc
import logging
import math
import multiprocessing
import os
import resource
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from growth_nodes import Machines
from support import heading, options

from suitkaise import Child, Process, Ray, RunningTree, Supervisor
from suitkaise.cluster import ray_cluster
from suitkaise.engines.engine import Launch
from suitkaise.exits import Lost, Signaled
from suitkaise.runtime.runtime import current, listen
from suitkaise.testing import Behaviour, Simulation

SIZES = ((10, 100), (100, 100), (300, 100), (1_000, 100))
LEASE = 60.0
"""Seconds: more than by default, since a full garbage collection of a large program holds up all of its threads."""


class Idle(Process):
    def on_receive(self, message: Any) -> None: ...


def tree(teams: int, members: int, **options: Any) -> Supervisor:
    team = Child(Idle, copies=members, id="member") if members > 1 else Child(Idle, id="member")
    return Supervisor(
        "app", *(Supervisor(f"team-{number}", team, max_restarts=math.inf) for number in range(teams)), **options
    )


# ---------------------------------------------------------------- on the simulated engine
def simulate(nodes: int, each: int) -> dict[str, float]:
    """Start a tree, end one worker in each team and one whole team at once, stop it; return processor seconds."""

    def behaviour(launch: Launch) -> Behaviour:
        if launch.number == 1 and launch.path.endswith("/member-1"):
            return Behaviour(lives=5.0, reason=Signaled(9))
        if launch.number == 1 and launch.path.startswith("app/team-0/"):
            return Behaviour(lives=10.0, reason=Lost("node-0: it was not heard", "node-0"))
        return Behaviour()

    taken: dict[str, float] = {}
    began = time.process_time()

    def lap(name: str) -> None:
        nonlocal began
        taken[name], began = time.process_time() - began, time.process_time()

    simulation = Simulation(tree(nodes, each), behaviour)
    lap("declare")
    simulation.run(until=1.0, most=20 * nodes * each)
    lap("start")
    simulation.run(until=9.0)
    lap("a death in each team")
    simulation.run(until=11.0)
    lap("loss of one node")
    alive = len(simulation.alive())
    simulation.stop()
    simulation.run(until=99.0, most=20 * nodes * each)
    lap("stop")
    if alive != nodes * each or len(simulation.crashes) != nodes + each - 1 or simulation.alive():
        raise SystemExit(f"{alive} workers ran, {len(simulation.crashes)} have crashed: that is not what was played")
    return taken | {"peak MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


# ---------------------------------------------------------------- over TCP
class Counts:
    """How often which kind of event was told, and when the last one was."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._changed = threading.Condition()

    def __call__(self, event: Any) -> None:
        with self._changed:
            self._counts[event.kind] = self._counts.get(event.kind, 0) + 1
            self._changed.notify_all()

    def reach(self, kind: str, more: int, act: Callable[[], object], timeout: float = 900.0) -> float:
        """Act, wait until so many more events of that kind were told, and return the seconds that this took."""
        wanted, began = self._counts.get(kind, 0) + more, time.monotonic()
        act()
        with self._changed:
            if not self._changed.wait_for(lambda: self._counts.get(kind, 0) >= wanted, timeout):
                raise SystemExit(f"{wanted - self._counts.get(kind, 0)} of {more} {kind} have not come")
            return time.monotonic() - began


def share(seconds: float) -> float:
    """Return the processors that this program uses."""
    wall, cpu = time.monotonic(), time.process_time()
    time.sleep(seconds)
    return (time.process_time() - cpu) / (time.monotonic() - wall)


def memory() -> float:
    """Return the KiB that this program has."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 1024


def run(nodes: int, each: int, seconds: float) -> dict[str, float]:
    """Run a tree of so many workers on each of so many nodes; return what the program needs for it."""
    logging.getLogger("suitkaise").addHandler(logging.NullHandler())
    machines = Machines(nodes)
    ray_cluster.join = lambda spec: machines  # type: ignore[assignment, return-value]
    counts, found, workers = Counts(), {}, nodes * each
    end = listen(counts)
    declared = tree(nodes, each, engine=Ray(lease=LEASE))
    gc.disable()
    before, cpu, running = memory(), time.process_time(), []
    wall = counts.reach("child_started", workers, lambda: running.append(declared.start()))
    started: RunningTree = running[0]
    found["starts/s"], found["CPU ms a start"] = workers / wall, 1e3 * (time.process_time() - cpu) / workers
    time.sleep(2.0)
    found["KiB a worker, all in all"] = (memory() - before) / workers
    cpu = time.process_time()
    gc.collect()
    found["CPU s: a full garbage collection"] = time.process_time() - cpu
    gc.freeze()
    gc.enable()
    machines.order("figures", False)
    time.sleep(2.0)
    found["CPU: pulses, nothing changes"] = share(seconds)
    machines.order("busy", True)
    time.sleep(1.5)
    found["CPU: pulses, all slots change"] = share(seconds)
    machines.order("busy", False)
    machines.order("figures", True)
    time.sleep(2.0)
    found["CPU: pulses, nothing changes, and figures"] = share(seconds)
    runtime = current()
    assert runtime is not None
    cpu = time.process_time()
    runtime.overview()
    found["CPU s: one look at all (ps, /metrics)"] = time.process_time() - cpu
    taken = [counts.reach("child_started", 1, lambda: machines.order("kill workers", 1)) for _ in range(10)]
    found["ms: a death to its replacement"] = 1e3 * sorted(taken)[len(taken) // 2]
    some, cpu = min(1_000, workers), time.process_time()
    wall = counts.reach("child_started", some, lambda: machines.order("kill workers", some))
    found["restarts/s"], found["CPU ms a restart"] = some / wall, 1e3 * (time.process_time() - cpu) / some
    found["s: a node's process is lost, all replaced"] = counts.reach(
        "child_started", each, lambda: machines.lose("machine-0")
    )
    found["s: a machine is lost, all replaced"] = counts.reach(
        "child_started", each, lambda: machines.lose("machine-1", machine=True)
    )
    cpu = time.process_time()
    stopper = threading.Thread(target=started.stop)
    found["stops/s"] = workers / counts.reach("child_stopped", workers, stopper.start)
    found["CPU ms a stop"] = 1e3 * (time.process_time() - cpu) / workers
    stopper.join()
    end()
    return found


def main() -> None:
    quick = options(__doc__ or "").quick
    heading("growth")
    print(f"  {resource.getrlimit(resource.RLIMIT_NOFILE)[0]} descriptors; a lease of {LEASE:g} s")
    sizes, seconds = (((4, 10), (8, 10)), 1.0) if quick else (SIZES, 10.0)
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        # Crash reports go there; and nobody who asks all programs of this user how they are asks this one.
        os.environ |= {"SUITKAISE_STATE": folder, "XDG_RUNTIME_DIR": folder}
        show_columns("the simulated engine: processor seconds", {size: alone(simulate, *size) for size in sizes})
        show_columns("the engine for clusters: one program", {size: alone(run, *size, seconds) for size in sizes})


def alone(function: Callable[..., dict[str, float]], *arguments: float) -> dict[str, float]:
    """Call a function in a new process, whose memory is its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(function, *arguments).result()


def show_columns(title: str, columns: dict[tuple[int, int], dict[str, float]]) -> None:
    print(f"\n{title}")
    names = list(next(iter(columns.values())))
    width = max(map(len, names))
    print(f"  {'nodes x workers on each':{width}}" + "".join(f"  {f'{a:,} x {b}':>12}" for a, b in columns))
    for name in names:
        print(f"  {name:{width}}" + "".join(f"  {column[name]:>12.4g}" for column in columns.values()), flush=True)


if __name__ == "__main__":
    main()
