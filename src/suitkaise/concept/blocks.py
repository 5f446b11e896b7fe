"""Makes functions of the `with` blocks of a setup.

All blocks become functions inside one function, the factory, made of the user's own syntax nodes. So tracebacks,
breakpoints and coverage show the user's file and lines. A name that one of the blocks assigns is a variable of the
factory, which all blocks share; each call of the factory makes new ones. The blocks run outside of the function that
the setup stands in. The names of that function which they use become variables of the factory, too, and get their
values when the blocks are bound.
"""

from __future__ import annotations

import ast
import copy
import inspect
import types
from collections.abc import Sequence
from typing import Any

from suitkaise.concept.capture import FACTORY, WithStatement, error_at, future_flags, is_in_block
from suitkaise.errors import CaptureError
from suitkaise.records import dataclass

__all__ = ["Block", "Blocks", "compile_blocks"]

_HOOK = ".hook"  # no identifier, so no name of the user


@dataclass(frozen=True, slots=True)
class Block:
    """One block: its kind (`OnStart`...), its line, and the names that it sets; `results` go to a `**kwargs`.

    `may_add`: it uses the name of its `as`, or that of another block.
    """

    kind: str
    line: int
    names: tuple[str, ...]
    results: tuple[str, ...]
    may_add: bool = False


@dataclass(frozen=True, slots=True)
class Blocks:
    """The blocks of a setup, compiled: the code of the factory, and the names that it needs from around the setup."""

    code: types.CodeType
    blocks: tuple[Block, ...]
    outer: tuple[str, ...]


def compile_blocks(
    statement: WithStatement, nodes: Sequence[ast.With], kinds: Sequence[str], frame: types.FrameType
) -> Blocks:
    """Compile the blocks of the setup that `statement` is; `frame` runs it.

    Raises:
        CaptureError: a block has something that cannot run outside of its place.
    """
    around = _names_around(frame)
    key = (*kinds, *(node.lineno for node in nodes), around)
    if key not in statement.compiled:
        statement.compiled[key] = _compile(statement, nodes, kinds, frame.f_code, around)
    compiled: Blocks = statement.compiled[key]
    return compiled


def _names_around(frame: types.FrameType) -> frozenset[str]:
    """Return the names of the function or class around the setup; none at the top of a module."""
    code = frame.f_code
    if code.co_flags & inspect.CO_OPTIMIZED:
        names = {*code.co_varnames, *code.co_cellvars, *code.co_freevars}
    elif frame.f_locals is frame.f_globals:
        names = set()
    else:
        names = {*frame.f_locals, *code.co_freevars}
    return frozenset(names - {"__class__"})


def _compile(
    statement: WithStatement,
    nodes: Sequence[ast.With],
    kinds: Sequence[str],
    code: types.CodeType,
    around: frozenset[str],
) -> Blocks:
    readers = [_Reader(statement, node, kind) for node, kind in zip(nodes, kinds, strict=True)]
    in_function = bool(code.co_flags & inspect.CO_OPTIMIZED)
    shared = {name for reader in readers for name in reader.names}
    declared_global = {name for reader in readers for name in reader.declared_global}
    if in_function:
        declared_global |= shared - around  # the function declares them, outside of the blocks
    shared -= declared_global
    nonlocals = frozenset(code.co_freevars) if in_function and not is_in_block(code) else frozenset[str]()
    set_anywhere = {name for reader in readers for name in reader.set_here}
    for reader in readers:
        reader.check_names(shared, set_anywhere, nonlocals)
    functions = [_function(reader, shared, declared_global) for reader in readers]
    factory = _factory(statement, functions, shared | around)
    try:
        tree = ast.Module([factory], [])
        made = compile(tree, statement.source.filename, "exec", future_flags(code), dont_inherit=True)
    except SyntaxError as error:  # `break` out of the block, `await`, `import *`
        raise _refusal(statement, error.msg, error.lineno, (error.offset or 1) - 1) from None
    while made.co_name != FACTORY:
        made = next(constant for constant in made.co_consts if isinstance(constant, types.CodeType))
    if made.co_freevars:
        uses = (part for part in ast.walk(statement.node) if isinstance(part, ast.Name))
        use = next(part for part in uses if part.id in ("super", "__class__"))
        raise _refusal(statement, "super() and __class__ cannot be used in a block", use.lineno, use.col_offset)
    made = made.replace(co_consts=tuple(map(_with_plain_name, made.co_consts)))
    outer = tuple(name for name in made.co_cellvars if name in around - shared)
    targets = {reader.target.id for reader in readers if isinstance(reader.target, ast.Name)}
    return Blocks(made, tuple(reader.block(shared, targets) for reader in readers), outer)


# ------------------------------------------------------------ making the syntax tree
def _function(reader: _Reader, shared: set[str], declared_global: set[str]) -> ast.FunctionDef:
    """Make the function of one block: `def OnStart(.hook): nonlocal ...; start = .hook; ...`."""
    body: list[ast.stmt] = []
    if names := sorted(reader.names & shared):
        body.append(ast.Nonlocal(names))
    if names := sorted(reader.names & declared_global):
        body.append(ast.Global(names))
    if reader.target is not None:
        body.append(ast.Assign([reader.target], ast.Name(_HOOK, ast.Load())))
    body += [_WithoutAnnotations().visit(copy.deepcopy(one)) for one in reader.node.body]
    return ast.copy_location(_def(f".{reader.kind}", [_HOOK], body), reader.node)


def _factory(statement: WithStatement, functions: list[ast.FunctionDef], names: set[str]) -> ast.stmt:
    """Make the function around the blocks; in a class of the same name, since private names depend on it."""
    variables = [ast.AnnAssign(ast.Name(name, ast.Store()), ast.Constant(0), None, 1) for name in sorted(names)]
    made = ast.Tuple([ast.Name(one.name, ast.Load()) for one in functions], ast.Load())
    top: ast.stmt = _def(FACTORY, [], [*variables, *functions, ast.Return(made)])
    if statement.class_name is not None:
        top = ast.ClassDef(statement.class_name, [], [], [top], [])
    return ast.fix_missing_locations(ast.copy_location(top, statement.node))


def _def(name: str, parameters: list[str], body: list[ast.stmt]) -> ast.FunctionDef:
    arguments = ast.arguments([], [ast.arg(one) for one in parameters], None, [], [], None, [])
    return ast.FunctionDef(name, arguments, body, [])


def _with_plain_name(constant: Any) -> Any:
    """Give the code of a block the name that tracebacks show."""
    if not isinstance(constant, types.CodeType):
        return constant
    return constant.replace(co_name=constant.co_name.removeprefix("."))


class _WithoutAnnotations(ast.NodeTransformer):
    """Turns `x: T = v` into `x = v`, since an annotated name cannot be one that functions share."""

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.stmt:
        if not isinstance(node.target, ast.Name):
            return node
        value = node.value
        return ast.copy_location(ast.Pass() if value is None else ast.Assign([node.target], value), node)

    def _keep(self, node: ast.AST) -> ast.AST:
        return node

    visit_FunctionDef = visit_AsyncFunctionDef = visit_Lambda = visit_ClassDef = _keep  # noqa: N815


def _refusal(statement: WithStatement, what: str, line: int | None, column: int | None = None) -> CaptureError:
    return error_at(
        statement.source.filename,
        line or statement.node.lineno,
        f"{what}: the block runs later and on its own, in the worker. Put this into a function that the block calls, "
        "or write a class with the methods on_start, loop, on_finish",
        column,
        statement.source.lines,
    )


# ------------------------------------------------------------ reading a block
_REFUSED: dict[type[ast.AST], str] = {
    ast.Return: "`return`", ast.Yield: "`yield`", ast.YieldFrom: "`yield from`", ast.Nonlocal: "`nonlocal`",
}  # fmt: skip
"""What would be valid in the function that a block becomes."""


class _Reader(ast.NodeVisitor):
    """Finds the names that a block sets in its own scope, and refuses what makes no sense outside of its place.

    `set_here` has all names that the block sets, apart from those that it only updates (`x += 1`).
    """

    def __init__(self, statement: WithStatement, node: ast.With, kind: str) -> None:
        self.node = node
        self.kind = kind
        self.target = node.items[0].optional_vars
        self.declared_global: set[str] = set()
        self.set_here: set[str] = set()
        self._assigned: set[str] = set()
        self._updated: dict[str, ast.AugAssign] = {}
        self._statement = statement
        if self.target is not None:
            if not isinstance(self.target, ast.Name):
                raise statement.error("`as` must be followed by a plain name", self.target)
            self.visit(self.target)
        self._visit_all(node.body)

    @property
    def names(self) -> set[str]:
        """All names that the block sets."""
        return self.set_here | self._updated.keys()

    def block(self, shared: set[str], targets: set[str]) -> Block:
        """Describe the block; `targets` are the names after the `as` of all blocks."""
        target = self._statement.mangled(self.target.id) if isinstance(self.target, ast.Name) else None
        names = (self.names & shared) - {target}
        results = {name for name in names & (self._assigned | self._updated.keys()) if name[0] != "_"}
        inside = [part for statement in self.node.body for part in ast.walk(statement)]
        may_add = any(isinstance(part, ast.Name) and part.id in targets for part in inside)
        return Block(self.kind, self.node.lineno, tuple(sorted(names)), tuple(sorted(results)), may_add)

    def check_names(self, shared: set[str], set_anywhere: set[str], nonlocals: frozenset[str]) -> None:
        """Refuse names that are nonlocal around the setup, and those that are updated but never set."""
        for name in sorted(self.names & shared & nonlocals):
            raise self._statement.error(f"{name!r} is nonlocal around the setup, so a block cannot set it", self.node)
        for name, node in self._updated.items():
            if name in shared - set_anywhere:
                raise self._statement.error(
                    f"{name!r} is updated here, but no block sets it: set it in OnStart. The names of a setup are its "
                    "own; a function that a block calls can change a global",
                    node,
                )

    def visit(self, node: ast.AST) -> None:
        """Visit a node, unless it is refused."""
        what = _REFUSED.get(type(node))
        if what is not None:
            raise _refusal(self._statement, f"{what} cannot be used in a block", node.lineno, node.col_offset)  # type: ignore[attr-defined]
        super().visit(node)

    def generic_visit(self, node: ast.AST) -> None:
        """Visit the parts of a node; note the names that it holds as text (`except ... as`, patterns)."""
        for attribute in ("name", "rest"):
            if isinstance(name := getattr(node, attribute, None), str):
                self._set(name)
        super().generic_visit(node)

    def _visit_all(self, nodes: Sequence[ast.AST | None]) -> None:
        for node in nodes:
            if node is not None:
                self.visit(node)

    # ------------------------------------------------------------ names
    def _set(self, name: str) -> None:
        self.set_here.add(self._statement.mangled(name))

    def _assign(self, *targets: ast.expr) -> None:
        names = [one for target in targets for one in ast.walk(target) if isinstance(one, ast.Name)]
        self._assigned |= {self._statement.mangled(one.id) for one in names if isinstance(one.ctx, ast.Store)}

    def visit_Name(self, node: ast.Name) -> None:
        if not isinstance(node.ctx, ast.Load):
            self._set(node.id)

    def visit_Assign(self, node: ast.Assign) -> None:
        self._assign(*node.targets)
        self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self._assign(node.target)
            self._visit_all([node.target, node.value])

    def visit_NamedExpr(self, node: ast.NamedExpr) -> None:
        self._assign(node.target)
        self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        if isinstance(node.target, ast.Name):
            self._updated.setdefault(self._statement.mangled(node.target.id), node)
        else:
            self.visit(node.target)
        self.visit(node.value)

    def visit_alias(self, node: ast.alias) -> None:
        self._set(node.asname or node.name.partition(".")[0])

    def visit_Global(self, node: ast.Global) -> None:
        self.declared_global.update(map(self._statement.mangled, node.names))

    # ------------------------------------------------------------ scopes of their own
    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self._set(node.name)
        self._visit_all([*node.decorator_list, *node.args.defaults, *node.args.kw_defaults])

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self._visit_all([*node.args.defaults, *node.args.kw_defaults])

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._set(node.name)
        self._visit_all([*node.decorator_list, *node.bases, *node.keywords])

    def visit_comprehension(self, node: ast.comprehension) -> None:
        self._visit_all([node.iter, *node.ifs])
