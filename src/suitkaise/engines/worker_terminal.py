"""`breakpoint()` and `input()` in a worker's process, which has no terminal: an error that tells what to do."""

from __future__ import annotations

import builtins
import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn

__all__ = ["refuse_terminal"]


def refuse_terminal(path: str) -> Callable[[], None]:
    """Have `breakpoint()` and `input()` raise an error, unless the worker or the user chooses another way.

    A `PYTHONBREAKPOINT` and a `sys.breakpointhook` of the worker's own count as usual; for `input()`, an assigned
    `sys.stdin` and another file as descriptor 0 do.

    Returns:
        A function that ends this: a process that the worker forks may have a terminal, see `pty.fork`.
    """
    stdin, read, hook = getattr(sys, "stdin", None), builtins.input, sys.breakpointhook
    hint = (
        f"{path!r} runs in a process without a terminal; `suitkaise run --debug FILE` runs the workers as threads of "
        "the program, in its terminal"
    )

    def refuse_breakpoint(*args: Any, **kwargs: Any) -> NoReturn:
        raise RuntimeError(f"breakpoint() cannot work here: {hint}")

    def read_or_refuse(prompt: object = "", /) -> str:
        if getattr(sys, "stdin", None) is stdin and _has_no_input():
            raise EOFError(f"input() cannot work here: {hint}")
        return read(prompt)

    def allow() -> None:
        if sys.breakpointhook is refuse_breakpoint:
            sys.breakpointhook = hook
        if builtins.input is read_or_refuse:
            builtins.input = read

    if "PYTHONBREAKPOINT" not in os.environ:
        sys.breakpointhook = refuse_breakpoint
    builtins.input = read_or_refuse
    return allow


def _has_no_input() -> bool:
    """Return whether descriptor 0 still is the null device, with which each worker starts, or is closed."""
    try:
        return os.path.samestat(os.fstat(0), os.stat(os.devnull))
    except OSError:
        return True
