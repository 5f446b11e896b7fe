"""What a call of a function takes, and whether it makes a coroutine or a generator.

A declaration checks each function and each hook. `inspect` says all that, and takes 10 ms to load; so a plain function
is judged by its code, and `inspect` is loaded for any other one, and for what an error tells.
"""

from __future__ import annotations

import functools
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeGuard

if TYPE_CHECKING:
    import inspect

__all__ = [
    "bare",
    "is_async_function",
    "is_async_generator_function",
    "is_generator_function",
    "misfit",
    "parameters_of",
    "signature_of",
    "surely_takes",
    "wrapped_signature_of",
]

_VARARGS, _VARKEYWORDS, _GENERATOR, _COROUTINE, _ASYNC_GENERATOR = 4, 8, 32, 128, 512
"""Flags of the code of functions, as `inspect` names them (`CO_VARARGS`)."""


def signature_of(function: Callable[..., Any]) -> inspect.Signature:
    """Return the arguments that a call takes, not those of what it wraps: a decorator may give some of its own.

    Raises:
        ValueError, TypeError: they cannot be known, as for some built-ins.
    """
    try:
        return _signature_of(function, follow_wrapped=False)
    except ValueError:
        return wrapped_signature_of(function)  # of `functools.lru_cache`, which gives none


def wrapped_signature_of(function: Callable[..., Any]) -> inspect.Signature:
    """Return the arguments of what a function wraps, or its own. Raises what `signature_of` raises."""
    return _signature_of(function)


def _signature_of(function: Callable[..., Any], **options: Any) -> inspect.Signature:
    """Return the signature; its annotations may name what is there for type checkers alone."""
    import inspect

    if sys.version_info >= (3, 14):  # which evaluates annotations when they are asked for
        from annotationlib import Format

        options["annotation_format"] = Format.FORWARDREF
    return inspect.signature(function, **options)


def parameters_of(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """Return the parameters that a call can name: also those of what is wrapped, if the wrapper takes any keywords.

    Raises:
        ValueError, TypeError: they cannot be known, as for some built-ins.
    """
    own = signature_of(function).parameters
    if not any(one.kind is one.VAR_KEYWORD for one in own.values()):
        return own
    named = {name: one for name, one in own.items() if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)}
    return {**named, **wrapped_signature_of(function).parameters}


def surely_takes(function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Return whether a call with these arguments surely fits; False if it does not, or if `inspect` must tell.

    >>> surely_takes(lambda a, b=1, *, c: None, [1], {"c": 3})
    True
    >>> surely_takes(lambda a, b=1, *, c: None, [1], {})
    False
    """
    if not _is_plain(function):
        return False
    code = function.__code__
    last = code.co_argcount
    positional, names = code.co_varnames[:last], code.co_varnames[: last + code.co_kwonlyargcount]
    filled = min(len(args), last)
    with_default = {*positional[last - len(function.__defaults__ or ()) :], *(function.__kwdefaults__ or ())}
    nameable = names[max(filled, code.co_posonlyargcount) :]
    return (
        (len(args) <= last or bool(code.co_flags & _VARARGS))
        and all(name in nameable or (code.co_flags & _VARKEYWORDS and name not in names) for name in kwargs)
        and all(name in with_default or name in kwargs for name in names[filled:])
    )


def misfit(function: Callable[..., Any], *args: Any) -> str:
    """Return what a function takes and why it cannot be called with these arguments, or an empty text if it may be."""
    if surely_takes(function, args, {}):
        return ""
    try:
        signature = signature_of(function)
    except (ValueError, TypeError):
        return ""
    try:
        signature.bind(*args)
    except TypeError as error:
        return f"{signature}: {error}"
    return ""


def is_async_function(function: Any) -> bool:
    """Return whether a call of the function makes a coroutine, as far as its definition shows."""
    function = bare(function)
    if _is_plain(function):
        return bool(function.__code__.co_flags & _COROUTINE)
    import inspect

    return inspect.iscoroutinefunction(function) or (
        callable(function) and inspect.iscoroutinefunction(type(function).__call__)
    )


def is_generator_function(function: Any) -> bool:
    """Return whether a call of the function makes a generator, async ones included, and runs none of it."""
    return _makes(function, _GENERATOR, "isgeneratorfunction") or is_async_generator_function(function)


def is_async_generator_function(function: Any) -> bool:
    """Return whether a call of the function makes an async generator, and runs none of it."""
    return _makes(function, _ASYNC_GENERATOR, "isasyncgenfunction")


def _makes(function: Any, flag: int, judge: str) -> bool:
    function = bare(function)
    if _is_plain(function):
        return bool(function.__code__.co_flags & flag)
    if not callable(function):
        return False
    import inspect

    return bool(getattr(inspect, judge)(function))


def _is_plain(function: Any) -> TypeGuard[types.FunctionType]:
    """Return whether this is a function of Python without attributes, which can tell `inspect` something else."""
    return isinstance(function, types.FunctionType) and not vars(function)


def bare(function: Any) -> Any:
    """Return the function of a partial one."""
    while isinstance(function, (functools.partial, functools.partialmethod)):
        function = function.func
    return function
