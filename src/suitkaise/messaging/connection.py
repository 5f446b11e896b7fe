"""Sending frames over a socket: whole, in order, and without harm from signal handlers.

`FrameWriter` blocks: a worker uses it for its connections to the hub. `Outbox` does not: it sends over a direct
connection from worker to worker. The hub's own, for all its connections, is `send_buffer.SendBuffer`.

All of them have to survive signal handlers. Python runs those between two bytecodes of the main thread, so one can
interrupt a write at any point, and it may raise (Ctrl-C, a timeout of the user's) or send something itself. If it
raised between the system call and the line that records how many bytes were sent, these bytes would be sent twice,
and all that follows on the stream would be garbage. So `send_and_record` does both in one call of C code. A frame
that a handler sends in the middle of another write is queued, and goes out behind that write.
"""

from __future__ import annotations

import contextlib
import errno
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from suitkaise.errors import MailboxFull
from suitkaise.messaging import wire
from suitkaise.messaging.pieces import Data, Pieces
from suitkaise.messaging.protocol import DirectMessage, decode_several, encode_several
from suitkaise.platform.board import SenderMarks
from suitkaise.platform.locks import RLock

__all__ = [
    "BACKLOG",
    "FLAGS",
    "NO_ANCILLARY_DATA",
    "FrameWriter",
    "Outbox",
    "send_and_record",
    "takes_more_later",
    "when_there_is_memory",
]

T = TypeVar("T")

BACKLOG = 64 << 20
"""Bytes that may wait to be sent over one connection."""

_SMALL = 1 << 15
"""Bytes up to which a payload is copied into one piece with its header."""

_MOST_TOGETHER = 512
"""Small frames that are sent with one system call."""

FLAGS: tuple[int] = (wire.MSG_NOSIGNAL,)
NO_ANCILLARY_DATA: tuple[tuple[()]] = ((),)
_NOT_WAITING = (wire.MSG_NOSIGNAL | socket.MSG_DONTWAIT,)

_TOLD = DirectMessage("message", None)
_SEVERAL = DirectMessage("several", None)

_NO_MEMORY = frozenset((errno.ENOBUFS, errno.ENOMEM, errno.ETOOMANYREFS))
"""Errors of a socket whose peer is there: the kernel has no memory for what is sent, or too many descriptors wait."""

_MEMORY_PAUSE = 0.001
"""Seconds until the next attempt after such an error."""

_MEMORY_PATIENCE = 2.0
"""Seconds after which `when_there_is_memory` raises such an error: its thread may have to serve others."""


def send_and_record(sent: list[int], send: Callable[..., int], data: Any, *options: tuple[Any, ...]) -> None:
    """Call `send(data, *options)` and append the result to `sent`; no signal handler can run between the two."""
    sent.extend(map(send, (data,), *options))


def takes_more_later(error: OSError) -> bool:
    """Return whether a socket that has raised this has taken nothing, and will take it later; else the peer is gone.

    Where the kernel has no memory, the return is a moment later: such a socket counts as one that has room, and nothing
    tells when there is memory, so a thread that waits for room would try again and again without a pause.
    """
    if error.errno in _NO_MEMORY:
        time.sleep(_MEMORY_PAUSE)
        return True
    return isinstance(error, BlockingIOError)


def when_there_is_memory(send: Callable[[], T]) -> T:
    """Return `send()`, which is called again, for 2 s at most, while the kernel has no memory for what it sends."""
    until = time.monotonic() + _MEMORY_PATIENCE
    while True:
        try:
            return send()
        except OSError as error:
            if isinstance(error, BlockingIOError) or time.monotonic() >= until or not takes_more_later(error):
                raise


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
        self._flags = FLAGS if patience is None else _NOT_WAITING
        self._lock = RLock()
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
                    except OSError as error:
                        if wire.of_a_signal_handler(error) or not takes_more_later(error):
                            raise
                        if isinstance(error, BlockingIOError):
                            self._await_room()
            except BaseException as error:
                if isinstance(error, OSError) and not wire.of_a_signal_handler(error):
                    self._frames.clear()
                    raise
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
            send_and_record(sent, self._sock.send, data, self._flags)
        except OSError as error:
            if wire.of_a_signal_handler(error) or not takes_more_later(error):
                raise
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
            raise TimeoutError(errno.ETIMEDOUT, f"the peer has read nothing for {self._patience:g} s")

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
            except OSError as error:
                if wire.of_a_signal_handler(error):
                    raise
                if not takes_more_later(error):
                    self._frames.clear()
                    raise
            finally:
                self._writer = None


class Outbox:
    """Sends frames over a socket without waiting; what the socket does not take goes out by `flush`.

    Small messages can be held back, to be sent as one frame; any other frame goes out behind them. What was not sent
    as a whole when the peer ended can be taken back. Not thread-safe, but for signal handlers and `__del__`: a frame
    that one of them puts in the midst of another one goes out behind that one. So nothing iterates over `waiting`, but
    over a list of it: while Python 3.11 makes a tuple, it may collect garbage.

    Args:
        sock: the socket.
        path: that of the receiver, which errors tell.
        marks: where the messages are counted that were sent as a whole, see `ConnectionCounts`.
        serial: the number of the receiver. Once the board names another one, the peer has ended, whatever its socket
            takes, and the memory of its counts may be that of others.
    """

    def __init__(self, sock: socket.socket, path: str, marks: SenderMarks, serial: int) -> None:
        self.ended: bool = False
        self.use(marks)
        self._serial = serial
        self._sent = 0  # twice the number of messages
        self._sock = sock
        self._send = sock.send
        self._path = path
        self.waiting: deque[tuple[_PendingFrame, wire.Header, bytes | Pieces]] = deque()
        """The frames that were not sent yet, or not as a whole."""
        self.held: list[bytes] = []
        """The payloads of told messages that are held back, behind what waits: append to it; call `send_held` later."""
        self._bytes = 0
        self._writing = False

    def use(self, marks: SenderMarks) -> None:
        """Use these from now on."""
        self.counted: memoryview[int] = marks.sent
        self._incarnation = marks.incarnation

    def put(self, header: wire.Header, payload: bytes | Pieces, *, copies: bool = True) -> bool:
        """Send a frame, or queue it; return False, and do not keep it, if the peer has ended without it.

        A payload in pieces that was not sent as a whole is copied, as its memory may change; with `copies=False` the
        caller calls `copy` before that.

        Raises:
            MailboxFull: more than `BACKLOG` bytes would wait.
            NotSerializable: the frame is over the limits.
        """
        if self.held:
            self.send_held()
        is_small = len(payload) <= _SMALL
        data = wire.encode(header, payload) if is_small else b""
        sent: list[int] = []
        kept = True
        if self.waiting or self._writing or not is_small:
            return self._queue(header, payload, copies=copies)
        if self._incarnation[0] != self._serial:
            self.ended = True
            return False
        self._writing = True  # without a call since that look, so no signal handler has come in between
        try:
            self.counted[0] = self._sent + 1
            sent.extend(map(self._send, (data,), _NOT_WAITING))  # `send_and_record`, without that call
        except OSError as error:
            if wire.of_a_signal_handler(error):
                kept = bool(sent)
                raise
            if not takes_more_later(error):
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
            elif kept:
                self._sent += 2
            self.counted[0] = self._sent
        if self.waiting:
            self.flush()
        return kept

    @property
    def unsent(self) -> int:
        """How many messages were not sent yet, or not as a whole."""
        return sum(frame.messages for frame, _, _ in list(self.waiting)) + len(self.held)

    def send_held(self) -> None:
        """Send the messages that are held back, as one frame; what the socket does not take of it waits."""
        if self._writing:  # a signal handler has interrupted a call, and what it holds back is sent later
            return
        ahead = len(self.waiting)
        self._writing = True  # from here on a signal handler sends nothing of it
        count = 0
        waits: list[None] = []
        try:
            count = len(self.held)
            if count:
                payload = encode_several(self.held[:count])
                entry = _PendingFrame((wire.encode(_SEVERAL, payload),), count), _SEVERAL, payload
                waits.extend(map(self.waiting.insert, (ahead,), (entry,)))  # ahead of those of a signal handler
        finally:
            if waits:  # whatever a signal handler has raised behind that
                del self.held[:count]
                self._bytes += len(payload)
            self._writing = False
        self.flush()

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
        for index, (frame, header, payload) in enumerate(list(self.waiting)):
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
        if self._incarnation[0] != self._serial:
            self.ended = True
            return
        self._writing = True
        try:
            self.counted[0] = self._sent + 1
            while self.waiting and not self.ended:
                first = self.waiting[0][0]
                if first.sent or first.size > _SMALL or len(self.waiting) == 1:
                    first.write_to(self._sock, _NOT_WAITING)
                    self._remove_first()
                else:
                    self._send_several()
        except OSError as error:
            if wire.of_a_signal_handler(error):
                raise
            self.ended = not takes_more_later(error)
        finally:
            self.counted[0] = self._sent
            self._writing = False

    def _send_several(self) -> None:
        """Send the first of many small frames together."""
        frames: list[_PendingFrame] = []
        size = 0
        for index in range(min(len(self.waiting), _MOST_TOGETHER)):
            frame = self.waiting[index][0]
            if frame.size > _SMALL or size > _SMALL:
                break
            frames.append(frame)
            size += frame.size
        sent: list[int] = []
        try:
            send_and_record(sent, self._sock.send, b"".join(frame.data for frame in frames), _NOT_WAITING)
        finally:
            count = sum(sent)
            for frame in frames:
                if count < frame.size:
                    if count:
                        frame.sent.append(count)
                    break
                count -= frame.size
                self._remove_first()

    def _remove_first(self) -> None:
        """Keep the first frame that waits no longer: it was sent as a whole."""
        frame, _, payload = self.waiting.popleft()
        self._bytes -= len(payload)
        self._sent += 2 * frame.messages

    def take_back(self) -> list[tuple[wire.Header, bytes]]:
        """Remove and return the headers and payloads of all messages that were not sent as a whole."""
        unsent: list[tuple[wire.Header, bytes]] = []
        while self.waiting:
            _, header, payload = self.waiting.popleft()
            unsent += _messages_in(header, payload)
        unsent += [(_TOLD, payload) for payload in self.held]
        self.held.clear()
        return unsent


def _messages_in(header: wire.Header, payload: bytes | Pieces) -> list[tuple[wire.Header, bytes]]:
    """Return the header and payload of each message in a frame."""
    data = bytes(payload)
    return [(_TOLD, one) for one in decode_several(data)] if header is _SEVERAL else [(header, data)]


class _PendingFrame:
    """One frame of so many messages, and how many bytes of it were sent."""

    __slots__ = ("_parts", "messages", "sent", "size")

    def __init__(self, parts: tuple[Data, ...], messages: int = 1) -> None:
        self.messages = messages
        self.sent: list[int] = []
        self._parts = parts
        self.size: int = sum(map(len, parts))

    @property
    def data(self) -> bytes:
        """The whole frame."""
        return b"".join(self._parts)

    def write_to(self, sock: socket.socket, flags: tuple[int] = FLAGS) -> None:
        """Send the rest of the frame."""
        while (done := sum(self.sent)) < self.size:
            send_and_record(self.sent, sock.sendmsg, self._rest(done), NO_ANCILLARY_DATA, flags)

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
