"""Rule 56: delays between restarts."""

from __future__ import annotations

import functools
import math

import pytest

from suitkaise.events import ChildRestarting
from suitkaise.exits import Shutdown
from suitkaise.policy.actions import Kill, SetTimer
from suitkaise.specs import Backoff, Child
from tests.policy.driver import BOOM, Driver, begun, child, children, supervisor

DOUBLING = Backoff(initial=1.0, factor=2.0, maximum=5.0, jitter=0.0, reset_after=60.0)
GROUPS = ["one_for_all", "rest_for_one"]


def slow(ids: str, **options: object) -> list[Child]:
    return children(ids, backoff=DOUBLING, **options)


def delays(tree: Driver, id: str, tries: int) -> list[float]:
    """Crash a child several times, each time right after its restart; return the delays of the restarts."""
    found = []
    for _ in range(tries):
        tree.crash(id)
        (wake,) = [wake for wake in tree.timers if wake.key[0] == "retry"]
        found.append(round(wake.at - tree.now, 9))
        tree.advance(found[-1])
    return found


def test_s56_without_backoff_there_is_no_delay_and_no_timer() -> None:
    tree = begun(children("a"))

    tree.crash("a")

    assert tree.running() == "a"
    assert [action for action in tree.actions if isinstance(action, SetTimer)] == []


def test_s56_the_delay_grows_by_its_factor_up_to_its_maximum() -> None:
    tree = begun(slow("a"), max_restarts=math.inf)

    assert delays(tree, "a", 5) == [1.0, 2.0, 4.0, 5.0, 5.0]


def test_s56_a_child_that_waits_is_restarting_and_starts_when_its_time_has_come() -> None:
    tree = begun(slow("ab"))

    tree.crash("a")
    assert tree.take_story() == []
    assert tree.statuses() == {"a": "restarting", "b": "running"}
    assert tree.policy.count_children().active == 1
    tree.advance(0.9)
    assert tree.take_story() == []
    tree.advance(0.1)
    assert tree.take_story() == ["start a"]


def test_s56_a_restart_with_a_delay_counts_once_and_when_it_is_decided() -> None:
    tree = begun(slow("a"), max_restarts=1, max_seconds=0.5)

    tree.crash("a")
    assert tree.policy.restarts_used(tree.now) == 1
    tree.advance(1)
    assert tree.policy.restarts_used(tree.now) == 0
    assert tree.running() == "a"


def test_s56_start_failures_are_retries_too() -> None:
    tree = begun(slow("a"), max_restarts=math.inf)
    tree.plan_starts("a", "fails", "fails")

    tree.crash("a")
    tree.advance(10)

    assert [start.incarnation for start in tree.starts] == [1, 2, 3, 4]
    assert [round(wake.at, 9) for wake in tree.actions if isinstance(wake, SetTimer)] == [1.0, 3.0, 7.0]
    assert tree.running() == "a"


def test_s56_it_begins_anew_after_a_stable_time() -> None:
    tree = begun(slow("a"), max_restarts=math.inf)
    delays(tree, "a", 3)

    tree.advance(59.9)
    assert delays(tree, "a", 1) == [5.0]
    tree.advance(60)
    assert delays(tree, "a", 2) == [1.0, 2.0]


@pytest.mark.parametrize("strategy", GROUPS)
def test_s56_it_begins_anew_also_when_the_stable_time_ended_because_of_a_sibling(strategy: str) -> None:
    tree = begun([child("a"), *slow("b")], strategy=strategy, max_restarts=math.inf)
    delays(tree, "b", 3)
    tree.advance(1000)
    tree.plan_starts("b", "fails")

    tree.crash("a")

    assert [round(wake.at - tree.now, 9) for wake in tree.timers if wake.key[0] == "retry"] == [1.0]


def test_s56_failures_to_start_are_no_stable_time_however_long_they_take() -> None:
    tree = begun(slow("a"), max_restarts=math.inf)
    tree.plan_starts("a", "waits", "waits")
    tree.crash("a")

    tree.advance(100)
    tree.fails_to_start("a")
    tree.advance(100)
    tree.fails_to_start("a")

    assert [round(wake.at - tree.now, 9) for wake in tree.timers] == [4.0]


def test_s56_jitter_moves_the_delay_both_ways() -> None:
    jittery = Backoff(initial=1.0, factor=1.0, jitter=0.5)
    for chance, delay in [(0.0, 0.5), (0.5, 1.0), (0.75, 1.25)]:
        tree = Driver(supervisor(child("a", backoff=jittery)), chance=functools.partial(float, chance))
        assert delays(tree, "a", 1) == [delay]


def test_s56_children_do_not_share_their_attempts() -> None:
    tree = begun(slow("ab"), max_restarts=math.inf)
    delays(tree, "a", 3)

    assert delays(tree, "b", 1) == [1.0]


@pytest.mark.parametrize("strategy", ["one_for_one", *GROUPS])
def test_s56_terminate_child_cuts_the_wait_short(strategy: str) -> None:
    tree = begun(slow("ab"), strategy=strategy)
    tree.crash("b")
    tree.take_story()

    assert tree.terminate_child("b") == "ok"
    assert tree.statuses()["b"] == "stopped"
    tree.advance(100)
    assert tree.take_story("start") == []


@pytest.mark.parametrize("strategy", ["one_for_one", *GROUPS])
def test_s56_stop_cuts_the_wait_short(strategy: str) -> None:
    tree = begun(slow("ab"), strategy=strategy)
    tree.crash("a")
    tree.take_story()

    tree.stop()

    assert tree.ended == Shutdown()
    tree.advance(100)
    assert tree.take_story("start") == []


@pytest.mark.parametrize("strategy", GROUPS)
def test_s56_a_group_waits_after_its_members_have_been_stopped(strategy: str) -> None:
    tree = begun(slow("abc"), strategy=strategy)
    tree.plan_stops("c", "waits")

    tree.crash("a")
    tree.advance(3)
    assert tree.take_story() == ["stop c"]
    tree.exits("c", Shutdown())
    assert tree.take_story() == ["stop b"]
    tree.advance(0.9)
    assert tree.statuses() == {"a": "restarting", "b": "stopped", "c": "stopped"}
    tree.advance(0.1)
    assert tree.take_story() == ["start a", "start b", "start c"]
    assert tree.running() == "abc"


@pytest.mark.parametrize("strategy", GROUPS)
def test_s56_a_group_restart_with_a_delay_counts_once(strategy: str) -> None:
    tree = begun(slow("ab"), strategy=strategy, max_restarts=1)

    tree.crash("a")
    tree.advance(1)

    assert tree.running() == "ab"
    assert tree.policy.restarts_used(tree.now) == 1


def test_s56_recall_does_not_wait() -> None:
    tree = begun(slow("a"))
    tree.crash("a")

    assert tree.recall("a") == "ok"
    assert tree.running() == "a"
    tree.take_story()
    tree.advance(100)
    assert tree.take_story() == []


def test_s56_a_wait_of_a_child_that_was_deleted_means_nothing_to_its_namesake() -> None:
    tree = begun(slow("a"), max_restarts=math.inf)
    tree.crash("a")
    tree.terminate_child("a")
    tree.delete_child("a")
    tree.advance(0.5)
    tree.start_child(slow("a")[0])
    tree.crash("a")
    tree.take_story()

    tree.advance(0.6)
    assert tree.take_story() == []
    tree.advance(0.4)
    assert tree.take_story() == ["start a"]


def test_s56_a_stop_is_killed_on_time_also_after_a_retry() -> None:
    tree = begun(slow("a", shutdown=3))
    tree.crash("a")
    tree.advance(1)
    tree.plan_stops("a", "waits")

    tree.terminate_child("a")
    tree.advance(3)

    kills = [action for action in tree.actions if isinstance(action, Kill)]
    assert kills == [Kill("a", 2, "shutdown timeout")]
    assert tree.answer() == "ok"


@pytest.mark.parametrize("strategy", GROUPS)
def test_s56_a_crash_of_a_sibling_ends_the_wait_of_a_group(strategy: str) -> None:
    tree = begun([*slow("a"), *children("bc")], strategy=strategy, max_restarts=math.inf)
    tree.crash("a")
    tree.restart_child("b")
    tree.take_story()

    tree.exits("b", BOOM)

    assert tree.running() == ("abc" if strategy == "one_for_all" else "bc")
    tree.advance(1)
    assert tree.running() == "abc"


def test_s56_the_world_hears_how_long_it_waits() -> None:
    tree = begun(slow("a"), max_restarts=5)

    tree.crash("a")
    tree.advance(1)
    tree.crash("a")

    restarting = tree.events_of(ChildRestarting)
    assert [(event.delay, event.used, event.allowed) for event in restarting] == [(1.0, 1, 5), (2.0, 2, 5)]
