"""Workers that note, keep and do what the rules are about, of both kinds.

Every worker's process imports this module anew, so it imports nothing that takes long.
"""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Any, ClassVar, Literal

from suitkaise import Process, Thread
from suitkaise.workers.worker import Worker


class Noter(Worker):
    """Notes its starts and ends. The files `fails-NAME`, `fails_once-NAME`, ... say what it does about them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def note(self, word: str) -> None:
        with open(self.folder / "notes", "a") as file:
            file.write(f"{word} {self.name}\n")

    def told(self, what: str) -> bool:
        return (self.folder / f"{what}-{self.name}").exists()

    def on_start(self) -> None:
        if self.told("starts_slowly"):
            self.note("slow")
            while self.told("starts_slowly") and not self.wait(0.005):
                pass
        if self.told("fails_once"):
            (self.folder / f"fails_once-{self.name}").unlink()
            self.note("fail")
            raise OSError("once")
        if self.told("fails"):
            self.note("fail")
            raise OSError("again and again")
        self.note("start")

    def on_receive(self, message: Any) -> Any:
        match message:
            case "leave":
                self.rejoin()
            case "crash":
                raise ValueError("it was told to crash")
        return message

    def on_finish(self) -> None:
        if self.told("stops_slowly"):
            self.note("slow")
            patience = threading.Event()
            while self.told("stops_slowly"):
                patience.wait(0.005)
        self.note("stop")
        if self.told("raises_at_the_end"):
            raise LookupError("odd")
        if self.told("exits_at_the_end"):
            os._exit(3)
        if self.told("is_killed_at_the_end"):
            os.kill(os.getpid(), signal.SIGKILL)


class NotingProcess(Noter, Process):
    pass


class NotingThread(Noter, Thread):
    pass


class Brutal(NotingProcess):
    shutdown: ClassVar[Literal["brutal_kill"]] = "brutal_kill"


class Leaves(Worker):
    """Ends cleanly when told to; its class says it is temporary, an instance may say something else."""

    restart: str = "temporary"

    def __init__(self, restart: str | None = None) -> None:
        if restart is not None:
            self.restart = restart

    def on_receive(self, message: Any) -> None:
        self.rejoin()


class ProcessThatLeaves(Leaves, Process):
    pass


class ThreadThatLeaves(Leaves, Thread):
    pass


class Loops(Worker):
    restart: ClassVar[str] = "transient"
    join_after: int = 3

    def __init__(self, loops: int | None = None) -> None:
        if loops is not None:
            self.join_after = loops

    def loop(self) -> None:
        self.wait(0.0001)

    def on_receive(self, message: Any) -> int:
        return self.current_loop

    def result(self) -> int:
        return self.current_loop


class LoopingProcess(Loops, Process):
    pass


class LoopingThread(Loops, Thread):
    pass


of_this_process: list[str] = []


class Gathers(Worker):
    """Puts words wherever a worker may keep them."""

    shared: list[str] = []

    def __init__(self, given: list[str], named: dict[str, str]) -> None:
        self.given, self.named = given, named
        self.own: list[str] = []

    def on_receive(self, message: Any) -> Any:
        match message:
            case "crash":
                raise ValueError("it was told to crash")
            case ("gather", word):
                self.given.append(word)
                self.named[word] = word
                self.own.append(word)
                self.later = word
                self.shared.append(word)
                of_this_process.append(word)
            case ("store", word):
                return self.tree.add(word, self.pid, path="gathered")
        later = getattr(self, "later", None)
        return self.given, self.named, self.own, later, list(self.shared), list(of_this_process)


class GatheringProcess(Gathers, Process):
    pass


class GatheringThread(Gathers, Thread):
    pass


class Finishes(Worker):
    """Notes its hooks; calls `what` in the hook `where`, as long as a file named `where` is there."""

    def __init__(self, folder: Path, what: str) -> None:
        self.folder, self.what = folder, what

    def hook(self, where: str) -> None:
        with open(self.folder / "hooks", "a") as file:
            file.write(f"{where}\n")
        if (self.folder / where).exists():
            getattr(self, self.what)()
            with open(self.folder / "hooks", "a") as file:
                file.write(f"the rest of {where}\n")

    def on_start(self) -> None:
        self.hook("on_start")

    def on_receive(self, message: Any) -> Any:
        if message == "leave":
            self.rejoin()
        return message

    def on_finish(self) -> None:
        self.hook("on_finish")

    def on_failure(self, error: Exception) -> None:
        self.hook("on_failure")

    def result(self) -> str:
        self.hook("result")
        return "the result"


class FinishingProcess(Finishes, Process):
    pass


class FinishingThread(Finishes, Thread):
    pass
