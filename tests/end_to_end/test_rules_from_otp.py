"""Rules 61-67, which OTP's own tests know, and their cases of the rules before, with real processes and threads."""

from __future__ import annotations

from pathlib import Path

import pytest

from suitkaise import Child, Killed, Shutdown, Supervisor
from suitkaise.events import ChildStopError, ChildStopped, SupervisorStopped
from tests.end_to_end.folk import KINDS, Folk, next_event


@pytest.fixture(params=KINDS)
def folk(request: pytest.FixtureRequest, tmp_path: Path) -> Folk:
    return Folk(tmp_path, request.param)


def test_s42_s43_s65_a_supervisor_that_does_not_stop_in_time_is_killed_and_that_is_an_error(tmp_path: Path) -> None:
    folk = Folk(tmp_path, "process")
    inner = folk.tree("ab", name="inner", shutdown=0.3)
    with Supervisor("tree", inner).start() as running, running.events() as happened:
        folk.say("stops_slowly", "b")
        running.terminate_child("inner")
        assert next_event(happened, ChildStopError, "inner/b").reason == Killed("shutdown timeout")
        assert next_event(happened, SupervisorStopped, "inner").reason == Killed("shutdown timeout")
        assert next_event(happened, ChildStopError, "inner").reason == Killed("shutdown timeout")
        assert running.which_children()[0].last_exit == Killed("shutdown timeout")


def test_s42_s65_a_supervisor_that_is_killed_brutally_takes_all_below_with_it(folk: Folk) -> None:
    inner = Supervisor("inner", folk.tree("ab", name="low"), folk.child("c"), shutdown="brutal_kill")
    with Supervisor("tree", Child(inner)).start() as running, running.events() as happened:
        running.terminate_child("inner")
        assert next_event(happened, ChildStopped, "inner").reason == Killed("brutal_kill")
        assert running.stop(timeout=5) == Shutdown("stop")
