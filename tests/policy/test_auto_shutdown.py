"""Rules 47-52: supervisors that end when significant children have ended."""

from __future__ import annotations

import pytest

from suitkaise import Supervisor
from suitkaise.errors import ChildStartFailed, SpecError, WorkerDead
from suitkaise.exits import ExitReason, GaveUp, Normal, Shutdown, SignificantFailure, origin
from suitkaise.policy.actions import Recall, StartChild, TerminateChild
from suitkaise.specs import Child
from tests.policy.driver import BOOM, Driver, begun, child, children, supervisor


def significant(ids: str, restart: str = "transient") -> list[Child]:
    return children(ids, restart, significant=True)


@pytest.mark.parametrize("strategy", ["one_for_one", "one_for_all", "rest_for_one"])
@pytest.mark.parametrize(
    "restart, reason",
    [
        ("transient", Normal()),
        ("transient", Shutdown()),
        ("transient", Shutdown("why")),
        ("temporary", Normal()),
        ("temporary", Shutdown()),
        ("temporary", BOOM),
    ],
)
def test_s47_the_exit_of_any_significant_child_shuts_the_supervisor_down(
    strategy: str, restart: str, reason: ExitReason
) -> None:
    specs = [child("a"), *significant("bc", restart), child("d")]
    tree = begun(specs, auto_shutdown="any_significant", strategy=strategy)

    tree.exits("b", reason)

    assert tree.take_story("stop", "end") == ["stop d", "stop c", "stop a", "end"]
    assert isinstance(tree.ended, Shutdown)
    assert "b' " in str(tree.ended)


def test_s47_the_exit_of_an_insignificant_child_does_not_shut_down() -> None:
    tree = begun([*significant("a"), child("b", "transient"), child("c", "temporary")], auto_shutdown="any_significant")

    tree.exits("b", Normal())
    tree.exits("c", Normal())

    assert tree.ended is None


def test_s47_a_supervisor_that_never_shuts_down_does_not_for_any_child() -> None:
    tree = begun([child("a", "transient")])

    tree.exits("a", Normal())

    assert tree.ended is None


@pytest.mark.parametrize("auto_shutdown", ["any_significant", "all_significant"])
@pytest.mark.parametrize("strategy", ["one_for_one", "one_for_all", "rest_for_one"])
def test_s48_a_significant_transient_child_that_crashes_is_restarted(auto_shutdown: str, strategy: str) -> None:
    tree = begun([*significant("a"), child("b")], auto_shutdown=auto_shutdown, strategy=strategy)

    tree.crash("a")

    assert tree.ended is None
    assert tree.running() == "ab"


def test_s49_all_significant_waits_for_the_last_one() -> None:
    tree = begun(
        [*significant("a"), child("b"), *significant("c", "temporary"), *significant("d")],
        auto_shutdown="all_significant",
    )

    tree.exits("d", Normal())
    tree.crash("c")
    assert tree.ended is None
    tree.take_story()
    tree.exits("a", Shutdown())
    assert tree.take_story() == ["stop b", "end"]
    assert isinstance(tree.ended, Shutdown)


def test_s49_a_restarting_significant_child_is_still_active() -> None:
    tree = begun(significant("ab"), auto_shutdown="all_significant")
    tree.plan_starts("a", "fails", "waits")
    tree.crash("a")

    tree.exits("b", Normal())

    assert tree.ended is None
    tree.ready("a")
    tree.exits("a", Normal())
    assert tree.ended is not None


def test_s49_a_terminated_or_ignored_significant_child_is_not_active() -> None:
    tree = begun(significant("abc"), auto_shutdown="all_significant")
    tree.terminate_child("a")
    tree.plan_starts("b", "ignore")
    tree.crash("b")

    tree.exits("c", Normal())

    assert tree.ended is not None


def test_s49_a_request_under_way_is_finished_before_the_active_children_are_counted() -> None:
    tree = begun([*significant("ab"), child("c")], auto_shutdown="all_significant")
    tree.plan_stops("b", "waits")
    tree.terminate_child("b")

    tree.exits("a", Normal())
    assert tree.ended is None
    tree.exits("b", Shutdown())

    assert tree.answer() == "ok"
    assert tree.take_story("stop", "end") == ["stop b", "stop c", "end"]


def test_s49_it_is_decided_after_the_requests_that_came_earlier() -> None:
    tree = begun([*significant("a"), child("b")], auto_shutdown="all_significant")
    tree.plan_stops("b", "waits")
    tree.terminate_child("b")
    tree.start_child(significant("c")[0])

    tree.exits("a", Normal())
    tree.exits("b", Shutdown())

    assert tree.answer() == "ok"
    assert tree.ended is None
    assert tree.running() == "c"


def test_s49_it_is_decided_before_the_requests_that_came_later() -> None:
    tree = begun([*significant("a"), child("b")], auto_shutdown="all_significant")
    tree.plan_stops("b", "waits")
    tree.terminate_child("b")
    tree.exits("a", Normal())
    late = tree.restart_child("a")

    tree.exits("b", Shutdown())

    assert late is None
    assert isinstance(tree.answer(), WorkerDead)
    assert tree.ended is not None


@pytest.mark.parametrize("strategy", ["one_for_one", "one_for_all", "rest_for_one"])
def test_s49_an_exit_during_the_start_is_handled_before_later_requests(strategy: str) -> None:
    specs = [*significant("a"), child("b")]
    tree = Driver(supervisor(*specs, auto_shutdown="all_significant", strategy=strategy), begin_now=False)
    tree.plan_starts("b", "waits")
    tree.begin()
    tree.exits("a", Normal())
    tree.restart_child("a")

    tree.ready("b")

    assert isinstance(tree.answer(), WorkerDead)
    assert tree.ended is not None


@pytest.mark.parametrize("fails", [True, False])
def test_s49_a_start_under_way_decides_whether_there_is_an_active_one(fails: bool) -> None:
    tree = begun(significant("a"), auto_shutdown="all_significant")
    tree.plan_starts("b", "waits")
    tree.start_child(significant("b")[0])

    tree.exits("a", Normal())
    assert tree.ended is None
    tree.fails_to_start("b") if fails else tree.ready("b")

    assert (tree.ended is not None) is fails


def test_s49_a_recalled_child_is_active() -> None:
    tree = begun(significant("ab"), auto_shutdown="all_significant")
    tree.plan_stops("b", "waits")
    tree.recall("b")

    tree.exits("a", Normal())
    tree.exits("b", Shutdown())

    assert tree.ended is None
    assert tree.running() == "b"


def test_s49_an_exit_does_not_count_after_a_request_has_started_the_child_again() -> None:
    tree = begun([*significant("a"), child("b")], auto_shutdown="all_significant")
    tree.plan_stops("b", "waits")
    tree.terminate_child("b")
    recall = tree.post_request(Recall, "a")
    tree.settle()
    tree.exits("a", Normal())
    tree.plan_starts("a", "fails")

    tree.exits("b", Shutdown())

    assert isinstance(tree.answer(recall), ChildStartFailed)
    assert tree.ended is None


def test_s49_an_exit_does_not_count_after_a_request_to_keep_the_child_down() -> None:
    tree = begun([*significant("a"), child("b")], auto_shutdown="all_significant")
    tree.plan_stops("b", "waits")
    tree.terminate_child("b")
    tree.post_request(TerminateChild, "a")
    tree.settle()
    tree.exits("a", Normal())

    tree.exits("b", Shutdown())

    assert tree.answer() == "ok"
    assert tree.ended is None


def test_s49_an_exit_on_request_does_not_count_as_the_last_one() -> None:
    tree = begun(significant("ab"), auto_shutdown="all_significant")

    tree.exits("a", Normal())
    tree.terminate_child("b")

    assert tree.ended is None


@pytest.mark.parametrize("auto_shutdown", ["any_significant", "all_significant"])
def test_s50_a_permanent_child_cannot_be_significant(auto_shutdown: str) -> None:
    with pytest.raises(SpecError, match=r"Child 'a': significant needs .*'transient' or 'temporary'"):
        supervisor(child("a", "permanent", significant=True), auto_shutdown=auto_shutdown)


@pytest.mark.parametrize("restart", ["transient", "temporary"])
def test_s50_significant_children_need_a_supervisor_that_can_shut_down(restart: str) -> None:
    with pytest.raises(SpecError, match=r"'a' is significant, but auto_shutdown is 'never'"):
        supervisor(child("a", restart, significant=True))


@pytest.mark.parametrize("restart", ["transient", "temporary"])
@pytest.mark.parametrize("auto_shutdown", ["any_significant", "all_significant"])
@pytest.mark.parametrize("strategy", ["one_for_all", "rest_for_one"])
def test_s51_a_significant_child_stopped_because_of_a_sibling_triggers_nothing(
    restart: str, auto_shutdown: str, strategy: str
) -> None:
    tree = begun([child("a"), *significant("b", restart)], auto_shutdown=auto_shutdown, strategy=strategy)

    tree.crash("a")

    assert tree.ended is None
    assert tree.running() == ("ab" if restart == "transient" else "a")


@pytest.mark.parametrize("restart", ["transient", "temporary"])
def test_s51_an_exit_while_the_group_is_being_stopped_does_not_shut_down(restart: str) -> None:
    tree = begun(
        [child("a"), *significant("b", restart), child("c")],
        auto_shutdown="any_significant",
        strategy="one_for_all",
    )
    tree.plan_stops("c", "waits")
    tree.crash("a")

    tree.exits("b", Normal())
    tree.exits("c", Shutdown())

    assert tree.ended is None
    assert tree.running() == ("abc" if restart == "transient" else "ac")


def test_s51_terminate_child_does_not_shut_down_however_the_child_ends() -> None:
    tree = begun(significant("a", "temporary"), auto_shutdown="any_significant")
    tree.plan_stops("a", "odd")

    tree.terminate_child("a")

    assert tree.ended is None


def test_s51_an_exit_that_terminate_child_overtakes_does_not_shut_down() -> None:
    tree = begun([*significant("a"), child("b")], auto_shutdown="any_significant", strategy="one_for_all")
    tree.plan_stops("b", "waits")
    tree.terminate_child("b")
    tree.post_request(TerminateChild, "a")
    tree.settle()

    tree.exits("a", Normal())
    tree.exits("b", Shutdown())

    assert tree.ended is None


def test_s52_an_auto_shutdown_ends_the_supervisor_above_where_it_is_significant() -> None:
    inner = begun(significant("x"), auto_shutdown="any_significant")
    nested = Supervisor("nested", *inner.spec.children, auto_shutdown="any_significant", restart="transient")
    outer = begun([Child(nested, significant=True), child("b")], auto_shutdown="any_significant")

    inner.exits("x", Normal())
    assert inner.ended is not None
    outer.exits("nested", inner.ended)

    assert isinstance(outer.ended, Shutdown)
    assert "'nested'" in str(outer.ended)


# ---------------------------------------------------------------- the cause (rule 71)
@pytest.mark.parametrize("auto_shutdown", ["any_significant", "all_significant"])
def test_s71_a_failed_significant_child_is_the_cause_of_the_shutdown(auto_shutdown: str) -> None:
    tree = begun([*significant("a", "temporary"), child("b")], auto_shutdown=auto_shutdown)

    tree.exits("a", BOOM)

    assert tree.ended == Shutdown(SignificantFailure("top/a", BOOM))
    assert str(tree.ended) == f"shutdown (auto-shutdown: 'top/a' failed: {BOOM})"


def test_s71_a_significant_supervisor_that_gave_up_is_a_cause_that_travels_up() -> None:
    nested = Supervisor("nested", child("x"), restart="transient")
    tree = begun([Child(nested, significant=True), child("b")], auto_shutdown="any_significant")
    gave_up = Shutdown(GaveUp("top/nested/x", BOOM, 3, 5.0))

    tree.exits("nested", gave_up)

    assert tree.ended == Shutdown(SignificantFailure("top/nested", gave_up))
    assert origin(tree.ended) == ("top/nested/x", BOOM)


def test_s71_an_earlier_failure_is_the_cause_when_the_last_significant_child_ends_cleanly() -> None:
    tree = begun([*significant("ab", "temporary"), child("c")], auto_shutdown="all_significant")

    tree.exits("a", BOOM)
    assert tree.ended is None
    tree.exits("b", Normal())

    assert tree.ended == Shutdown(SignificantFailure("top/a", BOOM))


def test_s71_a_child_that_was_started_again_and_ended_cleanly_has_not_failed() -> None:
    tree = begun([*significant("ab", "temporary"), child("c")], auto_shutdown="all_significant")

    tree.exits("a", BOOM)
    tree.handle(StartChild("request", *significant("a", "temporary")))
    tree.exits("a", Normal())
    tree.exits("b", Normal())

    assert tree.ended == Shutdown("auto-shutdown: 'b' has ended")


def test_s71_a_supervisor_above_that_gives_up_names_the_reason_of_the_significant_child() -> None:
    nested = Supervisor("nested", child("x"))
    tree = begun([Child(nested), child("b")], max_restarts=0)

    tree.exits("nested", Shutdown(SignificantFailure("top/nested/x", BOOM)))

    assert tree.ended == Shutdown(GaveUp("top/nested", BOOM, 0, 5.0))
