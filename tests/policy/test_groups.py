"""Rules 27 and 32-34: restarts that concern several children."""

from __future__ import annotations

import pytest

from suitkaise import Supervisor
from suitkaise.exits import Normal, Shutdown
from suitkaise.specs import Child
from tests.policy.driver import Driver, begun, child, children, supervisor

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
def test_s32_s33_the_group_is_stopped_in_reverse_and_started_in_order(
    strategy: str, crashed: str, told: list[str]
) -> None:
    tree = begun(children("abc"), strategy=strategy)

    tree.crash(crashed)

    assert tree.take_story() == told
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
    assert tree.take_story() == ["stop c"]
    assert tree.statuses() == {"a": "restarting", "b": "running", "c": "stopping"}
    tree.exits("c", Shutdown())
    assert tree.take_story() == ["stop b"]
    tree.exits("b", Shutdown())
    assert tree.take_story() == ["start a"]
    assert tree.statuses() == {"a": "starting", "b": "stopped", "c": "stopped"}
    tree.ready("a")
    assert tree.take_story() == ["start b"]
    tree.ready("b")
    assert tree.take_story() == ["start c"]
    tree.ready("c")
    assert tree.running() == "abc"


def test_s33_rest_for_one_restarts_only_the_children_after_it() -> None:
    tree = begun([child("a"), child("b"), Child(Supervisor("s")), child("c")], strategy="rest_for_one")

    tree.crash("b")

    assert tree.take_story() == ["stop c", "stop s", "start b", "start s", "start c"]


def test_s33_a_child_added_later_is_after_the_others() -> None:
    tree = begun(children("ab"), strategy="rest_for_one")
    tree.start_child(child("added"))
    tree.take_story()

    tree.crash("b")

    assert tree.take_story() == ["stop added", "start b", "start added"]


@pytest.mark.parametrize("strategy", GROUPS)
def test_s27_a_temporary_bystander_is_stopped_removed_and_not_started_again(strategy: str) -> None:
    tree = begun([child("a"), child("b", "temporary"), child("c")], strategy=strategy)

    tree.crash("a")

    assert tree.take_story() == ["stop c", "stop b", "removed b", "start a", "start c"]
    assert tree.statuses() == {"a": "running", "c": "running"}


def test_s27_a_temporary_child_before_the_failing_one_is_left_alone_by_rest_for_one() -> None:
    tree = begun([child("a", "temporary"), child("b")], strategy="rest_for_one")

    tree.crash("b")

    assert tree.running() == "ab"


@pytest.mark.parametrize("strategy", GROUPS)
def test_s34_a_group_restart_revives_children_that_a_request_or_a_clean_exit_had_stopped(strategy: str) -> None:
    tree = begun([child("a"), child("b"), child("c", "transient"), child("d")], strategy=strategy)
    tree.terminate_child("b")
    tree.exits("c", Normal())
    tree.take_story()

    tree.crash("a")

    assert tree.take_story() == ["stop d", "start a", "start b", "start c", "start d"]
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


@pytest.mark.parametrize("strategy", GROUPS)
def test_members_that_die_while_the_group_is_stopped_are_not_restarted_twice(strategy: str) -> None:
    tree = begun(children("abcd"), strategy=strategy)

    tree.crash_together("a", "c", "b", "d")

    assert sorted(tree.take_story("start")) == ["start a", "start b", "start c", "start d"]
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
    tree.take_story()

    tree.crash("a")
    assert tree.take_story() == []
    tree.ready("c")
    assert tree.take_story() == ["stop c", "stop b", "start a", "start b", "start c"]
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
    assert tree.take_story()[-2:] == ["stop b", "reply"]


@pytest.mark.parametrize("strategy", GROUPS)
def test_a_member_that_dies_after_its_start_in_the_same_round_makes_a_round_of_its_own(strategy: str) -> None:
    tree = begun(children("abc"), strategy=strategy)
    tree.plan_starts("c", "waits")
    tree.crash("a")
    tree.take_story()

    tree.crash("b")
    tree.ready("c")

    assert tree.take_story("start")[-2:] == ["start b", "start c"]
    assert tree.policy.restarts_used(0.0) == 2
    assert tree.running() == "abc"


@pytest.mark.parametrize("strategy", GROUPS)
def test_requests_wait_until_a_group_is_back(strategy: str) -> None:
    tree = begun(children("ab"), strategy=strategy)
    tree.plan_starts("a", "waits")
    tree.crash("a")
    tree.take_story()

    assert tree.terminate_child("b") is None
    tree.ready("a")

    assert tree.take_story() == ["start b", "stop b", "reply"]
    assert tree.running() == "a"
