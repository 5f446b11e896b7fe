"""`suitkaise doctor` where a place cannot be looked at."""

from __future__ import annotations

from pathlib import Path

import pytest

from suitkaise.cli import doctor
from suitkaise.platform import death_lock


def test_a_place_for_crash_reports_that_cannot_be_looked_at_is_a_finding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUITKAISE_STATE", str(tmp_path / ("long" * 100) / "state"))
    assert "crashes" in doctor._reports().found


def test_a_kernel_without_early_restarts_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(death_lock, "refusal", lambda: "futex_waitv: Function not implemented")
    found = doctor._early_restarts()
    assert (found.state, found.found) == ("warning", "futex_waitv: Function not implemented")
