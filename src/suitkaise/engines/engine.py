"""The protocol of engines: where workers run. Strategies, deadlines and intensity stay above it."""

from __future__ import annotations

import os
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Protocol

from suitkaise.exits import ExitReason, Hung
from suitkaise.messaging.logs import Forwarded
from suitkaise.messaging.messages import Message, Payload
from suitkaise.platform.board import Board, SlotView
from suitkaise.platform.reactor import Reactor
from suitkaise.specs import LIMITS, Child
from suitkaise.specs.recipe import Recipe
from suitkaise.workers.incarnation import Incarnation, Recalled

__all__ = ["Engine", "EngineContext", "Exit", "Handle", "Launch", "WorkerHandle", "settle"]


@dataclass(frozen=True, slots=True)
class Exit:
    """How an incarnation ended. `abandoned`: it is cut off but still there (a thread).

    `view`: what it did in the end; `lines`: the last that it printed or logged, if it ended abnormally.
    """

    reason: ExitReason
    result: Payload | None = None
    ignored: bool = False
    abandoned: bool = False
    view: SlotView | None = None
    lines: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Launch:
    """An order to start one incarnation."""

    path: str
    child: Child
    incarnation: int
    serial: int
    recalled: Recalled | None = None

    @property
    def recipe(self) -> Recipe:
        """What to build."""
        assert isinstance(self.child.what, Recipe)
        return self.child.what

    @property
    def birth(self) -> Incarnation:
        """What the worker is told."""
        child = self.child
        return Incarnation(
            self.path, self.serial, child.copy, child.join_in, child.join_after, self.recalled, self.grace
        )  # fmt: skip

    @property
    def limited(self) -> bool:
        """Whether one of its phases has a limit (rule 55)."""
        return any(getattr(self.child, name) is not None for name in LIMITS)

    @property
    def grace(self) -> float:
        """Seconds that the worker may take to finish when the program that owns it is gone."""
        shutdown = self.child.shutdown
        return shutdown if isinstance(shutdown, float) else 0.0 if shutdown == "brutal_kill" else float("inf")


@dataclass(slots=True)
class EngineContext:
    """What engines find in the program they run in."""

    directory: str
    board: Board
    reactor: Reactor
    orphan_timeout: float = 5.0
    logs: Forwarded = field(init=False)

    def __post_init__(self) -> None:
        self.logs = Forwarded(self.reactor)

    def file(self, name: str) -> str:
        """A path in the program's private directory."""
        return os.path.join(self.directory, name)


class Handle(Protocol):
    """One incarnation. Its methods never block and may be called from any thread."""

    exited: Future[Exit]
    """Resolves exactly once, when the incarnation is over."""
    ready: Future[int]
    """Resolves with the pid when `on_start` has returned; never, if it does not."""

    def deliver(self, message: Message, *, accepted: bool = False) -> None:
        """Send it a message; first in, first out. See `Receiver.deliver`."""
        ...

    def stop(self) -> None:
        """Ask it to finish."""
        ...

    def suspend(self, on: bool) -> None:
        """Let it rest after its current loop, or go on."""

    def kill(self, why: str) -> None:
        """End it now."""
        ...


class WorkerHandle(Handle, Protocol):
    """One incarnation of a worker: it can be seen at work."""

    checkpoint: Payload | None
    """The last value that it wants to be kept for the next one."""

    def snapshot(self) -> SlotView | None:
        """What it does at this moment; None once it is gone, or where nobody can tell."""
        ...

    def kill_hung(self, hung: Hung) -> None:
        """End it for that reason, and let the reason say where it hangs."""
        ...


class Engine(Protocol):
    """Starts workers somewhere."""

    def spawn(self, launch: Launch) -> WorkerHandle:
        """Begin to start one; never blocks. What goes wrong is told by `exited`."""
        ...

    def prepare(self, path: str, child: Child) -> None:
        """Check that the child can be started here; raises what the user should see at `start()`."""
        ...

    def forget(self, path: str) -> None:
        """The child at `path` will not be started again."""
        ...

    def abandoned(self) -> list[str]:
        """The paths of incarnations that were cut off, but are still there (rule 59)."""
        ...

    def close(self) -> None:
        """Give everything back; there are no workers any more."""
        ...


def settle(future: Future[Exit], exit: Exit) -> bool:
    """Resolve an `exited` future, once; whether this was the time."""
    if future.done():
        return False
    future.set_result(exit)
    return True
