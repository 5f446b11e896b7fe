"""Trees on a real cluster of Ray, of three nodes on this machine; each test runs a program of its own.

Without the extra `ray` these are skipped: Ray is large, and has no wheels for some interpreters.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
from pathlib import Path

import psutil
import pytest

from tests.support import ROOT, Program, eventually, run_program, start_program

pytestmark = [pytest.mark.ray, pytest.mark.timeout(240)]

PROGRAMS = Path(__file__).parent / "programs"
ENVIRONMENT = {"PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "src"))), "RAY_USAGE_STATS_ENABLED": "0"}


@pytest.fixture(autouse=True)
def _ray_is_installed() -> None:
    pytest.importorskip("ray")


def run(program: str, *arguments: str) -> list[str]:
    """Run a program of the folder; return the lines that it has printed, if it has ended well and left nothing."""
    ended = run_program(PROGRAMS / program, *arguments, env=ENVIRONMENT, timeout=200.0, grace=30.0)
    return ended.check().stdout.splitlines()


def test_a_worker_and_a_node_are_replaced_and_nothing_of_ray_is_printed() -> None:
    lines = run("ray_faults.py", "worker", "process")
    assert [line.partition(":")[0] for line in lines] == [
        "spread", "worker killed", "process of a node killed", "stopped", "all is well",
    ]  # fmt: skip


@pytest.mark.slow
def test_no_worker_runs_twice_when_a_raylet_dies_or_freezes() -> None:
    lines = run("ray_faults.py", "raylet", "frozen")
    assert [line.partition(":")[0] for line in lines] == [
        "spread", "raylet killed", "raylet frozen", "stopped", "all is well",
    ]  # fmt: skip


def left(program: Program) -> list[str]:
    """Return the names of the program's relatives; without the helpers of Ray that stay for some minutes."""
    names = []
    for process in program.relatives():
        with contextlib.suppress(psutil.Error):
            names.append(" ".join(process.cmdline())[:100])
    return [name for name in names if not name.startswith(("ray::DashboardAgent", "ray::RuntimeEnvAgent"))]


@pytest.mark.slow
@pytest.mark.parametrize(
    "how, number", [("run", signal.SIGTERM), ("leave", None), ("stay", signal.SIGKILL), ("stay", signal.SIGTERM)]
)
def test_workers_finish_and_nothing_is_left_however_the_program_ends(
    how: str, number: int | None, tmp_path: Path
) -> None:
    record = tmp_path / "record"
    with start_program(PROGRAMS / "ray_ends.py", how, str(record), env=ENVIRONMENT) as program:
        program.expect("up", timeout=100.0)
        if number is not None:
            program.send_signal(number)
        program.wait(60.0)
        eventually(lambda: not left(program), timeout=40.0, what="the end of all that the program has started")
    assert sorted(record.read_text().split()) == ["member-0", "member-1"]


@pytest.mark.slow
def test_the_main_job_has_exact_totals_with_a_node_killed_half_way() -> None:
    root = os.path.dirname(os.__file__)
    command = [sys.executable, "-m", "suitkaise", "run", str(ROOT / "supervisors" / "indexer.py"), "--engine", "ray"]
    with start_program([*command, "--nodes", "3", "--root", root, "--counters", "4"], env=ENVIRONMENT) as program:
        eventually(lambda: "indexer/counters/count-3 started" in program.stderr, timeout=100.0)
        found = re.search(r"indexer/counters/count-3 started \(pid (\d+)\)", program.stderr)
        assert found is not None
        keeper = psutil.Process(psutil.Process(int(found[1])).ppid())
        os.kill(keeper.ppid(), signal.SIGKILL)
        assert program.wait(150.0) == 0, program.stderr
        assert "is lost, with" in program.stderr
        assert "verified: the same as a plain single-process pass" in program.stdout
