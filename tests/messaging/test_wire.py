from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from suitkaise.engines import protocol as engine_protocol
from suitkaise.messaging import protocol, wire
from suitkaise.storage import protocol as storage_protocol
from tests.messaging.frames import FrameReader

HEADERS = st.lists(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text() | st.binary(), max_size=6
).map(tuple)
FRAMES = st.lists(st.tuples(HEADERS, st.binary(max_size=200)), max_size=8)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


@given(FRAMES, st.randoms(use_true_random=False))
@settings(deadline=None)
def test_frames_are_parsed_in_whatever_pieces_they_arrive(frames: Any, random: Any) -> None:
    stream = b"".join(wire.encode(*frame) for frame in frames)
    parser = wire.Parser()
    found = []
    while stream:
        count = random.randint(1, len(stream))
        found += parser.feed(stream[:count])
        stream = stream[count:]
    assert found == frames
    assert parser.pending == 0


def test_frames_arrive_through_a_socket_in_pieces_and_together(pair: Any) -> None:
    ours, theirs = pair
    parser = wire.Parser()
    sent = [((index, "name"), bytes([index]) * (index * 37)) for index in range(200)]
    stream = b"".join(wire.encode(*frame) for frame in sent)
    writer = threading.Thread(target=ours.sendall, args=(stream,))
    writer.start()
    found: list[wire.Frame] = []
    while len(found) < len(sent):
        found += parser.receive(theirs)
    writer.join()
    assert found == sent


@pytest.mark.parametrize("lends", [True, False])
def test_a_frame_for_which_there_is_no_memory_is_refused(
    pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch, lends: bool
) -> None:
    def no_memory(*_: object) -> None:
        raise MemoryError

    ours, theirs = pair
    parser = wire.Parser(lends=lends)
    monkeypatch.setattr(wire._LargePayload, "room", no_memory)
    monkeypatch.setattr(wire.Parser, "_grow", no_memory)
    theirs.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        theirs.send(wire.encode(("large",), bytes(1 << 20)))
    with pytest.raises(wire.WireError, match=r"there is no memory for a frame of 1,048,\d+ bytes"):
        while True:
            parser.receive(ours, socket.MSG_DONTWAIT)


def test_a_long_frame_grows_the_buffer_and_a_quiet_connection_shrinks_it_again(pair: Any) -> None:
    ours, theirs = pair
    payload = os.urandom(5_000_000)
    writer = threading.Thread(target=wire.send, args=(ours, ("big",), payload))
    writer.start()
    parser = wire.Parser()
    found: list[wire.Frame] = []
    while not found:
        found += parser.receive(theirs)
    writer.join()
    assert found == [(("big",), payload)]
    assert len(parser._buffer) <= 1 << 18


def test_the_length_in_a_prefix_alone_allocates_nothing(pair: Any) -> None:
    ours, theirs = pair
    ours.sendall(struct.pack("<II", 10, 1 << 29) + b"x" * 100)
    parser = wire.Parser()
    parser.receive(theirs)
    assert parser.pending == 108
    assert len(parser._buffer) < 1 << 16


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\xff" * 64,
        struct.pack("<II", 3, 0) + b"\xc1\xc1\xc1",
        struct.pack("<II", 1, 0) + b"\x01",
        struct.pack("<II", 0, 0),
        struct.pack("<II", 5, 0) + b"\x91\xdb\xff\xff\xff",
    ],
)
def test_bytes_that_are_not_frames_are_an_error(garbage: bytes) -> None:
    with pytest.raises(wire.WireError):
        wire.Parser().feed(garbage)


@given(st.binary(max_size=300))
@settings(deadline=None, max_examples=300)
def test_any_bytes_give_frames_or_wait_or_are_a_wire_error(data: bytes) -> None:
    try:
        wire.Parser().feed(data)
    except wire.WireError:
        pass


def test_values_of_subclasses_as_those_of_numpy_are_sent_as_plain_ones() -> None:
    class Name(str):
        __slots__ = ()

        def __str__(self) -> str:
            return "another"

    class Seconds(float): ...

    class Number(int): ...

    ((header, _),) = wire.Parser().feed(wire.encode((Name("app/one"), Seconds(1.5), Number(3))))
    assert header == ("app/one", 1.5, 3)
    with pytest.raises(TypeError, match="a header cannot hold <object"):
        wire.encode((object(),))


def test_frames_over_the_limit_are_an_error() -> None:
    with pytest.raises(wire.WireError, match="200 of payload; at most"):
        wire.Parser(max_payload=199).feed(wire.encode((1,), b"x" * 200))
    with pytest.raises(wire.WireError, match="of header"):
        wire.Parser(max_header=5).feed(wire.encode(("a long header",)))


def test_the_end_of_the_stream_raises_and_the_error_tells_of_a_cut_frame(pair: Any) -> None:
    ours, theirs = pair
    ours.sendall(wire.encode(("whole",)) + wire.encode(("cut",))[:-1])
    ours.close()
    parser = wire.Parser()
    assert parser.receive(theirs) == [(("whole",), b"")]
    with pytest.raises(wire.PeerClosed, match="in the middle of a frame"):
        parser.receive(theirs)


def test_send_sends_a_frame_that_is_longer_than_the_sockets_buffer(pair: Any) -> None:
    ours, theirs = pair
    payload = memoryview(bytes(range(256)) * 8192)
    writer = threading.Thread(target=wire.send, args=(ours, ("x" * 5000,), payload))
    writer.start()
    assert FrameReader(theirs).receive(timeout=10) == (("x" * 5000,), payload.tobytes())
    writer.join()


def test_signals_while_sending_and_receiving_lose_nothing(pair: Any) -> None:
    ours, theirs = pair
    arrived = []
    before = signal.signal(signal.SIGALRM, lambda *_: arrived.append(1))
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    try:
        payload = os.urandom(3_000_000)
        echo = threading.Thread(target=lambda: wire.send(theirs, *FrameReader(theirs).receive(timeout=20)))
        echo.start()
        wire.send(ours, ("there",), payload)
        assert FrameReader(ours).receive(timeout=20) == (("there",), payload)
        echo.join()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert arrived


@pytest.mark.benchmark
def test_encoding_and_parsing_a_small_frame_takes_at_most_3_us() -> None:
    import timeit

    parser = wire.Parser()
    header, payload = (1, 12345, "path/to", "name", None, None), b"x" * 100
    seconds = min(timeit.repeat(lambda: parser.feed(wire.encode(header, payload)), number=20_000, repeat=5))
    assert seconds / 20_000 <= 3e-6


# --------------------------------------------------------------- bytes that are no frames
DECODERS = {
    "default": None,
    "requests to the hub": protocol.decode_request,
    "answers of the hub": protocol.decode_answer,
    "reports of a worker": engine_protocol.decode_worker_report,
    "orders to a worker": engine_protocol.decode_worker_order,
    "requests to the storage": storage_protocol.decode_request,
    "answers of the storage": storage_protocol.decode_answer,
}


@pytest.mark.parametrize("decode", DECODERS.values(), ids=list(DECODERS))
@pytest.mark.parametrize(
    "header",
    [
        b"\x94\xa4post\xa2\xff\xfe\xa1x\x01",  # a text that is no UTF-8
        b"\x97\x01\x01\xc2\xa2\xff\xfe\xa1n\x00\x00",  # the same in a request to the storage
        b"\x91" * 4000,  # lists in lists
        b"\xdd\xff\xff\xff\xff",  # a list that claims four thousand million items
        b"\x92\x01\xcf" + b"\xff" * 8,  # a number that fits into no signed one
        b"",
    ],
    ids=["no UTF-8", "no UTF-8 in a put", "nested", "long list", "large number", "empty"],
)
def test_an_invalid_header_is_a_wire_error_in_every_decoder(decode: Any, header: bytes) -> None:
    parser = wire.Parser() if decode is None else wire.Parser(decode=decode)
    with contextlib.suppress(wire.WireError):  # what is invalid for one may be a frame for another
        parser.feed(struct.pack("<II", len(header), 0) + header)


@given(st.binary(max_size=64), st.sampled_from(list(DECODERS)))
@settings(deadline=None, max_examples=2000)
def test_no_bytes_whatever_raise_anything_but_a_wire_error(header: bytes, name: str) -> None:
    decode = DECODERS[name]
    parser = wire.Parser() if decode is None else wire.Parser(decode=decode)
    with contextlib.suppress(wire.WireError):
        parser.feed(struct.pack("<II", len(header), 0) + header)
