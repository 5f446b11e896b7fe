"""Rules 8-22: requests, and the questions that are answered at once."""

from __future__ import annotations

from typing import Any

import pytest

from suitkaise import Supervisor
from suitkaise.errors import (
    ChildAlreadyPresent,
    ChildAlreadyStarted,
    ChildNotFound,
    ChildRestarting,
    ChildRunning,
    ChildStartFailed,
    WorkerDead,
)
from suitkaise.exits import Normal, Shutdown
from suitkaise.policy.actions import DeleteChild, RestartChild, StartChild, TerminateChild
from suitkaise.specs import Child
from tests.policy.driver import BOOM, Driver, begun, child, children, restarting, supervisor


def test_start_child_adds_it_at_the_end() -> None:
    tree = begun(children("ab"))

    assert tree.start_child(child("c")) == "ok"
    assert tree.take_story() == ["start c", "reply"]
    assert tree.running() == "abc"


def test_start_child_answers_when_the_child_is_up() -> None:
    tree = begun(children("a"))
    tree.plan_starts("b", "waits")

    assert tree.start_child(child("b")) is None
    tree.ready("b")
    assert tree.answer() == "ok"


def test_s08_start_child_with_the_id_of_a_running_child() -> None:
    tree = begun(children("a"))

    error = tree.start_child(child("a"))

    assert isinstance(error, ChildAlreadyStarted)
    assert error.path == "top/a"
    assert tree.take_story() == ["refuse ChildAlreadyStarted"]


def test_s09_start_child_with_the_id_of_a_stopped_child() -> None:
    tree = begun(children("a"))
    tree.terminate_child("a")

    error = tree.start_child(child("a"))

    assert isinstance(error, ChildAlreadyPresent)
    assert error.path == "top/a"
    assert tree.take_story("start") == []


def test_s09_start_child_with_the_id_of_an_ignored_child() -> None:
    tree = Driver(supervisor(child("a")), begin_now=False)
    tree.plan_starts("a", "ignore")
    tree.begin()

    assert isinstance(tree.start_child(child("a")), ChildAlreadyPresent)


def test_s09_start_child_with_the_id_of_a_restarting_child() -> None:
    tree = restarting()

    error = tree.ask(StartChild, child("b"))

    assert isinstance(error, ChildAlreadyPresent)
    assert "but restarting; terminate_child and delete_child first" in str(error)  # it cannot be deleted as it is


def test_s10_start_child_whose_start_fails_is_refused_discarded_and_not_counted() -> None:
    tree = begun(children("a"))
    tree.plan_starts("b", "fails")

    error = tree.start_child(child("b"))

    assert isinstance(error, ChildStartFailed)
    assert (error.path, error.reason) == ("top/b", Driver.FAILED)
    assert tree.take_story() == ["start b", "removed b", "refuse ChildStartFailed"]
    assert tree.statuses() == {"a": "running"}
    assert tree.policy.restarts_used(0.0) == 0
    tree.advance(100)
    assert tree.take_story() == []


def test_s14_terminate_child_stops_it_and_keeps_the_spec() -> None:
    tree = begun(children("abc"))

    assert tree.terminate_child("b") == "ok"
    assert tree.take_story() == ["stop b", "reply"]
    assert tree.statuses() == {"a": "running", "b": "stopped", "c": "running"}


def test_s14_terminate_child_answers_when_the_child_is_gone() -> None:
    tree = begun(children("a"))
    tree.plan_stops("a", "waits")

    assert tree.terminate_child("a") is None
    assert tree.statuses() == {"a": "stopping"}
    tree.exits("a", Shutdown())
    assert tree.answer() == "ok"


def test_s14_terminate_child_of_a_temporary_one_forgets_it() -> None:
    tree = begun([child("a", "temporary"), child("b")])

    assert tree.terminate_child("a") == "ok"
    assert tree.take_story() == ["stop a", "removed a", "reply"]
    assert tree.statuses() == {"b": "running"}


def test_s14_terminate_child_of_a_stopped_one_is_no_error() -> None:
    tree = begun(children("a"))
    tree.terminate_child("a")
    tree.take_story()

    assert tree.terminate_child("a") == "ok"
    assert tree.take_story() == ["reply"]


def test_s14_terminate_child_of_an_unknown_one() -> None:
    tree = begun(children("a"))

    error = tree.terminate_child("x")

    assert isinstance(error, ChildNotFound)
    assert error.path == "top/x"
    assert "'a'" in str(error)


@pytest.mark.parametrize("strategy", ["one_for_one", "one_for_all", "rest_for_one"])
@pytest.mark.parametrize("restart", ["permanent", "transient"])
def test_s15_terminate_child_never_restarts_never_counts_and_never_touches_siblings(
    strategy: str, restart: str
) -> None:
    tree = begun([child("a"), child("b", restart), child("c")], strategy=strategy)
    tree.plan_stops("b", "odd")

    tree.terminate_child("b")
    tree.advance(100)

    assert tree.take_story() == ["stop b", "reply"]
    assert tree.running() == "ac"
    assert tree.policy.restarts_used(0.0) == 0


def test_s15_terminate_child_never_triggers_auto_shutdown() -> None:
    significant = child("a", "transient", significant=True)
    tree = begun([significant, child("b", "temporary", significant=True)], auto_shutdown="any_significant")

    tree.terminate_child("a")
    tree.terminate_child("b")

    assert tree.ended is None


@pytest.mark.parametrize("strategy", ["one_for_one", "one_for_all", "rest_for_one"])
def test_s16_terminate_child_while_it_restarts_cancels_the_retry(strategy: str) -> None:
    tree = restarting(strategy=strategy)

    assert tree.ask(TerminateChild, "b") == "ok"
    tree.advance(100)

    assert tree.take_story("start").count("start b") == 1
    assert tree.statuses()["b"] == "stopped"
    assert tree.policy.restarts_used(0.0) == 1


def test_s16_a_cancelled_retry_does_not_affect_the_next_incarnation() -> None:
    tree = restarting()
    tree.post_request(TerminateChild, "b")
    assert tree.ask(RestartChild, "b") == "ok"
    tree.take_story()

    tree.advance(100)

    assert tree.take_story() == []
    assert tree.running() == "abc"


@pytest.mark.parametrize("request_", [RestartChild, DeleteChild])
def test_s17_s19_restart_child_and_delete_child_of_a_running_child(request_: Any) -> None:
    tree = begun(children("a"))

    error = tree.ask(request_, "a")

    assert isinstance(error, ChildRunning)
    assert error.path == "top/a"
    assert tree.take_story() == ["refuse ChildRunning"]


@pytest.mark.parametrize("strategy", ["one_for_one", "one_for_all", "rest_for_one"])
@pytest.mark.parametrize("request_", [RestartChild, DeleteChild])
def test_s17_s19_restart_child_and_delete_child_of_a_restarting_child(request_: Any, strategy: str) -> None:
    tree = restarting(strategy=strategy)

    error = tree.ask(request_, "b")

    assert isinstance(error, ChildRestarting)
    assert error.path == "top/b"
    assert tree.running() == "abc"  # the retry was carried out


@pytest.mark.parametrize("request_", [RestartChild, DeleteChild])
def test_s17_s19_restart_child_and_delete_child_of_an_unknown_child(request_: Any) -> None:
    tree = begun(children("a"))

    assert isinstance(tree.ask(request_, "x"), ChildNotFound)


@pytest.mark.parametrize("strategy", ["one_for_one", "one_for_all", "rest_for_one"])
def test_s17_restart_child_starts_that_child_alone_in_its_place(strategy: str) -> None:
    tree = begun(children("abc"), strategy=strategy)
    tree.terminate_child("a")
    tree.terminate_child("b")
    tree.take_story()

    assert tree.restart_child("b") == "ok"
    assert tree.take_story() == ["start b", "reply"]
    assert tree.statuses() == {"a": "stopped", "b": "running", "c": "running"}
    assert tree.policy.restarts_used(0.0) == 0


def test_s17_restart_child_starts_a_transient_child_that_had_finished() -> None:
    tree = begun([child("a", "transient")])
    tree.exits("a", Normal())

    assert tree.restart_child("a") == "ok"
    assert tree.running() == "a"


@pytest.mark.parametrize("strategy", ["one_for_one", "one_for_all", "rest_for_one"])
def test_s18_restart_child_whose_start_fails_leaves_it_stopped_without_retry_or_count(strategy: str) -> None:
    tree = begun(children("ab"), strategy=strategy)
    tree.terminate_child("a")
    tree.take_story()
    tree.plan_starts("a", "fails")

    error = tree.restart_child("a")
    tree.advance(100)

    assert isinstance(error, ChildStartFailed)
    assert (error.path, error.reason) == ("top/a", Driver.FAILED)
    assert tree.take_story() == ["start a", "refuse ChildStartFailed"]
    assert tree.running() == "b"
    assert isinstance(tree.start_child(child("a")), ChildAlreadyPresent)
    assert tree.policy.restarts_used(0.0) == 0
    assert tree.restart_child("a") == "ok"


def test_s19_delete_child_forgets_a_stopped_child() -> None:
    tree = begun(children("ab"))
    tree.terminate_child("a")
    tree.take_story()

    assert tree.delete_child("a") == "ok"
    assert tree.take_story() == ["removed a", "reply"]
    assert tree.statuses() == {"b": "running"}
    assert tree.start_child(child("a")) == "ok"
    assert tree.running() == "ba"


def test_s19_delete_child_forgets_an_ignored_child() -> None:
    tree = Driver(supervisor(child("a")), begin_now=False)
    tree.plan_starts("a", "ignore")
    tree.begin()

    assert tree.delete_child("a") == "ok"
    assert tree.statuses() == {}


def test_s20_which_children_lists_all_in_start_order() -> None:
    tree = begun([child("b"), child("a", "transient"), child("d"), Child(Supervisor("c"))])
    tree.exits("a", Normal())
    tree.terminate_child("d")
    tree.plan_starts("b", "fails", "waits")
    tree.crash("b")

    listed = [(info.id, info.kind, info.status.value) for info in tree.policy.which_children()]
    assert listed == [
        ("b", "process", "restarting"),
        ("a", "process", "finished"),
        ("d", "process", "stopped"),
        ("c", "supervisor", "running"),
    ]


def test_s20_which_children_shows_restarts_incarnation_and_last_exit() -> None:
    tree = begun(children("ab"))
    tree.crash("b")

    untouched, restarted = tree.policy.which_children()
    assert (untouched.restarts, untouched.incarnation, untouched.last_exit) == (0, 1, None)
    assert (restarted.restarts, restarted.incarnation, restarted.last_exit) == (1, 2, BOOM)


def test_s20_the_restarts_of_a_child_hold_those_on_request() -> None:
    tree = begun(children("a"))
    tree.recall("a")
    tree.terminate_child("a")
    tree.restart_child("a")

    assert [line.restarts for line in tree.policy.which_children()] == [2]
    assert tree.policy.restarts_used(0.0) == 0


def test_s20_it_answers_while_children_take_their_time() -> None:
    tree = Driver(supervisor(*children("abc")), begin_now=False)
    tree.plan_starts("b", "waits")
    tree.begin()

    assert tree.statuses() == {"a": "running", "b": "starting", "c": "created"}


def test_s21_count_children_counts_the_dead_except_as_active() -> None:
    tree = begun([*children("abc"), Child(Supervisor("s")), Child(Supervisor("t", restart="transient"))])
    tree.terminate_child("a")
    tree.exits("t", Shutdown())
    tree.plan_starts("b", "fails", "waits")
    tree.crash("b")

    counts = tree.policy.count_children()
    assert (counts.specs, counts.active, counts.supervisors, counts.workers) == (5, 2, 2, 3)


def test_s22_get_child_spec_gives_what_was_declared() -> None:
    spec = child("a", "transient", shutdown=1)
    tree = begun([spec])

    assert tree.policy.get_child_spec("a") == spec
    with pytest.raises(ChildNotFound, match="'x'"):
        tree.policy.get_child_spec("x")


def test_requests_are_served_one_at_a_time_in_order() -> None:
    tree = begun(children("ab"))
    tree.plan_stops("a", "waits")
    first = tree.post_request(TerminateChild, "a")
    second = tree.post_request(RestartChild, "a")
    third = tree.post_request(TerminateChild, "b")

    tree.settle()
    assert tree.take_story() == ["stop a"]
    tree.exits("a", Shutdown())

    assert [tree.answer(number) for number in (first, second, third)] == ["ok"] * 3
    assert tree.take_story() == ["reply", "start a", "reply", "stop b", "reply"]


def test_requests_to_a_supervisor_that_stops_are_refused() -> None:
    tree = begun(children("ab"))
    tree.plan_stops("b", "waits", "waits")
    waiting = tree.post_request(TerminateChild, "b")
    behind = tree.post_request(RestartChild, "a")
    tree.stop()
    late = tree.post_request(StartChild, child("c"))
    tree.settle()

    assert all(isinstance(tree.answer(number), WorkerDead) for number in (waiting, behind, late))
    tree.exits("b", Shutdown())
    assert tree.ended == Shutdown()
    assert isinstance(tree.terminate_child("a"), WorkerDead)
