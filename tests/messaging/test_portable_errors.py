"""The form in which an error travels to another process."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from typing import Any

import pytest

from suitkaise import Backoff, SuitkaiseError, WorkerFailed
from suitkaise.messaging.identity import split_owner
from suitkaise.messaging.portable_errors import crash_and_answer, portable_error


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


def wrong_use() -> None:
    Backoff(initial=-1.0)


def wraps() -> None:
    try:
        wrong_use()
    except SuitkaiseError as error:
        raise RuntimeError("no backoff") from error


def retries() -> None:
    try:
        wrong_use()
    except SuitkaiseError:
        wrong_use()


def calls_back() -> None:
    sorted([1], key=lambda item: wrong_use())


def frames(text: str) -> list[str]:
    """Return the functions of the frames in a traceback, in their order."""
    return re.findall(r'^ *File ".*", line [0-9]+, in (.*)$', text, re.MULTILINE)


@pytest.mark.parametrize(
    "call, shown",
    [
        (wrong_use, ["error_of", "wrong_use"]),
        (wraps, ["wraps", "wrong_use", "error_of", "wraps"]),
        (retries, ["retries", "wrong_use", "error_of", "retries", "wrong_use"]),
        (calls_back, ["error_of", "calls_back", "<lambda>", "wrong_use"]),
    ],
)
def test_a_traceback_ends_where_the_program_calls_what_raises_an_error_of_suitkaise(
    call: Callable[[], object], shown: list[str]
) -> None:
    _, text = portable_error(error_of(call), "app/worker")
    assert frames(text) == shown
    assert "SpecError: " in text


def test_an_error_that_suitkaise_does_not_raise_on_purpose_shows_all_frames() -> None:
    _, text = portable_error(error_of(lambda: split_owner("no number")), "app/worker")
    assert frames(text) == ["error_of", "<lambda>", "split_owner"]


def test_an_error_that_passes_many_workers_shows_the_traceback_of_each_once() -> None:
    error = ValueError("no")
    error.add_note("a note of the program's own")
    for _ in range(8):
        _, answer = crash_and_answer("on_receive", error_of(fails(error)), "app/worker")
        assert isinstance(answer, ValueError)
        error = answer
    own, remote = error.__notes__
    assert own == "a note of the program's own"
    assert frames(remote) == ["error_of", "fail"] * 8
