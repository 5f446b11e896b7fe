from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.workers.harness import asynchronous, rigged


@pytest.fixture(params=["plain", "async"])
def harness(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Any]:
    """Make a harness of a worker: `harness(Worker(...), join_after=3)`; once as it is, and with all its hooks async."""
    with rigged(tmp_path, asynchronous if request.param == "async" else None) as make:
        yield make
