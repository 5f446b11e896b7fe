"""What the declarations of children and of supervisors share: they are immutable, and named."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Never

from suitkaise.errors import SpecError

__all__ = ["Declaration", "checked_id"]


class Declaration:
    """What `Child` and `Supervisor` share: immutable, compared and copied by their fields."""

    __slots__ = ()

    def __setattr__(self, name: str, value: Any) -> Never:
        raise AttributeError(
            f"{type(self).__name__} is immutable: {name!r} cannot be set; use replace({name}=...) for a changed copy"
        )

    def __delattr__(self, name: str) -> Never:
        raise AttributeError(f"{type(self).__name__} is immutable: {name!r} cannot be deleted")

    def _set(self, **values: Any) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self._slots()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._set(**state)

    def _slots(self) -> Iterator[str]:
        for cls in type(self).__mro__:
            yield from getattr(cls, "__slots__", ())

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self.__getstate__() == other.__getstate__()

    __hash__: ClassVar[None]  # type: ignore[assignment]


def checked_id(value: Any, who: str) -> str:
    """The value, if it can be a part of a path; else SpecError. `who`: what it names, a `Child` or a `Supervisor`."""
    if not isinstance(value, str) or not value:
        raise SpecError(f"{who}: the {'name' if who == 'Supervisor' else 'id'} must be a text, not {value!r}")
    if "/" in value or "#" in value or any(ord(character) < 32 for character in value):
        raise SpecError(f"{who} {value!r}: an id may not hold '/', '#' or control characters; paths are made of ids")
    return value
