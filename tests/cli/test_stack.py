"""`suitkaise stack` of a worker that ends meanwhile."""

from __future__ import annotations

from pathlib import Path

import pytest

from suitkaise.cli import stack
from suitkaise.cli.command import CommandError


def test_a_worker_that_ends_before_its_stacks_are_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "stack"
    file.touch()
    monkeypatch.setattr(stack, "send_to_worker", lambda pid, number: file.unlink())
    with pytest.raises(CommandError, match="process 7 has ended meanwhile"):
        stack.stacks_of(str(file), 7)
