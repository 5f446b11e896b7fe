from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.workers.rig import asynchronous, rigged


@pytest.fixture(params=["plain", "async"])
def rig(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Any]:
    """Makes a rig of a worker: `rig(Worker(...), join_after=3)`; once as it is, and once with all its hooks async."""
    with rigged(tmp_path, asynchronous if request.param == "async" else None) as make:
        yield make
