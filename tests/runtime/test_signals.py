"""Which signal asks a tree in the foreground to stop, and which kills it (rule 70)."""

from __future__ import annotations

from signal import SIGHUP, SIGINT, SIGTERM

import pytest

from suitkaise.runtime.signals import REPEAT, SignalCount

LATER = REPEAT + 0.01


@pytest.mark.parametrize(
    "arrivals, kills",
    [
        ([(SIGTERM, 0.0)], False),
        ([(SIGTERM, 0.0), (SIGTERM, 0.001)], False),
        ([(SIGTERM, 0.0), (SIGTERM, 0.9), (SIGTERM, 0.95)], False),
        ([(SIGTERM, 0.0), (SIGTERM, 0.9), (SIGTERM, 1.1)], True),
        ([(SIGINT, 0.0), (SIGINT, LATER)], True),
        ([(SIGINT, 0.0), (SIGTERM, 0.001)], True),
        ([(SIGTERM, 0.0), (SIGINT, LATER)], True),
        ([(SIGHUP, 0.0), (SIGHUP, LATER)], False),
        ([(SIGHUP, 0.0), (SIGTERM, 0.0)], False),
        ([(SIGHUP, 0.0), (SIGTERM, LATER)], False),
        ([(SIGTERM, 0.0), (SIGHUP, LATER)], False),
        ([(SIGHUP, 0.0), (SIGTERM, 0.0), (SIGTERM, LATER)], True),
    ],
)
def test_s70_a_signal_kills_only_where_it_is_meant_as_a_second_one(
    arrivals: list[tuple[int, float]], kills: bool
) -> None:
    count = SignalCount()
    *earlier, last = [count.is_second(number, now) for number, now in arrivals]
    assert not any(earlier)
    assert last is kills
