"""What the links of a simulated tree have to do (rule 60), checked after each end and each turn."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

from suitkaise.messaging.address import Address

__all__ = ["LINKED", "LinkLedger"]

LINKED = "linked to "
"""How the reason of a worker that a link has ended begins."""


@dataclass(frozen=True, slots=True)
class _End:
    """One incarnation, which has a link."""

    address: Address
    serial: int

    @property
    def over(self) -> bool:
        return self.address.watchers.serial != self.serial

    @property
    def path(self) -> str:
        return self.address.path


class LinkLedger:
    """Knows all links and all incarnations that trap exits; `wrong` is told each broken rule."""

    def __init__(self, wrong: Callable[[str], None]) -> None:
        self._wrong = wrong
        self._links: set[frozenset[_End]] = set()
        self._trapping: set[_End] = set()
        self._expected: set[str] = set()  # the paths of those that a link has to end
        self._killed: set[str] = set()  # and of those that one has ended

    def link(self, caller: Address, serial: int, other: Address | None) -> None:
        """Note a link that is about to be made. Where there is no incarnation, it ends the caller."""
        one = _End(caller, serial)
        if other is None or other.watchers.serial is None:
            if self._dies(one):
                self._expected.add(one.path)
        elif other is not caller:
            self._links.add(frozenset((one, _End(other, other.watchers.serial))))

    def trap_exits(self, address: Address, serial: int) -> None:
        """Note that an incarnation gets exits as messages from now on."""
        self._trapping.add(_End(address, serial))

    def killed(self, path: str) -> None:
        """Note that a link ends what is at `path`."""
        self._killed.add(path)

    def check(self) -> None:
        """Check that what has ended since the last check has ended those that were linked to it, and no others."""
        over = [link for link in self._links if any(end.over for end in link)]
        self._links.difference_update(over)
        for one, other in (pair for link in over for pair in itertools.permutations(link)):
            reason = other.address.reason
            if other.over and not one.over and reason is not None and not reason.clean and self._dies(one):
                self._expected.add(one.path)
        for path in sorted(self._expected - self._killed):
            self._wrong(f"{path} lives on, although what it is linked to has failed (rule 60)")
        for path in sorted(self._killed - self._expected):
            self._wrong(f"{path} is ended by a link, against rule 60")
        self._expected.clear()
        self._killed.clear()

    def _dies(self, one: _End) -> bool:
        return one.address.kind != "supervisor" and one not in self._trapping
