from __future__ import annotations

import pytest

from tests.storage import fire


@pytest.mark.chaos
def test_no_acknowledged_write_is_lost_or_applied_twice_while_the_server_is_killed() -> None:
    assert fire.run(kills=12) == []


@pytest.mark.chaos
def test_the_map_may_grow_under_fire() -> None:
    assert fire.run(kills=6, map_size=1 << 20) == []


@pytest.mark.chaos
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_hundreds_of_kills_of_server_writers_and_readers() -> None:
    assert fire.run(kills=300, also_kill_workers=True) == []


@pytest.mark.chaos
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_kills_while_every_commit_goes_to_the_disk() -> None:
    assert fire.run(kills=50, durable="yes") == []


@pytest.mark.chaos
@pytest.mark.parametrize("sabotage", ["acknowledge-early", "carry-out-twice", "tear"])
def test_the_checker_notices_a_server_that_is_wrong(sabotage: str) -> None:
    assert fire.run(kills=100, sabotage=sabotage) != []
