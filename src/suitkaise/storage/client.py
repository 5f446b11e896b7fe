"""A thread's connection to the storage actor: numbered requests, each carried out once, come what may.

A request is kept until the actor has acknowledged it. When the connection breaks (the actor was killed, say),
the client connects again, is told how far the actor has come, and sends what is missing. The supervisor holds
the listening socket, so a client waits in its backlog while the actor is being restarted.

Writes that nobody waits for are collected and sent many at a time; `pipeline` sees to it that they go out.
"""

from __future__ import annotations

import logging
import os
import socket
import struct
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from suitkaise.errors import StorageError, StorageGone
from suitkaise.messaging import wire
from suitkaise.storage import pipeline
from suitkaise.storage.protocol import VERSION, WINDOW, Hello, Reply, ReplyCode, Request, Welcome, decode_answer
from suitkaise.storage.refusals import error_for, record_background_error

__all__ = ["SOCKET", "Client", "client_of", "clients_of", "connect", "set_timeout"]

logger: logging.Logger = logging.getLogger("suitkaise.storage")

_SEND_AT_ONCE = 64  # requests
_SEND_BYTES = 1 << 16
_MAX_PENDING_BYTES = 1 << 24
_MOMENT = 0.05  # seconds
_CONNECTION_LOST = (OSError, wire.WireError)


class Client:
    """One thread's way to write. It takes a lock, since `pipeline` and `settle` use it from other threads."""

    def __init__(self, directory: str, timeout: float) -> None:
        """Connects at the first request.

        Args:
            directory: the storage's directory.
            timeout: how many seconds a request may take, restarts of the actor included.
        """
        self.directory: str = directory
        self.timeout: float = timeout
        self.lock: Any = threading.RLock()
        self.scheduled: bool = False
        self.busy: bool = False
        self._id = os.urandom(16)
        self._number = 0
        self._acknowledged = 0
        self._pending: deque[tuple[Request, bytes]] = deque()
        self._pending_bytes = 0
        self._unsent: list[bytes] = []
        self._unsent_bytes = 0
        self._awaited = 0
        self._answer: Reply | None = None
        self._down_since: float | None = None
        self._sock: socket.socket | None = None
        self._watched = False  # whether `pipeline` may be waiting for replies on it
        self._parser = wire.Parser(decode=decode_answer)

    def ask(self, request: Request, payload: bytes = b"") -> Reply:
        """Send a request and wait for its reply.

        Raises:
            StorageGone: nobody listens any more.
            StorageError: no reply within the time-out; the request may or may not be carried out.
        """
        with self.lock:
            self.busy = True
            try:
                number = self._add(request, payload, quiet=False)
                self._awaited, self._answer = number, None
                self._run_until(lambda: self._acknowledged >= number, self.timeout)
            finally:
                self.busy = False
            return self._answer or Reply(number)

    def post(self, request: Request, payload: bytes = b"") -> None:
        """Send a request soon, and do not wait. What is refused is noted in `refusals`.

        Raises:
            StorageError: too many are under way, and none was acknowledged within the time-out.
        """
        with self.lock:
            self.busy = True
            try:
                self._post(request, payload)
            finally:
                self.busy = False

    def _post(self, request: Request, payload: bytes) -> None:
        self._add(request, payload, quiet=True)
        if self._sock is not None and (len(self._unsent) >= _SEND_AT_ONCE or self._unsent_bytes >= _SEND_BYTES):
            try:
                self._send()
            except OSError:
                self._disconnect()  # what is pending is sent again when it is connected
        if len(self._pending) >= WINDOW or self._pending_bytes >= _MAX_PENDING_BYTES:
            half = self._pending[len(self._pending) // 2][0].request
            self._run_until(lambda: self._acknowledged >= half, self.timeout)
        if not self.scheduled and self._pending:
            self.scheduled = True
            pipeline.schedule(self)

    def settle(self, timeout: float) -> None:
        """Wait until everything that was posted is stored; what is not, in `timeout` seconds, is noted as refused."""
        began = time.monotonic()
        if not self.lock.acquire(timeout=min(timeout, threading.TIMEOUT_MAX)):
            record_background_error(self.directory, self._no_answer(timeout))
            return
        try:
            number = self._number
            self._run_until(lambda: self._acknowledged >= number, timeout - (time.monotonic() - began))
        except StorageError:
            pass  # it is noted
        finally:
            self.lock.release()

    def ping(self) -> None:
        """Make sure that the actor is there: it has opened the store when this returns."""
        with self.lock:
            self._disconnect()
            self._run_until(lambda: self._sock is not None, self.timeout)

    def pump(self) -> bool:
        """Send what was posted, and take the replies that are here, waiting but a moment.

        Returns:
            Whether replies are still missing.
        """
        with self.lock:
            self.scheduled = self._watched = False
            try:
                if self._pending:
                    self._push(_MOMENT)
                    while self._pending and self._sock is not None:
                        self._take_all(self._parser.receive(self._sock, socket.MSG_DONTWAIT))
            except BlockingIOError:
                pass
            except _CONNECTION_LOST:
                self._disconnect()
            except StorageError as error:
                self._abandon(error)
            if not self._pending or self._sock is not None:
                self._down_since = None
                self._watched = bool(self._pending)
                return self._watched
            now = time.monotonic()
            self._down_since = self._down_since or now
            if now - self._down_since > self.timeout:
                self._abandon(self._no_answer(self.timeout))
                return False
            return True

    def _abandon(self, error: StorageError) -> None:
        logger.warning("%d writes that nobody waited for are given up: %s", len(self._pending), error)
        self._give_up(error)

    def fileno(self) -> int:
        """The socket's descriptor; -1 while it is not connected."""
        sock = self._sock
        return -1 if sock is None else sock.fileno()

    def close(self) -> None:
        """Close the connection. What was posted and not sent is lost."""
        with self.lock:
            self._disconnect()

    def __del__(self) -> None:
        sock = getattr(self, "_sock", None)
        if sock is not None:
            sock.close()

    def _add(self, request: Request, payload: bytes, *, quiet: bool) -> int:
        if len(payload) > wire.MAX_PAYLOAD:
            raise StorageError(f"a value may have {wire.MAX_PAYLOAD} bytes at most; this one has {len(payload)}")
        request.request = number = self._number + 1
        request.quiet = quiet
        frame = wire.encode(request, payload)
        self._number = number
        self._pending.append((request, frame))
        self._pending_bytes += len(frame)
        self._unsent.append(frame)
        self._unsent_bytes += len(frame)
        return number

    def _run_until(self, done: Callable[[], bool], timeout: float) -> None:
        """Connect, send and receive until it is done, whatever happens to the connection."""
        if done():
            return
        deadline = time.monotonic() + timeout
        attempts = 0
        while not done():
            try:
                self._push(max(_MOMENT, deadline - time.monotonic()))
                if self._sock is not None and not done():
                    if timeout < self.timeout:  # than the socket's own
                        set_timeout(self._sock, max(_MOMENT, deadline - time.monotonic()))
                    self._take_all(self._parser.receive(self._sock))
                continue
            except BlockingIOError:  # the socket's time-out
                pass
            except _CONNECTION_LOST:
                self._disconnect()
                attempts += 1
                if attempts > 3:  # whoever is there takes the connection and drops it: nothing tells when to try
                    time.sleep(pipeline.RETRY_AFTER)
            except StorageError as error:
                self._give_up(error)
                raise
            except BaseException:  # from a signal handler: who knows how much of a frame is read
                self._disconnect()
                raise
            if time.monotonic() >= deadline:
                no_answer = self._no_answer(timeout)
                self._give_up(no_answer)
                raise no_answer
        if timeout < self.timeout and self._sock is not None:
            set_timeout(self._sock, self.timeout)
        self._unwatch()

    def _unwatch(self) -> None:
        """What `pipeline` waits for on the connection may not come there any more."""
        if self._watched:
            self._watched = False
            pipeline.wake()

    def _no_answer(self, timeout: float) -> StorageError:
        return StorageError(
            f"the storage in {self.directory} did not answer within {timeout:g} seconds; "
            "what was being written may or may not be stored"
        )

    def _give_up(self, error: StorageError) -> None:
        """Nothing that is under way is waited for any more. As a new client, it sends none of it again."""
        if any(request.quiet for request, _ in self._pending):
            record_background_error(self.directory, type(error)(str(error)))
        self._disconnect()
        self._id = os.urandom(16)
        self._acknowledged = self._number
        self._pending.clear()
        self._pending_bytes = 0
        self._unsent.clear()
        self._unsent_bytes = 0

    def _push(self, patience: float) -> None:
        """Send what is not sent yet; connect first if need be, waiting up to `patience` seconds."""
        if self._sock is None:
            self._connect(patience)
        if self._unsent:
            self._send()

    def _send(self) -> None:
        assert self._sock is not None
        data = self._unsent[0] if len(self._unsent) == 1 else b"".join(self._unsent)
        try:
            self._sock.sendall(data, wire.MSG_NOSIGNAL)
        except BlockingIOError as error:
            self._disconnect()
            raise ConnectionError("the storage actor does not read") from error
        except BaseException:
            self._disconnect()
            raise
        self._unsent.clear()
        self._unsent_bytes = 0

    def _connect(self, patience: float) -> None:
        """Connect, and arrange for what the actor has not carried out yet to be sent.

        Raises:
            OSError, WireError: it has to be tried again.
            StorageGone: nobody listens any more.
        """
        self._sock, self._parser, welcome = connect(self.directory, self._id, patience)
        set_timeout(self._sock, self.timeout)
        for reply in welcome.replies:
            self._take(reply)
        self._acknowledge(welcome.last)
        self._unsent = [frame for _, frame in self._pending]
        self._unsent_bytes = self._pending_bytes

    def _disconnect(self) -> None:
        sock, self._sock = self._sock, None
        if sock is not None:
            sock.close()
        self._unwatch()

    def _take_all(self, frames: list[wire.Frame]) -> None:
        for reply, _ in frames:
            if isinstance(reply, Reply):
                self._take(reply)
                self._acknowledge(reply.request)

    def _take(self, reply: Reply) -> None:
        number = reply.request
        if number <= self._acknowledged:
            return
        if number == self._awaited:
            self._answer = reply
        elif reply.status is not ReplyCode.OK:
            request = next((request for request, _ in self._pending if request.request == number), None)
            if request is not None:
                record_background_error(self.directory, error_for(request, reply))

    def _acknowledge(self, number: int) -> None:
        pending = self._pending
        while pending and pending[0][0].request <= number:
            self._pending_bytes -= len(pending.popleft()[1])
        if number > self._acknowledged:
            self._acknowledged = min(number, self._number)


def client_of(directory: str, timeout: float, depth: int = 0) -> Client:
    """This thread's client of a storage.

    If the thread is in the midst of using it, then this is a signal handler, and it gets another client.
    """
    try:
        client: Client = _of_thread.clients[directory, timeout, depth]
    except AttributeError:
        _of_thread.clients = {}
        return client_of(directory, timeout)
    except KeyError:
        client = _of_thread.clients[directory, timeout, depth] = Client(directory, timeout)
        with _lock:
            _all.add(client)
    return client_of(directory, timeout, depth + 1) if client.busy else client


def clients_of(directory: str) -> list[Client]:
    """All clients of a storage in this process, whichever thread they belong to."""
    with _lock:
        return [client for client in _all if client.directory == directory]


_of_thread: Any = threading.local()
_all: weakref.WeakSet[Client] = weakref.WeakSet()
_lock = threading.RLock()


def _after_fork_in_child() -> None:
    """The parent's connections are the parent's; a child makes its own."""
    global _of_thread, _all, _lock
    _of_thread = threading.local()
    _all = weakref.WeakSet()
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)

SOCKET = "store.sock"
"""The name of the listening socket in a storage's directory."""

_TIMEVAL = struct.Struct("ll")
_BUFFER = 1 << 20
_LONGEST_ADDRESS = 100  # bytes that surely fit into a Unix socket's address


def connect(directory: str, client: bytes, timeout: float) -> tuple[socket.socket, wire.Parser, Welcome]:
    """Connect to the storage in `directory` as this client; returns what the actor remembers about it.

    Nobody but the listening socket need be there yet: while the actor is restarted, one waits in its backlog.

    Raises:
        StorageGone: nobody listens any more.
        BlockingIOError: no answer within `timeout` seconds.
        OSError, WireError: the connection broke.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        set_timeout(sock, timeout)
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            sock.setsockopt(socket.SOL_SOCKET, option, _BUFFER)
        _reach(sock, directory)
        wire.send(sock, Hello(VERSION, client))
        parser = wire.Parser(decode=decode_answer)
        frames: list[wire.Frame] = []
        while not frames:
            frames = parser.receive(sock)
        welcome = frames[0][0]
        if not isinstance(welcome, Welcome):
            raise wire.WireError(f"the storage actor answered {welcome!r} instead of a welcome")
        return sock, parser, welcome
    except BaseException:
        sock.close()
        raise


def set_timeout(sock: socket.socket, seconds: float) -> None:
    """Have the kernel keep the time, for `BlockingIOError`: Python's own time-out is a `poll` at every call."""
    microseconds = int(min(seconds, threading.TIMEOUT_MAX) * 1e6)
    value = _TIMEVAL.pack(*divmod(max(1, microseconds), 1_000_000))  # 0 would be for ever
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, value)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, value)


def _reach(sock: socket.socket, directory: str) -> None:
    address = str(Path(directory, SOCKET))
    try:
        if len(os.fsencode(address)) <= _LONGEST_ADDRESS:
            sock.connect(address)
            return
        folder = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            sock.connect(f"/proc/self/fd/{folder}/{SOCKET}")
        finally:
            os.close(folder)
    except (FileNotFoundError, ConnectionRefusedError) as error:
        raise StorageGone(
            f"nobody keeps the storage in {directory} any more: the program that owned it is gone"
        ) from error
