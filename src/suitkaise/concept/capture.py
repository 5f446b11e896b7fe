"""Finds the `with` statement that a frame is entering, in the source of the running code.

The statement is found by the position that the bytecode records: that of the statement (3.11, 3.12) or of the context
expression (3.13). The source comes from `linecache`, so notebooks, doctests and IPython work, too. The file may have
been edited since it was loaded. Then the statement is not found, or its bytecode differs from that of the running code.
"""

from __future__ import annotations
import __future__ as future

import ast
import contextlib
import dis
import functools
import itertools
import linecache
import os
import types
from collections.abc import Iterator
from typing import Any, TypeAlias

from suitkaise.concept.call_site import all_codes, text_of_command
from suitkaise.errors import CaptureError
from suitkaise.records import dataclass, field

__all__ = ["FACTORY", "Source", "WithStatement", "error_at", "future_flags", "is_in_block", "with_statement_of"]

FACTORY = ".setup"
"""The name of the function that the blocks of a setup are made functions in; no identifier, so no name of the user."""

Position: TypeAlias = tuple[int | None, int | None, int | None, int | None]
"""First line, last line, first column, column after the last; None: not recorded."""

_FUTURES: int = sum({getattr(future, name).compiler_flag for name in future.all_feature_names})


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """The text of a file or notebook cell, and the `with` statements in it."""

    filename: str
    lines: tuple[str, ...]
    tree: ast.Module
    statements: list[WithStatement] = field(default_factory=list)


@dataclass(frozen=True, slots=True, eq=False)
class WithStatement:
    """A `with` statement, and the class around it."""

    source: Source
    node: ast.With
    class_name: str | None
    compiled: dict[Any, Any] = field(default_factory=dict)
    """What was compiled from it, for the next time that it is run."""

    def error(self, message: str, node: ast.AST | None = None) -> CaptureError:
        """Make the error that points at `node`, or at the statement itself."""
        at: Any = node or self.node
        return error_at(self.source.filename, at.lineno, message, at.col_offset, self.source.lines)

    def block_at(self, frame: types.FrameType) -> ast.With | None:
        """Return the `with` statement that stands directly in this one and that the frame is entering, if any."""
        position = _position_of(frame)
        return next((node for node in self.node.body if isinstance(node, ast.With) and _is_at(position, node)), None)

    def mangled(self, name: str) -> str:
        """Return the name that Python uses for this name in this place: private names get the class's name."""
        owner = (self.class_name or "").lstrip("_")
        is_private = bool(owner) and name.startswith("__") and not name.endswith("__")
        return f"_{owner}{name}" if is_private else name


def error_at(
    filename: str, line: int, message: str, column: int | None = None, lines: tuple[str, ...] | None = None
) -> CaptureError:
    """Make the error that points at this line of a file."""
    text = lines[line - 1] if lines is not None else linecache.getline(filename, line) or None
    offset = None if column is None or text is None else len(text.encode()[:column].decode()) + 1
    return CaptureError(message, filename=filename, lineno=line, offset=offset, text=text)


def future_flags(code: types.CodeType) -> int:
    """Return the flags for `compile` that stand for the `from __future__` imports of the code."""
    return code.co_flags & _FUTURES


def is_in_block(code: types.CodeType) -> bool:
    """Return whether the code is a part of a block that was captured before: a setup can stand in a block, too."""
    return f"{FACTORY}.<locals>" in code.co_qualname


def with_statement_of(frame: types.FrameType) -> WithStatement:
    """Return the `with` statement that the frame is entering.

    Raises:
        CaptureError: the source cannot be read, is not that of the running code, or has no such statement there.
    """
    filename = frame.f_code.co_filename
    position = _position_of(frame)
    problem = "its source cannot be read; put the setup into a file, or a notebook cell without %%time"
    for text, may_differ in _texts_of(frame):
        try:
            source = _parsed(filename, text)
        except (SyntaxError, ValueError):
            problem = "its source is not valid Python any more; restart the program"
            continue
        found = [one for one in source.statements if _is_at(position, one.node)]
        if len(found) != 1:
            problem = (
                "there is no `with` statement for it on this line; write `with ...:` (no ExitStack, no __enter__()), "
                "and restart the program if the file was edited"
            )
        elif may_differ and not _runs(found[0], frame.f_code):
            problem = "the file was edited after the program had loaded it; restart the program"
        else:
            return found[0]
    while frame.f_code.co_filename == contextlib.__file__ and frame.f_back is not None:
        frame = frame.f_back  # the user's line
    code, line = frame.f_code, frame.f_lineno
    raise error_at(code.co_filename, line, f"the blocks of this setup cannot be captured: {problem}, or write a class")


def _texts_of(frame: types.FrameType) -> Iterator[tuple[str, bool]]:
    """Yield the texts that the running code may have been compiled from, and whether each may be another one."""
    filename = frame.f_code.co_filename
    if filename == "<string>":  # `python -c`, or the text of an exec()
        text = text_of_command()
        if text is not None:
            yield text, True
        return
    lines = linecache.getlines(filename, frame.f_globals)
    if lines:
        yield "".join(lines), not is_in_block(frame.f_code) and _may_be_edited(filename)
    linecache.checkcache(filename)
    again = linecache.getlines(filename, frame.f_globals)
    if again != lines:
        yield "".join(again), True


def _may_be_edited(filename: str) -> bool:
    """Return whether a file was changed after this process was started."""
    import psutil  # only a setup needs it here

    try:
        return os.stat(filename).st_mtime >= psutil.Process().create_time()
    except OSError:  # there is no file: the text is that of a notebook cell, a doctest or an archive
        return False


@functools.lru_cache(maxsize=16)
def _parsed(filename: str, text: str) -> Source:
    source = Source(filename, tuple(text.split("\n")), ast.parse(text, filename))
    _collect(source, source.tree, None)
    return source


def _collect(source: Source, node: ast.AST, class_name: str | None) -> None:
    if isinstance(node, ast.With):
        source.statements.append(WithStatement(source, node, class_name))
    elif isinstance(node, ast.ClassDef):
        class_name = node.name
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.expr):  # an expression holds no statement
            _collect(source, child, class_name)


def _position_of(frame: types.FrameType) -> Position:
    """Return the position of the instruction that the frame is at."""
    return next(itertools.islice(frame.f_code.co_positions(), frame.f_lasti // 2, None))


def _is_at(position: Position, node: ast.With) -> bool:
    """Return whether a position, as far as it was recorded, is that of a `with` statement or of a manager in it."""
    nodes: list[Any] = [node, *(item.context_expr for item in node.items)]
    spans = [(one.lineno, one.end_lineno, one.col_offset, one.end_col_offset) for one in nodes]
    return any(all(a is None or a == b for a, b in zip(position, span, strict=True)) for span in spans)


# ------------------------------------------------------------ whether a text is that of the running code
_WITHOUT_MEANING = ("RETURN", "NOP", "RESUME", "CACHE", "EXTENDED_ARG")


def _runs(statement: WithStatement, code: types.CodeType) -> bool:
    """Return whether the code was compiled from this statement. Asserts do not count: pytest rewrites them."""
    top = _compiled(statement.source, future_flags(code))
    name, line = code.co_qualname, code.co_firstlineno
    fresh = next((one for one in all_codes(top) if (one.co_qualname, one.co_firstlineno) == (name, line)), top)
    node = statement.node
    lines = set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    for part in ast.walk(node):
        if isinstance(part, ast.Assert):
            lines -= set(range(part.lineno, (part.end_lineno or part.lineno) + 1))
    return _instructions(fresh, lines) == _instructions(code, lines)


@functools.lru_cache(maxsize=4)
def _compiled(source: Source, flags: int) -> types.CodeType:
    code: types.CodeType = compile(source.tree, source.filename, "exec", flags, dont_inherit=True)
    return code


def _instructions(code: types.CodeType, lines: set[int]) -> frozenset[Any]:
    """Return what the code does in these lines, without what depends on its other lines."""
    found: set[Any] = set()
    for one in dis.get_instructions(code):
        position, value = one.positions, one.argval
        if position is None or position.lineno not in lines or one.opname.startswith(_WITHOUT_MEANING):
            continue
        if one.opcode in dis.hasjrel or (one.opname == "LOAD_CONST" and value is None):
            continue
        shown = _instructions(value, lines) if isinstance(value, types.CodeType) else repr(value)
        found.add((one.opname.removesuffix("_CHECK"), shown, position))
    return frozenset(found)
