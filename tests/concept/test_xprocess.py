"""`xprocess.CrossProcessing`: processes that are made by calls, under a supervisor."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from suitkaise import Status, xprocess
from suitkaise.xprocess import CrossProcessing


@pytest.fixture
def xp() -> Iterator[CrossProcessing]:
    with CrossProcessing() as made:
        yield made


def product(a: int, *, b: int = 1) -> tuple[int, int]:
    return a * b, os.getpid()


def test_a_function_runs_in_a_process_and_its_result_can_be_had(xp: CrossProcessing) -> None:
    xp.create_process("work", product, args=(3,), kwargs={"b": 7, "join_after": 2})
    value, pid = xp.get_process_result("work", timeout=30)
    assert value == 21
    assert pid != os.getpid()
    assert xp.list_processes() == {"work": Status.FINISHED}
    assert xprocess.Process is __import__("suitkaise").Process
