"""Sending to one peer without blocking, from any thread of the hub; for signal handlers see `connection`."""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable

from suitkaise.errors import MailboxFull
from suitkaise.messaging import wire
from suitkaise.messaging.connection import (
    BACKLOG,
    FLAGS,
    NO_ANCILLARY_DATA,
    send_and_record,
    takes_more_later,
    when_there_is_memory,
)
from suitkaise.messaging.descriptor_codec import DescriptorOwner, descriptor_of
from suitkaise.messaging.pieces import Pieces
from suitkaise.platform.locks import RLock
from suitkaise.platform.reactor import Reactor

__all__ = ["SendBuffer"]

_STEP = 1 << 20
"""Bytes that are offered to a socket at once."""


class SendBuffer:
    """Sends to one peer without blocking; what the socket does not take is queued in order.

    Any thread of the hub may write to a worker: a supervisor, the I/O thread, the user's main thread, a signal handler
    in it. With a blocking socket, a worker that does not read (a long loop, a SIGSTOP) would hold up the writer; were
    that the I/O thread, no exit in any tree would be noticed any more. So the socket does not block, and the reactor
    sends the rest when the socket takes more. Without a limit, a worker that never reads would fill the hub's memory;
    so `write` refuses what would exceed `BACKLOG`, and does that before it sends a first byte: after a part of a
    frame, the reader could make nothing of the rest of the stream.

    A buffer is corked until the process of the worker exists and its first frame was sent. Only that frame goes into
    the socket until then, and the rest waits here: if the process cannot be spawned, the buffer of the next one takes
    it over.

    Args:
        reactor: the program's I/O thread.
        sock: a connected socket in non-blocking mode; the buffer closes it.
        path: the receiver's name, for errors.
        on_event: called in the reactor's thread when there is something to read, or room to write; calls `flush`.
        corked: whether to wait for `begin` and `uncork`, which may come in either order.
    """

    def __init__(
        self, reactor: Reactor, sock: socket.socket, path: str, on_event: Callable[[], None], *, corked: bool = True
    ) -> None:
        self.sock = sock
        self._reactor = reactor
        self._path = path
        self._on_event = on_event
        self._lock = RLock()  # a signal handler may write, too
        self._fresh: deque[bytes | Pieces] = deque()
        self._writing = False
        self._backlog = bytearray()
        self._corked = 2 if corked else 0  # for how many of `begin` and `uncork` the buffer waits
        self._ahead = 0  # how many bytes may be sent although the buffer is corked
        self._reading = self._awaiting_room = False
        self._closed = False
        self._newer: SendBuffer | None = None  # has taken over what waited here

    def fileno(self) -> int:
        """Return the socket's descriptor."""
        return self.sock.fileno()

    @property
    def waiting(self) -> int:
        """How many bytes the socket has not taken yet."""
        return len(self._backlog)

    # ------------------------------------------------------------ from any thread
    def write(self, data: bytes | Pieces, *, force: bool = False) -> None:
        """Send `data`, or queue a copy of what the socket does not take. After `close`, do nothing.

        Raises:
            MailboxFull: more than `BACKLOG` bytes would wait; nothing of `data` is sent. Not with `force`.
        """
        with self._lock:
            if self._newer is not None:
                self._newer.write(data, force=force)
                return
            if self._closed:
                return
            too_much = self._backlog and len(self._backlog) + len(data) > BACKLOG  # a single frame may have any size
            if too_much and not force:
                raise MailboxFull(
                    f"{len(self._backlog)} bytes already wait to be read by {self._path!r}", path=self._path
                )
            self._fresh.append(data)
            if not self._writing:  # else this is a signal handler or a `__del__`; the interrupted call sends the data
                self._write_fresh()

    def _write_fresh(self) -> None:
        self._writing = True
        try:
            while self._fresh:
                self._write(self._fresh.popleft())
        finally:
            self._writing = False

    def pass_on(self, data: bytes, descriptor: int) -> bool:
        """Send `data` together with a descriptor, if nothing waits to be sent before; return whether that was done."""
        with self._lock:
            if self._closed or self._corked or self._backlog or self._writing:
                return False
            self._writing = True
            try:
                sent = socket.send_fds(self.sock, [data], [descriptor], wire.MSG_NOSIGNAL)
            except OSError:
                return False
            else:
                if sent < len(data):
                    self._queue(data, sent)
            finally:
                self._write_fresh()
            return True

    def _write(self, data: bytes | Pieces) -> None:
        sent: list[int] = []
        try:
            if not self._backlog and not self._corked:
                self._try(data, sent)
        except BaseException:  # of a signal handler: finish a frame that was begun, and drop one that was not
            if sent:
                self._queue(data, sent[0])
            raise
        if not sent or sent[0] < len(data):
            self._queue(data, sent[0] if sent else 0)

    def _queue(self, data: bytes | Pieces, sent: int) -> None:
        for part in data.parts if isinstance(data, Pieces) else (data,):
            self._backlog += memoryview(part)[sent:]
            sent = max(0, sent - len(part))
        if not self._corked:
            self._await_room()

    def flush(self) -> bool:
        """Send more of the backlog, if the socket takes it; return whether there was any."""
        with self._lock:
            if not self._backlog:
                return False
            self._flush()
            return True

    def _flush(self) -> None:
        end = min(self._ahead, _STEP) if self._corked else _STEP
        sent: list[int] = []
        self._writing = True  # the backlog cannot grow while it is sent
        try:
            with memoryview(self._backlog) as view, view[:end] as first:
                self._try(first, sent)
        finally:
            count = sum(sent)
            del self._backlog[:count]
            self._ahead = max(0, self._ahead - count)
            self._write_fresh()
        self._await_room()

    def _try(self, data: bytes | memoryview | Pieces, sent: list[int]) -> None:
        try:
            if isinstance(data, Pieces):
                send_and_record(sent, self.sock.sendmsg, data.parts, NO_ANCILLARY_DATA, FLAGS)
            else:
                sent.extend(map(self.sock.send, (data,), FLAGS))  # `send_and_record`, without that call
        except OSError as error:
            if wire.of_a_signal_handler(error):
                raise
            # If the peer is gone, the end of the process or of the stream is noticed elsewhere.
            sent.append(0 if takes_more_later(error) else len(data))

    # ------------------------------------------------------------ while a process is being spawned
    def begin(self, first: bytes, owners: list[DescriptorOwner]) -> None:
        """Send `first`, with the descriptors, ahead of everything else, although the buffer is corked.

        Raises:
            OSError: one of the owners was closed, or the kernel does not take the descriptors.
        """
        with self._lock:
            files = [descriptor_of(owner) for owner in owners]
            try:
                sent = when_there_is_memory(
                    lambda: socket.send_fds(self.sock, [first[: 1 << 16]], files, socket.MSG_NOSIGNAL)
                )
            except ConnectionError:  # the process has ended, which is noticed elsewhere
                return
            self._backlog[:0] = first[sent:]
            self._ahead = len(first) - sent
            self._uncork()

    def cork(self) -> None:
        """Send nothing from now on, until `uncork`."""
        with self._lock:
            self._corked = 1
            self._await_room()

    def uncork(self) -> None:
        """Send the data that waits, behind the first frame: the process exists."""
        with self._lock:
            self._uncork()

    def _uncork(self) -> None:
        self._corked = max(0, self._corked - 1)
        if self._ahead if self._corked else self._backlog:
            self._flush()

    def take_over(self, older: SendBuffer) -> None:
        """Queue the data of an older buffer, whose process could not be spawned, and close the older socket.

        What other threads write to the older buffer from then on is written to this one.
        """
        with older._lock:
            self._backlog, older._backlog = older._backlog[older._ahead :], bytearray()
            older._newer = self
        older.sock.close()

    # ------------------------------------------------------------ from the reactor's thread
    def resume_reading(self) -> None:
        """Call `on_event` when there is something to read, from now on."""
        with self._lock:
            if self.sock.fileno() >= 0 and not self._reading:
                self._reactor.add_reader(self, self._on_event)
                self._reading = True
                self._await_room()

    def pause_reading(self) -> None:
        """Call `on_event` no longer, until `resume_reading`; the backlog is not sent meanwhile."""
        with self._lock:
            self._reactor.remove_reader(self)
            self._reading = self._awaiting_room = False

    def close(self) -> None:
        """Close the connection; drop the data that was not sent."""
        self._reactor.remove_reader(self)
        with self._lock:
            self.sock.close()
            self._backlog.clear()
            self._closed = True

    def _await_room(self) -> None:
        """Have the reactor call `on_event` when the socket takes more, if anything waits."""
        wanted = bool(self._ahead if self._corked else self._backlog)
        if wanted is not self._awaiting_room and self._reading:
            self._awaiting_room = wanted
            self._reactor.call_soon_threadsafe(lambda: self._set_writer(wanted))

    def _set_writer(self, wanted: bool) -> None:
        try:
            self._reactor.set_writer(self, self._on_event, also=wanted)
        except (KeyError, ValueError):
            return  # closed meanwhile
