"""Sample workers for tests of running trees, each for processes and for threads where both are needed.

| mixin | classes | what the worker does |
| --- | --- | --- |
| `Echoes` | `Echo`, `EchoThread` | answers each message with itself; `"leave"` and `"crash"` end it |
| `Counts` | `CountingProcess`, `CountingThread` | loops, and answers how many loops it has done |
| `Counts` | `BriefProcess`, `BriefThread` | the same, ends after three loops, has a result |
| `Tallies` | `TallyProcess`, `TallyThread` | answers how many messages it has received |
| `Records` | `Recorder`, `RecorderThread` | writes its starts and stops into a file; files give it orders |
| `Finishes` | `FinishingProcess`, `FinishingThread` | writes its hooks into a file; may end itself in one |
| `Fails` | `FailingProcess`, `FailingThread` | ends in `on_start` in a given way |
| `Leaves` | `LeavingProcess`, `LeavingThread` | ends cleanly at the first message |
| `Gathers` | `GatheringProcess`, `GatheringThread` | keeps words in each kind of state of a worker |
| `HandlesSlowly` | `SlowProcess`, `SlowLoopingProcess` | takes 20 ms for each message |

Workers that hang are in `tests/end_to_end/workers_hanging.py`, those with async hooks in `workers_async.py`. A worker
that only one test needs is defined beside that test.

Every worker's process imports this module anew, and a test file imports pytest: so this module imports light modules
only, and holds the workers of tests in which many processes start or time matters.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any, ClassVar, Literal

from suitkaise import Ignore, Process, Thread
from suitkaise.workers.worker import Worker

__all__ = [
    "BriefProcess",
    "BriefThread",
    "BrutallyKilledRecorder",
    "CountingProcess",
    "CountingThread",
    "CutsItselfOff",
    "Echo",
    "EchoThread",
    "FailingProcess",
    "FailingThread",
    "Fails",
    "FinishingProcess",
    "FinishingThread",
    "GatheringProcess",
    "GatheringThread",
    "Gathers",
    "HandlesSlowly",
    "LeavingProcess",
    "LeavingThread",
    "Recorder",
    "RecorderThread",
    "Records",
    "SlowLoopingProcess",
    "SlowProcess",
    "Tallies",
    "TallyProcess",
    "TallyThread",
    "of_this_process",
]


# ---------------------------------------------------------------- workers that answer
class Echoes(Worker):
    """Answers each message with itself, `"pid"` with its process id; ends at `"leave"`, crashes at `"crash"`."""

    def on_receive(self, message: Any) -> Any:
        match message:
            case "leave":
                self.rejoin()
            case "pid":
                return os.getpid()
            case "crash":
                raise ValueError("it was asked to crash")
        return message


class Echo(Echoes, Process):
    pass


class EchoThread(Echoes, Thread):
    pass


class Tallies(Echoes):
    """Answers how many messages it has received."""

    so_far = 0

    def on_receive(self, message: Any) -> int:
        super().on_receive(message)
        self.so_far += 1
        return self.so_far


class TallyProcess(Tallies, Process):
    pass


class TallyThread(Tallies, Thread):
    pass


class Leaves(Worker):
    """Ends cleanly at the first message; its class is temporary, an instance may have another restart type."""

    restart: str = "temporary"

    def __init__(self, restart: str | None = None) -> None:
        if restart is not None:
            self.restart = restart

    def on_receive(self, message: Any) -> None:
        self.rejoin()


class LeavingProcess(Leaves, Process):
    pass


class LeavingThread(Leaves, Thread):
    pass


class HandlesSlowly(Worker):
    """Takes 20 ms for each message; handles the first one only once its folder holds the file `go`."""

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


class SlowProcess(HandlesSlowly, Process):
    pass


class SlowLoopingProcess(HandlesSlowly, Process):
    def loop(self) -> None:
        self.wait(0.001)


# ---------------------------------------------------------------- workers that loop
class Counts(Worker):
    """Loops, and answers how many loops it has begun."""

    def loop(self) -> int:
        self.wait(0.001)
        return self.current_loop

    def on_receive(self, message: Any) -> int:
        return int(self.current_loop)


class CountingProcess(Counts, Process):
    pass


class CountingThread(Counts, Thread):
    pass


class Brief(Counts):
    """Ends after three loops, or after as many as it is given; their number is the result."""

    restart: ClassVar[str] = "transient"
    join_after: int = 3

    def __init__(self, loops: int | None = None) -> None:
        if loops is not None:
            self.join_after = loops

    def result(self) -> int:
        return self.current_loop


class BriefProcess(Brief, Process):
    pass


class BriefThread(Brief, Thread):
    pass


# ---------------------------------------------------------------- workers that record their hooks
class Records(Echoes):
    """Writes `start NAME` and `stop NAME` into the file `notes` of its folder.

    A file `fails-NAME` in that folder makes the start of the worker with that name fail; so do the other files that
    `on_start` and `on_finish` ask for. `tests.end_to_end.kinds.Kinds` makes these files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def note(self, word: str) -> None:
        with open(self.folder / "notes", "a") as file:
            file.write(f"{word} {self.name}\n")

    def has_order(self, what: str) -> bool:
        return (self.folder / f"{what}-{self.name}").exists()

    def on_start(self) -> None:
        if self.has_order("starts_slowly"):
            self.note("slow")
            while self.has_order("starts_slowly") and not self.wait(0.005):
                pass
        if self.has_order("fails_once"):
            (self.folder / f"fails_once-{self.name}").unlink()
            self.note("fail")
            raise OSError("broken once")
        if self.has_order("fails"):
            self.note("fail")
            raise OSError("broken")
        if self.has_order("ignores"):
            raise Ignore
        self.note("start")

    def on_finish(self) -> None:
        if self.has_order("stops_slowly"):
            self.note("slow")
            pause = threading.Event()
            while self.has_order("stops_slowly"):
                pause.wait(0.005)
        self.note("stop")
        if self.has_order("raises_at_the_end"):
            raise LookupError("odd")
        if self.has_order("exits_at_the_end"):
            os._exit(3)
        if self.has_order("is_killed_at_the_end"):
            os.kill(os.getpid(), signal.SIGKILL)


class Recorder(Records, Process):
    pass


class RecorderThread(Records, Thread):
    pass


class BrutallyKilledRecorder(Recorder):
    shutdown: ClassVar[Literal["brutal_kill"]] = "brutal_kill"


class Finishes(Worker):
    """Writes its hooks into the file `hooks`; calls the method `what` in each hook for which there is a file."""

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


# ---------------------------------------------------------------- workers that fail
class Fails(Worker):
    """Writes its pid into a file and ends in `on_start` in the way `how`; with `file`, only if that file exists."""

    def __init__(self, how: str, pids: Path, file: Path | None = None) -> None:
        self.how = how
        self.pids = pids
        self.file = file

    def on_start(self) -> None:
        with open(self.pids, "a") as pids:
            pids.write(f"{os.getpid()}\n")
        if self.file is not None:
            if not self.file.exists():
                return
            self.file.unlink()
        match self.how:
            case "raises":
                raise OSError("no such port")
            case "is interrupted":
                raise KeyboardInterrupt
            case "exits":
                sys.exit(3)
            case "exits as if all was well":
                sys.exit()
            case "exits at once":
                os._exit(3)
            case "exits at once as if all was well":
                os._exit(0)
            case "is killed":
                os.kill(os.getpid(), signal.SIGKILL)


class FailingProcess(Fails, Process):
    pass


class FailingThread(Fails, Thread):
    pass


class CutsItselfOff(Process):
    """Closes all its connections to its supervisor, writes its pid into a file, and goes on."""

    shutdown: ClassVar[float] = 0.3

    def __init__(self, pids: Path) -> None:
        self.pids = pids

    def loop(self) -> None:
        os.closerange(3, 4096)
        with open(self.pids, "a") as pids:
            pids.write(f"{os.getpid()}\n")
        threading.Event().wait()


# ---------------------------------------------------------------- workers with state
of_this_process: list[str] = []


class Gathers(Worker):
    """Keeps words in its arguments, its attributes, its class, this module and the storage."""

    shared: list[str] = []

    def __init__(self, given: list[str], named: dict[str, str]) -> None:
        self.given, self.named = given, named
        self.own: list[str] = []

    def on_receive(self, message: Any) -> Any:
        match message:
            case "crash":
                raise ValueError("it was asked to crash")
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
