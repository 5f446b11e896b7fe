"""Rules 12, 13, 40, 44, 53 and 54, and the other rules where children have no order and are not kept."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import pytest

from suitkaise import DynamicSupervisor, Supervisor
from suitkaise.errors import (
    ChildAlreadyPresent,
    ChildAlreadyStarted,
    ChildNotFound,
    ChildRestarting,
    ChildRunning,
    ChildStartFailed,
    MaxChildren,
    SpecError,
    WorkerDead,
)
from suitkaise.events import ChildStopError, ChildStopped, SupervisorGaveUp
from suitkaise.exits import GaveUp, Killed, Normal, Shutdown, Signaled
from suitkaise.policy.actions import DeleteChild, Exited, Ready, Recall, RestartChild, StartChild, TerminateChild
from suitkaise.policy.dynamic import DynamicPolicy
from suitkaise.specs import Backoff, Child
from tests.policy.driver import BOOM, Driver, child, children, pool
from tests.policy.test_is_a_function import calls_during


def count() -> None: ...


def fetch() -> None: ...


def ids(tree: Driver) -> list[str]:
    return list(tree.statuses())


# ---------------------------------------------------------------- starting
def test_s53_it_starts_without_children() -> None:
    tree = Driver(DynamicSupervisor("pool"))

    assert tree.story == ["started"]
    assert tree.statuses() == {}


def test_s53_start_child_adds_a_child_and_answers_when_it_is_up() -> None:
    tree = pool()
    tree.plan_starts("a", "waits")
    assert tree.start_child(child("a")) is None
    assert tree.statuses() == {"a": "starting"}

    tree.ready("a", pid=7)

    assert tree.answer() == "ok"
    assert tree.statuses() == {"a": "running"}


def test_s53_a_slow_start_delays_no_other_start_and_no_other_request() -> None:
    tree = pool(children("b"))
    tree.plan_starts("slow", "waits")
    slow = tree.post_request(StartChild, child("slow"))
    tree.settle()

    assert tree.start_child(child("a")) == "ok"
    assert tree.recall("b") == "ok"
    assert tree.terminate_child("b") == "ok"
    assert tree.answer(slow) is None

    tree.ready("slow")
    assert tree.answer(slow) == "ok"


def test_s53_requests_about_one_child_are_served_in_order() -> None:
    tree = pool()
    tree.plan_starts("a", "waits", "ok")
    numbers = [
        tree.post_request(*request)
        for request in (
            (StartChild, child("a")),
            (RestartChild, "a"),
            (StartChild, child("a")),
            (TerminateChild, "a"),
            (StartChild, child("a")),
        )
    ]
    tree.settle()
    assert [tree.answer(number) for number in numbers] == [None] * 5

    tree.ready("a")

    kinds = [type(answer) if answer != "ok" else "ok" for answer in map(tree.answer, numbers)]
    assert kinds == ["ok", ChildRunning, ChildAlreadyStarted, "ok", "ok"]
    assert tree.take_story("start", "stop", "removed") == ["start a", "stop a", "removed a", "start a"]


def test_s08_an_id_that_was_given_is_taken_while_its_child_runs() -> None:
    tree = pool(children("a"))

    assert isinstance(tree.start_child(child("a")), ChildAlreadyStarted)
    assert tree.running() == "a"


def test_s09_and_while_it_is_being_restarted() -> None:
    tree = pool([child("a", backoff=Backoff(1.0))])
    tree.crash("a")

    refused = tree.start_child(child("a"))

    assert isinstance(refused, ChildAlreadyPresent)
    assert "terminate_child first" in str(refused)


@pytest.mark.parametrize("options", [{}, {"restart": "temporary"}])
def test_a_child_without_an_id_gets_a_number(options: dict[str, Any]) -> None:
    tree = pool()

    for function in (count, count, fetch, count):
        assert tree.start_child(Child(function, **options)) == "ok"

    assert ids(tree) == ["count-1", "count-2", "fetch-3", "count-4"]
    assert tree.policy.get_child_spec("count-2") == Child(count, **options).renamed("count-2")


def test_no_number_is_used_again() -> None:
    tree = pool([Child(count), Child(count)])
    tree.terminate_child("count-2")
    tree.terminate_child("count-1")

    tree.start_child(Child(count))

    assert ids(tree) == ["count-3"]


def test_a_number_that_is_taken_is_skipped() -> None:
    tree = pool([Child(count, id="count-1"), Child(count, id="count-2"), Child(count)])

    assert ids(tree) == ["count-1", "count-2", "count-3"]


def test_a_changed_copy_of_a_declaration_without_an_id_has_none_either() -> None:
    assert ids(pool([Child(count).replace(restart="temporary")])) == ["count-1"]
    assert ids(pool([Child(count, id="x").replace(restart="temporary")])) == ["x"]


def test_a_supervisor_has_the_name_that_it_was_given() -> None:
    tree = pool([Child(Supervisor("shop")), Child(DynamicSupervisor("more"))])

    assert ids(tree) == ["shop", "more"]
    assert isinstance(tree.start_child(Child(Supervisor("shop"))), ChildAlreadyStarted)


def test_the_numbers_go_on_after_a_restart_of_the_supervisor() -> None:
    before, tree = pool([Child(count), Child(count)]), pool()

    tree.policy.inherit(before.policy)
    tree.start_child(Child(count))

    assert ids(tree) == ["count-3"]


def test_s10_a_child_that_fails_to_start_is_forgotten_and_does_not_count() -> None:
    tree = pool(max_restarts=0)
    tree.plan_starts("a", "fails")

    refused = tree.start_child(child("a"))

    assert isinstance(refused, ChildStartFailed)
    assert (refused.path, refused.reason) == ("pool/a", Driver.FAILED)
    assert tree.statuses() == {}
    assert tree.policy.restarts_used(tree.now) == 0
    assert tree.start_child(child("a")) == "ok"


@pytest.mark.parametrize("restart", ["permanent", "transient", "temporary"])
def test_s12_a_child_that_ignores_its_start_is_not_stored(restart: str) -> None:
    tree = pool()
    tree.plan_starts("a", "ignore")

    assert tree.start_child(child("a", restart)) == "ok"
    assert tree.statuses() == {}
    assert tree.take_story() == ["start a", "removed a", "reply"]


def test_s50_a_child_cannot_be_significant() -> None:
    tree = pool()

    refused = tree.start_child(child("a", "transient", significant=True))

    assert isinstance(refused, SpecError)
    assert "rule 50" in str(refused)
    assert tree.statuses() == {}


# ---------------------------------------------------------------- max_children
def test_s53_no_more_than_max_children() -> None:
    tree = pool(children("ab"), max_children=2)

    refused = tree.start_child(child("c"))

    assert isinstance(refused, MaxChildren)
    assert str(refused) == "'pool' has 2 children, and max_children is 2 (rule 53)"
    assert tree.running() == "ab"


def test_s53_max_children_may_be_none_at_all() -> None:
    assert isinstance(pool(max_children=0).start_child(child("a")), MaxChildren)


def test_s53_children_that_are_being_started_count() -> None:
    tree = pool(max_children=1)
    tree.plan_starts("a", "waits")
    tree.post_request(StartChild, child("a"))

    assert isinstance(tree.start_child(child("b")), MaxChildren)


@pytest.mark.parametrize("how", ["the restart fails", "it waits for its backoff"])
def test_s53_children_that_are_being_restarted_count(how: str) -> None:
    tree = pool([child("a", backoff=Backoff(1.0) if how == "it waits for its backoff" else None)], max_children=1)
    tree.plan_starts("a", "waits")
    tree.crash("a")

    assert tree.statuses() == {"a": "restarting"}
    assert isinstance(tree.start_child(child("b")), MaxChildren)


def test_s53_children_that_are_being_stopped_count_until_they_are_gone() -> None:
    tree = pool(children("a"), max_children=1)
    tree.plan_stops("a", "waits")
    tree.post_request(TerminateChild, "a")
    assert isinstance(tree.start_child(child("b")), MaxChildren)

    tree.exits("a", Shutdown())

    assert tree.start_child(child("b")) == "ok"


@pytest.mark.parametrize(
    "leave",
    [
        lambda tree: tree.terminate_child("a"),
        lambda tree: tree.exits("a", Normal()),
        lambda tree: (tree.plan_starts("a", "ignore"), tree.crash("a")),
    ],
    ids=["terminated", "ended", "ignored"],
)
def test_s53_a_forgotten_child_makes_room_for_another(leave: Callable[[Driver], object]) -> None:
    tree = pool([child("a", "transient")], max_children=1)
    leave(tree)

    assert tree.start_child(child("b")) == "ok"


def test_s53_a_taken_id_is_reported_before_max_children() -> None:
    assert isinstance(pool(children("a"), max_children=1).start_child(child("a")), ChildAlreadyStarted)


# ---------------------------------------------------------------- exits and restarts
@pytest.mark.parametrize(
    "restart, reason, becomes",
    [
        ("permanent", Normal(), "running"),
        ("permanent", BOOM, "running"),
        ("transient", Normal(), None),
        ("transient", Shutdown("detail"), None),
        ("transient", Signaled(9), "running"),
        ("temporary", Normal(), None),
        ("temporary", Signaled(9), None),
    ],
)
def test_s23_to_s26_a_child_that_is_not_restarted_is_forgotten(restart: str, reason: Any, becomes: str | None) -> None:
    tree = pool([child("a", restart), child("b")])

    tree.exits("a", reason)

    assert tree.statuses().get("a") == becomes
    assert tree.take_story() == (["start a"] if becomes else ["removed a"])
    assert tree.policy.restarts_used(tree.now) == (becomes is not None)


def test_s13_ignore_on_a_restart_removes_the_child_and_is_not_tried_again() -> None:
    tree = pool(children("ab"))
    tree.plan_starts("a", "ignore")

    tree.crash("a")

    assert tree.statuses() == {"b": "running"}
    assert tree.take_story() == ["start a", "removed a"]
    assert tree.policy.restarts_used(tree.now) == 1


def test_s28_the_intensity_is_that_of_all_children_together() -> None:
    tree = pool(children("abc"), max_restarts=2)
    tree.crash("a")
    tree.crash("b")

    tree.crash("c")

    assert tree.ended == Shutdown(GaveUp("pool/c", BOOM, 2, 5.0))
    assert [event.child for event in tree.events_of(SupervisorGaveUp)] == ["c"]


def test_s30_a_dynamic_supervisor_that_gives_up_stops_and_forgets_all_children() -> None:
    tree = pool(children("abc"), max_restarts=0)

    tree.crash("b")

    assert tree.take_story() == ["stop a", "stop c", "removed a", "removed b", "removed c", "end"]
    assert tree.statuses() == {}


def test_s35_a_restart_that_fails_is_tried_again_and_every_try_counts() -> None:
    tree = pool(children("ab"), max_restarts=3)
    tree.plan_starts("a", "fails", "fails")

    tree.crash("a")

    assert tree.running() == "ab"
    assert tree.policy.restarts_used(tree.now) == 3


def test_s35_requests_are_served_between_the_tries() -> None:
    tree = pool([child("a", backoff=Backoff(1.0, jitter=0))])
    tree.plan_starts("a", "fails")
    tree.crash("a")

    assert tree.start_child(child("b")) == "ok"
    assert isinstance(tree.restart_child("a"), ChildRestarting)
    assert isinstance(tree.delete_child("a"), ChildRestarting)
    tree.advance(10.0)
    assert tree.running() == "ab"


def test_s31_children_come_back_independently_of_each_other() -> None:
    tree = pool(children("ab"), max_restarts=math.inf)
    tree.plan_starts("a", "waits")
    tree.plan_starts("b", "waits")

    tree.crash_together("a", "b")
    assert tree.statuses() == {"a": "restarting", "b": "restarting"}
    tree.ready("b")

    assert tree.statuses() == {"a": "restarting", "b": "running"}


# ---------------------------------------------------------------- administration
def test_s14_terminate_child_stops_a_child_and_forgets_it() -> None:
    tree = pool(children("ab"))

    assert tree.terminate_child("a") == "ok"
    assert tree.take_story() == ["stop a", "removed a", "reply"]
    assert tree.running() == "b"


def test_s16_terminate_child_while_the_child_is_being_restarted_cancels_that() -> None:
    tree = pool([child("a", backoff=Backoff(1.0))])
    tree.crash("a")

    assert tree.terminate_child("a") == "ok"
    tree.advance(60.0)
    assert tree.take_story("start") == []
    assert tree.statuses() == {}


@pytest.mark.parametrize("request_", [TerminateChild, RestartChild, DeleteChild, Recall])
def test_s14_s17_s19_a_forgotten_child_is_not_found(request_: Any) -> None:
    tree = pool(children("a", "temporary"))
    tree.crash("a")

    assert isinstance(tree.ask(request_, "a"), ChildNotFound)


@pytest.mark.parametrize("request_", [RestartChild, DeleteChild])
def test_s17_s19_the_error_about_a_running_child_gives_advice(request_: Any) -> None:
    refused = pool(children("a")).ask(request_, "a")

    assert isinstance(refused, ChildRunning)
    assert "recall restarts it, terminate_child removes it" in str(refused)


def test_recall_restarts_a_child_and_does_not_count() -> None:
    tree = pool(children("ab"), max_restarts=0)

    assert tree.recall("a") == "ok"
    assert tree.take_story() == ["stop a", "start a", "reply"]
    assert tree.running() == "ab"


def test_s80_a_recalled_child_that_does_not_start_is_tried_again() -> None:
    tree = pool(children("a"))
    tree.plan_starts("a", "fails")

    assert isinstance(tree.recall("a"), ChildStartFailed)
    tree.advance(1)
    assert tree.running() == "a"


@pytest.mark.parametrize("outcome, answer", [("fails", ChildStartFailed), ("ignore", str)])
def test_a_recalled_child_that_ignores_or_that_nothing_restarts_is_forgotten(outcome: str, answer: type) -> None:
    tree = pool([child("a", "temporary")])
    tree.plan_starts("a", outcome)

    assert isinstance(tree.recall("a"), answer)
    assert tree.statuses() == {}


def test_s21_the_dead_that_wait_are_counted_as_not_active() -> None:
    tree = pool([child("a", backoff=Backoff(1.0)), child("b"), Child(Supervisor("c"))])
    tree.crash("a")

    counts = tree.policy.count_children()

    assert (counts.specs, counts.active, counts.supervisors, counts.workers) == (3, 2, 1, 2)


def test_s22_a_spec_has_its_defaults_filled_in() -> None:
    spec = pool([child("a")]).policy.get_child_spec("a")

    assert (spec.restart, spec.shutdown, spec.backoff) == ("permanent", 5.0, None)


# ---------------------------------------------------------------- stopping
def test_s44_all_are_asked_to_stop_before_any_of_them_is_gone() -> None:
    tree = pool(children("abc"))
    for id in "abc":
        tree.plan_stops(id, "waits")

    tree.stop()
    assert tree.take_story() == ["stop a", "stop b", "stop c"]
    for id in "cab":
        assert tree.ended is None
        tree.exits(id, Shutdown())

    assert tree.ended == Shutdown()
    assert tree.statuses() == {}


def test_s44_one_timer_for_all_that_have_the_same_time_to_stop() -> None:
    tree = pool([*children("abc", shutdown=2.0), *children("de", shutdown=7.0), child("f", shutdown="infinity")])
    for id in "abcdef":
        tree.plan_stops(id, "waits")

    tree.stop()
    assert sorted(wake.at for wake in tree.timers) == [2.0, 7.0]
    tree.take_story()
    tree.advance(2.0)
    assert tree.take_story("kill") == [f"kill {id} (shutdown timeout)" for id in "abc"]
    tree.advance(5.0)
    assert tree.take_story("kill") == [f"kill {id} (shutdown timeout)" for id in "de"]
    assert tree.ended is None
    tree.exits("f", Shutdown())
    assert tree.ended == Shutdown()


def test_s42_brutal_kill_is_at_once() -> None:
    tree = pool([child("a", shutdown="brutal_kill"), child("b")])

    tree.stop()

    assert tree.take_story()[:2] == ["kill a (brutal_kill)", "stop b"]
    assert [event.path for event in tree.events_of(ChildStopped)] == ["pool/a", "pool/b"]


def test_s43_an_abnormal_exit_during_a_stop_is_published() -> None:
    tree = pool(children("ab"))
    tree.plan_stops("a", "odd")

    tree.stop()

    assert [event.path for event in tree.events_of(ChildStopError)] == ["pool/a"]
    assert tree.ended == Shutdown()


def test_s39_stopping_ends_a_retry_loop_at_once() -> None:
    tree = pool([child("a", backoff=Backoff(30.0))])
    tree.crash("a")

    tree.stop()

    assert tree.ended == Shutdown()
    assert tree.take_story() == ["removed a", "end"]


def test_s39_starting_children_are_stopped_too_and_their_requests_are_refused() -> None:
    tree = pool(children("b"))
    tree.plan_starts("a", "waits")
    tree.plan_stops("b", "waits")
    start = tree.post_request(StartChild, child("a"))
    ended = tree.post_request(TerminateChild, "b")
    waits = tree.post_request(TerminateChild, "a")
    tree.settle()

    tree.stop()

    assert [type(tree.answer(number)) for number in (start, ended, waits)] == [WorkerDead] * 3
    assert tree.stops == ["b", "a"]
    tree.exits("b", Shutdown())
    assert tree.ended == Shutdown()


def test_a_child_that_was_being_stopped_already_keeps_its_own_deadline() -> None:
    tree = pool(children("a", shutdown=5.0))
    tree.plan_stops("a", "waits")
    tree.terminate_child("a")
    tree.advance(3.0)

    tree.stop()
    tree.take_story()
    tree.advance(2.0)

    assert tree.take_story() == ["kill a (shutdown timeout)", "removed a", "end"]


def test_requests_are_refused_while_it_stops() -> None:
    tree = pool(children("a"))
    tree.plan_stops("a", "waits")
    tree.stop()

    assert isinstance(tree.start_child(child("b")), WorkerDead)
    assert isinstance(tree.terminate_child("a"), WorkerDead)


def test_halt_kills_all_at_once() -> None:
    tree = pool(children("abc"))
    tree.plan_stops("a", "waits")
    tree.terminate_child("a")
    tree.take_story()

    tree.halt("second signal")

    assert sorted(tree.take_story("kill")) == [f"kill {id} (second signal)" for id in "abc"]
    assert tree.ended == Killed("second signal")


# ---------------------------------------------------------------- stale news
def test_an_event_of_a_forgotten_child_does_not_affect_a_later_child_with_its_id() -> None:
    tree = pool(children("a", backoff=Backoff(1.0)))
    tree.crash("a")
    tree.terminate_child("a")
    tree.start_child(child("a"))

    tree.policy.handle(Exited("a", 1, BOOM), tree.now)
    tree.advance(10.0)

    assert tree.running() == "a"
    assert tree.last_start("a").incarnation == 2
    assert tree.last_start("a").previous is None


# ---------------------------------------------------------------- 10,000 children
ACTS: dict[str, Callable[[DynamicPolicy], object]] = {
    "start": lambda policy: (
        policy.handle(StartChild(1, child("new")), 0.0),
        policy.handle(Ready("new", 1), 0.0),
    ),
    "start without an id": lambda policy: policy.handle(StartChild(1, Child(count)), 0.0),
    "too many": lambda policy: policy.handle(StartChild(1, child("w1")), 0.0),
    "crash and start": lambda policy: (
        policy.handle(Exited("w1", 1, BOOM), 0.0),
        policy.handle(Ready("w1", 2), 0.0),
    ),
    "end of a transient child": lambda policy: policy.handle(Exited("transient", 1, Normal()), 0.0),
    "terminate": lambda policy: (
        policy.handle(TerminateChild(1, "w1"), 0.0),
        policy.handle(Exited("w1", 1, Shutdown()), 0.0),
    ),
    "terminate while it is restarted": lambda policy: (
        policy.handle(Exited("patient", 1, BOOM), 0.0),
        policy.handle(TerminateChild(1, "patient"), 0.0),
    ),
    "recall": lambda policy: policy.handle(Recall(1, "w1"), 0.0),
    "unknown": lambda policy: policy.handle(TerminateChild(1, "nobody"), 0.0),
    "status": lambda policy: policy.child_info("w1"),
    "name": lambda policy: policy.named(Child(count)),
    "which are over": lambda policy: policy.gone_for_good({"w1", "w2"}),
}


@pytest.mark.parametrize("act", ACTS)
def test_s54_a_decision_costs_the_same_among_few_and_among_many_children(act: str) -> None:
    costs = []
    for number in (10, 10, 1000):  # the first time makes what is made once in a process
        special = [child("transient", "transient"), child("patient", backoff=Backoff(1.0))]
        tree = pool([*special, *(child(f"w{one}") for one in range(number))])
        costs.append(calls_during(functools.partial(ACTS[act], tree.policy)))

    assert costs[2] == costs[1]


def test_s54_stopping_all_costs_the_same_for_each_child() -> None:
    costs = []
    for number in (20, 2000):
        tree = pool(child(f"w{one}") for one in range(number))
        stop = calls_during(tree.stop)
        assert tree.ended == Shutdown()
        costs.append(stop / number)

    assert costs[1] <= costs[0]
