"""Fixtures of the tests with real processes and threads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from suitkaise import Supervisor
from suitkaise.platform import preload as preloading
from tests.end_to_end.kinds import KINDS, Kinds
from tests.support import start_io_thread_of_connections


@pytest.fixture(autouse=True)
def preloaded_modules_are_reset_after_each_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preloading, "_wanted", dict(preloading._wanted))


@pytest.fixture(params=KINDS)
def kinds(request: pytest.FixtureRequest, tmp_path: Path) -> Kinds:
    return Kinds(tmp_path, request.param)


@pytest.fixture(scope="module")
def one_runtime_for_all() -> Iterator[None]:
    """Keep the runtime and its keeper during all tests of a module: a tree without children runs meanwhile."""
    with Supervisor("keeps-the-runtime").start():
        start_io_thread_of_connections()
        yield
