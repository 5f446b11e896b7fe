"""`assert_survives`: thousands of stories of crashes on a virtual clock, and the shortest one that a tree fails."""

from __future__ import annotations

import re

import pytest

from suitkaise import Backoff, Child, DynamicSupervisor, Supervisor
from suitkaise.testing import assert_survives


def work() -> None: ...


def test_a_tree_survives_as_many_crashes_at_once_as_its_restarts_allow() -> None:
    tree = Supervisor("app", Child(work, copies=3), strategy="one_for_all", max_restarts=4)
    assert_survives(tree, crashes=4)


def test_a_story_that_a_tree_does_not_survive_is_told_at_its_shortest() -> None:
    inner = Supervisor("jobs", Child(work, id="a"), Child(work, id="b"), max_restarts=1, max_seconds=5.0)
    tree = Supervisor("app", inner, max_restarts=0)
    with pytest.raises(AssertionError) as failed:
        assert_survives(tree, crashes=6)
    story = str(failed.value)
    assert story.startswith("'app' does not survive 2 crashes: it has ended: shutdown (gave up")
    assert re.findall(r"later, (\S+) crashes", story) == ["app/jobs/a", "app/jobs/a"]
    assert "app/jobs supervisor gives up" in story


def test_crashes_that_are_far_enough_apart_are_survived_for_ever() -> None:
    tree = Supervisor("app", Child(work), max_restarts=1, max_seconds=2.0)
    assert_survives(tree, crashes=30, apart=2.5)


def test_a_child_that_is_given_up_alone_does_not_run_at_the_end() -> None:
    tree = Supervisor("app", Child(work, id="poison", max_restarts=1, max_seconds=5.0), Child(work, id="fine"))
    with pytest.raises(AssertionError, match="app/poison is failed"):
        assert_survives(tree, crashes=3)


def test_a_backoff_and_temporary_children_count_as_declared() -> None:
    tree = Supervisor(
        "app", Child(work, id="slow", backoff=Backoff(initial=1.0)), Child(work, id="t", restart="temporary")
    )
    assert_survives(tree, crashes=2)


def test_a_tree_without_workers_is_refused() -> None:
    with pytest.raises(ValueError, match="'empty' has no workers that could crash"):
        assert_survives(DynamicSupervisor("empty"))
