"""A lock that a signal handler cannot leave locked."""

from __future__ import annotations

import time

import pytest

from suitkaise.platform.condition import Condition
from suitkaise.platform.locks import RLock
from tests.support import GRACE, alarms, in_background


class Stop(Exception):
    """Raised by the signal handler."""


@pytest.mark.parametrize("kind", [RLock, Condition])
def test_a_signal_handler_that_raises_in_a_block_or_at_its_ends_leaves_no_lock_locked(kind: type[RLock]) -> None:
    armed, lock, stopped = False, kind(), 0

    def stop(*_: object) -> None:
        nonlocal armed
        if armed:
            armed = False
            raise Stop

    def is_free() -> bool:
        return lock.acquire(timeout=GRACE)

    with alarms(stop, every=0.001):
        until = time.monotonic() + 60.0
        while stopped < 300 and time.monotonic() < until:
            lock = kind()
            try:
                armed = True
                for _ in range(5000):
                    with lock, lock:
                        pass
                armed = False
            except Stop:
                stopped += 1
                assert in_background(is_free).result()
    assert stopped == 300


def test_a_lock_that_is_taken_twice_is_free_when_both_blocks_have_ended() -> None:
    lock = RLock()

    def is_free() -> bool:
        return lock.acquire(blocking=False)

    with lock:
        with lock:
            pass
        assert not in_background(is_free).result()
    assert in_background(is_free).result()
