"""What all commands share: exit codes, errors, and output whose reader may go away."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable

__all__ = ["CLEAN", "FAILED", "NO_PROGRAM", "RUNNING", "USAGE", "CommandError", "UsageError", "to_reader"]

CLEAN, FAILED, USAGE, NO_PROGRAM, RUNNING = 0, 1, 2, 3, 4


class CommandError(Exception):
    """The command has failed; the text says why, and `code` is the exit code."""

    def __init__(self, text: str, code: int = FAILED) -> None:
        super().__init__(text)
        self.code: int = code


class UsageError(CommandError):
    """The command cannot be carried out as given; the text holds the right form."""

    def __init__(self, text: str) -> None:
        super().__init__(text, USAGE)


def to_reader(command: Callable[[], int]) -> int:
    """Carry out a command whose output may be cut off by its reader (`| head`)."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # a report may hold characters that the terminal's encoding lacks
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code = command()
        sys.stdout.flush()
    except BrokenPipeError:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
        return CLEAN
    return code
