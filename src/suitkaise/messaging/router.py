"""How refs reach the hub, the program that owns the trees: its registry, or a connection of a worker's process."""

from __future__ import annotations

import concurrent.futures
import contextlib
import itertools
import os
import socket
import time
import weakref
from collections.abc import Callable
from typing import Any, Protocol

from suitkaise.errors import AskTimeout, DeadlockError, MailboxFull, RuntimeGone
from suitkaise.messaging import codec, wire
from suitkaise.messaging.answer import DEFAULT_TIMEOUT, Answer, checked_timeout, refuse_reader
from suitkaise.messaging.bundle_tables import Known
from suitkaise.messaging.connection import FrameWriter
from suitkaise.messaging.direct import Routes, sends
from suitkaise.messaging.held_back import never, send_held
from suitkaise.messaging.identity import own_thread_of, reads_answers, set_reads_answers
from suitkaise.messaging.messages import Message, Outcome, Payload, ReplyCallback
from suitkaise.messaging.pieces import Pieces
from suitkaise.messaging.protocol import (
    AdminAction,
    AdminRequest,
    Ask,
    Connect,
    HubRequest,
    RequestKind,
    Tell,
    Withdraw,
    WorkerFrame,
    decode_answer,
)
from suitkaise.messaging.route import Connection
from suitkaise.messaging.tracing import Carrier, carrier
from suitkaise.messaging.unawaited import Unawaited
from suitkaise.platform.board import Board
from suitkaise.platform.callbacks import run_send
from suitkaise.platform.exit_functions import at_exit, expect_exit
from suitkaise.platform.locks import RLock
from suitkaise.platform.log_queue import QueuedLogger
from suitkaise.platform.processes import after_fork_in_child
from suitkaise.platform.sockets import UntrustedServer, blocking, connect_own
from suitkaise.platform.threads import DaemonThread

__all__ = ["FLUSH_TIME", "HubClient", "Router", "await_room", "deadline", "flush", "in_worker_process", "router",
           "set_router", "shared_payload", "waits_for_itself"]  # fmt: skip

logger: QueuedLogger = QueuedLogger("suitkaise.messages")

FLUSH_TIME = 5.0
"""Seconds for which a process that ends waits until its last messages to other workers have left it."""


class Router(Protocol):
    """Passes on what refs ask for. In the hub this is the registry, in a worker's process a `HubClient`."""

    holds_back: Callable[[str, Any], bool]
    """Hold back what this thread tells the worker at a path; return False if it has to be sent; see `held_back`.

    It is called for each message, so it is the method of the direct connections itself.
    """

    def request(self, kind: RequestKind, path: str, argument: Any = None) -> Answer[Any]:
        """Carry out a request about the worker at `path`; errors are set as the answer's exception."""
        ...

    def administer(self, action: AdminAction, path: str, argument: Any = None) -> Answer[Any]:
        """Have the supervisor at `path` carry out `action`; errors are set as the answer's exception."""
        ...

    def send(self, path: str, message: Message) -> bool:
        """Send a message to the worker at `path`; return False if its bounded mailbox has dropped it at once."""
        ...

    def post(self, path: str, message: Message, *, waits: bool = False) -> Answer[bool] | None:
        """Have the hub deliver a message, without waiting; return what tells when it is accepted; None: it is, or asks.

        `waits`: while a bounded mailbox has no room for it; else it is refused then.
        """
        ...

    def confirm(self, path: str, until: float) -> bool:
        """Wait until all that this thread has told the worker at `path` is accepted; return False after that time.

        `until` is monotonic. Raises what `WorkerRef.tell` raises, if the last message was refused.
        """
        ...

    def flush(self, until: float) -> int:
        """Wait until all that this process has told is accepted, or for that time; return how many messages are not."""
        ...

    def in_use(self) -> list[str]:
        """Return the paths of the workers to which this thread has to send itself what goes to a group or a topic.

        It has sent them messages over direct connections, which the hub's message could overtake.
        """
        ...

    def send_to(self, owner: str, message: Message, most: int) -> bool:
        """Send a message over this thread's connection to the incarnation `owner`; return False if there is none.

        Raises:
            MailboxFull: `most` messages wait to be sent already, or too many bytes.
        """
        ...

    def leave(self, path: str) -> None:
        """Have what this thread sends from now on go to the next incarnation: the worker at `path` is being killed."""
        ...

    def ask(self, path: str, payload: Payload, timeout: float | None, carrier: Carrier | None) -> Answer[Any] | Outcome:
        """Ask the worker at `path`; return the answer to wait for, or what came over a direct connection.

        The worker does not begin to handle the question after `timeout` seconds.

        Raises:
            AskTimeout: no answer came over the direct connection in time.
        """
        ...


_router: Router | None = None


def set_router(router: Router | None) -> None:
    """Set how refs in this process reach the hub."""
    global _router
    _router = router


def router() -> Router:
    """Return how refs in this process reach the hub.

    Raises:
        RuntimeGone: no tree runs, and this is not a worker.
    """
    if _router is None:
        raise RuntimeGone(
            "no supervision tree runs in this program; a ref works in the program that has started the tree, "
            "and in its workers"
        )
    return _router


def in_worker_process() -> bool:
    """Return whether this process is a worker of a program elsewhere."""
    return _router is not None and isinstance(_router, HubClient)


def shared_payload(message: Any) -> Any:
    """Return a message as the argument of a request that the hub passes on to several workers.

    From a worker's process it goes encoded, so that the hub need not decode it.
    """
    payload = Payload(message)
    return payload.data if in_worker_process() else payload


class HubClient:
    """The router of a worker's process: sends all that refs ask for to the hub's socket at `path`.

    The connection is made at the first use, and made anew in a forked child. With the status `board`, messages go over
    direct connections where the hub can make them.
    """

    def __init__(self, path: str, board: Board | None = None) -> None:
        self._path = path
        self._routes: Routes | None = None
        self.holds_back: Callable[[str, Any], bool] = never
        if board is not None:
            self._routes = Routes(self, board.marks, lambda: not reads_answers())
            self.holds_back = self._routes.holds_back
        self._connections: list[_HubConnection] = []
        self._closed = False
        self.renew_lock()
        _in_this_process.add(self)

    def renew_lock(self) -> None:
        """Make the lock anew in a forked child: a thread of the parent may have held the old one."""
        self._lock = RLock()
        self._unawaited = Unawaited()  # the others are the parent's

    def request(self, kind: RequestKind, path: str, argument: Any = None) -> Answer[Any]:
        """Ask the hub to carry out a request about the worker at `path`."""
        answer: Answer[Any] = Answer()
        payload = codec.dumps(argument)
        connection = self._current()
        number = connection.expect(answer.settle)
        answer.when_done(lambda done: connection.withdraw(number) if done.cancelled() else None)
        connection.write(HubRequest(number, kind, path), payload)
        return answer

    def administer(self, action: AdminAction, path: str, argument: Any = None) -> Answer[Any]:
        """Ask the hub to have the supervisor at `path` carry out `action`."""
        answer: Answer[Any] = Answer()
        payload = codec.dumps(argument)
        connection = self._current()
        connection.write(AdminRequest(connection.expect(answer.settle), action, path, carrier()), payload)
        return answer

    @sends
    def send(self, path: str, message: Message) -> bool:
        """Send a message directly, or have the hub deliver it; then return when the hub has accepted it.

        In a thread that reads answers (a `__del__` may run there) a `tell` returns at once, and a message that the hub
        refuses is a dead letter.
        """
        route = None if self._routes is None else self._routes.find(path)  # such a thread has none
        if route is not None and route.send(message):
            return True
        if message.reply is None and reads_answers():
            message.body.parts  # noqa: B018  (an error of the encoding comes at once)
            run_send(lambda: self.post_unawaited(path, message))
            return True
        return self._deliver(path, message)

    @sends
    def ask(self, path: str, payload: Payload, timeout: float | None, carrier: Carrier | None) -> Answer[Any] | Outcome:
        """Ask directly and wait, or have the hub deliver the question."""
        route = None if self._routes is None else self._routes.find(path)
        if route is not None and (outcome := route.ask(payload, timeout, carrier)) is not None:
            return outcome
        answer: Answer[Any] = Answer()
        answer.began = time.monotonic()
        deadline = None if timeout is None else answer.began + timeout
        message = Message("message", payload, answer.settle, carrier=carrier, deadline=deadline)
        if route is None or not route.send(message):
            self._deliver(path, message)
        return answer

    def confirm(self, path: str, until: float) -> bool:
        """Wait until all that this thread has told the worker at `path` is accepted; return False after that time."""
        refuse_reader()
        return self._routes is None or self._routes.confirm(path, until)

    def flush(self, until: float) -> int:
        """Wait until all that this process has told is accepted, or for that time; return how many messages are not."""
        refuse_reader()
        left = 0 if self._routes is None else self._routes.flush(until)
        return left + self._unawaited.wait(until)

    def in_use(self) -> list[str]:
        """Return the paths of the workers to which this thread has to send itself what goes to a group or a topic."""
        return [] if self._routes is None else self._routes.in_use()

    def send_to(self, owner: str, message: Message, most: int) -> bool:
        """Send a message over this thread's connection to the incarnation `owner`; return False if there is none."""
        return self._routes is not None and self._routes.send_to(owner, message, most)

    def leave(self, path: str) -> None:
        """Send nothing more directly to the worker at `path`, which is being killed."""
        if self._routes is not None and not reads_answers():
            self._routes.leave(path)

    def finish(self, seconds: float) -> None:
        """Wait until all messages that were told have left this process; drop the others after `seconds`."""
        if self._routes is not None:
            self._routes.finish(seconds)

    def _deliver(self, path: str, message: Message) -> bool:
        accepted = self.post(path, message, waits=not waits_for_itself(path))
        return accepted is None or await_room(path, accepted, accepted.withdraw)

    def post(self, path: str, message: Message, *, waits: bool = False, awaited: bool = True) -> _Accepted | None:
        """Send a message through the hub; return an answer that tells when a tell is accepted.

        `waits`: while a bounded mailbox has no room for it; else it is refused then. `awaited`: the caller learns of a
        refusal; else a tell that is refused is a dead letter.
        """
        connection = self._current()
        payload = message.body.parts_for(connection.known)
        kind: Any = message.kind  # never a signal: those are made in the hub
        if message.reply is None:
            accepted = _Accepted()
            number = connection.expect(accepted.settle)
            accepted.withdraw = lambda: connection.end_wait(number)
            connection.write(Tell(number, kind, path, message.carrier, waits, awaited), payload)
            return accepted
        connection.write(Ask(connection.expect(message.reply), kind, path, message.carrier, message.deadline), payload)
        return None

    def post_unawaited(self, path: str, message: Message) -> Answer[bool] | None:
        """Send a message through the hub, where a tell that is refused is a dead letter; return its answer."""
        accepted = self.post(path, message, awaited=False)
        if accepted is not None:
            self._unawaited.add(accepted)
        return accepted

    def connect(self, path: str) -> Answer[Connection | None]:
        """Have the hub make a connection with the worker at `path`."""
        answer: Answer[Connection | None] = Answer()
        connection = self._current()
        connection.write(Connect(connection.expect(answer.settle), path), b"")
        return answer

    def close(self) -> None:
        """Close the connections. Answers that are awaited are `RuntimeGone`, and so are later requests."""
        with self._lock:
            self._closed = True
            for connection in self._connections:
                connection.close()
            self._connections.clear()

    def _current(self) -> _HubConnection:
        """Return the connection to use.

        A signal handler that has interrupted a write gets another connection: it may wait for an answer, and on the
        first connection its request would go out only after the interrupted write.
        """
        send_held()
        with self._lock:
            if self._closed:  # a thread may be about to ask; its connection would stay
                raise RuntimeGone("the connection with the program is closed")
            for connection in self._connections[:]:
                if connection.pid != os.getpid() or connection.closed:
                    with contextlib.suppress(ValueError):  # a signal handler has come before
                        self._connections.remove(connection)
                elif not connection.writer.interrupted:
                    return connection
            self._connections.append(_HubConnection(self._path))
            return self._connections[-1]


_in_this_process: weakref.WeakSet[HubClient] = weakref.WeakSet()


def _renew_locks() -> None:
    for client in list(_in_this_process):
        client.renew_lock()


after_fork_in_child(_renew_locks)


class _Accepted(Answer[bool]):
    """The hub's answer to a tell."""

    withdraw: Callable[[], None]
    """Ends the wait for room; the answer comes then."""


def waits_for_itself(path: str) -> bool:
    """Return whether this thread is the one that handles the messages to the worker at `path`: it cannot wait."""
    return own_thread_of() == path


def await_room(path: str, room: Answer[bool], withdraw: Callable[[], Any]) -> bool:
    """Wait until the worker at `path` has room for a told message; return False if it was dropped at once.

    `withdraw` ends the wait; `room` is set then, if the message was accepted, and else an error or cancelled.

    Raises:
        MailboxFull: there was no room for `DEFAULT_TIMEOUT` seconds.
        DeadlockError: there cannot be any, as workers wait for each other.
        AskTimeout: the hub does not answer.
    """
    room.waits_for = "tells", path
    try:
        return room.get(DEFAULT_TIMEOUT)
    except (AskTimeout, DeadlockError) as error:
        withdraw()
        try:
            return room.get(DEFAULT_TIMEOUT)  # there may just have been room
        except (MailboxFull, concurrent.futures.CancelledError):
            if isinstance(error, DeadlockError):
                raise error from None
            raise MailboxFull(f"{path!r} had no room for the message for {DEFAULT_TIMEOUT} s", path=path) from None


def flush(timeout: float | None = DEFAULT_TIMEOUT) -> None:
    """Wait until all messages that this process has told are accepted, at most `timeout` seconds (default 5.0).

    `tell` returns when a message is on its way: it may wait in this process while its receiver is slow, and for a
    millisecond, so that one system call sends several, if it is one of many that follow each other at once. An accepted
    message has left this process, and nothing that happens here loses it; it waits at the receiver, or in the program
    that owns the tree. A message that cannot be delivered any more is logged as dropped, and no longer waited for.

    >>> import suitkaise
    >>> from suitkaise import Supervisor, Thread
    >>> class Count(Thread):
    ...     def on_start(self) -> None:
    ...         self.total = 0
    ...
    ...     def on_receive(self, number: int) -> int:
    ...         self.total += number
    ...         return self.total
    >>> with Supervisor("app", Count).start() as running:
    ...     for number in range(10):
    ...         running["count"].tell(number)
    ...     suitkaise.flush()
    ...     running["count"].ask(0)
    45

    Raises:
        AskTimeout: some messages are not accepted yet; they are still sent.
    """
    until = deadline(timeout)
    left = 0 if _router is None else _router.flush(until)
    if left:
        raise AskTimeout(f"{left} told message{'s were' if left > 1 else ' was'} not accepted within {timeout} s")


@at_exit
def _at_exit() -> None:  # of a forked child of a worker: a worker has waited by itself
    if isinstance(_router, HubClient):
        _router.finish(FLUSH_TIME)


def deadline(timeout: float | None) -> float:
    """Return the time (monotonic) at which a caller's timeout is over; infinity for None. Raises TypeError."""
    seconds = checked_timeout(timeout)
    return float("inf") if seconds is None else time.monotonic() + seconds


def _explained(error: OSError) -> str:
    if not isinstance(error, PermissionError) or isinstance(error, UntrustedServer):
        return str(error)
    return (
        f"{error.strerror}; this process runs as user {os.geteuid()}, and the socket is for another user. A worker "
        "with a user of its own is declared with Child(user=...); one that changes its user itself connects before, "
        "by using a ref and by self.tree.open()"
    )


class _HubConnection:
    """One connection to the hub."""

    def __init__(self, path: str) -> None:
        self.pid = os.getpid()
        self.closed = False
        self._numbers = itertools.count(1)
        self._expected: dict[int, ReplyCallback] = {}
        self.known: Known = Known()
        self._sock = blocking(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        try:
            connect_own(self._sock, path)
        except OSError as error:
            self._sock.close()
            raise RuntimeGone(f"the program that owns the tree cannot be reached: {_explained(error)}") from error
        self.writer = FrameWriter(self._sock)
        expect_exit()
        DaemonThread(target=self._read, name="suitkaise-hub-answers").start()

    def expect(self, reply: ReplyCallback) -> int:
        """Return the number for a request; `reply` will be called with its answer, in another thread."""
        number = next(self._numbers)
        self._expected[number] = reply
        return number

    def write(self, frame: WorkerFrame, payload: bytes | Pieces) -> None:
        """Send a request. If that fails, its answer is no longer expected."""
        try:
            self.writer.write(frame, payload)
        except BaseException as error:
            self._expected.pop(frame.number, None)
            if not isinstance(error, OSError) or wire.of_a_signal_handler(error):
                raise
            raise RuntimeGone(f"the program that owns the tree is gone: {error}") from error
        self.known.note_sent(payload)

    def withdraw(self, number: int) -> None:
        """Stop expecting the answer to request `number`."""
        if self._expected.pop(number, None) is not None and self.pid == os.getpid():
            self.end_wait(number)

    def end_wait(self, number: int) -> None:
        """Have the hub answer request `number` now."""
        with contextlib.suppress(OSError):
            self.writer.write(Withdraw(number))

    def close(self) -> None:
        """End the thread that reads, which closes the socket."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def _read(self) -> None:
        set_reads_answers()
        descriptors: list[int] = []
        why = "the program that owns the tree is gone"
        try:
            self._read_answers(descriptors)
        except (OSError, wire.WireError):
            pass
        except BaseException as error:  # no memory is left, for example
            why = f"the connection with the program that owns the tree has ended after an error: {error!r}"
            with contextlib.suppress(BaseException):  # there may be no memory for it
                logger.exception("%s", why)
        self.closed = True
        self._sock.close()
        for descriptor in descriptors:
            if descriptor >= 0:
                os.close(descriptor)
        while self._expected:  # a request that is added from now on cannot be sent
            _, reply = self._expected.popitem()
            with contextlib.suppress(BaseException):  # the others get their answers, too
                reply(False, Payload(RuntimeGone(why)))

    def _read_answers(self, descriptors: list[int]) -> None:
        parser = wire.Parser(decode=decode_answer, lends=True)
        while True:
            for answer, data in parser.receive(self._sock, 0, descriptors):
                self.known.note_arrived(data)
                payload = Payload(data=data)
                descriptor = -1
                if answer.connected:
                    value = payload.value
                    descriptor = descriptors.pop(0)
                    payload = Payload(None if descriptor < 0 else Connection(descriptor, *value))
                reply = self._expected.pop(answer.number, None)  # not earlier: after an error it is told of that
                if reply is not None:
                    reply(answer.ok, payload)
                elif descriptor >= 0:
                    os.close(descriptor)
