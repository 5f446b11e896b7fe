"""What several files of tests with real processes and threads share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from suitkaise import Supervisor
from suitkaise.platform import preload as preloading
from tests.end_to_end.kinds import KINDS, Kinds


@pytest.fixture(autouse=True)
def what_a_test_preloads_is_preloaded_for_that_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preloading, "_wanted", dict(preloading._wanted))


@pytest.fixture(params=KINDS)
def kinds(request: pytest.FixtureRequest, tmp_path: Path) -> Kinds:
    return Kinds(tmp_path, request.param)


@pytest.fixture(scope="module")
def one_runtime_for_all() -> Iterator[None]:
    """What a program has once, and what takes long to start, lives as long as this tree without children."""
    with Supervisor("keeps-the-runtime").start():
        yield
