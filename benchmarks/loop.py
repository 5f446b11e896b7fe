"""One empty loop of a worker's actor against the same hooks, clock readings and counters in a loop by hand."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from typing import Any

from support import heading, measure, options, show
from workers import Hooks, LoopOnly

from suitkaise.messaging.mailbox import ThreadMailbox
from suitkaise.platform.board import Board
from suitkaise.workers.actor import WorkerActor, lifecycle_of
from suitkaise.workers.incarnation import Incarnation


def by_hand(worker: Any, count: int, *, hooks: bool) -> float:
    """Return the seconds a loop of the shortest code with the same hooks and counters."""
    clock = time.monotonic
    before, loop, after = worker.before_loop, worker.loop, worker.after_loop
    number, total, slowest = 0, 0.0, 0.0
    fastest = float("inf")
    began = time.perf_counter()
    if hooks:
        while number < count:
            number += 1
            start = clock()
            before()
            loop()
            took = clock() - start
            total += took
            if took < fastest:
                fastest = took
            if took > slowest:
                slowest = took
            after()
    else:
        while number < count:
            number += 1
            start = clock()
            loop()
            took = clock() - start
            total += took
            if took < fastest:
                fastest = took
            if took > slowest:
                slowest = took
    return (time.perf_counter() - began) / count


def by_actor(board: Board, what: Any, count: int) -> float:
    """Return the seconds a loop in a worker's actor."""
    slot = board.take("benchmark/worker")
    mailbox = ThreadMailbox(slot)
    incarnation = Incarnation("benchmark/worker", 1, join_after=count)
    actor = WorkerActor(lifecycle_of(what.__recipe__, incarnation, mailbox, slot), mailbox)
    began = time.perf_counter()
    actor.run_here()
    taken = (time.perf_counter() - began) / count
    mailbox.close()
    slot.release()
    board.give_back(slot)
    return taken


def main() -> None:
    quick = options(__doc__ or "").quick
    heading("loop")
    rounds, count = (3, 20_000) if quick else (31, 200_000)
    with tempfile.TemporaryDirectory() as folder:
        board = Board.create(os.path.join(folder, "board"))
        for title, worker, hooks, goal in (
            ("before_loop, loop and after_loop, all empty", Hooks(), True, 2.0),
            ("loop only, empty", LoopOnly(), False, 1.5),
        ):
            group: dict[str, Callable[[], float]] = {
                "by hand": lambda worker=worker, hooks=hooks: by_hand(worker, count, hooks=hooks),
                "suitkaise": lambda worker=worker: by_actor(board, worker, count),
            }
            show(title, "ns a loop", measure(rounds, group, {"suitkaise": goal}), scale=1e9)
        board.close()


if __name__ == "__main__":
    main()
