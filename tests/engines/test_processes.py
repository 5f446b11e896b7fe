"""The engine for workers in processes, while a start waits for the keeper."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from suitkaise import Child
from suitkaise.engines.engine import EngineContext, Launch
from suitkaise.engines.processes import ProcessEngine
from suitkaise.exits import Killed
from tests.engines.processes import SOON, Idle
from tests.support import eventually, in_background


@pytest.fixture
def engine(context: EngineContext) -> Iterator[ProcessEngine]:
    engine = ProcessEngine(context)
    yield engine
    engine.close()


def test_the_levels_of_loggers_may_change_before_a_process_was_requested(engine: ProcessEngine) -> None:
    with engine.keeper._lock:  # as while the keeper is replaced
        spawned = in_background(lambda: engine.spawn(Launch.of(Child(Idle), "tree/worker", 1, 1)))
        eventually(lambda: engine._alive)
        engine.set_log_levels({"": 10})
    handle = spawned.result(SOON)
    assert handle.ready.result(SOON) == handle.process.pid
    handle.kill("the test is over")
    assert handle.exited.result(SOON).reason == Killed("the test is over")
    eventually(lambda: not engine._alive)
