"""Every example is short, runs by itself, and prints what its last comment lines promise."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from tests.snippets import check_output, promises
from tests.support import ROOT, run_program

NONE_YET = pytest.param(None, marks=pytest.mark.skip(reason="examples/ holds no file yet"), id="none")
EXAMPLES = sorted(ROOT.glob("examples/*.py")) or [NONE_YET]
MOST_LINES = 60


@pytest.mark.example
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_an_example_runs_and_prints_what_it_promises(example: Path) -> None:
    code = example.read_text(encoding="utf-8")
    assert promises(code), f"{example.name} lacks `# prints: ...` lines at its end"
    with tempfile.TemporaryDirectory(prefix="program-") as temporary:  # for what the example leaves to the reader
        finished = run_program(example, cwd=ROOT, timeout=45.0, env={"TMPDIR": temporary}).check()
    check_output(code, finished.stdout)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_an_example_is_short(example: Path) -> None:
    assert len(example.read_text(encoding="utf-8").splitlines()) < MOST_LINES
