"""What a worker that was started again knows of the incarnation before it (rule 57)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from suitkaise.exits import ExitReason
from suitkaise.messaging.messages import Parcel

__all__ = ["Recalled"]


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
    _checkpoint: Parcel | None = field(default=None, compare=False, repr=False)

    @property
    def checkpoint(self) -> Any:
        """The last value that an incarnation before handed to `self.checkpoint(value)`; None if none did.

        It is a new copy at each access.
        """
        return None if self._checkpoint is None else self._checkpoint.value
