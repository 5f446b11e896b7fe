"""What one child of a dynamic supervisor costs among 100, 1,000 and 10,000: to start, find, lose and stop it.

A thread itself costs more where there are thousands of them; the bare ones tell how much of it that is.
"""

from __future__ import annotations

import math
import queue
import resource
import threading
import time
from collections.abc import Callable

from support import Row, heading, options, show
from workers import Mortal

from suitkaise import Child, DynamicSupervisor, whereis
from suitkaise.events import ChildExited, ChildStarted
from suitkaise.messaging.protocol import AdminAction, RequestKind
from suitkaise.runtime.running_tree import RunningTree
from suitkaise.testing import Behaviour, Simulation

LOOKED_AT = 50
"""So many of them are measured one by one, once all are there."""

Taken = dict[str, float]


def clock(what: Callable[[], object], times: int = 1) -> float:
    """Seconds for one of so many."""
    began = time.perf_counter()
    what()
    return (time.perf_counter() - began) / times


def simulated(number: int) -> Taken:
    """Supervisor, policy, executor and registry alone: its children are scripts, its clock is virtual."""
    simulation = Simulation(DynamicSupervisor("pool", max_restarts=math.inf), lambda launch: Behaviour())
    pool = simulation.root
    simulation.run(0.0)

    def start(times: int) -> None:
        for _ in range(times):
            pool.administer(AdminAction.START_CHILD, Child(Mortal))
            simulation.run(0.0)

    def find() -> None:
        for one in range(LOOKED_AT):
            simulation.registry.request(RequestKind.FIND, f"pool/mortal-{one + 1}").get()

    def lose() -> None:
        for handle in chosen:
            handle.kill("benchmark")
            simulation.run(0.0)

    def terminate() -> None:
        for one in range(LOOKED_AT):
            pool.administer(AdminAction.TERMINATE_CHILD, f"mortal-{one + 1}")
            simulation.run(0.0)

    def stop() -> None:
        simulation.stop()
        simulation.run(0.0)
        assert simulation.reason is not None

    start(number - LOOKED_AT)
    taken = {"start one more": clock(lambda: start(LOOKED_AT), LOOKED_AT)}
    taken["find"] = clock(find, LOOKED_AT)
    chosen = simulation.engine.launched[:LOOKED_AT]
    taken["lose and restart"] = clock(lose, LOOKED_AT)
    taken["terminate"] = clock(terminate, LOOKED_AT)
    taken["stop all, each"] = clock(stop, number - LOOKED_AT)
    return taken


def pool_of_threads(number: int) -> Taken:
    """A whole program, each child a thread that waits for messages."""
    running = DynamicSupervisor("pool", max_restarts=math.inf).start()
    try:
        for _ in range(number - LOOKED_AT):
            running.start_child(Mortal)
        return measure_threads(running, number)
    finally:
        running.stop()


def measure_threads(running: RunningTree, number: int) -> Taken:
    def start() -> None:
        for _ in range(LOOKED_AT):
            running.start_child(Mortal)

    def find() -> None:
        for one in range(LOOKED_AT):
            whereis(f"pool/mortal-{one + 1}")

    def lose() -> None:
        with running.events() as happened:
            for one in range(LOOKED_AT):
                running[f"mortal-{one + 1}"].tell("die")
                assert isinstance(happened.get(), ChildExited)
                while not isinstance(happened.get(), ChildStarted):
                    pass

    def terminate() -> None:
        for one in range(LOOKED_AT):
            running.terminate_child(f"mortal-{one + 1}")

    return {
        "start one more": clock(start, LOOKED_AT),
        "find": clock(find, LOOKED_AT),
        "lose and restart": clock(lose, LOOKED_AT),
        "terminate": clock(terminate, LOOKED_AT),
        "stop all, each": clock(running.stop, number - LOOKED_AT),
    }


def by_hand(number: int) -> Taken:
    """As many bare threads that wait at a queue: what the system itself costs."""
    queues: list[queue.SimpleQueue[None]] = [queue.SimpleQueue() for _ in range(number)]
    up, down = threading.Semaphore(0), threading.Semaphore(0)

    def live(inbox: queue.SimpleQueue[None]) -> None:
        up.release()
        inbox.get()
        down.release()

    def start(some: list[queue.SimpleQueue[None]]) -> None:
        for inbox in some:
            threading.Thread(target=live, args=(inbox,), daemon=True).start()
            up.acquire()

    def terminate() -> None:
        for inbox in queues[:LOOKED_AT]:
            inbox.put(None)
            down.acquire()

    def stop() -> None:
        for inbox in queues[LOOKED_AT:]:
            inbox.put(None)
        for _ in queues[LOOKED_AT:]:
            down.acquire()

    start(queues[LOOKED_AT:])
    return {
        "start one more": clock(lambda: start(queues[:LOOKED_AT]), LOOKED_AT),
        "terminate": clock(terminate, LOOKED_AT),
        "stop all, each": clock(stop, number - LOOKED_AT),
    }


def main() -> None:
    quick = options(__doc__ or "").quick
    heading("dynamic")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    numbers = (100, 200) if quick else (100, 1_000, 10_000)
    for title, take in {"simulated": simulated, "threads": pool_of_threads, "bare threads": by_hand}.items():
        take(numbers[0])  # the first does not count
        runs: dict[int, list[Taken]] = {number: [] for number in numbers}
        for _ in range(1 if quick else 5):
            for number in numbers:
                runs[number].append(take(number))
        for what in runs[numbers[0]][0]:
            rows = [
                Row(f"among {number:,}", [taken[what] for taken in runs[number]], None if number == numbers[0] else 1.5)
                for number in numbers
            ]
            show(f"{title}: {what}", "us", rows, scale=1e6)


if __name__ == "__main__":
    main()
