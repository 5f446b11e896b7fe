"""What the README shows is run as it stands there."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.snippets import Snippet, run_snippet, snippets
from tests.support import ROOT

README = ROOT / "README.md"
BLOCKS = snippets(README)
RUNNABLE = [block for block in BLOCKS if block.runs or block.name == "app.py"]
NONE_YET = pytest.param(None, marks=pytest.mark.skip(reason="README.md has no block to run yet"), id="none")


@pytest.mark.parametrize("block", RUNNABLE or [NONE_YET], ids=lambda block: block.id)
def test_a_block_of_the_readme_runs_and_prints_what_it_says(block: Snippet, tmp_path: Path) -> None:
    run_snippet(block, tmp_path)


def test_the_first_complete_program_has_at_most_20_lines() -> None:
    app = next((block for block in BLOCKS if block.name == "app.py"), None)
    if app is None:
        pytest.skip("README.md has no block that begins with `# app.py` yet")
    assert len(app.code.splitlines()) <= 20


@pytest.mark.parametrize("block", [block for block in BLOCKS if not block.runs] or [NONE_YET], ids=lambda b: b.id)
def test_a_block_of_the_readme_that_is_not_run_is_valid_python_at_least(block: Snippet) -> None:
    compile(block.code, block.id, "exec")
