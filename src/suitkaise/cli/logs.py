"""`suitkaise logs [-f] [PATH]`: what workers have printed and logged last, and what they print from now on."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time

from suitkaise.cli.command import CLEAN, CommandError
from suitkaise.cli.display import is_coloured, painted
from suitkaise.cli.show import target_of
from suitkaise.errors import AskTimeout, RuntimeGone
from suitkaise.escapes import one_line
from suitkaise.messaging.log_reader import LogReader, tagged
from suitkaise.messaging.log_rings import EVENT, Line

__all__ = ["logs"]

_COLOURS = {"error": "31", "critical": "31", "warning": "33", "debug": "2", EVENT: "2"}

PATIENCE = 5.0
"""Seconds within which the program has to tell the last lines."""


def logs(options: argparse.Namespace) -> int:
    """Print the last lines of a worker, or of all workers below a supervisor; with `-f`, go on until Ctrl-C."""
    target = target_of(options)
    printer = _Printer(options, several=target.facts["kind"] == "supervisor")
    reader = LogReader(target.program.client, target.path, last=options.lines)
    if not options.follow and not options.lines:
        return CLEAN
    try:
        news = reader.read(PATIENCE)
    except AskTimeout:
        raise CommandError(f"the program does not answer within {PATIENCE:g} s") from None
    printer.print(news.lines)
    if not options.follow:
        return CLEAN
    with contextlib.suppress(RuntimeGone, KeyboardInterrupt):
        while not news.ended:
            sys.stdout.flush()
            news = reader.read(None)
            for worker, count in news.skipped.items():
                printer.print_skipped(worker, count)
            printer.print(news.lines)
    return CLEAN


class _Printer:
    """Prints lines, each with its worker's path if there are several workers."""

    def __init__(self, options: argparse.Namespace, *, several: bool) -> None:
        self._json = options.json
        self._several = several
        self._timestamps = options.timestamps
        self._coloured = is_coloured()

    def print(self, lines: list[Line]) -> None:
        """Print lines of workers. A record of several lines (a traceback) is printed as several."""
        for path, incarnation, stream, when, text in lines:
            if self._json:
                fields = {"path": path, "incarnation": incarnation, "stream": stream, "time": when, "line": text}
                print(json.dumps(fields))
                continue
            for line in tagged(stream, text).split("\n"):
                shown = one_line(line, colours=self._coloured)
                if "\x1b" in shown:
                    shown += "\x1b[0m"  # else a colour that the worker leaves on would go on in the lines of others
                self._print(path, when, painted(shown, colour=_COLOURS.get(stream, "")))

    def print_skipped(self, path: str, count: int) -> None:
        """Tell that lines were not printed, since more came than could be kept until they were read."""
        if self._json:
            print(json.dumps({"path": path, "skipped": count}))
        else:
            self._print(path, time.time(), f"[{count} lines were skipped]")

    def _print(self, path: str, when: float, line: str) -> None:
        if self._timestamps:
            moment = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(when))
            line = f"{moment}.{int(when % 1 * 1000):03d} {line}"
        print(f"{painted(path, colour='1')}: {line}" if self._several else line)
