from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.workers.harness import asynchronous, harnesses


@pytest.fixture(params=["plain", "async"])
def harness(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Any]:
    """Make a harness of a worker: `harness(Worker(...), join_after=3)`; once unchanged, once with all hooks async."""
    with harnesses(tmp_path, asynchronous if request.param == "async" else None) as make:
        yield make
