"""`suitkaise store ls|get|rm|watch DIRECTORY`: look into a storage on disk, whether a program uses it or not."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from suitkaise import sktree
from suitkaise.cli.command import CLEAN, FAILED, NO_PROGRAM, USAGE, tell, working_folder
from suitkaise.cli.display import Column, print_table
from suitkaise.cli.output import as_json
from suitkaise.errors import StorageError, StorageGone
from suitkaise.escapes import escaped, one_line
from suitkaise.runtime.storage_actor import is_served
from suitkaise.storage.backends.engines import engine_of
from suitkaise.storage.backends.revision import RevisionWord
from suitkaise.storage.client import SOCKET
from suitkaise.storage.keys import checked_path
from suitkaise.storage.protocol import where
from suitkaise.storage.records import Entry
from suitkaise.storage.tree import Tree

__all__ = ["run"]

_COLUMNS = [
    Column("CHANGED", "dim", 2),
    Column("BYTES", "number", 1),
    Column("NAME", "name"),
    Column("METADATA", "end", 3),
]


def run(options: argparse.Namespace) -> int:
    """Carry out one action; return the exit code."""
    folder = working_folder()
    directory = Path(folder, options.directory)
    try:
        if (trouble := _trouble_with(directory)) is not None:
            return _fail(trouble, USAGE)
        sys.path.insert(0, folder)  # a value may be of the program's own classes
        with contextlib.closing(Tree(directory)) as tree:
            return _ACTIONS[options.action](tree, options)
    except StorageError as error:
        return _fail(str(error), FAILED)
    except (TypeError, ValueError) as error:
        return _fail(str(error), USAGE)


def _trouble_with(directory: Path) -> str | None:
    """Return why the directory cannot be used; a look at it makes and changes nothing."""
    try:
        if not directory.is_dir():
            return f"there is no directory {str(directory)!r}"
        word, connect = directory / RevisionWord.FILE, f"sktree.connect({str(directory)!r}, durable=True)"
        if engine_of(directory) is None or not word.is_file():
            return f"{str(directory)!r} holds no storage; {connect} makes one"
        if word.stat().st_size < RevisionWord.SIZE:
            return f"{str(word)!r} is cut short; {connect} makes it anew from the storage"
        if directory.stat().st_uid != os.geteuid():
            return f"the storage in {str(directory)!r} belongs to another user, and its values are pickled"
    except OSError as error:
        return str(error)
    return None


def _ls(tree: Tree, options: argparse.Namespace) -> int:
    entries = tree.select_all_with({}, options.path)
    if not entries and entries.path:  # the root is there, if it is empty, too
        return _fail(f"there is nothing at {entries.path!r} or below it{_hint(tree, entries.path)}", FAILED)
    if options.json:
        print(as_json([entry._asdict() for entry in entries]))
        return CLEAN
    rows = [_row(entry) for entry in entries]
    lines = (f"{when} {size:>10} {name} {metadata}".rstrip() for when, size, name, metadata in rows)
    print_table(_COLUMNS, rows, plain=lines)
    return CLEAN


def _hint(tree: Tree, path: str) -> str:
    """Tell what may be meant by a path with nothing below it: an entry, or the nearest containers."""
    above, _, last = path.rpartition("/")
    with contextlib.suppress(ValueError):  # it can be no name, then
        if tree.exists(last, above):
            return f"; there is {where(last, above)}"
    near = difflib.get_close_matches(path, tree.containers(), n=3)
    return f"; the nearest paths are {', '.join(map(repr, near))}" if near else ""


def _row(entry: Entry) -> list[str]:
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(entry.time))
    metadata = " ".join(f"{key}={value!r}" for key, value in entry.metadata.items())
    return [when, str(entry.size), _shown(entry.path, entry.name), metadata]


def _get(tree: Tree, options: argparse.Namespace) -> int:
    checked_path(options.path, options.name)
    try:
        value = tree.get(options.name, options.path)
        text = as_json(value) if options.json else value if isinstance(value, str) else repr(value)
    except StorageError:
        raise
    except Exception as error:
        return _fail(f"the value of {options.name!r} cannot be shown here: {type(error).__name__}: {error}", FAILED)
    print(escaped(text) if sys.stdout.isatty() else text)
    return CLEAN


def _rm(tree: Tree, options: argparse.Namespace) -> int:
    if _is_in_use(tree):
        tree.remove(options.name, options.path)
    else:
        tree.entry(options.name, options.path)  # raises before anything is started
        try:
            sktree.connect(tree.directory, durable=True).remove(options.name, options.path)
        finally:
            sktree.disconnect()
    if options.json:
        print(json.dumps({"path": options.path, "name": options.name, "done": "removed"}))
    return CLEAN


def _watch(tree: Tree, options: argparse.Namespace) -> int:
    if not _is_in_use(tree):
        return _fail(f"no program uses the storage in {str(tree.directory)!r}, so nothing changes there", NO_PROGRAM)
    try:
        with tree.watch(options.path) as changes:
            for change in changes:
                if options.json:
                    print(as_json(change._asdict()), flush=True)
                else:
                    print(
                        f"{change.revision:>10} {change.kind:<8} {one_line(_shown(change.path, change.name))}",
                        flush=True,
                    )
    except KeyboardInterrupt:
        pass
    except StorageGone:
        tell("the program has ended")
    return CLEAN


def _is_in_use(tree: Tree) -> bool:
    return is_served(str(tree.directory / SOCKET))


def _shown(path: str, name: str) -> str:
    return f"{path}/{name}" if path else name


def _fail(text: str, code: int) -> int:
    tell(f"suitkaise store: {text}")
    return code


_ACTIONS: dict[str, Callable[[Tree, argparse.Namespace], int]] = {"ls": _ls, "get": _get, "rm": _rm, "watch": _watch}
