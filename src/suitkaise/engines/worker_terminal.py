"""`breakpoint()` and `input()` in a worker's process, which has no terminal: an error that tells what to do."""

from __future__ import annotations

import builtins
import os
import sys
from typing import Any, NoReturn

__all__ = ["refuse_terminal"]


def refuse_terminal(path: str) -> None:
    """Have `breakpoint()` and `input()` raise an error, unless the worker or the user chooses another way.

    A `PYTHONBREAKPOINT`, a `sys.breakpointhook` of the worker's own and an assigned `sys.stdin` count as usual.
    """
    stdin, read = sys.stdin, builtins.input
    hint = (
        f"{path!r} runs in a process without a terminal; `suitkaise run --debug FILE` runs the workers as threads of "
        "the program, in its terminal"
    )

    def refuse_breakpoint(*args: Any, **kwargs: Any) -> NoReturn:
        raise RuntimeError(f"breakpoint() cannot work here: {hint}")

    def read_or_refuse(prompt: object = "", /) -> str:
        if sys.stdin is stdin:
            raise EOFError(f"input() cannot work here: {hint}")
        return read(prompt)

    if "PYTHONBREAKPOINT" not in os.environ:
        sys.breakpointhook = refuse_breakpoint
    builtins.input = read_or_refuse
