"""Selecting by metadata, removing many entries while another process writes, and snapshots, in one run.

Run `python benchmarks/selections.py [entries]`. A tenth of the entries is selected.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from suitkaise import Process, Supervisor, sktree
from suitkaise.messaging.identity import set_owner

ENTRIES = 100_000
REAPED = 10_000


class Writer(Process):
    """Writes one entry after the other, and notes how long each write took."""

    def on_start(self) -> None:
        self.times: list[float] = []

    def loop(self) -> None:
        began = time.perf_counter()
        self.tree.add("written", 1, path="writer")
        self.times.append(time.perf_counter() - began)

    def on_receive(self, message: object) -> list[float]:
        times, self.times = self.times, []
        return times


def measured(what: str, work: Callable[[], Any]) -> Any:
    began = time.perf_counter()
    result = work()
    print(f"{what:<52} {(time.perf_counter() - began) * 1e3:9.1f} ms", flush=True)
    return result


def beside_a_writer(what: str, work: Callable[[], Any]) -> None:
    with Supervisor("beside", Writer).start() as running:
        writer = running["writer"]
        before: list[float] = []
        while len(before) < 1000:
            before += writer.ask("times")
        measured(what, work)
        during = writer.ask("times") or [0.0]
    for title, times in (("before", before), ("meanwhile", during)):
        times.sort()
        middle, last = times[len(times) // 2] * 1e3, times[-1] * 1e3
        print(f"  a writer {title}: {len(times)} writes, median {middle:.2f} ms, slowest {last:.1f} ms", flush=True)


def main(entries: int) -> None:
    tree = sktree.connect()
    for number in range(entries):
        metadata = {"pid": number % 10, "kind": number % 10}
        tree.add(f"n{number}", number, f"p/{number % 100}", metadata, wait=False)
    tree.flush(600.0)
    tenth = f"select {entries // 10:,} of {entries:,}"
    selection = measured(f"{tenth} by index", lambda: tree.select_all_with({"pid": 3}, ""))
    measured(f"{tenth} without an index", lambda: tree.select_all_with({"kind": 3}, ""))
    measured("read the values of the selection", selection.values)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "tree.snapshot")
        measured("snapshot", lambda: tree.snapshot(file))
        measured("restore", lambda: tree.restore(file))
    beside_a_writer("remove the selection", selection.remove)
    set_owner("benchmark/dead#1")
    for number in range(REAPED):
        tree.add(f"n{number}", 1, "owned", {"pid": 3, "remove_on_process_join": True}, wait=False)
    tree.flush(600.0)
    set_owner(None)
    beside_a_writer(f"remove {REAPED:,} entries of a dead owner", lambda: tree.forget_owner("benchmark/dead#1"))
    sktree.disconnect()


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else ENTRIES)
