"""What type checkers make of worker classes; mypy and pyright read different parts of them."""

from __future__ import annotations

from pathlib import Path

from tests.support import mypy_errors, pyright_errors

MADE = """
from typing import assert_type
from suitkaise import Command, Process
from suitkaise.skthreading import SKThread

class Count(Process):
    def __init__(self, start: int) -> None:
        self.total = start

class Once(SKThread): ...

assert_type(Count(3), Count)
assert_type(Once("once", num_loops=2), Once)
assert_type(Command("sleep", "3"), Command)
"""

MADE_WRONGLY = """
Count("3")
Count()
Once(3)
Command(3)
"""


def test_a_worker_has_the_type_of_its_class(tmp_path: Path) -> None:
    assert mypy_errors(MADE, tmp_path) == []
    assert pyright_errors(MADE, tmp_path) == []


def test_the_arguments_of_a_worker_class_are_checked(tmp_path: Path) -> None:
    assert len(mypy_errors(MADE + MADE_WRONGLY, tmp_path)) == 4
    assert len(pyright_errors(MADE + MADE_WRONGLY, tmp_path)) == 4


LOOPS = """
from suitkaise import Process
from suitkaise.skthreading import SKThread

class Three(Process):
    num_loops = 3

class Twice(SKThread):
    num_loops = 2
"""


def test_a_class_may_set_its_number_of_loops(tmp_path: Path) -> None:
    assert mypy_errors(LOOPS, tmp_path) == []
    assert pyright_errors(LOOPS, tmp_path) == []


READS = """
from suitkaise import Process

class Reads(Process):
    def loop(self) -> int:
        if self.recalled is not None:
            return self.recalled.attempt
        return self.current_loop + self.get_current_loop() + (self.pid or 0)
"""

SETS = """
class Sets(Process):
    def loop(self) -> None:
        self.current_loop = 3
        self.pid = None
        self.recalled = None
        self.ref = self.ref
"""


def test_what_the_runtime_gives_can_be_read_and_not_set(tmp_path: Path) -> None:
    assert mypy_errors(READS, tmp_path) == []
    assert pyright_errors(READS, tmp_path) == []
    assert len(mypy_errors(READS + SETS, tmp_path)) == 4
    assert len(pyright_errors(READS + SETS, tmp_path)) == 4
