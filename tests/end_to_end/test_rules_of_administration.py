"""The numbered rules of administration (7-22) on running trees with real processes."""

import os
import signal
import traceback

import pytest

from suitkaise import (
    Child,
    ChildAlreadyPresent,
    ChildAlreadyStarted,
    ChildNotFound,
    ChildRunning,
    ChildStartFailed,
    Killed,
    SpecError,
    Supervisor,
)
from tests.end_to_end.kinds import family
from tests.sample_workers import Echo, Recorder
from tests.support import eventually, wait_gone

pytestmark = pytest.mark.usefixtures("one_runtime_for_all")


def test_s07_s08_s09_s10_start_child_starts_a_new_child_or_raises(tmp_path):
    with family(tmp_path, "a").start() as running:
        with pytest.raises(SpecError):
            running.start_child(Child(Recorder, args=(tmp_path,), shutdown=-1))
        with pytest.raises(ChildAlreadyStarted) as caught:
            running.start_child(Child(Recorder, args=(tmp_path,), id="a"))
        assert caught.value.ref.ask("you?") == "you?"
        running.terminate_child("a")
        with pytest.raises(ChildAlreadyPresent):
            running.start_child(Child(Recorder, args=(tmp_path,), id="a"))
        (tmp_path / "fails-b").touch()
        with pytest.raises(ChildStartFailed):
            running.start_child(Child(Recorder, args=(tmp_path,), id="b"))
        assert "b" not in running


def test_s10_s18_the_error_of_a_failed_start_shows_where_it_failed(tmp_path):
    with family(tmp_path, "a").start() as running:
        for id in "ab":
            (tmp_path / f"fails-{id}").touch()
        for what in (
            lambda: running.recall("a"),
            lambda: running.restart_child("a"),
            lambda: running.start_child(Child(Recorder, args=(tmp_path,), id="b")),
        ):
            if running["a"].status == "restarting":  # after the recall, as after a crash (rule 80)
                running.terminate_child("a")
            with pytest.raises(ChildStartFailed) as caught:
                what()
            shown = "".join(traceback.format_exception(caught.value))
            assert shown.count("--- remote traceback ---") == 1
            assert 'raise OSError("broken")' in shown


def test_s11_s12_s13_a_child_that_raises_ignore_is_not_running(tmp_path):
    (tmp_path / "ignores-a").touch()
    with family(tmp_path, "a", "b").start() as running:
        assert running["a"].status == "ignored"
        (tmp_path / "ignores-b").touch()
        os.kill(running["b"].pid, signal.SIGKILL)
        eventually(lambda: running["b"].status == "ignored")
        (tmp_path / "ignores-c").touch()
        running.start_child(Child(Recorder, args=(tmp_path,), id="c", restart="temporary"))
        assert "c" not in running


def test_s14_s15_s17_s18_s19_one_child_is_terminated_restarted_and_deleted(tmp_path):
    with family(tmp_path, "a", "b", strategy="one_for_all").start() as running:
        b = running["b"].pid
        pid = running["a"].pid
        with pytest.raises(ChildRunning):
            running.restart_child("a")
        with pytest.raises(ChildRunning):
            running.delete_child("a")
        running.terminate_child("a")
        wait_gone(pid)
        running.terminate_child("a")
        (tmp_path / "fails-a").touch()
        with pytest.raises(ChildStartFailed):
            running.restart_child("a")
        (tmp_path / "fails-a").unlink()
        assert running.restart_child("a").ask("back?") == "back?"
        running.terminate_child("a")
        running.delete_child("a")
        with pytest.raises(ChildNotFound):
            running.terminate_child("a")
        assert running["b"].pid == b
        assert running.which_children()[0].restarts == 0


def test_s20_s21_which_children_and_count_children_list_all_children(tmp_path):
    with family(tmp_path, "a", "b").start() as running:
        running.terminate_child("b")
        assert [(line.id, line.status) for line in running.which_children()] == [("a", "running"), ("b", "stopped")]
        counts = running.count_children()
        assert (counts.specs, counts.active, counts.workers, counts.supervisors) == (2, 1, 2, 0)


def test_recall_is_not_counted_as_a_restart_and_touches_no_sibling(tmp_path):
    with family(tmp_path, "a", "b", strategy="one_for_all", max_restarts=0).start() as running:
        b, incarnations = running["b"].pid, []
        for _ in range(3):
            running.recall("a")
            incarnations.append(running["a"].incarnation)
        assert incarnations == [2, 3, 4]
        assert running["b"].pid == b


def test_s15_which_children_shows_the_reason_of_a_killed_worker():
    with Supervisor("tree", Echo()).start() as running:
        running["echo"].kill()
        eventually(lambda: running.which_children()[0].restarts == 1)
        assert running.which_children()[0].last_exit == Killed("ref.kill()")
