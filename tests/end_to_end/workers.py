"""Workers that several tests use."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

from suitkaise import Child, Ignore, Process, Supervisor
from suitkaise.events import ChildExited
from tests.support import eventually


class Echo(Process):
    """Answers what it is asked; some words have a meaning."""

    def on_receive(self, message: Any) -> Any:
        match message:
            case "leave":
                self.rejoin()
            case "pid":
                return os.getpid()
            case "crash":
                raise ValueError("it was asked to crash")
        return message


class Counts(Process):
    """Loops, and tells how far it is."""

    def loop(self) -> int:
        self.wait(0.001)
        return self.current_loop

    def on_receive(self, message: Any) -> int:
        return int(self.current_loop)


def next_exit(events: Any, timeout: float = 15.0) -> Any:
    """The reason of the next worker that ends by itself."""
    while (event := events.get(timeout)) is not None:
        if isinstance(event, ChildExited):
            return event.reason
    raise AssertionError(f"nobody ended within {timeout} seconds")


class Notes(Process):
    """Writes its starts and ends into a file; does not start while the file `broken` is there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def note(self, word: str) -> None:
        with open(self.folder / "notes", "a") as file:
            file.write(f"{word} {self.name}\n")

    def on_start(self):
        if (self.folder / f"broken-{self.name}").exists():
            raise OSError("broken")
        if (self.folder / f"ignore-{self.name}").exists():
            raise Ignore
        self.note("start")

    def on_receive(self, message):
        if message == "leave":
            self.rejoin()
        return message

    def on_finish(self):
        self.note("stop")


def notes(folder):
    return (folder / "notes").read_text().splitlines()


def family(folder, *ids, strategy="one_for_one", **options):
    children = (Child(Notes, args=(folder,), id=id) for id in ids)
    return Supervisor("tree", *children, strategy=strategy, **options)


def crash(running, id):
    """SIGKILL it and wait until it is back."""
    ref = running[id]
    incarnation = ref.incarnation
    os.kill(ref.pid, signal.SIGKILL)
    eventually(lambda: ref.incarnation > incarnation and ref.pid)


def pids(running, *ids):
    return [running[id].pid for id in ids]


class Plods(Process):
    """Takes a moment for each message; the first one lasts until there is a file `go` in its folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.handled = 0

    def on_receive(self, message: Any) -> None:
        while not (self.folder / "go").exists():
            time.sleep(0.001)
        time.sleep(0.02)
        self.handled += 1
        (self.folder / "handled").write_text(str(self.handled))

    def on_finish(self) -> None:
        (self.folder / "finished").touch()


class PlodsAndLoops(Plods):
    def loop(self) -> None:
        self.wait(0.001)
