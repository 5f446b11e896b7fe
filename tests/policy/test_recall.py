"""Recalls: stop and start again one child alone, on request; and events of children that are gone."""

from __future__ import annotations

import pytest

from suitkaise.errors import (
    ChildNotFound,
    ChildStartFailed,
)
from suitkaise.policy.actions import Recall
from tests.policy.driver import Driver, begun, child, children, restarting


@pytest.mark.parametrize("strategy", ["one_for_one", "one_for_all", "rest_for_one"])
def test_recall_stops_and_starts_that_child_alone_and_is_not_counted(strategy: str) -> None:
    tree = begun(children("abc"), strategy=strategy, max_restarts=0)

    assert tree.recall("b") == "ok"
    assert tree.take_story() == ["stop b", "start b", "reply"]
    assert tree.running() == "abc"
    assert tree.policy.restarts_used(0.0) == 0


def test_recall_starts_a_stopped_child() -> None:
    tree = begun(children("a"))
    tree.terminate_child("a")
    tree.take_story()

    assert tree.recall("a") == "ok"
    assert tree.take_story() == ["start a", "reply"]


def test_recall_of_a_restarting_child_starts_it_now_and_cancels_the_retry() -> None:
    tree = restarting()
    tree.take_story()

    assert tree.recall("b") == "ok"
    tree.advance(100)

    assert tree.take_story() == ["start b", "start b", "reply"]
    assert tree.policy.restarts_used(0.0) == 1


@pytest.mark.parametrize("restart", ["permanent", "transient"])
@pytest.mark.parametrize("strategy", ["one_for_one", "rest_for_one", "one_for_all"])
def test_s80_a_recall_whose_start_fails_is_followed_by_restarts_as_after_a_crash(strategy: str, restart: str) -> None:
    tree = begun([child("a", restart), child("b")], strategy=strategy)
    tree.plan_starts("a", "fails", "fails")

    error = tree.recall("a")
    tree.advance(100)

    assert isinstance(error, ChildStartFailed)
    assert tree.running() == "ab"
    assert tree.policy.restarts_used(0.0) == 2  # the recall itself does not count


def test_s80_restarts_after_a_recall_are_limited_like_all_others() -> None:
    tree = begun(children("ab"), max_restarts=1)
    tree.plan_starts("a", "fails", "fails")

    tree.recall("a")
    tree.advance(100)

    assert tree.ended is not None


def test_s80_a_child_that_was_down_stays_down_if_its_recall_fails() -> None:
    tree = begun(children("ab"))
    tree.terminate_child("a")
    tree.plan_starts("a", "fails")

    assert isinstance(tree.recall("a"), ChildStartFailed)
    tree.advance(100)
    assert tree.running() == "b"


def test_s80_a_recall_whose_start_fails_leaves_a_temporary_child_stopped() -> None:
    tree = begun([child("a", "temporary"), child("b")])
    tree.plan_starts("a", "fails")

    error = tree.recall("a")
    tree.advance(100)

    assert isinstance(error, ChildStartFailed)
    assert error.path == "top/a"
    assert tree.running() == "b"
    assert list(tree.statuses()) == ["a", "b"]
    assert tree.policy.restarts_used(0.0) == 0


def test_recall_of_a_temporary_child_keeps_its_place() -> None:
    tree = begun([child("a", "temporary"), child("b")])

    assert tree.recall("a") == "ok"
    assert tree.take_story() == ["stop a", "start a", "reply"]
    assert tree.running() == "ab"


def test_recall_of_a_temporary_child_that_ignores_forgets_it() -> None:
    tree = begun([child("a", "temporary"), child("b")])
    tree.plan_starts("a", "ignore")

    assert tree.recall("a") == "ok"
    assert tree.statuses() == {"b": "running"}


def test_recall_of_an_unknown_child() -> None:
    assert isinstance(begun(children("a")).recall("x"), ChildNotFound)


def test_events_of_a_removed_child_do_not_affect_a_later_child_with_its_id() -> None:
    tree = begun([child("a", "temporary", shutdown=5)])
    tree.terminate_child("a")  # leaves a kill timer at 5 s behind
    tree.advance(4)
    tree.start_child(child("a", shutdown=5))
    assert tree.last_start("a").previous is None
    assert [info.restarts for info in tree.policy.which_children()] == [0]
    tree.plan_stops("a", "waits")
    tree.terminate_child("a")
    tree.take_story()

    tree.advance(2)
    assert tree.take_story() == []
    tree.advance(3)
    assert tree.take_story() == ["kill a (shutdown timeout)", "reply"]


def recycle(tree: Driver, id: str, incarnation: int) -> None:
    assert tree.ask(lambda request, of: Recall(request, of, incarnation), id) in ("ok", None)


def test_s83_a_recall_of_one_incarnation_restarts_it_and_is_not_counted() -> None:
    tree = begun(children("ab"), max_restarts=0)
    recycle(tree, "b", 1)
    assert tree.take_story() == ["stop b", "start b", "reply"]
    assert tree.policy.restarts_used(0.0) == 0


def test_s83_a_recall_of_an_incarnation_that_does_not_run_any_more_does_nothing() -> None:
    tree = begun(children("ab"))
    tree.crash("b")
    tree.take_story()
    recycle(tree, "b", 1)  # it runs again, as the second one
    recycle(tree, "nobody", 1)
    assert tree.take_story() == ["reply", "reply"]
    tree.terminate_child("b")
    tree.take_story()
    recycle(tree, "b", 2)
    assert tree.take_story() == ["reply"]
    assert tree.running() == "a"
