"""Rule 82: the copies of one child are one position in the order of its supervisor."""

from __future__ import annotations

import pytest

from suitkaise.exits import Crashed, Shutdown, StartFailure
from suitkaise.specs import Child
from tests.policy.driver import BOOM, Driver, begun, child, supervisor


def copies(id: str = "c", number: int = 3, restart: str = "permanent", **options: object) -> Child:
    return child(id, restart, copies=number, **options)


def waiting(*specs: Child, starts: tuple[str, ...], **options: object) -> Driver:
    """A supervisor that is about to start; the starts of those children wait for the test."""
    driver = Driver(supervisor(*specs, **options), begin_now=False)
    for id in starts:
        driver.plan_starts(id, "waits")
    driver.begin()
    return driver


THREE = ("c-0", "c-1", "c-2")


def test_s82_copies_start_at_the_same_time_between_those_before_and_after_them() -> None:
    tree = waiting(child("a"), copies(), child("z"), starts=("a", *THREE))
    assert tree.take_story() == ["start a"]

    tree.ready("a")
    assert tree.take_story() == ["start c-0", "start c-1", "start c-2"]
    tree.ready("c-2")
    tree.ready("c-0")
    assert tree.take_story() == []

    tree.ready("c-1")
    assert tree.take_story() == ["start z", "started"]


def test_s82_copies_of_different_children_are_different_positions() -> None:
    tree = waiting(copies("c", 2), copies("d", 2), starts=("c-0", "c-1"))
    assert tree.take_story() == ["start c-0", "start c-1"]
    tree.ready("c-0")
    tree.ready("c-1")
    assert tree.take_story() == ["start d-0", "start d-1", "started"]


def test_s82_a_child_named_like_the_original_is_another_position() -> None:
    tree = waiting(child("c"), copies(), starts=("c",))
    assert tree.take_story() == ["start c"]


def test_s82_a_copy_whose_start_fails_ends_the_start_at_once() -> None:
    tree = waiting(child("a"), copies(), child("z"), starts=THREE)
    tree.plan_stops("c-0", "waits")
    tree.ready("c-2")
    tree.take_story()

    tree.fails_to_start("c-1")
    assert tree.take_story() == ["stop c-2", "stop c-0"]
    tree.exits("c-0", Shutdown())
    assert tree.take_story() == ["stop a", "end"]
    assert tree.ended == Shutdown(StartFailure("top/c-1", Driver.FAILED))


def test_s82_copies_stop_at_the_same_time_between_those_after_and_before_them() -> None:
    tree = begun([child("a"), copies(), child("z")])
    for id in THREE:
        tree.plan_stops(id, "waits")

    tree.stop()
    assert tree.take_story() == ["stop z", "stop c-2", "stop c-1", "stop c-0"]
    tree.exits("c-0", Shutdown())
    tree.exits("c-2", Shutdown())
    assert tree.take_story() == []
    tree.exits("c-1", Shutdown())
    assert tree.take_story() == ["stop a", "end"]


def test_s82_each_copy_has_its_whole_shutdown_time() -> None:
    tree = begun([copies(shutdown=2.0)])
    for id in THREE:
        tree.plan_stops(id, "waits")

    tree.stop()
    tree.advance(1.9)
    assert tree.take_story("kill") == []
    tree.advance(0.2)
    assert tree.take_story("kill", "end") == [f"kill c-{number} (shutdown timeout)" for number in (2, 1, 0)] + ["end"]


@pytest.mark.parametrize("strategy", ["one_for_all", "rest_for_one"])
def test_s82_copies_of_a_group_stop_and_start_at_the_same_time(strategy: str) -> None:
    tree = begun([child("a"), copies(), child("z")], strategy=strategy)
    for id in THREE:
        tree.plan_stops(id, "waits")
        tree.plan_starts(id, "waits")

    tree.crash("a")
    assert tree.take_story() == ["stop z", "stop c-2", "stop c-1", "stop c-0"]
    for id in THREE:
        tree.exits(id, Shutdown())
    assert tree.take_story() == ["start a", "start c-0", "start c-1", "start c-2"]
    for id in reversed(THREE):
        tree.ready(id)
    assert tree.take_story() == ["start z"]


def test_s82_rest_for_one_restarts_no_other_copy() -> None:
    tree = begun([child("a"), copies(), child("z")], strategy="rest_for_one")

    tree.crash("c-1")

    assert tree.take_story() == ["stop z", "start c-1", "start z"]


def test_s82_one_for_all_restarts_the_other_copies_with_it() -> None:
    tree = begun([child("a"), copies(), child("z")], strategy="one_for_all")

    tree.crash("c-1")

    assert tree.take_story() == [
        "stop z", "stop c-2", "stop c-0", "stop a", "start a", "start c-0", "start c-1", "start c-2", "start z",
    ]  # fmt: skip


@pytest.mark.parametrize("strategy", ["one_for_all", "rest_for_one"])
def test_s82_a_copy_whose_start_fails_in_a_restart_stops_the_others_and_all_are_tried_again(strategy: str) -> None:
    tree = begun([child("a"), copies(), child("z")], strategy=strategy)
    for id in THREE:
        tree.plan_starts(id, "waits")
    tree.crash("a")
    tree.ready("c-0")
    tree.take_story()
    tree.plan_stops("c-2", "waits")

    tree.fails_to_start("c-1")
    assert tree.take_story() == ["stop c-2", "stop c-0"]
    assert tree.policy.gone_for_good(set(THREE)) == []
    tree.exits("c-2", Shutdown())

    again = ["start c-0", "start c-1", "start c-2", "start z"]
    assert tree.take_story() == (["stop a", "start a", *again] if strategy == "one_for_all" else again)
    assert tree.running() == "ac-0c-1c-2z"


def test_s82_when_the_pending_restart_of_a_copy_is_cancelled_the_others_stay_down() -> None:
    tree = begun([child("a"), copies(), child("z")], strategy="rest_for_one")
    tree.plan_starts("c-1", "fails")
    tree.post_exit("a", BOOM)
    while tree.statuses()["c-1"] != "restarting":
        tree.handle(tree._answers_of_engine.popleft() if tree._answers_of_engine else tree._inbox.popleft())

    assert tree.terminate_child("c-1") == "ok"

    assert tree.running() == "a"
    assert set(tree.policy.gone_for_good({*THREE, "z"})) == {*THREE, "z"}


def test_s82_with_one_for_one_copies_are_restarted_independently() -> None:
    tree = begun([copies()])
    tree.plan_starts("c-0", "waits")

    tree.crash("c-0")
    tree.crash("c-2")

    assert tree.take_story() == ["start c-0", "start c-2"]


def test_s82_temporary_copies_that_were_stopped_are_forgotten_one_by_one() -> None:
    tree = begun([child("a"), copies("c", 2, "temporary")], strategy="one_for_all")
    tree.plan_stops("c-0", "waits")

    tree.crash("a")
    assert tree.statuses().keys() == {"a", "c-0"}
    tree.exits("c-0", Crashed("on_finish", ValueError()))
    assert tree.statuses().keys() == {"a"}


def test_s82_a_sibling_that_comes_later_waits_for_each_copy() -> None:
    tree = waiting(copies("c", 2), child("z"), starts=("c-0", "c-1"))
    assert [tree.policy.comes_after("z", id) for id in ("c-0", "c-1")] == ["start", "start"]
    tree.ready("c-0")
    assert [tree.policy.comes_after("z", id) for id in ("c-0", "c-1")] == [None, "start"]
