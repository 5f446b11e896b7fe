"""One direct connection, on the sender's side; `direct` has the rules and the connections of all threads."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import select
import socket
import termios
import threading
import time
from typing import Any, NamedTuple, Protocol

from suitkaise.errors import AskTimeout, MailboxFull, WorkerDead
from suitkaise.messaging import wire
from suitkaise.messaging.answer import STEP, Answer
from suitkaise.messaging.awaited import Awaited
from suitkaise.messaging.bundle_tables import Known
from suitkaise.messaging.codec import dumps_in_pieces
from suitkaise.messaging.connection import Outbox
from suitkaise.messaging.deadlocks import Wait, await_answer
from suitkaise.messaging.held_back import holders, send_held
from suitkaise.messaging.identity import current_path
from suitkaise.messaging.messages import Message, Outcome, Payload, ReplyCallback
from suitkaise.messaging.pieces import Pieces
from suitkaise.messaging.protocol import DirectMessage, DirectReturn, RequestKind, decode_direct_answer
from suitkaise.messaging.tracing import Carrier
from suitkaise.platform.board import SenderMarks
from suitkaise.platform.locks import RLock
from suitkaise.platform.reactor import Reactor
from suitkaise.platform.sockets import blocking

__all__ = ["BURST", "HELD", "PATIENCE", "Connection", "Hub", "Route"]

PATIENCE = 1.0
"""Seconds that a thread waits for the hub to make a connection."""

SETTLING = 0.01
"""Seconds after which a thread that flushes looks again whether another one has settled the end of a receiver."""

BURST = 16
"""Messages that a thread has told one after the other before it holds the next ones back."""

_SOON = 100e-6
"""Seconds within which a message follows another one of a burst."""

HELD = 32
"""Messages that are held back at most."""

_MOST_HELD = 512
"""Bytes of a message that may be held back."""

_MOMENT = 0.001
"""Seconds after which the I/O thread sends what is held back."""

_A_MOMENT = 0.001
"""Seconds for which the I/O thread waits for a lock, see `Route._on_event`."""

_LONGEST = 1e6
"""Seconds; `poll` counts milliseconds in 32 bits."""

LAST_WORDS = 5.0
"""Seconds without any data after which a receiver that has cut a connection is believed to go on."""


class Connection(NamedTuple):
    """What the hub answers to `Connect`."""

    descriptor: int
    slot: int
    serial: int
    number: int


class Hub(Protocol):
    """What the routes need of the hub."""

    def connect(self, path: str) -> Answer[Connection | None]:
        """Make a connection to the worker at `path`; None if that is not possible now."""
        ...

    def request(self, kind: RequestKind, path: str, argument: Any = None) -> Answer[Any]:
        """Carry out a request about the worker at `path`."""
        ...

    def post_unawaited(self, path: str, message: Message) -> Answer[bool] | None:
        """Send a message through the hub, where a tell that is refused is a dead letter; return its answer."""
        ...


class Owner(Protocol):
    """What a route needs of the connections of its process; see `direct.Routes`."""

    hub: Hub

    @property
    def reactor(self) -> Reactor:
        """The I/O thread of these connections."""
        ...

    def forget(self, route: Route) -> None:
        """Count the connection no longer: it is closed."""
        ...


def _ignore(ok: bool, payload: Payload) -> None:
    """Drop an answer that has come too late."""


class Route:
    """One connection. One thread sends; that thread and the I/O thread of the process read."""

    def __init__(self, routes: Owner, path: str, made: Connection, marks: SenderMarks) -> None:
        self.broken: bool = False
        self.closed: bool = False
        self.used: bool = True  # lately
        self._sender = current_path()
        self._routes = routes
        self.path = path
        self.serial: int = made.serial
        self._bell = marks.bell
        self._sock = blocking(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, made.descriptor))
        self._outbox = Outbox(self._sock, path, marks, made.serial)
        self._parser = wire.Parser(decode=decode_direct_answer, lends=True)
        self._poll = select.poll()
        self._poll.register(self._sock, select.POLLIN)
        self._lock = RLock()
        self._reads = RLock()  # whose owner reads, if that is the I/O thread, or reads the rest
        self._ended_by: Exception | None = None  # what has ended the reading of the I/O thread
        self._tries_again = False  # that thread
        self._numbers = itertools.count(1)
        self._expected: dict[int, ReplyCallback] = {}
        self._known = Known()
        self._returned: list[tuple[DirectReturn, bytes]] = []
        self._last_told: Answer[bool] | None = None  # through the hub, in place of this connection
        self._sending = False
        self._asking = False  # the sending thread reads
        self._watched = False  # the I/O thread reads
        self._awaits_room = False  # and it sends what waits
        self._reading = False
        self._receiver_ended = False
        self._thread = threading.get_ident()
        self._told = 0  # of this burst
        self._told_at = 0.0  # monotonic
        self._sends_held_soon = False  # the I/O thread

    def fileno(self) -> int:
        """Return the socket's descriptor."""
        return self._sock.fileno()

    # ------------------------------------------------------------ from the sending thread
    def await_settled(self) -> None:
        """Wait while the I/O thread sends again what the receiver has returned: later messages go behind that."""
        with self._lock:
            return

    def send(self, message: Message, most: int | None = None) -> bool:
        """Send a message; return False if it has to go through the hub.

        `most`: how many messages may wait to be sent; None: `BACKLOG` alone counts.

        Raises:
            MailboxFull: too much waits to be sent; nothing of this message is.
            NotSerializable: it is over the limits.
        """
        payload = message.body.parts_for(self._known)
        if holders and holders.get(self._thread) is not self:
            send_held()
        reply, number = message.reply, None
        with self._lock:
            if self.broken or (reply is not None and (self._asking or self._sending)):
                return False  # the latter: a signal handler, which must not wait for an answer here
            if most is not None and len(self._outbox.waiting) >= most:
                raise MailboxFull(
                    f"{len(self._outbox.waiting)} messages already wait for {self.path!r}", path=self.path
                )
            if reply is not None:
                number = next(self._numbers)
                self._expected[number] = reply
            outer, self._sending = self._sending, True
            try:
                header = DirectMessage(message.kind, number, message.carrier, message.deadline)
                return self._put(header, payload)
            finally:
                self._sending = outer

    def holds_back(self, value: Any) -> bool:
        """Hold a message back, if it belongs to a burst; return False if it has to be sent.

        A message that is not small, or is more than the pickle of its value, ends a burst.

        Raises:
            NotSerializable: it cannot be sent.
        """
        now = time.monotonic()
        follows, self._told_at = now - self._told_at < _SOON, now
        if not follows or isinstance(value, BaseException):
            self._told = 1
            return False
        if self._told < BURST or self._outbox.waiting:
            self._told += 1
            return False
        payload = dumps_in_pieces(value, root=Payload.kind, known=self._known)
        if type(payload) is not bytes or len(payload) > _MOST_HELD or payload[0] < 2:  # it has a table, see `codec`
            self._told = 1
            return False
        if holders and holders.get(self._thread) is not self:
            send_held()  # here: no thread waits for the lock of a connection while it has that of another one
        with self._lock:
            held = self._outbox.held
            if self.broken or self._asking or self._sending or self._outbox.waiting:
                return False
            self._sending = True  # until the end: what a signal handler asks goes through the hub
            try:
                if not held and not self._sends_held_soon:
                    self._send_held_soon()
                held.append(payload)
                holders[self._thread] = self  # each time: a signal handler may have sent what was held back before
                self.used = True
                if len(held) >= HELD:
                    self.send_held()
            finally:
                self._sending = False
        return True

    def end_burst(self) -> None:
        """Send what is held back, and count the messages of a burst anew."""
        self._told = 0
        self.send_held()

    def send_held(self) -> None:
        """Send what is held back; from any thread."""
        with self._lock:
            if self.broken or not self._outbox.held:
                return
            outer, self._sending = self._sending, True
            try:
                self._outbox.send_held()
            finally:
                self._bell[0] = 1
                if self._outbox.waiting and not self._asking:
                    self._watch()
                self._sending = outer

    def _send_held_soon(self) -> None:
        self._routes.reactor.call_at(time.monotonic() + _MOMENT, self._send_held_now)
        self._sends_held_soon = True

    def _send_held_now(self) -> None:
        """Send what is held back, in the I/O thread; look again after a moment while the burst goes on."""
        if not self._lock.acquire(timeout=_A_MOMENT):
            self._send_held_soon()
            return
        try:
            self._sends_held_soon = False
            self._forget_held()
            if self._outbox.held:
                self._send_held_soon()
                self.send_held()
            if self._receiver_ended:
                self.close_if_idle()
        finally:
            self._lock.release()

    def _forget_held(self) -> None:
        if holders.get(self._thread) is self:
            holders.pop(self._thread, None)

    def _put(self, header: DirectMessage, payload: bytes | Pieces) -> bool:
        """Send a frame; return False if the receiver has ended without it."""
        number = header.number
        try:
            sent = self._outbox.put(header, payload, copies=not self._asking)
        except BaseException:
            if number is not None:
                self._expected.pop(number, None)
            raise
        self._bell[0] = 1
        if not sent:
            if number is not None:
                self._expected.pop(number, None)
            if not self._asking:
                self._settle()
            return False
        self.used = True
        self._known.note_sent(payload)
        if not self._asking and (number is not None or self._outbox.waiting):
            self._watch()
        return True

    def ask(self, payload: Payload, timeout: float | None, carrier: Carrier | None = None) -> Outcome | None:
        """Send an ask and read its answer in this thread; None if it was not sent and has to go another way.

        Raises:
            AskTimeout: no answer came in time.
            NotSerializable: the payload cannot be sent.
        """
        data = payload.parts_for(self._known)
        if holders:
            send_held()
        awaited = Awaited()
        number = next(self._numbers)
        began = time.monotonic()
        deadline = None if timeout is None else began + timeout
        asks = False
        try:
            with self._lock:
                if self.broken or self._watched or self._asking or self._sending:
                    return None
                asks = self._asking = True
                self._expected[number] = awaited
                if not self._put(DirectMessage("message", number, carrier, deadline), data):
                    self._asking = False
                    self._settle()
                    return None
            if self._outbox.waiting:
                self._send_rest(deadline)
            if not self._outbox.waiting and self._read_until(awaited, deadline, began):
                return awaited.outcome
        except BaseException:
            if number in self._expected:  # it was sent, and a signal handler has raised this
                self._expected[number] = _ignore
                self._hand_over()
            raise
        finally:
            if asks:
                self._asking = False
                if self._outbox.waiting:
                    with self._lock:
                        self._outbox.copy()
                if self._receiver_ended:
                    self.close_if_idle()
        return self._wait(number, awaited, deadline, timeout, began)

    def _send_rest(self, deadline: float | None) -> None:
        """Send a large message on, and read meanwhile; leave the rest to the I/O thread if the receiver stops reading.

        The receiver may be sending, too, so this thread must not only send.
        """
        poll = select.poll()
        poll.register(self._sock, select.POLLIN | select.POLLOUT)
        while self._outbox.waiting and not self._outbox.ended:
            left = STEP if deadline is None else min(STEP, max(0.0, deadline - time.monotonic()))
            events = poll.poll(left * 1000)
            if not events or (events[0][1] & select.POLLIN and not self._read_some()):
                return
            with self._lock:  # another thread may flush, too
                self._outbox.flush()
            self._bell[0] = 1

    def _read_some(self) -> bool:
        """Read once; return False if nothing more comes."""
        self._reading = True
        try:
            frames = self._parser.receive(self._sock, socket.MSG_DONTWAIT)
        except BlockingIOError:
            frames = []
        except (wire.WireError, OSError) as error:
            if wire.of_a_signal_handler(error):
                raise
            self._reading = False
            return False
        self._dispatch(frames)
        self._reading = False
        return True

    def _read_until(self, awaited: Awaited, deadline: float | None, began: float) -> bool:
        """Read until the answer is there; return False if it has to come another way, or too late."""
        poll = self._poll.poll
        wait, step, now = None, STEP, began
        try:
            while awaited.outcome is None:
                left = step if deadline is None or deadline - now > step else max(0.0, deadline - now)
                if not poll(left * 1000):
                    if left < step:
                        return False
                    wait = wait or Wait("asks", self.path, began)
                    step = wait.look()
                elif not self._read_some():
                    return False
                now = time.monotonic()
        finally:
            if wait is not None:
                wait.end()
        return True

    def _wait(
        self, number: int, awaited: Awaited, deadline: float | None, timeout: float | None, began: float
    ) -> Outcome:
        """Let the I/O thread read on, and wait for it."""
        self._hand_over()
        try:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if await_answer("asks", self.path, left, awaited.come, began) and awaited.outcome is not None:
                return awaited.outcome
        finally:
            with self._lock:
                if number in self._expected:
                    self._expected[number] = _ignore
        raise AskTimeout(f"{self.path!r} did not answer within {timeout} s", path=self.path)

    def _hand_over(self) -> None:
        with self._lock:
            self._asking = False
            if self._reading:  # an exception has interrupted the reading: what was read may be lost
                self._retire()
            elif not self.broken:
                self._watch()

    def _retire(self) -> None:
        """Give up a connection whose answers cannot be read any more, once the receiver has got what was sent."""
        self.broken = self.closed = True
        self._forget_held()
        self._leave_board()
        self._routes.forget(self)
        self._expected.clear()
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)
            self._sock.settimeout(PATIENCE)
            while self._sock.recv(1 << 16):
                pass
        self._sock.close()

    def flush(self, until: float) -> int:
        """Wait until all that waits was sent, or for that time (monotonic); return how many messages were not."""
        while True:
            poll = select.poll()
            with self._lock:
                self.send_held()
                if self.closed or not self._outbox.waiting:
                    return 0
                if (left := until - time.monotonic()) <= 0:
                    return self._outbox.unsent
                self._outbox.flush()
                self._bell[0] = 1
                if not self._outbox.ended:
                    poll.register(self._sock, select.POLLOUT)
                elif not self._asking:
                    self._settle()
                    return 0
                else:  # the asking thread reads the end, and settles it
                    left = min(left, SETTLING)
            poll.poll(min(left, _LONGEST) * 1000)

    def drop(self) -> int:
        """Drop what was not sent; return how many messages that are."""
        with self._lock:
            return 0 if self.closed else len(self._outbox.take_back())

    def confirm(self, until: float) -> bool:
        """Wait until all that was told is accepted, or for that time (monotonic); return whether it was.

        What was sent as a whole is the receiver's. If the receiver has ended without it, the hub has got it.

        Raises:
            WorkerDead, MailboxFull: the hub has refused the last of it.
        """
        if self.flush(until):
            return False
        with self._lock:  # the I/O thread may be settling the end
            told = self._last_told
        if told is not None:
            try:
                told.get(max(0.0, until - time.monotonic()))
            except AskTimeout:
                return False
        return True

    # ------------------------------------------------------------ from the I/O thread
    def _watch(self) -> None:
        """Have the I/O thread read, and send what waits; called with the lock."""
        if not self._watched:
            self._routes.reactor.add_reader(self, self._on_event)  # which does not wake that thread
            self._watched = True  # behind that: a signal handler that comes in between adds it, too
        if self._outbox.waiting and not self._awaits_room:
            self._routes.reactor.call_soon_threadsafe(self._on_event)
            self._awaits_room = True  # likewise

    def _on_event(self) -> None:
        """Read, and send what waits.

        The I/O thread waits only a moment for a lock, and tries again: a signal handler may wait for an answer that
        comes by this thread, over any connection, while the thread that it has interrupted has the lock.
        """
        if not self._read_as_io_thread() or not self._lock.acquire(timeout=_A_MOMENT):
            self._try_again()
            return
        try:
            self._after_reading()
        finally:
            self._lock.release()

    def _try_again(self) -> None:
        if not self._tries_again:
            self._tries_again = True
            self._routes.reactor.call_soon_threadsafe(self._on_event_again)

    def _on_event_again(self) -> None:
        self._tries_again = False
        self._on_event()

    def _read_as_io_thread(self) -> bool:
        """Read once, if this thread is to read; return False if another one reads the rest.

        The lock is not needed for that: no other thread reads while this one watches, and none closes the socket.
        """
        if self.closed or not self._watched or self._ended_by is not None:
            return True
        if not self._reads.acquire(timeout=_A_MOMENT):
            return False
        try:
            self._dispatch(self._parser.receive(self._sock, socket.MSG_DONTWAIT))
        except BlockingIOError:
            pass
        except (wire.PeerClosed, wire.WireError, OSError) as error:
            self._ended_by = error
        finally:
            self._reads.release()
        return True

    def _after_reading(self) -> None:
        """Send what waits, and do what follows from what was read; called with the lock."""
        if self.closed:
            return
        if not self._watched:  # a signal handler has raised before that was noted
            self._routes.reactor.remove_reader(self)
            return
        if self._outbox.waiting:
            self._outbox.flush()
            self._bell[0] = 1
        if self._ended_by is not None:
            if isinstance(self._ended_by, wire.NoMemory):  # the receiver goes on, so its end will not tell the askers
                while self._expected:
                    self._expected.popitem()[1](False, Payload(MemoryError(str(self._ended_by))))
            self._settle()
            self._close()
            return
        if self._outbox.ended:
            self._settle()
        if self._expected or self._outbox.waiting:
            self._awaits_room = bool(self._outbox.waiting)
            self._routes.reactor.set_writer(self, self._on_event, also=self._awaits_room)
        elif self.broken or self._receiver_ended:
            self._close()
        else:
            self._routes.reactor.remove_reader(self)
            self._watched = self._awaits_room = False

    def _dispatch(self, frames: list[wire.Frame]) -> None:
        for header, payload in frames:
            self._known.note_arrived(payload)
            if type(header) is DirectReturn:
                self._returned.append((header, payload))
            else:
                reply = self._expected.pop(header.number, None)
                if reply is not None:
                    reply(header.ok, Payload(data=payload))

    # ------------------------------------------------------------ the end of the receiver, in either thread
    def _settle(self) -> None:
        """Take what the receiver has sent at its end; send again through the hub what it has not handled.

        The hub learns first that the incarnation has ended: then it keeps the messages for the next one.
        """
        with self._lock:
            if self.broken:
                return
            self.broken = True
            over = self._read_rest()
            unsent = self._outbox.take_back()
            again = [self._again(header, payload) for header, payload in (*self._returned, *unsent)]
            hub = self._routes.hub
            try:
                ended = hub.request(RequestKind.ENDED, self.path, self.serial)
                for message in again:
                    if message is not None:
                        self._last_told = hub.post_unawaited(self.path, message) or self._last_told
            except WorkerDead as gone:
                for message in again:
                    if message is not None:
                        message.fail(gone)
                ended = Answer()
                ended.set_exception(gone)
                self._last_told = ended
            if not over and self._expected:  # the receiver lives, and has too many connections: its answers come still
                self._watch()
                return
            lost, self._expected = self._expected, {}
            ended.when_done(lambda done: _fail(self.path, lost, done))
            self._close()

    def _read_rest(self) -> bool:
        """Read what comes until the receiver closes the connection; return False if it does not."""
        try:
            while self._poll.poll(LAST_WORDS * 1000):
                with self._reads:
                    self._dispatch(self._parser.receive(self._sock, socket.MSG_DONTWAIT))
        except BlockingIOError:  # the I/O thread was faster
            return self._read_rest()
        except (wire.PeerClosed, wire.WireError, OSError):
            return True
        return False

    def _again(self, header: DirectReturn | DirectMessage, payload: bytes) -> Message | None:
        """Make the message anew; None for an ask without anybody who waits, and for what ends with its receiver."""
        assert header.kind != "several"  # the outbox gives them back one by one
        if header.kind == "signal":
            return None
        if header.number is None:
            return Message(header.kind, Payload(data=payload), None, self._sender, header.carrier)
        reply = self._expected.pop(header.number, None)
        if reply is None or reply is _ignore:
            return None
        return Message(
            header.kind, Payload(data=payload), reply, self._sender, header.carrier, deadline=header.deadline
        )

    def _close(self) -> None:
        """Close the connection; asks that the receiver got and did not answer fail."""
        if self.closed:
            return
        self.closed = True
        self._forget_held()
        self._leave_board()
        self._routes.forget(self)
        self._refuse_expected()
        if not self._watched:
            self._sock.close()
            return
        reactor = self._routes.reactor

        def close() -> None:
            reactor.remove_reader(self)
            self._sock.close()

        reactor.call_soon_threadsafe(close)

    def _refuse_expected(self) -> None:
        for reply in self._expected.values():
            reply(False, Payload(WorkerDead(f"{self.path!r} did not answer before it ended", path=self.path)))
        self._expected.clear()

    def await_end(self) -> None:
        """Wait until the receiver, which is being killed, has closed the connection; for the sending thread.

        What this thread sends from now on goes through the hub, which has it for the next incarnation.
        """
        with self._lock:
            if not self._asking and not self._sending:  # else this is a signal handler
                self._settle()

    # ------------------------------------------------------------ the end of the connection, from any thread
    def close_if_idle(self) -> None:
        """Close the connection if it is idle, and the receiver has ended or has read all; do not wait for its lock.

        Then the next message, which goes through the hub, overtakes none.
        """
        if not self._lock.acquire(blocking=False):
            if self._receiver_ended:
                self._routes.reactor.call_soon_threadsafe(self._close_when_free)
            return
        try:
            outbox = self._outbox
            in_use = self._asking or self._sending or self._watched or self._expected or outbox.waiting or outbox.held
            if not (self.closed or in_use) and (self._receiver_ended or not _is_unread(self._sock)):
                self.broken = True
                self._close()
        finally:
            self._lock.release()

    def _close_when_free(self) -> None:
        """Close the connection if it is idle; for the I/O thread."""
        if not self._lock.acquire(timeout=_A_MOMENT):
            self._routes.reactor.call_soon_threadsafe(self._close_when_free)
            return
        try:
            self.close_if_idle()
        finally:
            self._lock.release()

    def close_ended(self) -> None:
        """Close the connection, whose receiver has ended, now or as soon as it is idle, without waiting."""
        self._receiver_ended = True
        self.close_if_idle()

    def give_up(self) -> None:
        """Send nothing more, and answer all asks with an error; a thread that reads the connection sees its end."""
        with self._lock:
            self.broken = True
            self._refuse_expected()
            if not self.closed:
                with contextlib.suppress(OSError):
                    self._sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection after `give_up`, unless a thread reads it, which then closes it."""
        with self._lock:
            self.closed = True
            self._forget_held()
            self._leave_board()
            if not self._asking:
                self._sock.close()

    def _leave_board(self) -> None:
        """Write nothing more to the status board, which may be unmapped from now on."""
        marks = SenderMarks.of_no_board()
        self._bell = marks.bell
        self._outbox.use(marks)

    def close_after_fork(self) -> None:
        """In a forked child: the connection is the parent's, and so are its counts.

        A signal handler may have forked in the midst of a `send`, which goes on in the child, too.
        """
        self.broken = self.closed = True
        self._leave_board()
        self._sock.close()

    def __del__(self) -> None:
        if hasattr(self, "_sock"):
            self._sock.close()


def _is_unread(sock: socket.socket) -> bool:
    """Return whether the receiver has not read all that was sent."""
    return any(fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)))


def _fail(path: str, lost: dict[int, ReplyCallback], ended: Any) -> None:
    """Answer the asks that the receiver got and did not answer, when the hub knows why it has ended."""
    if ended.cancelled():
        return
    error = ended.exception()
    payload = Payload(WorkerDead.unanswered(path, ended.result()) if error is None else error)
    for reply in lost.values():
        reply(False, payload)
