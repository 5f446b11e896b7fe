"""A thread's connection to the storage actor: numbered requests, each carried out exactly once.

A client keeps each request until the actor has acknowledged it. When the connection breaks (because the actor was
killed, for example), the client connects again, learns the number of its last request that was carried out, and
sends the later ones again. The supervisor holds the listening socket, so a client waits in the backlog while the
actor is being restarted.

Writes with `wait=False` are collected and sent many at a time; the thread of `pipeline` sends the last of them.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import select
import socket
import struct
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from suitkaise.errors import StorageError, StorageGone
from suitkaise.messaging import wire
from suitkaise.messaging.held_back import send_held
from suitkaise.platform.locks import RLock
from suitkaise.platform.log_queue import QueuedLogger
from suitkaise.platform.processes import after_fork_in_child
from suitkaise.platform.sockets import UntrustedServer, blocking, connect_own
from suitkaise.storage import pipeline
from suitkaise.storage.pipeline import record_background_error
from suitkaise.storage.protocol import (
    VERSION,
    WINDOW,
    Hello,
    Reply,
    ReplyCode,
    Request,
    Welcome,
    decode_answer,
    error_for,
)

__all__ = ["CONNECTION_LOST", "SOCKET", "Client", "await_input", "client_of", "clients_of", "open_socket"]

logger: QueuedLogger = QueuedLogger("suitkaise.storage")

SOCKET = "store.sock"
"""The name of the listening socket in a storage's directory."""

MOST_OWN = 128
"""Threads of a process that have a connection of their own each, as long as they live."""

MOST_SHARED = 32
"""Connections that further threads share; the actor takes 500 of a process, those of watches included."""

_TIMEVAL = struct.Struct("ll")
_DONTWAIT = socket.MSG_DONTWAIT
_SENDING = wire.MSG_NOSIGNAL | _DONTWAIT
_BUFFER = 1 << 20
_SEND_AT_ONCE = 64  # requests
_SEND_BYTES = 1 << 16
_MAX_PENDING_BYTES = 1 << 24
_SENT_BY_ITSELF = 1 << 17  # bytes
_MOMENT = 0.05  # seconds
_LONGEST = 1e6  # seconds; `poll` counts milliseconds in 32 bits
CONNECTION_LOST = (OSError, wire.WireError)


class Client:
    """The client of one thread. It has a lock, since `pump` and `drain` are called by other threads."""

    def __init__(self, directory: str, timeout: float) -> None:
        """Make a client that connects at its first request.

        Args:
            directory: the storage's directory.
            timeout: how many seconds a request may take, restarts of the actor included.
        """
        self.directory: str = directory
        self.timeout: float = timeout
        self.lock: RLock = RLock()
        lock: Any = self.lock
        self.is_interrupted: Callable[[], bool] = lock._is_owned
        """Returns whether this thread is using it: then the caller of a further use is a signal handler."""
        self.scheduled: bool = False
        self._id = os.urandom(16)
        self._number = 0
        self._acknowledged = 0
        self._pending: deque[tuple[int, int, Request, bytes, bytes]] = deque()  # number, size, request, its frame
        self._pending_bytes = 0
        self._unsent: list[bytes] = []
        self._unsent_bytes = 0
        self._awaited = 0
        self._answer: Reply | None = None
        self._down_since: float | None = None
        self._trouble = ""  # with the last attempt to connect
        self._sock: socket.socket | None = None
        self._polled = False  # whether the thread of `pipeline` may be waiting for replies on the socket
        self._poll = select.poll()  # for its input
        self._parser = wire.Parser(decode=decode_answer)

    def __del__(self) -> None:
        sock = getattr(self, "_sock", None)
        if sock is not None:
            sock.close()

    def ask(self, request: Request, payload: bytes = b"") -> Reply:
        """Send a request and wait for its reply.

        Raises:
            StorageGone: the listening socket is gone.
            StorageError: no reply within the timeout; the request may or may not be carried out.
        """
        send_held()
        with self.lock:
            try:
                number = self._add(request, payload, quiet=False)
                self._awaited, self._answer = number, None
                self._run_until(number, self.timeout)
            except BaseException:  # from a signal handler, for example: nobody expects the write any more
                if self._pending and self._pending[-1][2] is request:
                    self._pending_bytes -= self._pending.pop()[1]
                    self._disconnect()  # the next connection sends what is pending, and not this one
                raise
            return self._answer or Reply(number)

    def post(self, request: Request, payload: bytes = b"") -> None:
        """Send a request soon, without waiting for the reply. `pipeline` keeps the error if it is refused.

        Raises:
            StorageError: too many requests are under way, and none was acknowledged within the timeout.
        """
        send_held()  # here: the thread of `pipeline` may be the one that sends the request
        with self.lock:
            try:
                self._add(request, payload, quiet=True)
                if self._sock is not None and (len(self._unsent) >= _SEND_AT_ONCE or self._unsent_bytes >= _SEND_BYTES):
                    try:
                        self._send()
                    except OSError as error:
                        self._disconnect()  # the next connection sends the pending requests again
                        if wire.of_a_signal_handler(error):
                            raise
                if len(self._pending) >= WINDOW or self._pending_bytes >= _MAX_PENDING_BYTES:
                    half = self._pending[len(self._pending) // 2][0]
                    self._run_until(half, self.timeout)
            finally:
                self._schedule()

    def _schedule(self) -> None:
        """Have the thread of `pipeline` send what is posted; without that thread, wait for it here."""
        if self._pending and not self.scheduled:
            try:
                pipeline.schedule(self)
                self.scheduled = True
            except (OSError, RuntimeError) as error:
                if wire.of_a_signal_handler(error):
                    raise
                # No thread or descriptor is left; or the program ends (Python 3.12).
                self._run_until(self._number, self.timeout)

    def drain(self, timeout: float) -> None:
        """Wait until everything that was posted is stored; after `timeout` seconds, record an error instead."""
        began = time.monotonic()
        if self.is_interrupted():
            text = "flush in a signal handler cannot wait for the write that the signal has interrupted"
            record_background_error(self.directory, StorageError(text))
            return
        try:
            if not self._has_turn(timeout):
                record_background_error(self.directory, self._no_answer(timeout))
            elif self._pending:
                self._run_until(self._pending[-1][0], timeout - (time.monotonic() - began))
        except StorageError:
            pass  # the error is recorded
        finally:
            self._end_turn()

    def ping(self) -> None:
        """Wait until the actor answers; by then it has opened the store."""
        with self.lock:
            self._disconnect()
            self._run_until(0, self.timeout)

    def pump(self) -> bool:
        """Send the posted requests and process the replies that have arrived, waiting 50 ms at most.

        Returns:
            Whether replies are still missing.
        """
        with self.lock:
            self.scheduled = self._polled = False
            try:
                if self._pending:
                    if self._sock is None:
                        self._connect(_MOMENT)
                    if self._unsent:
                        self._send()
                    while self._pending and self._sock is not None:
                        self._receive()
            except BlockingIOError:
                pass
            except (*CONNECTION_LOST, MemoryError):
                self._disconnect()
            except StorageError as error:
                self._give_up_posted(error)
            except Exception as error:  # the thread goes on, for the other clients and for later writes
                self._give_up_posted(StorageError(f"after an internal error: {error!r}"))
            if not self._pending or self._sock is not None:
                self._down_since = None
                self._polled = bool(self._pending)
                return self._polled
            now = time.monotonic()
            self._down_since = self._down_since or now
            if now - self._down_since > self.timeout:
                self._give_up_posted(self._no_answer(self.timeout))
                return False
            return True

    def fileno(self) -> int:
        """Return the socket's descriptor; -1 while it is not connected."""
        sock = self._sock
        return -1 if sock is None else sock.fileno()

    @property
    def is_at_rest(self) -> bool:
        """Whether it is not connected, and neither in use here nor about to be: another client would do as well."""
        return self._sock is None and not self._pending and not self.is_interrupted()

    def close(self) -> None:
        """Close the connection. The next use connects again."""
        with self.lock:
            self._disconnect()

    def _has_turn(self, timeout: float) -> bool:
        """Wait until no other thread uses it; return False if that takes longer. Call `_end_turn` in any case."""
        return self.lock.acquire(timeout=min(timeout, threading.TIMEOUT_MAX))

    def _end_turn(self) -> None:
        if self.is_interrupted():  # else a signal handler has raised before `_has_turn` has got the lock
            self.lock.release()

    def _give_up_posted(self, error: StorageError) -> None:
        logger.warning("%d writes with wait=False are given up: %s", len(self._pending), error)
        self._give_up(error)

    def _add(self, request: Request, payload: bytes, *, quiet: bool) -> int:
        request.request = number = self._number + 1
        request.quiet = quiet
        if len(payload) < _SENT_BY_ITSELF:
            frame, rest = wire.encode(request, payload), b""
        elif len(payload) <= wire.MAX_PAYLOAD:  # a large payload is not copied again
            *start, _ = wire.parts(request, payload)
            frame, rest = b"".join(start), payload
        else:
            raise StorageError(f"a value may have {wire.MAX_PAYLOAD} bytes at most; this one has {len(payload)}")
        size = len(frame) + len(rest)
        self._number = number
        self._pending.append((number, size, request, frame, rest))
        self._pending_bytes += size
        self._unsent.append(frame)
        if rest:
            self._unsent.append(rest)
        self._unsent_bytes += size
        return number

    def _run_until(self, number: int, timeout: float) -> None:
        """Connect, send and receive until that request is acknowledged, over as many connections as it takes.

        With 0: until the client is connected.
        """
        deadline = time.monotonic() + timeout
        attempts = 0
        while self._sock is None or self._acknowledged < number:
            try:
                if self._sock is None:
                    self._connect(max(_MOMENT, deadline - time.monotonic()))
                if self._unsent:
                    self._send()
                if self._acknowledged < number:
                    await_ready(self._poll, deadline)
                    self._receive()
                continue
            except CONNECTION_LOST as error:
                if wire.of_a_signal_handler(error):
                    self._disconnect()  # a frame may have been read in part
                    raise
                if not isinstance(error, BlockingIOError):  # else nothing has come in time
                    self._disconnect()
                    attempts += 1
                    if attempts > 3:  # the actor accepts connections and drops them: no event announces a better moment
                        time.sleep(pipeline.RETRY_AFTER)
            except StorageError as error:
                self._give_up(error)
                raise
            except BaseException:  # from a signal handler, likewise
                self._disconnect()
                raise
            if time.monotonic() >= deadline:
                no_answer = self._no_answer(timeout)
                self._give_up(no_answer)
                raise no_answer
        if self._polled:
            self._end_poll()

    def _end_poll(self) -> None:
        """Wake the thread of `pipeline`: the replies that it waits for may never arrive on this connection."""
        if self._polled:
            self._polled = False
            pipeline.wake()

    def _no_answer(self, timeout: float) -> StorageError:
        why = f" (no connection to it can be made: {self._trouble})" if self._trouble else ""
        return StorageError(
            f"the storage in {self.directory} did not answer within {timeout:g} seconds{why}; "
            "writes under way may or may not be stored"
        )

    def _give_up(self, error: StorageError) -> None:
        """Drop all requests under way. A new id keeps the actor from expecting the dropped numbers."""
        if any(request.quiet for _, _, request, *_ in self._pending):
            record_background_error(self.directory, type(error)(str(error)))
        self._disconnect()
        self._id = os.urandom(16)
        self._acknowledged = self._number
        self._pending.clear()
        self._pending_bytes = 0
        self._unsent.clear()
        self._unsent_bytes = 0

    def _send(self) -> None:
        assert self._sock is not None
        try:
            parts = self._unsent
            if len(parts) > 1 and max(map(len, parts)) < _SENT_BY_ITSELF:
                parts = [b"".join(parts)]
            for part in parts:
                if (sent := _send_now(self._sock, part)) < len(part):
                    self._send_rest(memoryview(part)[sent:])
        except BlockingIOError as error:
            self._disconnect()
            if wire.of_a_signal_handler(error):
                raise
            raise wire.PeerClosed("the storage actor does not read") from error
        except BaseException:
            self._disconnect()
            raise
        self._unsent.clear()
        self._unsent_bytes = 0

    def _send_rest(self, data: memoryview) -> None:
        assert self._sock is not None
        deadline = time.monotonic() + self.timeout
        room = select.poll()
        room.register(self._sock, select.POLLOUT)
        while data:
            await_ready(room, deadline)
            data = data[_send_now(self._sock, data) :]

    def _connect(self, timeout: float) -> None:
        """Connect, and mark all requests as unsent that the actor has not carried out.

        Raises:
            OSError, WireError: the caller has to try again.
            StorageGone: the listening socket is gone.
        """
        try:
            self._sock, self._parser, welcome = _open_connection(self.directory, self._id, timeout)
        except BlockingIOError:  # no answer in time
            self._trouble = ""
            raise
        except CONNECTION_LOST as error:
            self._trouble = str(error)
            raise
        self._trouble = ""
        self._poll = select.poll()
        self._poll.register(self._sock, select.POLLIN)
        for reply in welcome.replies:
            self._take(reply)
        self._acknowledge(welcome.last)
        self._unsent = [part for *_, frame, rest in self._pending for part in (frame, rest) if part]
        self._unsent_bytes = self._pending_bytes

    def _disconnect(self) -> None:
        sock, self._sock = self._sock, None
        if sock is not None:
            sock.close()
        self._end_poll()

    def _receive(self) -> None:
        """Process the replies that have arrived."""
        assert self._sock is not None
        for reply, _ in self._parser.receive(self._sock, _DONTWAIT):
            if isinstance(reply, Reply):
                self._take(reply)
                self._acknowledge(reply.request)

    def _take(self, reply: Reply) -> None:
        """Keep the reply that is awaited, and the error of a request that nothing waits for."""
        if reply.request == self._awaited:
            self._answer = reply
        elif reply.status is not ReplyCode.OK:
            request = next((request for number, _, request, *_ in self._pending if number == reply.request), None)
            if request is not None:
                record_background_error(self.directory, error_for(request, reply))

    def _acknowledge(self, number: int) -> None:
        pending = self._pending
        while pending and pending[0][0] <= number:
            self._pending_bytes -= pending.popleft()[1]
        if number > self._acknowledged:
            self._acknowledged = min(number, self._number)


class _SharedClient(Client):
    """The client of several threads, which wait for each other; the wait has the same timeout as the request."""

    def ask(self, request: Request, payload: bytes = b"") -> Reply:
        """Send a request when it is this thread's turn, and wait for its reply."""
        with self._turn():
            return super().ask(request, payload)

    def post(self, request: Request, payload: bytes = b"") -> None:
        """Send a request soon, when it is this thread's turn."""
        with self._turn():
            super().post(request, payload)

    def ping(self) -> None:
        """Wait for this thread's turn, and until the actor answers."""
        with self._turn():
            super().ping()

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        try:
            if not self._has_turn(self.timeout):
                raise self._no_answer(self.timeout)
            yield
        finally:
            self._end_turn()


def client_of(directory: str, timeout: float, depth: int = 0) -> Client:
    """Return this thread's client of a storage.

    If the thread is in the midst of using that client, the caller is a signal handler and gets another client.
    """
    try:
        client: Client = _of_thread.clients[directory, timeout, depth]
    except AttributeError:
        _of_thread.clients = {}
        return client_of(directory, timeout)
    except KeyError:
        client = _made(directory, timeout, depth)
        _of_thread.clients = {place: one for place, one in list(_of_thread.clients.items()) if not one.is_at_rest}
        _of_thread.clients[directory, timeout, depth] = client
    return client_of(directory, timeout, depth + 1) if client.is_interrupted() else client


def _made(directory: str, timeout: float, depth: int) -> Client:
    """Return a client for this thread: a new one, or one of those that are shared, if there are many.

    A signal handler never waits for a thread that has one of these, since the main thread has a client of its own.
    """
    client = Client(directory, timeout)
    with _lock:
        many = len(clients_of(directory)) >= MOST_OWN
        if many and not depth and threading.current_thread() is not threading.main_thread():
            place = directory, timeout, next(_turns) % MOST_SHARED
            client = _shared.get(place) or _shared.setdefault(place, _SharedClient(directory, timeout))
        _all[id(client)] = client
    return client


def clients_of(directory: str) -> list[Client]:
    """Return the clients of a storage of all threads of this process."""
    alive = [ref() for ref in _all.valuerefs()]  # taken at once: a signal handler may make another one meanwhile
    return [client for client in alive if client is not None and client.directory == directory]


_of_thread: Any = threading.local()
_all: weakref.WeakValueDictionary[int, Client] = weakref.WeakValueDictionary()
_shared: weakref.WeakValueDictionary[tuple[str, float, int], Client] = weakref.WeakValueDictionary()
_turns = itertools.count()
_lock = RLock()


def _reset_after_fork() -> None:
    """Drop the parent's connections in a forked child; the child makes its own."""
    global _of_thread, _all, _shared, _lock
    _of_thread = threading.local()
    _all = weakref.WeakValueDictionary()
    _shared = weakref.WeakValueDictionary()
    _lock = RLock()
    pipeline.reset_after_fork()


after_fork_in_child(_reset_after_fork)


def _open_connection(directory: str, client: bytes, timeout: float) -> tuple[socket.socket, wire.Parser, Welcome]:
    """Connect to the storage in `directory`, and introduce the client with this id.

    The listening socket alone has to exist: while the actor is being restarted, the connection waits in the backlog.

    Returns:
        The socket, the parser of its frames, and the actor's record of the client.

    Raises:
        StorageGone: the listening socket is gone.
        StorageError: another user listens there; this process may not connect; or the server that keeps the store is
            away.
        BlockingIOError: no answer within `timeout` seconds.
        OSError, WireError: the connection broke.
    """
    deadline = time.monotonic() + timeout
    sock = open_socket(directory, timeout)
    try:
        wire.send(sock, Hello(VERSION, client))
        parser = wire.Parser(decode=decode_answer)
        frames: list[wire.Frame] = []
        while not frames:
            await_input(sock, deadline)
            frames = parser.receive(sock, _DONTWAIT)
        welcome = frames[0][0]
        if isinstance(welcome, Reply) and welcome.status is not ReplyCode.OK:
            raise StorageError(f"the storage cannot be used: {welcome.detail}")
        if not isinstance(welcome, Welcome):
            raise wire.WireError(f"the storage actor answered {welcome!r} instead of a welcome")
        return sock, parser, welcome
    except BaseException:
        sock.close()
        raise


def open_socket(directory: str, timeout: float) -> socket.socket:
    """Connect to the storage in `directory`, whose actor need not run yet.

    Args:
        directory: the storage's directory.
        timeout: seconds for which the actor may have no room for a further connection.

    Raises:
        StorageGone: the listening socket is gone.
        StorageError: another user listens there; or this process may not connect.
        OSError: the connection failed; `BlockingIOError`: not in time.
    """
    sock = blocking(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
    try:
        microseconds = int(min(timeout, threading.TIMEOUT_MAX) * 1e6)
        limit = _TIMEVAL.pack(*divmod(max(1, microseconds), 1_000_000))  # 0 would mean no timeout
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            sock.setsockopt(socket.SOL_SOCKET, option, _BUFFER)
        connect_own(sock, Path(directory, SOCKET))
    except (FileNotFoundError, ConnectionRefusedError) as error:
        sock.close()
        raise StorageGone(
            f"the storage in {directory} is gone: the program that owned it has ended, or has given it up"
        ) from error
    except UntrustedServer as error:
        sock.close()
        raise StorageError(str(error.strerror), path=directory) from error
    except PermissionError as error:
        sock.close()
        raise StorageError(
            f"the storage in {directory} cannot be reached: {error.strerror}; this process runs as user "
            f"{os.geteuid()}, and the storage is for another user. A worker that has another user uses it by the "
            "connection that its own thread has made before, which is lost if the storage actor dies",
            path=directory,
        ) from error
    except BaseException:
        sock.close()
        raise
    return sock


def _send_now(sock: socket.socket, data: wire.Data) -> int:
    """Send what the socket takes without waiting; return how many bytes that are."""
    try:
        return sock.send(data, _SENDING)
    except BlockingIOError as error:
        if wire.of_a_signal_handler(error):
            raise
        return 0


def await_input(sock: socket.socket, deadline: float | None) -> None:
    """Wait until there is something to read. Raises what `await_ready` raises."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    await_ready(poll, deadline)


def await_ready(poll: select.poll, deadline: float | None) -> None:
    """Wait until a socket that is registered with `poll` is ready, or has lost its connection.

    A timeout of the kernel's (`SO_RCVTIMEO`) would save a system call. But a signal handler interrupts the call, Python
    makes it again, and the timeout begins anew: with a timer of the program's it would never end.

    Raises:
        BlockingIOError: it is not ready at that time (monotonic; None: wait for ever).
    """
    while True:
        left = _LONGEST if deadline is None else max(0.0, min(deadline - time.monotonic(), _LONGEST))
        if poll.poll(left * 1000):
            return
        if deadline is not None and time.monotonic() >= deadline:
            raise BlockingIOError(errno.EAGAIN, "not in time")
