"""Large values: their buffers travel beside their pickle, and arrive in memory of the receiver's own."""

from __future__ import annotations

import os
import pickle
import random
import socket
import threading
from typing import Any

import pytest

from suitkaise.messaging import codec, pieces, wire
from suitkaise.messaging.connection import Outbox
from suitkaise.messaging.messages import Payload
from suitkaise.messaging.pieces import Pieces, in_pieces, is_in_pieces, split
from suitkaise.platform.board import SenderMarks

numpy = pytest.importorskip("numpy")


@pytest.mark.parametrize("lengths", [[0], [1], [15, 16, 17], [100_000, 0, 3], [1] * 50])
def test_what_is_in_pieces_is_split_again_and_each_part_is_aligned(lengths: list[int]) -> None:
    buffers = [os.urandom(length) for length in lengths]
    whole = in_pieces(b"pickle!", [memoryview(buffer) for buffer in buffers])
    data = bytes(whole)
    assert len(whole) == len(data)
    assert is_in_pieces(data)
    parts = split(data)
    assert [bytes(part) for part in parts] == [b"pickle!", *buffers]
    begins = [data.index(buffer) for buffer in buffers if len(buffer) > 100]
    assert [begin % 16 for begin in begins] == [0] * len(begins)


@pytest.mark.parametrize("value", [None, 1, "x" * 100_000, b"", b"\0" * 100_000, [b"\0"], {"a": 1.5}])
def test_a_value_without_buffers_is_a_plain_pickle(value: Any) -> None:
    data = codec.dumps_in_pieces(value)
    assert isinstance(data, bytes)
    assert not is_in_pieces(data)
    assert codec.loads(data) == value


@pytest.mark.parametrize("damage", [b"\0" * 15, b"\0" * 16, b"\0" * 16 + b"x", b"\0\0\0\0\xff\xff\xff\xff" + bytes(8)])
def test_damaged_data_is_an_error(damage: bytes) -> None:
    with pytest.raises((ValueError, EOFError, pickle.UnpicklingError)):
        codec.loads(damage)


@pytest.mark.parametrize("size", [100, 5_000, 300_000])
def test_an_array_arrives_exactly_and_can_be_changed(size: int) -> None:
    array = numpy.arange(size, dtype=numpy.float64).reshape(2, -1)
    value = {"array": array, "same": array, "part": array[:, ::2], "frozen": numpy.arange(size), "text": "x"}
    value["frozen"].flags.writeable = False
    for data in (bytearray(bytes(codec.dumps_in_pieces(value))), bytes(codec.dumps_in_pieces(value))):
        found = codec.loads(data)
        assert found["array"] is found["same"]
        assert numpy.array_equal(found["array"], array)
        assert numpy.array_equal(found["part"], value["part"])
        assert (found["array"].dtype, found["array"].flags.aligned) == (array.dtype, True)
        assert not found["frozen"].flags.writeable
        found["array"][0, 0] = 7.0
        assert array[0, 0] == 0.0
        assert codec.loads(bytes(codec.dumps_in_pieces(value)))["array"][0, 0] == 0.0


def test_a_payload_of_the_receivers_own_memory_is_decoded_once() -> None:
    array = numpy.zeros(100_000)
    mine = Payload(data=bytearray(Payload(array).data))  # type: ignore[arg-type]
    first = mine.value
    first[0] = 1.0
    assert mine.value is first
    shared = Payload(data=Payload(array).data)
    shared.value[0] = 1.0
    assert shared.value[0] == 0.0


def receive(sock: socket.socket, parser: wire.Parser, number: int) -> list[wire.Frame]:
    found: list[wire.Frame] = []
    while len(found) < number:
        found += parser.receive(sock)
    return found


def test_large_and_small_frames_arrive_in_order_in_memory_of_their_own() -> None:
    chance = random.Random(1)
    sent = [((number,), os.urandom(chance.choice([0, 10, 65_535, 65_536, 70_000, 3_000_000]))) for number in range(60)]
    ours, theirs = socket.socketpair()
    with ours, theirs:
        writer = threading.Thread(target=lambda: ours.sendall(b"".join(wire.encode(*frame) for frame in sent)))
        writer.start()
        parser = wire.Parser(lends=True)
        found = receive(theirs, parser, len(sent))
        writer.join()
    assert found == sent
    assert all(isinstance(payload, bytearray if len(payload) >= 65_536 else bytes) for _, payload in found)
    assert parser.pending == 0


@pytest.mark.parametrize("step", [1_000, 65_536, 1_000_000])
def test_large_frames_are_parsed_in_whatever_pieces_they_arrive(step: int) -> None:
    sent = [(("a",), os.urandom(2_500_000)), (("b",), b"x"), (("c",), os.urandom(65_536))]
    stream = b"".join(wire.encode(*frame) for frame in sent)
    parser = wire.Parser(lends=True)
    found = [frame for start in range(0, len(stream), step) for frame in parser.feed(stream[start : start + step])]
    assert found == sent


def test_the_claim_of_a_large_payload_allocates_a_mebibyte_at_most() -> None:
    parser = wire.Parser(lends=True)
    head = wire.encode(("x",))[8:]
    parser.feed(len(head).to_bytes(4, "little") + (1 << 30).to_bytes(4, "little") + head + b"x" * 100)
    assert parser.pending == 100
    assert parser._large is not None
    assert len(parser._large.data) <= 1 << 20


def test_a_message_that_waits_to_be_sent_does_not_change_with_the_array() -> None:
    array = numpy.zeros(1_000_000, dtype=numpy.uint8)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        outbox = Outbox(ours, "tree/one", SenderMarks.of_no_board(), 0)
        for number in range(3):
            array[:] = number
            assert outbox.put((number,), Payload(array).parts)
        array[:] = 9
        assert len(outbox.waiting) == 3
        parser = wire.Parser(lends=True)
        found: list[wire.Frame] = []
        while len(found) < 3:
            outbox.flush()
            found += parser.receive(theirs)
    assert [int(codec.loads(payload).max()) for _, payload in found] == [0, 1, 2]
    assert [int(codec.loads(payload).min()) for _, payload in found] == [0, 1, 2]


def test_what_was_not_sent_is_taken_back_as_bytes() -> None:
    array = numpy.ones(1_000_000, dtype=numpy.uint8)
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    outbox = Outbox(ours, "tree/one", SenderMarks.of_no_board(), 0)
    with ours:
        with theirs:
            outbox.put(("first",), Payload(array).parts, copies=False)
            assert isinstance(outbox.waiting[0][2], Pieces)
            outbox.copy()
            array[:] = 2
        ((header, payload),) = outbox.take_back()
    assert header == ("first",)
    assert int(codec.loads(payload).max()) == 1


def test_a_type_that_pickles_large_buffers_by_itself_gets_what_it_can_use() -> None:
    class Holder:
        def __init__(self, data: Any) -> None:
            self.data = data

        def __reduce_ex__(self, protocol: Any) -> Any:
            return _hold, (pickle.PickleBuffer(self.data),)

    assert bytes(codec.loads(bytes(codec.dumps_in_pieces(Holder(b"x" * 100_000))))) == b"x" * 100_000


def _hold(data: Any) -> Any:
    return data


def test_pieces_have_a_head_that_no_pickle_begins_with() -> None:
    assert all(pickle.dumps(None, protocol)[0] != 0 for protocol in range(2, 6))
    assert pieces.in_pieces(b"", []).parts[0][:1] == b"\0"
