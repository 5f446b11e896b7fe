"""The answer that one thread waits for."""

from __future__ import annotations

import threading
import time

import pytest

from suitkaise.errors import AskTimeout
from suitkaise.messaging.answer import STEP
from suitkaise.messaging.awaited import Awaited
from suitkaise.messaging.messages import Payload

SOON = 10.0


def test_an_answer_that_is_there_is_returned_at_once() -> None:
    awaited, answer = Awaited(), Payload("x")
    awaited(True, answer)
    assert awaited.wait("app/worker", 0.0, time.monotonic()) == (True, answer)


@pytest.mark.parametrize("timeout", [SOON, None])
@pytest.mark.parametrize("after", [0.0, 2 * STEP])
def test_an_answer_of_another_thread_ends_the_wait(timeout: float | None, after: float) -> None:
    awaited, error = Awaited(), Payload(ValueError("x"))
    timer = threading.Timer(after, awaited, [False, error])
    timer.start()
    assert awaited.wait("app/worker", timeout, time.monotonic()) == (False, error)
    timer.join()


@pytest.mark.parametrize("timeout", [0.0, -1.0, 0.01, 1.5 * STEP])
def test_the_wait_ends_with_its_time(timeout: float) -> None:
    with pytest.raises(AskTimeout, match=f"'app/worker' did not answer within {timeout} s") as error:
        Awaited().wait("app/worker", timeout, time.monotonic())
    assert error.value.path == "app/worker"


def test_the_first_answer_counts() -> None:
    awaited, first = Awaited(), Payload(1)
    awaited(True, first)
    awaited(False, Payload(KeyError()))
    assert awaited.outcome == (True, first)
    assert awaited.come(0.0)
    assert awaited.come(0.0)
