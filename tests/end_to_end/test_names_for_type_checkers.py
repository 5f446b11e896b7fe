"""Annotations may name what is there for type checkers alone: Python 3.14 evaluates them when they are asked for."""

from __future__ import annotations

import sys
import typing

import pytest

from suitkaise.messaging import codec
from tests.support import run_program

PROGRAM = """
from __future__ import annotations
import dataclasses
from typing import TYPE_CHECKING
from suitkaise import Child, Process, SpecError, Supervisor, xprocess
from suitkaise.pools import ProcessPool

if TYPE_CHECKING:
    from decimal import Decimal

def price(x: Decimal, y: Decimal = 2) -> Decimal:
    return x

@dataclasses.dataclass
class Line:
    price: Decimal
    limit: Decimal | None = None

class Book(Process):
    limit: Decimal

    def __init__(self, start: Decimal = 1) -> None:
        self.total: Decimal = start

    def on_receive(self, line: Line) -> Decimal:
        return price(line.price) + self.total

    def add(self, other: Later) -> Later:
        return other

class Later: ...

with Supervisor("app", Book(2)).start() as running:
    book = running["book"]
    untyped, typed = book.proxy().add(Later()).get(), book.proxy(Book).add(Later())
    print(book.ask(Line(3)), type(untyped).__name__, type(typed).__name__)
    try:
        book.proxy(Book).add(1, 2)
    except TypeError as error:
        print(error)
try:
    Child(Book, args=(1, 2))
except (SpecError, TypeError) as error:
    print(str(error).replace("'", ""))
with ProcessPool(1, initializer=price, initargs=(1,)) as pool:
    print(pool.submit(price, 3).result(), pool.submit(lambda x: x.price, Line(4)).result())
xp = xprocess.CrossProcessing()
work = xp.create_process("work", price, args=(5,), kwargs={"num_loops": 1})
xp.join_all()
print(work.result())
"""


@pytest.mark.parametrize("when", ["as text", "when it is asked for"])
def test_what_runs_in_workers_may_have_annotations_for_type_checkers_alone(when: str) -> None:
    if when != "as text" and sys.version_info < (3, 14):
        pytest.skip("the annotations of Python 3.14")
    source = PROGRAM if when == "as text" else PROGRAM.replace("from __future__ import annotations", "")
    ended = run_program(source).check()
    assert ended.stdout.replace("'", "").splitlines() == [
        "5 Later Later",
        "add(): too many positional arguments",
        "Book(start: Decimal = 1) -> None: too many positional arguments; got args=(1, 2), kwargs={}",
        "3 4",
        "5",
    ]


KINDS = """
import dataclasses
from typing import NamedTuple, get_type_hints
import msgspec
from suitkaise.pools import ProcessPool

class Later: ...

@dataclasses.dataclass
class Data:
    number: int
    later: Later

class Struct(msgspec.Struct):
    number: int
    later: list[int]

class Pair(NamedTuple):
    number: int
    later: Later

class Plain:
    number: int
    later: Later

def function(number: int, later: Later): ...

def hints(owner):
    return {name: getattr(hint, "__name__", str(hint)) for name, hint in get_type_hints(owner).items()}

with ProcessPool(1) as pool:
    for owner in (Data, Struct, Pair, Plain, function):
        print(pool.submit(hints, owner).result() == hints(owner), len(hints(owner)))
"""


@pytest.mark.parametrize("texts", [False, True])
def test_classes_and_functions_of_a_script_keep_their_annotations_in_a_worker(texts: bool) -> None:
    ended = run_program(("from __future__ import annotations\n" if texts else "") + KINDS).check()
    assert ended.stdout == "True 2\n" * 5


def test_a_reference_to_a_type_by_its_name_is_sent_without_what_is_around_it() -> None:
    reference = typing.ForwardRef("Later", is_class=True)
    received = codec.loads(codec.dumps({"of": reference, "list": list[typing.ForwardRef("Later")]}))  # type: ignore[misc]
    assert received["of"] == reference
    assert received["of"].__forward_arg__ == "Later"
    assert received["list"] == list[typing.ForwardRef("Later")]  # type: ignore[misc]
