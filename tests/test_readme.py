"""What the README shows is run as it stands there."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.snippets import Snippet, run_snippet, snippets
from tests.support import ROOT

BLOCKS = snippets(ROOT / "README.md")


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.id)
def test_a_block_of_the_readme_runs_and_prints_what_it_promises(block: Snippet, tmp_path: Path) -> None:
    assert block.runs, "say how it is run, in a comment above it"
    run_snippet(block, tmp_path)


def test_the_first_complete_program_has_at_most_20_lines() -> None:
    app = next(block for block in BLOCKS if block.name == "app.py")
    assert len(app.code.splitlines()) <= 20
