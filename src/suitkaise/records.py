"""The `dataclass` of the standard library, made in a tenth of the time: a process that starts makes many of them.

The standard library compiles six methods for each class, which takes a millisecond, and its module takes 10 ms to load,
because of `inspect`. Here one method is compiled, `__init__`, when it is first looked up (a program uses few of the
classes that it imports), and the others are closures over the names of the fields. Whoever asks for the fields of a
record (`dataclasses.fields`, `replace`, `asdict`, a dataclass that inherits from it) gets the standard library's own.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Never

__all__ = ["compile_now", "dataclass", "field", "refuse_assignment", "refuse_deletion"]

_MISSING: Any = object()


class _Field:
    """Says about a field what its default value cannot say, as the function of the standard library does."""

    name: str
    type: str

    def __init__(
        self,
        *,
        default: Any = _MISSING,
        default_factory: Callable[[], Any] = _MISSING,
        init: bool = True,
        repr: bool = True,
        compare: bool = True,
    ) -> None:
        self.default = default
        self.default_factory = default_factory
        self.init = init
        self.repr = repr
        self.compare = compare


if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass
    from dataclasses import field as field
else:
    field = _Field

    def dataclass(*, frozen: bool = False, slots: bool = False, eq: bool = True) -> Callable[[type], type]:
        """Make a dataclass of a class, as the decorator of the standard library does with these options."""

        def decorate(cls: type) -> type:
            described = _Described(cls, frozen)
            fields = tuple(described.fields.values())
            if slots:
                cls = _with_slots(cls, described.fields)
            own = vars(cls)
            methods: dict[str, Any] = {
                "__init__": _Init(cls, fields, frozen),
                "__repr__": _repr([one.name for one in fields if one.repr]),
                "__match_args__": tuple([one.name for one in fields if one.init]),
                "__replace__": _replace,
            }
            if eq:
                methods |= _comparison([one.name for one in fields if one.compare], frozen)
            if frozen:
                methods |= {"__setattr__": refuse_assignment, "__delattr__": refuse_deletion}
                if slots:
                    methods |= _pickling([one.name for one in fields])
            for name, method in methods.items():
                if name not in own or (name == "__hash__" and own[name] is None and "__eq__" not in own):
                    setattr(cls, name, method)
            cls.__dataclass_fields__ = described
            cls.__dataclass_params__ = _Parameters(described)
            return cls

        return decorate


class _Described:
    """Stands in a class for its `__dataclass_fields__`, and makes them when they are first looked up.

    It takes what the class says about each field away from the class, and leaves the default values there.
    """

    def __init__(self, cls: type, frozen: bool) -> None:
        self.frozen = frozen
        self.fields: dict[str, _Field] = {}
        """By their names, those of base classes first."""
        self._standard: Any = None
        for base in reversed(cls.__mro__[1:]):
            inherited = vars(base).get("__dataclass_fields__")
            if inherited is not None:
                self.fields.update(inherited.fields)
        for name, kind in cls.__annotations__.items():
            if isinstance(kind, str) and kind.startswith("ClassVar"):
                continue
            said = vars(cls).get(name, _MISSING)
            one = said if isinstance(said, _Field) else _Field(default=said)
            one.name, one.type = name, kind
            self.fields[name] = one
            if one is said and one.default is _MISSING:
                delattr(cls, name)
            elif one is said:
                setattr(cls, name, one.default)

    @property
    def standard(self) -> Any:
        """A dataclass of the standard library with these fields."""
        if self._standard is None:
            import dataclasses

            fields = []
            for one in self.fields.values():
                said = {name: value for name in _SAID if (value := getattr(one, name)) is not _MISSING}
                fields.append((one.name, one.type, dataclasses.field(**said)))
            self._standard = dataclasses.make_dataclass("Record", fields, init=False, eq=False, frozen=self.frozen)
        return self._standard

    def __get__(self, instance: Any, owner: type) -> Any:
        return self.standard.__dataclass_fields__


_SAID = ("default", "default_factory", "init", "repr", "compare")


class _Parameters:
    """Stands in a class for its `__dataclass_params__`, which a dataclass that inherits from it looks up."""

    def __init__(self, described: _Described) -> None:
        self._described = described

    def __get__(self, instance: Any, owner: type) -> Any:
        return self._described.standard.__dataclass_params__


def _with_slots(cls: type, fields: dict[str, _Field]) -> type:
    """Return the class anew with slots for its own fields: a class that exists cannot get them."""
    inherited = {name for base in cls.__mro__[1:-1] for name in vars(base).get("__slots__", ())}
    space = {name: value for name, value in vars(cls).items() if name not in fields}
    space["__slots__"] = tuple([name for name in fields if name not in inherited])
    for name in ("__dict__", "__weakref__"):
        space.pop(name, None)
    made = type(cls)(cls.__name__, cls.__bases__, space)
    made.__qualname__ = cls.__qualname__
    return made


class _Init:
    """Stands in a class for its `__init__`, and takes itself away when that is first looked up."""

    def __init__(self, cls: type, fields: tuple[_Field, ...], frozen: bool) -> None:
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


def _compiled_init(cls: type, fields: tuple[_Field, ...], frozen: bool) -> Callable[..., None]:
    known: dict[str, Any] = {"_set": object.__setattr__, "_missing": _MISSING}
    parameters, lines = [], []
    for one in fields:
        name = one.name
        value = name
        if one.default is not _MISSING:
            known[f"_default_{name}"] = one.default
            default = f" = _default_{name}"
        elif one.default_factory is not _MISSING:
            known[f"_factory_{name}"] = one.default_factory
            default = " = _missing"
            value = f"_factory_{name}() if {name} is _missing else {name}" if one.init else f"_factory_{name}()"
        else:
            default = ""
        if one.init:
            parameters.append(name + default)
        elif one.default_factory is _MISSING:
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
    init.__annotations__ = {one.name: one.type for one in fields if one.init} | {"return": None}
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


def _replace(self: Any, /, **changes: Any) -> Any:
    """Return a copy with other values of some fields: `copy.replace` of Python 3.13."""
    import dataclasses

    return dataclasses.replace(self, **changes)


def refuse_assignment(self: Any, name: str, value: Any) -> Never:
    """Raise FrozenInstanceError: the `__setattr__` of a frozen class."""
    from dataclasses import FrozenInstanceError

    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def refuse_deletion(self: Any, name: str) -> Never:
    """Raise FrozenInstanceError: the `__delattr__` of a frozen class."""
    from dataclasses import FrozenInstanceError

    raise FrozenInstanceError(f"cannot delete field {name!r}")


def _pickling(names: list[str]) -> dict[str, Any]:
    """Return the methods that pickle a frozen object with slots, which cannot be assigned to."""

    def state(self: Any) -> list[Any]:
        return [getattr(self, name) for name in names]

    def restore(self: Any, values: list[Any]) -> None:
        for name, value in zip(names, values, strict=False):
            object.__setattr__(self, name, value)

    return {"__getstate__": state, "__setstate__": restore}
