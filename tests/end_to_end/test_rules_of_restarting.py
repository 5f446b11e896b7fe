"""The rules of restarting (16, 27, 29, 36-38), and children that wait for a restart, with real workers."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import pytest

from suitkaise import (
    Backoff,
    ChildAlreadyPresent,
    ChildNotFound,
    ChildRestarting,
    ChildRunning,
    DynamicSupervisor,
    GaveUp,
    Shutdown,
    Supervisor,
    WorkerFailed,
    events,
)
from suitkaise.runtime.running_tree import RunningTree
from tests.end_to_end.kinds import Kinds, next_event, statuses
from tests.support import eventually

FOR_EVER = Backoff(60, maximum=60)  # longer than any test

# Every strategy and both kinds of workers, but not all combinations: the policy has tests for those.
both_groups = pytest.mark.parametrize(
    "kinds, strategy", [("process", "one_for_all"), ("thread", "rest_for_one")], indirect=["kinds"]
)

pytestmark = pytest.mark.usefixtures("one_runtime_for_all")


# ------------------------------------------------------------ children that wait for their restart
@pytest.mark.parametrize(
    "kinds, strategy", [("process", "one_for_one"), ("thread", "rest_for_one")], indirect=["kinds"]
)
def test_s16_terminate_child_cancels_the_pending_retry(kinds: Kinds, strategy: Any) -> None:
    soon = Backoff(0.5, jitter=0)
    other = Supervisor("other", kinds.child("witness", backoff=soon))
    inner = Supervisor("inner", kinds.child("b"), kinds.child("a", backoff=soon), strategy=strategy)
    with Supervisor("tree", inner, other).start() as running, running.events() as happened:
        kinds.crash(running, "inner/a")
        next_event(happened, events.ChildRestarting, "inner/a")
        running.terminate_child("inner/a")
        assert statuses(running, "inner") == {"b": "running", "a": "stopped"}
        kinds.crash(running, "other/witness")  # its delay began later, so it ends after that of `a`
        next_event(happened, events.ChildStarted, "other/witness")
        running.recall("inner/b")  # the supervisor has handled all earlier events when this returns
        assert statuses(running, "inner") == {"b": "running", "a": "stopped"}
        assert kinds.notes("a") == ["start a"]
        assert running.restart_child("inner/a").ask("there?") == "there?"


def test_s16_terminate_child_ends_a_retry_loop(kinds: Kinds) -> None:
    with kinds.tree("ab", max_restarts=math.inf).start() as running, running.events() as happened:
        fails = kinds.order("fails", "a")
        kinds.crash(running, "a")
        for _ in range(3):
            next_event(happened, events.ChildStartFailure, "a")
        running.terminate_child("a")
        fails.unlink()
        tries = running["a"].incarnation
        running.recall("b")
        running.recall("b")
        assert statuses(running) == {"a": "stopped", "b": "running"}
        assert running["a"].incarnation == tries
        assert kinds.notes("a") == ["start a", *["fail a"] * (tries - 1)]


def await_restart(kinds: Kinds, running: RunningTree, how: str) -> None:
    """Crash `a`, and return when it is in the state `how` of its restart."""
    if how != "waiting":
        kinds.order(how, "a")
    with running.events() as happened:
        kinds.crash(running, "a")
        next_event(happened, events.ChildRestarting, "a")
    if how != "waiting":
        eventually(lambda: len(kinds.notes("a")) > 1, what="a is being started")


@pytest.mark.parametrize(
    "kinds, strategy, how",
    [
        ("process", "one_for_one", "waiting"),
        ("process", "one_for_all", "waiting"),
        ("thread", "rest_for_one", "waiting"),
        ("process", "one_for_one", "starts_slowly"),
        ("thread", "one_for_one", "starts_slowly"),
        ("process", "one_for_one", "fails"),
    ],
    indirect=["kinds"],
)
def test_s09_s17_s19_a_child_that_waits_for_its_restart_can_only_be_terminated(
    kinds: Kinds, strategy: Any, how: str
) -> None:
    waits = kinds.child("a", backoff=FOR_EVER if how == "waiting" else None)
    tree = Supervisor(
        "tree", kinds.child("first"), waits, kinds.child("last"), strategy=strategy, max_restarts=math.inf
    )
    with tree.start() as running:
        await_restart(kinds, running, how)
        for refused in (running.restart_child, running.delete_child):
            with pytest.raises(ChildRestarting, match="'tree/a' is being restarted") as caught:
                refused("a")
            assert caught.value.path == "tree/a"
        with pytest.raises(ChildAlreadyPresent, match="restarting"):
            running.start_child(kinds.child("a"))
        assert statuses(running)["a"] == "restarting"
        assert not running["a"].is_alive()
        assert running.count_children().specs == 3
        assert running.count_children().active == {"one_for_one": 2, "rest_for_one": 1, "one_for_all": 0}[strategy]
        running.terminate_child("a")
        running.delete_child("a")
        with pytest.raises(ChildNotFound):
            running.restart_child("a")
        further = {"waiting": [], "starts_slowly": ["slow a", "start a", "stop a"]}
        assert how == "fails" or kinds.notes("a") == ["start a", *further[how]]


def test_s17_s19_a_restarted_child_cannot_be_restarted_or_deleted_while_it_runs(kinds: Kinds) -> None:
    with kinds.tree("ab").start() as running:
        slowly = kinds.order("starts_slowly", "a")
        kinds.crash(running, "a")
        eventually(lambda: "slow a" in kinds.notes())
        with pytest.raises(ChildRestarting):
            running.restart_child("a")
        slowly.unlink()
        eventually(lambda: running["a"].status == "running")
        for refused in (running.restart_child, running.delete_child):
            with pytest.raises(ChildRunning):
                refused("a")
        assert running["a"].incarnation == 2


def test_s56_recall_and_stop_cut_the_wait_for_a_restart_short(kinds: Kinds) -> None:
    children = [kinds.child(id, backoff=FOR_EVER) for id in "ab"]
    running = Supervisor("tree", *children, max_restarts=2).start()
    with running.events() as happened:
        for id in "ab":
            kinds.crash(running, id)
            next_event(happened, events.ChildRestarting, id)
        running.recall("a")
        assert statuses(running) == {"a": "running", "b": "restarting"}  # the recall did not count as a third restart
        assert running["a"].ask("there?") == "there?"
        assert running.stop(timeout=15) == Shutdown("stop")
    assert kinds.notes() == ["start a", "start b", "start a", "stop a"]


# ------------------------------------------------------------ groups
@both_groups
def test_s27_a_temporary_sibling_is_stopped_removed_and_not_started_again(kinds: Kinds, strategy: Any) -> None:
    children = kinds.child("a"), kinds.child("b", restart="temporary"), kinds.child("c")
    with Supervisor("tree", *children, strategy=strategy).start() as running:
        kinds.crash_and_wait(running, "a")
        eventually(lambda: statuses(running) == {"a": "running", "c": "running"})
        assert kinds.notes()[3:] == ["stop c", "stop b", "start a", "start c"]
        assert "b" not in running
        assert running.start_child(kinds.child("b")).ask("there?") == "there?"


def test_s27_a_temporary_child_before_the_one_that_failed_is_left_alone_by_rest_for_one(kinds: Kinds) -> None:
    children = kinds.child("a", restart="temporary"), kinds.child("b"), kinds.child("c")
    with Supervisor("tree", *children, strategy="rest_for_one").start() as running:
        kinds.crash_and_wait(running, "b")
        eventually(lambda: kinds.notes()[3:] == ["stop c", "start b", "start c"])
        assert running["a"].incarnation == 1
        assert running["a"].ask("there?") == "there?"


def test_s36_a_one_for_all_retry_first_stops_the_children_started_in_that_round(kinds: Kinds) -> None:
    with kinds.tree("abcd", strategy="one_for_all", max_seconds=60).start() as running, running.events() as happened:
        kinds.order("fails_once", "c")
        kinds.crash(running, "b")
        failure = next_event(happened, events.ChildStartFailure)
        retry = next_event(happened, events.ChildRestarting)
        assert (failure.path, retry.path, retry.used) == ("tree/c", "tree/c", 2)
        stopped = [next_event(happened, events.ChildStopped) for _ in "ba"]
        assert [(event.path, event.reason) for event in stopped] == [("tree/b", Shutdown()), ("tree/a", Shutdown())]
        next_event(happened, events.ChildStarted, "d")
        first = ["stop d", "stop c", "stop a", "start a", "start b", "fail c"]
        assert kinds.notes()[4:] == [*first, "stop b", "stop a", "start a", "start b", "start c", "start d"]
        assert set(statuses(running).values()) == {"running"}


def test_s36_the_children_started_in_that_round_run_until_the_retry(kinds: Kinds) -> None:
    children = kinds.child("a"), kinds.child("b"), kinds.child("c", backoff=FOR_EVER), kinds.child("d")
    with Supervisor("tree", *children, strategy="one_for_all").start() as running, running.events() as happened:
        kinds.order("fails_once", "c")
        kinds.crash(running, "b")
        next_event(happened, events.ChildStartFailure, "c")
        assert [running[id].ask("there?") for id in "ab"] == ["there?"] * 2
        assert statuses(running) == {"a": "running", "b": "running", "c": "restarting", "d": "stopped"}
        running.recall("c")  # `c` alone, at once
        assert statuses(running) == {"a": "running", "b": "running", "c": "running", "d": "stopped"}
        assert kinds.notes("a", "b", "c")[-2:] == ["fail c", "start c"]


def test_s37_a_rest_for_one_retry_begins_at_the_child_that_failed(kinds: Kinds) -> None:
    with kinds.tree("abcd", strategy="rest_for_one", max_seconds=60).start() as running, running.events() as happened:
        kinds.order("fails_once", "c")
        kinds.crash(running, "b")
        used = [next_event(happened, events.ChildRestarting).used for _ in range(2)]
        next_event(happened, events.ChildStarted, "d")
        assert used == [1, 2]
        assert kinds.notes()[4:] == ["stop d", "stop c", "start b", "fail c", "start c", "start d"]
        assert [running[id].incarnation for id in "abcd"] == [1, 2, 3, 2]


@pytest.mark.parametrize("backoff", [None, FOR_EVER], ids=["in a retry loop", "while it waits"])
@both_groups
def test_s38_after_terminate_child_of_the_failing_child_those_after_it_stay_down(
    kinds: Kinds, strategy: Any, backoff: Backoff | None
) -> None:
    children = kinds.child("a"), kinds.child("b"), kinds.child("c", backoff=backoff), kinds.child("d")
    tree = Supervisor("tree", *children, strategy=strategy, max_restarts=math.inf)
    with tree.start() as running, running.events() as happened:
        fails = kinds.order("fails", "c")
        kinds.crash(running, "b")
        for _ in range(1 if backoff else 3):
            next_event(happened, events.ChildStartFailure, "c")
        running.terminate_child("c")
        fails.unlink()
        down = {"a": "running", "b": "running", "c": "stopped", "d": "stopped"}
        assert statuses(running) == down
        running.recall("b")  # the supervisor has handled all earlier events when this returns
        assert statuses(running) == down
        assert kinds.notes("d") == ["start d", "stop d"]
        assert running.restart_child("d").ask("there?") == "there?"
        kinds.crash(running, "b")  # the next restart of the group starts them all (rule 34)
        next_event(happened, events.ChildStarted, "d")  # by restart_child
        next_event(happened, events.ChildStarted, "d")
        assert set(statuses(running).values()) == {"running"}


# ------------------------------------------------------------ the window
def test_s29_the_restart_window_belongs_to_the_supervisor_not_to_a_child_or_the_tree(kinds: Kinds) -> None:
    left, right = (kinds.tree("ab", name=name, max_restarts=1, max_seconds=60) for name in ("left", "right"))
    with Supervisor("tree", left, right).start() as running, running.events() as happened:
        kinds.crash_and_wait(running, "left/a")
        kinds.crash_and_wait(running, "right/a")
        kinds.crash(running, "left/b")
        assert next_event(happened, events.SupervisorGaveUp).path == "tree/left"
        next_event(happened, events.ChildStarted, "left")
        assert [running[f"left/{id}"].ask("there?") for id in "ab"] == ["there?"] * 2
        assert [running[f"right/{id}"].incarnation for id in "ab"] == [2, 1]
        kinds.crash_and_wait(running, "left/b")  # a supervisor that was restarted has a window of its own


def test_s29_a_restart_older_than_the_window_does_not_count(tmp_path: Path) -> None:
    kinds = Kinds(tmp_path, "process")
    with kinds.tree("a", max_restarts=1, max_seconds=0.15).start() as running, running.events() as happened:
        for _ in range(3):
            kinds.crash(running, "a")
            restart = next_event(happened, events.ChildRestarting)
            assert restart.used == 1
            next_event(happened, events.ChildStarted)
            await_time(restart.at + 0.15)


def await_time(at: float) -> None:
    eventually(lambda: time.monotonic() > at, what=f"the monotonic clock shows {at}")


@pytest.mark.parametrize("step", [3600.0, -3600.0], ids=["forward", "backward"])
def test_s29_a_clock_that_is_set_does_not_move_the_window(
    tmp_path: Path, step: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds, real, shift = Kinds(tmp_path, "thread"), time.time, 0.0
    monkeypatch.setattr(time, "time", lambda: real() + shift)
    running = kinds.tree("a", max_restarts=2, max_seconds=60).start()
    for _ in range(2):
        shift += step
        kinds.crash_and_wait(running, "a")
    shift += step
    kinds.crash(running, "a")
    reason = running.wait(15)
    assert isinstance(reason, Shutdown)
    assert isinstance(reason.detail, GaveUp)


# ------------------------------------------------------------ a child with a limit of its own
def test_s78_a_child_with_a_limit_of_its_own_is_given_up_alone(kinds: Kinds) -> None:
    tree = Supervisor("tree", kinds.child("a", max_restarts=1), kinds.child("b"), max_restarts=0)
    with tree.start() as running, running.events() as happened:
        for _ in range(2):
            kinds.crash(running, "a")
            next_event(happened, events.ChildExited, "a")
            eventually(lambda: statuses(running)["a"] in ("running", "failed"))
        given_up = next_event(happened, events.ChildGivenUp, "a")
        assert "more than 1 restart in 60 s" in str(given_up)
        assert statuses(running) == {"a": "failed", "b": "running"}
        with pytest.raises(WorkerFailed):
            running["a"].result(15)
        eventually(lambda: running.crashes())
        assert "is given up; 1 of 1 restarts used in 60 s" in str(running.crashes()[-1])
        assert running.restart_child("a").ask("there?") == "there?"


def test_s78_a_dynamic_supervisor_keeps_a_poison_job_as_failed(kinds: Kinds) -> None:
    pool = DynamicSupervisor("tree", max_restarts=0)
    with pool.start() as running, running.events() as happened:
        running.start_child(kinds.child("poison", max_restarts=0))
        running.start_child(kinds.child("b"))
        kinds.crash(running, "poison")
        next_event(happened, events.ChildGivenUp, "poison")
        eventually(lambda: statuses(running) == {"poison": "failed", "b": "running"})
        with pytest.raises(WorkerFailed):
            running["poison"].result(15)
        assert running.restart_child("poison").ask("there?") == "there?"
        kinds.crash(running, "poison")
        next_event(happened, events.ChildGivenUp, "poison")
        eventually(lambda: statuses(running)["poison"] == "failed")
        running.terminate_child("poison")
        assert statuses(running) == {"b": "running"}
