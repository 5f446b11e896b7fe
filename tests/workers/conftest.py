from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.workers.rig import rigged


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Any]:
    """Makes a rig of a worker: `rig(Worker(...), join_after=3)`."""
    with rigged(tmp_path) as make:
        yield make
