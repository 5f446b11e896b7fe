"""Rules 1-7, 11-13, 40 and 41: how a supervisor starts."""

from __future__ import annotations

import pytest

from suitkaise import Supervisor
from suitkaise.errors import SpecError
from suitkaise.events import ChildIgnored, ChildStarted, ChildStartFailure, SupervisorStarted
from suitkaise.exits import Crashed, Normal, Shutdown, StartFailure
from tests.policy.driver import Driver, begun, child, children, supervisor


def test_s01_children_start_left_to_right() -> None:
    tree = Driver(supervisor(*children("abc")))

    assert tree.take_story() == ["start a", "start b", "start c", "started"]
    assert tree.running() == "abc"


def test_s01_the_next_child_starts_only_when_the_previous_one_is_ready() -> None:
    tree = Driver(supervisor(*children("abc")), begin_now=False)
    tree.plan_starts("a", "waits")
    tree.plan_starts("b", "waits")

    tree.begin()
    assert tree.take_story() == ["start a"]
    tree.ready("a")
    assert tree.take_story() == ["start b"]
    tree.ready("b")
    assert tree.take_story() == ["start c", "started"]


def test_s01_a_supervisor_without_children_is_up_at_once() -> None:
    tree = Driver(supervisor())

    assert tree.take_story() == ["started"]


def test_s01_a_nested_supervisor_is_started_in_its_place_like_any_child() -> None:
    tree = Driver(supervisor(child("a"), Supervisor("nested", child("x")), child("c")))

    assert tree.take_story() == ["start a", "start nested", "start c", "started"]


def test_s01_the_world_hears_of_every_start_and_then_of_the_supervisors() -> None:
    tree = Driver(supervisor(*children("ab")))

    assert [type(event) for event in tree.events] == [ChildStarted, ChildStarted, SupervisorStarted]
    assert [event.path for event in tree.events] == ["top/a", "top/b", "top"]


def test_s01_a_crash_during_the_start_is_dealt_with_when_the_start_is_over() -> None:
    tree = Driver(supervisor(*children("ab")), begin_now=False)
    tree.plan_starts("b", "waits")
    tree.begin()

    tree.crash("a")
    assert tree.take_story() == ["start a", "start b"]
    tree.ready("b")
    assert tree.take_story() == ["started", "start a"]
    assert tree.running() == "ab"


def test_s02_a_start_failure_stops_the_started_siblings_in_reverse_order_and_is_not_retried() -> None:
    tree = Driver(supervisor(*children("abcd")), begin_now=False)
    tree.plan_starts("c", "fails")

    tree.begin()

    assert tree.take_story() == ["start a", "start b", "start c", "stop b", "stop a", "end"]
    assert tree.ended == Shutdown(StartFailure("top/c", Driver.FAILED))
    assert [event.path for event in tree.events_of(ChildStartFailure)] == ["top/c"]


def test_s02_the_siblings_are_gone_before_the_failure_is_reported() -> None:
    tree = Driver(supervisor(*children("ab")), begin_now=False)
    tree.plan_starts("b", "fails")
    tree.plan_stops("a", "waits")

    tree.begin()
    assert tree.ended is None
    tree.exits("a", Shutdown())
    assert tree.ended is not None


def test_s02_a_failed_start_of_a_temporary_child_fails_the_start_of_the_supervisor() -> None:
    tree = Driver(supervisor(child("a", "temporary")), begin_now=False)
    tree.plan_starts("a", "fails")

    tree.begin()

    assert tree.ended == Shutdown(StartFailure("top/a", Driver.FAILED))


def test_s02_the_failure_names_the_innermost_child() -> None:
    inner = StartFailure("top/nested/x", Crashed("on_start", OSError()))
    tree = Driver(supervisor(Supervisor("nested", child("x"))), begin_now=False)
    tree.plan_starts("nested", "waits")
    tree.begin()

    tree.exits("nested", Shutdown(inner))

    assert tree.ended == Shutdown(inner)


def test_s02_a_crash_that_waits_is_forgotten_when_the_start_fails() -> None:
    tree = Driver(supervisor(*children("ab")), begin_now=False)
    tree.plan_starts("b", "waits")
    tree.begin()
    tree.crash("a")

    tree.fails_to_start("b")

    assert tree.take_story() == ["start a", "start b", "end"]


def test_s03_an_option_of_the_child_comes_before_its_supervisors() -> None:
    nested = Supervisor("nested", restart="transient", shutdown=7)
    tree = begun([child("w"), supervisor(nested).children[0].replace(restart="temporary")])

    spec = tree.policy.get_child_spec("nested")
    assert (spec.restart, spec.shutdown) == ("temporary", 7.0)


def test_s04_duplicate_ids_are_refused_when_they_are_declared() -> None:
    with pytest.raises(SpecError, match="two children have the id 'a'"):
        supervisor(child("a"), child("b"), child("a"))


def test_s05_a_wrong_option_is_refused_when_it_is_declared() -> None:
    with pytest.raises(SpecError, match=r"Child 'a': restart must be .*'permanent'.*, not 'always'"):
        child("a", "always")


def test_s06_defaults_show_in_get_child_spec() -> None:
    tree = begun([child("w"), *supervisor(Supervisor("s")).children])

    worker, nested = tree.policy.get_child_spec("w"), tree.policy.get_child_spec("s")
    assert (worker.restart, worker.shutdown, worker.significant) == ("permanent", 5.0, False)
    assert (worker.join_in, worker.join_after, worker.backoff) == (None, None, None)
    assert (nested.restart, nested.shutdown, nested.significant) == ("permanent", "infinity", False)


def test_s06_a_supervisors_defaults() -> None:
    tree = supervisor()

    assert (tree.strategy, tree.max_restarts, tree.max_seconds) == ("one_for_one", 3, 5.0)
    assert (tree.auto_shutdown, tree.restart, tree.shutdown) == ("never", "permanent", "infinity")


def test_s07_a_spec_that_does_not_fit_is_refused_and_not_stored() -> None:
    tree = begun(children("a"))

    error = tree.start_child(child("x", "transient", significant=True))

    assert isinstance(error, SpecError)
    assert "significant" in str(error)
    assert tree.take_story() == ["refuse SpecError"]
    assert tree.statuses() == {"a": "running"}


def test_s07_an_invalid_spec_is_reported_before_its_id_is_checked() -> None:
    tree = begun(children("a"))

    assert isinstance(tree.start_child(child("a", "transient", significant=True)), SpecError)


@pytest.mark.parametrize("restart", ["permanent", "transient"])
def test_s11_ignore_at_the_start_is_no_failure_and_the_spec_is_kept(restart: str) -> None:
    tree = Driver(supervisor(child("a", restart), child("b")), begin_now=False)
    tree.plan_starts("a", "ignore")

    tree.begin()

    assert tree.take_story() == ["start a", "start b", "started"]
    assert tree.statuses() == {"a": "ignored", "b": "running"}
    assert [event.path for event in tree.events_of(ChildIgnored)] == ["top/a"]


@pytest.mark.parametrize("restart", ["permanent", "transient"])
def test_s11_start_child_that_ignores_succeeds_and_the_spec_is_kept(restart: str) -> None:
    tree = begun(children("a"))
    tree.plan_starts("b", "ignore")

    assert tree.start_child(child("b", restart)) == "ok"
    assert tree.statuses() == {"a": "running", "b": "ignored"}


def test_s11_an_ignored_child_is_not_active_and_can_be_started_later() -> None:
    tree = begun(children("ab"))
    tree.terminate_child("a")
    tree.plan_starts("a", "ignore")

    assert tree.restart_child("a") == "ok"
    assert tree.policy.count_children().active == 1
    assert tree.restart_child("a") == "ok"
    assert tree.running() == "ab"


def test_s12_a_temporary_child_that_ignores_at_the_start_is_not_stored() -> None:
    tree = Driver(supervisor(child("a", "temporary"), child("b")), begin_now=False)
    tree.plan_starts("a", "ignore")

    tree.begin()

    assert tree.take_story() == ["start a", "removed a", "start b", "started"]
    assert tree.statuses() == {"b": "running"}


def test_s12_start_child_of_a_temporary_one_that_ignores_succeeds_and_stores_nothing() -> None:
    tree = begun(children("a"))
    tree.plan_starts("b", "ignore")

    assert tree.start_child(child("b", "temporary")) == "ok"
    assert tree.take_story() == ["start b", "removed b", "reply"]
    assert tree.statuses() == {"a": "running"}


@pytest.mark.parametrize("strategy", ["one_for_one", "one_for_all", "rest_for_one"])
def test_s13_ignore_on_an_automatic_restart_is_a_success(strategy: str) -> None:
    tree = begun(children("ab"), strategy=strategy)
    tree.plan_starts("a", "ignore")

    tree.crash("a")
    tree.advance(100)

    assert tree.statuses() == {"a": "ignored", "b": "running"}
    assert tree.take_story("start").count("start a") == 1
    assert tree.policy.restarts_used(0.0) == 1


def test_s40_a_restarted_supervisor_has_the_declared_children_alone() -> None:
    tree = begun(children("ab"))
    tree.start_child(child("added"))
    tree.delete_child("a")

    again = begun(tree.spec.children)

    assert again.statuses() == {"a": "running", "b": "running"}


def test_s41_every_restart_starts_a_new_incarnation_from_the_same_declaration() -> None:
    spec = child("a")
    tree = begun([spec])

    tree.exits("a", Normal())
    tree.crash("a")

    assert [(start.child, start.incarnation) for start in tree.starts] == [(spec, 1), (spec, 2), (spec, 3)]
