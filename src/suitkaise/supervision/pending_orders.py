"""Keeps what orders to stop a child have asked for, until they are answered."""

from __future__ import annotations

import threading
from typing import Any, Generic, TypeVar

from suitkaise.messaging.answer import Answer

__all__ = ["PendingOrders"]

T = TypeVar("T")


class PendingOrders(Generic[T]):
    """How the orders that are not answered yet want children to be stopped; several may be about the same child.

    The methods may be called from any thread.
    """

    def __init__(self) -> None:
        self._orders: dict[str, list[T]] = {}
        self._lock = threading.Lock()

    def add(self, id: str, how: T, answer: Answer[Any]) -> None:
        """Keep an order about a child until it is answered."""
        with self._lock:
            self._orders.setdefault(id, []).append(how)
        answer.when_done(lambda done: self._remove(id, how))

    def _remove(self, id: str, how: T) -> None:
        with self._lock:
            orders = self._orders[id]
            orders.remove(how)
            if not orders:
                del self._orders[id]

    def first(self, id: str) -> T | None:
        """Return what the oldest order about this child has asked for; None if there is none."""
        with self._lock:
            orders = self._orders.get(id)
            return orders[0] if orders else None
