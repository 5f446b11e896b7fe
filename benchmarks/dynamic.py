"""One child of a dynamic supervisor among 100, 1,000 and 10,000: the time to start, find, restart and stop it.

A thread itself takes longer among thousands of threads; the bare threads show how much longer.
"""

from __future__ import annotations

import math
import queue
import resource
import threading
import time
from collections.abc import Callable

from support import Row, heading, options, show
from workers import Fragile

from suitkaise import Child, DynamicSupervisor, whereis
from suitkaise.events import ChildExited, ChildStarted
from suitkaise.messaging.protocol import AdminAction, RequestKind
from suitkaise.runtime.running_tree import RunningTree
from suitkaise.testing import Behaviour, Simulation

MEASURED = 50
"""The number of children that are measured one by one, among all the others."""

Taken = dict[str, float]


def clock(what: Callable[[], object], times: int = 1) -> float:
    """Return the seconds of one of `times` operations."""
    began = time.perf_counter()
    what()
    return (time.perf_counter() - began) / times


def simulated(number: int) -> Taken:
    """Measure policy, executor and registry alone: the children are scripts, the clock is virtual."""
    simulation = Simulation(DynamicSupervisor("pool", max_restarts=math.inf), lambda launch: Behaviour())
    pool = simulation.root
    simulation.run(0.0)

    def start(times: int) -> None:
        for _ in range(times):
            pool.administer(AdminAction.START_CHILD, Child(Fragile))
            simulation.run(0.0)

    def find() -> None:
        for one in range(MEASURED):
            simulation.registry.request(RequestKind.FIND, f"pool/fragile-{one + 1}").get()

    def lose() -> None:
        for handle in chosen:
            handle.kill("benchmark")
            simulation.run(0.0)

    def terminate() -> None:
        for one in range(MEASURED):
            pool.administer(AdminAction.TERMINATE_CHILD, f"fragile-{one + 1}")
            simulation.run(0.0)

    def stop() -> None:
        simulation.stop()
        simulation.run(0.0)
        assert simulation.reason is not None

    start(number - MEASURED)
    taken = {"start one more": clock(lambda: start(MEASURED), MEASURED)}
    taken["find"] = clock(find, MEASURED)
    chosen = simulation.engine.launched[:MEASURED]
    taken["lose and restart"] = clock(lose, MEASURED)
    taken["terminate"] = clock(terminate, MEASURED)
    taken["stop all, each"] = clock(stop, number - MEASURED)
    return taken


def pool_of_threads(number: int) -> Taken:
    """Measure a whole program in which each child is a thread that waits for messages."""
    running = DynamicSupervisor("pool", max_restarts=math.inf).start()
    try:
        for _ in range(number - MEASURED):
            running.start_child(Fragile)
        return measure_threads(running, number)
    finally:
        running.stop()


def measure_threads(running: RunningTree, number: int) -> Taken:
    def start() -> None:
        for _ in range(MEASURED):
            running.start_child(Fragile)

    def find() -> None:
        for one in range(MEASURED):
            whereis(f"pool/fragile-{one + 1}")

    def lose() -> None:
        with running.events() as happened:
            for one in range(MEASURED):
                running[f"fragile-{one + 1}"].tell("crash")
                assert isinstance(happened.get(), ChildExited)
                while not isinstance(happened.get(), ChildStarted):
                    pass

    def terminate() -> None:
        for one in range(MEASURED):
            running.terminate_child(f"fragile-{one + 1}")

    return {
        "start one more": clock(start, MEASURED),
        "find": clock(find, MEASURED),
        "lose and restart": clock(lose, MEASURED),
        "terminate": clock(terminate, MEASURED),
        "stop all, each": clock(running.stop, number - MEASURED),
    }


def by_hand(number: int) -> Taken:
    """Measure as many bare threads that wait at a queue: the share of the operating system."""
    queues: list[queue.SimpleQueue[None]] = [queue.SimpleQueue() for _ in range(number)]
    up, down = threading.Semaphore(0), threading.Semaphore(0)

    def wait_for_message(inbox: queue.SimpleQueue[None]) -> None:
        up.release()
        inbox.get()
        down.release()

    def start(some: list[queue.SimpleQueue[None]]) -> None:
        for inbox in some:
            threading.Thread(target=wait_for_message, args=(inbox,), daemon=True).start()
            up.acquire()

    def terminate() -> None:
        for inbox in queues[:MEASURED]:
            inbox.put(None)
            down.acquire()

    def stop() -> None:
        for inbox in queues[MEASURED:]:
            inbox.put(None)
        for _ in queues[MEASURED:]:
            down.acquire()

    start(queues[MEASURED:])
    return {
        "start one more": clock(lambda: start(queues[:MEASURED]), MEASURED),
        "terminate": clock(terminate, MEASURED),
        "stop all, each": clock(stop, number - MEASURED),
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
