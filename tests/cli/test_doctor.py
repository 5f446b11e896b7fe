"""`suitkaise doctor` where a place cannot be looked at."""

from __future__ import annotations

from pathlib import Path

import pytest

from suitkaise.cli import doctor


def test_a_place_for_crash_reports_that_cannot_be_looked_at_is_a_finding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUITKAISE_STATE", str(tmp_path / ("long" * 100) / "state"))
    assert "crashes" in doctor._reports().found
