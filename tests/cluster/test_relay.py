"""What a node does with messages for which its connection to the program has no room."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

from suitkaise.cluster.protocol import AnswerOfHub, RequestOfWorker, WorkerGone
from suitkaise.cluster.relay import Relay
from suitkaise.errors import MailboxFull
from suitkaise.messaging import codec, wire
from suitkaise.messaging.answer import Answer
from suitkaise.messaging.protocol import HubAnswer, HubRequest, RequestKind, Tell, decode_answer
from suitkaise.platform.reactor import Reactor
from tests.support import descriptors_of, eventually


def test_the_program_is_told_of_refused_messages_once_there_is_room_again(tmp_path: Path) -> None:
    sent: list[tuple[Any, bytes]] = []
    refused = 0
    has_room = False

    def send(frame: Any, payload: bytes, *, force: bool) -> None:
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


def test_the_end_of_a_process_is_told_and_closes_its_connection_while_there_is_no_room(tmp_path: Path) -> None:
    forced: list[WorkerGone] = []

    def send(frame: Any, payload: bytes, *, force: bool) -> None:
        if not force:
            raise MailboxFull("no room")
        forced.append(frame)

    reactor, path = Reactor(), str(tmp_path / "hub")
    relay = Relay(path, reactor, lambda pid: f"tree/{pid}", send, {})
    before = len(descriptors_of(os.getpid()))
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as worker:
        worker.connect(path)
        wire.send(worker, Tell(1, "message", "tree/other"), codec.dumps("its sender learns of it"))
        assert worker.recv(1)
    eventually(lambda: forced == [WorkerGone(1)])
    eventually(lambda: len(descriptors_of(os.getpid())) == before, what="the node's end is closed, too")
    reactor.close()
    relay.close()
    os.unlink(path)


def test_what_the_node_requests_itself_is_sent_while_there_is_no_room(tmp_path: Path) -> None:
    forced: list[RequestOfWorker] = []

    def send(frame: Any, payload: bytes, *, force: bool) -> None:
        if not force:
            raise MailboxFull("no room")
        forced.append(frame)

    reactor, path = Reactor(), str(tmp_path / "hub")
    local = {RequestKind.STORAGE: lambda: relay.request(RequestKind.STORAGE)}
    relay = Relay(path, reactor, lambda pid: f"tree/{pid}", send, local)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as worker:
        worker.connect(path)
        wire.send(worker, HubRequest(1, RequestKind.STORAGE, ""), codec.dumps(None))
        [frame] = eventually(lambda: [*forced])
        answer = AnswerOfHub(frame.connection, HubAnswer(frame.request.number, True))
        reactor.call_soon_threadsafe(lambda: relay.answer(answer, codec.dumps("/the/storage")))
        [(header, payload)] = _received(worker)
        assert (header.number, header.ok, codec.loads(payload)) == (1, True, "/the/storage")
    eventually(lambda: len(forced) > 1, what="the word of the worker's end")
    reactor.close()
    relay.close()
    os.unlink(path)


def test_a_request_for_which_the_node_has_no_thread_is_refused(tmp_path: Path) -> None:
    def serve() -> Answer[Any]:
        raise RuntimeError("can't start new thread")

    reactor, path = Reactor(), str(tmp_path / "hub")
    sent: list[RequestOfWorker] = []
    relay = Relay(
        path, reactor, lambda pid: f"tree/{pid}", lambda frame, *_, **__: sent.append(frame),
        {RequestKind.RESOURCE_TRACKER: serve},
    )  # fmt: skip
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as worker:
        worker.connect(path)
        behind = Tell(2, "message", "tree/other")
        first = wire.encode(HubRequest(1, RequestKind.RESOURCE_TRACKER, ""), codec.dumps(None))
        worker.sendall(first + wire.encode(behind, codec.dumps("behind it")))
        [(header, payload)] = _received(worker)
        assert (header.number, header.ok, str(codec.loads(payload))) == (1, False, "can't start new thread")
        [frame] = eventually(lambda: [*sent])
        assert frame.request == behind
    eventually(lambda: len(sent) > 1, what="the word of the worker's end")
    reactor.close()
    relay.close()
    os.unlink(path)


def _received(sock: socket.socket) -> list[Any]:
    """Return the next frames."""
    sock.settimeout(10.0)
    parser, frames = wire.Parser(decode=decode_answer), list[Any]()
    while not frames:
        frames = parser.receive(sock)
    return frames
