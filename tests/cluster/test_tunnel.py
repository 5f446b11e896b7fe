"""The way of storage clients on a node to the storage, at the end on the node."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from suitkaise.cluster.protocol import StreamData, StreamOpen
from suitkaise.cluster.tunnel import TunnelEntry
from suitkaise.platform.reactor import Reactor
from suitkaise.storage.client import SOCKET
from tests.support import eventually, in_background

LARGE = 70 << 20
"""Bytes: more than may wait for a peer."""


@pytest.fixture
def reactor() -> Iterator[Reactor]:
    made = Reactor()
    yield made
    made.close()


def test_a_client_is_read_only_as_fast_as_its_data_goes_on(reactor: Reactor, tmp_path: Path) -> None:
    sent: list[tuple[Any, bytes]] = []
    asked: list[bool] = []
    has_room = False

    def look() -> bool:
        asked.append(has_room)
        return has_room

    directory = tmp_path / "storage"
    entry = TunnelEntry(
        str(directory), reactor, lambda frame, data=b"": sent.append((frame, bytes(data))), look, "origin", None
    )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.connect(str(directory / SOCKET))
        writing = in_background(lambda: client.sendall(bytes(LARGE)))
        eventually(lambda: asked)
        assert sent == [(StreamOpen(1), b"")]
        has_room = True
        reactor.call_soon_threadsafe(entry.resume)
        writing.result(60.0)
        eventually(lambda: sum(len(data) for _, data in sent) == LARGE)
        assert all(isinstance(frame, StreamData) for frame, _ in sent[1:])
    reactor.close()
    entry.close()
