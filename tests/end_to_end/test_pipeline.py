"""`supervisors/pipeline.py`: each line once and in order, whichever worker is killed."""

from __future__ import annotations

import os
import random
import signal
import sys
from pathlib import Path

import pytest

from suitkaise import GaveUp, Shutdown
from supervisors.pipeline import load, pipeline
from tests.support import ROOT, eventually, run_program, start_program

RUN = [sys.executable, "-m", "suitkaise", "run", str(ROOT / "supervisors" / "pipeline.py")]
LINES = 3_000

STAGES = """
import time

def slow(line):
    time.sleep(0.0002)
    return line.upper()

def slower(line):
    time.sleep(0.001)
    return line.upper()

def odd(line):
    return line if int(line.split()[1]) % 2 else None

def poison(line):
    if line == "line 1500":
        raise ValueError("poison")
    return line
"""

WANTED = "".join(f"LINE {number}\n" for number in range(1, LINES + 1, 2))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "input").write_text("".join(f"line {number}\n" for number in range(1, LINES + 1)))
    (tmp_path / "stages_of_a_test.py").write_text(STAGES)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def stages(*names: str) -> list:
    sys.modules.pop("stages_of_a_test", None)
    return [load(f"stages_of_a_test:{name}") for name in names]


def arguments(folder: Path, *names: str) -> list[str]:
    chosen = [word for name in names for word in ("--stage", f"stages_of_a_test:{name}")]
    return [str(folder / "input"), str(folder / "output"), *chosen, "--batch", "50"]


def test_all_lines_go_through_all_stages_and_a_second_run_finds_nothing_to_do(folder: Path) -> None:
    for _ in range(2):
        run = run_program([*RUN, *arguments(folder, "slow", "odd")], cwd=folder, timeout=60)
        assert run.returncode == 0, run.stderr
        assert (folder / "output").read_text() == WANTED


@pytest.mark.parametrize("victim", ["sink", "stage-2", "stage-1", "source", "any"])
def test_each_line_comes_once_and_in_order_while_workers_are_killed(folder: Path, victim: str) -> None:
    chance = random.Random(victim)
    output = folder / "output"
    tree = pipeline(stages("slow", "odd"), folder / "input", output, batch=50)
    names = [child.id for child in tree.children] if victim == "any" else [victim]
    with tree.start() as running:
        for part in range(1, 8):
            eventually(lambda: output.stat().st_size > part * len(WANTED) // 10, timeout=30)  # noqa: B023
            pid = eventually(lambda: running[chance.choice(names)].pid)
            os.kill(pid, signal.SIGKILL)
        assert running.wait(60) == Shutdown("auto-shutdown: 'source' has ended")
    assert output.read_text() == WANTED


@pytest.mark.parametrize("which", ["sink", "stage-2", "stage-1", "source"])
def test_lines_lost_in_a_recalled_stage_are_delivered_again(folder: Path, which: str) -> None:
    output = folder / "output"
    names = ("slower", "odd") if which == "stage-1" else ("odd", "slower")
    with pipeline(stages(*names), folder / "input", output, batch=50).start() as running:
        for part in (1, 2):  # most of the output is still missing then
            eventually(lambda: output.stat().st_size > part * len(WANTED) // 10, timeout=30)  # noqa: B023
            running.recall(which)
        assert running.wait(30) == Shutdown("auto-shutdown: 'source' has ended")
    assert output.read_text() == WANTED


def test_each_line_comes_once_and_in_order_after_kills_of_the_whole_program(folder: Path) -> None:
    output = folder / "output"
    for part in (1, 2):
        with start_program([*RUN, *arguments(folder, "slow", "odd")], cwd=folder) as program:
            eventually(lambda: output.exists() and output.stat().st_size > part * len(WANTED) // 4, timeout=30)  # noqa: B023
            program.send_signal(signal.SIGKILL)
            program.wait()
            eventually(lambda: not program.relatives(), timeout=10)
    run = run_program([*RUN, *arguments(folder, "slow", "odd")], cwd=folder, timeout=60)
    assert run.returncode == 0, run.stderr
    assert output.read_text() == WANTED


def test_a_line_that_kills_every_stage_ends_the_pipeline_and_the_lines_before_are_kept(folder: Path) -> None:
    with pipeline(stages("poison"), folder / "input", folder / "output", batch=50).start() as running:
        reason = running.wait(60)
    assert isinstance(reason, Shutdown)
    assert isinstance(reason.detail, GaveUp)
    assert (folder / "output").read_text().splitlines()[-1] == "line 1450"


@pytest.mark.parametrize(
    "change, complaint",
    [
        (["--batch", "0"], "--batch must be 1 or more"),
        (["--stage", "no_such_module:f"], "no_such_module"),
        (["--stage", "stages_of_a_test:none"], "none"),
        (["--stage", "stages_of_a_test:time"], "is no function"),
    ],
)
def test_a_wrong_argument_is_an_error_before_anything_starts(folder: Path, change: list[str], complaint: str) -> None:
    run = run_program([*RUN, *arguments(folder, "slow"), *change], cwd=folder)
    assert run.returncode == 2
    assert complaint in run.stderr
    assert not (folder / "output").exists()
