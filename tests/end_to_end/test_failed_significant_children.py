"""Rule 71: a program whose significant child has failed has failed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from suitkaise import Child, Process, Shutdown, SignificantFailure, Supervisor, TreeFailed
from suitkaise.exits import Crashed
from tests.support import run_program


class Job(Process):
    def __init__(self, ends: str) -> None:
        self.ends = ends

    def loop(self) -> None:
        if self.ends == "fails":
            raise ValueError("the job failed")
        self.rejoin()


def job(ends: str, id: str = "job") -> Child:
    return Child(Job, id=id, args=(ends,), restart="temporary", significant=True)


@pytest.mark.parametrize("auto_shutdown", ["any_significant", "all_significant"])
def test_s71_run_raises_when_a_significant_child_has_failed(auto_shutdown: str) -> None:
    with pytest.raises(TreeFailed, match=r"'tree/job' failed: ValueError in loop: the job failed") as caught:
        Supervisor("tree", job("fails"), auto_shutdown=auto_shutdown).run()
    assert caught.value.path == "tree/job"
    assert isinstance(caught.value.reason, Shutdown)
    assert isinstance(caught.value.reason.detail, SignificantFailure)
    assert isinstance(caught.value.reason.detail.reason, Crashed)
    assert "raise ValueError" in caught.value.traceback


def test_s71_run_returns_when_the_significant_child_has_ended_cleanly() -> None:
    reason = Supervisor("tree", job("ends"), auto_shutdown="any_significant").run()
    assert reason == Shutdown("auto-shutdown: 'job' has ended")


@pytest.mark.parametrize("inner_ends", ["gives up", "has a significant child that fails"])
def test_s71_the_cause_travels_up_from_nested_supervisors(inner_ends: str) -> None:
    if inner_ends == "gives up":
        inner = Supervisor("inner", Child(Job, id="job", args=("fails",)), restart="transient", significant=True)
    else:
        inner = Supervisor(
            "inner", job("fails"), auto_shutdown="any_significant", restart="transient", significant=True
        )
    middle = Supervisor("middle", inner, auto_shutdown="any_significant", restart="temporary", significant=True)
    with pytest.raises(TreeFailed, match="the job failed") as caught:
        Supervisor("tree", middle, auto_shutdown="any_significant").run()
    assert caught.value.path == "tree/middle/inner/job"
    assert "raise ValueError" in caught.value.traceback


def test_s71_the_command_line_ends_with_1_and_names_the_cause(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(
        """
from suitkaise import Child, Process, Supervisor

class Job(Process):
    def loop(self):
        raise ValueError("the job failed")

tree = Supervisor("app", Child(Job, restart="temporary", significant=True), auto_shutdown="any_significant")
"""
    )
    finished = run_program([sys.executable, "-m", "suitkaise", "run", "app.py"], cwd=tmp_path)
    assert finished.returncode == 1
    told = finished.stderr[finished.stderr.index("TreeFailed") :]
    assert "'app/job'" in told
    assert "ValueError" in told
    assert finished.stderr.count('raise ValueError("the job failed")') == 1  # where the crash is told
