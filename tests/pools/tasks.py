"""Functions that the tests give to pools."""

from __future__ import annotations

import ctypes
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

__all__ = [
    "FAULTS",
    "NoErrors",
    "Unpicklable",
    "append_pid",
    "die_at",
    "die_at_or_wait",
    "die_once",
    "die_twice_then",
    "fail",
    "fail_while",
    "fail_with_no_errors",
    "hang_once",
    "pid",
    "wait_for",
]


def pid(*_: Any) -> int:
    return os.getpid()


def fail(text: str = "no") -> None:
    raise ValueError(text)


class NoErrors(Exception):
    """A collection of errors, which is empty."""

    def __len__(self) -> int:
        return 0


def fail_with_no_errors(*_: Any) -> None:
    raise NoErrors("all is well")


def wait_for(path: str) -> str:
    """Return when the file exists."""
    while not os.path.exists(path):
        time.sleep(0.005)
    return path


def fail_while(path: str) -> None:
    if os.path.exists(path):
        raise OSError("not now")


def note_and_wait_for(began: str, path: str) -> str:
    append_pid(began)
    return wait_for(path)


def append_pid(path: str) -> None:
    """Write down that it ran, and where."""
    with Path(path).open("a") as file:
        file.write(f"{os.getpid()}\n")


def die_at_or_wait(number: int, fatal: int, began: str, go: str) -> int:
    """End the worker, or write down that it runs and return when the file `go` exists."""
    if number != fatal:
        append_pid(began)
        wait_for(go)
    return die_at(number, fatal)


def die_at(number: int, fatal: int) -> int:
    if number == fatal:
        os.kill(os.getpid(), signal.SIGKILL)
    return number * 2


def die_once(path: str, value: Any = None) -> Any:
    """End the first worker that runs this, and return the value in the second one."""
    return die_twice_then(path, value, 1)


def die_twice_then(path: str, value: Any = None, times: int = 2) -> Any:
    append_pid(path)
    if len(Path(path).read_text().splitlines()) <= times:
        os.kill(os.getpid(), signal.SIGKILL)
    return value


def hang_once(path: str, value: Any) -> Any:
    first = not os.path.exists(path)
    append_pid(path)
    while first:
        time.sleep(3600)
    return value


def _exit_at_once() -> None:
    os._exit(0)


def _exit_with_code() -> None:
    os._exit(3)


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _segfault() -> None:
    ctypes.string_at(0)


def _abort() -> None:
    os.abort()


FAULTS = [_exit_at_once, _exit_with_code, _kill, _segfault, _abort]


class Unpicklable(Exception):
    """An error that no pickle can send."""

    def __init__(self) -> None:
        super().__init__("cannot be sent")
        self.lock = threading.Lock()
