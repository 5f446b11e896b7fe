"""The strategy of a supervisor: which children are restarted together (rules 31-33)."""

from __future__ import annotations

from collections.abc import Iterable

from suitkaise.policy.children import ChildState
from suitkaise.specs.options import Strategy

__all__ = ["restarted_together", "restarts_alone"]


def restarted_together(strategy: Strategy, child: ChildState, children: Iterable[ChildState]) -> list[ChildState]:
    """Return the children that a restart of `child` restarts, in start order, `child` included.

    Copies of one child are at one position, so none comes after another (rule 82). They are restarted together where
    the start of one has failed, since that has stopped the others.
    """
    match strategy:
        case "one_for_one":
            return [child]
        case "one_for_all":
            return list(children)
        case "rest_for_one":
            group = list(children)
            first = group.index(child)
            beside = {index for index, one in enumerate(group) if one.position == child.position and one is not child}
            return [
                one for index, one in enumerate(group) if (one.in_group_restart if index in beside else index >= first)
            ]


def restarts_alone(strategy: Strategy) -> bool:
    """Return whether a child is always restarted without its siblings, so that restarts need no queue."""
    return strategy == "one_for_one"
