"""Workers that hang in different ways once their folder holds the file `hang`, and workers that are only slow.

Every worker's process imports this module anew, so it imports nothing that takes long.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

from suitkaise import Process, Thread
from suitkaise.workers.worker import Worker

LONG = 600


def sleeps() -> None:
    time.sleep(LONG)


def holds_the_gil() -> None:
    ctypes.PyDLL(None).sleep(LONG)


def is_stopped() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def swallows_everything() -> None:
    while True:
        try:
            time.sleep(LONG)
        except BaseException:
            continue


def computes() -> None:
    while True:
        pass


WAYS = {way.__name__: way for way in (sleeps, holds_the_gil, is_stopped, swallows_everything, computes)}


class Hanger(Worker):
    """Hangs once in the hook `where`, in the way `how`, when it finds the file `hang` and has removed it."""

    def __init__(self, folder: Path, where: str, how: str = "sleeps") -> None:
        self.folder = folder
        self.where = where
        self.how = how

    def hang_if_ordered(self, where: str) -> None:
        if where == self.where:
            try:
                (self.folder / "hang").unlink()
            except FileNotFoundError:
                return
            WAYS[self.how]()

    def on_start(self) -> None:
        self.hang_if_ordered("on_start")

    def before_loop(self) -> None:
        self.hang_if_ordered("before_loop")

    def loop(self) -> None:
        self.wait(0.01)
        self.hang_if_ordered("loop")

    def after_loop(self) -> None:
        self.hang_if_ordered("after_loop")

    def on_receive(self, message: Any) -> Any:
        self.hang_if_ordered("on_receive")
        return message

    def on_finish(self) -> None:
        self.hang_if_ordered("on_finish")


class HangingProcess(Hanger, Process):
    pass


class HangingThread(Hanger, Thread):
    pass


class Waits(Process):
    """Has no loop; waits for messages, far longer than its limits."""

    loop_timeout = before_loop_timeout = after_loop_timeout = receive_timeout = 0.3

    def on_receive(self, message: Any) -> Any:
        return message


class Brisk(Process):
    """Its loops take a fraction of their limit, unless the process gets no processor time."""

    loop_timeout = 0.5

    def loop(self) -> None:
        time.sleep(0.01)


class Busy(Process):
    """Each loop takes a good part of its limit."""

    loop_timeout = 2.0

    def loop(self) -> None:
        time.sleep(0.8)


class LeavesSlowly(Process):
    """Finishes at once, but leaves an exit handler or a thread that takes `seconds`, then makes the file `left`."""

    def __init__(self, folder: Path, what: str, seconds: float) -> None:
        self.folder = folder
        self.what = what
        self.seconds = seconds

    def on_finish(self) -> None:
        if self.what == "an exit handler":
            atexit.register(self.leave)
        else:
            threading.Thread(target=self.leave).start()

    def leave(self) -> None:
        time.sleep(self.seconds)
        (self.folder / "left").touch()


class StopsWhenUnpickled:
    """An argument of a worker: its process stops when it reads the argument, once, if the folder holds `hang`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> Any:
        return stop_if_ordered, (self.folder,)


def stop_if_ordered(folder: Path) -> Path:
    try:
        (folder / "hang").unlink()
    except FileNotFoundError:
        return folder
    is_stopped()
    return folder


class PassesOn(Process):
    """Tells or asks the worker `w` what it is told."""

    def on_receive(self, message: tuple[str, Any]) -> Any:
        how, what = message
        return self.whereis("tree/w").ask(what, timeout=5) if how == "ask" else self.whereis("tree/w").tell(what)


class TakesAnything(Process):
    """Answers messages."""

    def __init__(self, what: Any = None) -> None:
        self.what = what

    def on_receive(self, message: Any) -> Any:
        return message


class FailsOnce(Process):
    """Fails in `on_start`, once, if its folder holds the file `hang`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_start(self) -> None:
        try:
            (self.folder / "hang").unlink()
        except FileNotFoundError:
            return
        raise ValueError("not today")
