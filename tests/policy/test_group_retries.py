"""Rules 36-38: group restarts in which a start fails."""

from __future__ import annotations

from typing import Any

import pytest

from suitkaise.exits import Normal
from suitkaise.policy.actions import Recall, RestartChild, TerminateChild
from tests.policy.driver import BOOM, Driver, begun, child, children

GROUPS = ["one_for_all", "rest_for_one"]


def test_s36_a_one_for_all_retry_first_stops_the_children_that_the_round_had_started() -> None:
    tree = begun(children("abcd"), strategy="one_for_all")
    tree.plan_starts("c", "fails")

    tree.crash("b")

    first = ["stop d", "stop c", "stop a", "start a", "start b", "start c"]
    retry = ["stop b", "stop a", "start a", "start b", "start c", "start d"]
    assert tree.take_story() == first + retry
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
    assert tree.take_story() == [*first, "start c", "start c", "start d"]
    assert tree.policy.restarts_used(0.0) == 3
    assert tree.running() == "abcd"


@pytest.mark.parametrize("strategy", GROUPS)
def test_s38_after_terminate_child_of_the_failing_child_the_children_after_it_stay_down(strategy: str) -> None:
    tree = begun(children("abcd"), strategy=strategy)
    tree.plan_starts("b", "fails")
    tree.post_exit("a", BOOM)

    tree.ask(TerminateChild, "b")
    tree.advance(100)

    assert tree.statuses() == {"a": "running", "b": "stopped", "c": "stopped", "d": "stopped"}


@pytest.mark.parametrize("strategy", GROUPS)
def test_s38_a_child_that_stays_down_can_be_started_or_is_revived_by_the_next_group_restart(strategy: str) -> None:
    tree = begun(children("abcd"), strategy=strategy)
    tree.plan_starts("b", "fails")
    tree.post_exit("a", BOOM)
    tree.ask(TerminateChild, "b")

    assert tree.ask(RestartChild, "d") == "ok"
    assert tree.running() == "ad"
    tree.crash("a")
    assert tree.running() == "abcd"


def test_a_group_restart_by_another_child_replaces_a_pending_retry() -> None:
    tree = begun(children("abc"), strategy="rest_for_one")
    tree.plan_starts("b", "fails")
    tree.post_exit("b", BOOM)
    tree.post_exit("a", BOOM)

    tree.settle()
    tree.advance(100)

    assert tree.take_story("start") == ["start b", "start a", "start b", "start c"]
    assert tree.policy.restarts_used(0.0) == 2


def gone_for_good(tree: Driver) -> str:
    return "".join(id for id in tree.statuses() if tree.policy.is_over(id))


@pytest.mark.parametrize("strategy", GROUPS)
def test_a_member_that_is_down_because_of_its_group_is_not_over(strategy: str) -> None:
    tree = begun(children("abc"), strategy=strategy)
    tree.plan_starts("a", "waits", "waits")
    tree.crash("a")
    assert gone_for_good(tree) == ""

    tree.post_exit("a", Driver.FAILED)
    tree.handle(tree._inbox.popleft())

    assert gone_for_good(tree) == ""
    tree.settle()
    tree.ready("a")
    assert (gone_for_good(tree), tree.running()) == ("", "abc")


@pytest.mark.parametrize("strategy", GROUPS)
@pytest.mark.parametrize("request_", [TerminateChild, Recall])
def test_s38_members_that_no_retry_will_start_are_over(strategy: str, request_: Any) -> None:
    tree = begun(children("abcd"), strategy=strategy)
    tree.plan_starts("b", "fails")
    tree.post_exit("a", BOOM)

    tree.ask(request_, "b")

    assert gone_for_good(tree) == ("bcd" if request_ is TerminateChild else "cd")


@pytest.mark.parametrize("strategy", ["one_for_one", *GROUPS])
def test_a_child_that_only_a_request_will_start_is_over(strategy: str) -> None:
    specs = [child("a"), child("b", "transient"), child("c"), child("d"), child("e", "temporary")]
    tree = begun(specs, strategy=strategy)
    tree.exits("b", Normal())
    tree.terminate_child("c")
    tree.plan_starts("d", "ignore")
    tree.recall("d")
    tree.crash("e")

    assert gone_for_good(tree) == "bcd"
    assert tree.policy.is_over("e")
    assert tree.policy.is_over("nobody")


def test_s38_the_child_that_crashed_stays_down_too_when_an_earlier_one_fails_and_is_terminated() -> None:
    tree = begun(children("abc"), strategy="one_for_all")
    tree.plan_starts("a", "fails")
    tree.post_exit("b", BOOM)

    tree.ask(TerminateChild, "a")

    assert tree.statuses() == {"a": "stopped", "b": "crashed", "c": "stopped"}
    assert gone_for_good(tree) == "abc"
    assert tree.restart_child("b") == "ok"


def test_s36_the_child_that_crashed_is_down_while_an_earlier_one_restarts() -> None:
    tree = begun(children("abc"), strategy="one_for_all")
    tree.plan_starts("a", "fails")
    tree.post_exit("b", BOOM)

    assert tree.ask(RestartChild, "b") == "ok"

    assert tree.take_story() == [
        *["stop c", "stop a", "start a", "start b", "reply"],
        *["stop b", "start a", "start b", "start c"],
    ]
    assert tree.policy.restarts_used(0.0) == 2


def test_s36_a_retry_that_fails_at_an_earlier_child_is_that_childs() -> None:
    tree = begun(children("ab"), strategy="one_for_all")
    tree.plan_starts("b", "fails")
    tree.plan_starts("a", "ok", "fails")

    tree.crash("b")

    assert tree.take_story("start") == ["start a", "start b", "start a", "start a", "start b"]
    assert tree.policy.restarts_used(0.0) == 3
