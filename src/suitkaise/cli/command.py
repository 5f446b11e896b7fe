"""What all commands share: exit codes, errors, and output whose reader may go away."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from suitkaise.platform.blocked_streams import MOMENT, returns_within

__all__ = ["CLEAN", "FAILED", "NO_PROGRAM", "RUNNING", "USAGE", "CommandError", "UsageError", "tell",
           "to_reader", "with_own_code", "working_folder"]  # fmt: skip

CLEAN, FAILED, USAGE, NO_PROGRAM, RUNNING = 0, 1, 2, 3, 4

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})
"""Errors of a write to a disk that is full, or broken."""


class CommandError(Exception):
    """The command has failed; the text says why, and `code` is the exit code."""

    def __init__(self, text: str, code: int = FAILED) -> None:
        super().__init__(text)
        self.code: int = code


class UsageError(CommandError):
    """The command cannot be carried out as given; the text holds the right form."""

    def __init__(self, text: str) -> None:
        super().__init__(text, USAGE)


def working_folder() -> str:
    """Return the working folder. Raises UsageError if it was removed."""
    try:
        return os.getcwd()
    except FileNotFoundError:
        raise UsageError("the working folder was removed; change to one that exists") from None


def tell(text: str) -> None:
    """Print to standard error. Where that cannot be written, the text is lost: the exit code tells enough."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def to_reader(command: Callable[[], int]) -> int:
    """Carry out a command whose output may be cut off by its reader (`| head`)."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # a report may hold characters that the terminal's encoding lacks
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code = command()
        sys.stdout.flush()
    except BrokenPipeError:
        _drop_unwritten(sys.stdout)
        return CLEAN
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        _drop_unwritten(sys.stdout)
        raise CommandError(f"the output cannot be written: {error.strerror}") from None
    return code


def with_own_code(command: Callable[[], int]) -> int:
    """Carry out a command whose exit code counts, also if its last lines cannot be written (a full disk, `| head`).

    At its end Python writes what its streams still hold, and would end with 120 instead.
    """
    try:
        return command()
    finally:
        for stream in (sys.stdout, sys.stderr):
            returns_within(MOMENT, partial(_drop_unwritten, stream))


def _drop_unwritten(stream: Any) -> None:
    """Have what the stream holds go nowhere if it cannot be written."""
    try:
        stream.flush()
    except OSError:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)
