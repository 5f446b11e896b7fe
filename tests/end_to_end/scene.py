"""A program with a tree, seen from outside: its processes, and whether all of them and its directory are gone."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.support import Program, eventually, start_program, wait_gone

PROGRAMS = Path(__file__).with_name("programs")
KINDS = ("loops", "waits", "awaits", "sleeps", "computes", "swallows", "holds_the_gil", "stopped")
OBEDIENT = frozenset(
    {"loops", "waits", "awaits"}
)  # these must finish when asked to; the others may, if they are asked early


@dataclass
class Scene:
    program: Program
    workers: dict[str, int]  # id -> pid
    keeper: int

    @property
    def hub(self) -> int:
        return self.program.pid

    def directories(self) -> list[Path]:
        return directories_of(self.hub)

    def signal_group(self, number: int) -> None:
        os.killpg(self.hub, number)

    def all_gone(self, within: float = 3.0) -> None:
        """Hub, keeper, workers and directory are gone, at the latest after `within` seconds."""
        for pid in (self.hub, *self.workers.values(), self.keeper):
            wait_gone(pid, within)
        eventually(lambda: not self.directories(), timeout=within, what="the private directory is removed")

    def finished(self, kind: str) -> bool:
        """Whether the worker's `on_finish` ran."""
        return f"finished {kind} {self.workers[kind]}\n" in self.program.stdout


def directories_of(hub: int) -> list[Path]:
    """The private directories of the program with that pid."""
    base = Path(os.environ["XDG_RUNTIME_DIR"])
    return sorted(base.glob(f"suitkaise-{hub}-*"))


def up(program: Program, kind: str, after: int = 0) -> tuple[int, int]:
    """(pid, parent's pid) of the worker of that kind, once it has said so for the time number `after` + 1."""

    def lines() -> list[list[str]]:
        said = [line.split() for line in program.stdout.splitlines() if line.startswith(f"up {kind} ")]
        return said[after:]

    said = eventually(lines, timeout=15, what=f"{kind} is up:\n{program.stdout}\n{program.stderr}")
    return int(said[0][2]), int(said[0][3])


@contextmanager
def scene(how: str, kinds: Sequence[str], *options: str) -> Iterator[Scene]:
    """`programs/kinds.py` with a tree of those kinds, all up; the one to be stopped is stopped."""
    if OBEDIENT.issuperset(kinds) and not options:  # they need no time, but may have to wait for a processor
        options = ("--shutdown", "20")
    with start_program(PROGRAMS / "kinds.py", how, *kinds, *options) as program:
        workers, keeper = {}, 0
        for kind in kinds:
            workers[kind], keeper = up(program, kind)
        if how != "run":  # a worker is up when its hub knows it
            eventually(lambda: "started\n" in program.stdout, timeout=15, what="the tree is up")
        if "stopped" in workers:
            stop(workers["stopped"])
        try:
            yield Scene(program, workers, keeper)
        finally:
            for pid in (keeper, *workers.values()):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
    assert not program.left_behind, program.left_behind


def stop(pid: int) -> None:
    """SIGSTOP, and wait until it has stopped."""
    os.kill(pid, signal.SIGSTOP)
    eventually(lambda: psutil.Process(pid).status() == psutil.STATUS_STOPPED, what=f"{pid} is stopped")
