"""Loading the user's file or module as Python would, and finding the tree in it."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
import types
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

from suitkaise.cli.command import UsageError
from suitkaise.errors import SuitkaiseError
from suitkaise.supervisor import Supervisor

__all__ = ["check_target", "find_tree", "load", "roots", "split_target"]

DECLARE = "declare one: tree = Supervisor('name', ...)"


def split_target(target: str) -> tuple[str, str | None]:
    """Return the file or module, and the name of the tree if there is one."""
    where, colon, name = target.rpartition(":")
    if not colon or os.sep in name:
        where, name = target, ""
    elif not name.isidentifier():
        raise UsageError(f"{target!r}: the part behind ':' must be the name of a tree, not {name!r}")
    if not where or (where.startswith(".") and not _names_a_file(where)):
        raise UsageError(
            f"{target!r}: it takes a file or a module, such as app.py, app.py:tree or package.module, not {where!r}"
        )
    return where, name or None


def check_target(where: str) -> None:
    """Refuse a file that is not there, and a module whose package is not there; nothing is loaded."""
    if _names_a_file(where):
        if not os.path.isfile(where):
            raise _no_file(where)
        return
    sys.path.append(os.getcwd())
    top = where.partition(".")[0]
    if top not in sys.modules and find_spec(top) is None:
        raise _no_module(where)


def load(where: str, arguments: list[str]) -> dict[str, Any]:
    """Execute the file as `python FILE` would, or import the module; errors in it are shown as Python shows them."""
    is_file = _names_a_file(where)
    if is_file and not os.path.isfile(where):
        raise _no_file(where)
    try:
        if not is_file:
            sys.path.insert(0, os.getcwd())
            sys.argv = [where, *arguments]
            namespace = vars(importlib.import_module(where))
            if "__path__" in namespace and namespace.get("__file__") is None:
                raise _folder(where)
            return namespace
        main_module = types.ModuleType("__main__")
        main_module.__file__ = os.path.abspath(where)
        sys.modules["__main__"] = main_module
        sys.argv = [where, *arguments]
        sys.path.insert(0, os.path.dirname(os.path.realpath(where)))
        with open(where, "rb") as source:
            code = compile(source.read(), os.path.abspath(where), "exec", dont_inherit=True)
        exec(code, vars(main_module))  # noqa: S102  (running the user's program is what this is for)
        return vars(main_module)
    except ModuleNotFoundError as error:
        if not is_file and error.name is not None and (where == error.name or where.startswith(error.name + ".")):
            raise _no_module(where) from None
        raise _broken(where, error) from error
    except (SuitkaiseError, UsageError, SystemExit, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise _broken(where, error) from error


def _no_file(where: str) -> UsageError:
    try:
        os.stat(where)
    except FileNotFoundError:
        return UsageError(f"there is no file {where!r}")
    except OSError as error:
        return UsageError(f"{where!r} cannot be read: {error.strerror}")
    return _folder(where) if os.path.isdir(where) else UsageError(f"{where!r} is no regular file")


def _folder(where: str) -> UsageError:
    return UsageError(f"{where!r} is a folder; give the file or the module that declares the tree")


def _no_module(where: str) -> UsageError:
    return UsageError(f"there is no module {where!r}; for a file, use {where}.py")


def _names_a_file(where: str) -> bool:
    return where.endswith(".py") or os.sep in where or os.path.isfile(where)


def _broken(where: str, error: BaseException) -> UsageError:
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    text = "".join(traceback.format_exception(type(error), error, trace))
    return UsageError(f"{where!r} cannot be loaded:\n{text.rstrip()}")


def find_tree(namespace: dict[str, Any], where: str, name: str | None) -> Supervisor:
    """Return the tree of that name; without a name, the only one that is not part of another."""
    trees = {key: value for key, value in namespace.items() if isinstance(value, Supervisor)}
    if name is not None:
        found = namespace.get(name)
        if isinstance(found, Supervisor):
            return found
        got = f"{name!r} is {_named(found)} and no Supervisor" if name in namespace else f"there is no {name!r}"
        there = f"the trees there are {', '.join(trees)}" if trees else f"no tree is at the top level; {DECLARE}"
        raise UsageError(f"{where!r}: {got}; {there}")
    distinct = {id(value): key for key, value in trees.items()}
    if len(distinct) == 1:
        return next(iter(trees.values()))
    tops = roots(namespace)
    if len({id(value) for value in tops.values()}) == 1:
        return next(iter(tops.values()))
    if not trees:
        raise UsageError(f"{where!r} has no Supervisor at its top level; {DECLARE}")
    raise UsageError(f"{where!r} has several trees, name one: {', '.join(f'{where}:{key}' for key in tops or trees)}")


def roots(namespace: dict[str, Any]) -> dict[str, Supervisor]:
    """Return the trees that are not part of another."""
    trees = {key: value for key, value in namespace.items() if isinstance(value, Supervisor)}
    held = {id(below) for tree in trees.values() for below in _below(tree)}
    return {key: value for key, value in trees.items() if id(value) not in held}


def _below(tree: Supervisor) -> Iterator[Supervisor]:
    for child in tree.children:
        if isinstance(child.what, Supervisor):
            yield child.what
            yield from _below(child.what)


def _named(value: object) -> str:
    match value:
        case type():
            return "a class"
        case types.FunctionType():
            return "a function"
        case _:
            return f"of the type {type(value).__name__}"
