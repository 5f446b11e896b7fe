"""From SIGKILL to the first loop of the next incarnation: a supervisor, with and without spares, and code by hand."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from multiprocessing.connection import wait

from heavy import Heavy
from starting import WAYS, begin, contexts, end, forkserver_ends
from support import Starts, heading, measure, options, show, starts
from workers import Idle

from suitkaise import Child, Supervisor, preload
from suitkaise.runtime.running_tree import RunningTree


def ours(running: RunningTree, id: str, pipe: Starts) -> float:
    pid = running[id].pid
    assert pid is not None
    began = time.monotonic_ns()
    os.kill(pid, signal.SIGKILL)
    taken = pipe.next() - began
    while running[id].pid in (pid, None):  # the next SIGKILL needs the new pid
        time.sleep(0.001)
    return taken / 1e9


class ByHand:
    """The shortest code that restarts a process: wait on its sentinel, start it again."""

    def __init__(self, way: str, pipe: Starts) -> None:
        self._context = contexts()[way]
        self._pipe = pipe
        self._process = begin(self._context, pipe.path)
        pipe.next()

    def restart(self) -> float:
        began = time.monotonic_ns()
        os.kill(self._process.pid or 0, signal.SIGKILL)
        wait([self._process.sentinel])
        self._process.join()
        self._process = begin(self._context, self._pipe.path)
        return (self._pipe.next() - began) / 1e9

    def end(self) -> None:
        end(self._process)


def main() -> None:
    quick = options(__doc__ or "").quick
    heading("restart")
    preload("workers")  # the forkserver has preloaded its module too
    with starts() as pipe, forkserver_ends():
        hands = {way: ByHand(way, pipe) for way in WAYS}
        children = [
            Child(kind(pipe.path), id=f"{kind.__name__}{spares}", spares=spares)
            for kind in (Idle, Heavy)
            for spares in (0, 1)
        ]
        with Supervisor("benchmark", *children, max_restarts=float("inf")).start() as running:
            for _ in children:
                pipe.next()
            group: dict[str, Callable[[], float]] = {way: hand.restart for way, hand in hands.items()}
            group["suitkaise"] = lambda: ours(running, "Idle0", pipe)
            group["suitkaise, spares=1"] = lambda: ours(running, "Idle1", pipe)
            rows = measure(5 if quick else 101, group, {"suitkaise": 1.5}, pause=0.1)
            for hand in hands.values():
                hand.end()
            group = {"suitkaise": lambda: ours(running, "Heavy0", pipe)}
            group["suitkaise, spares=1"] = lambda: ours(running, "Heavy1", pipe)
            heavy = measure(5 if quick else 31, group, {}, pause=0.5)
    show("SIGKILL to the first loop of the next incarnation", "ms", rows, scale=1e3)
    show("the same where its module takes long to import", "ms", heavy, scale=1e3)


if __name__ == "__main__":
    main()
