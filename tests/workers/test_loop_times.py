"""The report on the times of a worker's loops: exact where it can be, sampled where it must be."""

from __future__ import annotations

import json
import pickle
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from suitkaise import Thread
from suitkaise.errors import SuitkaiseError
from suitkaise.messaging import codec
from suitkaise.workers.loop_report import LoopTimeReport, report_on, seconds_as_text
from suitkaise.workers.loop_times import KEPT, SLOWEST, LoopTimes
from tests.workers.harness import harnesses


def times_of(loops: Sequence[float]) -> LoopTimes:
    """Record these times as the life cycle does."""
    times = LoopTimes()
    floor = times.floor
    for number, took in enumerate(loops, 1):
        times.fastest = min(times.fastest, took)
        if took > floor:
            floor = times.add_slow(number, took)
        if number == times.next:
            times.add(took)
    return times


def report_of(loops: list[int]) -> LoopTimeReport:
    """Report on these times, in nanoseconds."""
    seconds = [took / 1e9 for took in loops]
    last = seconds[-1] if seconds else 0.0
    return report_on("title", times_of(seconds), loops=len(loops), total=sum(seconds, 0.0), last=last)


def test_all_is_exact_while_the_sample_has_all_loops() -> None:
    loops = [1_000_000 * number for number in range(1, 101)]
    random.Random(1).shuffle(loops)
    report = report_of(loops)
    ms = {key: round(report[key] * 1e3, 6) for key in ("mean", "fastest", "slowest", "p50", "p95", "p99", "last")}
    assert ms == {"mean": 50.5, "fastest": 1, "slowest": 100, "p50": 50, "p95": 95, "p99": 99, "last": loops[-1] / 1e6}
    assert (report["loops"], round(report["total"], 6)) == (100, 5.05)
    slowest = sorted(((took, number) for number, took in enumerate(loops, 1)), reverse=True)[:SLOWEST]
    assert report["slowest_loops"] == [(number, took / 1e9) for took, number in slowest]


def test_the_slowest_loops_are_exact_for_any_number_of_loops() -> None:
    loops = [100] * 50_000
    loops[777], loops[40_000], loops[49_999] = 5_000, 9_000, 7_000
    assert [number for number, _ in report_of(loops)["slowest_loops"]][:3] == [40_001, 50_000, 778]
    assert report_of(loops)["slowest"] == 9_000 / 1e9


@pytest.mark.parametrize("count", [1, KEPT, 2 * KEPT - 1, 2 * KEPT, 2 * KEPT + 1, 100_000, 300_001])
def test_the_sample_has_a_loop_from_each_block(count: int) -> None:
    times = times_of(list(range(count)))  # the time of a loop is its number
    assert min(count, KEPT) <= len(times.sample) < 2 * KEPT
    assert times.sample == sorted(times.sample), "no loop counts twice"
    stride = -(-count // len(times.sample))
    gaps = [later - earlier for earlier, later in zip(times.sample, times.sample[1:], strict=False)]
    assert all(0 < gap < 4 * stride for gap in gaps)
    assert times.sample[0] < 2 * stride
    assert times.sample[-1] >= count - 1 - 4 * stride


@pytest.mark.parametrize("period", [2, 64, 100, 128])
def test_a_loop_that_is_slow_at_regular_times_is_seen_as_often_as_it_happens(period: int) -> None:
    slow_part = sum(
        took == 9 for took in times_of([9 if number % period == 5 % period else 1 for number in range(200_000)]).sample
    )
    expected = KEPT / period
    assert slow_part >= expected / 3, "a sample at regular distances could miss all of them"
    assert slow_part <= 6 * expected + 10


def test_the_percentiles_of_the_sample_are_near_those_of_all_loops() -> None:
    chance = random.Random(3)
    loops = [int(chance.lognormvariate(10, 1)) for _ in range(200_000)]
    report, ordered = report_of(loops), sorted(loops)
    for percent in (50, 95, 99):
        below = sum(took <= report[f"p{percent}"] * 1e9 + 0.5 for took in ordered) / len(ordered) * 100
        assert abs(below - percent) < 5
    assert sum(loops for _, _, loops in report["histogram"]) == pytest.approx(200_000, abs=20)


def test_a_worker_that_has_not_looped_has_an_empty_report() -> None:
    report = report_of([])
    assert {report[key] for key in ("loops", "total", "mean", "fastest", "slowest", "last", "p50", "p99")} == {0}
    assert (report["slowest_loops"], report["histogram"]) == ([], [])
    assert "loops 0, total 0 ns" in str(report)


def test_loops_that_take_no_time_that_can_be_measured_do_no_harm() -> None:
    report = report_of([0, 0, 0])
    assert (report["p50"], report["histogram"]) == (0.0, [(1e-9, 1e-9, 3)])
    assert str(report_of([0, 5_000])).count("#") == 80


def test_the_report_is_a_plain_value_that_travels() -> None:
    report = report_of([1_000, 2_000])
    for copy in (pickle.loads(pickle.dumps(report)), codec.loads(codec.dumps(report))):
        assert (type(copy), copy, str(copy)) == (LoopTimeReport, report, str(report))
    assert json.loads(json.dumps(report))["p50"] == report["p50"]


def test_the_text_names_the_slowest_loops_and_draws_the_histogram() -> None:
    text = str(report_of([1_000_000] * 30 + [8_000_000]))
    assert text.splitlines() == [
        "title",
        "  loops 31, total 38 ms, mean 1.23 ms, fastest 1 ms, slowest 8 ms, last 8 ms",
        "  p50 1 ms, p95 1 ms, p99 8 ms",
        "  slowest: loop 31 8 ms, loop 1 1 ms, loop 2 1 ms, loop 3 1 ms, loop 4 1 ms",
        f"        1 ms -    1.23 ms  {'#' * 40}  30",
        f"      6.5 ms -       8 ms  {'#':<40}  1",
    ]


@pytest.mark.parametrize(
    "seconds, text",
    [(9.994e-7, "999 ns"), (9.996e-7, "1 us"), (0.9996, "1 s"), (12345.6, "12346 s")],
)
def test_a_time_has_the_unit_that_fits(seconds: float, text: str) -> None:
    assert seconds_as_text(seconds) == text


def test_without_matplotlib_a_drawing_is_one_clear_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(SuitkaiseError, match=r"pip install 'suitkaise-xprocess\[plots\]'"):
        report_of([1_000]).save(tmp_path / "times.png")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.may_leave("file *.ttf")  # matplotlib keeps its fonts open
@pytest.mark.parametrize("loops", [[], [1_000], [1_000, 2_000, 9_000]], ids=len)
@pytest.mark.parametrize("suffix, begins", [("png", b"\x89PNG"), ("svg", b"<?xml")])
def test_the_histogram_is_drawn_into_a_file(loops: list[int], suffix: str, begins: bytes, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    report_of(loops).save(tmp_path / f"times.{suffix}")
    assert (tmp_path / f"times.{suffix}").read_bytes().startswith(begins)


class Reports(Thread):
    """Reports on its loops in `after_loop`, where the turn is still going on."""

    def __init__(self) -> None:
        super().__init__(num_loops=5_000)
        self.reports: list[Any] = []

    def loop(self) -> None: ...

    def after_loop(self) -> None:
        if self.current_loop in (1, 2, 4_000):
            self.reports.append(self.generate_loop_time_report())

    def result(self) -> Any:
        return [*self.reports, self.generate_loop_time_report()]


def test_a_report_in_the_middle_of_many_loops_is_up_to_date(tmp_path: Path) -> None:
    with harnesses(tmp_path) as make:
        outcome = make(Reports()).run()
        assert outcome.result is not None
        reports = outcome.result.value
    assert [one["loops"] for one in reports] == [0, 1, 3_999, 5_000]
    for one in reports[1:]:
        assert 0 < one["fastest"] <= one["p50"] <= one["p95"] <= one["p99"] <= one["slowest"]
        assert one["fastest"] <= one["mean"] <= one["slowest"]
    assert reports[2]["slowest"] >= reports[1]["slowest"]
    assert reports[0]["name"] == "worker loop times report"


def test_the_name_of_a_report_is_a_text(tmp_path: Path) -> None:
    class Names(Thread):
        def loop(self) -> Any:
            with pytest.raises(TypeError, match=r"^generate_loop_time_report: name must be a text, not 3$"):
                self.generate_loop_time_report(3)  # type: ignore[arg-type]
            return self.generate_loop_time_report("mine")["name"]

    with harnesses(tmp_path) as make:
        outcome = make(Names(), join_after=1).run()
    assert outcome.result is not None, outcome.reason
    assert outcome.result.value == "mine"
