"""A tree on a Ray cluster of two nodes on this machine, beside Ray's own actors on the same cluster (extra `ray`).

From SIGKILL of a worker to an answer of its replacement, an ask, an ask between two nodes, and memory. Ray's actors are
declared with `max_restarts=-1, max_task_retries=-1`, the way in which Ray restarts them by itself.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any

import psutil
import ray
from support import heading, measure, options, show

from suitkaise import Child, Place, Process, Ray, Supervisor, WorkerDead, whereis


class Worker(Process):
    def on_receive(self, message: Any) -> Any:
        match message:
            case "pid":
                return os.getpid()
            case "ask", path, times:
                ref = whereis(path)
                began = time.perf_counter()
                for _ in range(times):
                    ref.ask("pid")
                return (time.perf_counter() - began) / times


class Actor:
    def pid(self) -> int:
        return os.getpid()

    def ask(self, other: Any, times: int) -> float:
        began = time.perf_counter()
        for _ in range(times):
            ray.get(other.pid.remote())
        return (time.perf_counter() - began) / times


def until_another(former: int, ask: Callable[[], int]) -> float:
    """Kill a process; return the seconds until `ask` is answered by another one."""
    began = time.perf_counter()
    os.kill(former, signal.SIGKILL)
    while True:
        try:
            if ask() != former:
                return time.perf_counter() - began
        except (WorkerDead, ray.exceptions.RayActorError):
            continue


def asked(times: int, ask: Callable[[], object]) -> float:
    began = time.perf_counter()
    for _ in range(times):
        ask()
    return (time.perf_counter() - began) / times


def main() -> None:
    quick = options(__doc__ or "").quick
    heading("cluster")
    times, rounds = (20, 2) if quick else (300, 9)
    children = [Child(Worker, id=f"worker-{number}", place=Place(node=f"node-{number}")) for number in range(2)]
    with Supervisor("app", *children, max_restarts=float("inf"), engine=Ray(nodes=2)).start() as running:
        refs = [running[f"worker-{number}"] for number in range(2)]
        nodes = {node["NodeName"]: node["NodeID"] for node in ray.nodes()}
        make = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Actor)
        affinity = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
        actors = [make.options(scheduling_strategy=affinity(nodes[f"node-{n}"], soft=False)).remote() for n in range(2)]

        def ours() -> float:
            return until_another(refs[1].ask("pid", timeout=30.0), lambda: refs[1].ask("pid", timeout=30.0))

        def rays() -> float:
            return until_another(ray.get(actors[1].pid.remote()), lambda: ray.get(actors[1].pid.remote()))

        restart = measure(rounds, {"Ray's actor": rays, "suitkaise": ours}, {"suitkaise": 0.1}, pause=0.5)
        ask = measure(rounds, {
            "Ray's actor": lambda: asked(times, lambda: ray.get(actors[0].pid.remote())),
            "suitkaise": lambda: asked(times, lambda: refs[0].ask("pid")),
        }, {"suitkaise": 1.0})  # fmt: skip
        between = measure(rounds, {
            "Ray's actor": lambda: ray.get(actors[0].ask.remote(actors[1], times)),
            "suitkaise": lambda: refs[0].ask(("ask", "app/worker-1", times), timeout=60.0),
        }, {"suitkaise": 1.0})  # fmt: skip
        pids = {"Ray's actor": ray.get(actors[0].pid.remote()), "suitkaise": refs[0].ask("pid")}
        memory = measure(1, {
            name: lambda pid=pid: psutil.Process(pid).memory_full_info().pss for name, pid in pids.items()
        }, {"suitkaise": 0.2})  # fmt: skip
    show("SIGKILL of a worker to an answer of its replacement", "ms", restart, scale=1e3)
    show("ask from the program", "us", ask, scale=1e6)
    show("ask from a worker on one node to one on another", "us", between, scale=1e6)
    show("memory of an idle worker (PSS)", "MiB", memory, scale=1 / 2**20)


if __name__ == "__main__":
    main()
