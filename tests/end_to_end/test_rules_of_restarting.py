"""The rules of restarting (16, 27, 29, 36-38) and of children that wait for it, with real ends of real workers."""

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
    GaveUp,
    Shutdown,
    Supervisor,
    events,
)
from suitkaise.supervision.running import RunningTree
from tests.end_to_end.folk import Folk, next_event, statuses
from tests.support import eventually

FOR_EVER = Backoff(60, maximum=60)  # longer than any test

# Every strategy and both kinds of workers, but not all combinations: the policy has tests for those.
both_groups = pytest.mark.parametrize(
    "folk, strategy", [("process", "one_for_all"), ("thread", "rest_for_one")], indirect=["folk"]
)

pytestmark = pytest.mark.usefixtures("one_runtime_for_all")


# ------------------------------------------------------------ children that wait for their restart
@pytest.mark.parametrize("folk, strategy", [("process", "one_for_one"), ("thread", "rest_for_one")], indirect=["folk"])
def test_s16_after_terminate_child_the_pending_retry_comes_to_nothing(folk: Folk, strategy: Any) -> None:
    soon = Backoff(0.5, jitter=0)
    other = Supervisor("other", folk.child("witness", backoff=soon))
    inner = Supervisor("inner", folk.child("b"), folk.child("a", backoff=soon), strategy=strategy)
    with Supervisor("tree", inner, other).start() as running, running.events() as happened:
        folk.crash(running, "inner/a")
        next_event(happened, events.ChildRestarting, "inner/a")
        running.terminate_child("inner/a")
        assert statuses(running, "inner") == {"b": "running", "a": "stopped"}
        folk.crash(running, "other/witness")  # its delay is as long and began later: when it is back, the other is over
        next_event(happened, events.ChildStarted, "other/witness")
        running.recall("inner/b")  # what came to the supervisor before this is dealt with
        assert statuses(running, "inner") == {"b": "running", "a": "stopped"}
        assert folk.notes("a") == ["start a"]
        assert running.restart_child("inner/a").ask("there?") == "there?"


def test_s16_terminate_child_ends_a_retry_loop(folk: Folk) -> None:
    with folk.tree("ab", max_restarts=math.inf).start() as running, running.events() as happened:
        fails = folk.say("fails", "a")
        folk.crash(running, "a")
        for _ in range(3):
            next_event(happened, events.ChildStartFailure, "a")
        running.terminate_child("a")
        fails.unlink()
        tries = running["a"].incarnation
        running.recall("b")
        running.recall("b")
        assert statuses(running) == {"a": "stopped", "b": "running"}
        assert running["a"].incarnation == tries
        assert folk.notes("a") == ["start a", *["fail a"] * (tries - 1)]


def await_restart(folk: Folk, running: RunningTree, how: str) -> None:
    """Crash `a`, and return when it is `how`."""
    if how != "waiting":
        folk.say(how, "a")
    with running.events() as happened:
        folk.crash(running, "a")
        next_event(happened, events.ChildRestarting, "a")
    if how != "waiting":
        eventually(lambda: len(folk.notes("a")) > 1, what="a is being started")


@pytest.mark.parametrize(
    "folk, strategy, how",
    [
        ("process", "one_for_one", "waiting"),
        ("process", "one_for_all", "waiting"),
        ("thread", "rest_for_one", "waiting"),
        ("process", "one_for_one", "starts_slowly"),
        ("thread", "one_for_one", "starts_slowly"),
        ("process", "one_for_one", "fails"),
    ],
    indirect=["folk"],
)
def test_s09_s17_s19_a_child_that_waits_for_its_restart(folk: Folk, strategy: Any, how: str) -> None:
    waits = folk.child("a", backoff=FOR_EVER if how == "waiting" else None)
    tree = Supervisor("tree", folk.child("first"), waits, folk.child("last"), strategy=strategy, max_restarts=math.inf)
    with tree.start() as running:
        await_restart(folk, running, how)
        for refused in (running.restart_child, running.delete_child):
            with pytest.raises(ChildRestarting, match="'tree/a' is being restarted") as caught:
                refused("a")
            assert caught.value.path == "tree/a"
        with pytest.raises(ChildAlreadyPresent, match="restarting"):
            running.start_child(folk.child("a"))
        assert statuses(running)["a"] == "restarting"
        assert not running["a"].is_alive()
        assert running.count_children().specs == 3
        assert running.count_children().active == {"one_for_one": 2, "rest_for_one": 1, "one_for_all": 0}[strategy]
        running.terminate_child("a")
        running.delete_child("a")
        with pytest.raises(ChildNotFound):
            running.restart_child("a")
        further = {"waiting": [], "starts_slowly": ["slow a", "start a", "stop a"]}
        assert how == "fails" or folk.notes("a") == ["start a", *further[how]]


def test_s17_s19_a_child_that_is_back_is_running(folk: Folk) -> None:
    with folk.tree("ab").start() as running:
        slowly = folk.say("starts_slowly", "a")
        folk.crash(running, "a")
        eventually(lambda: "slow a" in folk.notes())
        with pytest.raises(ChildRestarting):
            running.restart_child("a")
        slowly.unlink()
        eventually(lambda: running["a"].status == "running")
        for refused in (running.restart_child, running.delete_child):
            with pytest.raises(ChildRunning):
                refused("a")
        assert running["a"].incarnation == 2


def test_s56_recall_and_stop_cut_the_wait_for_a_restart_short(folk: Folk) -> None:
    children = [folk.child(id, backoff=FOR_EVER) for id in "ab"]
    running = Supervisor("tree", *children, max_restarts=2).start()
    with running.events() as happened:
        for id in "ab":
            folk.crash(running, id)
            next_event(happened, events.ChildRestarting, id)
        running.recall("a")
        assert statuses(running) == {"a": "running", "b": "restarting"}  # and a third restart was not counted
        assert running["a"].ask("there?") == "there?"
        assert running.stop(timeout=15) == Shutdown("stop")
    assert folk.notes() == ["start a", "start b", "start a", "stop a"]


# ------------------------------------------------------------ groups
@both_groups
def test_s27_a_temporary_bystander_is_stopped_removed_and_not_started_again(folk: Folk, strategy: Any) -> None:
    children = folk.child("a"), folk.child("b", restart="temporary"), folk.child("c")
    with Supervisor("tree", *children, strategy=strategy).start() as running:
        folk.crash_and_wait(running, "a")
        eventually(lambda: statuses(running) == {"a": "running", "c": "running"})
        assert folk.notes()[3:] == ["stop c", "stop b", "start a", "start c"]
        assert "b" not in running
        assert running.start_child(folk.child("b")).ask("there?") == "there?"


def test_s27_a_temporary_child_before_the_one_that_failed_is_left_alone_by_rest_for_one(folk: Folk) -> None:
    children = folk.child("a", restart="temporary"), folk.child("b"), folk.child("c")
    with Supervisor("tree", *children, strategy="rest_for_one").start() as running:
        folk.crash_and_wait(running, "b")
        eventually(lambda: folk.notes()[3:] == ["stop c", "start b", "start c"])
        assert running["a"].incarnation == 1
        assert running["a"].ask("there?") == "there?"


def test_s36_a_one_for_all_retry_first_stops_what_the_round_had_started(folk: Folk) -> None:
    with folk.tree("abcd", strategy="one_for_all").start() as running, running.events() as happened:
        folk.say("fails_once", "c")
        folk.crash(running, "b")
        failure = next_event(happened, events.ChildStartFailure)
        retry = next_event(happened, events.ChildRestarting)
        assert (failure.path, retry.path, retry.used) == ("tree/c", "tree/c", 2)
        stopped = [next_event(happened, events.ChildStopped) for _ in "ba"]
        assert [(event.path, event.reason) for event in stopped] == [("tree/b", Shutdown()), ("tree/a", Shutdown())]
        next_event(happened, events.ChildStarted, "d")
        first = ["stop d", "stop c", "stop a", "start a", "start b", "fail c"]
        assert folk.notes()[4:] == [*first, "stop b", "stop a", "start a", "start b", "start c", "start d"]
        assert set(statuses(running).values()) == {"running"}


def test_s36_what_the_round_had_started_runs_until_the_retry(folk: Folk) -> None:
    children = folk.child("a"), folk.child("b"), folk.child("c", backoff=FOR_EVER), folk.child("d")
    with Supervisor("tree", *children, strategy="one_for_all").start() as running, running.events() as happened:
        folk.say("fails_once", "c")
        folk.crash(running, "b")
        next_event(happened, events.ChildStartFailure, "c")
        assert [running[id].ask("there?") for id in "ab"] == ["there?"] * 2
        assert statuses(running) == {"a": "running", "b": "running", "c": "restarting", "d": "stopped"}
        running.recall("c")  # it alone, at once
        assert statuses(running) == {"a": "running", "b": "running", "c": "running", "d": "stopped"}
        assert folk.notes("a", "b", "c")[-2:] == ["fail c", "start c"]


def test_s37_a_rest_for_one_retry_begins_at_the_child_that_failed(folk: Folk) -> None:
    with folk.tree("abcd", strategy="rest_for_one").start() as running, running.events() as happened:
        folk.say("fails_once", "c")
        folk.crash(running, "b")
        used = [next_event(happened, events.ChildRestarting).used for _ in range(2)]
        next_event(happened, events.ChildStarted, "d")
        assert used == [1, 2]
        assert folk.notes()[4:] == ["stop d", "stop c", "start b", "fail c", "start c", "start d"]
        assert [running[id].incarnation for id in "abcd"] == [1, 2, 3, 2]


@pytest.mark.parametrize("backoff", [None, FOR_EVER], ids=["in a retry loop", "while it waits"])
@both_groups
def test_s38_after_terminate_child_of_the_one_that_fails_those_after_it_stay_down(
    folk: Folk, strategy: Any, backoff: Backoff | None
) -> None:
    children = folk.child("a"), folk.child("b"), folk.child("c", backoff=backoff), folk.child("d")
    tree = Supervisor("tree", *children, strategy=strategy, max_restarts=math.inf)
    with tree.start() as running, running.events() as happened:
        fails = folk.say("fails", "c")
        folk.crash(running, "b")
        for _ in range(1 if backoff else 3):
            next_event(happened, events.ChildStartFailure, "c")
        running.terminate_child("c")
        fails.unlink()
        down = {"a": "running", "b": "running", "c": "stopped", "d": "stopped"}
        assert statuses(running) == down
        running.recall("b")  # what came to the supervisor before this is dealt with
        assert statuses(running) == down
        assert folk.notes("d") == ["start d", "stop d"]
        assert running.restart_child("d").ask("there?") == "there?"
        folk.crash(running, "b")  # the next restart of the group revives them (rule 34)
        next_event(happened, events.ChildStarted, "d")  # by restart_child
        next_event(happened, events.ChildStarted, "d")
        assert set(statuses(running).values()) == {"running"}


# ------------------------------------------------------------ the window
def test_s29_the_window_is_the_supervisors_not_the_childs_and_not_the_trees(folk: Folk) -> None:
    left, right = (folk.tree("ab", name=name, max_restarts=1, max_seconds=60) for name in ("left", "right"))
    with Supervisor("tree", left, right).start() as running, running.events() as happened:
        folk.crash_and_wait(running, "left/a")
        folk.crash_and_wait(running, "right/a")
        folk.crash(running, "left/b")
        assert next_event(happened, events.SupervisorGaveUp).path == "tree/left"
        next_event(happened, events.ChildStarted, "left")
        assert [running[f"left/{id}"].ask("there?") for id in "ab"] == ["there?"] * 2
        assert [running[f"right/{id}"].incarnation for id in "ab"] == [2, 1]
        folk.crash_and_wait(running, "left/b")  # a supervisor that was restarted has a window of its own


def test_s29_a_restart_counts_no_more_when_the_window_has_passed_it(tmp_path: Path) -> None:
    folk = Folk(tmp_path, "process")
    with folk.tree("a", max_restarts=1, max_seconds=0.15).start() as running, running.events() as happened:
        for _ in range(3):
            folk.crash(running, "a")
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
    folk, real, shift = Folk(tmp_path, "thread"), time.time, 0.0
    monkeypatch.setattr(time, "time", lambda: real() + shift)
    running = folk.tree("a", max_restarts=2, max_seconds=60).start()
    for _ in range(2):
        shift += step
        folk.crash_and_wait(running, "a")
    shift += step
    folk.crash(running, "a")
    reason = running.wait(15)
    assert isinstance(reason, Shutdown)
    assert isinstance(reason.detail, GaveUp)
