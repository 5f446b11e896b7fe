"""Rules 23-31, 35, 39 and 57: what the exit of one child leads to."""

from __future__ import annotations

import math

import pytest

from suitkaise.events import ChildExited, ChildRestarting, ChildStarted, SupervisorGaveUp, SupervisorStopping
from suitkaise.exits import ExitCode, ExitReason, GaveUp, Hung, Killed, Lost, Normal, Shutdown, Signaled
from suitkaise.specs import Supervisor
from suitkaise.supervision.steps import Previous, TerminateChild, Wake
from tests.supervision.driver import BOOM, Driver, begun, child, children, supervisor

STRATEGIES = ["one_for_one", "one_for_all", "rest_for_one"]
CLEAN = [Normal(), Shutdown(), Shutdown("why"), Shutdown(GaveUp("top/b/x", BOOM, 3, 5.0))]
ABNORMAL = [BOOM, ExitCode(0), ExitCode(3), Signaled(9), Killed("ref.kill"), Hung("loop", 2.0), Lost("node")]


@pytest.mark.parametrize("reason", [*CLEAN, *ABNORMAL], ids=str)
def test_s23_a_permanent_child_is_restarted_after_any_exit(reason: ExitReason) -> None:
    tree = begun(children("ab"))

    tree.exits("a", reason)

    assert tree.told() == ["start a"]
    assert tree.running() == "ab"


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("reason", CLEAN, ids=str)
def test_s24_a_transient_child_that_ends_cleanly_is_kept_stopped(strategy: str, reason: ExitReason) -> None:
    tree = begun([child("a"), child("b", "transient"), child("c")], strategy=strategy)

    tree.exits("b", reason)

    assert tree.told() == []
    assert tree.statuses() == {"a": "running", "b": "finished", "c": "running"}
    assert tree.policy.restarts_used(0.0) == 0


@pytest.mark.parametrize("reason", ABNORMAL, ids=str)
def test_s25_a_transient_child_is_restarted_after_any_other_reason(reason: ExitReason) -> None:
    tree = begun([child("a", "transient"), child("b")])

    tree.exits("a", reason)

    assert tree.told() == ["start a"]


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("reason", [*CLEAN, *ABNORMAL], ids=str)
def test_s26_a_temporary_child_is_removed_whatever_its_reason(strategy: str, reason: ExitReason) -> None:
    tree = begun([child("a"), child("b", "temporary"), child("c")], strategy=strategy)

    tree.exits("b", reason)

    assert tree.told() == ["removed b"]
    assert tree.statuses() == {"a": "running", "c": "running"}
    assert tree.policy.restarts_used(0.0) == 0


@pytest.mark.parametrize("restart, restarts", [("permanent", True), ("transient", False), ("temporary", False)])
def test_s30_a_nested_supervisor_that_gave_up_is_restarted_only_where_it_is_permanent(
    restart: str, restarts: bool
) -> None:
    nested = Supervisor("nested", child("x"), restart=restart)  # type: ignore[arg-type]
    tree = begun(supervisor(nested).children)

    tree.exits("nested", Shutdown(GaveUp("top/nested/x", BOOM, 3, 5.0)))

    assert (tree.told("start") == ["start nested"]) is restarts


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_s28_as_many_restarts_as_allowed_are_borne_and_one_more_is_not(strategy: str) -> None:
    tree = begun(children("a"), max_restarts=3, strategy=strategy)

    for _ in range(3):
        tree.crash("a")
        assert tree.running() == "a"
    tree.crash("a")

    assert tree.told() == ["start a"] * 3 + ["end"]
    assert tree.ended == Shutdown(GaveUp("top/a", BOOM, 3, 5.0))


def test_s28_without_any_restart_allowed_the_first_one_needed_is_fatal() -> None:
    tree = begun(children("ab"), max_restarts=0)

    tree.crash("a")

    assert tree.told() == ["stop b", "end"]


def test_s28_without_any_restart_allowed_exits_that_need_none_are_borne() -> None:
    tree = begun([child("a", "transient"), child("b", "temporary"), child("c")], max_restarts=0)

    tree.exits("a", Normal())
    tree.crash("b")

    assert tree.running() == "c"


def test_s28_unlimited_restarts_never_end_it() -> None:
    tree = begun(children("a"), max_restarts=math.inf)

    for _ in range(1000):
        tree.crash("a")

    assert tree.running() == "a"
    assert tree.policy.restarts_used(0.0) == 1  # it keeps no list of them


def test_s29_the_window_is_the_supervisors_not_the_childs() -> None:
    tree = begun(children("abc"), max_restarts=2)

    tree.crash("a")
    tree.crash("b")
    tree.crash("c")

    assert tree.ended == Shutdown(GaveUp("top/c", BOOM, 2, 5.0))


@pytest.mark.parametrize("later, ends", [(4.5, True), (5.0, True), (5.0 + 1e-6, False), (50.0, False)])
def test_s29_a_restart_counts_up_to_and_at_the_edge_of_the_window(later: float, ends: bool) -> None:
    tree = begun(children("a"), max_restarts=1, max_seconds=5.0)

    tree.crash("a")
    tree.advance(later)
    tree.crash("a")

    assert (tree.ended is not None) is ends


def test_s29_the_window_slides() -> None:
    tree = begun(children("a"), max_restarts=2, max_seconds=1.0)

    for _ in range(20):
        tree.crash("a")
        tree.advance(0.6)
    assert tree.running() == "a"
    assert tree.policy.restarts_used(tree.now) == 1
    assert tree.policy.restarts_used(tree.now + 1) == 0


def test_s30_giving_up_stops_the_others_in_reverse_start_order() -> None:
    tree = begun(children("abcd"), max_restarts=0)

    tree.crash("c")

    assert tree.told() == ["stop d", "stop b", "stop a", "end"]
    assert len(tree.events_of(SupervisorStopping)) == 1
    gave_up = tree.events_of(SupervisorGaveUp)
    assert [(event.path, event.child, event.reason) for event in gave_up] == [("top", "c", BOOM)]


def test_s30_the_reason_is_the_innermost_one() -> None:
    tree = begun(supervisor(Supervisor("nested", child("x"))).children, max_restarts=0)

    tree.exits("nested", Shutdown(GaveUp("top/nested/x", BOOM, 3, 5.0)))

    assert tree.ended == Shutdown(GaveUp("top/nested", BOOM, 0, 5.0))


def test_s31_one_for_one_restarts_that_child_alone_in_its_place() -> None:
    tree = begun(children("abc"))

    tree.crash("b")

    assert tree.told() == ["start b"]
    assert list(tree.statuses()) == ["a", "b", "c"]


def test_s31_one_for_one_restarts_run_side_by_side() -> None:
    tree = begun(children("abc"))
    tree.plan_starts("a", "waits")
    tree.plan_starts("c", "waits")

    tree.crash_together("a", "c")

    assert tree.told() == ["start a", "start c"]
    assert tree.statuses() == {"a": "restarting", "b": "running", "c": "restarting"}
    tree.ready("c")
    tree.ready("a")
    assert tree.running() == "abc"


def test_s31_one_for_one_restarts_do_not_wait_for_a_request() -> None:
    tree = begun(children("ab"))
    tree.plan_stops("b", "waits")
    tree.terminate_child("b")
    tree.told()

    tree.crash("a")

    assert tree.told() == ["start a"]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_s35_a_failed_restart_is_tried_again_and_every_try_counts(strategy: str) -> None:
    tree = begun(children("ab"), strategy=strategy, max_restarts=3)
    tree.plan_starts("b", "fails", "fails")

    tree.crash("b")

    assert [line for line in tree.told("start") if line == "start b"] == ["start b"] * 3
    assert tree.policy.restarts_used(0.0) == 3
    assert tree.running() == "ab"


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_s35_retries_that_keep_failing_make_it_give_up(strategy: str) -> None:
    tree = begun(children("ab"), strategy=strategy, max_restarts=3)
    tree.plan_starts("b", *["fails"] * 10)

    tree.crash("b")

    assert [line for line in tree.told("start") if line == "start b"] == ["start b"] * 3
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

    story = tree.told("start", "stop", "reply")
    assert story.index("reply") < len(story) - 1 - story[::-1].index("start b")


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_s39_stopping_in_a_retry_loop_completes_and_starts_nothing_more(strategy: str) -> None:
    tree = begun(children("abc"), strategy=strategy, max_restarts=math.inf)
    tree.plan_starts("b", *["fails"] * 5, "waits")
    tree.crash("b")
    tree.plan_starts("b", *["fails"] * 1000)
    tree.plan_stops("a", "waits")
    tree.post_exit("b", Driver.FAILED)
    tree.told()

    tree.stop()

    assert tree.told("start") == []
    tree.exits("a", Shutdown())
    assert tree.ended == Shutdown()


def test_s39_a_retry_that_comes_due_while_the_others_are_being_stopped_starts_nothing() -> None:
    tree = begun(children("ab"))
    tree.plan_starts("a", "fails")
    tree.plan_stops("b", "waits")
    tree.post_exit("a", BOOM)

    tree.stop()

    assert tree.told() == ["start a", "stop b"]
    tree.exits("b", Shutdown())
    assert tree.told() == ["end"]
    assert len(tree.events_of(ChildRestarting)) == 1


def test_s39_a_restart_that_fails_while_the_others_are_being_stopped_is_not_tried_again() -> None:
    tree = begun(children("ab"))
    tree.plan_starts("a", "waits")
    tree.plan_stops("b", "waits")
    tree.crash("a")
    tree.stop()

    tree.fails_to_start("a")

    assert [action for action in tree.actions if isinstance(action, Wake) and action.key[0] == "retry"] == []
    assert tree.statuses()["a"] == "crashed"
    tree.exits("b", Shutdown())
    assert tree.told() == ["start a", "stop b", "end"]


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
        (BOOM, "crashed"),
        (ExitCode(1), "crashed"),
        (Signaled(9), "crashed"),
        (Lost("node"), "crashed"),
        (Killed("ref.kill"), "killed"),
        (Hung("loop", 1.0), "hung"),
    ],
    ids=str,
)
def test_s20_the_status_of_a_child_that_is_over_says_how_it_ended(reason: ExitReason, status: str) -> None:
    tree = begun([child("a", "transient"), child("b")], max_restarts=0 if not reason.clean else 1)
    tree.plan_stops("b", "waits")

    tree.exits("a", reason)

    assert tree.statuses()["a"] == status
