"""The workers of the tests of clusters, and what the tests ask of a running tree."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from suitkaise import Process, RunningTree, Thread, whereis
from suitkaise.events import ChildExited
from suitkaise.runtime.runtime import current
from tests.support import eventually


class Member(Process):
    """Tells about itself, passes questions on, and ends in many ways."""

    def __init__(self, record: Path | None = None) -> None:
        self.record = record

    def on_start(self) -> None:
        if self.record is not None:
            with self.record.open("a") as file:
                file.write(f"{self.name} start\n")

    def on_receive(self, message: Any) -> Any:
        match message:
            case "who":
                return os.getpid(), psutil.Process(os.getppid()).ppid(), self.recalled
            case "ask", path, question:
                return whereis(path).ask(question, timeout=30.0)
            case "raise":
                raise LookupError("on purpose")
            case "exit", code:
                os._exit(code)
            case "print", text:
                print(text, flush=True)
                self.log.warning("logged %s", text)
            case "flood", count:
                for number in range(count):
                    self.log.warning("flood %d", number)
                return count
            case "keep", value:
                self.checkpoint(value)
            case "hang":
                time.sleep(600)
        return message

    def on_finish(self) -> None:
        if self.record is not None:
            with self.record.open("a") as file:
                file.write(f"{self.name} finish\n")


class AsksAtItsStart(Process):
    """Asks the worker at a path, in `on_start`."""

    def __init__(self, path: str) -> None:
        self.path = path

    def on_start(self) -> None:
        whereis(self.path).ask("hello", timeout=600.0)


class Here(Thread):
    def on_receive(self, message: Any) -> int:
        return os.getpid()


class Counts(Process):
    """Counts its messages; while it handles "wait" there is a file `waiting`, until there is a file `go on`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.handled = 0

    def on_receive(self, message: Any) -> int:
        if message == "wait":
            (self.folder / "waiting").touch()
            eventually((self.folder / "go on").exists, timeout=60.0)
        elif message != "how many":
            self.handled += 1
        return self.handled


class Keeps(Process):
    """Uses the storage in all its ways."""

    def on_start(self) -> None:
        self.tree.add("mine", self.name, path="marked", metadata={"remove_on_process_join": True, "of": self.name})

    def on_receive(self, message: Any) -> Any:
        match message:
            case "count":
                for _ in range(100):
                    self.tree.increment("count", path="numbers")
                return self.tree.get("count", path="numbers")
            case "watch":
                with self.tree.watch("numbers") as changes:
                    self.tree.add("watched", 1, path="numbers", wait=False)
                    return next(change.name for change in changes)
            case "transaction":
                with self.tree.transaction():
                    self.tree.add("left", self.tree.get("count", path="numbers"), path="numbers")
                    self.tree.add("right", 0, path="numbers")
                return sorted(self.tree.get_all_from("numbers"))
            case "select":
                return [name for _, name in self.tree.select_all_with({"of": self.name})]
            case "large":
                self.tree.add("large", bytes(3_000_000), path="numbers")
                return len(self.tree.get("large", path="numbers"))
            case "draw":
                return str(self.tree)
            case "hand over":
                return self.tree
            case tree:
                return tree.get("from the program", path="")


def nodes(running: RunningTree) -> dict[str, str]:
    """Return the node of each worker, by id."""
    runtime = current()
    assert runtime is not None
    (tree,) = runtime.overview()["trees"]
    return {child["id"]: child["node"] for child in tree["children"] if "node" in child}


def ended(running: RunningTree, act: Callable[[], Any]) -> Any:
    """Return the exit reason that follows `act`."""
    with running.events() as events:
        act()
        return next(event for event in events if isinstance(event, ChildExited)).reason
