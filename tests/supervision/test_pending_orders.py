"""Orders that are not answered yet."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

from suitkaise.messaging.answer import Answer
from suitkaise.supervision.pending_orders import PendingOrders
from tests.conftest import GRACE
from tests.support import in_background


def test_the_oldest_order_about_a_child_counts_until_it_is_answered() -> None:
    orders: PendingOrders[str] = PendingOrders()
    answers: list[Answer[None]] = [Answer() for _ in range(3)]
    for id, how, answer in zip(("one", "two", "one"), ("first", "other", "second"), answers, strict=True):
        orders.add(id, how, answer)
    assert (orders.first("one"), orders.first("two"), orders.first("none")) == ("first", "other", None)
    answers[0].set_result(None)
    assert orders.first("one") == "second"
    answers[2].set_result(None)
    assert (orders.first("one"), orders.first("two")) == (None, "other")


def test_an_order_of_a_signal_handler_does_not_wait_for_the_one_that_it_interrupts() -> None:
    orders: PendingOrders[str] = PendingOrders()
    answers: list[Answer[None]] = []

    def handler(frame: FrameType, event: str, argument: Any) -> Any:
        if frame.f_code is PendingOrders.add.__code__ and event == "line":
            answers.append(Answer())
            orders.add("one", "of the handler", answers[-1])
        return handler

    def interrupted() -> None:
        sys.settrace(handler)  # of this thread
        orders.add("one", "interrupted", Answer())
        sys.settrace(None)

    in_background(interrupted).result(GRACE)
    assert len(answers) >= 2
    assert orders.first("one") == "of the handler"
