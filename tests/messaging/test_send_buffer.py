"""The hub's sending to one peer: never blocking, in order, with a bounded backlog."""

from __future__ import annotations

import errno
import multiprocessing
import select
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from suitkaise.errors import MailboxFull
from suitkaise.messaging import send_buffer
from suitkaise.messaging.send_buffer import SendBuffer
from suitkaise.platform.reactor import Reactor
from tests.messaging.frames import WithoutMemory
from tests.support import eventually, in_background

BIG = bytes(range(256)) * (1 << 14)  # 4 MiB: far more than a socket holds


class Peer:
    """A send buffer, and the other end of its socket."""

    def __init__(self, reactor: Reactor, *, corked: bool = False) -> None:
        ours, self.sock = socket.socketpair()
        ours.setblocking(False)
        self.sock.settimeout(10)
        self.buffer = SendBuffer(reactor, ours, "tree/one", self.on_event, corked=corked)

    def on_event(self) -> None:
        self.buffer.flush()

    def read(self, count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            data += self.sock.recv(count - len(data))
        return bytes(data)

    def has_nothing_to_read(self) -> bool:
        return not select.select([self.sock], [], [], 0)[0]


@pytest.fixture
def reactor() -> Iterator[Reactor]:
    reactor = Reactor()
    yield reactor
    reactor.close()


@pytest.fixture
def peer(reactor: Reactor) -> Iterator[Peer]:
    peer = Peer(reactor)
    yield peer
    reactor.close()
    peer.buffer.close()
    peer.sock.close()


def test_data_that_the_socket_does_not_take_is_sent_by_the_reactor_in_order(reactor: Reactor, peer: Peer) -> None:
    reactor.call_soon_threadsafe(peer.buffer.resume_reading)
    for _ in range(3):
        peer.buffer.write(BIG)
    peer.buffer.write(b"end")
    assert peer.read(3 * len(BIG) + 3) == 3 * BIG + b"end"
    assert peer.has_nothing_to_read()


def test_a_backlog_over_the_limit_is_refused_as_a_whole(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(send_buffer, "BACKLOG", 1000)
    peer.buffer.write(BIG)  # a single one may have any size
    with pytest.raises(MailboxFull, match="bytes already wait to be read by 'tree/one'"):
        peer.buffer.write(b"refused")
    peer.buffer.write(b"forced", force=True)
    received = in_background(lambda: peer.read(len(BIG) + 6))
    eventually(lambda: not peer.buffer.flush())
    assert received.result(10) == BIG + b"forced"


def test_a_corked_buffer_sends_its_first_frame_only(reactor: Reactor) -> None:
    peer = Peer(reactor, corked=True)
    peer.buffer.write(b"second")
    peer.buffer.begin(b"first ", [])
    assert peer.read(6) == b"first "
    assert peer.has_nothing_to_read()
    peer.buffer.uncork()
    assert peer.read(6) == b"second"
    peer.buffer.close()
    peer.sock.close()


def test_the_first_frame_goes_ahead_of_what_waits_also_if_the_process_is_there_before_it(reactor: Reactor) -> None:
    peer = Peer(reactor, corked=True)
    peer.buffer.write(b"second")
    peer.buffer.uncork()
    assert peer.has_nothing_to_read()
    peer.buffer.begin(b"first ", [])
    assert peer.read(12) == b"first second"
    peer.buffer.close()
    peer.sock.close()


def test_the_end_of_the_process_before_its_first_frame_is_no_error(reactor: Reactor) -> None:
    peer = Peer(reactor, corked=True)
    peer.sock.close()
    peer.buffer.begin(b"first ", [])
    peer.buffer.uncork()
    peer.buffer.write(b"second")
    peer.buffer.close()


@pytest.mark.parametrize("pair", [socket.socketpair, multiprocessing.Pipe])
def test_a_descriptor_that_was_closed_meanwhile_is_told(reactor: Reactor, pair: Any) -> None:
    peer = Peer(reactor, corked=True)
    for one in (ends := pair()):
        one.close()
    with pytest.raises(OSError, match="was closed; an argument must stay open as long as its worker may be started"):
        peer.buffer.begin(b"first ", list(ends))
    peer.buffer.close()
    peer.sock.close()


def test_a_buffer_takes_over_the_backlog_of_one_that_was_never_uncorked(reactor: Reactor) -> None:
    older, newer = Peer(reactor, corked=True), Peer(reactor, corked=True)
    older.buffer.begin(b"its own", [])
    older.buffer.write(b"message")
    newer.buffer.take_over(older.buffer)
    newer.buffer.begin(b"first ", [])
    newer.buffer.uncork()
    assert newer.read(13) == b"first message"
    newer.buffer.close()
    for one in (older, newer):
        one.sock.close()


def test_what_is_written_to_a_buffer_that_was_taken_over_goes_to_the_newer_one(reactor: Reactor) -> None:
    older, newer = Peer(reactor, corked=True), Peer(reactor, corked=True)
    older.buffer.write(b"one, ")
    newer.buffer.take_over(older.buffer)
    older.buffer.write(b"two, ")  # by a thread that has got the older one just before
    newer.buffer.write(b"three")
    newer.buffer.begin(b"first: ", [])
    newer.buffer.uncork()
    assert newer.read(22) == b"first: one, two, three"
    newer.buffer.close()
    for one in (older, newer):
        one.sock.close()


def test_after_close_writing_does_nothing(peer: Peer) -> None:
    peer.buffer.close()
    for _ in range(3):
        peer.buffer.write(BIG)
    assert not peer.buffer.flush()
    assert peer.sock.recv(1) == b""


def test_a_signal_handler_that_interrupts_a_write_writes_behind_it(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted:
        """A socket on which a signal handler writes before each send."""

        def __init__(self, sock: socket.socket) -> None:
            self.sock = sock

        def send(self, data: bytes, flags: int) -> int:
            if data == b"first ":
                peer.buffer.write(b"second ")
            return self.sock.send(data, flags)

    sock = peer.buffer.sock
    peer.buffer.sock = Interrupted(sock)  # type: ignore[assignment]
    peer.buffer.write(b"first ")
    peer.buffer.sock = sock
    peer.buffer.write(b"third")
    assert peer.read(18) == b"first second third"


def test_what_a_destructor_writes_while_the_backlog_is_sent_goes_out_behind_it(peer: Peer) -> None:
    class Interrupted:
        """A socket on which a `__del__` writes before the send: the garbage collector runs it in any thread."""

        def send(self, data: memoryview, flags: int) -> int:
            peer.buffer.write(b"second")
            return sock.send(data, flags)

    sock = peer.buffer.sock
    peer.buffer.cork()
    peer.buffer.write(b"first ")
    peer.buffer.sock = Interrupted()  # type: ignore[assignment]
    peer.buffer.uncork()
    peer.buffer.sock = sock
    assert peer.read(12) == b"first second"


def test_what_a_destructor_writes_while_a_descriptor_is_sent_goes_out_behind_it(
    peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def send_a_part(sock: socket.socket, data: list[bytes], descriptors: list[int], flags: int) -> int:
        peer.buffer.write(b"third")
        return sock.send(data[0][:6])

    monkeypatch.setattr(socket, "send_fds", send_a_part)
    assert peer.buffer.pass_on(b"first second ", 0)
    peer.buffer.flush()
    assert peer.read(18) == b"first second third"


@pytest.mark.parametrize("error", [errno.ENOBUFS, errno.ENOMEM])
def test_what_the_kernel_has_no_memory_for_is_sent_in_order_when_there_is_some(
    reactor: Reactor, peer: Peer, error: int
) -> None:
    peer.buffer.resume_reading()
    peer.buffer.sock = WithoutMemory(peer.buffer.sock, error)  # type: ignore[assignment]
    peer.buffer.write(b"first ")
    peer.buffer.write(b"second")
    assert peer.read(12) == b"first second"


def test_a_first_frame_for_which_the_kernel_has_no_memory_is_sent_when_there_is_some(reactor: Reactor) -> None:
    peer = Peer(reactor, corked=True)
    peer.buffer.sock = WithoutMemory(peer.buffer.sock, errno.ENOBUFS)  # type: ignore[assignment]
    peer.buffer.begin(b"first", [])
    assert peer.read(5) == b"first"
    peer.buffer.close()
    peer.sock.close()
