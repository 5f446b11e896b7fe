"""Owners of forked processes that record what happens, and a keeper's client that forks nothing."""

from __future__ import annotations

import queue
import signal
import socket
from typing import Any

from suitkaise.engines.engine import EngineContext
from suitkaise.engines.forked_process import ForkedProcess
from suitkaise.engines.protocol import PrepareSpare
from suitkaise.engines.spares import context_for
from suitkaise.messaging import codec, wire
from suitkaise.specs import Recipe
from suitkaise.workers.worker import Process

SOON = 15.0


class Idle(Process):
    """Waits for messages."""

    def on_receive(self, message: Any) -> Any:
        return message


class Owner:
    """The callbacks of one process; its process is a spare, which does nothing by itself."""

    def __init__(self, context: EngineContext, keeper: Any) -> None:
        self.happened: queue.Queue[tuple[Any, ...]] = queue.Queue()
        self.process = ForkedProcess(context, keeper, "tree/worker", 0.0, False, False, self)

    def first_frame(self) -> tuple[bytes, list[socket.socket]]:
        order = PrepareSpare(codec.dumps(context_for("tree/worker", {}, {})), {})
        return wire.encode(order, codec.dumps(Recipe(Idle))), []

    def on_flushed(self) -> None: ...

    def on_started(self) -> None:
        self.happened.put(("started", self.process.pid))

    def on_frame(self, report: Any, payload: bytes) -> None:
        self.happened.put(("frame", report, payload))

    def on_exit(self, code: int | None) -> None:
        self.happened.put(("exit", code))

    def on_spawn_failed(self, error: str) -> None:
        self.happened.put(("spawn failed", error))

    def kill(self, why: str) -> None:
        self.happened.put(("kill", why))
        self.process.signal(signal.SIGKILL)

    def next(self) -> tuple[Any, ...]:
        """The next thing that happens."""
        return self.happened.get(timeout=SOON)


class NoKeeper:
    """Stands in for the keeper's client: the test itself is the process at the other end of the connection."""

    def __init__(self, context: EngineContext) -> None:
        self.expected = 0
        self.inherited: dict[Any, Any] = {}
        self.forgotten: list[ForkedProcess] = []
        self.ends: list[socket.socket] = []
        self._context = context

    def spawn(self, process: ForkedProcess) -> None:
        self.ends.append(process.connect())
        process.send_first_frame()
        self._context.reactor.call_soon_threadsafe(process.resume_reading)

    def expect_reply(self) -> None:
        self.expected += 1

    def mark_alive(self) -> None: ...

    def forget(self, process: ForkedProcess) -> None:
        self.forgotten.append(process)
