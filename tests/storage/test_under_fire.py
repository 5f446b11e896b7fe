from __future__ import annotations

import pytest

from tests.storage import fire


@pytest.mark.chaos
@pytest.mark.timeout(240)
def test_no_acknowledged_write_is_lost_or_applied_twice_in_kills_of_server_writers_and_readers(engine: str) -> None:
    assert fire.run(kills=5 if engine == "redis" else 15, also_kill_workers=True, engine=engine) == []


@pytest.mark.chaos
def test_no_write_is_lost_while_the_map_grows_and_the_server_is_killed() -> None:
    assert fire.run(kills=6, map_size=1 << 20) == []


@pytest.mark.chaos
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_no_write_is_lost_in_500_kills_of_the_server_and_500_of_writers_and_readers(engine: str) -> None:
    assert fire.run(kills=500, also_kill_workers=True, engine=engine) == []


@pytest.mark.chaos
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_no_write_is_lost_in_kills_of_a_durable_server(engine: str) -> None:
    assert fire.run(kills=50, durable="yes", engine=engine) == []


@pytest.mark.chaos
@pytest.mark.parametrize("sabotage", ["acknowledge-early", "carry-out-twice", "tear"])
def test_the_checker_detects_a_faulty_server(sabotage: str, file_engine: str) -> None:
    assert fire.run(kills=100, sabotage=sabotage, engine=file_engine) != []
