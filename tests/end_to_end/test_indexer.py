"""`supervisors/indexer.py`: the totals are those of a plain pass, whichever worker is killed meanwhile."""

from __future__ import annotations

import re
import signal
import sys
from pathlib import Path

import pytest

from supervisors import indexer
from tests.support import ROOT, Finished, eventually, run_program, start_program

RUN = [sys.executable, "-m", "suitkaise", "run", str(ROOT / "supervisors" / "indexer.py")]
WORDS = ["def", "class", "return", "import", "self", "yield", "lambda", "while", "assert", "raise"]


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """Make a folder of 240 different text files in several folders."""
    root = tmp_path / "library"
    for number in range(240):
        folder = root / f"part-{number % 7}"
        folder.mkdir(parents=True, exist_ok=True)
        lines = (f"{WORDS[(number + line) % 10]} name_{number}_{line % 5}" for line in range(number * 3 % 400 + 1))
        (folder / f"file_{number}.py").write_text("\n".join(lines) + "\n")
    (root / "picture.png").write_bytes(b"\x89PNG not text")
    return root


def totals(finished: Finished) -> dict[str, int]:
    match = re.search(r"([\d,]+) files, ([\d,]+) lines, ([\d,]+) words in", finished.stdout)
    assert match, finished.stdout + finished.stderr
    return dict(zip(("files", "lines", "words"), (int(part.replace(",", "")) for part in match.groups()), strict=True))


def test_the_totals_are_those_of_a_plain_pass(library: Path) -> None:
    finished = run_program([*RUN, "--root", str(library)], timeout=60).check()
    plain, counts = indexer.index(indexer.text_files(str(library)))
    assert totals(finished) == plain
    assert plain["files"] == 240
    assert "0 restarts survived" in finished.stdout
    assert (
        f"verified: the same as a plain single-process pass ({len(counts):,} different identifiers)" in finished.stdout
    )
    word, times = counts.most_common(1)[0]
    assert re.search(rf"1\. {word} +{times:,}", finished.stdout)


def test_the_folder_may_come_from_the_environment(library: Path) -> None:
    finished = run_program(RUN, env={"SUITKAISE_INDEX_ROOT": str(library)}, timeout=60).check()
    assert totals(finished)["files"] == 240


@pytest.mark.parametrize("run", range(3))
def test_kills_of_random_workers_do_not_change_the_totals(run: int, library: Path) -> None:
    finished = run_program([*RUN, "--root", str(library), "--chaos", "12"], timeout=60).check()
    assert totals(finished) == indexer.index(indexer.text_files(str(library)))[0]
    assert "verified: the same as a plain single-process pass" in finished.stdout
    survived = re.search(r"(\d+) restarts survived, 12 of them by chaos", finished.stdout)
    assert survived, finished.stdout
    assert int(survived[1]) >= 12
    assert len(re.findall(r"chaos kills", finished.stderr)) >= 12


@pytest.mark.chaos
@pytest.mark.timeout(900)
@pytest.mark.parametrize("run", [0, 1, *(pytest.param(run, marks=pytest.mark.slow) for run in range(2, 10))])
def test_25_kills_do_not_change_the_totals_of_the_standard_library(run: int) -> None:
    finished = run_program([*RUN, "--chaos", "25"], timeout=90).check()
    assert "verified: the same as a plain single-process pass" in finished.stdout


def test_a_folder_that_does_not_exist_is_an_error_at_once(tmp_path: Path) -> None:
    finished = run_program([*RUN, "--root", str(tmp_path / "nowhere")])
    assert finished.returncode == 1
    assert "there is no folder" in finished.stderr


def test_a_signal_in_the_middle_ends_the_indexer_and_nothing_is_left() -> None:
    with start_program(RUN) as program:
        eventually(lambda: "indexer supervisor started" in program.stderr, timeout=20)
        program.send_signal(signal.SIGTERM)
        assert program.wait() == 0
    assert program.left_behind == []
