"""The `dataclass` of the standard library, made in a tenth of the time: a process that starts makes many of them.

The standard library compiles six methods for each class, which takes a millisecond. Here one is compiled, `__init__`,
when it is first looked up (a program uses few of the classes that it imports), and the others are closures over the
names of the fields. The rest (`fields`, `replace`, `match`, pickling) is as there.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from dataclasses import MISSING, FrozenInstanceError
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Never

__all__ = ["compile_now", "dataclass"]

if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass
else:

    def dataclass(*, frozen: bool = False, slots: bool = False, eq: bool = True) -> Callable[[type], type]:
        """Make a dataclass of a class, as the decorator of the standard library does with these options."""

        def decorate(cls: type) -> type:
            own = vars(cls)
            made = dataclasses.dataclass(init=False, repr=False, eq=False, slots=slots)(cls)
            fields = dataclasses.fields(made)
            methods: dict[str, Any] = {
                "__init__": _Init(made, fields, frozen),
                "__repr__": _repr([one.name for one in fields if one.repr]),
            }
            if eq:
                methods |= _comparison([one.name for one in fields if one.compare], frozen)
            if frozen:
                methods |= {"__setattr__": _refuse_assignment, "__delattr__": _refuse_deletion}
                if slots:
                    methods |= _pickling([one.name for one in fields])
            for name, method in methods.items():
                if name not in own or (name == "__hash__" and own[name] is None and "__eq__" not in own):
                    setattr(made, name, method)
            return made

        return decorate


class _Init:
    """Stands in a class for its `__init__`, and takes itself away when that is first looked up."""

    def __init__(self, cls: type, fields: tuple[dataclasses.Field[Any], ...], frozen: bool) -> None:
        self._of = cls, fields, frozen

    def __get__(self, instance: Any, owner: type) -> Any:
        cls = self._of[0]
        init: Any = _compiled_init(*self._of)
        if vars(cls)["__init__"] is self:
            cls.__init__ = init  # type: ignore[misc]
        return init.__get__(instance, owner)


def compile_now(*classes: type) -> None:
    """Compile the `__init__` of these classes, which processes that are forked later use."""
    for cls in classes:
        getattr(cls, "__init__")  # noqa: B009  (it is looked up, and not used)


def _compiled_init(cls: type, fields: tuple[dataclasses.Field[Any], ...], frozen: bool) -> Callable[..., None]:
    known: dict[str, Any] = {"_set": object.__setattr__, "_missing": MISSING}
    parameters, lines = [], []
    for field in fields:
        name = field.name
        value = name
        if field.default is not MISSING:
            known[f"_default_{name}"] = field.default
            default = f" = _default_{name}"
        elif field.default_factory is not MISSING:
            known[f"_factory_{name}"] = field.default_factory
            default = " = _missing"
            value = f"_factory_{name}() if {name} is _missing else {name}" if field.init else f"_factory_{name}()"
        else:
            default = ""
        if field.init:
            parameters.append(name + default)
        elif field.default_factory is MISSING:
            continue
        lines.append(f"_set(self, {name!r}, {value})" if frozen else f"self.{name} = {value}")
    if hasattr(cls, "__post_init__"):
        lines.append("self.__post_init__()")
    text = (
        f"def _make({', '.join(known)}):\n def __init__({', '.join(['self', *parameters])}):\n  "
        + "\n  ".join(lines or ["pass"])
        + "\n return __init__"
    )
    space: dict[str, Any] = {}
    # As dataclasses does, of our own names alone. Not `exec(text)`: it has Python forget that Ctrl-C ends the program.
    exec(compile(text, "<record>", "exec"), sys.modules[cls.__module__].__dict__, space)  # noqa: S102
    init: Callable[..., None] = space["_make"](**known)
    init.__qualname__ = f"{cls.__qualname__}.__init__"
    init.__annotations__ = {field.name: field.type for field in fields if field.init} | {"return": None}
    return init


def _repr(names: list[str]) -> Callable[[Any], str]:
    def text(self: Any) -> str:
        return f"{type(self).__qualname__}({', '.join([f'{name}={getattr(self, name)!r}' for name in names])})"

    return text


def _comparison(names: list[str], frozen: bool) -> dict[str, Any]:
    """Return `__eq__`, by the values of these fields, and `__hash__`."""
    values: Callable[[Any], Any] = attrgetter(*names) if names else lambda self: ()

    def equals(self: Any, other: object) -> bool:
        return values(self) == values(other) if type(other) is type(self) else NotImplemented

    def hashed(self: Any) -> int:
        return hash((type(self), values(self)))

    return {"__eq__": equals, "__hash__": hashed if frozen else None}


def _refuse_assignment(self: Any, name: str, value: Any) -> Never:
    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def _refuse_deletion(self: Any, name: str) -> Never:
    raise FrozenInstanceError(f"cannot delete field {name!r}")


def _pickling(names: list[str]) -> dict[str, Any]:
    """Return the methods that pickle a frozen object with slots, which cannot be assigned to."""

    def state(self: Any) -> list[Any]:
        return [getattr(self, name) for name in names]

    def restore(self: Any, values: list[Any]) -> None:
        for name, value in zip(names, values, strict=False):
            object.__setattr__(self, name, value)

    return {"__getstate__": state, "__setstate__": restore}
