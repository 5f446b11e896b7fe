"""Rule 81: for which child the start of another one waits."""

from __future__ import annotations

import pytest

from suitkaise import Backoff, Supervisor
from suitkaise.exits import Shutdown
from suitkaise.policy.actions import StopAll, TerminateChild
from tests.policy.driver import Driver, begun, child, children, supervisor
from tests.policy.test_dynamic import pool


def test_s81_a_later_child_waits_for_the_start_of_an_earlier_one() -> None:
    tree = Driver(supervisor(*children("abc")), begin_now=False)
    tree.plan_starts("b", "waits")
    tree.begin()

    assert tree.policy.comes_after("c", "b") == "start"
    assert tree.policy.comes_after("a", "b") is None
    assert tree.policy.comes_after("c", "a") is None  # which is up: it delays nothing
    tree.ready("b")
    assert tree.policy.comes_after("c", "b") is None


@pytest.mark.parametrize("strategy", ["one_for_one", "rest_for_one", "one_for_all"])
def test_s81_what_was_stopped_before_waits_for_the_stop_of_an_earlier_child(strategy: str) -> None:
    tree = begun(children("abc"), strategy=strategy)
    tree.plan_stops("b", "waits")
    tree.now_handle(StopAll(Shutdown()))

    assert tree.policy.comes_after("c", "b") == "stop"
    assert tree.policy.comes_after("a", "b") is None  # it is up
    assert tree.policy.comes_after("c", "a") is None  # whose turn has not come


def test_s81_a_member_of_a_group_waits_for_the_others_that_are_stopped_and_started() -> None:
    tree = begun(children("abc"), strategy="one_for_all")
    tree.plan_stops("b", "waits")
    tree.plan_starts("b", "waits")

    tree.crash("a")
    assert tree.policy.comes_after("c", "b") == "stop"
    assert tree.policy.comes_after("a", "b") == "stop"
    tree.exits("b", Shutdown())
    assert tree.policy.comes_after("c", "b") == "start"
    assert tree.policy.comes_after("a", "b") is None


def test_s81_a_restart_that_is_no_job_waits_for_none() -> None:
    tree = begun([child("a", backoff=Backoff(1.0)), child("b")])
    tree.plan_stops("b", "waits")
    tree.crash("a")
    tree.post_request(TerminateChild, "b")
    tree.settle()

    assert tree.statuses() == {"a": "restarting", "b": "stopping"}
    assert tree.policy.comes_after("a", "b") is None


def test_s81_a_restart_of_a_group_waits_for_the_request_that_is_served() -> None:
    tree = begun(children("ab"), strategy="one_for_all")
    tree.plan_stops("b", "waits")
    tree.post_request(TerminateChild, "b")
    tree.settle()
    tree.crash("a")

    assert tree.policy.comes_after("a", "b") == "stop"


def test_s81_children_of_a_dynamic_supervisor_are_independent_until_it_stops() -> None:
    tree = pool([child("a", backoff=Backoff(1.0)), child("b")])
    tree.plan_stops("b", "waits")
    tree.crash("a")
    tree.post_request(TerminateChild, "b")
    tree.settle()
    assert tree.policy.comes_after("a", "b") is None

    tree = pool(children("ab"))
    tree.plan_stops("b", "waits")
    tree.now_handle(StopAll(Shutdown()))
    assert tree.policy.comes_after("a", "b") in (None, "stop")  # it may be removed already


def test_s81_nothing_is_said_of_children_that_do_not_exist() -> None:
    tree = Driver(supervisor(child("a"), Supervisor("nested")), begin_now=False)
    tree.plan_starts("a", "waits")
    tree.begin()

    assert tree.policy.comes_after("x", "a") is None
    assert tree.policy.comes_after("nested", "x") is None
    assert tree.policy.comes_after("nested", "a") == "start"
