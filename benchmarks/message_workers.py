"""The workers of the benchmark of messages, in a module that their processes can import."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy

from suitkaise import Process, Thread, WorkerRef


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
