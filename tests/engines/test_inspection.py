"""The stacks of a worker that ends meanwhile."""

from __future__ import annotations

from pathlib import Path

import pytest

from suitkaise.engines import inspection
from suitkaise.errors import SuitkaiseError


def test_a_worker_that_ends_before_its_stacks_are_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "stack"
    file.touch()
    monkeypatch.setattr(inspection, "send_to_worker", lambda pid, number: file.unlink())
    with pytest.raises(SuitkaiseError, match="process 7 has ended meanwhile"):
        inspection.stacks_of(str(file), 7)
