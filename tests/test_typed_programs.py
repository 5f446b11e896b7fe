"""What mypy and pyright make of programs that run: they find no error there, and know the types of the values."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import mypy_errors, pyright_errors

STREAM = """
from typing import assert_type
from suitkaise import RunningTree

async def fetch(number: int) -> bytes:
    return bytes(number)

def use(running: RunningTree) -> None:
    for page in running.stream(fetch, [1, 2]):
        assert_type(page, bytes)
    roots = running.stream(float, [1, 2], limit=1)
    assert_type(next(roots), float)
    roots.close()
"""

WAIT = """
from suitkaise import WorkerRef
from suitkaise.testing import wait_until

def pid_of(ref: WorkerRef) -> int:
    wait_until(ref.is_alive)
    return wait_until(lambda: ref.pid)
"""

UPDATE = """
from suitkaise import skglobals, sktree

skglobals.update("colours", lambda old: [*old, "blue"])
skglobals.update("colours", ["red"])
sktree.connect().update("number", lambda old: old + 1, "")
sktree.connect().select_all_with({}, "").update(lambda old: old + 1)
"""


@pytest.mark.parametrize(
    "program",
    [
        pytest.param(STREAM, id="a stream of async functions, that is closed"),
        pytest.param(WAIT, id="a wait for what is None before"),
        pytest.param(UPDATE, id="an update by a function"),
    ],
)
def test_type_checkers_find_no_error_in_a_right_program(program: str, tmp_path: Path) -> None:
    assert mypy_errors(program, tmp_path) == []
    assert pyright_errors(program, tmp_path) == []
