"""Rules 23-26, 31, 35 and 39: the consequences of the exit of one child."""

from __future__ import annotations

import math

import pytest

from suitkaise import Supervisor
from suitkaise.events import ChildRestarting
from suitkaise.exits import ExitCode, ExitReason, GaveUp, Hung, Killed, Lost, Normal, Shutdown, Signaled
from suitkaise.policy.actions import SetTimer, TerminateChild
from tests.policy.driver import BOOM, Driver, begun, child, children, supervisor

STRATEGIES = ["one_for_one", "one_for_all", "rest_for_one"]
CLEAN = [Normal(), Shutdown(), Shutdown("why"), Shutdown(GaveUp("top/b/x", BOOM, 3, 5.0))]
ABNORMAL = [BOOM, ExitCode(0), ExitCode(3), Signaled(9), Killed("ref.kill"), Hung("loop", 2.0), Lost("node")]


@pytest.mark.parametrize("reason", [*CLEAN, *ABNORMAL], ids=str)
def test_s23_a_permanent_child_is_restarted_after_any_exit(reason: ExitReason) -> None:
    tree = begun(children("ab"))

    tree.exits("a", reason)

    assert tree.take_story() == ["start a"]
    assert tree.running() == "ab"


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("reason", CLEAN, ids=str)
def test_s24_a_transient_child_that_ends_cleanly_is_kept_stopped(strategy: str, reason: ExitReason) -> None:
    tree = begun([child("a"), child("b", "transient"), child("c")], strategy=strategy)

    tree.exits("b", reason)

    assert tree.take_story() == []
    ended = "failed" if isinstance(reason, Shutdown) and isinstance(reason.detail, GaveUp) else "finished"
    assert tree.statuses() == {"a": "running", "b": ended, "c": "running"}
    assert tree.policy.restarts_used(0.0) == 0


@pytest.mark.parametrize("reason", ABNORMAL, ids=str)
def test_s25_a_transient_child_is_restarted_after_any_other_reason(reason: ExitReason) -> None:
    tree = begun([child("a", "transient"), child("b")])

    tree.exits("a", reason)

    assert tree.take_story() == ["start a"]


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("reason", [*CLEAN, *ABNORMAL], ids=str)
def test_s26_a_temporary_child_is_removed_for_every_reason(strategy: str, reason: ExitReason) -> None:
    tree = begun([child("a"), child("b", "temporary"), child("c")], strategy=strategy)

    tree.exits("b", reason)

    assert tree.take_story() == ["removed b"]
    assert tree.statuses() == {"a": "running", "c": "running"}
    assert tree.policy.restarts_used(0.0) == 0


@pytest.mark.parametrize("restart, restarts", [("permanent", True), ("transient", False), ("temporary", False)])
def test_s30_a_nested_supervisor_that_gave_up_is_restarted_only_where_it_is_permanent(
    restart: str, restarts: bool
) -> None:
    nested = Supervisor("nested", child("x"), restart=restart)  # type: ignore[arg-type]
    tree = begun(supervisor(nested).children)

    tree.exits("nested", Shutdown(GaveUp("top/nested/x", BOOM, 3, 5.0)))

    assert (tree.take_story("start") == ["start nested"]) is restarts


def test_s31_one_for_one_restarts_that_child_alone_in_its_place() -> None:
    tree = begun(children("abc"))

    tree.crash("b")

    assert tree.take_story() == ["start b"]
    assert list(tree.statuses()) == ["a", "b", "c"]


def test_s31_one_for_one_restarts_run_side_by_side() -> None:
    tree = begun(children("abc"))
    tree.plan_starts("a", "waits")
    tree.plan_starts("c", "waits")

    tree.crash_together("a", "c")

    assert tree.take_story() == ["start a", "start c"]
    assert tree.statuses() == {"a": "restarting", "b": "running", "c": "restarting"}
    tree.ready("c")
    tree.ready("a")
    assert tree.running() == "abc"


def test_s31_one_for_one_restarts_do_not_wait_for_a_request() -> None:
    tree = begun(children("ab"))
    tree.plan_stops("b", "waits")
    tree.terminate_child("b")
    tree.take_story()

    tree.crash("a")

    assert tree.take_story() == ["start a"]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_s35_a_failed_restart_is_tried_again_and_every_try_counts(strategy: str) -> None:
    tree = begun(children("ab"), strategy=strategy, max_restarts=3)
    tree.plan_starts("b", "fails", "fails")

    tree.crash("b")

    assert [line for line in tree.take_story("start") if line == "start b"] == ["start b"] * 3
    assert tree.policy.restarts_used(0.0) == 3
    assert tree.running() == "ab"


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_s35_retries_that_keep_failing_make_it_give_up(strategy: str) -> None:
    tree = begun(children("ab"), strategy=strategy, max_restarts=3)
    tree.plan_starts("b", *["fails"] * 10)

    tree.crash("b")

    assert [line for line in tree.take_story("start") if line == "start b"] == ["start b"] * 3
    assert tree.ended == Shutdown(GaveUp("top/b", Driver.FAILED, 3, 5.0))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_s35_the_child_is_restarting_between_tries(strategy: str) -> None:
    tree = begun(children("ab"), strategy=strategy)
    tree.plan_starts("b", "waits")
    tree.crash("b")

    tree.post_exit("b", Driver.FAILED)
    tree.handle(tree._inbox.popleft())

    assert tree.statuses()["b"] == "restarting"
    assert tree.policy.count_children().active == 1


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_s35_requests_that_wait_are_served_before_the_next_try(strategy: str) -> None:
    tree = begun(children("ab"), strategy=strategy)
    tree.plan_starts("b", "fails")
    tree.post_exit("b", BOOM)

    assert tree.ask(TerminateChild, "a") == "ok"

    story = tree.take_story("start", "stop", "reply")
    assert story.index("reply") < len(story) - 1 - story[::-1].index("start b")


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_s39_stopping_in_a_retry_loop_completes_and_starts_nothing_more(strategy: str) -> None:
    tree = begun(children("abc"), strategy=strategy, max_restarts=math.inf)
    tree.plan_starts("b", *["fails"] * 5, "waits")
    tree.crash("b")
    tree.plan_starts("b", *["fails"] * 1000)
    tree.plan_stops("a", "waits")
    tree.post_exit("b", Driver.FAILED)
    tree.take_story()

    tree.stop()

    assert tree.take_story("start") == []
    tree.exits("a", Shutdown())
    assert tree.ended == Shutdown()


def test_s39_a_retry_that_is_due_while_the_others_are_being_stopped_starts_nothing() -> None:
    tree = begun(children("ab"))
    tree.plan_starts("a", "fails")
    tree.plan_stops("b", "waits")
    tree.post_exit("a", BOOM)

    tree.stop()

    assert tree.take_story() == ["start a", "stop b"]
    tree.exits("b", Shutdown())
    assert tree.take_story() == ["end"]
    assert len(tree.events_of(ChildRestarting)) == 1


def test_s39_a_restart_that_fails_while_the_others_are_being_stopped_is_not_tried_again() -> None:
    tree = begun(children("ab"))
    tree.plan_starts("a", "waits")
    tree.plan_stops("b", "waits")
    tree.crash("a")
    tree.stop()

    tree.fails_to_start("a")

    assert [action for action in tree.actions if isinstance(action, SetTimer) and action.key[0] == "retry"] == []
    assert tree.statuses()["a"] == "crashed"
    tree.exits("b", Shutdown())
    assert tree.take_story() == ["start a", "stop b", "end"]
