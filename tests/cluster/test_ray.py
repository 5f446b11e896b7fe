"""Trees on a real cluster of Ray, of three nodes on this machine; each test runs a program of its own.

Without the extra `ray` these are skipped: Ray is large, and has no wheels for some interpreters.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support import ROOT, run_program

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
