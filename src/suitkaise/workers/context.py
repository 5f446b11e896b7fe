"""What a running worker knows and can call: its `WorkerContext`, and the monitors and links that it has asked for."""

from __future__ import annotations

import itertools
import math
import os
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

from suitkaise.exits import ExitReason, Normal, Shutdown
from suitkaise.messaging import codec
from suitkaise.messaging.held_back import send_held
from suitkaise.messaging.mailbox import Mailbox
from suitkaise.messaging.messages import Message, Payload
from suitkaise.messaging.protocol import RequestKind
from suitkaise.messaging.refs import Down, Monitor, WorkerRef
from suitkaise.messaging.router import router
from suitkaise.platform.board import LOOPS, PHASE, PID, TOTAL, Phase, Slot
from suitkaise.platform.descriptors import await_readable
from suitkaise.workers.background import Background
from suitkaise.workers.incarnation import FORCED, ForceFinish, Incarnation, OwnRef, Recalled
from suitkaise.workers.loop_report import LoopTimeReport, report_on
from suitkaise.workers.loop_times import LoopTimes
from suitkaise.workers.output import OutputSink
from suitkaise.workers.replies import Replies, ReplyTo
from suitkaise.workers.timers import CANCELLED, Timers

__all__ = ["WorkerContext", "WorkerLinks"]

_clock = time.monotonic


class LoopState:
    """What each loop of a worker changes. It has slots: a store takes 1 ns, and 15 in an object of 30 attributes."""

    __slots__ = ("number", "result", "took")

    def __init__(self) -> None:
        self.number: int = 0
        """The number of the current loop."""
        self.took: float = 0.0
        """The seconds that the last loop took which has returned."""
        self.result: Any = None
        """The value that it returned."""


class WorkerContext:
    """What one incarnation of a worker knows of itself and can ask for.

    The life cycle owns it, writes the counters and reads the flags; the worker has it as `_worker_context`. The
    methods may be called from any thread of the worker.
    """

    def __init__(self, incarnation: Incarnation, mailbox: Mailbox, slot: Slot) -> None:
        self.path: str = incarnation.path
        self.owner: str = incarnation.owner
        self.copy: int | None = incarnation.copy
        self.recalled: Recalled | None = incarnation.recalled
        self.pid: int = os.getpid()
        self.links: WorkerLinks = WorkerLinks(incarnation.owner)

        # Set by the engine and the actor.
        self.ref: OwnRef = OwnRef(incarnation.path, incarnation.copy)
        """The worker's own ref."""
        self.has_address: bool = True
        """Whether the program knows the worker's path, as it does not know those of background threads."""
        self.append_output: Callable[[str, str], None] = lambda text, letter: None
        """Adds text to the output that a crash report shows."""
        self.output: OutputSink | None = None
        """Takes the output of a command, for the log."""
        self.on_log_line: Callable[[str], None] | None = None
        """Takes each logged line, where the engine does not add log lines to crash reports by itself."""
        self.on_crash: Callable[[BaseException], None] = lambda error: None
        """Shows an exception that ends the worker to the exception hook of its process or thread."""
        self.add_to_stacks: Callable[[Callable[[], str]], None] = lambda text: None
        """Has each dump of the worker's stacks end with `text()`."""
        self.on_checkpoint: Callable[[Payload], None] | None = None
        """Takes each checkpoint."""

        self.background: Background = Background(
            incarnation.path, lambda: mailbox.order_stop(Shutdown("its background threads have ended"), 0.0)
        )
        """The background threads."""
        self.timers: Timers = Timers(incarnation.path, mailbox, slot)
        """The timers."""
        self.replies: Replies = Replies(incarnation.path)
        """The messages that are answered later."""

        # Written by the life cycle.
        self.starting: bool = True
        self.loop_state: LoopState = LoopState()
        self.times: LoopTimes = LoopTimes()
        self.own_reason: ExitReason = Normal()  # of an end that the worker itself has decided
        self.finish_reason: ExitReason | None = None
        self.join_after: float | None = incarnation.join_after
        self.deadline: float = math.inf

        # Set by the methods below, which ring the mailbox's bell then; read by the life cycle.
        self.finishing: bool = False
        self.skip_after_loop: bool = False
        self.forced: bool = False
        self.drain: float | None = None

        self._mailbox = mailbox
        self._slot = slot
        self._process = os.getpid()
        self._last_checkpoint: Payload | None = None if self.recalled is None else self.recalled.kept

    # ------------------------------------------------------------ ways to end
    def rejoin(self, *, skip: bool = False, drain: float | None = None, why: str | None = None) -> None:
        """Finish after this loop; with `skip`, without its `after_loop`; after `drain` seconds for messages."""
        if not self.finishing and why is not None:
            self.own_reason = Shutdown(why)
        self.drain = self.drain if drain is None else drain
        self.finishing = True
        try:
            phase = Phase.of(self._slot.seconds[PHASE])
        except ValueError:  # the slot is released: a thread of the worker has outlived the worker
            return
        if skip and phase is not Phase.AFTER_LOOP:
            self.skip_after_loop = True
        if not phase.in_a_loop:
            self._mailbox.order_stop(self.own_reason, drain)
        self._mailbox.end_waits()

    def force_finish(self) -> None:
        """Finish at once in the worker's own thread; called from another thread, when the current hook returns."""
        self.forced = self.finishing = self.skip_after_loop = True
        self._mailbox.order_stop(FORCED, 0.0)
        if threading.get_ident() == self._mailbox.owner:
            raise ForceFinish

    # ------------------------------------------------------------ waiting
    def wait(self, seconds: float) -> bool:
        """Sleep at most `seconds`; return True as soon as the worker is asked to stop."""
        return self._mailbox.wait_beside(seconds) if self.forked else self._mailbox.wait(seconds)

    def wait_async(self, seconds: float) -> Coroutine[Any, Any, bool]:
        """Sleep in the worker's event loop."""
        raise RuntimeError(
            "wait_async() needs an event loop, and this worker has none because none of its hooks is async; "
            "use self.wait(...)"
        )

    def wait_in(self, wait: Callable[..., None], *, for_messages: bool = True) -> bool:
        """Sleep in the caller's `wait(*descriptors)`, which must return when one of the descriptors is readable.

        Return False once the program that owns the worker is gone.
        """
        return self._mailbox.wait_in(wait, for_messages=for_messages)

    @property
    def forked(self) -> bool:
        """Whether this is a process that the worker has forked."""
        return os.getpid() != self._process

    def wait_for_input(self, descriptor: int | None) -> bool:
        """Wait until the descriptor is readable (None: do not wait, but look for an order), or earlier.

        Return False once the worker is asked to stop, or its time is over.
        """
        mailbox = self._mailbox
        if descriptor is None:
            mailbox.look_for_orders()
        else:
            with mailbox.woken() as descriptors:
                await_readable(descriptor, *descriptors, until=mailbox.deadline)
        return not mailbox.is_over

    async def wait_for_future(self, future: Any) -> bool:
        """Do the same with a future of the event loop that runs."""
        import asyncio

        mailbox, loop = self._mailbox, asyncio.get_running_loop()
        left = None if mailbox.deadline is None else max(0.0, mailbox.deadline - time.monotonic())
        woken = loop.create_future()
        with mailbox.woken() as descriptors:
            try:
                for descriptor in descriptors:
                    loop.add_reader(descriptor, woken.cancel)
                await asyncio.wait([future, woken], timeout=left, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for descriptor in descriptors:
                    loop.remove_reader(descriptor)
        return not mailbox.is_over

    # ------------------------------------------------------------ facts
    @property
    def is_last_loop(self) -> bool:
        """Whether no loop will follow the current one, as far as is known now."""
        return (
            self.finishing
            or self._mailbox.stop_reason is not None
            or (self.join_after is not None and self.loop_state.number >= self.join_after)
            or _clock() >= self.deadline
        )

    @property
    def stop_reason(self) -> ExitReason | None:
        """The reason of the stop request, if there was one."""
        return self._mailbox.stop_reason

    @property
    def suspended(self) -> bool:
        """Whether the worker is suspended."""
        return self._mailbox.suspended

    @property
    def seconds_left(self) -> float | None:
        """Seconds until `join_in` ends the worker; None without `join_in`."""
        return None if self.deadline == math.inf else max(0.0, self.deadline - _clock())

    def loop_time_report(self, title: str) -> LoopTimeReport:
        """Return the number of loops and their times."""
        slot = self._slot
        return report_on(
            title, self.times, loops=slot.words[LOOPS], total=slot.seconds[TOTAL], last=self.loop_state.took
        )

    # ------------------------------------------------------------ services
    def reply_to(self) -> ReplyTo:
        """Return what answers the message whose handler runs, in place of the handler's return value."""
        message = self.current_message() if threading.get_ident() == self._mailbox.owner else None
        if message is None:
            raise RuntimeError("reply_to() is for the handler of a message, in the worker's own thread")
        return self.replies.defer(message)

    def current_message(self) -> Message | None:
        """Return the message whose handler runs, if one does."""
        return self.replies.handled

    def checkpoint(self, value: Any) -> None:
        """Keep a copy of the value for the next incarnation."""
        assert self.on_checkpoint is not None
        payload = Payload(data=codec.dumps(value, root="checkpoint"))
        send_held()
        self.on_checkpoint(payload)
        self._last_checkpoint = payload

    def last_checkpoint(self, default: Any) -> Any:
        """Return a copy of the last checkpoint of this child, or the default."""
        return default if self._last_checkpoint is None else self._last_checkpoint.value

    def logger(self) -> Any:
        """Return a structlog logger that is bound to the worker's path and pid."""
        from suitkaise.messaging.logs import worker_logger

        return worker_logger(self.path, self.on_log_line)

    def cleanup(self, tree: Any) -> None:
        """Remove the storage entries that belong to this incarnation from `tree`."""
        if tree is not None:
            tree.remove_owned(self.owner)

    def accept(self, signal: Any) -> bool:
        """Return whether a message for this incarnation alone is to be handled."""
        return signal is not CANCELLED and self.links.accept(signal)

    # ------------------------------------------------------------ for workers that run a program
    def report_pid(self, pid: int) -> None:
        """Show `pid` as the worker's process id from now on."""
        self.pid = self._slot.words[PID] = pid

    def handle_suspension(self) -> None:
        """Leave suspension to the worker: its loop goes on while it is suspended, and reads `suspended`."""
        self._mailbox.blocks_if_suspended = False


class WorkerLinks:
    """The monitors and links that one incarnation has asked the hub for (rule 60). The hub keeps them.

    `owner` is the owner of the incarnation.
    """

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self._monitors: set[Monitor] = set()
        self._numbers = itertools.count(1)

    def monitor(self, ref: WorkerRef) -> Monitor:
        """Have a `Down` delivered when the incarnation that `ref` names now has ended."""
        monitor = Monitor(_path_of("monitor", ref), self._owner, next(self._numbers))
        self._monitors.add(monitor)
        router().request(RequestKind.MONITOR, ref.path, monitor).get()
        return monitor

    def demonitor(self, monitor: Monitor) -> None:
        """Have no `Down` of this monitor delivered any more."""
        if not isinstance(monitor, Monitor):
            raise TypeError(f"demonitor takes what monitor has returned, not {monitor!r}")
        if monitor in self._monitors:
            self._monitors.discard(monitor)
            router().request(RequestKind.DEMONITOR, monitor.path, monitor).get()

    def link(self, ref: WorkerRef) -> None:
        """Link this incarnation with the one that `ref` names now."""
        path = _path_of("link", ref)
        router().request(RequestKind.LINK, path, self._owner).get()

    def unlink(self, ref: WorkerRef) -> None:
        """Remove the link with the incarnation that `ref` names."""
        path = _path_of("unlink", ref)
        router().request(RequestKind.UNLINK, path, self._owner).get()

    def trap_exits(self, on: bool) -> None:
        """Have the end of linked incarnations delivered as messages from now on, or end this one with them."""
        router().request(RequestKind.TRAP_EXITS, "", (self._owner, on)).get()

    def accept(self, signal: Any) -> bool:
        """Return whether a signal is to be delivered: a `Down` only once, and only while its monitor exists."""
        if not isinstance(signal, Down) or signal.monitor is None:
            return True
        exists = signal.monitor in self._monitors
        self._monitors.discard(signal.monitor)
        return exists


def _path_of(what: str, ref: Any) -> str:
    if not isinstance(ref, WorkerRef):
        raise TypeError(f"{what} takes the ref of a worker, which whereis(path) returns, not {ref!r}")
    if ref._router is not router():
        raise TypeError(
            f"{what} takes the ref of a worker of the tree, and {ref.path!r} is a background thread; its ref.monitor() "
            "tells its end"
        )
    return ref.path
