"""Rules 20 and 57: the history of a child."""

from __future__ import annotations

import pytest

from suitkaise.events import ChildExited, ChildRestarting, ChildStarted
from suitkaise.exits import (
    ExitCode,
    ExitReason,
    GaveUp,
    Hung,
    Killed,
    Lost,
    Normal,
    Shutdown,
    Signaled,
    SignificantFailure,
)
from suitkaise.policy.actions import Previous
from tests.policy.driver import BOOM, Driver, begun, child, children, supervisor

STRATEGIES = ["one_for_one", "one_for_all", "rest_for_one"]
CLEAN = [Normal(), Shutdown(), Shutdown("why"), Shutdown(GaveUp("top/b/x", BOOM, 3, 5.0))]
ABNORMAL = [BOOM, ExitCode(0), ExitCode(3), Signaled(9), Killed("ref.kill"), Hung("loop", 2.0), Lost("node")]


def test_s57_a_first_start_has_no_past() -> None:
    tree = Driver(supervisor(*children("ab")))

    assert [start.previous for start in tree.starts] == [None, None]


def test_s57_a_restarted_child_knows_its_last_exit_and_when_it_was() -> None:
    tree = begun(children("a"))

    tree.advance(10)
    tree.exits("a", Normal())
    assert tree.last_start("a").previous == Previous(1, Normal(), 10.0)
    tree.advance(10)
    tree.crash("a")
    assert tree.last_start("a").previous == Previous(2, BOOM, 20.0)


def test_s57_a_failed_start_is_part_of_the_past() -> None:
    tree = begun(children("a"))
    tree.plan_starts("a", "fails")

    tree.crash("a")

    assert tree.last_start("a").previous == Previous(2, Driver.FAILED, 0.0)


def test_s57_a_child_revived_with_its_group_knows_its_past_too() -> None:
    tree = begun(children("ab"), strategy="one_for_all")
    tree.advance(3)

    tree.crash("a")

    assert tree.last_start("b").previous == Previous(1, Shutdown(), 3.0)


def test_s57_a_start_that_was_ignored_is_part_of_the_past() -> None:
    tree = Driver(supervisor(child("a")), begin_now=False)
    tree.plan_starts("a", "ignore", "ok", "ignore")
    tree.advance(1)
    tree.begin()
    tree.advance(2)
    tree.restart_child("a")
    tree.advance(4)
    tree.terminate_child("a")
    tree.advance(5)
    tree.restart_child("a")
    tree.advance(6)

    tree.restart_child("a")

    assert [start.previous for start in tree.starts] == [
        None,
        Previous(1, None, 1.0),
        Previous(2, Shutdown(), 7.0),
        Previous(3, Shutdown(), 7.0),
    ]


def test_the_world_hears_of_the_exit_the_restart_and_the_start() -> None:
    tree = begun(children("a"))
    tree.events.clear()
    tree.plan_starts("a", "waits")
    tree.crash("a")
    tree.advance(0.25)

    tree.ready("a", pid=7)

    exited, restarting, started = tree.events
    assert exited == ChildExited("top/a", 0.0, reason=BOOM, pid=None)
    assert restarting == ChildRestarting("top/a", 0.0, delay=0.0, used=1, allowed=3)
    assert started == ChildStarted("top/a", 0.25, pid=7, restarts=1, took=0.25)


@pytest.mark.parametrize(
    "reason, status",
    [
        (Normal(), "finished"),
        (Shutdown(GaveUp("top/a/b", ExitCode(1), 3, 5.0)), "failed"),
        (Shutdown(SignificantFailure("top/a/b", ExitCode(1))), "failed"),
        (BOOM, "crashed"),
        (ExitCode(1), "crashed"),
        (Signaled(9), "crashed"),
        (Lost("node"), "crashed"),
        (Killed("ref.kill"), "killed"),
        (Hung("loop", 1.0), "hung"),
    ],
    ids=str,
)
def test_s20_the_status_of_a_child_that_has_ended_shows_how_it_ended(reason: ExitReason, status: str) -> None:
    tree = begun([child("a", "transient"), child("b")], max_restarts=0 if not reason.clean else 1)
    tree.plan_stops("b", "waits")

    tree.exits("a", reason)

    assert tree.statuses()["a"] == status


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_s20_s58_what_is_told_of_an_exit_that_waits_for_its_decision(strategy: str) -> None:
    whole = [child("a"), child("t", "temporary"), child("slow")]
    tree = Driver(supervisor(*whole, strategy=strategy), begin_now=False)
    tree.plan_starts("slow", "waits")
    tree.begin()

    tree.crash("a")
    tree.crash("t")

    assert tree.statuses() == {"a": "restarting", "t": "crashed", "slow": "starting"}
    assert [tree.policy.comes_back(id) for id in ("a", "t", "x")] == [True, False, False]


def test_s58_a_member_of_a_group_comes_back_until_its_supervisor_stops() -> None:
    tree = begun(children("abc"), strategy="one_for_all")
    tree.plan_stops("a", "waits")

    tree.crash("b")
    assert [tree.policy.comes_back(id) for id in "bc"] == [True, True]

    tree.stop()
    assert [tree.policy.comes_back(id) for id in "bc"] == [False, False]
