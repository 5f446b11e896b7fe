"""Rules 42-46: how children and the supervisor itself are stopped."""

from __future__ import annotations

import pytest

from suitkaise.events import (
    ChildStopError,
    ChildStopped,
    SupervisorStopped,
)
from suitkaise.exits import KILL_CHILD, Crashed, ExitCode, ExitReason, Killed, Normal, Shutdown, Signaled
from suitkaise.policy.actions import Begin, Kill, StopAll
from tests.policy.driver import BOOM, begun, child, children


def test_s42_a_stop_is_a_request_first() -> None:
    tree = begun([child("a", shutdown=2)])
    tree.plan_stops("a", "waits")

    tree.terminate_child("a")

    assert tree.take_story() == ["stop a"]
    assert tree.timer_keys() == [("kill", "a", 1)]
    assert tree.timers[0].at == 2.0


def test_s42_past_its_deadline_a_child_is_killed() -> None:
    tree = begun([child("a", shutdown=2)])
    tree.plan_stops("a", "waits")
    tree.terminate_child("a")

    tree.advance(1.9)
    assert tree.take_story() == ["stop a"]
    tree.advance(0.1)
    assert tree.take_story() == ["kill a (shutdown timeout)", "reply"]
    (error,) = tree.events_of(ChildStopError)
    assert (error.path, error.reason) == ("top/a", Killed("shutdown timeout"))
    assert tree.statuses() == {"a": "stopped"}


def test_s42_a_child_that_stops_in_time_is_not_killed() -> None:
    tree = begun([child("a", shutdown=2)])

    tree.terminate_child("a")
    tree.restart_child("a")
    tree.advance(10)

    assert [action for action in tree.actions if isinstance(action, Kill)] == []
    assert tree.running() == "a"


def test_s42_the_deadline_of_one_stop_does_not_hurt_the_next() -> None:
    tree = begun([child("a", shutdown=2)])
    tree.terminate_child("a")
    tree.restart_child("a")
    tree.advance(1)
    tree.plan_stops("a", "waits")
    tree.terminate_child("a")
    tree.take_story()

    tree.advance(1.5)
    assert tree.take_story() == []
    tree.advance(0.5)
    assert tree.take_story() == ["kill a (shutdown timeout)", "reply"]


def test_s42_brutal_kill_is_immediate_and_no_error() -> None:
    tree = begun([child("a", shutdown="brutal_kill")])

    tree.terminate_child("a")

    assert tree.take_story() == ["kill a (brutal_kill)", "reply"]
    assert tree.events_of(ChildStopError) == []
    assert len(tree.events_of(ChildStopped)) == 1


def test_s42_infinity_waits() -> None:
    tree = begun([child("a", shutdown="infinity")])
    tree.plan_stops("a", "waits")

    tree.terminate_child("a")
    tree.advance(1e9)

    assert tree.take_story() == ["stop a"]
    assert tree.timers == []


def test_s42_no_time_at_all_is_a_request_and_a_kill_right_behind_it() -> None:
    tree = begun([child("a", shutdown=0)])
    tree.plan_stops("a", "waits")

    tree.terminate_child("a")

    assert tree.take_story() == ["stop a", "kill a (shutdown timeout)", "reply"]


@pytest.mark.parametrize(
    "reason, odd",
    [(Normal(), False), (Shutdown(), False), (Shutdown("why"), False), (BOOM, True), (Killed("ref"), True)],
    ids=str,
)
def test_s43_an_odd_exit_while_being_stopped_is_reported(reason: ExitReason, odd: bool) -> None:
    tree = begun(children("a"))
    tree.plan_stops("a", "waits")
    tree.terminate_child("a")

    tree.exits("a", reason)

    assert tree.events[-1] == (ChildStopError if odd else ChildStopped)("top/a", 0.0, reason=reason)
    assert tree.take_story() == ["stop a", "reply"]


@pytest.mark.parametrize("reason", [Signaled(15), ExitCode(143)], ids=str)
def test_s69_an_exit_by_sigterm_is_an_answer_to_the_order_to_stop(reason: ExitReason) -> None:
    tree = begun(children("a"))
    tree.plan_stops("a", "waits")
    tree.terminate_child("a")

    tree.exits("a", reason)

    assert tree.events[-1] == ChildStopped("top/a", 0.0, reason=reason)


def test_s43_s79_a_child_that_is_killed_by_an_order_made_no_error() -> None:
    tree = begun([child("a", shutdown=60)])
    tree.plan_stops("a", "waits")

    tree.terminate_child("a")
    tree.exits("a", Killed(KILL_CHILD))

    assert tree.events_of(ChildStopError) == []
    assert [event.reason for event in tree.events_of(ChildStopped)] == [Killed(KILL_CHILD)]


def test_s43_a_brutally_killed_child_that_crashed_before_the_kill_is_reported() -> None:
    tree = begun([child("a", shutdown="brutal_kill")])
    tree.plan_stops("a", "odd")

    tree.terminate_child("a")

    assert len(tree.events_of(ChildStopError)) == 1


@pytest.mark.parametrize("strategy", ["one_for_one", "one_for_all", "rest_for_one"])
def test_s43_an_odd_exit_keeps_the_order_and_restarts_nothing(strategy: str) -> None:
    tree = begun(children("abc"), strategy=strategy)
    tree.plan_stops("b", "odd")

    tree.stop()

    assert tree.take_story() == ["stop c", "stop b", "stop a", "end"]
    assert tree.policy.restarts_used(0.0) == 0


def test_s44_children_stop_in_reverse_start_order_each_gone_before_the_next_is_asked() -> None:
    tree = begun(children("abc"))
    for id in "abc":
        tree.plan_stops(id, "waits")

    tree.stop()
    assert tree.take_story() == ["stop c"]
    assert tree.statuses() == {"a": "running", "b": "running", "c": "stopping"}
    tree.exits("c", Shutdown())
    assert tree.take_story() == ["stop b"]
    tree.advance(5)
    assert tree.take_story() == ["kill b (shutdown timeout)", "stop a"]
    tree.exits("a", Shutdown())
    assert tree.take_story() == ["end"]


def test_s44_a_child_added_later_stops_first() -> None:
    tree = begun(children("ab"))
    tree.start_child(child("c"))
    tree.take_story()

    tree.stop()

    assert tree.take_story() == ["stop c", "stop b", "stop a", "end"]


def test_s44_children_that_are_down_already_are_not_stopped_again() -> None:
    tree = begun([child("a"), child("b", "transient"), child("c"), child("d", "temporary")])
    tree.exits("b", Normal())
    tree.terminate_child("c")
    tree.take_story()

    tree.stop()

    assert tree.take_story() == ["stop d", "removed d", "stop a", "end"]


def test_s44_a_child_that_dies_by_itself_while_the_supervisor_stops_is_passed_over() -> None:
    tree = begun([child("a"), child("b", "temporary"), child("c")])
    tree.plan_stops("c", "waits")
    tree.stop()

    tree.crash("a")
    tree.crash("b")
    tree.exits("c", Shutdown())

    assert tree.take_story() == ["stop c", "removed b", "end"]
    assert tree.policy.restarts_used(0.0) == 0


def test_s44_the_exit_of_a_child_that_is_being_stopped_is_awaited() -> None:
    tree = begun(children("ab"))
    tree.plan_stops("a", "waits")
    tree.terminate_child("a")

    tree.stop()

    assert tree.take_story() == ["stop a", "refuse WorkerDead", "stop b"]
    tree.exits("a", Shutdown())
    assert tree.take_story() == ["end"]


def test_s45_a_second_stop_changes_nothing() -> None:
    tree = begun(children("ab"))
    tree.plan_stops("b", "waits")
    tree.stop(Shutdown("first"))
    tree.take_story()

    tree.stop(Shutdown("second"))
    assert tree.take_story() == []
    tree.exits("b", Shutdown())
    assert tree.take_story() == ["stop a", "end"]
    assert tree.ended == Shutdown("first")


def test_s46_nothing_is_alive_at_the_end_and_nothing_happens_after_it() -> None:
    tree = begun(children("abc"))
    tree.stop(Shutdown("enough"))
    late = list(tree.actions)

    assert tree.instances == {}
    assert tree.ended == Shutdown("enough")
    assert tree.events[-1] == SupervisorStopped("top", 0.0, reason=Shutdown("enough"))
    for event in (StopAll(Shutdown()), Begin()):
        assert tree.handle(event) == []
    tree.halt()
    tree.advance(100)
    assert tree.actions == late


def test_s43_a_start_that_fails_while_it_is_being_stopped_is_an_odd_exit() -> None:
    tree = begun(children("a"))
    tree.plan_starts("a", "waits")
    tree.plan_stops("a", "waits")
    tree.crash("a")
    tree.terminate_child("a")

    tree.exits("a", Crashed("on_start", OSError()))

    assert tree.answer() == "ok"
    assert len(tree.events_of(ChildStopError)) == 1
    assert tree.statuses() == {"a": "stopped"}
