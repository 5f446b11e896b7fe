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

async def use_in_an_event_loop(running: RunningTree) -> None:
    async for page in running.stream(fetch, [1, 2]):
        assert_type(page, bytes)
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


POOL = """
from typing import Any
from suitkaise import skthreading
from suitkaise.pools import BoundPool, create_pool
from suitkaise.xprocess import CrossProcessing

def use(xp: CrossProcessing, chosen: dict[str, Any]) -> BoundPool:
    create_pool("process", abs, 2, timeout=3, retries=0, initializer=print, initargs=("up",), name="pool")
    xp.create_pool(abs, 2, max_tasks_per_worker=9, **chosen)
    return skthreading.create_pool(abs, timeout=None).options(timeout=3.0)
"""

POOL_WITH_WRONG_OPTIONS = """
create_pool("process", abs, processes=3)
skthreading.create_pool(abs, timeout="soon")
skthreading.create_pool(abs).options(tries=2)
"""


def test_type_checkers_know_the_options_of_a_pool(tmp_path: Path) -> None:
    assert mypy_errors(POOL, tmp_path) == []
    assert pyright_errors(POOL, tmp_path) == []
    assert len(mypy_errors(POOL + POOL_WITH_WRONG_OPTIONS, tmp_path)) == 3
    assert len(pyright_errors(POOL + POOL_WITH_WRONG_OPTIONS, tmp_path)) == 3
