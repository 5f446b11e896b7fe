"""Helpers of all benchmarks: repetitions, medians, a table with ratios, a pipe for the start times of processes."""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "src"))


@dataclass
class Row:
    """The values of one measurement. `goal`: the wanted ratio to the first row of the group, or None."""

    name: str
    values: list[float] = field(default_factory=list)
    goal: float | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.values)


def options(description: str) -> argparse.Namespace:
    """Parse the command line: `--quick` runs a benchmark with few repetitions."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="few repetitions: shows that it works, not how fast")
    return parser.parse_args()


def measure(
    rounds: int, group: dict[str, Callable[[], float]], goals: dict[str, float] | None = None, *, pause: float = 0.0
) -> list[Row]:
    """Measure all of a group in turns, so that a disturbance affects all of them; the first round does not count.

    A `pause` (seconds) before each measurement lets the background work of the one before end.
    """
    rows = [Row(name, goal=(goals or {}).get(name)) for name in group]
    for take in group.values():
        take()
    for _ in range(rounds):
        for row, take in zip(rows, group.values(), strict=True):
            time.sleep(pause)
            row.values.append(take())
    return rows


def measure_apart(
    rounds: int,
    group: dict[str, Callable[[], float]],
    apart: dict[str, Callable[[], float]],
    goals: dict[str, float],
    *,
    pause: float,
) -> list[Row]:
    """Measure a group, and after it the ways that would slow the others down; these are the rows behind the first one.

    Each fork of this program has it copy the pages that it writes to afterwards, those of its supervisors too.
    """
    first, *rows = measure(rounds, group, goals, pause=pause)
    return [first, *measure(rounds, apart, pause=pause), *rows]


def show(title: str, unit: str, rows: list[Row], *, scale: float = 1.0, more_is_better: bool = False) -> None:
    """Print a table: median, quartiles, and the ratio of each median to the first row's."""
    print(f"\n{title}")
    width = max(len(row.name) for row in rows)
    print(f"  {'':{width}}  {'median':>10}  {'quartiles':>21}  {'ratio':>7}  goal")
    for row in rows:
        low, _, high = statistics.quantiles(row.values, n=4) if len(row.values) > 1 else [row.median] * 3
        ratio = row.median / rows[0].median
        goal = "" if row.goal is None else f"{'>=' if more_is_better else '<='} {row.goal:g}"
        between = f"{low * scale:.4g} - {high * scale:.4g}"
        print(f"  {row.name:{width}}  {row.median * scale:>10.4g}  {between:>21}  {ratio:>7.2f}  {goal}")
    print(f"  ({unit}; ratio: to {rows[0].name!r}; {len(rows[0].values)} rounds)", flush=True)


def measure_latencies(rounds: int, group: dict[str, Callable[[], list[float]]]) -> dict[str, list[float]]:
    """Collect the seconds of each round trip of all of a group, in turns; the first round does not count."""
    for take in group.values():
        take()
    taken: dict[str, list[float]] = {name: [] for name in group}
    for _ in range(rounds):
        for name, take in group.items():
            taken[name] += take()
    return taken


def show_latencies(title: str, taken: dict[str, list[float]], goals: dict[str, float] | None = None) -> None:
    """Print a table: the median and the 99th percentile in microseconds, and the ratio of each median to the first."""
    print(f"\n{title}")
    width = max(map(len, taken))
    print(f"  {'':{width}}  {'p50':>8}  {'p99':>8}  {'ratio':>7}  goal")
    first = statistics.median(next(iter(taken.values())))
    for name, values in taken.items():
        goal = f"<= {goals[name]:g}" if goals and name in goals else ""
        median, last = statistics.median(values), statistics.quantiles(values, n=100)[98]
        print(f"  {name:{width}}  {median * 1e6:>8.1f}  {last * 1e6:>8.1f}  {median / first:>7.2f}  {goal}")
    print(f"  (us a round trip; ratio: to {next(iter(taken))!r}; {len(values)} of each)", flush=True)


def heading(name: str) -> None:
    """Print the machine and the version of Python."""
    print(
        f"{name}: CPython {platform.python_version()}, {platform.system()} {platform.release()}, "
        f"{len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.2f}"
    )
    if sys.dont_write_bytecode:
        print("  PYTHONDONTWRITEBYTECODE is set: every start compiles its imports, and that time is measured too")


class Starts:
    """A named pipe into which workers write the time of their first loop."""

    def __init__(self, path: str) -> None:
        self.path = path
        os.mkfifo(path)
        self._descriptor = os.open(path, os.O_RDWR)

    def next(self) -> int:
        """Wait for the next worker; return its time in nanoseconds of the monotonic clock."""
        return int.from_bytes(os.read(self._descriptor, 8), "little")

    def close(self) -> None:
        os.close(self._descriptor)


@contextlib.contextmanager
def starts() -> Iterator[Starts]:
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        pipe = Starts(os.path.join(folder, "starts"))
        try:
            yield pipe
        finally:
            pipe.close()
