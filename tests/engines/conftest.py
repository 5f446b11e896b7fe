"""What engines use of a program, without the program."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from suitkaise.engines.engine import EngineContext
from suitkaise.platform.board import Board
from suitkaise.platform.reactor import Reactor
from suitkaise.platform.runtime_directory import hold


@pytest.fixture
def context(tmp_path: Path) -> Iterator[EngineContext]:
    """A context with a board and an I/O thread."""
    lock = hold(str(tmp_path))  # or the last process would remove it
    board = Board.create(str(tmp_path / "board"))
    reactor = Reactor()
    context = EngineContext(str(tmp_path), board, reactor, orphan_timeout=2.0)
    yield context
    reactor.close()
    context.log_queue.close()
    board.close()
    os.close(lock)
