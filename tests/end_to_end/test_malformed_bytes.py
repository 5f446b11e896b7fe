"""Bytes that are no frames close the connection on which they came, and harm nobody else."""

from __future__ import annotations

import logging
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from suitkaise import Child, Process, Supervisor, sktree
from suitkaise.messaging import wire
from suitkaise.messaging.protocol import HubAnswer, Tell, decode_answer
from suitkaise.platform.runtime_directory import HUB_SOCKET
from suitkaise.runtime import hub_server, runtime
from suitkaise.runtime.running_tree import RunningTree
from suitkaise.storage import connections
from suitkaise.storage.client import SOCKET
from tests.support import eventually


class Busy(Process):
    """Uses the storage, and asks through the hub."""

    def on_receive(self, number: int) -> object:
        self.tree.add("number", number, path="")
        return self.tree.get("number", path=""), self.whereis("app/busy").status


@pytest.fixture
def running() -> Iterator[RunningTree]:
    with Supervisor("app", Child(Busy)).start() as running:
        sktree.connect()
        yield running
        sktree.disconnect()


def connected(name: str) -> socket.socket:
    program = runtime.current()
    assert program is not None
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(15.0)
    sock.connect(str(Path(program.directory, name)))
    return sock


def frame(header: bytes) -> bytes:
    return struct.pack("<II", len(header), 0) + header


BYTES = {
    "no frame": b"GET / HTTP/1.1\r\n\r\n",
    "no UTF-8": frame(b"\x94\xa4post\xa2\xff\xfe\xa1x\x01"),
    "no UTF-8 in a put": frame(b"\x97\x01\x01\xc2\xa2\xff\xfe\xa1n\x00\x00"),
    "a length that lies": struct.pack("<II", 0xFFFFFFFF, 0xFFFFFFFF),
    "nested": frame(b"\x91" * 4000),
}


@pytest.mark.parametrize("name", [HUB_SOCKET, SOCKET])
@pytest.mark.parametrize("data", BYTES.values(), ids=list(BYTES))
def test_malformed_bytes_close_that_one_connection(running: RunningTree, name: str, data: bytes) -> None:
    assert running["busy"].ask(1, timeout=15.0) == (1, "running")
    with connected(name) as sock:
        sock.sendall(data)
        try:
            assert sock.recv(100) == b"", "the connection is closed"
        except ConnectionResetError:
            pass
    assert running["busy"].ask(2, timeout=15.0) == (2, "running")
    program = runtime.current()
    assert program is not None
    assert sktree.connect().get("number", path="") == 2


@pytest.mark.parametrize(
    "payload", [b"\1", b"\1" * 500, b"\1\1\0\0\x20\0\0\0" + b"\xff" * 500, b"\0" * 500, b"rubbish"]
)
def test_a_message_that_cannot_be_decoded_harms_neither_its_way_nor_its_receiver(
    running: RunningTree, caplog: pytest.LogCaptureFixture, payload: bytes
) -> None:
    with connected(HUB_SOCKET) as sock:
        sock.sendall(wire.encode(Tell(1, "message", "app/busy"), payload))
        frames: list[wire.Frame] = []
        parser = wire.Parser(decode=decode_answer)
        while not frames:
            frames = parser.receive(sock)
        assert frames[0][0] == HubAnswer(1, True)
        eventually(lambda: "cannot be decoded" in caplog.text)
        assert running["busy"].ask(5, timeout=15.0) == (5, "running")
        assert running.which_children()[0].restarts == 0


def test_a_frame_that_never_ends_holds_up_nobody(running: RunningTree) -> None:
    with connected(HUB_SOCKET) as hub, connected(SOCKET) as storage:
        for sock in (hub, storage):
            sock.sendall(struct.pack("<II", 10, 1 << 20) + b"half")
        assert running["busy"].ask(3, timeout=15.0) == (3, "running")


@pytest.mark.parametrize(
    "name, most", [(HUB_SOCKET, hub_server.MAX_CONNECTIONS), (SOCKET, connections.MAX_CONNECTIONS)]
)
def test_a_process_gets_a_limited_number_of_connections(
    running: RunningTree, caplog: pytest.LogCaptureFixture, name: str, most: int
) -> None:
    with caplog.at_level(logging.WARNING, "suitkaise"):
        open_ones = [connected(name) for _ in range(most + 5)]  # the test has some of its own
        try:
            assert open_ones[-1].recv(1) == b"", "one too many"
            eventually(lambda: any(f"has {most} connections already" in line for line in caplog.messages))
            assert running["busy"].ask(4, timeout=15.0) == (4, "running")
        finally:
            for sock in open_ones:
                sock.close()
