"""The last lines of workers: bounded, counted, and handed to readers that have seen some of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from suitkaise.events import SupervisorStarted
from suitkaise.messaging import log_rings
from suitkaise.messaging.log_rings import EVENT, LogRings, Run, is_below
from tests.support import interrupted_at_each_line


def put(rings: LogRings, path: str, *texts: str, stream: str = "stdout", time: float = 1.0) -> None:
    rings.put(path, Run(1, stream, time, texts))


def texts(lines: list[log_rings.Line]) -> list[str]:
    return [line[4] for line in lines]


def test_the_last_lines_of_each_worker_below_a_path_come_in_the_order_of_time() -> None:
    rings = LogRings()
    put(rings, "app/a", "1", "2", time=1.0)
    put(rings, "app/b", "3", time=2.0)
    put(rings, "app/a", "4", time=3.0)
    put(rings, "apple", "of another tree", time=4.0)
    lines, seen = rings.last("app", 2)
    assert texts(lines) == ["2", "3", "4"]
    assert (seen["app/a"] > 0, "apple" in seen) == (True, False)
    assert lines[-1] == ("app/a", 1, "stdout", 3.0, "4")


def test_lines_that_are_put_late_are_shown_at_their_time() -> None:
    rings = LogRings()
    put(rings, "app/a", "logged", stream="info", time=2.0)
    put(rings, "app/a", "printed before", time=1.0)
    assert texts(rings.last("app/a", 10)[0]) == ["printed before", "logged"]


def test_a_reader_gets_what_it_has_not_seen_and_at_most_so_many_lines() -> None:
    rings = LogRings()
    put(rings, "app/a", "1")
    _, seen = rings.last("app", 10)
    assert not rings.has_after("app", seen)
    put(rings, "app/a", "2", "3")
    put(rings, "app/b", "4")
    assert rings.has_after("app", seen)
    got = []
    while rings.has_after("app", seen):
        lines, now, skipped = rings.after("app", seen, 1)
        assert (len(lines), skipped) == (1, {})
        got += texts(lines)
        seen |= now
    assert sorted(got) == ["2", "3", "4"]


def test_a_reader_that_is_slow_is_told_how_many_lines_it_has_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_rings, "MOST_LINES", 3)
    rings = LogRings()
    put(rings, "app/a", "0")
    _, seen = rings.last("app", 10)
    for number in range(1, 11):
        put(rings, "app/a", str(number))
    lines, now, skipped = rings.after("app", seen, 100)
    assert (texts(lines), skipped) == (["8", "9", "10"], {"app/a": 7})
    assert not rings.has_after("app", seen | now)


def test_a_run_of_more_lines_than_are_kept_leaves_its_end_and_all_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_rings, "MOST_LINES", 3)
    rings = LogRings()
    put(rings, "app/a", "before")
    _, seen = rings.last("app", 10)
    put(rings, "app/a", *map(str, range(10)))
    lines, _, skipped = rings.after("app", seen, 100)
    assert (texts(lines), skipped) == (["7", "8", "9"], {"app/a": 7})


def test_the_size_of_what_is_kept_is_bounded_for_each_worker_and_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_rings, "MOST_BYTES", 10_000)
    monkeypatch.setattr(log_rings, "MOST_TOTAL", 50_000)
    rings = LogRings()
    put(rings, "app/quiet", "kept")
    for number in range(100):
        for worker in range(20):
            put(rings, f"app/noisy-{worker}", f"{number} {'x' * 500}")
            assert rings._size <= 50_000
    assert rings._size == sum(ring.size for ring in rings._rings.values())
    assert texts(rings.last("app/quiet", 10)[0]) == ["kept"]
    assert all(ring.size <= 10_000 for ring in rings._rings.values())


def test_a_single_run_that_is_too_large_for_the_program_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_rings, "MOST_TOTAL", 1_000)
    rings = LogRings()
    put(rings, "app/a", "x" * 2_000)
    assert (rings._size, rings.last("app", 10)[0]) == (0, [])


def test_the_workers_whose_last_lines_are_the_oldest_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_rings, "MOST_RINGS", 10)
    rings = LogRings()
    for number in range(25):
        put(rings, f"app/task-{number}", str(number), time=float(number))
    kept = texts(rings.last("app", 1)[0])
    assert len(kept) <= 10
    assert kept == [str(number) for number in range(25 - len(kept), 25)]


def test_a_reader_goes_on_with_a_worker_that_was_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    rings = LogRings()
    put(rings, "app/a", "1", "2")
    _, seen = rings.last("app", 10)
    rings.forget("app")
    assert rings.last("app", 10) == ([], {})
    put(rings, "app/a", "3")
    assert texts(rings.after("app", seen, 10)[0]) == ["3"]


def test_the_text_of_an_event_is_made_when_it_is_read() -> None:
    rings = LogRings()
    rings.put("app", Run(0, EVENT, 1.0, (SupervisorStarted("app", 1.0),)))
    assert texts(rings.last("app", 1)[0]) == ["supervisor started"]


class Source:
    def __init__(self) -> None:
        self.on = False

    def listen(self, on: bool) -> None:
        self.on = on

    def read_lines(self) -> None:
        pass


def test_the_workers_below_a_path_are_listened_to_also_those_that_start_later() -> None:
    rings = LogRings()
    first, second, other = Source(), Source(), Source()
    rings.attach("app/a", first)
    rings.attach("web/a", other)
    rings.listen(["app"])
    rings.attach("app/b", second)
    assert (first.on, second.on, other.on) == (True, True, False)
    rings.detach("app/b", first)  # the one that has ended is another
    rings.listen([])
    assert (first.on, second.on, other.on) == (False, False, False)


def test_a_path_is_below_another_by_its_parts() -> None:
    assert is_below("app/a", "app")
    assert is_below("app", "app")
    assert is_below("app/a", "")
    assert not is_below("app/ab", "app/a")


def test_the_last_reader_may_leave_at_any_moment_while_a_line_is_put() -> None:
    rings = LogRings()

    def prepare() -> Callable[[], None]:
        rings.on_lines = lambda: None
        return partial(put, rings, "app/a", "line")

    def leave() -> None:
        rings.on_lines = None

    lines = len(list(interrupted_at_each_line(prepare, leave)))
    assert len(rings.last("app/a", 1000)[0]) == 1 + lines
