"""A `HubClient` and a `HubServer`, over a real socket, in one process."""

from __future__ import annotations

import contextlib
import gc
import itertools
import math
import os
import signal
import socket
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from suitkaise import Status
from suitkaise.errors import ChildNotFound, DeadlockError, NotSerializable, RuntimeGone, SuitkaiseError, WorkerDead
from suitkaise.messaging import send_buffer, wire
from suitkaise.messaging.answer import Answer
from suitkaise.messaging.bundle_tables import Known
from suitkaise.messaging.messages import Message, Payload
from suitkaise.messaging.protocol import (
    AdminAction,
    AdminRequest,
    Ask,
    HubAnswer,
    HubRequest,
    RequestKind,
    Tell,
    Withdraw,
    WorkerFrame,
    decode_answer,
    decode_request,
)
from suitkaise.messaging.registry import Registry
from suitkaise.messaging.router import HubClient
from suitkaise.messaging.unawaited import Unawaited
from suitkaise.platform.reactor import Reactor
from suitkaise.runtime.hub_server import HubServer
from tests.messaging.test_registry import Parent
from tests.support import eventually, in_background, interrupted_at_each_line

SOON = 10.0


class Echo:
    """A worker in the hub: answers with what `handle` makes of a message, from a thread of its own or at once."""

    def __init__(self) -> None:
        self.got: list[Any] = []
        self.handle: Any = lambda body: body

    def deliver(self, message: Message, *, accepted: bool = False) -> None:
        body = message.body.value
        self.got.append(body)
        if message.reply is None:
            return
        try:
            message.reply(True, Payload(self.handle(body)))
        except Exception as error:
            message.fail(error)


class Hub:
    """A hub server with one worker behind it, and a client of it."""

    def __init__(self, folder: Path) -> None:
        self.reactor = Reactor()
        self.registry = Registry()
        self.path = str(folder / "hub.sock")
        self.server = HubServer(self.path, self.reactor, self.registry)
        self.echo = Echo()
        self.address = self.registry.add("tree/one", "one", "thread", Parent())
        self.address.begin(1)
        self.address.attach(self.echo)
        self.client = HubClient(self.path)

    def ask(self, body: Any, path: str = "tree/one") -> Answer[Any]:
        answer: Answer[Any] = Answer()
        self.client.send(path, Message("message", Payload(body), answer.settle))
        return answer

    def tell(self, body: Any, path: str = "tree/one") -> None:
        self.client.send(path, Message("message", Payload(body)))

    def close(self) -> None:
        self.reactor.close()
        self.server.close()

    def cut(self) -> None:
        """End all connections, as a dying hub does."""
        for one in list(self.server._connections):
            with contextlib.suppress(OSError):
                one.sock.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    hub = Hub(tmp_path)
    yield hub
    hub.close()


def test_an_ask_comes_back_with_the_answer(hub: Hub) -> None:
    assert hub.ask({"a": [1, 2]}).get(SOON) == {"a": [1, 2]}


def test_a_tell_returns_when_the_hub_has_accepted_it(hub: Hub) -> None:
    hub.tell("x")
    assert hub.echo.got == ["x"]


def test_an_error_of_the_handler_reaches_the_asker(hub: Hub) -> None:
    def refuse(body: Any) -> None:
        raise PermissionError(body)

    hub.echo.handle = refuse
    with pytest.raises(PermissionError, match="no"):
        hub.ask("no").get(SOON)


def test_asking_or_telling_a_worker_that_does_not_exist_raises(hub: Hub) -> None:
    with pytest.raises(ChildNotFound, match="tree/two"):
        hub.ask("x", "tree/two").get(SOON)
    with pytest.raises(ChildNotFound, match="tree/two"):
        hub.tell("x", "tree/two")


def test_asking_or_telling_a_worker_that_is_over_raises(hub: Hub) -> None:
    hub.address.finish()
    with pytest.raises(WorkerDead):
        hub.ask("x").get(SOON)
    with pytest.raises(WorkerDead):
        hub.tell("x")


def test_a_message_that_cannot_be_pickled_raises_before_anything_is_sent(hub: Hub) -> None:
    with pytest.raises(NotSerializable):
        hub.ask(threading.Lock())
    with pytest.raises(NotSerializable):
        hub.tell(threading.Lock())
    assert hub.echo.got == []


def test_an_answer_that_cannot_be_sent_is_an_error_for_the_asker(hub: Hub) -> None:
    hub.echo.handle = lambda body: threading.Lock()
    with pytest.raises(NotSerializable, match="cannot pickle"):
        hub.ask("x").get(SOON)
    hub.echo.handle = lambda body: body
    assert hub.ask("y").get(SOON) == "y"


def test_large_messages_and_answers_pass(hub: Hub) -> None:
    big = os.urandom(8 << 20)
    assert hub.ask(big).get(SOON) == big


def test_requests_are_answered_now_and_later(hub: Hub) -> None:
    hub.address.pid = 99
    assert hub.client.request(RequestKind.INFO, "tree/one").get(SOON) == (Status.RUNNING, 99, 1, "thread")
    join = hub.client.request(RequestKind.JOIN, "tree/one")
    assert hub.client.request(RequestKind.INFO, "tree/one").get(SOON)[1] == 99
    assert not join.done()
    hub.address.finish()
    assert join.get(SOON) is None


def test_many_threads_share_one_connection_and_each_gets_its_own_answers(hub: Hub) -> None:
    wrong: list[Any] = []

    def work(thread: int) -> None:
        for number in range(100):
            if hub.ask([thread, number]).get(SOON) != [thread, number]:
                wrong.append((thread, number))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert wrong == []
    assert len(hub.echo.got) == 600
    assert len(hub.server._connections) == 1


def test_messages_of_one_sender_keep_their_order(hub: Hub) -> None:
    answers = [hub.ask(number) for number in range(500)]
    assert [answer.get(SOON) for answer in answers] == list(range(500))
    assert hub.echo.got == list(range(500))


def test_when_the_hub_ends_all_expected_answers_are_errors(hub: Hub) -> None:
    answers = [hub.client.request(RequestKind.JOIN, "tree/one") for _ in range(5)]
    hub.client.request(RequestKind.INFO, "tree/one").get(SOON)
    hub.cut()
    for answer in answers:
        with pytest.raises(RuntimeGone, match="the program that owns the tree is gone"):
            answer.get(SOON)


def test_without_a_hub_a_request_raises_runtime_gone(tmp_path: Path) -> None:
    client = HubClient(str(tmp_path / "nobody.sock"))
    with pytest.raises(RuntimeGone, match="cannot be reached"):
        client.request(RequestKind.INFO, "tree/one")


def test_a_client_that_is_not_used_any_more_is_not_kept_for_the_forks_to_come() -> None:
    client = weakref.ref(HubClient("/nowhere"))
    gc.collect()
    assert client() is None


def test_a_broken_connection_is_made_anew_at_the_next_use(hub: Hub) -> None:
    assert hub.ask(1).get(SOON) == 1
    (current,) = hub.client._connections
    hub.cut()
    eventually(lambda: current.closed)
    assert hub.ask(2).get(SOON) == 2


def test_a_forked_child_makes_a_connection_of_its_own(hub: Hub) -> None:
    assert hub.ask(1).get(SOON) == 1
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(writer, str(hub.ask(os.getpid()).get(SOON)).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        assert pipe.read() == str(pid)
    os.waitpid(pid, 0)
    assert hub.ask(2).get(SOON) == 2


@pytest.mark.parametrize(
    "rubbish",
    [
        b"\xff" * 64,
        wire.encode(("dance", 1)),
        wire.encode(HubAnswer(1, True)),
        wire.encode((1, 1, "eval", "tree/one")),
        wire.encode((1, 1, "signal", "tree/one")),
        wire.encode((2, 1, "dance", "tree/one")),
        wire.encode((3, 1, "dance", "tree")),
    ],
)
def test_a_frame_that_does_not_decode_closes_its_connection_and_no_other(hub: Hub, rubbish: bytes) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
        peer.connect(hub.path)
        peer.settimeout(SOON)
        peer.sendall(rubbish)
        assert peer.recv(1) == b""
    assert hub.ask(1).get(SOON) == 1


def test_a_process_that_ends_before_its_answer_harms_no_other(hub: Hub) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
        peer.connect(hub.path)
        wire.send(peer, HubRequest(1, RequestKind.JOIN, "tree/one"), b"\x80\x05N.")
        assert hub.ask(1).get(SOON) == 1
    eventually(lambda: len(hub.server._connections) == 1)
    hub.address.finish()
    with pytest.raises(WorkerDead):
        hub.ask(2).get(SOON)


def test_a_process_that_does_not_read_its_answers_is_disconnected(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(send_buffer, "BACKLOG", 1 << 20)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
        peer.connect(hub.path)
        peer.settimeout(SOON)
        question = Payload(bytes(1 << 19)).data
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for number in range(100):
                wire.send(peer, Ask(number, "message", "tree/one"), question)
        eventually(lambda: not hub.server._connections)
    assert caplog.messages == [f"connection from pid {os.getpid()} closed: the process does not read its answers"]
    assert hub.ask(1).get(SOON) == 1


def test_the_protocol_names_each_request_and_action_once() -> None:
    for kind in (RequestKind, AdminAction):
        assert len({member.value for member in kind}) == len(kind)


@pytest.mark.parametrize(
    "frame",
    [
        Tell(1, "message", "tree/one"),
        Ask(2, "call", "tree/one"),
        HubRequest(3, RequestKind.JOIN, "tree/one"),
        AdminRequest(4, AdminAction.WHICH_CHILDREN, "tree"),
        Withdraw(5),
    ],
)
def test_a_frame_of_a_worker_is_decoded_as_it_was_encoded(frame: WorkerFrame) -> None:
    assert wire.Parser(decode=decode_request).feed(wire.encode(frame, b"payload")) == [(frame, b"payload")]


def test_an_answer_of_the_hub_is_decoded_as_it_was_encoded() -> None:
    answer = HubAnswer(1, False)
    assert wire.Parser(decode=decode_answer).feed(wire.encode(answer, b"payload")) == [(answer, b"payload")]


def test_only_the_same_user_can_open_the_socket(hub: Hub) -> None:
    assert os.stat(hub.path).st_mode & 0o777 == 0o600


def test_a_signal_handler_may_tell_and_ask_at_any_moment(hub: Hub) -> None:
    class Interrupted:
        """A socket on which a signal always comes in the middle of sending."""

        def __init__(self, sock: socket.socket) -> None:
            self.sock = sock

        def send(self, *args: Any) -> int:
            signal.raise_signal(signal.SIGUSR1)
            return self.sock.send(*args)

        def sendmsg(self, *args: Any) -> int:
            signal.raise_signal(signal.SIGUSR1)
            return self.sock.sendmsg(*args)

    def use_refs(number: int, frame: Any) -> None:
        answers_in_handler.append(hub.ask("from the handler").get(SOON))
        hub.tell("told by the handler")

    answers_in_handler: list[Any] = []
    assert hub.ask(0).get(SOON) == 0
    (current,) = hub.client._connections
    current.writer._sock = Interrupted(current.writer._sock)  # type: ignore[assignment]
    before = signal.signal(signal.SIGUSR1, use_refs)
    try:
        for number in range(1, 10):
            assert hub.ask(number).get(SOON) == number
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert answers_in_handler == ["from the handler"] * 9
    assert len(hub.client._connections) == 2


@pytest.mark.parametrize("send", [Hub.ask, Hub.tell])
def test_a_message_that_is_too_long_is_refused_and_harms_no_other(
    hub: Hub, send: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = hub.client.request(RequestKind.JOIN, "tree/one")
    monkeypatch.setattr(wire, "MAX_PAYLOAD", 1000)
    with pytest.raises(NotSerializable, match=r"the message has 20.. bytes, once encoded; at most 1000 can be sent"):
        send(hub, bytes(2000))
    with pytest.raises(NotSerializable, match="the header of a message has "):
        send(hub, "x", "x" * (wire.MAX_HEADER + 1))
    hub.echo.handle = bytes
    with pytest.raises(SuitkaiseError, match=r"the message has 20.. bytes"):
        hub.ask(2000).get(SOON)
    assert hub.ask(5).get(SOON) == bytes(5)
    assert not waiting.done()


def test_a_cancelled_request_and_one_of_an_ended_process_leave_nothing_behind(hub: Hub) -> None:
    kept = hub.client.request(RequestKind.JOIN, "tree/one")
    for _ in range(100):
        hub.client.request(RequestKind.JOIN, "tree/one").cancel()
    hub.client.request(RequestKind.INFO, "tree/one").get(SOON)
    assert len(hub.address._on_over) == 1
    hub.cut()
    with pytest.raises(RuntimeGone):
        kept.get(SOON)
    eventually(lambda: not hub.address._on_over)


def test_a_tell_in_the_thread_that_reads_answers_returns_at_once(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("suitkaise.messaging.router.DEFAULT_TIMEOUT", 600.0)
    told = threading.Event()

    def tell(done: Any) -> None:  # as a `__del__` that the garbage collector runs there
        hub.tell("from the reader")
        told.set()

    answer: Answer[Any] = Answer()
    answer.when_done(tell)
    hub.client.send("tree/one", Message("message", Payload("first"), answer.settle))

    assert told.wait(SOON)
    eventually(lambda: "from the reader" in hub.echo.got)
    assert hub.ask("second").get(SOON) == "second"


def test_a_tell_in_the_thread_that_reads_answers_whose_message_is_refused_is_a_dead_letter(hub: Hub) -> None:
    answer: Answer[Any] = Answer()
    answer.when_done(lambda done: hub.tell("x", "tree/two"))  # before it is asked, so that the reader calls it
    hub.client.send("tree/one", Message("message", Payload("first"), answer.settle))
    eventually(lambda: hub.registry.dead_letters.count("tree/two") == 1)


def test_the_thread_that_reads_answers_refuses_to_wait_for_one(hub: Hub) -> None:
    errors: list[BaseException] = []

    def wait(done: Any) -> None:
        try:
            hub.ask("never").get(600)
        except DeadlockError as error:
            errors.append(error)

    answer: Answer[Any] = Answer()
    answer.when_done(wait)
    hub.client.send("tree/one", Message("message", Payload("first"), answer.settle))

    eventually(lambda: errors)


def test_flush_without_a_time_out_waits_for_messages_that_nobody_waits_for() -> None:
    unawaited, accepted = Unawaited(), Answer[bool]()
    unawaited.add(accepted)
    waiting = in_background(lambda: unawaited.wait(math.inf))
    accepted.set_result(True)
    assert waiting.result(SOON) == 0
    unawaited.add(Answer())
    assert unawaited.wait(0.0) == 1


@pytest.mark.parametrize("where, name", [(wire.Parser, "receive"), (Known, "note_arrived")])
def test_an_error_where_answers_are_read_fails_those_that_are_awaited_and_the_next_request_connects_anew(
    hub: Hub, where: type, name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    usual = getattr(where, name)

    def fail_there(*args: Any) -> Any:
        if threading.current_thread().name == "suitkaise-hub-answers":
            raise MemoryError
        return usual(*args)

    assert hub.ask("first").get(SOON) == "first"
    [connection] = hub.client._connections
    awaited: Answer[Any] = Answer()
    connection.expect(awaited.settle)
    with monkeypatch.context() as patch:
        patch.setattr(where, name, fail_there)
        asked = hub.ask("second")
        with pytest.raises(RuntimeGone, match="MemoryError"):
            awaited.get(SOON)
        asked.exception(SOON)
    assert hub.ask("third").get(SOON) == "third"
    assert "MemoryError" in caplog.text


def test_a_signal_handler_may_send_while_its_thread_replaces_connections_that_have_ended(hub: Hub) -> None:
    def prepare() -> Any:
        for connection in hub.client._connections:
            connection.closed = True
            connection.close()
        return hub.client._current

    for connection in itertools.islice(interrupted_at_each_line(prepare, hub.client._current), 20):
        assert not connection.closed
    prepare()
