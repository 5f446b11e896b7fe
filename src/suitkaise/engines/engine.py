"""The interface of engines: where workers run. Engines know nothing of strategies, deadlines and intensity."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import Context
from typing import NamedTuple, Protocol, TypeAlias

from suitkaise.crashes import CrashReport
from suitkaise.events import Event
from suitkaise.exits import ExitReason, Hung
from suitkaise.messaging import codec
from suitkaise.messaging.log_rings import LogRings
from suitkaise.messaging.logs import Forwarded
from suitkaise.messaging.messages import Message, Payload
from suitkaise.messaging.tracing import Carrier, carrier
from suitkaise.platform.board import Board, SlotView
from suitkaise.platform.descriptors import DescriptorReserve
from suitkaise.platform.log_queue import LogQueue
from suitkaise.platform.reactor import Reactor
from suitkaise.records import dataclass, field
from suitkaise.specs import Child
from suitkaise.specs.recipe import Recipe
from suitkaise.workers.background import ThreadSupervisor
from suitkaise.workers.incarnation import Incarnation, Recalled

__all__ = ["Engine", "EngineContext", "Exit", "Handle", "Launch", "SuperviseThreads", "Surroundings",
           "WatchedElsewhere", "WorkerHandle", "grace_of", "settle"]  # fmt: skip

SuperviseThreads: TypeAlias = "Callable[[EngineContext, Engine, str, Callable[[ExitReason], None]], ThreadSupervisor]"
"""Makes the supervisor of a worker's background threads: see `supervision.background`, which stands above."""


@dataclass(frozen=True, slots=True)
class Exit:
    """How an incarnation ended.

    Args:
        reason: the exit reason.
        result: the value that the worker's `result()` returned.
        ignored: whether `on_start` raised `Ignore`.
        abandoned: whether the incarnation was cut off but still runs (a thread).
        view: the worker's slot on the status board at the end.
        lines: the last lines that the worker printed or logged, if it ended abnormally.
        unhandled: the number of messages that waited for the worker at its end.
        returned: those of them that are for the next incarnation (rule 72).
        stack: the stacks of a process that a signal of its own fault has ended (SIGSEGV, SIGABRT), of one that did not
            stop in time, and of a thread that was abandoned.
        node: the name of the node of a cluster on which it ran; empty: on this machine.
    """

    reason: ExitReason
    result: Payload | None = None
    ignored: bool = False
    abandoned: bool = False
    view: SlotView | None = None
    lines: tuple[str, ...] = ()
    unhandled: int = 0
    returned: tuple[Message, ...] = ()
    stack: str = ""
    node: str = ""


@dataclass(frozen=True, slots=True)
class Launch:
    """An order to start one incarnation of a child.

    `context` holds the context variables of the caller that has started the child, or the tree that it is a part of.
    """

    child: Child
    incarnation: Incarnation
    context: Context = field(default_factory=Context)

    @classmethod
    def of(
        cls,
        child: Child,
        path: str,
        number: int,
        serial: int,
        recalled: Recalled | None = None,
        context: Context | None = None,
    ) -> Launch:
        """Make the order for incarnation `number` of the child at `path`; `serial` is unique in the program."""
        incarnation = Incarnation(
            path, serial, number, child.copy, child.join_in, child.join_after, recalled,
            grace=grace_of(child), drain=child.drain or 0.0, user=child.user, idle_timeout=child.idle_timeout,
            concurrency=child.concurrency, bounded=child.mailbox is not None,
        )  # fmt: skip
        return cls(child, incarnation, Context() if context is None else context)

    @property
    def carrier(self) -> Carrier | None:
        """The tracing context in `context`."""
        return self.context.copy().run(carrier)  # a context that another thread has entered cannot be entered

    def drain(self, wanted: float | None) -> float:
        """Return the seconds for which a stop lets messages be handled first: those of the order, or the child's own.

        Those of an order leave at least a second of the shutdown time, or half of it, for `on_finish`.
        """
        grace = self.incarnation.grace
        return self.incarnation.drain if wanted is None else min(wanted, grace - min(1.0, grace / 2))

    @property
    def path(self) -> str:
        """The worker's path."""
        return self.incarnation.path

    @property
    def number(self) -> int:
        """The number of the incarnation, from 1."""
        return self.incarnation.number

    @property
    def recipe(self) -> Recipe:
        """The worker's class and arguments."""
        assert isinstance(self.child.what, Recipe)
        return self.child.what


def grace_of(child: Child) -> float:
    """Return the seconds that the child's worker may take to finish when the program that owns it is gone."""
    shutdown = child.shutdown
    return shutdown if isinstance(shutdown, float) else 0.0 if shutdown == "brutal_kill" else float("inf")


class Surroundings(NamedTuple):
    """What the process of a worker takes over of the program that owns the tree, besides its environment."""

    directory: str  # the current working directory
    search_path: list[str]
    argv: list[str]
    program: str  # whose `__main__` the worker takes part in
    main_names: dict[str, str]  # of that `__main__`: its file, its package, and its text


@dataclass(slots=True)
class EngineContext:
    """The parts of the program that its engines use.

    `before_start` is called before a process is started; it raises SuitkaiseError if none can be. `paths_by_pid` has
    the path of the worker in each live process, and `unannounced` what reads the announcements of processes that are
    being started, for `path_of`. `log_rings` keeps the last lines of workers; None: they are not kept.
    `surroundings` is what processes take over; None: what this program is now.
    """

    directory: str
    board: Board
    reactor: Reactor
    orphan_timeout: float = 5.0
    before_start: Callable[[], None] = lambda: None
    log_queue: LogQueue = field(default_factory=LogQueue)
    reserve: DescriptorReserve = field(default_factory=lambda: DescriptorReserve(0))
    publish: Callable[[Event], None] = lambda event: None
    report: Callable[[CrashReport], None] = lambda report: None
    supervise: SuperviseThreads | None = None
    paths_by_pid: dict[int, str] = field(default_factory=dict)
    unannounced: dict[object, Callable[[], None]] = field(default_factory=dict)
    log_rings: LogRings | None = None
    surroundings: Surroundings | None = None
    supervise_data: bytes = field(init=False)  # `supervise`, for the processes of workers
    logs: Forwarded = field(init=False)

    def __post_init__(self) -> None:
        self.logs = Forwarded(self.reactor, self.log_queue)
        self.supervise_data = codec.dumps(self.supervise)

    def file(self, name: str) -> str:
        """Return the path of a file in the program's private directory."""
        return os.path.join(self.directory, name)

    def path_of(self, pid: int) -> str:
        """Return the path of the worker in a process; empty if it is none (reactor's thread).

        A process announces itself before it does anything else, on a connection of its own. What it sends over another
        one may be read first.
        """
        if pid not in self.paths_by_pid:
            for read in list(self.unannounced.values()):
                read()
        return self.paths_by_pid.get(pid, "")


class Handle(Protocol):
    """One incarnation. The methods never block and may be called from any thread."""

    exited: Future[Exit]
    """Resolves exactly once, when the incarnation has ended."""
    ready: Future[int]
    """Resolves with the pid when `on_start` has returned; never, if `on_start` does not return."""
    suspended: bool
    """Whether the worker was told to pause between its loops; a supervisor never is, but its workers."""

    def deliver(self, message: Message, *, accepted: bool = False) -> None:
        """Send a message to the worker, first in, first out; see `Receiver.deliver`."""
        ...

    def stop(self, drain: float | None = None) -> None:
        """Ask the worker to finish; let it handle messages first for `drain` seconds (None: as its child says)."""
        ...

    def suspend(self, on: bool) -> None:
        """Suspend the worker after its current loop, or resume it."""

    def kill(self, why: str) -> None:
        """End the incarnation now."""
        ...


class WorkerHandle(Handle, Protocol):
    """One incarnation of a worker, with its state on the status board."""

    checkpoint: Payload | None
    """The last checkpoint that the worker saved for its next incarnation."""

    def snapshot(self) -> SlotView | None:
        """Read the worker's slot on the status board; None after the worker's end, or where there is no slot."""
        ...

    def kill_hung(self, hung: Hung) -> None:
        """End the incarnation for that reason, with the stack of the hanging worker added to the reason."""
        ...


class WatchedElsewhere(Protocol):
    """An incarnation on another machine, where its limits of time and memory are watched.

    No other handle has the attribute.
    """

    recycle: Callable[[], None]
    """Called when it uses more memory than it may: orders the restart."""


class Engine(Protocol):
    """Starts workers somewhere."""

    def spawn(self, launch: Launch) -> WorkerHandle:
        """Begin to start a worker; never blocks. A failure resolves `exited`."""
        ...

    def prepare(self, path: str, child: Child) -> None:
        """Check that the child can be started here; raise the error that the user gets from `start()`."""
        ...

    def forget(self, path: str) -> None:
        """Discard what was prepared for the child at `path`, which will not be started again."""
        ...

    def abandoned(self) -> list[str]:
        """Return the paths of incarnations that were cut off but still run (rule 59)."""
        ...

    def close(self) -> None:
        """Release everything; called after the last worker has ended."""
        ...


def settle(future: Future[Exit], exit: Exit) -> bool:
    """Resolve an `exited` future unless it is resolved already; return whether this call resolved it."""
    if future.done():
        return False
    future.set_result(exit)
    return True
