"""Deadlines of workers and of the keeper, checked by a program that may be late itself.

A program looks, at a set time, whether a worker or the keeper has done its work. On a starved machine, or after
SIGSTOP, the look comes late, and the other side may have had no processor time either: it would be killed although
nothing is wrong with it. So it gets the time again, but only a few times in a row: on a machine where every look is
late, a real hang would never be noticed.
"""

from __future__ import annotations

__all__ = ["Extensions", "is_late"]


def is_late(due: float, now: float, tolerance: float) -> bool:
    """Return whether a look that was due at `due` comes more than `tolerance` seconds late (all in seconds)."""
    return now - due > tolerance


class Extensions:
    """Grants more time, at most `most` times in a row for one matter.

    >>> extensions = Extensions(most=1)
    >>> extensions.grant("first phase"), extensions.grant("first phase"), extensions.grant("next phase")
    (True, False, True)
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._granted = 0
        self._matter: object = None

    def grant(self, matter: object) -> bool:
        """Grant more time for `matter`, anything that compares equal while nothing has changed; False: no more."""
        self._granted = self._granted + 1 if matter == self._matter else 1
        self._matter = matter
        return self._granted <= self._most
