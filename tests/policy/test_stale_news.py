"""An event that comes twice, too late, or from an unknown child changes nothing."""

from __future__ import annotations

from typing import Any

import pytest

from suitkaise.exits import Normal, Shutdown
from suitkaise.policy.actions import Exited, Ignored, Ready, Timer
from suitkaise.specs import Backoff
from tests.policy.driver import BOOM, Driver, begun, child, children

STRATEGIES = ["one_for_one", "one_for_all", "rest_for_one"]


def changes_nothing(tree: Driver, *news: Any) -> None:
    before = (tree.policy.which_children(), tree.policy.restarts_used(tree.now), list(tree.events))
    tree.take_story()
    for event in news:
        assert tree.handle(event) == [], event
    assert before == (tree.policy.which_children(), tree.policy.restarts_used(tree.now), tree.events)


def of(id: str, incarnation: int) -> list[Any]:
    return [
        Ready(id, incarnation),
        Ignored(id, incarnation),
        Exited(id, incarnation, BOOM),
        Exited(id, incarnation, Normal()),
        Timer(("kill", id, incarnation)),
        Timer(("retry", id, incarnation)),
    ]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_an_event_of_an_unknown_child_changes_nothing(strategy: str) -> None:
    changes_nothing(begun(children("ab"), strategy=strategy), *of("x", 1), *of("a", 2), *of("a", 0))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_an_event_of_the_previous_incarnation_changes_nothing(strategy: str) -> None:
    tree = begun(children("ab"), strategy=strategy)
    tree.crash("a")

    changes_nothing(tree, *of("a", 1))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_an_event_of_the_previous_incarnation_does_not_affect_one_that_is_starting(strategy: str) -> None:
    tree = begun(children("ab"), strategy=strategy)
    tree.plan_starts("a", "waits")
    tree.crash("a")

    changes_nothing(tree, *of("a", 1))


def test_a_child_that_runs_is_ready_and_does_not_ignore() -> None:
    changes_nothing(begun(children("a")), Ready("a", 1), Ignored("a", 1), *of("a", 1)[-2:])


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_exit_of_a_child_that_waits_for_its_retry(strategy: str) -> None:
    tree = begun(children("ab", backoff=Backoff(jitter=0.0)), strategy=strategy)
    tree.crash("a")

    changes_nothing(tree, *[event for event in of("a", 1) if event != Timer(("retry", "a", 1))])


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_same_retry_twice(strategy: str) -> None:
    tree = begun(children("ab", backoff=Backoff(jitter=0.0)), strategy=strategy)
    tree.plan_starts("a", "waits")
    tree.crash("a")
    tree.advance(1)

    changes_nothing(tree, Timer(("retry", "a", 1)))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_exit_of_a_child_that_is_over(strategy: str) -> None:
    tree = begun([child("a", "transient"), child("b"), child("c")], strategy=strategy)
    tree.exits("a", Normal())
    tree.terminate_child("b")

    changes_nothing(tree, *of("a", 1), *of("b", 1))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_second_exit_of_a_child_whose_first_exit_waits_changes_nothing(strategy: str) -> None:
    tree = begun(children("abc"), strategy=strategy)
    tree.plan_stops("c", "waits")
    tree.terminate_child("c")
    tree.plan_starts("a", "waits")
    tree.crash("a")

    changes_nothing(tree, *of("a", 1))
    tree.exits("c", Shutdown())
    assert tree.policy.restarts_used(0.0) == 1


def test_an_event_after_the_end_changes_nothing() -> None:
    tree = begun(children("ab"))
    tree.stop()

    changes_nothing(tree, *of("a", 1), *of("b", 1), *of("x", 1))
