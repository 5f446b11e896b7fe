"""`suitkaise logs [-f] [PATH]`: what workers have printed and logged last, and what they print from now on."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from typing import Any

from suitkaise.cli.command import CLEAN, UsageError
from suitkaise.cli.programs import Program, walk
from suitkaise.cli.show import target_of
from suitkaise.crashes import read_reports
from suitkaise.errors import AskTimeout, RuntimeGone
from suitkaise.escapes import one_line
from suitkaise.platform.runtime_directory import tail_file
from suitkaise.platform.tail import lines_after

__all__ = ["logs"]

PAUSE = 0.1
"""Seconds between two looks at the output of workers."""

LOOK_FOR_NEW = 5
"""Looks after which the program is asked which incarnations there are."""


def logs(options: argparse.Namespace) -> int:
    """Print the last lines of a worker, or of all workers below a supervisor; with `-f`, go on until Ctrl-C."""
    target = target_of(options)
    below = [one for one in walk(target.facts) if one["kind"] in ("process", "command")]
    if not below:
        raise UsageError(f"{target.path!r} has no output of its own: threads share that of their program")
    printer = _Printer(options, several=len(below) > 1 or target.facts["kind"] == "supervisor")
    reader = _Reader(target.program, target.path)
    for facts in below:
        lines = reader.new_lines(facts) if facts["pid"] is not None else _lines_of_last_crash(facts["path"])
        printer.print(facts["path"], lines[-options.lines :] if options.lines else [])
    if not options.follow:
        return CLEAN
    with contextlib.suppress(RuntimeGone, KeyboardInterrupt):
        reader.follow(printer)
    return CLEAN


class _Reader:
    """Reads the tails of the incarnations, each from where it has stopped."""

    def __init__(self, program: Program, path: str) -> None:
        self._program = program
        self._path = path
        self._read: dict[int, int] = {}

    def new_lines(self, facts: dict[str, Any]) -> list[str]:
        """Return the whole lines of an incarnation that have been written since the last look."""
        serial = facts["serial"]
        lines, self._read[serial] = lines_after(tail_file(self._program.directory, serial), self._read.get(serial, 0))
        return lines

    def follow(self, printer: _Printer) -> None:
        """Print new lines for ever. Raises RuntimeGone when the program has ended."""
        looks = 0
        alive: list[dict[str, Any]] = []
        while True:
            if looks % LOOK_FOR_NEW == 0:
                with contextlib.suppress(AskTimeout):
                    self._program.refresh()
                    alive = [
                        one
                        for tree in self._program.trees
                        for one in walk(tree)
                        if f"{one['path']}/".startswith(f"{self._path}/") and "serial" in one
                        and one["kind"] in ("process", "command")
                    ]  # fmt: skip
                    if not self._program.trees:
                        return
            looks += 1
            for facts in alive:
                printer.print(facts["path"], self.new_lines(facts))
            sys.stdout.flush()
            time.sleep(PAUSE)


class _Printer:
    """Prints lines, each with its worker's path if there are several workers."""

    def __init__(self, options: argparse.Namespace, *, several: bool) -> None:
        self._json = options.json
        self._several = several

    def print(self, path: str, lines: list[str]) -> None:
        """Print the lines of one worker."""
        for line in lines:
            if self._json:
                print(json.dumps({"path": path, "line": line}))
            else:
                text = one_line(line, colours=sys.stdout.isatty())
                print(f"{path}: {text.replace(f'{path}: ', '', 1)}" if self._several else text)


def _lines_of_last_crash(path: str) -> list[str]:
    """Return the last lines of the incarnation that has crashed last; a worker that is down has no tail."""
    reports = [report for report in read_reports()[0] if report.path == path]
    return list(reports[-1].lines) if reports else []
