"""Asks and joins that can never be answered, since the worker that is asked comes up only after the asker (rule 81).

A message to a worker that is down waits for its next incarnation. If a supervisor starts or stops its children one by
one, and stands at the asker, the next incarnation waits for the asker, and the asker for the answer: without this
module until the ask, or the time to stop, is over. OTP has no such wait: a call to a name that no process has fails
with `noproc`.

Two threads meet here. A sender keeps its ask first and looks at the supervisor after that; the supervisor begins to
wait first and looks at the asks that are kept after that. So one of the two finds each blocked ask.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from suitkaise.errors import ChildNotFound, WorkerDead
from suitkaise.messaging.address import Address
from suitkaise.messaging.messages import Payload
from suitkaise.platform.board import Phase

__all__ = ["BlockedAsks"]

_STARTING = (Phase.BOOT, Phase.ON_START)


class BlockedAsks:
    """The addresses at which asks, or joins, of workers wait while no incarnation is alive.

    `find` returns the address at a path; raises ChildNotFound.
    """

    def __init__(self, find: Callable[[str], Address]) -> None:
        self._find = find
        self._addresses: dict[Address, None] = {}

    def add(self, address: Address) -> None:
        """Record that an ask or a join of a worker waits at `address`, which is down; refuse it if it is blocked."""
        self._addresses[address] = None
        self._refuse_at(address)

    def refuse(self) -> None:
        """Refuse the asks that are blocked now; supervisors call this after each of their decisions."""
        for address in list(self._addresses):
            self._refuse_at(address)

    def _refuse_at(self, address: Address) -> None:
        def blocked(asker: str) -> bool:
            return self._is_blocked(asker, address.path)

        text = f"{address.path!r} is down, and comes up only after the worker that asks it"
        for message in address.take_asks(blocked):
            message.fail(WorkerDead(text, path=address.path, reason=address.reason))
        for answer in address.take_joins(blocked):
            answer.settle(False, Payload(WorkerDead(text, path=address.path, reason=address.reason)))
        if not address.has_asks:
            self._addresses.pop(address, None)
            if address.has_asks:
                self._addresses[address] = None  # type: ignore[unreachable]  # one has come just now

    def _is_blocked(self, asker: str, path: str) -> bool:
        """Return whether the next incarnation at `path` waits for the worker at `asker`."""
        ones, others = asker.split("/"), path.split("/")
        common = 0
        while common < min(len(ones), len(others)) and ones[common] == others[common]:
            common += 1
        if not 0 < common < min(len(ones), len(others)):
            return False
        try:
            supervisor: Any = self._find("/".join(ones[:common])).receiver
            worker: Any = self._find(asker).receiver
        except ChildNotFound:
            return False
        comes_after = getattr(supervisor, "comes_after", None)
        snapshot = getattr(worker, "snapshot", None)
        if comes_after is None or snapshot is None:
            return False
        awaited = comes_after(others[common], ones[common])
        if awaited == "stop":
            return True
        view = snapshot()
        return awaited == "start" and view is not None and view.phase in _STARTING  # else others there start still
