"""Rules 27 and 32-38: restarts that concern several children."""

from __future__ import annotations

from typing import Any

import pytest

from suitkaise.exits import Normal, Shutdown
from suitkaise.specs import Child, Supervisor
from suitkaise.supervision.steps import Recall, RestartChild, TerminateChild
from tests.supervision.driver import BOOM, Driver, begun, child, children, supervisor

GROUPS = ["one_for_all", "rest_for_one"]


@pytest.mark.parametrize(
    "strategy, crashed, told",
    [
        ("one_for_all", "a", ["stop c", "stop b", "start a", "start b", "start c"]),
        ("one_for_all", "b", ["stop c", "stop a", "start a", "start b", "start c"]),
        ("one_for_all", "c", ["stop b", "stop a", "start a", "start b", "start c"]),
        ("rest_for_one", "a", ["stop c", "stop b", "start a", "start b", "start c"]),
        ("rest_for_one", "b", ["stop c", "start b", "start c"]),
        ("rest_for_one", "c", ["start c"]),
    ],
)
def test_s32_s33_who_is_stopped_in_reverse_and_started_in_order(strategy: str, crashed: str, told: list[str]) -> None:
    tree = begun(children("abc"), strategy=strategy)

    tree.crash(crashed)

    assert tree.told() == told
    assert tree.running() == "abc"


@pytest.mark.parametrize("strategy", GROUPS)
def test_s32_s33_a_group_restart_counts_as_one(strategy: str) -> None:
    tree = begun(children("abcdef"), strategy=strategy, max_restarts=1)

    tree.crash("a")

    assert tree.policy.restarts_used(0.0) == 1
    assert tree.running() == "abcdef"


@pytest.mark.parametrize("strategy", GROUPS)
def test_s32_s33_each_is_gone_before_the_next_is_asked_and_up_before_the_next_starts(strategy: str) -> None:
    tree = begun(children("abc"), strategy=strategy)
    for id in "bc":
        tree.plan_stops(id, "waits")
    for id in "abc":
        tree.plan_starts(id, "waits")

    tree.crash("a")
    assert tree.told() == ["stop c"]
    assert tree.statuses() == {"a": "restarting", "b": "running", "c": "stopping"}
    tree.exits("c", Shutdown())
    assert tree.told() == ["stop b"]
    tree.exits("b", Shutdown())
    assert tree.told() == ["start a"]
    assert tree.statuses() == {"a": "starting", "b": "stopped", "c": "stopped"}
    tree.ready("a")
    assert tree.told() == ["start b"]
    tree.ready("b")
    assert tree.told() == ["start c"]
    tree.ready("c")
    assert tree.running() == "abc"


def test_s33_rest_for_one_restarts_only_the_children_after_it() -> None:
    tree = begun([child("a"), child("b"), Child(Supervisor("s")), child("c")], strategy="rest_for_one")

    tree.crash("b")

    assert tree.told() == ["stop c", "stop s", "start b", "start s", "start c"]


def test_s33_a_child_added_later_is_after_the_others() -> None:
    tree = begun(children("ab"), strategy="rest_for_one")
    tree.start_child(child("added"))
    tree.told()

    tree.crash("b")

    assert tree.told() == ["stop added", "start b", "start added"]


@pytest.mark.parametrize("strategy", GROUPS)
def test_s27_a_temporary_bystander_is_stopped_removed_and_not_started_again(strategy: str) -> None:
    tree = begun([child("a"), child("b", "temporary"), child("c")], strategy=strategy)

    tree.crash("a")

    assert tree.told() == ["stop c", "stop b", "removed b", "start a", "start c"]
    assert tree.statuses() == {"a": "running", "c": "running"}


def test_s27_a_temporary_child_before_the_failing_one_is_left_alone_by_rest_for_one() -> None:
    tree = begun([child("a", "temporary"), child("b")], strategy="rest_for_one")

    tree.crash("b")

    assert tree.running() == "ab"


@pytest.mark.parametrize("strategy", GROUPS)
def test_s34_a_group_restart_revives_what_a_request_or_a_clean_exit_had_stopped(strategy: str) -> None:
    tree = begun([child("a"), child("b"), child("c", "transient"), child("d")], strategy=strategy)
    tree.terminate_child("b")
    tree.exits("c", Normal())
    tree.told()

    tree.crash("a")

    assert tree.told() == ["stop d", "start a", "start b", "start c", "start d"]
    assert tree.running() == "abcd"


def test_s34_rest_for_one_leaves_a_stopped_child_before_the_failing_one_stopped() -> None:
    tree = begun(children("abc"), strategy="rest_for_one")
    tree.terminate_child("a")

    tree.crash("b")

    assert tree.running() == "bc"


@pytest.mark.parametrize("strategy", GROUPS)
def test_s34_a_group_restart_gives_an_ignored_child_another_chance(strategy: str) -> None:
    tree = Driver(supervisor(*children("ab"), strategy=strategy), begin_now=False)
    tree.plan_starts("b", "ignore")
    tree.begin()

    tree.crash("a")

    assert tree.running() == "ab"


def test_s36_a_one_for_all_retry_first_stops_what_the_round_had_started() -> None:
    tree = begun(children("abcd"), strategy="one_for_all")
    tree.plan_starts("c", "fails")

    tree.crash("b")

    first = ["stop d", "stop c", "stop a", "start a", "start b", "start c"]
    retry = ["stop b", "stop a", "start a", "start b", "start c", "start d"]
    assert tree.told() == first + retry
    assert tree.policy.restarts_used(0.0) == 2


def test_s36_the_siblings_that_the_round_had_started_run_until_the_retry() -> None:
    tree = begun(children("abc"), strategy="one_for_all")
    tree.plan_starts("b", "waits")
    tree.crash("a")

    tree.post_exit("b", Driver.FAILED)
    tree.handle(tree._inbox.popleft())

    assert tree.statuses() == {"a": "running", "b": "restarting", "c": "stopped"}


def test_s37_a_rest_for_one_retry_begins_at_the_child_that_failed() -> None:
    tree = begun(children("abcd"), strategy="rest_for_one")
    tree.plan_starts("c", "fails", "fails")

    tree.crash("b")

    first = ["stop d", "stop c", "start b", "start c"]
    assert tree.told() == [*first, "start c", "start c", "start d"]
    assert tree.policy.restarts_used(0.0) == 3
    assert tree.running() == "abcd"


@pytest.mark.parametrize("strategy", GROUPS)
def test_s38_after_terminate_child_of_the_failing_one_those_after_it_stay_down(strategy: str) -> None:
    tree = begun(children("abcd"), strategy=strategy)
    tree.plan_starts("b", "fails")
    tree.post_exit("a", BOOM)

    tree.ask(TerminateChild, "b")
    tree.advance(100)

    assert tree.statuses() == {"a": "running", "b": "stopped", "c": "stopped", "d": "stopped"}


@pytest.mark.parametrize("strategy", GROUPS)
def test_s38_what_stays_down_can_be_started_or_is_revived_by_the_next_group_restart(strategy: str) -> None:
    tree = begun(children("abcd"), strategy=strategy)
    tree.plan_starts("b", "fails")
    tree.post_exit("a", BOOM)
    tree.ask(TerminateChild, "b")

    assert tree.ask(RestartChild, "d") == "ok"
    assert tree.running() == "ad"
    tree.crash("a")
    assert tree.running() == "abcd"


@pytest.mark.parametrize("strategy", GROUPS)
def test_members_that_die_while_the_group_is_stopped_are_not_restarted_twice(strategy: str) -> None:
    tree = begun(children("abcd"), strategy=strategy)

    tree.crash_together("a", "c", "b", "d")

    assert sorted(tree.told("start")) == ["start a", "start b", "start c", "start d"]
    assert tree.policy.restarts_used(0.0) == 1
    assert tree.running() == "abcd"


@pytest.mark.parametrize("strategy", GROUPS)
def test_an_exit_that_the_group_restart_took_care_of_means_nothing_to_the_next_incarnation(
    strategy: str,
) -> None:
    tree = begun(children("abcd"), strategy=strategy)
    tree.plan_stops("d", "waits")
    tree.plan_starts("d", "waits")
    tree.crash("a")
    tree.crash("c")
    tree.terminate_child("c")
    tree.exits("d", Shutdown())

    tree.crash("c")
    tree.ready("d")

    assert tree.answer() == "ok"
    assert tree.running() == "abd"
    assert tree.policy.restarts_used(0.0) == 1


def test_a_child_outside_the_group_that_dies_meanwhile_is_dealt_with_afterwards() -> None:
    tree = begun(children("abc"), strategy="rest_for_one")
    tree.plan_starts("c", "waits")
    tree.crash("c")
    tree.told()

    tree.crash("a")
    assert tree.told() == []
    tree.ready("c")
    assert tree.told() == ["stop c", "stop b", "start a", "start b", "start c"]
    assert tree.policy.restarts_used(0.0) == 2


@pytest.mark.parametrize("strategy", GROUPS)
def test_a_group_restart_comes_before_requests_that_came_after_the_crash(strategy: str) -> None:
    tree = begun(children("abc"), strategy=strategy)
    tree.plan_starts("c", "waits")
    tree.crash("c")
    tree.crash("a")
    assert tree.terminate_child("b") is None

    tree.ready("c")

    assert tree.running() == "ac"
    assert tree.told()[-2:] == ["stop b", "reply"]


@pytest.mark.parametrize("strategy", GROUPS)
def test_a_member_that_dies_after_its_start_in_the_same_round_makes_a_round_of_its_own(strategy: str) -> None:
    tree = begun(children("abc"), strategy=strategy)
    tree.plan_starts("c", "waits")
    tree.crash("a")
    tree.told()

    tree.crash("b")
    tree.ready("c")

    assert tree.told("start")[-2:] == ["start b", "start c"]
    assert tree.policy.restarts_used(0.0) == 2
    assert tree.running() == "abc"


def test_a_group_restart_by_another_child_replaces_a_pending_retry() -> None:
    tree = begun(children("abc"), strategy="rest_for_one")
    tree.plan_starts("b", "fails")
    tree.post_exit("b", BOOM)
    tree.post_exit("a", BOOM)

    tree.settle()
    tree.advance(100)

    assert tree.told("start") == ["start b", "start a", "start b", "start c"]
    assert tree.policy.restarts_used(0.0) == 2


@pytest.mark.parametrize("strategy", GROUPS)
def test_requests_wait_until_a_group_is_back(strategy: str) -> None:
    tree = begun(children("ab"), strategy=strategy)
    tree.plan_starts("a", "waits")
    tree.crash("a")
    tree.told()

    assert tree.terminate_child("b") is None
    tree.ready("a")

    assert tree.told() == ["start b", "stop b", "reply"]
    assert tree.running() == "a"


def over(tree: Driver) -> str:
    return "".join(id for id in tree.statuses() if tree.policy.is_over(id))


@pytest.mark.parametrize("strategy", GROUPS)
def test_a_member_that_is_down_because_of_its_group_is_not_over(strategy: str) -> None:
    tree = begun(children("abc"), strategy=strategy)
    tree.plan_starts("a", "waits", "waits")
    tree.crash("a")
    assert over(tree) == ""

    tree.post_exit("a", Driver.FAILED)
    tree.handle(tree._inbox.popleft())

    assert over(tree) == ""
    tree.settle()
    tree.ready("a")
    assert (over(tree), tree.running()) == ("", "abc")


@pytest.mark.parametrize("strategy", GROUPS)
@pytest.mark.parametrize("request_", [TerminateChild, Recall])
def test_s38_members_that_no_retry_will_start_are_over(strategy: str, request_: Any) -> None:
    tree = begun(children("abcd"), strategy=strategy)
    tree.plan_starts("b", "fails")
    tree.post_exit("a", BOOM)

    tree.ask(request_, "b")

    assert over(tree) == ("bcd" if request_ is TerminateChild else "cd")


@pytest.mark.parametrize("strategy", ["one_for_one", *GROUPS])
def test_a_child_that_only_a_request_will_start_is_over(strategy: str) -> None:
    specs = [child("a"), child("b", "transient"), child("c"), child("d"), child("e", "temporary")]
    tree = begun(specs, strategy=strategy)
    tree.exits("b", Normal())
    tree.terminate_child("c")
    tree.plan_starts("d", "ignore")
    tree.recall("d")
    tree.crash("e")

    assert over(tree) == "bcd"
    assert tree.policy.is_over("e")
    assert tree.policy.is_over("nobody")


def test_s38_the_child_that_crashed_stays_down_too_when_an_earlier_one_fails_and_is_terminated() -> None:
    tree = begun(children("abc"), strategy="one_for_all")
    tree.plan_starts("a", "fails")
    tree.post_exit("b", BOOM)

    tree.ask(TerminateChild, "a")

    assert tree.statuses() == {"a": "stopped", "b": "crashed", "c": "stopped"}
    assert over(tree) == "abc"
    assert tree.restart_child("b") == "ok"


def test_s36_the_child_that_crashed_is_down_while_an_earlier_one_restarts() -> None:
    tree = begun(children("abc"), strategy="one_for_all")
    tree.plan_starts("a", "fails")
    tree.post_exit("b", BOOM)

    assert tree.ask(RestartChild, "b") == "ok"

    assert tree.told() == [
        *["stop c", "stop a", "start a", "start b", "reply"],
        *["stop b", "start a", "start b", "start c"],
    ]
    assert tree.policy.restarts_used(0.0) == 2


def test_s36_a_retry_that_fails_at_an_earlier_child_is_that_childs() -> None:
    tree = begun(children("ab"), strategy="one_for_all")
    tree.plan_starts("b", "fails")
    tree.plan_starts("a", "ok", "fails")

    tree.crash("b")

    assert tree.told("start") == ["start a", "start b", "start a", "start a", "start b"]
    assert tree.policy.restarts_used(0.0) == 3
