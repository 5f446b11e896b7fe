"""A worker that has finished, and whose process does not end: what is logged, and when it is cut off."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import types
from collections.abc import Callable
from multiprocessing.resource_tracker import ResourceTracker

import psutil
import pytest

from suitkaise import Child, Normal, Process, Shutdown, Supervisor
from suitkaise.runtime.running_tree import RunningTree
from tests.support import eventually


class Lingers(Process):
    """Leaves a thread behind that is no daemon."""

    restart = "transient"

    def on_start(self) -> None:
        threading.Thread(target=threading.Event().wait, name="left-behind").start()

    def on_receive(self, message: object) -> None:
        self.rejoin()


def test_a_thread_that_holds_up_the_end_of_its_process_is_logged_while_it_does(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING, "suitkaise")
    with Supervisor("tree", Child(Lingers, shutdown=60.0)).start() as running:
        running["lingers"].tell("end")
        eventually(lambda: "Thread 'left-behind'" in caplog.text)
        assert "'tree/lingers' has finished, but its process waits for 1 of its threads" in caplog.text
        assert "threading.py" in caplog.text  # where it stands
        assert running["lingers"].status == "running"
        running["lingers"].kill()
        assert running["lingers"].join(30) == Normal()
    assert caplog.text.count("its process waits for") == 1


def test_a_process_that_is_cut_off_by_its_shutdown_time_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "suitkaise")
    with Supervisor("tree", Child(Lingers, shutdown=0.3)).start() as running:
        running["lingers"].rejoin()
        running["lingers"].join(30)
    [cut] = [one.message for one in caplog.records if "has not ended" in one.message]
    assert cut.startswith("'tree/lingers' has finished, but its process has not ended")
    assert cut.endswith("it is killed: shutdown timeout")


class Starts(Process):
    """Starts a program that does not end when it is asked to."""

    def on_start(self) -> None:
        deaf = "trap '' TERM; echo deaf; exec sleep 1000"
        program = subprocess.Popen(["sh", "-c", deaf], stdout=subprocess.PIPE)
        assert program.stdout is not None
        program.stdout.readline()


def test_a_process_that_waits_for_one_that_it_has_started_is_told_as_that(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "suitkaise")
    with Supervisor("tree", Child(Starts, shutdown=0.3)).start() as running:
        running["starts"].rejoin()
        running["starts"].join(30)
    [cut] = [one.message for one in caplog.records if "has not ended" in one.message]
    assert "a process that it has started" in cut


class Tracks(Process):
    """Uses a resource tracker as joblib does: one of a module of its own, which ignores SIGTERM."""

    restart = "transient"

    def on_start(self) -> None:
        module = types.ModuleType("loky.backend.resource_tracker")
        module._resource_tracker = self.tracker = ResourceTracker()  # type: ignore[attr-defined]
        sys.modules[module.__name__] = module
        self.tracker.ensure_running()

    def on_receive(self, message: object) -> int:
        return self.tracker._pid  # type: ignore[attr-defined, no-any-return]


def test_a_resource_tracker_of_another_library_does_not_hold_up_the_end_of_its_worker() -> None:
    with Supervisor("tree", Child(Tracks, shutdown=60.0)).start() as running:
        tracker = running["tracks"].ask("pid?")
        running["tracks"].rejoin()
        assert running["tracks"].join(30) == Shutdown()
        assert not psutil.pid_exists(tracker)


@pytest.mark.parametrize(
    "kill",
    [lambda running: running["lingers"].kill(), lambda running: running.kill_child("lingers")],
    ids=["ref.kill", "kill_child"],
)
def test_a_process_that_is_killed_by_hand_at_its_end_is_not_told_as_one_that_did_not_end(
    kill: Callable[[RunningTree], None], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "suitkaise")
    with Supervisor("tree", Child(Lingers, shutdown=60.0)).start() as running:
        running["lingers"].tell("end")
        eventually(lambda: "its process waits for" in caplog.text)
        kill(running)
        assert running["lingers"].join(30) == Normal()
    assert "has not ended" not in caplog.text
