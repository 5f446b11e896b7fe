"""Sending frames: whole and in order, whatever a signal handler does meanwhile."""

from __future__ import annotations

import errno
import select
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from suitkaise.errors import NotSerializable
from suitkaise.messaging import wire
from suitkaise.messaging.connection import FrameWriter, Outbox, when_there_is_memory
from suitkaise.platform.board import SenderMarks
from tests.messaging.frames import FrameReader, WithoutMemory
from tests.support import collected_at_each_allocation, in_background

BIG = bytes(range(256)) * (1 << 14)  # 4 MiB: far more than a socket holds


class Stop(Exception):
    """What a signal handler raises."""


@pytest.fixture
def ends() -> Iterator[tuple[FrameWriter, FrameReader]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield FrameWriter(ours), FrameReader(theirs)


@pytest.fixture
def handle() -> Iterator[Callable[[Callable[[], object]], None]]:
    """Return a function that installs a signal handler; it runs once for each `interrupt`."""
    before = signal.getsignal(signal.SIGUSR1)

    def install(what: Callable[[], object]) -> None:
        def on_signal(number: int, frame: Any) -> None:
            if _awaited.is_set():
                _awaited.clear()
                what()

        signal.signal(signal.SIGUSR1, on_signal)

    yield install
    signal.signal(signal.SIGUSR1, before)


_awaited = threading.Event()


def interrupt(read: FrameReader) -> None:
    """Send the signal when the first bytes of a frame have arrived, until it was handled."""
    global _awaited
    awaited = _awaited = threading.Event()
    awaited.set()
    main = threading.main_thread().ident
    assert main is not None

    def wait_and_kill() -> None:
        read.socket.recv(1, socket.MSG_PEEK)
        while awaited.is_set():
            signal.pthread_kill(main, signal.SIGUSR1)
            never.wait(0.05)

    never = threading.Event()
    in_background(wait_and_kill)


def test_a_signal_handler_may_write_while_its_thread_writes(ends: Any, handle: Any) -> None:
    writer, reader = ends
    received: list[Any] = []

    def send_and_read() -> None:
        assert writer.interrupted
        writer.write(("from the handler",))
        received.append(in_background(lambda: [reader.receive(timeout=10) for _ in range(3)]))

    handle(send_and_read)
    interrupt(reader)
    writer.write(("big",), BIG)
    assert not writer.interrupted
    writer.write(("after",))
    assert received[0].result(10) == [(("big",), BIG), (("from the handler",), b""), (("after",), b"")]


def test_an_exception_of_a_signal_handler_cuts_no_frame(ends: Any, handle: Any) -> None:
    writer, reader = ends

    def stop() -> None:
        raise Stop

    handle(stop)
    for _ in range(3):
        interrupt(reader)
        with pytest.raises(Stop):
            writer.write(("big",), BIG)
        received = in_background(lambda: [reader.receive(timeout=10) for _ in range(2)])
        writer.write(("after",))
        assert received.result(10) == [(("big",), BIG), (("after",), b"")]


def test_a_frame_that_was_not_begun_when_a_signal_handler_raised_is_dropped(ends: Any, handle: Any) -> None:
    writer, reader = ends

    def stop() -> None:
        raise Stop

    handle(stop)
    interrupt(reader)
    with pytest.raises(Stop):
        writer.write(("big",), BIG)
    with pytest.raises(Stop):
        interrupt(reader)  # perhaps at once: there is something to read
        writer.write(("never",))
    received = in_background(lambda: [reader.receive(timeout=10) for _ in range(2)])
    writer.write(("after",))
    assert received.result(10) == [(("big",), BIG), (("after",), b"")]


def test_exceptions_at_any_moment_cut_no_frame(ends: Any, handle: Any) -> None:
    writer, reader = ends
    main = threading.main_thread().ident
    assert main is not None
    over = threading.Event()
    sent: list[int] = []

    def stop() -> None:
        raise Stop

    def disturb() -> None:
        while not over.wait(0.0005):
            signal.pthread_kill(main, signal.SIGUSR1)

    def read() -> list[int]:
        numbers: list[int] = []
        while True:
            (number,), payload = reader.receive(timeout=20)
            if number == -1:
                return numbers
            assert payload == BIG[:300_000]
            numbers.append(number)

    handle(stop)
    reading = in_background(read)
    disturbing = in_background(disturb)
    try:
        for number in range(300):
            try:
                _awaited.set()
                writer.write((number,), BIG[:300_000])
                _awaited.clear()
            except Stop:
                continue
            else:
                sent.append(number)
    finally:
        over.set()
        disturbing.result(10)
    writer.write((-1,))
    numbers = reading.result(20)
    assert numbers == sorted(set(numbers))
    assert set(sent) <= set(numbers)


def test_a_frame_that_is_too_long_is_refused_and_harms_no_other(ends: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    writer, reader = ends
    monkeypatch.setattr(wire, "MAX_PAYLOAD", 100)
    monkeypatch.setattr(wire, "MAX_HEADER", 50)
    with pytest.raises(NotSerializable, match=r"a message has 101 bytes, once encoded; at most 100 can be sent"):
        writer.write(("x",), bytes(101))
    with pytest.raises(NotSerializable, match=r"the header of a message has 63 bytes, .* at most 50 "):
        writer.write(("x" * 60,))
    writer.write(("x" * 60,), long_header=True)
    assert reader.receive(timeout=5) == (("x" * 60,), b"")


def test_an_offered_frame_never_waits_and_goes_out_ahead_of_later_ones(ends: Any) -> None:
    writer, reader = ends
    reader._parser = wire.Parser(max_header=wire.MAX_PAYLOAD)
    writer.offer(("small",))
    assert not writer.waiting
    writer.offer((BIG,), long_header=True)
    writer.offer(("behind",))
    assert writer.waiting
    last = in_background(lambda: writer.write(("last",)))
    received = [reader.receive(timeout=10)[0][0] for _ in range(4)]
    last.result(10)
    assert received == ["small", BIG, "behind", "last"]
    assert not writer.waiting


def test_offered_frames_that_wait_are_sent_by_flush(ends: Any) -> None:
    writer, reader = ends
    reader._parser = wire.Parser(max_header=wire.MAX_PAYLOAD)
    writer.offer((BIG,), long_header=True)
    received = in_background(lambda: reader.receive(timeout=10)[0])
    poll = select.poll()
    poll.register(writer._sock, select.POLLOUT)
    while writer.waiting:
        poll.poll(10_000)
        writer.flush()
    assert received.result(10) == (BIG,)


def test_what_is_offered_to_a_peer_that_is_gone_is_dropped(ends: Any) -> None:
    writer, reader = ends
    writer.offer((BIG,), long_header=True)
    reader.socket.close()
    with pytest.raises(OSError):
        writer.flush()
    assert not writer.waiting


# ---------------------------------------------------------------- SendBuffer


@pytest.mark.parametrize("error", [errno.ENOBUFS, errno.ENOMEM])
@pytest.mark.parametrize("payload", [b"small", BIG])
def test_a_frame_for_which_the_kernel_has_no_memory_is_sent_when_there_is_some(error: int, payload: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        sock = WithoutMemory(ours, error)
        reader = FrameReader(theirs)
        received = in_background(lambda: [reader.receive(timeout=10) for _ in range(2)])
        writer = FrameWriter(sock)  # type: ignore[arg-type]
        writer.write(("first",), payload)
        writer.write(("second",), b"")
        assert not sock.left
        assert received.result(10) == [(("first",), payload), (("second",), b"")]


def test_a_thread_that_serves_others_waits_for_memory_of_the_kernel_for_a_while_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def never() -> None:
        attempts.append(None)
        raise OSError(errno.ENOBUFS, "no memory")

    attempts: list[None] = []
    monkeypatch.setattr("suitkaise.messaging.connection._MEMORY_PATIENCE", 0.05)
    with pytest.raises(OSError, match="no memory"):
        when_there_is_memory(never)
    assert len(attempts) > 1


def test_an_offered_frame_for_which_the_kernel_has_no_memory_waits_for_the_next_flush() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        writer = FrameWriter(WithoutMemory(ours, errno.ENOBUFS, 1))  # type: ignore[arg-type]
        writer.offer(("offered",))
        assert writer.waiting
        writer.flush()
        assert FrameReader(theirs).receive(timeout=10) == (("offered",), b"")


@pytest.mark.parametrize("payload", [b"small", BIG])
def test_a_peer_has_not_ended_when_the_kernel_has_no_memory_for_a_direct_message(payload: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        outbox = Outbox(WithoutMemory(ours, errno.ENOBUFS), "tree/to", SenderMarks.of_no_board(), 0)  # type: ignore[arg-type]
        assert outbox.put(("direct",), payload)
        reader = in_background(lambda: FrameReader(theirs).receive(timeout=10))
        while outbox.waiting:
            assert select.select([], [ours], [], 10)[1]
            outbox.flush()
        assert not outbox.ended
        assert reader.result(10) == (("direct",), payload)


@pytest.mark.parametrize("name", ["flush", "copy", "unsent", "take_back"])
def test_a_destructor_may_send_while_what_waits_is_looked_at(name: str) -> None:
    def prepare() -> Callable[[], object]:
        nonlocal outbox
        outbox = Outbox(ours, "tree/to", SenderMarks.of_no_board(), 0)
        outbox._writing = True  # as if a signal handler sent these
        for payload in (b"first", b"second", b"third"):
            outbox.put(("direct",), payload)
        outbox._writing = False
        return (lambda: outbox.unsent) if name == "unsent" else getattr(outbox, name)  # type: ignore[no-any-return]

    outbox: Any = None
    times = 0
    ours, theirs = socket.socketpair()
    with ours, theirs:
        reader = FrameReader(theirs)
        for result in collected_at_each_allocation(prepare, lambda: outbox.put(("direct",), b"late")):
            frames = list(result) if isinstance(result, list) else []
            outbox.flush()
            frames += [reader.receive(timeout=10) for _ in range(4 - len(frames))]
            assert [payload for _, payload in frames] == [b"first", b"second", b"third", b"late"]
            times += 1
    assert times
