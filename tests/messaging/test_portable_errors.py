"""The form in which an error travels to another process."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import pytest

from suitkaise import WorkerFailed
from suitkaise.messaging.portable_errors import portable_error


class Thing:
    """Has no text but its address."""


class Changed(Exception):
    """A copy of it says something else."""

    def __reduce__(self) -> Any:
        return Changed, ("less",)


class Refused(Exception):
    """Cannot be copied."""

    def __reduce__(self) -> Any:
        raise TypeError("not this one")


class Exits(Exception):
    """Ends who copies it."""

    def __reduce__(self) -> Any:
        return sys.exit, (3,)


class LookedAt(Exception):
    """Looks for each attribute in another object, which it does not have yet."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.other, name)


def error_of(call: Callable[[], object]) -> Exception:
    with pytest.raises(Exception) as raised:
        call()
    return raised.value


def fails(error: Exception) -> Callable[[], object]:
    def fail() -> None:
        raise error

    return fail


@pytest.mark.parametrize(
    "error",
    [
        ValueError("too large"),
        KeyError(Thing()),
        LookupError("no handler for", Thing()),
        ValueError(Thing),
        ValueError({f"name-{number}" for number in range(30)}),
        FileNotFoundError(2, "No such file or directory", "somewhere"),
        error_of(lambda: json.loads("{1: 2}")),
        error_of(lambda: "ä".encode("ascii")),
    ],
    ids=["text", "an object", "two arguments", "a class", "a set", "of the system", "of json", "of a codec"],
)
def test_an_error_keeps_its_type_and_its_attributes(error: Exception) -> None:
    copy, _ = portable_error(error_of(fails(error)), "app/worker")
    assert type(copy) is type(error)
    assert len(copy.args) == len(error.args)
    for name in ("errno", "filename", "lineno", "pos", "start"):
        assert getattr(copy, name, None) == getattr(error, name, None)


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(Changed("more"), id="changed"),
        pytest.param(Refused("five"), id="refused"),
        pytest.param(Exits("now"), id="exits"),
        pytest.param(
            LookedAt("odd"),
            id="looked at",
            marks=pytest.mark.skipif(sys.version_info >= (3, 13), reason="Python makes its traceback, so it is sent"),
        ),
    ],
)
def test_an_error_that_cannot_be_copied_is_told_with_its_type_and_its_text(error: Exception) -> None:
    copy, text = portable_error(error_of(fails(error)), "app/worker")
    assert type(copy) is WorkerFailed
    assert str(copy) == f"{type(error).__name__}: {error}"
    assert "in fail" in text
