"""A path of a tree: the incarnation that answers there now, the messages that wait for the next one, and its end."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

from suitkaise.errors import ChildNotFound, MailboxFull, SuitkaiseError, WorkerDead
from suitkaise.exits import KILL_REF, ExitReason, Shutdown
from suitkaise.messaging.answer import Answer
from suitkaise.messaging.ask_timeout import Doing, doing
from suitkaise.messaging.bounded import BoundedMailbox
from suitkaise.messaging.bundle_tables import NOTHING
from suitkaise.messaging.dead_letters import DeadLetters
from suitkaise.messaging.exit_watchers import ExitWatchers, after_its_cause, call_each
from suitkaise.messaging.identity import current_path
from suitkaise.messaging.messages import Message, Payload
from suitkaise.messaging.pending import PendingMessages
from suitkaise.messaging.protocol import AdminAction, ControlKind, RequestKind
from suitkaise.messaging.refs import LinkedExit, WorkerRef
from suitkaise.platform.board import SlotView
from suitkaise.platform.locks import RLock
from suitkaise.specs.bounded import Bounded
from suitkaise.status import Status, status_after

__all__ = ["Address", "Connected", "Parent", "Receiver", "TraceReport"]


class Receiver(Protocol):
    """One incarnation of a worker, as a receiver of messages."""

    def deliver(self, message: Message, *, accepted: bool = False) -> None:
        """Hand the message over; never blocks. Raises MailboxFull, NotSerializable or WorkerDead.

        `accepted`: the hub has accepted the message from its sender, so it is not refused for lack of room.
        """
        ...

    def kill(self, why: str) -> None:
        """End the incarnation now."""
        ...


class Parent(Protocol):
    """What a supervisor offers to the refs of its children."""

    def status_of(self, id: str) -> Status:
        """Return the child's status, at once."""
        ...

    def control(self, kind: ControlKind, id: str, drain: float | None = None) -> Answer[Any]:
        """Kill, rejoin (after `drain` seconds for messages) or recall a child."""
        ...


@runtime_checkable
class HasChildren(Protocol):
    """A receiver that has children: a supervisor."""

    def administer(self, action: AdminAction, argument: Any) -> Answer[Any]:
        """Carry out a request of `supervisor_ref.Administration`."""
        ...


class ThreadInbox(Protocol):
    """The inbox of a worker in a thread."""

    def put(self, message: Message) -> bool:
        """Add a message behind those that wait; return False if the inbox takes none any more."""
        ...


class Connected(NamedTuple):
    """One end of a new connection, and the incarnation at the other end: its slot of the status board and its number.

    `number`: that of the connection, see `ConnectionCounts`.
    """

    end: socket.socket
    slot: int
    serial: int
    number: int


@runtime_checkable
class Connectable(Protocol):
    """A receiver to which others can have connections: a process."""

    def connect(self, sender: str) -> Connected | None:
        """Make a new connection to it, for the worker at the path `sender`. None if that is not possible now.

        The other end goes to it behind all messages that were delivered before.
        """
        ...

    def catch_up(self) -> None:
        """Handle all that it has reported so far; called in the thread that handles its reports."""
        ...


TraceReport: TypeAlias = Callable[[dict[str, Any]], None]
"""Takes the report of a message that a worker has handled."""


@runtime_checkable
class Traceable(Protocol):
    """A receiver whose messages can be traced."""

    def trace(self, report: TraceReport | None) -> None:
        """Call `report` with each message that is handled from now on, see `MessageTrace`; None: report no more."""
        ...


class _NoParent:
    """Stands for the supervisor of what is over, and only remembered."""

    def status_of(self, id: str) -> Status:
        raise ChildNotFound(f"the supervisor of {id!r} has ended")

    def control(self, kind: ControlKind, id: str, drain: float | None = None) -> Answer[Any]:
        raise ChildNotFound(f"the supervisor of {id!r} has ended")


_NO_PARENT: Parent = _NoParent()


class Address:
    """A path, and the incarnation that answers there now."""

    def __init__(self, path: str, id: str, kind: str, parent: Parent, dead_letters: DeadLetters | None = None) -> None:
        self.path = path
        self.id = id
        self.kind = kind
        self.pid: int | None = None
        self.incarnation: int = 0
        self.reason: ExitReason | None = None
        self.ignored: bool = False  # whether the last incarnation declined to run
        self.last_status: Status | None = None  # of a child that was removed
        self.result: Payload | None = None
        self.fetched: bool = False  # whether the result was handed out
        self.dropped: bool = False  # whether there was a result, for which no room was left
        self.up_since: float | None = None  # monotonic, of the incarnation that is alive
        self._last_view: SlotView | None = None  # of the last incarnation that has ended
        self.over: bool = False
        self.on_detached: Callable[[str], None] | None = None  # set once threads of this program have connections
        self.parent: Parent = parent
        self.watchers: ExitWatchers = ExitWatchers()
        self.trap_exits: bool = False
        self._receiver: Receiver | None = None
        self.mailbox: ThreadInbox | None = None
        """Of the receiver that answers here, if it is a thread without a bound, and all that waited for it is in it."""
        self._kill_on_attach: str | None = None  # why, if the incarnation is ended before it is attached
        self._pending = PendingMessages(path)
        self._tracer: TraceReport | None = None
        self._dead_letters = DeadLetters() if dead_letters is None else dead_letters
        self.bound: Bounded | None = None  # of the mailbox
        self._bounded: BoundedMailbox | None = None
        self._on_over: dict[Callable[[], None], None] = {}
        self._joins: dict[Answer[Any], str] = {}  # of workers that wait for the end: their paths
        self._lock = RLock()

    # ------------------------------------------------------------ requests of refs
    @property
    def status(self) -> Status:
        """The child's status now."""
        try:
            return self.parent.status_of(self.id)
        except ChildNotFound:  # temporary and ended, or deleted
            if self.ignored:
                return Status.IGNORED
            if self.last_status is not None:
                return self.last_status
            status = Status.STOPPED if self.reason is None else status_after(self.reason)
            by_order = status is Status.FINISHED and isinstance(self.reason, Shutdown)  # as far as is known yet
            return Status.STOPPED if by_order else status

    def leave_parent(self) -> None:
        """Keep the status as it is now, and let go of the supervisor, which has forgotten this child, or has ended."""
        status = self.status
        if status is not Status.ABANDONED:  # which changes with the end of the thread
            self.last_status, self.parent = status, _NO_PARENT

    def control(self, kind: ControlKind, drain: float | None = None) -> Answer[Any]:
        """Pass a kill, rejoin or recall on to the supervisor; keep a kill for an incarnation that is being made."""
        if kind is RequestKind.KILL:
            with self._lock:
                if self._receiver is None and self.watchers.serial is not None:
                    self._kill_on_attach = KILL_REF
                    answer: Answer[Any] = Answer()
                    answer.set_result(None)
                    return answer
        return self.parent.control(kind, self.id, drain)

    def administer(self, action: AdminAction, argument: Any) -> Answer[Any]:
        """Pass a request on to the supervisor that answers here.

        Raises:
            ChildNotFound: a worker answers here, or no incarnation at the moment.
        """
        receiver: Any = self._receiver
        if not isinstance(receiver, HasChildren):
            trouble = "it is a worker" if self.kind != "supervisor" else f"it is {self.status}"
            raise ChildNotFound(f"no running supervisor at {self.path!r}: {trouble}", path=self.path)
        return receiver.administer(action, argument)

    @property
    def receiver(self) -> Receiver | None:
        """The incarnation that answers here now."""
        return self._receiver

    def set_bound(self, bound: Bounded | None) -> None:
        """Set the bound of the mailbox of the next incarnation."""
        with self._lock:
            if bound == self.bound:
                return
            self.bound, self.mailbox = bound, None
            former, self._bounded = self._bounded, None
            if bound is not None:
                self._bounded = BoundedMailbox(self.path, bound, self._pending, self._dead_letters)
            if former is not None:  # another child, under the same id
                former.finish(lambda: WorkerDead.over(self.path, self.reason))

    def send(self, message: Message, room: Answer[bool] | None = None) -> bool:
        """Deliver a message now, or keep it until the worker is back; return whether an ask of a worker is kept.

        With a bounded mailbox, `room` is set to whether the message was accepted; until then, its sender waits.

        Raises:
            WorkerDead: the last incarnation is over.
            MailboxFull, NotSerializable: as the worker refuses the message, or too many wait for it.
            SuitkaiseError: a supervisor answers here.
        """
        if self.kind == "supervisor":
            raise SuitkaiseError(f"{self.path!r} is a supervisor; it takes no messages", path=self.path)
        if self.kind in ("process", "command"):
            # Encode before the lock is taken: only the sender waits for that.
            message.body.parts_for(getattr(self._receiver, "known", NOTHING))
        with self._lock:
            if self._bounded is not None:
                return self._send_bounded(self._bounded, message, room)
            if self._receiver is not None:
                try:
                    self._receiver.deliver(message)
                    return False
                except WorkerDead:  # the incarnation has just ended, and `detach` follows soon
                    self._receiver = None
            if self.over:
                raise WorkerDead.over(self.path, self.reason)
            asker = "" if message.reply is None else message.asker or current_path()
            self._pending.add(message, asker=asker)
        return bool(asker)

    def _send_bounded(self, bounded: BoundedMailbox, message: Message, room: Answer[bool] | None) -> bool:
        if self.over:
            raise WorkerDead.over(self.path, self.reason)
        asker = "" if message.reply is None else message.asker or current_path()
        bounded.add(message, asker, room)
        if room is not None and not room.done():
            room.when_done(self._withdraw)
        return bool(asker) and bounded.receiver is None

    def _withdraw(self, room: Any) -> None:
        if room.cancelled():
            with self._lock:
                if self._bounded is not None:
                    self._bounded.withdraw(room)

    def _on_room(self, dropped: int) -> None:
        """Go on after the worker has taken messages out of a bounded mailbox; `dropped` told ones were dropped."""
        with self._lock:
            if self._bounded is not None:
                if dropped:
                    self._bounded.count_dropped(dropped)
                self._bounded.move()

    @property
    def has_asks(self) -> bool:
        """Whether asks of workers wait for the next incarnation, or joins of workers for its end."""
        with self._lock:
            if self._bounded is not None and self._receiver is not None:
                return False
            joins = bool(self._joins) and self._receiver is None
            blocked = self._bounded is not None and self._bounded.has_asks
            return joins or blocked or self._pending.has_asks

    def take_asks(self, choose: Callable[[str], bool]) -> list[Message]:
        """Remove the asks that wait for the next incarnation and whose asker is chosen, and return them."""
        with self._lock:
            if self._bounded is None:
                return self._pending.take_asks(choose)
            if self._receiver is not None:
                return []
            return [*self._pending.take_asks(choose), *self._bounded.take_asks(choose)]

    def add_join(self, answer: Answer[Any], asker: str) -> None:
        """Record that the worker at the path `asker` waits for the last end, until `answer` is set."""
        with self._lock:
            self._joins[answer] = asker
        answer.when_done(self._remove_join)

    def _remove_join(self, answer: Any) -> None:
        with self._lock:
            self._joins.pop(answer, None)

    def take_joins(self, choose: Callable[[str], bool]) -> list[Answer[Any]]:
        """Return the answers for which workers wait whose path is chosen."""
        with self._lock:
            return [answer for answer, asker in self._joins.items() if choose(asker)]

    def stats(self) -> tuple[int | None, int, float | None, SlotView | None]:
        """Return pid, incarnation, the seconds since its start, and its slot; after the end, the slot as it was."""
        with self._lock:
            receiver: Any = self._receiver
            view = receiver.snapshot() if hasattr(receiver, "snapshot") else None
            if view is not None and self._bounded is not None:
                view = self._bounded.shown(view)
            up = None if self.up_since is None else time.monotonic() - self.up_since
            return self.pid, self.incarnation, up, self._last_view if view is None else view

    def doing(self) -> Doing:
        """Return what the worker is doing now."""
        pid, _, _, view = self.stats()
        with self._lock:
            kept = len(self._pending) if self._bounded is None or view is None else 0
        return doing(self.status, pid, view, kept, self.bound)

    def trace(self, report: TraceReport | None) -> None:
        """Have the messages reported that this and the next incarnations handle; None: no more."""
        with self._lock:
            self._tracer = report
            receiver: Any = self._receiver
            if isinstance(receiver, Traceable):
                receiver.trace(report)

    # ------------------------------------------------------------ direct connections
    def connect(self, sender: str) -> Connected | None:
        """Make a direct connection to the incarnation that answers here, if that is possible now; see `Connectable`."""
        with self._lock:
            receiver: Any = self._receiver
            if self._bounded is not None:  # all its messages are counted here
                return None
            if not isinstance(receiver, Connectable) or self._pending:
                return None
            return receiver.connect(sender)

    def await_end(self, serial: int, answer: Answer[Any]) -> None:
        """Set the answer to the exit reason of the incarnation of that number, when it has ended.

        The caller has seen its end already: messages that come from now on are for the next one.
        """
        receiver: Any = self._receiver
        if isinstance(receiver, Connectable):
            receiver.catch_up()
        key = object()
        if self.watchers.add(key, lambda reason: answer.settle(True, Payload(reason)), serial):
            answer.when_done(lambda done: self.watchers.remove(key))
        else:
            answer.set_result(self.reason)

    # ------------------------------------------------------------ links and monitors
    def signal(self, serial: int, message: Message) -> None:
        """Deliver a message of a link or monitor, to the incarnation of that serial number only."""
        with self._lock:
            if self.watchers.serial != serial:
                return
            if self._bounded is not None:
                self._bounded.add_signal(message)
                return
            if self._receiver is None:
                self._pending.add(message, accepted=True)
                return
            with contextlib.suppress(WorkerDead):
                self._receiver.deliver(message, accepted=True)

    def offer(self, serial: int, message: Message | None, most: int) -> bool:
        """Deliver a message to the incarnation of that serial number; return False if there is none.

        None in place of a message: only see whether one could be delivered.

        Raises:
            MailboxFull: `most` messages wait for it already, or too many bytes.
        """
        if self.kind == "process" and message is not None:
            message.body.data  # noqa: B018  (encode before the lock is taken)
        with self._lock:
            if self.watchers.serial != serial:
                return False
            receiver: Any = self._receiver
            if self._bounded is not None:
                self._bounded.move()  # first what has waited for room, if there is some
                waiting, full = len(self._bounded), self._bounded.full or self._bounded.blocked > 0
            elif receiver is None:
                waiting, full = len(self._pending), False
            else:
                view = receiver.snapshot() if hasattr(receiver, "snapshot") else None
                waiting, full = 0 if view is None else view.queued, False
            if full or waiting >= most:
                raise MailboxFull(f"{waiting} messages already wait for {self.path!r}", path=self.path)
            if message is None:
                return True
            if self._bounded is not None:
                self._bounded.add_signal(message)
            elif receiver is None:
                self._pending.add(message)
            else:
                receiver.deliver(message)
        return True

    def end_with(self, serial: int, other: WorkerRef, reason: ExitReason) -> None:
        """Report the end of a linked incarnation to the one of that serial number, or end that one, too (rule 60).

        A supervisor traps exits, as in OTP, and ignores those that are not of its children.
        """
        if self.kind == "supervisor":
            return
        if self.trap_exits:
            self.signal(serial, Message("signal", Payload(LinkedExit(other, reason))))
        elif not reason.clean:
            why = f"linked to {other.path!r}, which ended: {reason}"
            with self._lock:
                receiver = self._receiver
                if self.watchers.serial != serial:
                    return
                if receiver is None:
                    self._kill_on_attach = why
            if receiver is not None:
                after_its_cause(partial(receiver.kill, why))

    # ------------------------------------------------------------ start and end of an incarnation, from its supervisor
    def begin(self, serial: int, *, trap_exits: bool = False) -> None:
        """Announce a new incarnation that is being started: links, monitors and itself may name it from now on."""
        with self._lock:
            self.trap_exits, self._kill_on_attach = trap_exits, None
            self.incarnation += 1
            self.over, self.pid = False, None
        self.watchers.begin(serial)

    @property
    def ended_early(self) -> bool:
        """Whether a link or a kill has ended the incarnation before it was attached."""
        return self._kill_on_attach is not None

    def attach(self, receiver: Receiver) -> None:
        """Let a new incarnation answer here from now on; it gets the pending messages first."""
        with self._lock:
            self._receiver = receiver
            if self._kill_on_attach is not None:
                receiver.kill(self._kill_on_attach)
            if self._tracer is not None and isinstance(receiver, Traceable):
                receiver.trace(self._tracer)
            if self._bounded is not None:
                bounded_receiver: Any = receiver
                bounded_receiver.on_room = self._on_room
                self._bounded.receiver = bounded_receiver
                self._bounded.move()
                return
            while self._pending:
                try:
                    receiver.deliver(self._pending.first, accepted=True)
                except WorkerDead:  # the incarnation has just ended: the messages wait for the next one
                    self._receiver = None
                    return
                except SuitkaiseError as error:
                    self._pending.first.fail(error)
                self._pending.take_first()
            if self.kind == "thread":  # one that stands for a process (`suitkaise run --debug`) gets what processes get
                self.mailbox = getattr(receiver, "mailbox", None)

    def up(self, receiver: Receiver, pid: int) -> None:
        """Record the pid of an incarnation that is up, unless it was abandoned meanwhile (rule 59)."""
        with self._lock:
            if self._receiver is receiver:
                self.pid, self.up_since = pid, time.monotonic()

    def detach(
        self,
        reason: ExitReason,
        result: Payload | None,
        returned: Iterable[Message] = (),
        view: SlotView | None = None,
        *,
        ignored: bool = False,
    ) -> None:
        """Record the end of the incarnation; messages wait for the next one, if there will be one.

        `returned` are the oldest of them: the incarnation has got them, but has not begun to handle them. `view` is its
        slot at the end. `ignored`: it has declined to run.
        """
        with self._lock:
            self._receiver, self.mailbox, self.pid, self.up_since = None, None, None, None
            self._last_view, self.ignored = view, ignored
            self.reason, self.result, self.fetched = reason, result, False
            self._pending.add_in_front(returned)
            callbacks = self.watchers.end()
            self._pending.drop_signals()  # those were for this incarnation
            if self._bounded is not None:
                self._bounded.detach()
        if self.on_detached is not None:
            self.on_detached(self.path)
        call_each(callbacks, reason)

    def finish(self) -> None:
        """Record that no other incarnation follows: pending messages fail, and `when_over` calls back."""
        with self._lock:
            if self.over:
                return
            self.over, self._receiver, self.pid = True, None, None
            pending = self._pending.take_all()
            if self._bounded is not None:
                self._bounded.receiver = None
                self._bounded.finish(lambda: WorkerDead.over(self.path, self.reason))
            callbacks, self._on_over = self._on_over, {}
        told = sum(message.reply is None for message in pending)
        if told:
            self._dead_letters.add(self.path, f"it is over ({self.reason}), and has no next incarnation", told)
        for message in pending:
            message.fail(WorkerDead.over(self.path, self.reason))
        for callback in callbacks:
            callback()

    def when_over(self, callback: Callable[[], None]) -> None:
        """Call back when the last incarnation has ended; at once if it has ended already."""
        with self._lock:
            if not self.over:
                self._on_over[callback] = None
                return
        callback()

    def forget(self, callback: Callable[[], None]) -> None:
        """Cancel a `when_over`."""
        with self._lock:
            self._on_over.pop(callback, None)
