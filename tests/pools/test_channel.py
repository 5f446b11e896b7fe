"""The socket between a pool and its worker."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator

import pytest

from suitkaise.pools.channel import ANSWER, TASK, Channel, PayloadLost
from tests.messaging.frames import WithoutMemory


@pytest.fixture
def ends() -> Iterator[tuple[Channel, Channel, socket.socket]]:
    """The pool's end, the worker's end, and the socket of the pool's end."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        yield Channel(ours), Channel(theirs), ours


@pytest.mark.parametrize("size", [0, 1, (1 << 15) - 1, 1 << 15, (1 << 15) + 1, 5_000_000])
def test_a_message_arrives_whole(ends: tuple[Channel, Channel, socket.socket], size: int) -> None:
    pool, worker, _ = ends
    data = os.urandom(size)
    assert pool.send(TASK, 7, data, wait=False)
    message = worker.receive()
    assert message is not None
    assert message[:2] == (TASK, 7)
    assert bytes(message[2]) == data
    del message
    assert worker.receive() is None


def test_messages_that_were_not_received_can_be_taken_back(ends: tuple[Channel, Channel, socket.socket]) -> None:
    pool, worker, _ = ends
    for number in range(5):
        pool.send(TASK, number, bytes(number * 20_000), wait=False)
    first = worker.receive()
    assert first is not None
    assert first[1] == 0
    assert worker.take_back() == {1, 2, 3, 4}  # the pool does it with its copy of this end
    assert worker.receive() is None
    assert worker.take_back() == set()


def test_a_socket_without_room_refuses_a_message_as_a_whole(ends: tuple[Channel, Channel, socket.socket]) -> None:
    pool, worker, _ = ends
    sent = 0
    while pool.send(ANSWER, sent, bytes(30_000), wait=False):
        sent += 1
    assert sent > 1
    received = 0
    while (message := worker.receive()) is not None:
        assert message[1] == received
        received += 1
    assert received == sent


@pytest.mark.parametrize("waits", [True, False])
@pytest.mark.parametrize("size", [1, 5_000_000])
def test_a_message_for_which_the_kernel_has_no_memory_is_sent_when_there_is_some(
    ends: tuple[Channel, Channel, socket.socket], size: int, waits: bool
) -> None:
    _, worker, ours = ends
    sock = WithoutMemory(ours, errno.ENOBUFS)
    assert Channel(sock).send(ANSWER, 7, bytes(size), wait=waits)  # type: ignore[arg-type]
    assert not sock.left
    message = worker.receive()
    assert message is not None
    assert (message[:2], len(message[2])) == ((ANSWER, 7), size)


def test_a_large_payload_without_its_descriptor_is_told_with_its_number(
    ends: tuple[Channel, Channel, socket.socket],
) -> None:
    _, worker, sock = ends
    sock.send(b"\x80" + (9).to_bytes(8, "little"))
    with pytest.raises(PayloadLost, match="no file descriptor") as caught:
        worker.receive()
    assert caught.value.number == 9
