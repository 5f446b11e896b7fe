"""The `with` statements that set a worker up: `ProcessSetup`, `ThreadSetup`, and the blocks inside of them.

The blocks run later, in the worker. Where they are written, the `__enter__` of the first one raises a private
exception, which the `__exit__` of the setup swallows. So none of them is entered; the later ones are read from the
syntax tree.
"""

from __future__ import annotations

import ast
import math
import sys
import types
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, Self, TypeVar

from suitkaise.concept.blocks import Blocks, compile_blocks
from suitkaise.concept.built import BuiltSetup, Hook
from suitkaise.concept.capture import WithStatement, error_at, future_flags, with_statement_of
from suitkaise.errors import CaptureError, SpecError
from suitkaise.specs.options import Options, checked_flag

__all__ = [
    "AfterLoop",
    "BeforeLoop",
    "BuiltSetup",
    "OnFinish",
    "OnStart",
    "ProcessSetup",
    "Setup",
    "ThreadSetup",
    "WrittenHook",
]

S = TypeVar("S", bound="Setup")
H = TypeVar("H", bound="WrittenHook")

_open: dict[types.FrameType, Setup] = {}
"""The innermost setup that each frame is writing."""


class _Written(BaseException):
    """Raised at the first block, to leave the `with` statement of the setup."""


# ------------------------------------------------------------ the blocks
class _HookType(type):
    """Lets `with OnStart as start:` work without parentheses."""

    def __enter__(cls: type[H]) -> H:  # type: ignore[misc]
        return cls()._enter(sys._getframe(1))

    def __exit__(cls, *error: object) -> None: ...


class WrittenHook(Hook, metaclass=_HookType):
    """The base of the blocks, as they are written: `with OnStart() as start:`."""

    kind: ClassVar[str]

    def __enter__(self) -> Self:
        return self._enter(sys._getframe(1))

    def _enter(self, frame: types.FrameType) -> Self:
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


class OnStart(WrittenHook):
    """Runs once, first. The names that it sets go to the main function, in every loop."""

    kind = "OnStart"


class BeforeLoop(WrittenHook):
    """Runs before each loop. The names that it sets go to the main function, in this loop."""

    kind = "BeforeLoop"


class AfterLoop(WrittenHook):
    """Runs after each loop. With `add_for_next`, the names that it sets go to the main function, in the next loop."""

    kind = "AfterLoop"

    def __init__(self, add_for_next: bool = False) -> None:
        self.add_for_next: bool = checked_flag(type(self).__name__, "add_for_next", add_for_next)


class OnFinish(WrittenHook):
    """Runs once, before a clean end."""

    kind = "OnFinish"


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

    _options: ClassVar[str] = "those of a process go into the kwargs of create_process, such as {'join_after': 3}"
    _statement: WithStatement

    def __init__(self) -> None:
        self._built: BuiltSetup | None = BuiltSetup()
        self._frame: types.FrameType | None = None
        self._around: Setup | None = None
        self._first: tuple[ast.With, WrittenHook] | None = None
        self._written = _Written()

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
        self._written = _Written()  # the one that was raised holds on to what was being handled
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

    def __setattr__(self, name: str, value: object) -> None:
        try:
            super().__setattr__(name, value)
        except AttributeError:
            raise AttributeError(f"{type(self).__name__} has no option {name!r}; {self._options}", name=name) from None

    if not TYPE_CHECKING:  # else a type checker would let each name pass

        def __getattr__(self, name: str) -> NoReturn:
            block = name in (block.__name__ for block in (OnStart, BeforeLoop, AfterLoop, OnFinish))
            hint = f"; import {name}, and write `with {name}():` inside of the setup" if block else ""
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}{hint}", name=name, obj=self)

    def __reduce__(self) -> Any:
        raise TypeError(f"a {type(self).__name__} cannot be sent; send what its build() returns")

    def _begin(self, frame: types.FrameType) -> None:
        self._statement = with_statement_of(frame)
        if len(self._statement.node.items) > 1:
            raise self._statement.error("the setup must have a `with` statement of its own")
        self._built, self._first, self._frame = None, None, frame
        self._around = _open.get(frame)
        _open[frame] = self

    def _written_from(self, hook: WrittenHook, frame: types.FrameType) -> BaseException:
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
    """Sets a process up: `with ProcessSetup() as setup:`, with blocks inside. Then call `setup.build()`.

    The blocks run later, in the process. Their names are private to the setup, and all blocks share them; each start
    begins with new ones. A block that cannot be taken out of its place is a `CaptureError` when the `with` statement
    ends.

    >>> with ProcessSetup() as setup:
    ...     with OnStart():
    ...         started = True
    ...     with AfterLoop(add_for_next=True) as after:
    ...         after.add({"again": True})
    >>> [block.kind for block in setup.build().blocks]
    ['OnStart', 'AfterLoop']
    """

    __slots__ = ()


class ThreadSetup(Setup):
    """Sets a thread up, as `ProcessSetup` does a process. The thread calls its function once by default.

    Attributes:
        loop_infinitely: call the function again and again until the thread is asked to rejoin.
        num_loops: call the function this many times.

    >>> from suitkaise import Child, Supervisor
    >>> from suitkaise.concept.setup_worker import worker_for
    >>> with ThreadSetup as setup:
    ...     setup.num_loops = 3
    ...     with OnStart():
    ...         n = 0
    ...     with BeforeLoop():
    ...         n += 1
    ...     with OnFinish():
    ...         print("the last n was", n)
    >>> work = worker_for("thread", lambda n: n * n, setup.build())
    >>> with Supervisor("app", Child(work, id="squares", restart="transient")).start() as running:
    ...     running["squares"].result(timeout=10)
    the last n was 3
    9
    """

    __slots__ = ("loop_infinitely", "num_loops")

    _options: ClassVar[str] = "it has loop_infinitely and num_loops; the others go into the kwargs of create_thread"

    def __init__(self) -> None:
        super().__init__()
        self.loop_infinitely: bool = False
        self.num_loops: int | None = None

    def build(self) -> BuiltSetup:
        """Return what was set up, as `ProcessSetup` does.

        Raises:
            SpecError: as there; or both `loop_infinitely` and `num_loops` are set; or one of them has a wrong value.
        """
        if checked_flag("ThreadSetup", "loop_infinitely", self.loop_infinitely) and self.num_loops is not None:
            raise SpecError("ThreadSetup: set loop_infinitely or num_loops, not both")
        Options("ThreadSetup", {"num_loops": self.num_loops}, {}, object).loops()
        loops = math.inf if self.loop_infinitely else self.num_loops
        return replace(super().build(), num_loops=loops)


# ------------------------------------------------------------ capturing
_ONLY_BLOCKS = "after the first block, only blocks may stand in a setup; put this above it"


def _capture(statement: WithStatement, first: tuple[ast.With, WrittenHook], frame: types.FrameType) -> BuiltSetup:
    """Take the blocks of a setup, whose first one is known."""
    body = statement.node.body
    nodes: list[ast.With] = []
    for node in body[body.index(first[0]) :]:
        match node:
            case ast.With():
                nodes.append(node)
            case ast.Pass() | ast.Expr(ast.Constant()):
                pass
            case _:
                raise statement.error(_ONLY_BLOCKS, node)
    hooks: list[WrittenHook] = [first[1], *_hooks_of(statement, nodes[1:], frame)]
    kinds: list[str] = []
    for node, hook in zip(nodes, hooks, strict=True):
        if not isinstance(hook, WrittenHook):
            raise statement.error(_ONLY_BLOCKS, node)
        kind = hook.kind
        if len(node.items) > 1:
            raise statement.error(f"{kind} must have a `with` statement of its own; put the others inside of it", node)
        if kind in kinds:
            raise statement.error(f"the setup has two {kind} blocks; put them together", node)
        kinds.append(kind)
    compiled = compile_blocks(statement, nodes, kinds, frame)
    factory = types.FunctionType(compiled.code, frame.f_globals)
    return BuiltSetup(factory, compiled.blocks, tuple(hooks), _values_of(compiled, statement, frame))


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
    return [hook() if isinstance(hook, _HookType) else hook for hook in names[".hooks"]]


def _values_of(compiled: Blocks, statement: WithStatement, frame: types.FrameType) -> dict[str, Any]:
    """Return the values that the names around the setup have now."""
    values = {name: frame.f_locals[name] for name in compiled.outer if name in frame.f_locals}
    for name in compiled.outer:
        if name not in values:
            uses = (part for part in ast.walk(statement.node) if isinstance(part, ast.Name) and part.id == name)
            raise statement.error(
                f"{name!r} is used in a block, but has no value here, in the function or class around the setup",
                next(uses, None),
            )
    return values
