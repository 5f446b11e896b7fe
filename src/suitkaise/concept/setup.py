"""The `with` statements that set a worker up: `ProcessSetup`, `ThreadSetup`, and the blocks inside of them.

The blocks run later, in the worker. Where they are written, the `__enter__` of the first one raises a private
exception, which the `__exit__` of the setup swallows. So none of them is entered; the later ones are read from the
syntax tree.
"""

from __future__ import annotations

import ast
import importlib
import linecache
import math
import os
import sys
import types
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self, TypeVar

from suitkaise.concept.blocks import Block, Blocks, compile_blocks
from suitkaise.concept.capture import WithStatement, error_at, future_flags, with_statement_of
from suitkaise.errors import CaptureError, SpecError

__all__ = [
    "AfterLoop",
    "BeforeLoop",
    "BoundBlock",
    "BuiltSetup",
    "Hook",
    "OnFinish",
    "OnStart",
    "ProcessSetup",
    "Setup",
    "ThreadSetup",
]

S = TypeVar("S", bound="Setup")

_open: dict[types.FrameType, Setup] = {}
"""The innermost setup that each frame is writing."""


class _Written(BaseException):
    """Raised at the first block, to leave the `with` statement of the setup."""


# ------------------------------------------------------------ the blocks
class Hook:
    """The base of the blocks: `with OnStart() as start:`."""

    add_for_next: bool = False
    added: dict[str, Any] | None = None

    def __enter__(self) -> Self:
        frame = sys._getframe(1)
        setup = _open.get(frame)
        if setup is None:
            raise error_at(
                frame.f_code.co_filename,
                frame.f_lineno,
                f"`with {type(self).__name__}()` must stand directly in a `with ProcessSetup() as setup:` or "
                "`with ThreadSetup() as setup:`, in the same function",
            )
        raise setup._written_from(self, frame)

    def __exit__(self, *error: object) -> None: ...

    def add(self, values: Mapping[str, Any] = types.MappingProxyType({}), /, **named: Any) -> None:
        """Pass values to the main function, by the names of its parameters; for use inside of the block.

        They take precedence over the arguments that the process or thread was created with. A name that the function
        does not take is dropped, with a warning.

        Raises:
            RuntimeError: the block does not run.
        """
        if self.added is None:
            raise RuntimeError(f"{type(self).__name__}.add() is for the inside of the block, which runs in the worker")
        self.added.update(values, **named)

    add_these = add


class OnStart(Hook):
    """Runs once, first. The names that it sets go to the main function, in every loop."""


class BeforeLoop(Hook):
    """Runs before each loop. The names that it sets go to the main function, in this loop."""


class AfterLoop(Hook):
    """Runs after each loop. With `add_for_next`, the names that it sets go to the main function, in the next loop."""

    def __init__(self, add_for_next: bool = False) -> None:
        self.add_for_next = add_for_next


class OnFinish(Hook):
    """Runs once, before a clean end."""


# ------------------------------------------------------------ the setups
class _SetupType(type):
    """Lets `with ThreadSetup as setup:` work without parentheses."""

    def __enter__(cls: type[S]) -> S:  # type: ignore[misc]
        setup = cls()
        setup._begin(sys._getframe(1))
        return setup

    def __exit__(cls, kind: object, error: BaseException | None, traceback: object) -> bool:
        return _open[sys._getframe(1)].__exit__(kind, error, traceback)


class Setup(metaclass=_SetupType):
    """The base of `ProcessSetup` and `ThreadSetup`."""

    __slots__ = ("_around", "_built", "_first", "_frame", "_statement", "_written")

    def __init__(self) -> None:
        self._built: BuiltSetup | None = BuiltSetup()
        self._frame: types.FrameType | None = None
        self._first: tuple[ast.With, Hook] | None = None

    def __enter__(self) -> Self:
        self._begin(sys._getframe(1))
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> bool:
        frame, statement, first = self._frame, self._statement, self._first
        assert frame is not None
        self._frame = self._first = None
        del _open[frame]
        if self._around is not None:
            _open[frame] = self._around
        if error is None:
            self._built = BuiltSetup()
        if first is None or error is not self._written:
            return False
        self._written.__traceback__ = None
        try:
            self._built = _capture(statement, first, frame)
        except CaptureError as refusal:
            raise refusal.with_traceback(None) from None
        return True

    def build(self) -> BuiltSetup:
        """Return what was set up, for `create_process` or `create_thread`.

        Raises:
            SpecError: the `with` statement has not ended yet, or ended with an error.
        """
        if self._built is None:
            raise SpecError(f"{type(self).__name__}: build() must stand after the `with` statement")
        return self._built

    def __reduce__(self) -> Any:
        raise TypeError(f"a {type(self).__name__} cannot be sent; send what its build() returns")

    def _begin(self, frame: types.FrameType) -> None:
        self._statement: WithStatement = with_statement_of(frame)
        if len(self._statement.node.items) > 1:
            raise self._statement.error("the setup must have a `with` statement of its own")
        self._built, self._first, self._frame, self._written = None, None, frame, _Written()
        self._around = _open.get(frame)
        _open[frame] = self

    def _written_from(self, hook: Hook, frame: types.FrameType) -> BaseException:
        """Take note of the first block; return what the block is to raise."""
        node = self._statement.block_at(frame)
        if node is None:
            raise error_at(
                frame.f_code.co_filename,
                frame.f_lineno,
                f"the block {type(hook).__name__} must stand directly in the setup, not inside of an `if`, a loop or "
                "another statement; write a class instead if its code depends on a condition",
            )
        self._first = node, hook
        return self._written


class ProcessSetup(Setup):
    """Sets a process up: `with ProcessSetup() as setup:`, with the blocks inside. Then call `setup.build()`."""

    __slots__ = ()


class ThreadSetup(Setup):
    """Sets a thread up, as `ProcessSetup` does a process. The thread calls its function once by default.

    Attributes:
        loop_infinitely: call the function again and again until the thread is asked to rejoin.
        num_loops: call the function this many times.
    """

    __slots__ = ("loop_infinitely", "num_loops")

    def __init__(self) -> None:
        super().__init__()
        self.loop_infinitely: bool = False
        self.num_loops: int | None = None

    def build(self) -> BuiltSetup:
        """Return what was set up, as `ProcessSetup` does.

        Raises:
            SpecError: as there; or both `loop_infinitely` and `num_loops` are set.
        """
        if self.loop_infinitely and self.num_loops is not None:
            raise SpecError("ThreadSetup: set loop_infinitely or num_loops, not both")
        loops = math.inf if self.loop_infinitely else self.num_loops
        return replace(super().build(), num_loops=loops)


# ------------------------------------------------------------ what a setup is built to
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
        self.function(self.hook)


@dataclass(frozen=True, slots=True, eq=False)
class BuiltSetup:
    """What `build()` returns. Each start of a worker runs its blocks with variables of their own."""

    factory: types.FunctionType | None = None
    blocks: tuple[Block, ...] = ()
    outer: Mapping[str, Any] = field(default_factory=dict)
    add_for_next: bool = False
    num_loops: float | None = None
    """The number of loops that a `ThreadSetup` asks for; infinity: `loop_infinitely`; None: neither."""

    def bind(self) -> dict[str, BoundBlock]:
        """Make the blocks of one worker, by their kinds."""
        if self.factory is None:
            return {}
        functions = self.factory()
        cells = {name: cell for one in functions for name, cell in _cells_of(one).items()}
        for name, value in self.outer.items():
            cells[name].cell_contents = value
        bound = {}
        for block, function in zip(self.blocks, functions, strict=True):
            hook = AfterLoop(self.add_for_next) if block.kind == "AfterLoop" else _KINDS[block.kind]()
            bound[block.kind] = BoundBlock(block, hook, function, {name: cells[name] for name in block.names})
        return bound

    def __reduce__(self) -> Any:
        rest = self.blocks, dict(self.outer), self.add_for_next, self.num_loops
        factory: Any = self.factory
        if factory is None:
            return BuiltSetup, (None, *rest)
        name, code = factory.__module__, factory.__code__
        module = sys.modules.get(name)
        is_importable = name != "__main__" and getattr(module, "__spec__", None) is not None
        if is_importable and vars(module) is factory.__globals__:
            return _built_in_module, (name, code, *rest)
        lines = None if os.path.exists(code.co_filename) else linecache.getlines(code.co_filename)
        return _built_by_value, (factory, lines, *rest)


_KINDS: dict[str, type[Hook]] = {one.__name__: one for one in (OnStart, BeforeLoop, AfterLoop, OnFinish)}


def _cells_of(function: types.FunctionType) -> dict[str, types.CellType]:
    return dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))


def _built_in_module(module: str, code: types.CodeType, *rest: Any) -> BuiltSetup:
    """Rebuild a setup of a module that can be imported: its blocks use the globals of the module itself."""
    return BuiltSetup(types.FunctionType(code, vars(importlib.import_module(module))), *rest)


def _built_by_value(factory: types.FunctionType, lines: list[str] | None, *rest: Any) -> BuiltSetup:
    """Rebuild another setup. `lines` is the text of a notebook cell, for tracebacks."""
    name = factory.__code__.co_filename
    if lines and name not in linecache.cache:
        linecache.cache[name] = sum(map(len, lines)), None, lines, name
    return BuiltSetup(factory, *rest)


# ------------------------------------------------------------ capturing
def _capture(statement: WithStatement, first: tuple[ast.With, Hook], frame: types.FrameType) -> BuiltSetup:
    """Take the blocks of a setup, whose first one is known."""
    body = statement.node.body
    nodes: list[ast.With] = []
    for node in body[body.index(first[0]) :]:
        if isinstance(node, ast.With):
            nodes.append(node)
        elif not isinstance(node, ast.Pass):
            raise statement.error("after the first block, only blocks may stand in a setup; put this above it", node)
    hooks = [first[1], *_hooks_of(statement, nodes[1:], frame)]
    kinds = [type(hook).__name__ for hook in hooks]
    for position, (node, hook, kind) in enumerate(zip(nodes, hooks, kinds, strict=True)):
        if not isinstance(hook, Hook) or kind not in _KINDS:
            raise statement.error("after the first block, only blocks may stand in a setup; put this above it", node)
        if len(node.items) > 1:
            raise statement.error(f"{kind} must have a `with` statement of its own; put the others inside of it", node)
        if kind in kinds[:position]:
            raise statement.error(f"the setup has two {kind} blocks; put them together", node)
    compiled = compile_blocks(statement, nodes, kinds, frame)
    factory = types.FunctionType(compiled.code, frame.f_globals)
    return BuiltSetup(
        factory,
        compiled.blocks,
        _values_of(compiled, statement, frame),
        any(hook.add_for_next for hook in hooks),
    )


def _hooks_of(statement: WithStatement, nodes: list[ast.With], frame: types.FrameType) -> list[Any]:
    """Evaluate the managers of the later blocks, as the user's code would: `AfterLoop(add_for_next=True)`."""
    if not nodes:
        return []
    value = ast.Tuple([node.items[0].context_expr for node in nodes], ast.Load())
    body: list[ast.stmt] = [ast.Assign([ast.Name(".hooks", ast.Store())], value)]
    place = ast.ClassDef(statement.class_name or "_", [], [], body, [])  # private names depend on the class
    tree = ast.Module([ast.fix_missing_locations(ast.copy_location(place, nodes[0]))], [])
    code = compile(tree, statement.source.filename, "exec", future_flags(frame.f_code), dont_inherit=True)
    names = dict(frame.f_locals)
    exec(next(one for one in code.co_consts if isinstance(one, types.CodeType)), frame.f_globals, names)  # noqa: S102
    return list(names[".hooks"])


def _values_of(compiled: Blocks, statement: WithStatement, frame: types.FrameType) -> dict[str, Any]:
    """Return the values that the names around the setup have now."""
    values = {name: frame.f_locals[name] for name in compiled.outer if name in frame.f_locals}
    for name in compiled.outer:
        if name not in values:
            uses = (part for part in ast.walk(statement.node) if isinstance(part, ast.Name) and part.id == name)
            raise statement.error(
                f"{name!r} is used in a block, but has no value here where the setup is written", next(uses, None)
            )
    return values
