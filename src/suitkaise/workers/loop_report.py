"""The report on the times of a worker's loops: a dict of plain values that prints itself and can draw itself."""

from __future__ import annotations

import os
from typing import Any

from suitkaise.errors import SuitkaiseError
from suitkaise.escapes import figure
from suitkaise.workers.loop_times import LoopTimes

__all__ = ["LoopTimeReport", "report_on"]

_BARS = 10
_WIDTH = 40


class LoopTimeReport(dict[str, Any]):
    """The times of a worker's loops, in seconds; made by `self.generate_loop_time_report()`.

    It is a dict, so it can be sent, stored and written as JSON. Its keys: `name`; `loops`, their number; `total`,
    `mean`, `fastest`, `slowest`, `last`; `p50`, `p95` and `p99`, below which that part of the loops was (from a sample
    of at least 256 loops if there were more than 512); `slowest_loops`, a list of `(number, seconds)`, the slowest
    first; `histogram`, a list of `(from, to, loops)`.

    >>> times = LoopTimes()
    >>> for number in (1, 2, 3):
    ...     _ = times.add(number / 1000)
    >>> print(report_on("pump loop times report", times, loops=3, total=0.006, last=0.003))
    pump loop times report
      loops 3, total 6 ms, mean 2 ms, fastest 1 ms, slowest 3 ms, last 3 ms
      p50 2 ms, p95 3 ms, p99 3 ms
            1 ms -    1.12 ms  ########################################  1
         1.93 ms -    2.16 ms  ########################################  1
         2.69 ms -       3 ms  ########################################  1
    """

    def __str__(self) -> str:
        short = {key: seconds_as_text(value) for key, value in self.items() if isinstance(value, float)}
        first = ", ".join(f"{key} {short[key]}" for key in ("total", "mean", "fastest", "slowest", "last"))
        rows = [
            str(self["name"]),
            f"  loops {self['loops']:,}, {first}",
            "  " + ", ".join(f"{key} {short[key]}" for key in ("p50", "p95", "p99")),
        ]
        if self["slowest_loops"]:
            slow = (f"loop {number} {seconds_as_text(seconds)}" for number, seconds in self["slowest_loops"])
            rows.append("  slowest: " + ", ".join(slow))
        most = max((loops for _, _, loops in self["histogram"]), default=0)
        for low, high, loops in self["histogram"]:
            if loops:
                bar = "#" * max(1, round(_WIDTH * loops / most))
                rows.append(f"  {seconds_as_text(low):>10} - {seconds_as_text(high):>10}  {bar:<{_WIDTH}}  {loops:,}")
        return "\n".join(rows)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Draw the histogram into a file; the end of its name decides the format: `.png`, `.svg` or `.pdf`.

        Raises:
            SuitkaiseError: matplotlib, which the extra `plots` brings, is not installed.
            ValueError: matplotlib knows no format of that name.
        """
        try:
            from matplotlib.figure import Figure  # takes 300 ms and more, and few programs draw
        except ImportError as error:
            raise SuitkaiseError(
                f"the report cannot be drawn without matplotlib ({error}); install it with "
                "`pip install 'suitkaise-xprocess[plots]'`, or print the report: print(report)"
            ) from error
        figure = Figure(figsize=(8, 4.5), layout="constrained")
        axes = figure.add_subplot()
        for low, high, loops in self["histogram"]:
            axes.bar(low, loops, width=high - low, align="edge", color="tab:blue", edgecolor="white")
        for key, style in (("p50", "-"), ("p95", "--"), ("p99", ":")):
            axes.axvline(self[key], color="tab:red", linestyle=style, label=f"{key} {seconds_as_text(self[key])}")
        if self["histogram"] and self["histogram"][-1][1] > self["histogram"][0][0] > 0:
            axes.set_xscale("log")
        axes.set(title=self["name"], xlabel="seconds a loop", ylabel="loops")
        axes.legend()
        figure.savefig(os.fspath(path))


def report_on(name: str, times: LoopTimes, *, loops: int, total: float, last: float) -> LoopTimeReport:
    """Make the report; `loops`, `total` and `last` are what the status board has of the worker."""
    sample = sorted(times.sample)
    slowest = times.slowest
    longest = slowest[0][1] if slowest else (sample[-1] if sample else 0.0)
    return LoopTimeReport(
        name=name,
        loops=loops,
        total=total,
        mean=total / loops if loops else 0.0,
        fastest=min([times.fastest, *sample[:1]]) if loops or sample else 0.0,
        slowest=longest,
        last=last,
        **{f"p{percent}": _percentile(sample, percent) for percent in (50, 95, 99)},
        slowest_loops=slowest,
        histogram=_histogram(sample, loops),
    )


def _percentile(ordered: list[float], percent: int) -> float:
    """Return the smallest time that at least `percent` of the sample do not exceed."""
    return ordered[-(-len(ordered) * percent // 100) - 1] if ordered else 0.0


def _histogram(ordered: list[float], loops: int) -> list[tuple[float, float, int]]:
    """Return bars whose borders grow by the same factor, with the number of loops that the sample stands for."""
    if not ordered:
        return []
    low, high = max(1e-9, ordered[0]), max(1e-9, ordered[-1])
    if low == high:
        return [(low, high, loops)]
    factor = (high / low) ** (1 / _BARS)
    borders = [low * factor**number for number in range(_BARS)] + [high]
    counts = [0] * _BARS
    bar = 0
    for took in ordered:
        while bar < _BARS - 1 and took >= borders[bar + 1]:
            bar += 1
        counts[bar] += 1
    scale = loops / len(ordered)
    return [
        (left, right, round(count * scale)) for left, right, count in zip(borders, borders[1:], counts, strict=False)
    ]


def seconds_as_text(seconds: float) -> str:
    """Return a time with a fitting unit.

    >>> [seconds_as_text(one) for one in (0.0, 4.4e-7, 0.0123, 1.5, 3600.0)]
    ['0 ns', '440 ns', '12.3 ms', '1.5 s', '3600 s']
    """
    for unit, factor in (("ns", 1e9), ("us", 1e6), ("ms", 1e3)):
        if seconds * factor < 999.5:
            return f"{seconds * factor:.3g} {unit}"
    return f"{figure(seconds)} s"
