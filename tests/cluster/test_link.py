"""The connection between program and node: who gets in, frames both ways, and its end."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from suitkaise.cluster import link as links
from suitkaise.cluster.link import KEY_BYTES, NAME_BYTES, Link, Listener, NotOurs, connect
from suitkaise.cluster.protocol import Beat, Ready, decode_hub_frame, decode_node_frame
from suitkaise.messaging import wire
from suitkaise.platform.reactor import Reactor
from tests.support import eventually

NAME = b"n" * NAME_BYTES


@pytest.fixture
def reactor() -> Iterator[Reactor]:
    made = Reactor()
    yield made
    made.close()


@pytest.fixture
def connected() -> list[tuple[bytes, socket.socket]]:
    return []


@pytest.fixture
def listener(reactor: Reactor, connected: list[tuple[bytes, socket.socket]]) -> Iterator[Listener]:
    made = Listener(reactor, "127.0.0.1", lambda name, sock: connected.append((name, sock)))
    yield made
    made.close()
    done = threading.Event()
    reactor.call_soon_threadsafe(done.set)
    done.wait(10)
    for _, sock in connected:
        sock.close()


def test_frames_go_both_ways_and_the_end_is_told(reactor: Reactor, listener: Listener, connected: list[Any]) -> None:
    got: list[Any] = []
    ours = connect(listener.address, listener.key, NAME)
    name, theirs = eventually(lambda: connected and connected.pop())
    assert name == NAME

    def put(frame: Any, payload: bytes) -> None:
        got.append((frame, bytes(payload)))

    def put_end(why: str, closed: bool) -> None:
        got.append((why, closed))

    node = Link(reactor, ours, "program", decode_hub_frame, put, put_end)
    program = Link(reactor, theirs, "node", decode_node_frame, put, put_end)
    for one in (node, program):
        reactor.call_soon_threadsafe(one.begin)
    node.send(Ready(7, 8), b"x" * 3_000_000)
    eventually(lambda: len(got) == 1)
    program.send(Beat())
    eventually(lambda: len(got) == 2)
    reactor.call_soon_threadsafe(program.close)
    eventually(lambda: len(got) == 3)
    assert got == [
        (Ready(7, 8), b"x" * 3_000_000),
        (Beat(), b""),
        ("the connection was closed by the other side", True),
    ]
    reactor.call_soon_threadsafe(node.close)
    eventually(lambda: ours.fileno() == -1)


def test_a_link_that_is_held_sends_nothing_until_the_other_side_is_heard(
    reactor: Reactor, listener: Listener, connected: list[Any]
) -> None:
    ours = connect(listener.address, listener.key, NAME)
    _, theirs = eventually(lambda: connected and connected.pop())
    got: list[Any] = []
    program = Link(reactor, theirs, "node", decode_node_frame, lambda frame, data: got.append(frame), print)
    reactor.call_soon_threadsafe(program.begin)
    reactor.call_soon_threadsafe(program.hold)
    eventually(lambda: program.is_held)
    program.send(Beat())
    ours.setblocking(False)
    with pytest.raises(BlockingIOError):
        ours.recv(100)
    before = program.heard
    some = wire.encode(Ready(7, 8), b"x" * 1000)
    ours.sendall(some[:100])  # a part of a frame is heard, too
    ours.setblocking(True)
    assert ours.recv(100) == wire.encode(Beat())
    assert program.heard > before
    assert program.longest_silence > 0
    ours.sendall(some[100:])
    assert eventually(lambda: got) == [Ready(7, 8)]
    reactor.call_soon_threadsafe(program.close)
    ours.close()


def test_one_that_does_not_know_the_key_gets_nothing(
    listener: Listener, connected: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ConnectionError):
        connect(listener.address, b"?" * KEY_BYTES, NAME)
    assert not connected
    eventually(lambda: "a connection from 127.0.0.1 was refused: it does not know the key" in caplog.text)


def test_a_node_sends_nothing_to_something_else_that_listens(listener: Listener) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:

        def answer() -> None:
            sock, _ = other.accept()
            with sock:
                sock.sendall(b"!" * KEY_BYTES)
                sock.recv(1000)
                sock.sendall(b"!" * 32)

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(NotOurs, match="does not know the key of the program"):
            connect(other.getsockname(), listener.key, NAME)
        thread.join()


def test_one_that_says_nothing_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, listener: Listener, connected: list[Any]
) -> None:
    monkeypatch.setattr(links, "GREETING_TIME", 0.05)
    with socket.create_connection(listener.address) as silent:
        assert len(silent.recv(100)) == KEY_BYTES
        assert silent.recv(100) == b""
    assert not connected
