"""What several files of tests with real processes and threads share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from suitkaise import Supervisor
from tests.end_to_end.folk import KINDS, Folk


@pytest.fixture(params=KINDS)
def folk(request: pytest.FixtureRequest, tmp_path: Path) -> Folk:
    return Folk(tmp_path, request.param)


@pytest.fixture(scope="module")
def one_runtime_for_all() -> Iterator[None]:
    """What a program has once, and what takes long to start, lives as long as this tree without children."""
    with Supervisor("keeps-the-runtime").start():
        yield
