"""Workers of both kinds that note what they do, in one folder; files in that folder tell them what to do."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from suitkaise import Child, Supervisor
from suitkaise.events import Event
from suitkaise.messaging.event_bus import Subscription
from suitkaise.runtime.running_tree import RunningTree
from tests.end_to_end.workers_recording import Noter, NotingProcess, NotingThread
from tests.support import eventually

E = TypeVar("E", bound=Event)

KINDS = ("process", "thread")


@dataclass(frozen=True)
class Kinds:
    """What a test knows of such workers, all of one kind."""

    folder: Path
    kind: str

    @property
    def worker(self) -> type[Noter]:
        return NotingProcess if self.kind == "process" else NotingThread

    def child(self, id: str, **options: Any) -> Child:
        return Child(self.worker, args=(self.folder,), id=id, **options)

    def tree(self, ids: str, *, name: str = "tree", **options: Any) -> Supervisor:
        """`tree("abc", strategy="one_for_all")`: a child for each letter."""
        return Supervisor(name, *map(self.child, ids), **options)

    def say(self, what: str, id: str) -> Path:
        """Tell the worker from now on to do that; remove the file that is returned to take it back."""
        file = self.folder / f"{what}-{id}"
        file.touch()
        return file

    def notes(self, *ids: str) -> list[str]:
        """All notes in their order; or those of the named ones alone."""
        file = self.folder / "notes"
        lines = file.read_text().splitlines() if file.exists() else []
        return [line for line in lines if not ids or line.split()[1] in ids]

    def crash(self, running: RunningTree, id: str) -> None:
        """SIGKILL for a process, an exception for a thread; does not wait for what follows."""
        if self.kind == "process":
            pid = running[id].pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
        else:
            running[id].tell("crash")

    def crash_and_wait(self, running: RunningTree, id: str) -> None:
        """Crash it and wait until it is back."""
        ref = running[id]
        before = ref.incarnation
        self.crash(running, id)
        eventually(lambda: ref.incarnation > before and ref.status == "running", what=f"{id} is back")


def next_event(events: Subscription, kind: type[E], id: str | None = None, timeout: float = 15.0) -> E:
    """The next event of that kind, about that child (any, without an id); those before it are passed over."""
    deadline = time.monotonic() + timeout
    while (event := events.get(max(0.0, deadline - time.monotonic()))) is not None:
        if isinstance(event, kind) and id in (None, event.path.partition("/")[2]):
            return event
    raise AssertionError(f"no {kind.__name__} of {id or 'anyone'} within {timeout} seconds")


def statuses(running: RunningTree, under: str = "") -> dict[str, str]:
    return {line.id: str(line.status) for line in running.which_children(under)}
