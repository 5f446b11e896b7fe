"""When the bytes of a class or function that is sent by value are made anew."""

from __future__ import annotations

import dataclasses
import enum
import sys
from typing import Any

import msgspec
import pytest

from suitkaise.messaging import codec
from suitkaise.messaging.bundles import reduce_to_bundle

pytestmark = pytest.mark.usefixtures("by_value")

RATE: Any = 3
TABLE: dict[str, Any] = {"a": 1}


class Color(enum.Enum):
    RED = 1


@dataclasses.dataclass
class Point:
    x: int
    y: int = 2


class Record(msgspec.Struct):
    number: int = 0


class Job:
    limit: Any = 10
    names: list[str] = []

    def cost(self) -> Any:
        return RATE * TABLE["a"] * helper(1)


def helper(number: int) -> int:
    return number + len(Point.__name__)


def limited(limit: Any) -> Any:
    def within(job: Any) -> bool:
        return bool(job.cost() < limit)

    def change(new: Any) -> None:
        nonlocal limit
        limit = new

    within.change = change  # type: ignore[attr-defined]
    return within


class Checked:
    within = limited(10)


def bundle(definition: Any) -> bytes:
    """Return the bytes that travel with a value of this definition."""
    _, (_, data, *_) = reduce_to_bundle(definition)
    assert isinstance(data, bytes)
    return data


@pytest.mark.parametrize("definition", [Color, Point, Record, Job, helper])
def test_the_bytes_of_a_definition_are_kept(definition: Any) -> None:
    Point(1).__reduce_ex__(4)  # has copyreg store something in the class
    assert bundle(definition) is bundle(definition)


@pytest.mark.parametrize(
    "owner, name, value",
    [
        (Job, "limit", 99),
        (Job, "names", ["a"]),
        (sys.modules[__name__], "RATE", 4),
        (sys.modules[__name__], "RATE", [4]),
        (sys.modules[__name__], "TABLE", {"a": 2}),
        (sys.modules[__name__], "helper", lambda number: number),
        (helper, "__defaults__", (5,)),
        (Point, "x", 7),
    ],
)
def test_a_change_of_a_class_or_of_what_it_uses_makes_them_anew(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, value: Any
) -> None:
    before = bundle(Job)
    monkeypatch.setattr(owner, name, value, raising=False)
    assert bundle(Job) is not before


def test_a_change_within_a_mutable_global_makes_them_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    before = bundle(Job)
    assert bundle(Job) is before
    monkeypatch.setitem(TABLE, "a", [Color.RED])
    assert bundle(Job) is not before


def test_a_change_within_an_empty_container_of_a_class_makes_them_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Job, "names", [])
    before = bundle(Job)
    Job.names.append("a")
    assert bundle(Job) is not before


def test_a_change_of_what_a_closure_holds_makes_them_anew() -> None:
    before = bundle(Checked)
    assert bundle(Checked) is before
    vars(Checked)["within"].change(20)
    assert bundle(Checked) is not before


def test_a_change_of_an_attribute_of_a_function_makes_them_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    before = bundle(Job)
    monkeypatch.setattr(helper, "unit", "euro", raising=False)
    with_unit = bundle(Job)
    assert with_unit is not before
    monkeypatch.setattr(helper, "unit", "dollar")
    assert bundle(Job) is not with_unit


def test_what_a_module_has_under_no_name_has_no_bundle() -> None:
    class Local: ...

    assert reduce_to_bundle(Local) is None
    assert reduce_to_bundle(lambda: None) is None


class Rebinds:
    """Changes a global while it is encoded, as another thread may do."""

    def __getstate__(self) -> dict[str, int]:
        global CHANGES
        CHANGES = min(CHANGES + 1, 1)
        return {}


REBINDS = Rebinds()
CHANGES = 0


def changes() -> tuple[int, Rebinds]:
    return CHANGES, REBINDS


def test_bytes_that_a_global_has_changed_under_are_made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "CHANGES", 0)
    first = bundle(changes)
    assert bundle(changes) is not first
    assert bundle(changes) is bundle(changes)


LARGE = ""


def test_a_large_text_that_was_sent_with_a_lambda_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "of the program" * len(sys.argv) * 100
    monkeypatch.setattr(sys.modules[__name__], "LARGE", text)
    before = sys.getrefcount(text)
    assert codec.loads(codec.dumps(lambda: LARGE))() is text
    assert sys.getrefcount(text) == before
