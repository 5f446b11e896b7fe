"""Fixtures of the tests of pools."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import pytest

from suitkaise.pools import Pool, ProcessPool, ThreadPool
from tests.support import in_background

P = TypeVar("P", bound=Pool)


@contextmanager
def ending(pool: P) -> Iterator[P]:
    """End the pool after a test; a task that a test which has failed left waiting does not hold up all others."""
    try:
        yield pool
    finally:
        in_background(pool.shutdown).result(60)


@pytest.fixture
def pool(one_runtime_for_all: None) -> Iterator[ProcessPool]:
    with ending(ProcessPool(2)) as pool:
        yield pool


@pytest.fixture
def threads(one_runtime_for_all: None) -> Iterator[ThreadPool]:
    with ending(ThreadPool(2)) as pool:
        yield pool


@pytest.fixture(params=["process", "thread"])
def either(request: pytest.FixtureRequest, one_runtime_for_all: None) -> Iterator[Pool]:
    with ending((ProcessPool if request.param == "process" else ThreadPool)(2)) as pool:
        yield pool
