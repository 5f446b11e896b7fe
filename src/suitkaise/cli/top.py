"""`suitkaise top [TREE]`: running trees as a live table in the terminal."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import sys
import time
from typing import TYPE_CHECKING

from suitkaise.cli.command import CLEAN, NO_PROGRAM, CommandError, UsageError
from suitkaise.cli.display import Column, print_table
from suitkaise.cli.programs import NotRunning, find
from suitkaise.cli.show import chosen

if TYPE_CHECKING:
    from suitkaise.observer.terminal.app import TopApp

__all__ = ["application", "on_terminal", "top"]

BETWEEN = 0.5
"""Seconds between the two measurements of a table that is printed once."""


def top(options: argparse.Namespace) -> int:
    """Show the trees until the user quits; without a terminal, print them once."""
    if options.once or options.json or not on_terminal():
        return _print(options)
    if importlib.util.find_spec("textual") is None:
        raise CommandError(
            "the live table needs textual: pip install 'suitkaise-xprocess[tui]'; without it, --once prints the table "
            "once, and `suitkaise tree` the trees"
        )
    application(options).run()
    return CLEAN


def on_terminal() -> bool:
    """Return whether a person reads the output and types the input, on a terminal that can show a whole screen."""
    return sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def application(options: argparse.Namespace) -> TopApp:
    """Make the application, which waits for a program if none runs.

    Raises:
        CommandError: the options fit several programs, or there is no such worker.
    """
    from suitkaise.observer.terminal.app import TopApp  # textual takes half a second
    from suitkaise.observer.terminal.source import Source

    known: list[str] = []
    scope, missing = (options.path or "").strip("/"), ""
    try:
        directory, scope = _only(options)
        known.append(directory)
    except NotRunning as error:
        missing = str(error)

    def search() -> str | None:
        if known:
            return known.pop()
        with contextlib.suppress(CommandError), contextlib.ExitStack() as options.opened:
            return _only(options)[0]
        return None

    return TopApp(Source(search), scope=scope, missing=missing)


def _only(options: argparse.Namespace) -> tuple[str, str]:
    """Return the directory of the program that the options name, and the path to show; empty for all its trees.

    Raises:
        NotRunning: there is none now.
        CommandError: there are several.
    """
    programs, silent = chosen(options)
    programs = [program for program in programs if program.trees]
    if options.path or not programs:
        target = find(options.path, programs, silent)
        return target.program.directory, target.path
    if len(programs) > 1:
        raise UsageError(
            f"several programs run, name a tree or choose one with --pid: {', '.join(one.title for one in programs)}"
        )
    return programs[0].directory, ""


def _print(options: argparse.Namespace) -> int:
    directory, scope = _only(options)
    from suitkaise.observer.terminal.lines import COLUMNS, lines_of, to_rows
    from suitkaise.observer.terminal.source import Source

    source = Source(lambda: directory)
    options.opened.callback(source.close)
    source.look(everything=True)
    time.sleep(BETWEEN)  # CPU and loops per second are those in between
    source.look(everything=True)
    if source.contact != "live" or source.observation is None:
        raise CommandError("the program does not answer, or has just ended", NO_PROGRAM)
    lines = lines_of(source.observation, time.time(), scope=scope)
    if options.json:
        print(json.dumps([line.values for line in lines]))
    else:
        figures = [Column(one.title, "status" if one.name == "state" else "number", one.rank) for one in COLUMNS]
        print_table([Column("NAME", "name"), *figures, Column("DOING / LAST EXIT", "end")], to_rows(lines))
    return CLEAN
