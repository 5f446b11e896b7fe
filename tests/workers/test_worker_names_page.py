"""The page of the documentation about the names of a worker lists the names that the code has."""

from __future__ import annotations

import re

import pytest

from suitkaise.workers.worker_type import OVERRIDABLE, RESERVED, SETTABLE
from tests.support import ROOT

PAGE = (ROOT / "docs" / "reference" / "worker_names.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "heading, names",
    [("Free", OVERRIDABLE), ("Yours to set", SETTABLE), ("Reserved", RESERVED)],
    ids=["free", "settable", "reserved"],
)
def test_the_page_lists_the_names_under_their_heading(heading: str, names: frozenset[str]) -> None:
    section = PAGE.split(f"## {heading}\n")[1].split("\n## ")[0].split("<!--")[0]
    listed = next(block for block in section.split("\n\n") if block.startswith("`"))
    words = set(re.findall(r"`(\w+)`", listed)) - {"Child", "restart", "loop_timeout"}
    assert words == names
