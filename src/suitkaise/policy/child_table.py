"""The children of one supervisor, by id and in start order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from suitkaise.errors import ChildNotFound
from suitkaise.policy.actions import Exited, Ignored
from suitkaise.policy.children import ChildInfo, ChildState
from suitkaise.specs import Child
from suitkaise.status import Counts

__all__ = ["ChildTable"]


class ChildTable:
    """The children that a supervisor has, the dead ones included; other threads may read the table at any time."""

    def __init__(self, path: str, specs: Iterable[Child]) -> None:
        self._path = path
        self._children = {spec.id: ChildState(spec) for spec in specs}
        self._retired = 0  # the highest incarnation number of the children that were removed

    # ------------------------------------------------------------ the table
    def __iter__(self) -> Iterator[ChildState]:
        return iter(list(self._children.values()))  # a copy: another thread, or the loop itself, may change the table

    def __reversed__(self) -> Iterator[ChildState]:
        return reversed(list(self._children.values()))

    def __len__(self) -> int:
        return len(self._children)

    def __contains__(self, id: object) -> bool:
        return id in self._children

    def get(self, id: str) -> ChildState | None:
        """Return the child with this id; None if there is none."""
        return self._children.get(id)

    def find(self, id: str) -> ChildState:
        """Return the child with this id.

        Raises:
            ChildNotFound: there is none.
        """
        try:
            return self._children[id]
        except KeyError:
            raise self.not_found(id) from None

    def current(self, id: str, incarnation: int) -> ChildState | None:
        """Return the child with this id if `incarnation` is the number of its newest incarnation."""
        child = self._children.get(id)
        return child if child is not None and child.incarnation == incarnation else None

    def add(self, spec: Child) -> ChildState:
        """Append a child.

        The numbers of its incarnations continue after those of all removed children: an exit or a timer of a removed
        child with the same id may still be under way, and must not be taken for one of the new child.
        """
        child = ChildState(spec, incarnation=self._retired, first_incarnation=self._retired + 1)
        self._children[spec.id] = child
        return child

    def remove(self, child: ChildState) -> bool:
        """Remove a child; return False if the table does not hold it."""
        if self._children.pop(child.spec.id, None) is None:
            return False
        self._retired = max(self._retired, child.incarnation)
        return True

    # ------------------------------------------------------------ answers to questions
    def which(self, ends: Mapping[str, Exited | Ignored]) -> list[ChildInfo]:
        """Return a line about each child, in start order (rule 20); `ends`: see `BasePolicy.which_children`."""
        return [child.info_after(ends.get(child.spec.id)) for child in self]

    def count(self, ends: Mapping[str, Exited | Ignored]) -> Counts:
        """Return how many children there are, and how many of them are alive (rule 21)."""
        children = self.which(ends)
        supervisors = sum(child.kind == "supervisor" for child in children)
        active = sum(child.active for child in children)
        return Counts(len(children), active, supervisors, len(children) - supervisors)

    def not_found(self, id: str) -> ChildNotFound:
        """Return the error for a request about a child that does not exist."""
        known = ", ".join(repr(name) for name in list(self._children)[:10]) or "none"
        return ChildNotFound(
            f"supervisor {self._path!r} has no child {id!r}; it has {known}", path=f"{self._path}/{id}"
        )
