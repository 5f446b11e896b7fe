"""What a node does with messages for which its connection to the program has no room."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

from suitkaise.cluster.protocol import RequestOfWorker
from suitkaise.cluster.relay import Relay
from suitkaise.errors import MailboxFull
from suitkaise.messaging import codec, wire
from suitkaise.messaging.protocol import HubRequest, RequestKind, Tell
from suitkaise.platform.reactor import Reactor
from tests.support import eventually


def test_the_program_is_told_of_refused_messages_once_there_is_room_again(tmp_path: Path) -> None:
    sent: list[tuple[Any, bytes]] = []
    refused = 0
    has_room = False

    def send(frame: Any, payload: bytes) -> None:
        nonlocal refused
        if not has_room:
            refused += 1
            raise MailboxFull("no room")
        sent.append((frame, payload))

    reactor, path = Reactor(), str(tmp_path / "hub")
    relay = Relay(path, reactor, lambda pid: f"tree/{pid}", send, {})
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as worker:
        worker.connect(path)
        for number in range(3):
            wire.send(worker, Tell(number, "message", "tree/other", awaited=False), codec.dumps("lost"))
        wire.send(worker, Tell(3, "message", "tree/other", awaited=True), codec.dumps("its sender learns of it"))
        eventually(lambda: refused > 4, what="the messages, and the word of them, are refused")
        assert not sent
        has_room = True
        [(frame, payload)] = eventually(lambda: [*sent])
        assert isinstance(frame, RequestOfWorker)
        assert isinstance(frame.request, HubRequest)
        assert (frame.request.kind, frame.request.path) == (RequestKind.DEAD_LETTER, "tree/other")
        assert codec.loads(payload) == ("no room", 3)
    reactor.close()
    relay.close()
    os.unlink(path)
