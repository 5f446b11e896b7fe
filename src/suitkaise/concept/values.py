"""How values flow from the blocks of a setup to the main function.

A name that a block sets goes to the main function if the function has a parameter of that name and the caller has not
given a value for it. A function with `**kwargs` gets all names that blocks assign, apart from those of imports,
definitions and loops, and those that begin with `_`. `add({...})` overrides what the caller has given.
"""

from __future__ import annotations

import contextlib
import inspect
import types
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from suitkaise.concept.blocks import Block
from suitkaise.concept.built import BoundBlock
from suitkaise.errors import SpecError
from suitkaise.specs.signatures import parameters_of, signature_of, wrapped_signature_of

__all__ = ["Values", "check_call", "check_missing"]

_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
_VARIABLE = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def check_call(function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Raise SpecError if the function takes no such arguments; blocks may give it the arguments that are missing."""
    signature = _signature_of(function)
    if signature is not None:
        try:
            signature.bind_partial(*args, **kwargs)
        except TypeError as error:
            name = getattr(function, "__name__", function)
            raise SpecError(f"{name}{signature}: {error}; got args={args!r}, kwargs={dict(kwargs)!r}") from None


def check_missing(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], blocks: Sequence[Block]
) -> None:
    """Raise SpecError if the function needs an argument that neither the call nor a block gives in the first loop."""
    signature = _signature_of(function)
    before = [block for block in blocks if block.kind in ("OnStart", "BeforeLoop")]
    if signature is None:
        return
    given = signature.bind_partial(*args, **kwargs).arguments
    by_blocks = {name for block in before for name in block.names}
    may_add = any(block.may_add for block in before)
    for one in signature.parameters.values():
        if one.kind in _VARIABLE or one.default is not one.empty or one.name in given:
            continue
        if one.kind is one.POSITIONAL_ONLY or not (may_add or one.name in by_blocks):
            name = getattr(function, "__name__", function)
            by = (
                "args do not give" if one.kind is one.POSITIONAL_ONLY else "neither the call nor an earlier block gives"
            )
            raise SpecError(f"{name}{signature}: {by} {one.name!r}; got args={args!r}, kwargs={dict(kwargs)!r}")


class Values:
    """The keyword arguments of the main function of one worker."""

    def __init__(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        self._name = getattr(function, "__name__", repr(function))
        self._given = frozenset(kwargs)
        self._dropped: set[tuple[str, str]] = set()
        self._cells: dict[str, list[tuple[str, types.CellType]]] = {}
        try:
            parameters: Mapping[str, inspect.Parameter] = parameters_of(function)
            self._knows = True
        except (TypeError, ValueError):
            parameters, self._knows = {}, False
        self._named = {name for name, one in parameters.items() if one.kind in _NAMED}
        self._takes_any = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters.values())
        self._positional = self._named.intersection(_filled(function, args) if self._knows else ())

    def of(self, bound: BoundBlock) -> dict[str, Any]:
        """Return what the function gets from a block that has just run."""
        kind = bound.block.kind
        if kind not in self._cells:
            self._cells[kind] = [(name, bound.cells[name]) for name in self._flowing(bound.block)]
        found = {}
        for name, cell in self._cells[kind]:
            try:
                found[name] = cell.cell_contents
            except ValueError:  # the block has not set it, or has deleted it
                continue
        if bound.hook.added:
            found.update(self._added(bound, bound.hook.added))
        return found

    def _flowing(self, block: Block) -> list[str]:
        """Return the names of a block that go to the function without `add`."""
        names = self._named.intersection(block.names)
        if self._takes_any:
            names = names.union(block.results)
        return sorted(names - self._given - self._positional)  # a `**kwargs` is to have the same order in each start

    def _added(self, bound: BoundBlock, added: dict[str, Any]) -> dict[str, Any]:
        """Return what the function takes of the values that a block adds."""
        block = bound.block
        for name in added.keys() & self._positional:
            raise TypeError(f"{block.kind} adds {name!r}, but {self._name}() gets it as a positional argument already")
        if self._takes_any or not self._knows:
            return added
        for name in added.keys() - self._named:
            if (block.kind, name) not in self._dropped:
                self._dropped.add((block.kind, name))
                text = f"{block.kind} adds {name!r}, which {self._name}() does not take; it is dropped"
                warnings.warn_explicit(text, RuntimeWarning, bound.function.__code__.co_filename, block.line)
        return {name: value for name, value in added.items() if name in self._named}


def _filled(function: Callable[..., Any], args: tuple[Any, ...]) -> set[str]:
    """Return the names of the parameters that positional arguments fill: also those of what is wrapped."""
    filled = set(signature_of(function).bind_partial(*args).arguments)
    with contextlib.suppress(TypeError, ValueError):  # the wrapper keeps some for itself; what is wrapped is a built-in
        filled |= wrapped_signature_of(function).bind_partial(*args).arguments.keys()
    return filled


def _signature_of(function: Callable[..., Any]) -> inspect.Signature | None:
    try:
        return signature_of(function)
    except (TypeError, ValueError):  # some built-ins have none
        return None
