"""The concept's spelling of hooks in real processes: classes of `__main__`, mixins, async hooks, private names."""

from __future__ import annotations

import pytest

from tests.support import run_program

PROGRAM = """
from suitkaise import Process, Supervisor, Thread

class Timed:  # no worker class
    def __before_loop__(self):
        self.seen.append("mixin")
        super().before_loop()

class Base(KIND):
    restart = "transient"

    def __init__(self, name, num_loops=None):
        super().__init__(name, num_loops)
        self.seen = []
        self.__private = f"{self.name}-{self.get_current_loop}"

    def __beforeloop__(self):
        self.seen.append(f"base {self.__private}, {self.get_current_loop}, {KIND.get_current_loop()}")

    ASYNC def __loop__(self):
        self.seen.append(f"loop {self.get_current_loop()}")

class Derived(Timed, Base):
    def before_loop(self):
        self.seen.append("derived")
        super().__beforeloop__()

    def __afterloop__(self):
        if self.last_loop:
            self.seen.append("last")

    ASYNC def __onfinish__(self):
        self.seen.append(f"finish {self.get_pid() == self.pid}")

    def __result__(self):
        return self.seen

with Supervisor("app", Derived("ui", 2)).start() as running:
    for line in running["ui"].result(30):
        print(line)
"""


@pytest.mark.parametrize("kind", ["Process", "Thread"])
@pytest.mark.parametrize("asynchronous", ["", "async"])
def test_the_hooks_of_a_class_and_its_mixin_run_in_a_worker(kind: str, asynchronous: str) -> None:
    program = PROGRAM.replace("KIND", kind).replace("ASYNC ", f"{asynchronous} ".lstrip())
    assert run_program(program).check().stdout.splitlines() == [
        "derived", "mixin", "base ui-0, 1, 1", "loop 1",
        "derived", "mixin", "base ui-0, 2, 2", "loop 2", "last", "finish True",
    ]  # fmt: skip
