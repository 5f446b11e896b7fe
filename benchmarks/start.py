"""From `start_child` to the first loop of a worker, and from the start of a program to the first loop of its worker."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable

from starting import WAYS, begin, contexts, end, forkserver_ends
from support import ROOT, Starts, heading, measure, measure_apart, options, show, starts
from workers import AsyncIdle, Idle

from suitkaise import Child, Process, Supervisor, preload
from suitkaise.runtime.running_tree import RunningTree


def ours(running: RunningTree, pipe: Starts, worker: type[Process] = Idle) -> float:
    began = time.monotonic_ns()
    running.start_child(Child(worker, args=(pipe.path,), id="one", restart="temporary"))
    taken = pipe.next() - began
    running.terminate_child("one")
    return taken / 1e9


def theirs(way: str, pipe: Starts) -> float:
    context = contexts()[way]
    began = time.monotonic_ns()
    process = begin(context, pipe.path)
    taken = pipe.next() - began
    end(process)
    return taken / 1e9


OUR_PROGRAM = """
from workers import AsyncIdle, Idle
from suitkaise import Supervisor
if __name__ == "__main__":
    with Supervisor("b", Idle({path!r})).start():
        input()
"""
THEIR_PROGRAM = """
from starting import begin, contexts, end
if __name__ == "__main__":
    p = begin(contexts()[{way!r}], {path!r})
    input()
    end(p)
"""


def cold(program: str, pipe: Starts) -> float:
    """Return the seconds from the start of an interpreter with `program` to the first loop of the worker."""
    began = time.monotonic_ns()
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT / "benchmarks"), str(ROOT / "src")))},
    ) as child:
        taken = pipe.next() - began
        child.communicate(b"\n")
    return taken / 1e9


def main() -> None:
    quick = options(__doc__ or "").quick
    heading("start")
    preload("workers")  # the forkserver has preloaded its module too
    with starts() as pipe, forkserver_ends():
        with Supervisor("benchmark").start() as running:
            hands: dict[str, Callable[[], float]] = {way: lambda way=way: theirs(way, pipe) for way in WAYS}
            group = {WAYS[0]: hands.pop(WAYS[0]), "suitkaise": lambda: ours(running, pipe)}
            rows = measure_apart(3 if quick else 51, group, hands, {"suitkaise": 1.5}, pause=0.1)
            show("one more worker in a running program: start_child to first loop", "ms", rows, scale=1e3)
            group = {"plain": lambda: ours(running, pipe), "async": lambda: ours(running, pipe, AsyncIdle)}
            rows = measure(3 if quick else 51, group, pause=0.1)
            show("with async hooks: asyncio is imported in the process that forks them all", "ms", rows, scale=1e3)
        programs = {way: THEIR_PROGRAM.format(way=way, path=pipe.path) for way in WAYS}
        programs["suitkaise"] = OUR_PROGRAM.format(path=pipe.path)
        group = {name: lambda text=text: cold(text, pipe) for name, text in programs.items()}
        show("a whole program: interpreter to first loop", "ms", measure(2 if quick else 15, group), scale=1e3)


if __name__ == "__main__":
    main()
