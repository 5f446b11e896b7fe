"""One incarnation of a worker, as it is ordered and as it has ended: what crosses the border of its process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from suitkaise.exits import ExitReason
from suitkaise.messaging.messages import Parcel

if TYPE_CHECKING:
    from suitkaise.workers.recalled import Recalled

__all__ = ["Birth", "Ended", "ForceFinish", "Outcome"]


@dataclass(frozen=True, slots=True)
class Birth:
    """What a new incarnation is told of itself. `grace`: seconds that what it leaves behind may take to end."""

    path: str
    serial: int
    copy: int | None = None
    join_in: float | None = None
    join_after: float | None = None
    recalled: Recalled | None = None
    grace: float = 5.0

    @property
    def owner(self) -> str:
        """Its identity towards the storage: its path, and a number that no other incarnation ever has."""
        return f"{self.path}#{self.serial}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a life ended. `ignored`: `on_start` raised `Ignore`."""

    reason: ExitReason
    result: Parcel | None = None
    ignored: bool = False


class Ended(Exception):
    """Raised in a hook by a worker that knows why its life is over; `result` counts if the reason is clean."""

    def __init__(self, reason: ExitReason, result: Any = None) -> None:
        super().__init__(str(reason))
        self.reason = reason
        self.result = result


class ForceFinish(BaseException):
    """Leaves whatever the worker is doing."""
