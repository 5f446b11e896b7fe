"""Show the progress of a long operation: one line on a terminal, or calls of the user's function."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import TypeAlias

from suitkaise.platform.flag import Flag
from suitkaise.platform.threads import OwnThread

__all__ = ["Progress", "Report", "follow", "reporting"]

Progress: TypeAlias = bool | Callable[[int, int], object] | None
"""None: a line on standard error if that is a terminal and it takes longer than half a second; True: a line anyway;
False: nothing; or a function that is called with the number of entries that are done, and of all entries."""

Report: TypeAlias = Callable[[int, int], object]

_PATIENCE = 0.5  # seconds
_BETWEEN = 0.1
_WIDTH = 30  # characters


@contextlib.contextmanager
def reporting(progress: Progress, what: str) -> Iterator[Report | None]:
    """Yield the function to call with the numbers of entries done and of all; None: nothing is to be shown."""
    if callable(progress):
        yield progress
        return
    if not isinstance(progress, bool | None):
        raise TypeError(f"progress must be True, False, None or a function, not {progress!r}")
    terminal = sys.stderr is not None and sys.stderr.isatty()
    if progress is False or (progress is None and not terminal):
        yield None
        return
    due = time.monotonic() + (_PATIENCE if progress is None else 0.0)
    line = ""
    shown = False

    def show(done: int, total: int) -> None:
        nonlocal due, line, shown
        line = _line(what, done, total)
        now = time.monotonic()
        if terminal and now >= due:
            due, shown = now + _BETWEEN, True
            _write(f"\r{line}")

    try:
        yield show
    finally:
        if shown:
            _write(f"\r{line}\n")
        elif progress and line:
            _write(f"{line}\n")


@contextlib.contextmanager
def follow(report: Report | None, done: Callable[[], int], total: int) -> Iterator[None]:
    """During the block, report what `done` returns about ten times a second, from a thread."""
    if report is None:
        yield
        return
    ended = Flag()

    def run() -> None:
        while not ended.wait(_BETWEEN):
            report(min(done(), total), total)

    thread = OwnThread(run, "suitkaise-progress")
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _write(text: str) -> None:
    if sys.stderr is not None:
        sys.stderr.write(text)
        sys.stderr.flush()


def _line(what: str, done: int, total: int) -> str:
    share = done / total if total else 1.0
    bar = ("#" * int(share * _WIDTH)).ljust(_WIDTH, ".")
    return f"{what} [{bar}] {share:4.0%} of {total:,} {'entry' if total == 1 else 'entries'}"
