"""The workers of the benchmarks, in a module that their processes can import.

As in `light`, few imports: a program that starts one of them is timed, beside one that imports `light`.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

from light import started, touch

from suitkaise import Process, Thread


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


class Fragile(Thread):
    """Waits for a message, and crashes when one arrives."""

    def on_receive(self, message: Any) -> None:
        raise ValueError("a crash on request")
