"""A condition and a future that a signal handler cannot leave locked."""

from __future__ import annotations

import concurrent.futures
import unittest
from collections.abc import Callable
from typing import Any

import pytest

from suitkaise.platform.condition import Condition, OwnFuture
from tests.support import GRACE, eventually, in_background, interrupted_at_each_call


def is_free(lock: Any) -> None:
    """Fail unless another thread can take the lock."""

    def take() -> None:
        assert lock.acquire(timeout=GRACE)
        lock.release()

    in_background(take).result()


def test_a_signal_handler_that_raises_leaves_no_condition_locked() -> None:
    condition = Condition()

    def use() -> None:
        with condition:
            condition.notify_all()
            condition.wait_for(lambda: False, timeout=0.001)

    interrupts = 0
    for interrupts, _ in enumerate(interrupted_at_each_call(use), 1):  # noqa: B007
        is_free(condition)
    assert interrupts > 3


def test_a_signal_handler_that_raises_leaves_no_future_locked() -> None:
    future: OwnFuture[int] = OwnFuture()

    def use() -> None:
        nonlocal future
        future = OwnFuture()
        future.add_done_callback(lambda _: None)
        future.done()
        future.set_result(1)
        future.result(0)

    interrupts = 0
    for interrupts, _ in enumerate(interrupted_at_each_call(use), 1):  # noqa: B007
        is_free(future._condition)
    assert interrupts > 5


def test_a_future_has_what_one_of_the_standard_library_has() -> None:
    own, theirs = vars(OwnFuture()), vars(concurrent.futures.Future())
    own.pop("_condition"), theirs.pop("_condition")
    assert own == theirs


def test_notify_wakes_as_many_as_it_is_told_and_the_rest_go_on_waiting() -> None:
    condition = Condition()
    woken: list[bool] = []

    def wait() -> None:
        with condition:
            woken.append(condition.wait(GRACE))
            condition.notify_all()

    waits = [in_background(wait) for _ in range(3)]
    eventually(lambda: len(condition._waiting) == 3)
    with condition:
        condition.notify(2)
    eventually(lambda: len(woken) == 3)
    for one in waits:
        one.result(GRACE)
    assert woken == [True, True, True]


def test_one_that_is_not_notified_in_time_is_not_woken_later() -> None:
    condition = Condition()
    with condition:
        condition.acquire()  # twice: it is taken again as often
        assert condition.wait(0.001) is False
        assert not condition._waiting
        condition.release()
        assert in_background(lambda: condition.acquire(False)).result(GRACE) is False
    assert in_background(lambda: condition.acquire(False)).result(GRACE) is True


@pytest.mark.parametrize("use", [Condition.wait, Condition.notify, Condition.notify_all])
def test_it_is_refused_without_the_lock(use: Callable[[Condition], object]) -> None:
    with pytest.raises(RuntimeError, match="un-acquired lock"):
        use(Condition())


def test_the_tests_of_cpython_pass() -> None:
    lock_tests = pytest.importorskip("test.lock_tests")

    class Tests(lock_tests.ConditionTests):  # type: ignore[misc, name-defined]
        condtype = Condition

        def test_acquire(self) -> None:
            """Not this one, which gives the condition a lock."""

    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(Tests).run(result)
    assert result.testsRun >= 7
    assert [text for _, text in result.failures + result.errors] == []
