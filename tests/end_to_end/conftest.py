"""Fixtures of the tests with real processes and threads."""

from __future__ import annotations

from pathlib import Path

import pytest

from suitkaise.platform import preload as preloading
from tests.end_to_end.kinds import KINDS, Kinds


@pytest.fixture(autouse=True)
def preloaded_modules_are_reset_after_each_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preloading, "_wanted", dict(preloading._wanted))


@pytest.fixture(params=KINDS)
def kinds(request: pytest.FixtureRequest, tmp_path: Path) -> Kinds:
    return Kinds(tmp_path, request.param)
