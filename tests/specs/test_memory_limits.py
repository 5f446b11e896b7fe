"""`max_memory`: sizes as people write them, and where the option makes no sense (rule 83)."""

from __future__ import annotations

import math
from typing import Any

import pytest

from suitkaise import Child, Command, Process, SpecError, Supervisor, Thread


class Worker(Process):
    max_memory = "1.5 GiB"


class Other(Thread): ...


@pytest.mark.parametrize(
    "given, size",
    [("200 MiB", 200 << 20), ("200MiB", 200 << 20), ("0.5 gib", 1 << 29), (" 3 MB ", 3_000_000), ("1 TB", 10**12),
     (1 << 20, 1 << 20), (2e7, 20_000_000), (None, None)],
)  # fmt: skip
def test_s83_a_size_is_a_text_with_a_unit_or_bytes(given: Any, size: int | None) -> None:
    assert Child(Process, max_memory=given).max_memory == size
    assert Child(Command("true"), max_memory=given).max_memory == size


def test_s83_the_class_may_have_the_limit_and_changed_declarations_keep_it() -> None:
    assert Child(Worker).max_memory == 3 << 29
    assert Child(Worker, max_memory=None).max_memory is None
    child = Child(Process, id="a", max_memory="2 MiB", copies=2)
    for one in (child.replace(restart="transient"), *child.expanded(), child.renamed("b")):
        assert one.max_memory == 2 << 20
    assert Child(Process).max_memory is None


@pytest.mark.parametrize(
    "wrong", [200, 0, -1, True, math.inf, math.nan, "200 bytes", "200 M", "MiB", "1 KiB", "-5 MiB", [1]]
)
def test_s83_what_is_no_size_is_an_error_that_tells_the_right_form(wrong: Any) -> None:
    with pytest.raises(SpecError, match=r"Child 'p': max_memory must be a size of at least 1 MiB \('200 MiB'"):
        Child(Process, id="p", max_memory=wrong)


def test_s83_the_limit_is_refused_where_it_makes_no_sense() -> None:
    with pytest.raises(SpecError, match="max_memory makes no sense here: the memory of a thread is the program's"):
        Child(Other, max_memory="1 GiB")
    with pytest.raises(SpecError, match="max_memory makes no sense here: each child of the supervisor has its own"):
        Child(Supervisor("below"), max_memory="1 GiB")
    with pytest.raises(SpecError, match="max_memory makes no sense here: a temporary child is never restarted"):
        Child(Process, max_memory="1 GiB", restart="temporary")
