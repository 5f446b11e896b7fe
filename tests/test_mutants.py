"""The list of faults that the pure tests must notice (`make mutants`) is up to date."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.mutants import MUTANTS, Mutant, first_failure
from tests.support import ROOT


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name.replace(" ", "-"))
def test_each_mutant_still_applies_to_the_source(mutant: Mutant, tmp_path: Path) -> None:
    folder = tmp_path / "src" / "suitkaise"
    (folder / mutant.file).parent.mkdir(parents=True)
    before = (ROOT / "src" / "suitkaise" / mutant.file).read_text(encoding="utf-8")
    (folder / mutant.file).write_text(before, encoding="utf-8")

    mutant.spoil(tmp_path)

    after = (folder / mutant.file).read_text(encoding="utf-8")
    assert after != before
    compile(after, mutant.file, "exec")


def test_there_are_enough_mutants_and_each_has_a_name_of_its_own() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 25


def test_a_mutant_that_does_not_apply_is_an_error(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    with pytest.raises(ValueError, match=r"0 times in policy/base\.py, not once"):
        Mutant("nothing", "policy/base.py", "no such text", "").spoil(tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name.replace(" ", "-"))
def test_the_tests_notice_each_mutant(mutant: Mutant, tmp_path: Path) -> None:
    from tests.mutants import copy

    root = copy(tmp_path)
    mutant.spoil(root)
    assert first_failure(root, mutant)
