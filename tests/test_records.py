"""`records.dataclass` makes the same classes as the decorator of the standard library."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
import sys
import types
from dataclasses import FrozenInstanceError
from types import ModuleType
from typing import Any, ClassVar

import pytest

from suitkaise import records

both = pytest.mark.parametrize("maker", [dataclasses, records], ids=["standard", "ours"])


def point(maker: ModuleType, **options: Any) -> Any:
    class Point:
        """A point."""

        kind: ClassVar[str] = "point"
        x: int
        y: int = 2
        tags: list[str] = maker.field(default_factory=list)
        note: str = maker.field(default="", compare=False, repr=False)

    return maker.dataclass(**{"frozen": True, "slots": True, **options})(Point)


def named(maker: ModuleType) -> type:
    class Named:
        """Has a part that its constructor does not take."""

        name: str
        length: int = maker.field(init=False, compare=False)

        def __post_init__(self) -> None:
            object.__setattr__(self, "length", len(self.name))

    return Named


@records.dataclass(frozen=True, slots=True)
class Sent:
    """Can be pickled."""

    a: int
    b: tuple[int, ...] = ()


@both
def test_a_record_is_made_compared_and_shown_by_its_fields(maker: ModuleType) -> None:
    Point = point(maker)
    one = Point(1, note="first")
    assert (one.x, one.y, one.tags, one.note, one.kind) == (1, 2, [], "first", "point")
    assert repr(one).endswith("Point(x=1, y=2, tags=[])")
    assert one == Point(1, 2, note="second") != Point(2)
    assert one != (1, 2, [])
    assert Point.__match_args__ == ("x", "y", "tags", "note")
    assert [one.name for one in dataclasses.fields(Point)] == ["x", "y", "tags", "note"]
    assert dataclasses.replace(one, y=5) == Point(1, 5)
    assert dataclasses.asdict(one) == {"x": 1, "y": 2, "tags": [], "note": "first"}
    assert list(inspect.signature(Point).parameters) == ["x", "y", "tags", "note"]
    assert Point(1).tags is not Point(1).tags
    with pytest.raises(TypeError, match=r"missing 1 required positional argument: 'x'"):
        Point()


@both
def test_a_frozen_record_cannot_be_changed_and_has_a_hash(maker: ModuleType) -> None:
    Point = point(maker)
    one = Point(1, tags=())
    with pytest.raises(FrozenInstanceError, match="cannot assign to field 'x'"):
        one.x = 2
    with pytest.raises(FrozenInstanceError, match="cannot delete field 'x'"):
        del one.x
    assert hash(one) == hash(Point(1, tags=(), note="other"))
    assert not hasattr(one, "__dict__")


@both
def test_a_record_that_is_not_frozen_can_be_changed_and_has_no_hash(maker: ModuleType) -> None:
    one = point(maker, frozen=False)(1)
    one.x = 5
    assert one.x == 5
    with pytest.raises(TypeError, match="unhashable type"):
        hash(one)
    by_identity = point(maker, frozen=False, eq=False)
    assert by_identity(1) != by_identity(1)
    assert hash(by_identity(1)) is not None


@both
def test_a_record_inherits_fields_and_keeps_methods_of_its_own(maker: ModuleType) -> None:
    base = maker.dataclass(frozen=True, slots=True)(named(maker))

    class Child(base):  # type: ignore[misc]
        """Says its name."""

        size: int = 0

        def __repr__(self) -> str:
            return f"<{self.name}>"

    child = maker.dataclass(frozen=True, slots=True)(Child)("abc", size=3)
    assert (child.name, child.length, child.size, repr(child)) == ("abc", 3, 3, "<abc>")


def test_a_frozen_record_with_slots_can_be_pickled_and_copied() -> None:
    one = Sent(1, (2, 3))
    assert pickle.loads(pickle.dumps(one)) == one == copy.copy(one) == copy.deepcopy(one)


def test_the_constructor_is_compiled_once_and_only_when_it_is_looked_up() -> None:
    made = point(records)
    assert not isinstance(vars(made)["__init__"], types.FunctionType)

    @records.dataclass(frozen=True, slots=True)
    class Child(made):  # type: ignore[misc, valid-type]
        """Without it, the standard library would look up the constructor, to describe it."""

        size: int = 0

    first = made.__init__
    assert isinstance(first, types.FunctionType)
    assert first is made.__init__ is vars(made)["__init__"]
    assert not isinstance(vars(Child)["__init__"], types.FunctionType)
    assert Child(1, 2, [], "", 5).size == 5
    assert isinstance(vars(Child)["__init__"], types.FunctionType)


def test_a_subclass_calls_the_constructor_of_a_record_that_was_not_compiled_yet() -> None:
    made = point(records, frozen=False)

    class Child(made):  # type: ignore[misc, valid-type]
        def __init__(self, x: int) -> None:
            super().__init__(x, note="child")

    assert (Child(3).x, Child(4).x, Child(4).note) == (3, 4, "child")


@both
def test_a_dataclass_of_the_standard_library_inherits_from_a_record(maker: ModuleType) -> None:
    Point = point(maker)

    @dataclasses.dataclass(frozen=True)
    class Named(Point):  # type: ignore[misc, valid-type]
        name: str = "origin"

    one = Named(1, note="first", name="a")
    assert [one.name for one in dataclasses.fields(Named)] == ["x", "y", "tags", "note", "name"]
    assert (one.x, one.y, one.tags, one.note, one.name) == (1, 2, [], "first", "a")
    with pytest.raises(TypeError, match="cannot inherit non-frozen dataclass from a frozen one"):
        dataclasses.dataclass(type("Open", (Point,), {}))


@pytest.mark.skipif(sys.version_info < (3, 13), reason="copy.replace is new in Python 3.13")
@both
def test_copy_replace_makes_a_copy_with_other_values(maker: ModuleType) -> None:
    Point = point(maker)
    replace: Any = vars(copy)["replace"]
    assert replace(Point(1, tags=[3]), y=5) == Point(1, 5, [3])


@both
def test_a_field_of_a_record_is_described_as_the_standard_library_does(maker: ModuleType) -> None:
    described = {one.name: one for one in dataclasses.fields(maker.dataclass(frozen=True)(named(maker)))}
    assert [(one.name, one.type, one.init, one.compare, one.repr) for one in described.values()] == [
        ("name", "str", True, True, True),
        ("length", "int", False, False, True),
    ]
    assert dataclasses.is_dataclass(point(maker))
    assert dataclasses.is_dataclass(point(maker)(1))
    assert [one.default_factory for one in dataclasses.fields(point(maker))][2] is list
