"""What a worker that was started again knows of the incarnation before it (rule 57)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from suitkaise.exits import ExitReason
from suitkaise.messaging.messages import Payload

__all__ = ["ExitWith", "ForceFinish", "Incarnation", "Outcome", "Recalled"]


@dataclass(frozen=True, slots=True)
class Recalled:
    """`self.recalled` of a worker that was started again.

    Args:
        attempt: which start this is after the first one: 1 for the first restart. Starts on request count, too.
        reason: how the incarnation before ended; None if it chose not to run (`Ignore`).
        down_for: seconds from its end until this start was ordered.
    """

    attempt: int
    reason: ExitReason | None
    down_for: float
    _checkpoint: Payload | None = field(default=None, compare=False, repr=False)

    @property
    def checkpoint(self) -> Any:
        """The last value that an incarnation before handed to `self.checkpoint(value)`; None if none did.

        It is a new copy at each access.
        """
        return None if self._checkpoint is None else self._checkpoint.value


@dataclass(frozen=True, slots=True)
class Incarnation:
    """What a new incarnation is told of itself.

    Args:
        path: the worker's path.
        serial: unique in the program.
        number: which incarnation of its child it is, from 1.
        copy: which of several copies of its child it is.
        join_in: seconds after which the worker finishes.
        join_after: loops after which the worker finishes.
        recalled: about the incarnation before.
        grace: seconds that the worker may take to finish when the program is gone; also that its tasks may take.
    """

    path: str
    serial: int
    number: int = 1
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
    result: Payload | None = None
    ignored: bool = False


class ExitWith(Exception):
    """Raised in a hook by a worker that knows why its life is over; `result` counts if the reason is clean."""

    def __init__(self, reason: ExitReason, result: Any = None) -> None:
        super().__init__(str(reason))
        self.reason = reason
        self.result = result


class ForceFinish(BaseException):
    """Leaves whatever the worker is doing."""
