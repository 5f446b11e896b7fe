"""Three nodes of Ray on this machine; a worker, a node's process and a raylet are killed, and a raylet is frozen."""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Any

import psutil
import ray
from ray.cluster_utils import Cluster

from suitkaise import Child, Lost, Process, Ray, Signaled, Supervisor, WorkerDead
from suitkaise.events import ChildExited, NodeLost
from suitkaise.runtime.runtime import current

HEALTH = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 500,
    "health_check_failure_threshold": 3,
}
STORE = {"object_store_memory": 80 << 20, "include_dashboard": False, "num_cpus": 1}


class Member(Process):
    shutdown = 2.0

    def on_start(self) -> None:
        self.tree.add("started", os.getpid(), path=self.name)

    def loop(self) -> None:
        self.tree.add("writer", os.getpid(), path=self.name)
        self.wait(0.02)

    def on_receive(self, message: Any) -> Any:
        return os.getpid(), self.recalled and self.recalled.reason


def node_of(id: str) -> str:
    runtime = current()
    assert runtime is not None
    return next(child["node"] for child in runtime.overview()["trees"][0]["children"] if child["id"] == id)


def wait_for_next(events: Any, id: str) -> ChildExited:
    return next(one for one in events if isinstance(one, ChildExited) and one.path == f"app/{id}")


def ask_again(ref: Any, timeout: float = 60.0) -> Any:
    until = time.monotonic() + timeout
    while True:
        try:
            return ref.ask("who", timeout=timeout)
        except WorkerDead:
            assert time.monotonic() < until


def processes_of(raylet_pid: int) -> list[psutil.Process]:
    return psutil.Process(raylet_pid).children(recursive=True)


def main(what: set[str]) -> None:
    cluster = Cluster(initialize_head=True, head_node_args={"_system_config": HEALTH, "node_name": "head", **STORE})
    names = ["left", "right"]
    others = {name: cluster.add_node(node_name=name, **STORE) for name in names}
    handler = signal.getsignal(signal.SIGTERM)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    tree = Supervisor(
        "app", *(Child(Member, id=f"member-{n}") for n in range(3)), max_restarts=1,
        engine=Ray(address=cluster.address, lease=4.0),
    )  # fmt: skip
    with tree.start() as running, running.events() as events:
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        at = {node_of(f"member-{n}").split()[0]: f"member-{n}" for n in range(3)}
        assert set(at) == {"head", "left", "right"}, at
        print("spread", flush=True)

        if "worker" in what:
            ref = running[at["left"]]
            began = time.monotonic()
            pid = ref.pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            assert wait_for_next(events, at["left"]).reason == Signaled(signal.SIGKILL)
            assert ask_again(ref)[1] == Signaled(signal.SIGKILL)
            print(f"worker killed: answers again after {(time.monotonic() - began) * 1000:.0f} ms", flush=True)

        if "process" in what:
            ref = running[at["left"]]
            keeper = psutil.Process(psutil.Process(ref.pid).ppid())
            began = time.monotonic()
            os.kill(keeper.ppid(), signal.SIGKILL)
            lost = next(one for one in events if isinstance(one, NodeLost))
            noticed = time.monotonic() - began
            assert lost.workers == 1
            assert isinstance(wait_for_next(events, at["left"]).reason, Lost)
            assert isinstance(ask_again(ref)[1], Lost)
            print(
                f"process of a node killed: noticed after {noticed * 1000:.0f} ms, "
                f"answers again after {time.monotonic() - began:.1f} s", flush=True,
            )  # fmt: skip

        if "raylet" in what:
            id = next(f"member-{n}" for n in range(3) if node_of(f"member-{n}").startswith("right"))
            raylet = others["right"].all_processes["raylet"][0].process.pid
            began = time.monotonic()
            os.kill(raylet, signal.SIGKILL)
            next(one for one in events if isinstance(one, NodeLost))
            noticed = time.monotonic() - began
            assert isinstance(wait_for_next(events, id).reason, Lost)
            assert isinstance(ask_again(running[id])[1], Lost)
            print(
                f"raylet killed: noticed after {noticed * 1000:.0f} ms, "
                f"answers again after {time.monotonic() - began:.1f} s", flush=True,
            )  # fmt: skip

        if "frozen" in what:
            id = next(f"member-{n}" for n in range(3) if node_of(f"member-{n}").startswith("left"))
            raylet = others["left"].all_processes["raylet"][0].process.pid
            former = running[id].pid or 0
            began = time.monotonic()
            os.kill(raylet, signal.SIGSTOP)
            next(one for one in events if isinstance(one, NodeLost))
            wait_for_next(events, id)
            assert not psutil.pid_exists(former) or psutil.Process(former).status() == psutil.STATUS_ZOMBIE
            writer = ask_again(running[id])[0]
            assert writer != former
            print(f"raylet frozen: answers again after {time.monotonic() - began:.1f} s", flush=True)
            os.kill(raylet, signal.SIGCONT)
            assert ask_again(running[id])[0] == writer
    print("stopped", flush=True)
    signal.signal(signal.SIGTERM, handler)
    cluster.shutdown()
    assert not ray.is_initialized()
    print("all is well", flush=True)


if __name__ == "__main__":
    main(set(sys.argv[1:]))
