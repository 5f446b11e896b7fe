"""A file beside the program that has the name of a module which suitkaise needs, and so hides that module."""

from __future__ import annotations

import os
import sys

from suitkaise.errors import SuitkaiseError

__all__ = ["refuse_hidden_modules"]

_NEEDED = (
    "suitkaise", "asyncio", "concurrent", "fcntl", "json", "logging", "mmap", "pickle", "queue",
    "select", "selectors", "signal", "socket", "struct", "subprocess", "threading", "traceback", "weakref",
)  # fmt: skip


def refuse_hidden_modules() -> None:
    """Raise SuitkaiseError if a file beside the program hides a module that the program and its workers need."""
    folder = os.path.abspath(sys.path[0]) if sys.path else os.getcwd()
    for name in _NEEDED:
        file = os.path.join(folder, f"{name}.py")
        if os.path.isfile(file):
            whose = "the package suitkaise" if name == "suitkaise" else f"Python's own module {name!r}, which is needed"
            raise SuitkaiseError(f"the file {file!r} hides {whose}; give the file another name")
