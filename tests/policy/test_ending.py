"""Stops and kills of the whole supervisor at any moment, and abandoned threads (rule 59)."""

from __future__ import annotations

import pytest

from suitkaise.errors import WorkerDead
from suitkaise.events import (
    ChildAbandoned,
    ChildStopError,
    SupervisorStopped,
    SupervisorStopping,
)
from suitkaise.exits import Hung, Killed, Shutdown
from suitkaise.policy.actions import KillAll, RestartChild
from tests.policy.driver import BOOM, Driver, begun, child, children, supervisor


def test_a_stop_before_the_start_ends_the_supervisor_at_once() -> None:
    tree = Driver(supervisor(*children("ab")), begin_now=False)

    tree.stop()

    assert tree.take_story() == ["end"]


def test_stop_during_the_start_asks_the_child_that_is_starting_first() -> None:
    tree = Driver(supervisor(*children("abc")), begin_now=False)
    tree.plan_starts("b", "waits")
    tree.plan_stops("b", "waits")
    tree.begin()

    tree.stop()
    assert tree.take_story() == ["start a", "start b", "stop b"]
    tree.ready("b")  # the child had not received the request yet
    assert tree.take_story() == []
    tree.exits("b", Shutdown())
    assert tree.take_story() == ["stop a", "end"]


def test_stop_while_a_child_is_starting_again_waits_for_its_end() -> None:
    tree = begun(children("a"))
    tree.plan_starts("a", "waits")
    tree.plan_stops("a", "waits")
    tree.crash("a")

    tree.stop()
    tree.ignores("a")

    assert tree.take_story() == ["start a", "stop a", "end"]


def test_the_reason_to_stop_is_published_once() -> None:
    tree = begun(children("a"), max_restarts=0)
    tree.plan_stops("a", "waits")
    tree.stop(Shutdown("enough"))

    tree.crash("a")

    assert [event.why for event in tree.events_of(SupervisorStopping)] == ["shutdown (enough)"]


def test_kill_all_kills_all_children_at_once_and_ends_the_supervisor() -> None:
    tree = begun(children("abc"))

    tree.halt("second signal")

    assert tree.take_story() == [f"kill {id} (second signal)" for id in "cba"] + ["end"]
    assert tree.ended == Killed("second signal")


def test_kill_all_during_a_stop_kills_the_rest_and_becomes_the_reason() -> None:
    tree = begun(children("abc"))
    tree.plan_stops("c", "waits")
    tree.stop(Shutdown("asked"))
    tree.take_story()

    tree.halt()

    assert tree.take_story() == [f"kill {id} (second signal)" for id in "cba"] + ["end"]
    assert tree.ended == Killed("second signal")
    assert tree.events[-1] == SupervisorStopped("top", 0.0, reason=Killed("second signal"))


def test_the_first_of_two_kill_alls_is_the_reason() -> None:
    tree = begun(children("a"))
    tree.plan_stops("a", "waits")
    tree.stop()

    tree.handle(KillAll("shutdown timeout"))
    tree.handle(KillAll("second signal"))
    tree.settle()

    assert tree.ended == Killed("shutdown timeout")


def test_kill_all_kills_starting_children_and_cancels_waiting_requests() -> None:
    tree = begun(children("ab"))
    tree.plan_starts("a", "waits")
    tree.plan_starts("b", "fails")
    tree.post_exit("b", BOOM)
    tree.post_exit("a", BOOM)
    tree.settle()
    tree.terminate_child("b")
    tree.plan_starts("b", "waits")
    waiting = tree.post_request(RestartChild, "b")
    tree.settle()
    tree.take_story()

    tree.halt()

    assert tree.take_story() == ["kill b (second signal)", "kill a (second signal)", "refuse WorkerDead", "end"]
    assert isinstance(tree.answer(waiting), WorkerDead)


@pytest.mark.parametrize("stopping", [False, True])
def test_s59_an_abandoned_thread_is_published_and_listed_as_abandoned(stopping: bool) -> None:
    tree = begun([child("a", "transient"), child("b")], max_restarts=0)
    tree.plan_stops("b", "waits")
    if stopping:
        tree.stop()

    tree.exits("a", Hung("loop", 3.0), abandoned=True)

    assert [event.path for event in tree.events_of(ChildAbandoned)] == ["top/a"]
    assert tree.statuses()["a"] == "abandoned"


def test_s59_a_thread_that_does_not_stop_in_time_is_published_as_abandoned() -> None:
    tree = begun(children("ab"))
    tree.plan_stops("a", "waits")
    tree.terminate_child("a")

    tree.exits("a", Killed("shutdown timeout"), abandoned=True)

    assert [type(event) for event in tree.events[-2:]] == [ChildStopError, ChildAbandoned]
    assert tree.statuses()["a"] == "abandoned"
    tree.restart_child("a")
    assert tree.statuses()["a"] == "running"


@pytest.mark.parametrize("restart", ["permanent", "temporary"])
def test_a_start_that_is_ignored_while_it_is_being_stopped_is_a_stop(restart: str) -> None:
    tree = begun([child("a"), child("b", restart)])
    tree.plan_starts("b", "waits")
    tree.plan_stops("b", "clean", "waits")
    tree.recall("b")
    tree.terminate_child("a")
    tree.stop()

    tree.ignores("b")

    assert tree.take_story()[-2:] == ["stop a", "end"]
    assert tree.statuses() == ({"a": "stopped", "b": "stopped"} if restart == "permanent" else {"a": "stopped"})
