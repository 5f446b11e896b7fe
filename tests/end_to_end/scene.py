"""A program with a tree, observed from outside: its processes and its private directory."""

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
)  # these must finish at a stop request; the others may, if the request comes early


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

    def all_gone(self, within: float = 10.0) -> None:
        """Wait until hub, keeper, workers and directory are gone, for at most `within` seconds each."""
        for pid in (self.hub, *self.workers.values(), self.keeper):
            wait_gone(pid, within)
        eventually(lambda: not self.directories(), timeout=within, what="the private directory is removed")

    def finished(self, kind: str) -> bool:
        """Return whether `on_finish` of the worker ran."""
        return f"finished {kind} {self.workers[kind]}\n" in self.program.stdout


def directories_of(hub: int) -> list[Path]:
    """Return the private directories of the program with that pid."""
    base = Path(os.environ["XDG_RUNTIME_DIR"])
    return sorted(base.glob(f"suitkaise-{hub}-*"))


def up(program: Program, kind: str, after: int = 0) -> tuple[int, int]:
    """Wait for incarnation `after` + 1 of the worker of that kind; return (pid, pid of the parent)."""

    def lines() -> list[list[str]]:
        printed = [line.split() for line in program.stdout.splitlines() if line.startswith(f"up {kind} ")]
        return printed[after:]

    printed = eventually(lines, timeout=15, what=f"{kind} is up:\n{program.stdout}\n{program.stderr}")
    return int(printed[0][2]), int(printed[0][3])


@contextmanager
def scene(how: str, kinds: Sequence[str], *options: str) -> Iterator[Scene]:
    """Run `programs/kinds.py` with workers of those kinds until all are up; send SIGSTOP to the kind `stopped`."""
    if OBEDIENT.issuperset(kinds) and not options:  # they finish at once, but on a busy machine that takes a while
        options = ("--shutdown", "20")
    with start_program(PROGRAMS / "kinds.py", how, *kinds, *options) as program:
        workers, keeper = {}, 0
        for kind in kinds:
            workers[kind], keeper = up(program, kind)
        if how != "run":  # a worker prints `up` before the hub counts it as started
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
    """Send SIGSTOP to a process, and wait until it has stopped."""
    os.kill(pid, signal.SIGSTOP)
    eventually(lambda: psutil.Process(pid).status() == psutil.STATUS_STOPPED, what=f"{pid} is stopped")
