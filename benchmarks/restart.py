"""From SIGKILL to the first loop of the next incarnation: a supervisor, without spares and with them, and by hand."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import wait
from typing import Any

from heavy import Heavy
from starting import WAYS, begin, contexts, end, forkserver_ends
from support import Starts, heading, measure, measure_apart, options, show, starts
from workers import Big, Idle

from suitkaise import Child, Supervisor, preload
from suitkaise.runtime.running_tree import RunningTree

BIG = 1 << 30
"""Bytes that a big worker holds when it is killed."""

SPARE: dict[str, Any] = {"": {}, ", spares=1": {"spares": 1},
                         ", early_restart=True": {"spares": 1, "early_restart": True}}  # fmt: skip


def ours(running: RunningTree, id: str, pipe: Starts, *, big: bool = False) -> float:
    pid = running[id].pid
    assert pid is not None
    began = time.monotonic_ns()
    os.kill(pid, signal.SIGKILL)
    taken = pipe.next() - began
    if big:
        pipe.next()
    while running[id].pid in (pid, None):  # the next SIGKILL needs the new pid
        time.sleep(0.001)
    return taken / 1e9


class ByHand:
    """The shortest code that restarts a process: wait on its sentinel, start it again."""

    def __init__(self, way: str, pipe: Starts, size: int = 0) -> None:
        self._context = contexts()[way]
        self._pipe = pipe
        self._size = size
        self._process = begin(self._context, pipe.path, size)
        self._next()

    def _next(self) -> int:
        started = self._pipe.next()
        if self._size:
            self._pipe.next()
        return started

    def restart(self) -> float:
        began = time.monotonic_ns()
        os.kill(self._process.pid or 0, signal.SIGKILL)
        wait([self._process.sentinel])
        self._process.join()
        self._process = begin(self._context, self._pipe.path, self._size)
        return (self._next() - began) / 1e9

    def end(self) -> None:
        end(self._process)


def main() -> None:
    quick = options(__doc__ or "").quick
    heading("restart")
    preload("workers")  # the forkserver has preloaded its module too
    with starts() as pipe, forkserver_ends():
        hands = {way: ByHand(way, pipe) for way in WAYS}
        children = [
            Child(kind(pipe.path), id=f"{kind.__name__}{name}", **options)
            for kind in (Idle, Heavy)
            for name, options in SPARE.items()
        ]
        with Supervisor("benchmark", *children, max_restarts=float("inf")).start() as running:
            for _ in children:
                pipe.next()
            first, *others = hands
            group: dict[str, Callable[[], float]] = {first: hands[first].restart}
            group |= {f"suitkaise{name}": partial(ours, running, f"Idle{name}", pipe) for name in SPARE}
            apart = {way: hands[way].restart for way in others}
            rows = measure_apart(5 if quick else 101, group, apart, {"suitkaise": 1.5}, pause=0.1)
            for hand in hands.values():
                hand.end()
            group = {f"suitkaise{name}": partial(ours, running, f"Heavy{name}", pipe) for name in SPARE}
            heavy = measure(5 if quick else 31, group, {}, pause=0.5)
        hands = {way: ByHand(way, pipe, BIG) for way in WAYS[:2]}
        children = [Child(Big(pipe.path, BIG), id=f"Big{name}", **options) for name, options in SPARE.items()]
        with Supervisor("benchmark", *children, max_restarts=float("inf")).start() as running:
            for _ in 2 * children:
                pipe.next()
            first, other = hands
            group = {first: hands[first].restart}
            group |= {f"suitkaise{name}": partial(ours, running, f"Big{name}", pipe, big=True) for name in SPARE}
            big = measure_apart(3 if quick else 21, group, {other: hands[other].restart}, {}, pause=0.5)
            for hand in hands.values():
                hand.end()
    show("SIGKILL to the first loop of the next incarnation", "ms", rows, scale=1e3)
    show("the same where its module takes long to import", "ms", heavy, scale=1e3)
    show("the same where the dead worker has held 1 GiB", "ms", big, scale=1e3)


if __name__ == "__main__":
    main()
