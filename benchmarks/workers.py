"""The workers of the benchmarks, in a module that their processes can import."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from light import started, touch

from suitkaise import Process, Thread, WorkerRef


class Idle(Process):
    """Reports its first loop, then waits."""

    def __init__(self, path: str) -> None:
        self.path_of_pipe = path

    def loop(self) -> None:
        if self.current_loop == 1:
            started(self.path_of_pipe)
        self.wait(3600)


class Big(Process):
    """Reports its first loop, takes much memory and reports that, then waits."""

    def __init__(self, path: str, size: int) -> None:
        self.path_of_pipe = path
        self.size = size

    def loop(self) -> None:
        if self.current_loop == 1:
            started(self.path_of_pipe)
            self.memory = bytearray(self.size)
            touch(self.memory)
            started(self.path_of_pipe)
        self.wait(3600)


class AsyncIdle(Process):
    """Does the same as `Idle` in an async loop."""

    def __init__(self, path: str) -> None:
        self.path_of_pipe = path

    async def loop(self) -> None:
        if self.current_loop == 1:
            started(self.path_of_pipe)
        await self.wait_async(3600)


class Awaits(Thread):
    """Awaits `body()` in each loop."""

    def __init__(self, body: Callable[[], Any]) -> None:
        self.body = body

    async def loop(self) -> None:
        await self.body()


class Crashes(Process):
    """Kills itself in its first loop."""

    def loop(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


class Hooks(Thread):
    def before_loop(self) -> None: ...

    def loop(self) -> None: ...

    def after_loop(self) -> None: ...


class LoopOnly(Thread):
    def loop(self) -> None: ...


class _Echo:
    def on_receive(self, message: Any) -> Any:
        return message


@dataclass
class Point:
    """A small object."""

    x: int
    y: int

    def moved(self, by: int) -> Point:
        return Point(self.x + by, self.y + by)


class Echo(_Echo, Process):
    """Only waits for messages."""


class EchoThread(_Echo, Thread):
    """Waits for messages in a thread."""


class EmptyLoop(_Echo, Process):
    def loop(self) -> None: ...


class BusyLoop(_Echo, Process):
    def loop(self) -> None:
        sum(range(2000))  # about 20 us


class Asker(Process):
    """Asks another worker many times; answers the seconds of each ask. With a size, the question is an array."""

    def on_receive(self, message: tuple[str, int] | tuple[str, int, int]) -> list[float]:
        path, count, *size = message
        question: object = b"x" * 100
        if size:
            import numpy  # here: the peers of the programs that measure starts do not import it

            question = numpy.ones(*size, dtype=numpy.uint8)
        ref, clock, taken = WorkerRef(path), time.perf_counter, []
        for _ in range(count):
            began = clock()
            ref.ask(question)
            taken.append(clock() - began)
        return taken


class Teller(Process):
    """Tells another worker many messages; answers the messages a second, until the last one was handled."""

    def on_receive(self, message: tuple[str, int]) -> float:
        path, count = message
        ref = WorkerRef(path)
        ref.ask(b"x" * 100)
        began = time.perf_counter()
        for _ in range(count):
            ref.tell(b"x" * 100)
        ref.ask(b"x" * 100, timeout=60)
        return count / (time.perf_counter() - began)


class Fragile(Thread):
    """Waits for a message, and crashes when one arrives."""

    def on_receive(self, message: Any) -> None:
        raise ValueError("a crash on request")
