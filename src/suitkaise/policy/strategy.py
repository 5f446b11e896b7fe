"""The strategy of a supervisor: which children are restarted together (rules 31-33)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from suitkaise.specs.options import Strategy

__all__ = ["restarted_together", "restarts_alone"]

Member = TypeVar("Member")


def restarted_together(strategy: Strategy, child: Member, children: Iterable[Member]) -> list[Member]:
    """Return the children that a restart of `child` restarts, in start order, `child` included."""
    match strategy:
        case "one_for_one":
            return [child]
        case "one_for_all":
            return list(children)
        case "rest_for_one":
            group = list(children)
            return group[group.index(child) :]


def restarts_alone(strategy: Strategy) -> bool:
    """Return whether a child is always restarted without its siblings, so that restarts need no queue."""
    return strategy == "one_for_one"
