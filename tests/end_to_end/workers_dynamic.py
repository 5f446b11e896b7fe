"""Workers that come and go under dynamic supervisors.

Every worker's process imports this module anew, so it imports nothing that takes long.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from suitkaise import Ignore, Process, Reject, SuitkaiseError, Thread, whereis


class Echo(Process):
    def on_receive(self, message: Any) -> Any:
        return message


class Quiet(Thread):
    def on_receive(self, message: Any) -> Any:
        if message == "crash":
            raise ValueError("it was told to crash")
        return message


class Ignores(Process):
    def on_start(self) -> None:
        raise Ignore


class Sum(Process):
    num_loops = 1

    def __init__(self, *numbers: int) -> None:
        self.numbers = numbers

    def loop(self) -> int:
        return sum(self.numbers)

    def result(self) -> Any:
        return self.last_result


class IgnoresLater(Process):
    def __init__(self, file: Path) -> None:
        self.file = file

    def on_start(self) -> None:
        if self.file.exists():
            raise Ignore
        self.file.touch()


class Boss(Process):
    """Adds workers to the pool, and keeps their refs."""

    def on_receive(self, message: Any) -> Any:
        try:
            pool: Any = whereis("tree/pool")
            match message:
                case "add":
                    return pool.start_child(Echo)
                case ("terminate", id):
                    pool.terminate_child(id)
                case "count":
                    return pool.count_children().active
        except SuitkaiseError as error:
            raise Reject(error) from error


class _Copy:
    def __init__(self, base: int) -> None:
        self.base = base

    def on_receive(self, message: Any) -> Any:
        if message == "crash":
            raise ValueError("it was told to")
        return self.copy, self.name, self.base  # type: ignore[attr-defined]


class CopyProcess(_Copy, Process):
    pass


class CopyThread(_Copy, Thread):
    pass
