"""Order of starting and stopping, restart types, strategies and auto-shutdown, with real processes and real signals."""

import math
import os
import signal
import sys
import threading

import pytest

from suitkaise import (
    Child,
    ChildStartFailed,
    GaveUp,
    Shutdown,
    Supervisor,
    Thread,
    TreeFailed,
)
from suitkaise.events import ChildRestarting, ChildStartFailure
from tests.end_to_end.kinds import family, kill_child, next_exit, notes, pids
from tests.sample_workers import Echo, Recorder
from tests.support import eventually, run_program, wait_gone

pytestmark = pytest.mark.usefixtures("one_runtime_for_all")


def test_s01_s44_children_start_in_order_and_stop_in_reverse(tmp_path):
    with family(tmp_path, "a", "b", "c").start():
        assert notes(tmp_path) == ["start a", "start b", "start c"]
    assert notes(tmp_path)[3:] == ["stop c", "stop b", "stop a"]


def test_s02_a_start_failure_stops_what_was_started_in_reverse(tmp_path):
    (tmp_path / "fails-c").touch()
    with pytest.raises(ChildStartFailed) as caught:
        family(tmp_path, "a", "b", "c", "d").start()
    assert caught.value.path == "tree/c"
    assert "OSError: broken" in caught.value.traceback
    assert notes(tmp_path) == ["start a", "start b", "fail c", "stop b", "stop a"]


@pytest.mark.parametrize(
    "restart, clean, abnormal",
    [("permanent", "back", "back"), ("transient", "kept", "back"), ("temporary", "removed", "removed")],
)
def test_s23_s24_s25_s26_restart_types_decide_which_ends_are_restarted(restart, clean, abnormal):
    with Supervisor("tree", Child(Echo, restart=restart), max_restarts=9).start() as running:
        for end, expected in (
            (lambda: running["echo"].tell("leave"), clean),
            (lambda: running["echo"].kill(), abnormal),
        ):
            if "echo" not in running:
                running.start_child(Child(Echo, restart=restart))
            elif running["echo"].status != "running":
                running.restart_child("echo")
            before = running["echo"].pid
            with running.events() as events:
                end()
                next_exit(events)
            match expected:
                case "back":
                    eventually(lambda old=before: running["echo"].pid not in (old, None))
                    eventually(lambda: running["echo"].status == "running")
                case "kept":
                    assert running["echo"].status == "finished"
                case "removed":
                    eventually(lambda: "echo" not in running)


def test_s28_s30_giving_up_stops_the_rest_and_ends_with_shutdown(tmp_path):
    running = family(tmp_path, "a", "b", max_restarts=1).start()
    kill_child(running, "a")
    os.kill(running["a"].pid, signal.SIGKILL)
    reason = running.wait(15)
    assert isinstance(reason, Shutdown)
    assert isinstance(reason.detail, GaveUp)
    assert notes(tmp_path)[-1] == "stop b"


def test_s28_suitkaise_run_ends_with_exit_code_1_when_the_root_gives_up(tmp_path):
    (tmp_path / "app.py").write_text(
        "from suitkaise import Child, Supervisor\n\ndef fails():\n    raise ValueError('always')\n\n"
        "tree = Supervisor('tree', Child(fails))\n"
    )
    done = run_program([sys.executable, "-m", "suitkaise", "run", "app.py"], cwd=tmp_path)
    assert done.returncode == 1
    assert "TreeFailed" in done.stderr
    assert "ValueError: always" in done.stderr
    assert not done.left_behind


def always_fails():
    raise ValueError("always")


def test_s28_run_raises_tree_failed_with_the_remote_traceback():
    with pytest.raises(TreeFailed) as caught:
        Supervisor("tree", Child(always_fails), max_restarts=2).run()
    assert "ValueError: always" in caught.value.traceback


def test_s31_one_for_one_restarts_the_failed_child_alone(tmp_path):
    with family(tmp_path, "a", "b", "c").start() as running:
        a, b, c = pids(running, "a", "b", "c")
        kill_child(running, "b")
        assert pids(running, "a", "c") == [a, c]
        assert running["b"].pid != b


def test_s32_one_for_all_restarts_all_children(tmp_path):
    with family(tmp_path, "a", "b", "c", strategy="one_for_all").start() as running:
        before = pids(running, "a", "b", "c")
        kill_child(running, "b")
        eventually(lambda: notes(tmp_path)[3:] == ["stop c", "stop a", "start a", "start b", "start c"])
        assert not set(before) & set(pids(running, "a", "b", "c"))


def test_s33_rest_for_one_restarts_the_failed_child_and_those_after_it(tmp_path):
    with family(tmp_path, "a", "b", "c", strategy="rest_for_one").start() as running:
        a = running["a"].pid
        kill_child(running, "b")
        eventually(lambda: notes(tmp_path)[3:] == ["stop c", "start b", "start c"])
        assert running["a"].pid == a


def test_s34_a_group_restart_starts_terminated_children_too(tmp_path):
    with family(tmp_path, "a", "b", strategy="one_for_all").start() as running:
        running.terminate_child("b")
        kill_child(running, "a")
        eventually(lambda: running["b"].status == "running")


def test_s35_a_failed_restart_is_tried_again_until_it_works(tmp_path):
    with family(tmp_path, "a", "b", max_restarts=math.inf).start() as running, running.events() as events:
        (tmp_path / "fails-a").touch()
        os.kill(running["a"].pid, signal.SIGKILL)
        failures = 0
        while failures < 3:
            failures += isinstance(events.get(15), ChildStartFailure)
        assert running["b"].ask("served meanwhile") == "served meanwhile"
        (tmp_path / "fails-a").unlink()
        assert running["a"].ask("back?", timeout=15) == "back?"


def test_s35_every_failed_restart_counts_as_a_restart(tmp_path):
    running = family(tmp_path, "a", max_restarts=3).start()
    with running.events() as events:
        (tmp_path / "fails-a").touch()
        os.kill(running["a"].pid, signal.SIGKILL)
        assert isinstance(running.wait(15).detail, GaveUp)
        events.close()
        assert sum(isinstance(event, ChildRestarting) for event in events) == 3


def test_s39_stopping_during_a_retry_loop_is_prompt(tmp_path):
    running = family(tmp_path, "a", max_restarts=math.inf).start()
    with running.events() as events:
        (tmp_path / "fails-a").touch()
        os.kill(running["a"].pid, signal.SIGKILL)
        while not isinstance(events.get(15), ChildStartFailure):
            pass
        assert running.stop(timeout=15).clean


def test_s30_s40_a_supervisor_that_gives_up_is_restarted_with_its_declared_children(tmp_path):
    inner = Supervisor("inner", Child(Recorder, args=(tmp_path,), id="a"), max_restarts=0)
    with Supervisor("tree", inner).start() as running:
        running.start_child(Child(Echo, id="added"), under="inner")
        a = running["inner/a"].pid
        os.kill(a, signal.SIGKILL)
        eventually(lambda: "inner/a" in running and running["inner/a"].pid not in (a, None))
        assert "inner/added" not in running


def test_s42_s46_stop_leaves_no_process_behind(tmp_path):
    running = family(tmp_path, "a", "b").start()
    left = [*pids(running, "a", "b")]
    running.stop()
    for pid in left:
        wait_gone(pid, 0.0)


def test_s47_s48_a_clean_end_of_any_significant_child_ends_the_supervisor_and_a_crash_does_not():
    tree = Supervisor(
        "tree", Child(Echo, id="work", restart="transient", significant=True), Child(Echo, id="help"),
        auto_shutdown="any_significant",
    )  # fmt: skip
    running = tree.start()
    running["work"].kill()
    eventually(lambda: running["work"].incarnation == 2 and running["work"].pid)
    running["work"].tell("leave")
    assert isinstance(running.wait(15), Shutdown)


def test_s49_all_significant_children_have_to_end():
    children = (Child(Echo, id=id, restart="transient", significant=True) for id in "ab")
    running = Supervisor("tree", *children, auto_shutdown="all_significant").start()
    running["a"].tell("leave")
    eventually(lambda: running["a"].status == "finished")
    assert running["b"].ask("still there?") == "still there?"
    running["b"].tell("leave")
    assert isinstance(running.wait(15), Shutdown)


def test_s52_auto_shutdown_chains_upward():
    inner = Supervisor(
        "inner", Child(Echo, restart="transient", significant=True), auto_shutdown="any_significant",
        restart="transient", significant=True,
    )  # fmt: skip
    running = Supervisor("tree", inner, Child(Echo, id="other"), auto_shutdown="any_significant").start()
    running["inner/echo"].tell("leave")
    assert isinstance(running.wait(15), Shutdown)


@pytest.mark.may_leave("thread tree/stuck*")
def test_s59_a_thread_that_does_not_stop_is_abandoned_and_replaced():
    release = threading.Event()
    stuck = Child(Thread.of(release.wait), id="stuck", shutdown=0.2)
    running = Supervisor("tree", stuck).start()
    with running.events() as events:
        eventually(lambda: running["stuck"].status == "running")
        running.recall("stuck")
        kinds = [events.get(15).kind for _ in range(3)]
        assert "child_abandoned" in kinds
        assert running["stuck"].status == "running"
    release.set()
    assert running.stop(timeout=15) == Shutdown("stop")
