"""The engine for workers in threads of this program."""

from __future__ import annotations

import os
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from suitkaise.engines.engine import EngineContext, Exit, Launch, settle
from suitkaise.errors import WorkerDead
from suitkaise.escapes import LONGEST_LINE, shortened
from suitkaise.exits import ExitReason, Hung, Killed, Normal, Shutdown
from suitkaise.messaging.address import TraceReport
from suitkaise.messaging.identity import set_owner
from suitkaise.messaging.inbox import Inbox, Taken
from suitkaise.messaging.log_rings import Run
from suitkaise.messaging.mailbox import ThreadMailbox
from suitkaise.messaging.messages import Message, Payload
from suitkaise.platform.board import SlotView
from suitkaise.platform.condition import OwnFuture
from suitkaise.platform.locks import RLock
from suitkaise.platform.tail import LINES
from suitkaise.platform.threads import current_frames, is_end
from suitkaise.specs import Child
from suitkaise.workers.actor import WorkerActor, lifecycle_of
from suitkaise.workers.background import ThreadSupervisor
from suitkaise.workers.incarnation import Incarnation, Outcome
from suitkaise.workers.lifecycle import Lifecycle

if TYPE_CHECKING:
    from suitkaise.workers.message_trace import MessageTrace

__all__ = ["DebugEngine", "ThreadEngine", "ThreadHandle"]


class ThreadEngine:
    """Runs each worker as a Pykka actor in a daemon thread.

    With an `owner`, the threads are the background threads of that worker, and what they do is done in its name.
    """

    def __init__(self, context: EngineContext, owner: str | None = None) -> None:
        self._context = context
        self._owner = owner
        self.supervisor: ThreadSupervisor | None = None
        """Supervises the threads, if they are background threads."""
        self._abandoned: dict[ThreadHandle, str] = {}

    def spawn(self, launch: Launch) -> ThreadHandle:
        """Start a thread for the worker."""
        return ThreadHandle(self._context, launch, self)

    def owner_of(self, incarnation: Incarnation) -> str:
        """Return the owner of what the incarnation does."""
        return self._owner or incarnation.owner

    def supervise(self, incarnation: Incarnation, on_end: Callable[[ExitReason], None]) -> ThreadSupervisor:
        """Make the supervisor of the background threads of a worker that runs here."""
        context = self._context
        if context.supervise is None:
            raise RuntimeError(f"{incarnation.path!r} can have no background threads here")
        engine = ThreadEngine(context, self.owner_of(incarnation))
        engine._abandoned = self._abandoned
        engine.supervisor = supervisor = context.supervise(context, engine, incarnation.path, on_end)
        return supervisor

    def prepare(self, path: str, child: Child) -> None:
        """Do nothing: a thread gets its recipe as it is."""

    def forget(self, path: str) -> None:
        """Do nothing: nothing is kept."""

    def abandoned(self) -> list[str]:
        """Return the paths of threads that were abandoned and still run."""
        return list(self._abandoned.values())

    def close(self) -> None:
        """Do nothing: nothing is held."""


class ThreadHandle:
    """One incarnation in a thread. It cannot be killed, only abandoned (rule 59)."""

    def __init__(self, context: EngineContext, launch: Launch, engine: ThreadEngine) -> None:
        self.exited: Future[Exit] = OwnFuture()
        self.ready: Future[int] = OwnFuture()
        self.checkpoint: Payload | None = None
        self.suspended: bool = False
        self._context = context
        self._launch = launch
        self._abandoned = engine._abandoned
        self.owner: str = engine.owner_of(launch.incarnation)
        self._lock = RLock()  # a signal handler may send a message, too
        self._slot = context.board.take(launch.path)
        self._slot.mark_started()
        self._trace: MessageTrace | None = None
        self._lines: deque[str] = deque(maxlen=LINES)  # not made a tuple: Python 3.11 may collect garbage meanwhile
        self.mailbox: ThreadMailbox = ThreadMailbox(self._slot)
        self._bounded = launch.incarnation.bounded
        self.inbox: Inbox = Inbox(self._slot)
        self.on_room: Callable[[int], None] = lambda dropped: None
        try:
            self._lifecycle = lifecycle = lifecycle_of(launch.recipe, launch.incarnation, self.mailbox, self._slot)
            if self._bounded:
                lifecycle.taken = Taken(self._slot, self._report_room)
            lifecycle.context.on_crash = _call_excepthook
            lifecycle.context.timers.call_at = context.reactor.call_at
            lifecycle.context.on_log_line = self._on_log_line
            if engine.supervisor is not None:
                lifecycle.context.ref = engine.supervisor.own_ref(launch.path)
                lifecycle.context.has_address = False
            lifecycle.context.background.supervise = partial(engine.supervise, launch.incarnation)
            _ThreadActor.launch(
                lifecycle, self.mailbox, self, thread_name=f"{launch.path}#{launch.number}", context=launch.context
            )
        except Exception as error:  # for example no thread is left
            if not is_end(error):
                self._give_back()
                raise
            # As by `Ignore`. After a failure, its supervisor would try again, give up, and end the workers for which
            # the program waits.
            self.on_over(Outcome(Normal(), ignored=True))

    def _on_log_line(self, line: str) -> None:
        line = shortened(line, LONGEST_LINE)
        self._lines.append(line)
        if self._context.log_rings is not None:
            level, _, text = line.partition(": ")
            self._context.log_rings.put(self._launch.path, Run(self._launch.number, level, time.time(), (text,)))

    def deliver(self, message: Message, *, accepted: bool = False) -> None:
        """Put the message into the worker's inbox."""
        if self._bounded:
            self.inbox.delivered += 1  # first: the worker may take the message out at once
        if not self.mailbox.put(message):
            raise WorkerDead.just_ended(self._launch.path)

    def _report_room(self, dropped: int) -> None:
        """Tell the hub that the worker has taken messages out of its bounded mailbox."""
        self.on_room(dropped)

    def stop(self, drain: float | None = None) -> None:
        """Ask the worker to finish."""
        with self._lock:
            if not self.mailbox.is_shut:
                self.mailbox.order_stop(Shutdown(), self._launch.drain(drain))

    def suspend(self, on: bool) -> None:
        """Suspend the worker after its current loop, or resume it."""
        with self._lock:
            if not self.mailbox.is_shut:
                self.suspended = on
                self.mailbox.suspend(on)

    def trace(self, report: TraceReport | None) -> None:
        """Have each message reported that the worker handles from now on; None: no more."""
        from suitkaise.workers.message_trace import MessageTrace  # few workers are ever traced

        with self._lock:
            if self._trace is not None:
                self._trace.off()
            if report is not None and not self.mailbox.is_shut:
                self._trace = MessageTrace(self._lifecycle, self.mailbox, report)
                self._trace.on()

    def kill(self, why: str) -> None:
        """Abandon the thread: ask it to end, and ignore it from now on."""
        self._abandon(Killed(why))

    def kill_hung(self, hung: Hung) -> None:
        """Abandon the thread, with its stack added to the reason."""
        self._abandon(replace(hung, stack=self._stack()))

    def snapshot(self) -> SlotView | None:
        """Read the worker's slot on the status board; None after the worker's end."""
        with self._lock:
            return None if self.mailbox.is_shut else self._slot.read(self.mailbox.queued)

    def tasks(self) -> str:
        """Return where the tasks of an async worker await, which the stack of its thread does not show."""
        return self._lifecycle.stacks()

    def _stack(self) -> str:
        frame = current_frames().get(self.mailbox.owner or 0)
        stack = "" if frame is None else "".join(traceback.format_stack(frame))
        return shortened(stack + self._lifecycle.stacks())

    def _abandon(self, reason: ExitReason) -> None:
        stack = self._stack()
        with self._lock:
            if self.mailbox.is_shut:
                return
            self._abandoned[self] = self._launch.path
            self.mailbox.order_stop(reason, 0.0)
            self._lifecycle.interrupt(reason)
            self._lifecycle.context.background.kill(str(reason))
            waiting, view = self.mailbox.shut(), self._slot.read()
        for message in (*self._lifecycle.unanswered(), *waiting):  # an answer that comes later is dropped
            message.fail(
                WorkerDead(f"{self._launch.path!r} was abandoned: {reason}", path=self._launch.path, reason=reason)
            )
        end = Exit(reason, abandoned=True, stack=stack, view=view, lines=(*self._lines,), unhandled=len(waiting))
        settle(self.exited, end)

    def on_over(self, outcome: Outcome) -> None:
        """Take the outcome from the thread, which ends now."""
        with self._lock:
            was_gone = self.mailbox.is_shut
            self._abandoned.pop(self, None)
            waiting = self.mailbox.shut()
        view = self._slot.read()
        end = Exit(outcome.reason, outcome.result, outcome.ignored, view=view, unhandled=len(waiting))
        if outcome.hands_over:
            end, waiting = replace(end, returned=tuple(waiting)), []
        if not outcome.reason.clean:
            end = replace(end, lines=(*self._lines,))
        self._give_back()
        if not was_gone:
            settle(self.exited, end)
        for message in waiting:
            message.fail(WorkerDead.unhandled(self._launch.path, outcome.reason))

    def _give_back(self) -> None:
        self.mailbox.close()
        self._slot.release()
        self._context.board.give_back(self._slot)


class DebugEngine(ThreadEngine):
    """Runs process workers as threads, for a debugger: without time limits, since a user may look at one for long."""

    def spawn(self, launch: Launch) -> ThreadHandle:
        """Start a thread for the worker."""
        return _UnlimitedHandle(self._context, launch, self)


class _UnlimitedHandle(ThreadHandle):
    """Looks to the hang detector as if it had no slot on the status board."""

    def snapshot(self) -> SlotView | None:
        return None


def _call_excepthook(error: BaseException) -> None:
    """Show the crash to the program's own `threading.excepthook`; Python's own would only print what the log has."""
    if threading.excepthook is not threading.__excepthook__:
        now = threading.current_thread()
        threading.excepthook(threading.ExceptHookArgs((type(error), error, error.__traceback__, now)))


class _ThreadActor(WorkerActor):
    """Runs the worker in its thread, and reports to the handle."""

    def __init__(self, lifecycle: Lifecycle, mailbox: ThreadMailbox, handle: ThreadHandle) -> None:
        super().__init__(lifecycle, mailbox)
        self._handle = handle
        self._owner = handle.owner

    def on_start(self) -> None:
        set_owner(self._owner)
        super().on_start()

    def on_ready(self) -> None:
        self._handle.ready.set_result(os.getpid())

    def on_checkpoint(self, payload: Payload) -> None:
        self._handle.checkpoint = payload

    def on_over(self, outcome: Outcome) -> None:
        self._handle.on_over(outcome)
