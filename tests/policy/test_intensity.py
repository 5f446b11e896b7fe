"""Rules 28-30: how many restarts are allowed, and giving up."""

from __future__ import annotations

import math
from typing import Any

import pytest

from suitkaise import Supervisor
from suitkaise.errors import ChildAlreadyPresent, ChildStartFailed, MaxChildren, SpecError
from suitkaise.events import ChildGivenUp, SupervisorGaveUp, SupervisorStopping
from suitkaise.exits import ExitCode, GaveUp, Hung, Killed, Lost, Normal, Shutdown, Signaled, SignificantFailure
from tests.policy.driver import BOOM, Driver, begun, child, children, pool, supervisor

STRATEGIES = ["one_for_one", "one_for_all", "rest_for_one"]
CLEAN = [Normal(), Shutdown(), Shutdown("why"), Shutdown(GaveUp("top/b/x", BOOM, 3, 5.0))]
ABNORMAL = [BOOM, ExitCode(0), ExitCode(3), Signaled(9), Killed("ref.kill"), Hung("loop", 2.0), Lost("node")]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_s28_the_supervisor_gives_up_at_one_restart_more_than_allowed(strategy: str) -> None:
    tree = begun(children("a"), max_restarts=3, strategy=strategy)

    for _ in range(3):
        tree.crash("a")
        assert tree.running() == "a"
    tree.crash("a")

    assert tree.take_story() == ["start a"] * 3 + ["end"]
    assert tree.ended == Shutdown(GaveUp("top/a", BOOM, 3, 5.0))


def test_s28_without_any_restart_allowed_the_first_one_needed_is_fatal() -> None:
    tree = begun(children("ab"), max_restarts=0)

    tree.crash("a")

    assert tree.take_story() == ["stop b", "end"]


def test_s28_without_any_restart_allowed_exits_that_need_none_are_harmless() -> None:
    tree = begun([child("a", "transient"), child("b", "temporary"), child("c")], max_restarts=0)

    tree.exits("a", Normal())
    tree.crash("b")

    assert tree.running() == "c"


def test_s28_the_loss_of_a_node_counts_for_nothing() -> None:
    tree = begun(children("ab"), max_restarts=0)

    for _ in range(5):
        tree.exits("a", Lost("its node was not heard", node="left"))
    assert tree.running() == "ab"
    assert tree.policy.restarts_used(0.0) == 0

    tree.exits("b", Lost("its exit status"))
    assert tree.ended is not None


def test_s28_unlimited_restarts_never_end_the_supervisor() -> None:
    tree = begun(children("a"), max_restarts=math.inf)

    for _ in range(1000):
        tree.crash("a")

    assert tree.running() == "a"
    assert tree.policy.restarts_used(0.0) == 1  # it does not remember them


def test_s29_the_window_is_the_supervisors_not_the_childs() -> None:
    tree = begun(children("abc"), max_restarts=2)

    tree.crash("a")
    tree.crash("b")
    tree.crash("c")

    assert tree.ended == Shutdown(GaveUp("top/c", BOOM, 2, 5.0))


@pytest.mark.parametrize("later, ends", [(4.5, True), (5.0, True), (5.0 + 1e-6, False), (50.0, False)])
def test_s29_a_restart_counts_up_to_and_at_the_edge_of_the_window(later: float, ends: bool) -> None:
    tree = begun(children("a"), max_restarts=1, max_seconds=5.0)

    tree.crash("a")
    tree.advance(later)
    tree.crash("a")

    assert (tree.ended is not None) is ends


def test_s29_the_window_slides() -> None:
    tree = begun(children("a"), max_restarts=2, max_seconds=1.0)

    for _ in range(20):
        tree.crash("a")
        tree.advance(0.6)
    assert tree.running() == "a"
    assert tree.policy.restarts_used(tree.now) == 1
    assert tree.policy.restarts_used(tree.now + 1) == 0


def test_s30_giving_up_stops_the_others_in_reverse_start_order() -> None:
    tree = begun(children("abcd"), max_restarts=0)

    tree.crash("c")

    assert tree.take_story() == ["stop d", "stop b", "stop a", "end"]
    assert len(tree.events_of(SupervisorStopping)) == 1
    gave_up = tree.events_of(SupervisorGaveUp)
    assert [(event.path, event.child, event.reason) for event in gave_up] == [("top", "c", BOOM)]


def test_s30_the_reason_is_the_innermost_one() -> None:
    tree = begun(supervisor(Supervisor("nested", child("x"))).children, max_restarts=0)

    tree.exits("nested", Shutdown(GaveUp("top/nested/x", BOOM, 3, 5.0)))

    assert tree.ended == Shutdown(GaveUp("top/nested", BOOM, 0, 5.0))


# ---------------------------------------------------------------- a child with a limit of its own (rule 78)
def test_s78_a_child_with_a_limit_of_its_own_is_given_up_alone() -> None:
    tree = begun([child("a", max_restarts=2, max_seconds=1.0), child("b")], max_restarts=0)

    for _ in range(3):
        tree.crash("a")

    assert tree.take_story() == ["start a"] * 2
    assert tree.statuses() == {"a": "failed", "b": "running"}
    assert tree.policy.restarts_used(tree.now) == 0
    (given_up,) = tree.events_of(ChildGivenUp)
    assert (given_up.path, given_up.reason, given_up.max_restarts, given_up.max_seconds) == ("top/a", BOOM, 2, 1.0)
    assert tree.events_of(SupervisorGaveUp) == []


def test_s78_its_window_slides_as_that_of_a_supervisor() -> None:
    tree = begun([child("a", max_restarts=1, max_seconds=1.0)], max_restarts=0)

    for _ in range(5):
        tree.crash("a")
        tree.advance(1.01)

    assert tree.running() == "a"


def test_s78_a_child_that_was_given_up_can_be_started_again_and_its_window_goes_on() -> None:
    tree = begun([child("a", max_restarts=1, max_seconds=10.0)])
    tree.crash("a")
    tree.crash("a")
    assert tree.running() == ""

    tree.restart_child("a")
    assert tree.running() == "a"
    tree.crash("a")
    assert tree.statuses() == {"a": "failed"}

    tree.recall("a")
    tree.advance(10.01)
    tree.crash("a")
    assert tree.running() == "a"
    assert tree.ended is None


def test_s78_terminate_child_makes_a_child_that_was_given_up_one_that_was_stopped() -> None:
    tree = begun([child("a", max_restarts=0), child("b")])
    tree.crash("a")
    assert tree.statuses() == {"a": "failed", "b": "running"}
    tree.terminate_child("a")
    assert tree.statuses() == {"a": "stopped", "b": "running"}
    tree.restart_child("a")
    assert tree.running() == "ab"


def test_s78_a_revived_child_is_like_any_other() -> None:
    tree = begun([child("a", "transient", max_restarts=0)])
    tree.crash("a")
    tree.restart_child("a")

    tree.exits("a", Normal())

    assert tree.statuses() == {"a": "finished"}


@pytest.mark.parametrize("strategy", ["one_for_all", "rest_for_one"])
def test_s07_s78_a_child_with_a_limit_of_its_own_is_refused_where_siblings_depend_on_it(strategy: str) -> None:
    tree = begun([child("a")], strategy=strategy)

    assert type(tree.start_child(child("b", max_restarts=1))) is SpecError

    assert tree.statuses() == {"a": "running"}


def test_s78_a_restart_that_keeps_failing_ends_the_same_way() -> None:
    tree = begun([child("a", max_restarts=2), child("b")], max_restarts=0)
    tree.plan_starts("a", *["fails"] * 9)

    tree.crash("a")

    assert tree.take_story() == ["start a"] * 2
    assert tree.statuses() == {"a": "failed", "b": "running"}


def test_s78_a_significant_child_that_is_given_up_shuts_the_supervisor_down() -> None:
    whole = child("a", "transient", significant=True, max_restarts=0)
    tree = begun([whole, child("b")], auto_shutdown="any_significant")

    tree.crash("a")

    assert tree.take_story() == ["stop b", "end"]
    assert tree.ended == Shutdown(SignificantFailure("top/a", BOOM))


def poisoned(**options: Any) -> Driver:
    """A dynamic supervisor that has given up `a`; `b` runs."""
    tree = pool([child("a", max_restarts=0), child("b")], max_restarts=0, **options)
    tree.crash("a")
    return tree


def test_s78_a_dynamic_supervisor_keeps_it_as_failed() -> None:
    tree = poisoned()

    assert tree.take_story() == []
    assert tree.statuses() == {"a": "failed", "b": "running"}
    assert [event.path for event in tree.events_of(ChildGivenUp)] == ["pool/a"]
    assert tree.policy.gone_for_good({"a", "b"}) == ["a"]
    assert type(tree.start_child(child("a"))) is ChildAlreadyPresent


def test_s78_restart_child_revives_it_in_a_dynamic_supervisor() -> None:
    tree = poisoned()

    assert tree.restart_child("a") == "ok"

    assert tree.running() == "ab"
    assert tree.policy.gone_for_good({"a", "b"}) == []
    tree.crash("a")
    assert (tree.statuses(), tree.ended) == ({"a": "failed", "b": "running"}, None)


@pytest.mark.parametrize("revive", ["restart_child", "recall"])
def test_s78_it_stays_failed_if_it_cannot_be_started(revive: str) -> None:
    tree = poisoned()
    tree.plan_starts("a", "fails")

    assert type(getattr(tree, revive)("a")) is ChildStartFailed

    assert tree.statuses() == {"a": "failed", "b": "running"}


@pytest.mark.parametrize("remove", ["terminate_child", "delete_child"])
def test_s78_a_dynamic_supervisor_forgets_it_on_request(remove: str) -> None:
    tree = poisoned()

    assert getattr(tree, remove)("a") == "ok"

    assert tree.take_story() == ["removed a", "reply"]
    assert tree.statuses() == {"b": "running"}
    assert tree.start_child(child("a")) == "ok"


@pytest.mark.parametrize("revive", ["restart_child", "recall"])
def test_s53_s78_it_takes_no_place_of_another_child_until_it_is_revived(revive: str) -> None:
    tree = poisoned(max_children=2)

    assert tree.start_child(child("c")) == "ok"

    assert type(tree.start_child(child("d"))) is MaxChildren
    assert type(getattr(tree, revive)("a")) is MaxChildren
    assert tree.statuses() == {"a": "failed", "b": "running", "c": "running"}
    assert tree.recall("b") == "ok"


def test_s78_a_dynamic_supervisor_stops_although_it_has_given_one_up() -> None:
    tree = poisoned()
    tree.stop()
    assert tree.ended == Shutdown()
