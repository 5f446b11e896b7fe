"""Restarts a second: workers that crash in their first loop, one at a time and eight at once."""

from __future__ import annotations

import time
from collections.abc import Callable
from multiprocessing.connection import wait

from light import crash
from starting import WAYS, contexts, forkserver_ends
from support import heading, measure, options, show
from workers import Crashes

from suitkaise import Child, Supervisor, preload


def ours(width: int, seconds: float) -> float:
    with Supervisor(
        "benchmark", Child(Crashes, copies=width, id="crashes"), max_restarts=float("inf")
    ).start() as running:
        refs = [running[f"crashes-{number}" if width > 1 else "crashes"] for number in range(width)]
        before, began = sum(ref.incarnation for ref in refs), time.monotonic()
        time.sleep(seconds)
        return (sum(ref.incarnation for ref in refs) - before) / (time.monotonic() - began)


def by_hand(way: str, width: int, seconds: float) -> float:
    context = contexts()[way]

    def begin():  # type: ignore[no-untyped-def]
        process = context.Process(target=crash)  # type: ignore[attr-defined]
        process.start()
        return process

    running = {process.sentinel: process for process in (begin() for _ in range(width))}
    count, began = 0, time.monotonic()
    while time.monotonic() - began < seconds:
        for sentinel in wait(list(running)):
            running.pop(sentinel).join()  # type: ignore[call-overload]
            process = begin()
            running[process.sentinel] = process
            count += 1
    taken = time.monotonic() - began
    for process in running.values():
        process.join()
    return count / taken


def main() -> None:
    quick = options(__doc__ or "").quick
    heading("storms")
    preload("workers")  # the forkserver has preloaded its module too
    rounds, seconds = (1, 0.3) if quick else (5, 2.0)
    with forkserver_ends():
        for width in (1, 8):
            group: dict[str, Callable[[], float]] = {
                way: lambda way=way, width=width: by_hand(way, width, seconds) for way in WAYS
            }
            group["suitkaise"] = lambda width=width: ours(width, seconds)
            title = "one worker at a time" if width == 1 else f"{width} workers at once"
            rows = measure(rounds, group, {"suitkaise": 0.67})
            show(f"a storm of restarts, {title}", "restarts/s", rows, more_is_better=True)


if __name__ == "__main__":
    main()
