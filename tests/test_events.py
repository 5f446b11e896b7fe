"""What every event knows: when it happened."""

from __future__ import annotations

import pickle
import time
from unittest import mock

import pytest

from suitkaise import events
from suitkaise.events import ChildRestarting, ChildStarted, ChildStartFailure, SupervisorStopped, SupervisorStopping
from suitkaise.exits import ExitCode, GaveUp, Normal, Shutdown, StartFailure


def test_an_event_keeps_the_time_at_which_it_happened() -> None:
    began = time.time()
    event = ChildStarted("a/b", time.monotonic() - 10.0, pid=1)
    assert began - 10.1 < event.wall < time.time() - 9.9
    with mock.patch("time.time", return_value=7e9):  # somebody sets the clock
        assert event.to_dict()["at"] == event.wall < 6e9
        assert pickle.loads(pickle.dumps(event)).wall == event.wall
        later = ChildStarted("a/b", time.monotonic())
    assert later.wall == pytest.approx(7e9, abs=60.0)


def test_events_of_the_same_moment_have_the_same_time_so_that_logs_keep_their_order() -> None:
    for _ in range(1000):
        now = time.monotonic()
        assert ChildRestarting("a/b", now, delay=0.5, used=1, allowed=3.0).wall == ChildStarted("a/b", now).wall


class Clocks:
    """The clocks of a machine; each pause is one in which the thread does not run after it has read the time."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.offset = 1.7e9
        self.pauses: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        told = self.now + self.offset
        self.now += self.pauses.pop() if self.pauses else 0.0
        return told


def test_a_thread_that_is_held_up_between_its_looks_at_the_two_clocks_tells_no_other_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clocks = Clocks()
    monkeypatch.setattr(events, "time", clocks)
    monkeypatch.setattr(events, "_offset", 0.0)
    assert ChildStarted("a/b", 1.0).wall == 1.7e9 + 1.0
    clocks.pauses = [0.02, 0.03, 0.016]
    assert [ChildStarted("a/b", 1.0).wall for _ in range(3)] == [1.7e9 + 1.0] * 3
    clocks.offset += 5.0  # somebody has set the clock
    assert ChildStarted("a/b", 1.0).wall == 1.7e9 + 6.0


def test_a_restart_of_any_number_counts_nothing_and_is_ready_for_json() -> None:
    event = ChildRestarting("a/b", 1.0, delay=0.5, used=1, allowed=float("inf"))
    assert str(event) == "a/b restarts in 0.5 s (any number is allowed)"
    assert event.to_dict()["allowed"] is None


def test_a_start_that_fails_by_a_clean_end_says_that_the_child_has_ended_too_early() -> None:
    early = "failed to start: it ended before it was up: normal"
    assert str(ChildStartFailure("a/b", 1.0, Normal())) == f"a/b {early}"
    assert str(StartFailure("a/b", Normal())) == f"'a/b' {early}"
    assert str(StartFailure("a/b", ExitCode(1))) == "'a/b' failed to start: exit code 1"


def test_events_are_equal_whatever_the_wall_clock_shows() -> None:
    one = ChildStarted("a/b", 1.0, pid=1)
    with mock.patch("time.time", return_value=7e9):
        assert ChildStarted("a/b", 1.0, pid=1) == one
    assert "wall" not in repr(one)
    assert list(one.to_dict()) == ["event", "path", "at", "pid", "restarts", "took", "startup"]


def test_the_lines_after_that_of_a_supervisor_that_gives_up_do_not_tell_the_reason_again() -> None:
    gave_up = Shutdown(GaveUp("a/b", ExitCode(1), 3, 5.0))
    assert str(SupervisorStopping("a", 1.0, why=str(gave_up))) == "a supervisor stops its children: shutdown (gave up)"
    assert str(SupervisorStopped("a", 1.0, reason=gave_up)) == "a supervisor stopped: shutdown (gave up)"
    assert str(SupervisorStopped("a", 1.0, reason=Shutdown("why"))) == "a supervisor stopped: shutdown (why)"
