"""`assert_survives`: thousands of stories of crashes on a virtual clock, and the shortest one that a tree fails."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest

from suitkaise import Backoff, Child, DynamicSupervisor, Supervisor
from suitkaise.testing import assert_survives
from tests.support import run_program


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


@pytest.mark.parametrize(
    "wrong, says",
    [
        ({"crashes": -1}, "crashes must be a whole number >= 0, not -1"),
        ({"crashes": 1.5}, "crashes must be a whole number >= 0, not 1.5"),
        ({"examples": 0}, "examples must be a whole number >= 1, not 0"),
        ({"apart": -1.0}, "apart must be seconds >= 0, not -1.0"),
        ({"apart": math.nan}, "apart must be seconds >= 0, not nan"),
        ({"at_most_apart": math.inf}, "at_most_apart must be seconds >= 0, not inf"),
    ],
)
def test_a_number_that_makes_no_stories_is_refused(wrong: Any, says: str) -> None:
    with pytest.raises(ValueError, match=f"assert_survives: {says}"):
        assert_survives(Supervisor("app", work), **wrong)


@pytest.mark.parametrize("wrong", [work, "app", Child(work)], ids=["a function", "a text", "a child"])
def test_what_is_no_supervisor_is_refused(wrong: Any) -> None:
    with pytest.raises(TypeError, match="assert_survives takes a Supervisor, not "):
        assert_survives(wrong)


def test_a_tree_without_workers_is_refused() -> None:
    with pytest.raises(ValueError, match="'empty' has no workers that could crash"):
        assert_survives(DynamicSupervisor("empty"))


def test_without_hypothesis_the_error_tells_what_to_install() -> None:
    program = """
import sys
sys.modules["hypothesis"] = None
from suitkaise import Child, Supervisor
from suitkaise.testing import assert_survives
try:
    assert_survives(Supervisor("app", Child(print)), crashes=1)
except ImportError as error:
    print(error)
"""
    told = run_program(program).check().stdout
    assert told == "assert_survives needs hypothesis: pip install 'suitkaise-xprocess[testing]'\n"
