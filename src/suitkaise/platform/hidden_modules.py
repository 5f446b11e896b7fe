"""What hides or replaces a module which suitkaise needs: a file beside the program, or gevent and eventlet."""

from __future__ import annotations

import _thread
import os
import socket
import sys

from suitkaise.errors import SuitkaiseError

__all__ = ["refuse_hidden_modules", "refuse_patched_modules"]

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


def refuse_patched_modules() -> None:
    """Raise SuitkaiseError if gevent or eventlet has put its own sockets or threads in the place of Python's."""
    for replaced in (socket.socket, _thread.start_new_thread):
        package = replaced.__module__.partition(".")[0]
        if package in ("gevent", "eventlet"):
            raise SuitkaiseError(
                f"{package} has replaced Python's sockets or threads (monkey patching), which a tree needs unchanged: "
                f"start the tree in a program without that, and what needs {package} as its Command"
            )
