"""What a call takes and makes, judged by the code of a function, is what `inspect` says."""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from suitkaise.specs.signatures import (
    is_async_function,
    is_async_generator_function,
    is_generator_function,
    signature_of,
    surely_takes,
)

NAMES = ("a", "b", "c", "d", "e")


@st.composite
def functions(draw: st.DrawFn) -> types.FunctionType:
    """Functions of up to five parameters of all kinds, with and without default values."""
    names = list(NAMES[: draw(st.integers(0, 5))])
    first, second = sorted((draw(st.integers(0, len(names))), draw(st.integers(0, len(names)))))
    defaults = draw(st.integers(0, second))
    positional = [name if number < second - defaults else f"{name}=0" for number, name in enumerate(names[:second])]
    by_name = [draw(st.sampled_from([name, f"{name}=0"])) for name in names[second:]]
    if first:
        positional.insert(first, "/")
    if draw(st.booleans()):
        by_name = ["*rest", *by_name]
    elif by_name:
        by_name = ["*", *by_name]
    parts = [*positional, *by_name, *draw(st.sampled_from([[], ["**others"]]))]
    made: types.FunctionType = eval(f"lambda {', '.join(parts)}: None")
    return made


@given(functions(), st.lists(st.integers(), max_size=6), st.dictionaries(st.sampled_from([*NAMES, "x"]), st.integers()))
def test_a_function_of_python_takes_what_a_call_of_it_takes(
    function: types.FunctionType, args: list[int], kwargs: dict[str, int]
) -> None:
    try:
        function(*args, **kwargs)
        fits = True
    except TypeError:
        fits = False
    judged = surely_takes(function, args, kwargs)
    code = function.__code__
    takes_a_name_twice = code.co_flags & inspect.CO_VARKEYWORDS and set(kwargs) & set(
        code.co_varnames[: code.co_posonlyargcount]
    )  # `lambda a, /, **others` takes a=1 among the others: rare, so it is left to `inspect`
    assert judged == fits or (fits and takes_a_name_twice)


@functools.lru_cache
def cached(a: int) -> int:
    return a


def twice(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*args: Any) -> Any:
        return function(*args), function(*args)

    return call


@twice
def wrapped(a: int) -> int:
    return a


def described(*args: Any) -> None: ...


described.__signature__ = inspect.Signature()  # type: ignore[attr-defined]


@pytest.mark.parametrize("function", [cached, wrapped, described, functools.partial(cached, 1), print, int, None])
def test_what_is_no_plain_function_is_left_to_inspect(function: Any) -> None:
    assert not surely_takes(function, [1], {})


async def coroutine() -> None: ...


def generator() -> Iterator[int]:
    yield 1


async def async_generator() -> AsyncIterator[int]:
    yield 1


@types.coroutine
def old_coroutine() -> Iterator[None]:
    yield


class CalledAsync:
    async def __call__(self) -> None: ...

    async def method(self) -> None: ...

    def generate(self) -> Iterator[int]:
        yield 1


@pytest.mark.parametrize(
    "function, is_async, generates, generates_async",
    [
        (lambda: None, False, False, False),
        (print, False, False, False),
        (None, False, False, False),
        (coroutine, True, False, False),
        (functools.partial(functools.partial(coroutine)), True, False, False),
        (generator, False, True, False),
        (functools.partial(generator), False, True, False),
        (async_generator, False, True, True),
        (old_coroutine, False, True, False),
        (CalledAsync(), True, False, False),
        (CalledAsync().method, True, False, False),
        (CalledAsync().generate, False, True, False),
        (CalledAsync, False, False, False),
    ],
)
def test_a_function_makes_a_coroutine_or_a_generator_as_inspect_says(
    function: Any, is_async: bool, generates: bool, generates_async: bool
) -> None:
    assert is_async_function(function) == is_async
    assert is_generator_function(function) == generates
    assert is_async_generator_function(function) == generates_async


def test_the_signature_of_a_decorated_function_is_its_own() -> None:
    assert list(signature_of(wrapped).parameters) == ["args"]
    assert list(signature_of(cached).parameters) == ["a"]
