"""Sending frames over a socket: whole, in order, and without harm from signal handlers.

`SendBuffer` never blocks: the hub uses it for all its connections. `FrameWriter` blocks: a worker uses it for its
connections to the hub.

Both have to survive signal handlers. Python runs those between two bytecodes of the main thread, so one can interrupt
a write at any point, and it may raise (Ctrl-C, a timeout of the user's) or send something itself. If it raised
between the system call and the line that records how many bytes were sent, these bytes would be sent twice, and all
that follows on the stream would be garbage. So `_send_and_record` does both in one call of C code. A frame that a
handler sends in the middle of another write is queued, and goes out behind that write.
"""

from __future__ import annotations

import contextlib
import itertools
import select
import socket
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from suitkaise.errors import MailboxFull
from suitkaise.messaging import wire
from suitkaise.messaging.codec import DescriptorOwner
from suitkaise.messaging.pieces import Data, Pieces
from suitkaise.platform.reactor import Reactor

__all__ = ["FrameWriter", "Outbox", "SendBuffer"]

BACKLOG = 64 << 20
"""Bytes that may wait to be sent over one connection."""

_STEP = 1 << 20
"""Bytes that are offered to a socket at once."""

_SMALL = 1 << 15
"""Bytes up to which a payload is copied into one piece with its header."""

_MOST_TOGETHER = 512
"""Small frames that are sent with one system call."""

_FLAGS = (wire.MSG_NOSIGNAL,)
_NO_ANCILLARY_DATA = ((),)
_NOT_WAITING = (wire.MSG_NOSIGNAL | socket.MSG_DONTWAIT,)


def _send_and_record(sent: list[int], send: Callable[..., int], data: Any, *options: tuple[Any, ...]) -> None:
    """Call `send(data, *options)` and append the result to `sent`; no signal handler can run between the two."""
    sent.extend(map(send, (data,), *options))


class SendBuffer:
    """Sends to one peer without blocking; what the socket does not take is queued in order.

    Any thread of the hub may write to a worker: a supervisor, the I/O thread, the user's main thread, a signal handler
    in it. With a blocking socket, a worker that does not read (a long loop, a SIGSTOP) would hold up the writer; were
    that the I/O thread, no exit in any tree would be noticed any more. So the socket does not block, and the reactor
    sends the rest when the socket takes more. Without a limit, a worker that never reads would fill the hub's memory;
    so `write` refuses what would exceed `BACKLOG`, and does that before it sends a first byte: after a part of a
    frame, the reader could make nothing of the rest of the stream.

    A buffer is corked until the process of the worker exists. Until then only the first frame goes into the socket,
    and the rest waits here: if the process cannot be spawned, the buffer of the next one takes it over.

    Args:
        reactor: the program's I/O thread.
        sock: a connected socket in non-blocking mode; the buffer closes it.
        path: the receiver's name, for errors.
        on_event: called in the reactor's thread when there is something to read, or room to write; calls `flush`.
        corked: whether to wait for `uncork`.
    """

    def __init__(
        self, reactor: Reactor, sock: socket.socket, path: str, on_event: Callable[[], None], *, corked: bool = True
    ) -> None:
        self.sock = sock
        self._reactor = reactor
        self._path = path
        self._on_event = on_event
        self._lock = threading.RLock()  # a signal handler may write, too
        self._fresh: deque[bytes | Pieces] = deque()
        self._writing = False
        self._backlog = bytearray()
        self._corked = corked
        self._ahead = 0  # how many bytes may be sent although the buffer is corked
        self._reading = self._awaiting_room = False
        self._closed = False

    def fileno(self) -> int:
        """Return the socket's descriptor."""
        return self.sock.fileno()

    # ------------------------------------------------------------ from any thread
    def write(self, data: bytes | Pieces, *, force: bool = False) -> None:
        """Send `data`, or queue a copy of what the socket does not take. After `close`, do nothing.

        Raises:
            MailboxFull: more than `BACKLOG` bytes would wait; nothing of `data` is sent. Not with `force`.
        """
        with self._lock:
            if self._closed:
                return
            too_much = self._backlog and len(self._backlog) + len(data) > BACKLOG  # a single frame may have any size
            if too_much and not force:
                raise MailboxFull(
                    f"{len(self._backlog)} bytes already wait to be read by {self._path!r}", path=self._path
                )
            self._fresh.append(data)
            if self._writing:  # this is a signal handler; the interrupted call sends the data
                return
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
            try:
                sent = socket.send_fds(self.sock, [data], [descriptor], wire.MSG_NOSIGNAL)
            except OSError:
                return False
            if sent < len(data):
                self._queue(data, sent)
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
        with memoryview(self._backlog) as view, view[:end] as first:
            self._try(first, sent)
        del self._backlog[: sent[0]]
        self._ahead = max(0, self._ahead - sent[0])
        self._await_room()

    def _try(self, data: bytes | memoryview | Pieces, sent: list[int]) -> None:
        try:
            if isinstance(data, Pieces):
                _send_and_record(sent, self.sock.sendmsg, data.parts, _NO_ANCILLARY_DATA, _FLAGS)
            else:
                _send_and_record(sent, self.sock.send, data, _FLAGS)
        except BlockingIOError:
            sent.append(0)
        except OSError:
            sent.append(len(data))  # the peer is gone: the end of the process or of the stream is noticed elsewhere

    # ------------------------------------------------------------ while a process is being spawned
    def begin(self, first: bytes, owners: list[DescriptorOwner]) -> None:
        """Send `first`, with the descriptors, ahead of everything else, although the buffer is corked."""
        with self._lock:
            files = [owner.fileno() for owner in owners]
            sent = socket.send_fds(self.sock, [first[: 1 << 16]], files, socket.MSG_NOSIGNAL)
            self._backlog[:0] = first[sent:]
            self._ahead = len(first) - sent
            if self._ahead:
                self._flush()

    def uncork(self) -> None:
        """Send the data that waits: the process exists."""
        with self._lock:
            self._corked = False
            if self._backlog:
                self._flush()

    def take_over(self, older: SendBuffer) -> None:
        """Queue the data of an older buffer, whose process could not be spawned, and close the older socket."""
        with older._lock:
            self._backlog, older._backlog = older._backlog[older._ahead :], bytearray()
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
            self._corked = self._closed = True

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


class FrameWriter:
    """Writes frames one after the other to a blocking socket. No frame is ever cut by a signal handler's exception.

    Args:
        sock: the socket.
        patience: seconds after which a peer that reads nothing is given up; None: wait for ever. It is not left to the
            kernel (`SO_SNDTIMEO`), whose time begins anew after each signal handler.
    """

    def __init__(self, sock: socket.socket, patience: float | None = None) -> None:
        self._sock = sock
        self._patience = patience
        self._flags = _FLAGS if patience is None else _NOT_WAITING
        self._lock = threading.RLock()
        self._frames: deque[_PendingFrame] = deque()
        self._writer: int | None = None

    @property
    def interrupted(self) -> bool:
        """Whether this thread is inside of `write`: the caller is a signal handler, and its frame goes out later."""
        return self._writer == threading.get_ident()

    def write(self, header: wire.Header, payload: Data | Pieces = b"", *, long_header: bool = False) -> None:
        """Write one frame. In a signal handler that has interrupted `write`, queue it for the interrupted call.

        An exception of a signal handler is raised. The rest of a frame that was begun goes out ahead of the next one;
        a frame that was not begun is dropped.

        Raises:
            NotSerializable: it is over the limits.
            OSError: as the socket raises it; TimeoutError: the peer has read nothing for as long as `patience`.
        """
        frame = None
        with self._lock:
            if not self._frames and self._writer is None and len(payload) <= _SMALL:
                frame = self._write_small(wire.encode(header, payload, long_header=long_header))
                if not self._frames:
                    return
            else:
                frame = _PendingFrame(wire.parts(header, payload, long_header=long_header))
                self._frames.append(frame)
                if self._writer is not None:  # it is this thread, since it has the lock
                    return
            self._writer = threading.get_ident()
            try:
                while self._frames:
                    try:
                        self._frames[0].write_to(self._sock, self._flags)
                        self._frames.popleft()
                    except BlockingIOError:
                        self._await_room()
            except OSError:
                self._frames.clear()
                raise
            except BaseException:
                if frame is not None and any(frame.sent):
                    frame.keep()
                elif frame is not None:
                    with contextlib.suppress(ValueError):
                        self._frames.remove(frame)
                raise
            finally:
                self._writer = None

    def _write_small(self, data: bytes) -> _PendingFrame | None:
        """Write a frame where none waits, at half the cost. What the socket does not take waits after that."""
        sent: list[int] = []
        frame = None
        self._writer = threading.get_ident()
        try:
            _send_and_record(sent, self._sock.send, data, self._flags)
        except BlockingIOError:
            sent.append(0)
        finally:
            self._writer = None
            if sent and sent[0] < len(data):
                frame = _PendingFrame((data,))
                frame.sent += sent
                self._frames.appendleft(frame)  # ahead of those of a signal handler
        return frame

    def _await_room(self) -> None:
        assert self._patience is not None
        poll = select.poll()
        poll.register(self._sock, select.POLLOUT)
        if not poll.poll(self._patience * 1000):
            raise TimeoutError(f"the peer has read nothing for {self._patience:g} s")

    @property
    def waiting(self) -> bool:
        """Whether a frame of `offer` was not sent yet, or not as a whole."""
        return bool(self._frames)

    def offer(self, header: wire.Header, *, long_header: bool = False) -> None:
        """Write one frame without waiting; what the socket does not take goes out by `flush`, or by the next `write`.

        Not for signal handlers. Raises what `write` raises.
        """
        with self._lock:
            self._frames.append(_PendingFrame(wire.parts(header, long_header=long_header)))
            self.flush()

    def flush(self) -> None:
        """Send frames that wait, as much of them as the socket takes."""
        with self._lock:
            self._writer = threading.get_ident()
            try:
                while self._frames:
                    self._frames[0].write_to(self._sock, _NOT_WAITING)
                    self._frames.popleft()
            except BlockingIOError:
                return
            except OSError:
                self._frames.clear()
                raise
            finally:
                self._writer = None


class Outbox:
    """Sends frames over a socket without waiting; what the socket does not take goes out by `flush`.

    What was not sent as a whole when the peer ended can be taken back. Not thread-safe, but for signal handlers: a
    frame that a handler puts in the midst of another one goes out behind that one.
    """

    def __init__(self, sock: socket.socket, path: str) -> None:
        self.ended: bool = False
        self._sock = sock
        self._send = sock.send
        self._path = path
        self.waiting: deque[tuple[_PendingFrame, wire.Header, bytes | Pieces]] = deque()
        """The frames that were not sent yet, or not as a whole."""
        self._bytes = 0
        self._writing = False

    def put(self, header: wire.Header, payload: bytes | Pieces, *, copies: bool = True) -> bool:
        """Send a frame, or queue it; return False, and do not keep it, if the peer has ended without it.

        A payload in pieces that was not sent as a whole is copied, as its memory may change; with `copies=False` the
        caller calls `copy` before that.

        Raises:
            MailboxFull: more than `BACKLOG` bytes would wait.
            NotSerializable: the frame is over the limits.
        """
        if self.waiting or self._writing or len(payload) > _SMALL:
            return self._queue(header, payload, copies=copies)
        data = wire.encode(header, payload)
        sent: list[int] = []
        kept = True
        self._writing = True
        try:
            sent.extend(map(self._send, (data,), _NOT_WAITING))  # `_send_and_record`, without that call
        except BlockingIOError:
            pass
        except OSError:
            self.ended, kept = True, False
        except BaseException:  # of a signal handler
            kept = bool(sent)
            raise
        finally:
            self._writing = False
            if kept and sum(sent) < len(data):
                frame = _PendingFrame((data,))
                frame.sent += sent
                self.waiting.appendleft((frame, header, payload))  # ahead of those of a signal handler
                self._bytes += len(payload)
        if self.waiting:
            self.flush()
        return kept

    def _queue(self, header: wire.Header, payload: bytes | Pieces, *, copies: bool) -> bool:
        """Do the same with a large frame, or where others wait or are being sent, at twice the cost."""
        if self.waiting and self._bytes + len(payload) > BACKLOG:  # a single frame may have any size
            raise MailboxFull(f"{self._bytes} bytes already wait to be read by {self._path!r}", path=self._path)
        goes_behind = bool(self.waiting)
        if goes_behind and copies and isinstance(payload, Pieces):
            payload = bytes(payload)
        frame = _PendingFrame(wire.parts(header, payload))
        entry = frame, header, payload
        self.waiting.append(entry)
        self._bytes += len(payload)
        if goes_behind or self._writing:  # the socket takes no more; or a signal handler has interrupted a call
            return True
        try:
            self.flush()
        except BaseException:
            if not frame.sent:
                self._remove(entry)
            self.copy()
            raise
        if self.ended and self._remove(entry):
            return False
        if copies:
            self.copy()
        return True

    def copy(self) -> None:
        """Copy what waits in pieces."""
        for index, (frame, header, payload) in enumerate(self.waiting):
            if isinstance(payload, Pieces):
                frame.keep()
                self.waiting[index] = frame, header, bytes(payload)

    def _remove(self, entry: tuple[_PendingFrame, wire.Header, bytes | Pieces]) -> bool:
        """Keep a frame no longer; return False if it was sent as a whole."""
        try:
            self.waiting.remove(entry)
        except ValueError:
            return False
        self._bytes -= len(entry[2])
        return True

    def flush(self) -> None:
        """Send what waits, as much of it as the socket takes."""
        self._writing = True
        try:
            while self.waiting and not self.ended:
                first = self.waiting[0][0]
                if first.sent or first.size > _SMALL or len(self.waiting) == 1:
                    first.write_to(self._sock, _NOT_WAITING)
                    self._bytes -= len(self.waiting.popleft()[2])
                else:
                    self._send_several()
        except BlockingIOError:
            return
        except OSError:
            self.ended = True
        finally:
            self._writing = False

    def _send_several(self) -> None:
        """Send the first of many small frames together."""
        frames: list[_PendingFrame] = []
        size = 0
        for frame, _, _ in itertools.islice(self.waiting, _MOST_TOGETHER):
            if frame.size > _SMALL or size > _SMALL:
                break
            frames.append(frame)
            size += frame.size
        sent: list[int] = []
        try:
            _send_and_record(sent, self._sock.send, b"".join(frame.data for frame in frames), _NOT_WAITING)
        finally:
            count = sum(sent)
            for frame in frames:
                if count < frame.size:
                    if count:
                        frame.sent.append(count)
                    break
                count -= frame.size
                self._bytes -= len(self.waiting.popleft()[2])

    def take_back(self) -> list[tuple[wire.Header, bytes]]:
        """Remove and return the headers and payloads of all frames that were not sent as a whole."""
        frames = [(header, bytes(payload)) for _, header, payload in self.waiting]
        self.waiting.clear()
        return frames


class _PendingFrame:
    """One frame, and how many bytes of it were sent."""

    __slots__ = ("_parts", "sent", "size")

    def __init__(self, parts: tuple[Data, ...]) -> None:
        self.sent: list[int] = []
        self._parts = parts
        self.size: int = sum(map(len, parts))

    @property
    def data(self) -> bytes:
        """The whole frame."""
        return b"".join(self._parts)

    def write_to(self, sock: socket.socket, flags: tuple[int] = _FLAGS) -> None:
        """Send the rest of the frame."""
        while (done := sum(self.sent)) < self.size:
            _send_and_record(self.sent, sock.sendmsg, self._rest(done), _NO_ANCILLARY_DATA, flags)

    def keep(self) -> None:
        """Copy the memory that the frame is sent from."""
        self._parts = (b"".join(self._parts),)

    def _rest(self, done: int) -> tuple[Data, ...]:
        if not done:
            return self._parts
        rest = []
        for part in self._parts:
            rest.append(memoryview(part)[done:])
            done = max(0, done - len(part))
        return tuple(rest)
