"""Sending frames: without blocking from the hub to a worker, whole from any thread of a worker to the hub."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections import deque
from collections.abc import Callable

from suitkaise.errors import MailboxFull
from suitkaise.messaging import wire
from suitkaise.platform.reactor import Reactor

__all__ = ["BACKLOG", "FrameWriter", "SendBuffer"]

BACKLOG = 64 << 20
"""Bytes that may wait to be sent to one worker."""

_STEP = 1 << 20
"""Bytes that are offered to a socket at once."""


class SendBuffer:
    """Bytes on their way to one worker: sent at once where the socket takes them, else kept in order.

    It is corked until the worker's process is there: what is not sent can go to another process instead.
    """

    def __init__(self, reactor: Reactor, sock: socket.socket, path: str, on_event: Callable[[], None]) -> None:
        self.sock = sock
        self._reactor = reactor
        self._path = path
        self._on_event = on_event
        self._lock = threading.RLock()  # a signal handler may send, too
        self._fresh: deque[bytes] = deque()
        self._sending = False
        self._backlog = bytearray()
        self._corked = True
        self._ahead = 0  # so many bytes may go although it is corked
        self._watched = self._watching = False

    def fileno(self) -> int:
        """The socket's descriptor."""
        return self.sock.fileno()

    def take_over(self, older: SendBuffer) -> None:
        """Send what another connection, which came to nothing, was to send."""
        with older._lock:
            self._backlog, older._backlog = older._backlog[older._ahead :], bytearray()
        older.sock.close()

    def send(self, data: bytes, *, force: bool = False) -> None:
        """Send, or keep.

        Raises:
            MailboxFull: more than `BACKLOG` bytes would wait; nothing of this is sent. Not with `force`.
        """
        with self._lock:
            if not force and self._backlog and len(self._backlog) + len(data) > BACKLOG:  # a part is never sent
                raise MailboxFull(
                    f"{len(self._backlog)} bytes wait already to be read by {self._path!r}", path=self._path
                )
            self._fresh.append(data)
            if self._sending:  # this is a signal handler; whom it has interrupted sends it
                return
            self._sending = True
            try:
                while self._fresh:
                    self._send(self._fresh.popleft())
            finally:
                self._sending = False

    def _send(self, data: bytes) -> None:
        sent: list[int] = []
        try:
            if not self._backlog and not self._corked:
                self._try(data, sent)
        except BaseException:  # a Ctrl-C, say: what was begun is finished, what was not is not sent
            if sent:
                self._keep(data[sent[0] :])
            raise
        self._keep(data[sent[0] :] if sent else data)

    def _keep(self, data: bytes) -> None:
        self._backlog += data
        if not self._corked:
            self._watch()

    def begin(self, first: bytes, sockets: list[socket.socket]) -> None:
        """Send `first`, with the sockets, ahead of everything: it waits for its reader in the socket."""
        with self._lock:
            files = [sock.fileno() for sock in sockets]
            sent = socket.send_fds(self.sock, [first[: 1 << 16]], files, socket.MSG_NOSIGNAL)
            self._backlog[:0] = first[sent:]
            self._ahead = len(first) - sent
            if self._ahead:
                self._flush()

    def watch(self) -> None:
        """Begin to watch for what the worker says (in the reactor's thread)."""
        with self._lock:
            if self.sock.fileno() >= 0 and not self._watched:
                self._reactor.add_reader(self, self._on_event)
                self._watched = True
                self._watch()

    def rest(self) -> None:
        """Do not watch for it until `watch`; what waits to be sent waits, too (in the reactor's thread)."""
        with self._lock:
            self._reactor.remove_reader(self)
            self._watched = self._watching = False

    def uncork(self) -> None:
        """The process is there: send what waits."""
        with self._lock:
            self._corked = False
            if self._backlog:
                self._flush()

    def flush(self) -> bool:
        """Send more of what waits, if the socket can; whether anything waited (the reader's bell must then ring)."""
        with self._lock:
            if not self._backlog:
                return False
            self._flush()
            return True

    def _flush(self) -> None:
        end = min(self._ahead, _STEP) if self._corked else _STEP
        sent: list[int] = []
        with memoryview(self._backlog) as view, view[:end] as first:
            self._try(first, sent)
        del self._backlog[: sent[0]]
        self._ahead = max(0, self._ahead - sent[0])
        self._watch()

    def _try(self, data: bytes | memoryview, sent: list[int]) -> None:
        """Send what the socket takes, and note how much that was in the same call of C code: nothing comes between."""
        try:
            sent.extend(map(self.sock.send, (data,), (socket.MSG_NOSIGNAL,)))
        except BlockingIOError:
            sent.append(0)
        except OSError:
            sent.append(len(data))  # nobody reads it any more; its pidfd tells

    def _watch(self) -> None:
        wanted = bool(self._ahead if self._corked else self._backlog)
        if wanted is not self._watching and self._watched:
            self._watching = wanted
            self._reactor.call_soon_threadsafe(lambda: self._change(wanted))

    def _change(self, wanted: bool) -> None:
        try:
            self._reactor.set_writer(self, self._on_event, also=wanted)
        except (KeyError, ValueError):
            return  # closed meanwhile

    def close(self) -> None:
        """Close the connection; what was not sent is lost."""
        self._reactor.remove_reader(self)
        with self._lock:
            self.sock.close()
            self._backlog.clear()
            self._corked = True


class FrameWriter:
    """Sends frames one after the other. None is ever cut, whatever a signal handler raises meanwhile."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._lock = threading.RLock()
        self._frames: deque[_Frame] = deque()
        self._sender: int | None = None

    @property
    def interrupted(self) -> bool:
        """Whether this thread is in the midst of sending: this is a signal handler, and what it sends goes later."""
        return self._sender == threading.get_ident()

    def send(self, header: wire.Header, payload: wire.Data = b"", *, long_header: bool = False) -> None:
        """Send one frame; in a signal handler that has interrupted this, have it sent by whom it has interrupted.

        An exception that a signal handler raises comes through. Of a frame that was begun the rest goes out ahead of
        the next one, one that was not begun is withdrawn.

        Raises:
            NotSerializable: it is over the limits.
            OSError: as the socket raises it.
        """
        frame = _Frame(wire.parts(header, payload, long_header=long_header))
        with self._lock:
            self._frames.append(frame)
            if self.interrupted:
                return
            self._sender = threading.get_ident()
            try:
                while self._frames:
                    self._frames[0].send(self._sock)
                    self._frames.popleft()
            except OSError:
                self._frames.clear()
                raise
            except BaseException:
                if not frame.sent:
                    with contextlib.suppress(ValueError):
                        self._frames.remove(frame)
                raise
            finally:
                self._sender = None


class _Frame:
    """One frame, and how much of it is gone."""

    __slots__ = ("_parts", "_size", "sent")

    def __init__(self, parts: tuple[wire.Data, ...]) -> None:
        self.sent: list[int] = []
        self._parts = parts
        self._size = sum(map(len, parts))

    def send(self, sock: socket.socket) -> None:
        """Send what is left of it."""
        while (done := sum(self.sent)) < self._size:
            # One call of C code sends and notes how much: no signal handler can raise between the two.
            self.sent.extend(map(sock.sendmsg, (self._rest(done),), ((),), (wire.MSG_NOSIGNAL,)))

    def _rest(self, done: int) -> tuple[wire.Data, ...]:
        if not done:
            return self._parts
        rest = []
        for part in self._parts:
            rest.append(memoryview(part)[done:])
            done = max(0, done - len(part))
        return tuple(rest)
