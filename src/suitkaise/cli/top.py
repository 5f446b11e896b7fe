"""`suitkaise top [TREE]`: running trees as a live table in the terminal."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import sys
import time

from suitkaise.cli.command import CLEAN, NO_PROGRAM, CommandError, UsageError
from suitkaise.cli.programs import find, running_programs
from suitkaise.cli.show import chosen, table

__all__ = ["top"]

BETWEEN = 0.5
"""Seconds between the two measurements of a table that is printed once."""


def top(options: argparse.Namespace) -> int:
    """Show the trees until the user quits; without a terminal, print them once."""
    interactive = sys.stdin.isatty() and sys.stdout.isatty() and not options.once and not options.json
    if interactive and importlib.util.find_spec("textual") is None:
        raise CommandError(
            "the live table needs textual: pip install 'suitkaise-xprocess[tui]'; without it, --once prints the table "
            "once, and `suitkaise tree` the trees"
        )
    directory, scope = _first(options)
    if not interactive:
        return _print(options, directory, scope)
    from suitkaise.observer.terminal.app import TopApp  # textual takes half a second
    from suitkaise.observer.terminal.source import Source

    def search() -> str | None:
        nonlocal directory
        first, directory = directory, None
        return first or _search(options)

    missing = f"No tree {options.path!r} is running." if options.path else "No tree of this user is running."
    TopApp(Source(search), scope=scope, missing=missing).run()
    return CLEAN


def _first(options: argparse.Namespace) -> tuple[str | None, str]:
    """Return the directory of the program, if it runs, and the path that is shown; empty for all trees."""
    try:
        programs, silent = chosen(options)
        if not any(program.trees for program in programs):
            return None, (options.path or "").strip("/")
        if options.path:
            target = find(options.path, programs, silent)
            return target.program.directory, target.path
    except CommandError as error:
        if error.code != NO_PROGRAM or options.pid is not None:
            raise
        return None, (options.path or "").strip("/")
    programs = [program for program in programs if program.trees]
    if len(programs) > 1:
        raise UsageError(
            f"several programs run, name a tree or choose one with --pid: {', '.join(one.title for one in programs)}"
        )
    return programs[0].directory, ""


def _search(options: argparse.Namespace) -> str | None:
    """Return the directory of the only program that fits now."""
    if options.pid is not None:
        return None  # it has ended
    programs, silent = running_programs()
    try:
        with contextlib.suppress(CommandError):
            if options.path:
                return find(options.path, programs, silent).program.directory
            running = [program.directory for program in programs if program.trees]
            return running[0] if len(running) == 1 else None
        return None
    finally:
        for program in programs:
            program.close()


def _print(options: argparse.Namespace, directory: str | None, scope: str) -> int:
    if directory is None:
        raise CommandError("no tree of this user is running", NO_PROGRAM)
    from suitkaise.observer.terminal.lines import lines_of, to_rows
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
        print(table(to_rows(lines), coloured=1))
    return CLEAN
