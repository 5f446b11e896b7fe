"""Fixtures of the tests of pools."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from suitkaise.pools import Pool, ProcessPool, ThreadPool


@pytest.fixture
def pool(one_runtime_for_all: None) -> Iterator[ProcessPool]:
    with ProcessPool(2) as pool:
        yield pool


@pytest.fixture
def threads(one_runtime_for_all: None) -> Iterator[ThreadPool]:
    with ThreadPool(2) as pool:
        yield pool


@pytest.fixture(params=["process", "thread"])
def either(request: pytest.FixtureRequest, one_runtime_for_all: None) -> Iterator[Pool]:
    with (ProcessPool if request.param == "process" else ThreadPool)(2) as pool:
        yield pool
