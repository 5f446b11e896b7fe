"""Rule 56 with real processes and threads: the delay before a restart, its reset, and requests that cut it short."""

from __future__ import annotations

import time

import pytest

from suitkaise import Backoff, ChildRestarting
from suitkaise.events import ChildRestarting as RestartingEvent
from suitkaise.events import ChildStarted
from tests.end_to_end.kinds import Kinds, next_event, statuses
from tests.support import eventually

pytestmark = pytest.mark.usefixtures("one_runtime_for_all")

LONG = Backoff(initial=600.0, maximum=600.0, jitter=0.0)


def test_s56_the_delay_grows_with_each_restart_and_is_waited_for(kinds: Kinds) -> None:
    backoff = Backoff(initial=0.05, factor=2.0, maximum=0.15, jitter=0.0)
    with kinds.tree("a", max_restarts=9).start() as running:
        running.start_child(kinds.child("b", backoff=backoff))
        with running.events() as events:
            for expected in (0.05, 0.1, 0.15, 0.15):
                kinds.crash(running, "b")
                restarting = next_event(events, RestartingEvent, "b")
                assert restarting.delay == pytest.approx(expected)
                started = next_event(events, ChildStarted, "b")
                assert started.at - restarting.at >= expected


def test_s56_a_child_that_was_stable_starts_its_backoff_anew(kinds: Kinds) -> None:
    backoff = Backoff(initial=0.02, factor=10.0, jitter=0.0, reset_after=0.3)
    with kinds.tree("", max_restarts=9).start() as running:
        running.start_child(kinds.child("b", backoff=backoff))
        with running.events() as events:
            kinds.crash(running, "b")
            assert next_event(events, RestartingEvent, "b").delay == pytest.approx(0.02)
            up = next_event(events, ChildStarted, "b").at
            eventually(lambda: time.monotonic() > up + 0.3, what="b has been stable")
            kinds.crash(running, "b")
            assert next_event(events, RestartingEvent, "b").delay == pytest.approx(0.02)


def test_s56_jitter_spreads_the_delays_within_its_limits(kinds: Kinds) -> None:
    backoff = Backoff(initial=0.02, factor=1.0, jitter=0.5)
    with kinds.tree("", max_restarts=99).start() as running:
        running.start_child(kinds.child("b", backoff=backoff))
        delays = set()
        with running.events() as events:
            for _ in range(6):
                kinds.crash(running, "b")
                delays.add(next_event(events, RestartingEvent, "b").delay)
                next_event(events, ChildStarted, "b")
    assert len(delays) > 1
    assert all(0.01 <= delay <= 0.03 for delay in delays), delays


def test_s56_terminate_child_cuts_the_wait_short_and_restart_child_starts_at_once(kinds: Kinds) -> None:
    with kinds.tree("a").start() as running:
        running.start_child(kinds.child("b", backoff=LONG))
        kinds.crash(running, "b")
        eventually(lambda: statuses(running)["b"] == "restarting", what="b waits")
        with pytest.raises(ChildRestarting):
            running.restart_child("b")
        running.terminate_child("b")
        assert statuses(running) == {"a": "running", "b": "stopped"}
        running.restart_child("b")
        assert statuses(running)["b"] == "running"


def test_s56_siblings_of_one_for_all_wait_for_the_same_delay_and_are_restarted_together(kinds: Kinds) -> None:
    backoff = Backoff(initial=0.1, jitter=0.0)
    with kinds.tree("a", strategy="one_for_all").start() as running:
        running.start_child(kinds.child("b", backoff=backoff))
        with running.events() as events:
            kinds.crash(running, "b")
            restarting = next_event(events, RestartingEvent, "b")
            started = [next_event(events, ChildStarted, id) for id in "ab"]
        assert min(event.at for event in started) - restarting.at >= 0.1
        assert statuses(running) == {"a": "running", "b": "running"}
