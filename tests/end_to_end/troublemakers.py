"""Workers that fail to start in every way, that cut themselves off, and one that counts what it was told.

Every worker's process imports this module anew, so it imports nothing that takes long.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any, ClassVar

from suitkaise import Process, Thread
from suitkaise.workers.worker import Worker


class Fails(Worker):
    """Ends in `on_start` in the way that it is told; notes its process first. `file`: only while that is there."""

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
    """Closes all that connects it to its supervisor, and goes on."""

    shutdown: ClassVar[float] = 0.3

    def __init__(self, pids: Path) -> None:
        self.pids = pids

    def loop(self) -> None:
        os.closerange(3, 4096)
        with open(self.pids, "a") as pids:
            pids.write(f"{os.getpid()}\n")
        threading.Event().wait()


class Tally(Worker):
    """Answers how many messages it has had; "end" ends it, "crash" crashes it."""

    so_far = 0

    def on_receive(self, message: Any) -> int:
        if message == "end":
            self.rejoin()
        if message == "crash":
            raise ValueError("it was told to crash")
        self.so_far += 1
        return self.so_far


class TallyProcess(Tally, Process):
    pass


class TallyThread(Tally, Thread):
    pass
