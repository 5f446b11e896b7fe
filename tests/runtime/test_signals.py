"""Which signal asks a tree in the foreground to stop, and which kills it (rule 70)."""

from __future__ import annotations

import threading
from signal import SIGHUP, SIGINT, SIGTERM
from typing import NoReturn

import pytest

from suitkaise import Supervisor
from suitkaise.platform.flag import Flag
from suitkaise.runtime.running_tree import RunningTree
from suitkaise.runtime.signals import REPEAT, SignalCount, SignalHandling
from tests.support import GRACE, alarms, in_background

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


class NotedLate(Flag):
    """A flag that is set after the thread that waits for it has looked twice, or some time after its first look."""

    def __init__(self) -> None:
        super().__init__()
        self._looks = 0
        self._looked_twice = threading.Event()

    def is_set(self) -> bool:
        seen = super().is_set()
        self._looks += 1
        if self._looks == 2:
            self._looked_twice.set()
        return seen

    def note(self) -> None:
        self._looked_twice.wait(0.5)
        self.set()


def test_s70_a_program_ends_whose_tree_has_ended_just_before_it_begins_to_wait_for_that() -> None:
    def give_up(*signal: object) -> NoReturn:
        raise AssertionError("it still waits for what is set")

    ended = NotedLate()
    with SignalHandling() as signals:
        running = signals.start(Supervisor("app"))
        assert isinstance(running, RunningTree)
        running.stop()
        noting = in_background(ended.note)
        with alarms(give_up, GRACE):
            signals.wait(ended)
        noting.result(GRACE)
