"""What a setup is built to: the blocks as functions, ready to be sent and bound in a worker."""

from __future__ import annotations

import copy
import importlib
import linecache
import os
import sys
import types
from collections.abc import Mapping
from typing import Any, Never

from suitkaise.concept.blocks import Block
from suitkaise.messaging.definitions import is_module_by_value
from suitkaise.records import dataclass, field

__all__ = ["BoundBlock", "BuiltSetup", "Hook"]


class Hook:
    """What a block gets by its `as`: `with OnStart() as start:`."""

    add_for_next: bool = False
    added: dict[str, Any] | None = None

    def add(self, values: Mapping[str, Any] = types.MappingProxyType({}), /, *wrong: Never, **named: Any) -> None:
        """Pass values to the main function, by the names of its parameters; for use inside of the block.

        They take precedence over the arguments that the process or thread was created with. A name that the function
        does not take is dropped, with a warning.

        Raises:
            RuntimeError: the block does not run.
            TypeError: something else is given than names with their values.
        """
        if wrong:
            values = (values, *wrong)  # type: ignore[assignment]
        if self.added is None:
            raise RuntimeError(f"{type(self).__name__}.add() is for the inside of the block, which runs in the worker")
        if not isinstance(values, Mapping) or not all(isinstance(name, str) for name in values):
            raise TypeError(
                f"{type(self).__name__}.add() takes names with their values, add({{'name': value}}) or "
                f"add(name=value), not {values!r}"
            )
        self.added.update(values, **named)

    add_these = add

    def __setattr__(self, name: str, value: object) -> None:
        if self.added is not None and name != "added":
            kind = type(self).__name__
            raise AttributeError(
                f"{kind} has no attribute {name!r} to set; add({{{name!r}: ...}}) passes a value to the main function",
                name=name,
            )
        super().__setattr__(name, value)


@dataclass(frozen=True, slots=True)
class BoundBlock:
    """A block of one worker. `cells` has the variables that it sets."""

    block: Block
    hook: Hook
    function: types.FunctionType
    cells: Mapping[str, types.CellType]

    def run(self) -> None:
        """Run the block."""
        self.hook.added = {}
        try:
            self.function(self.hook)
        except NameError as error:
            if error.name in self.function.__code__.co_freevars:
                error.add_note(
                    f"The blocks of a setup share the name {error.name!r}, and none has given it a value yet."
                )
            raise


@dataclass(frozen=True, slots=True, eq=False)
class BuiltSetup:
    """What `build()` returns. Each start of a worker runs its blocks with variables of their own.

    `num_loops` is the number of loops that a `ThreadSetup` asks for; infinity: `loop_infinitely`; None: neither.
    """

    factory: types.FunctionType | None = None
    blocks: tuple[Block, ...] = ()
    hooks: tuple[Hook, ...] = ()
    outer: Mapping[str, Any] = field(default_factory=dict)
    num_loops: float | None = None

    def bind(self) -> dict[str, BoundBlock]:
        """Make the blocks of one worker, by their kinds."""
        functions = () if self.factory is None else self.factory()
        cells: dict[str, types.CellType] = {}
        for one in functions:
            cells.update(zip(one.__code__.co_freevars, one.__closure__ or (), strict=True))
        for name, value in self.outer.items():
            cells[name].cell_contents = value
        return {
            block.kind: BoundBlock(block, copy.copy(hook), function, {name: cells[name] for name in block.names})
            for block, hook, function in zip(self.blocks, self.hooks, functions, strict=True)
        }

    def __reduce__(self) -> Any:
        rest = self.blocks, self.hooks, self.outer, self.num_loops
        factory: Any = self.factory
        if factory is None:
            return BuiltSetup, (None, *rest)
        name, code = factory.__module__, factory.__code__
        module: Any = sys.modules.get(name)
        if not is_module_by_value(name) and getattr(module, "__dict__", None) is factory.__globals__:
            return _built_in_module, (name, code, *rest)
        lines = None if os.path.exists(code.co_filename) else linecache.getlines(code.co_filename)
        return _built_by_value, (factory, lines, *rest)


def _built_in_module(module: str, code: types.CodeType, *rest: Any) -> BuiltSetup:
    """Rebuild a setup of a module that can be imported: its blocks use the globals of the module itself."""
    return BuiltSetup(types.FunctionType(code, vars(importlib.import_module(module))), *rest)


def _built_by_value(factory: types.FunctionType, lines: list[str] | None, *rest: Any) -> BuiltSetup:
    """Rebuild another setup. `lines` is the text of a notebook cell, for tracebacks."""
    name = factory.__code__.co_filename
    if lines and name not in linecache.cache:
        linecache.cache[name] = sum(map(len, lines)), None, lines, name
    return BuiltSetup(factory, *rest)
