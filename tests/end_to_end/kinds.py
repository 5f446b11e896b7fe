"""Trees of recorders in processes or threads, and helpers to watch a running tree and its keeper."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from suitkaise import Child, Supervisor
from suitkaise.events import ChildExited, Event, KeeperLost
from suitkaise.messaging.event_bus import Subscription
from suitkaise.runtime import runtime
from suitkaise.runtime.running_tree import RunningTree
from tests.sample_workers import Recorder, RecorderThread, Records
from tests.support import eventually

E = TypeVar("E", bound=Event)

KINDS = ("process", "thread")


@dataclass(frozen=True)
class Kinds:
    """Recorders of one kind that share a folder; files in it give them orders."""

    folder: Path
    kind: str

    @property
    def worker(self) -> type[Records]:
        return Recorder if self.kind == "process" else RecorderThread

    def child(self, id: str, **options: Any) -> Child:
        return Child(self.worker, args=(self.folder,), id=id, **options)

    def tree(self, ids: str, *, name: str = "tree", **options: Any) -> Supervisor:
        """Return a supervisor with a child for each letter: `tree("abc", strategy="one_for_all")`."""
        return Supervisor(name, *map(self.child, ids), **options)

    def order(self, what: str, id: str) -> Path:
        """Give the worker an order; remove the returned file to withdraw it."""
        file = self.folder / f"{what}-{id}"
        file.touch()
        return file

    def notes(self, *ids: str) -> list[str]:
        """Return all notes in order, or those of the named workers alone."""
        return notes(self.folder, *ids)

    def crash(self, running: RunningTree, id: str) -> None:
        """SIGKILL a process, or make a thread raise; do not wait for the restart."""
        if self.kind == "process":
            pid = running[id].pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
        else:
            running[id].tell("crash")

    def crash_and_wait(self, running: RunningTree, id: str) -> None:
        """Crash a worker and wait until it is restarted."""
        ref = running[id]
        before = ref.incarnation
        self.crash(running, id)
        eventually(lambda: ref.incarnation > before and ref.status == "running", what=f"{id} is restarted")


def notes(folder: Path, *ids: str) -> list[str]:
    """Return all notes that workers have written into that folder, or those of the named workers alone."""
    file = folder / "notes"
    lines = file.read_text().splitlines() if file.exists() else []
    return [line for line in lines if not ids or line.split()[1] in ids]


def family(folder: Path, *ids: str, **options: Any) -> Supervisor:
    """Return a supervisor `tree` of recorders in processes."""
    kinds = Kinds(folder, "process")
    return Supervisor("tree", *map(kinds.child, ids), **options)


def kill_child(running: RunningTree, id: str) -> None:
    """SIGKILL the process of a child and wait until it is restarted."""
    ref = running[id]
    assert ref.pid is not None
    incarnation = ref.incarnation
    os.kill(ref.pid, signal.SIGKILL)
    eventually(lambda: ref.incarnation > incarnation and ref.pid)


def pids(running: RunningTree, *ids: str) -> list[int | None]:
    return [running[id].pid for id in ids]


def next_exit(events: Subscription, timeout: float = 15.0) -> Any:
    """Return the reason of the next worker that ends by itself."""
    return next_event(events, ChildExited, timeout=timeout).reason


def next_event(events: Subscription, kind: type[E], id: str | None = None, timeout: float = 15.0) -> E:
    """Return the next event of that kind about that child, or about any child; skip the events before it."""
    deadline = time.monotonic() + timeout
    while (event := events.get(max(0.0, deadline - time.monotonic()))) is not None:
        if isinstance(event, kind) and id in (None, event.path.partition("/")[2]):
            return event
    raise AssertionError(f"no {getattr(kind, '__name__', kind)} of {id or 'any child'} within {timeout} seconds")


def wait_for_incarnation(running: RunningTree, id: str, incarnation: int = 2) -> None:
    """Wait until that incarnation of a child runs."""
    ref = running[id]
    eventually(lambda: ref.incarnation == incarnation and ref.status == "running", what=f"incarnation of {id} runs")


def keeper_pid(*, for_commands: bool = False) -> int:
    """Return the pid of the keeper of workers, or of the keeper of commands."""
    now = runtime.current()
    assert now is not None
    return (now.commands if for_commands else now.processes).keeper.pid


def kill_the_keeper(*, for_commands: bool = False) -> int:
    """SIGKILL the keeper, wait until the hub has noticed that, and return its pid."""
    old = keeper_pid(for_commands=for_commands)
    now = runtime.current()
    assert now is not None
    with now.bus.events("keeper") as events:
        os.kill(old, signal.SIGKILL)
        next_event(events, KeeperLost)
    return old


def statuses(running: RunningTree, under: str = "") -> dict[str, str]:
    return {line.id: str(line.status) for line in running.which_children(under)}
