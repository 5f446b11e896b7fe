"""Keeps what orders to stop a child have asked for, until they are answered."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from suitkaise.messaging.answer import Answer

__all__ = ["PendingOrders"]

T = TypeVar("T")


class PendingOrders(Generic[T]):
    """How the orders that are not answered yet want children to be stopped; several may be about the same child.

    The methods may be called from any thread, and from a signal handler that interrupts one of them: so there is no
    lock, and each method is one operation of a dict.
    """

    def __init__(self) -> None:
        self._orders: dict[Answer[Any], tuple[str, T]] = {}  # from the oldest one on

    def add(self, id: str, how: T, answer: Answer[Any]) -> None:
        """Keep an order about a child until it is answered."""
        self._orders[answer] = id, how
        answer.when_done(lambda done: self._orders.pop(answer, None))

    def first(self, id: str) -> T | None:
        """Return what the oldest order about this child has asked for; None if there is none."""
        return next((how for other, how in tuple(self._orders.values()) if other == id), None)
