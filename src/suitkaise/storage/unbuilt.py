"""What the plan of the tree names and this version does not have: each says so, and none is quietly ignored."""

from __future__ import annotations

from typing import Any, NoReturn

from suitkaise.errors import NotBuiltYet

__all__ = ["Unbuilt"]


class Unbuilt:
    """The part of the tree's handle that is still to come."""

    def watch(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Be told about changes."""
        _refuse("watch", "read the entry again, or compare `revision`")

    def snapshot(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Copy the whole tree into a file."""
        _refuse("snapshot", "connect with durable=True to keep what is stored")

    def restore(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Bring back what `snapshot` copied."""
        _refuse("restore", "connect with durable=True to keep what is stored")

    def move(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Move an entry to another container."""
        _refuse("move", "add it there and remove it here in one transaction")

    def select_all_with(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Select entries by their metadata."""
        _refuse("select_all_with", "go through `walk` and `entry`")

    @property
    def selected(self) -> NoReturn:
        """What is selected."""
        _refuse("selected", "go through `walk` and `entry`")

    def remove_selected(self) -> NoReturn:
        """Remove what is selected."""
        _refuse("remove_selected", "remove entries by name")

    def deselect(self) -> NoReturn:
        """Select nothing."""
        _refuse("deselect", "nothing can be selected either")

    def AutoUpdate(self, *args: Any, **kwargs: Any) -> NoReturn:  # noqa: N802 - the concept's name
        """Write a value back at the end of a block."""
        _refuse("AutoUpdate", "call `update` at the end of the block")


def _refuse(what: str, instead: str) -> NoReturn:
    raise NotBuiltYet(f"tree.{what} is not built yet; until then, {instead}")
