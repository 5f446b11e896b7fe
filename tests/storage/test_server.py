from __future__ import annotations

import contextlib
import logging
import os
import socket
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from suitkaise.errors import StorageFull
from suitkaise.messaging import codec, wire
from suitkaise.platform import sockets
from suitkaise.storage import connections, server
from suitkaise.storage.client import SOCKET
from suitkaise.storage.protocol import (
    VERSION,
    Atomic,
    ContainerVersion,
    Forget,
    Hello,
    Increment,
    Put,
    PutMode,
    Remove,
    Reply,
    ReplyCode,
    Watch,
    Welcome,
    decode_answer,
)
from suitkaise.storage.records import encode_value
from suitkaise.storage.server import StorageServer
from suitkaise.storage.tree import Tree
from tests.storage.support import lead_to_redis

MARKED: dict[str, str | int | float | bool | None] = {"remove_on_process_join": True}


class ServerInThread:
    """A server in a thread of the test process, so that tests can inspect it."""

    def __init__(self, directory: Path, engine: str = "lmdb") -> None:
        self.directory = directory
        lead_to_redis(directory, engine)
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(str(directory / SOCKET))
        self.listener.listen(100)
        self.server = StorageServer(directory, self.listener, engine=engine)
        self.stop = os.eventfd(0)
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self.run)
        self.running = True
        self.thread.start()

    def run(self) -> None:
        try:
            while self.running:
                self.server.serve(None, self.stop)
        except BaseException as error:
            self.error = error

    def close(self) -> None:
        self.running = False
        os.eventfd_write(self.stop, 1)
        self.thread.join(15)
        self.server.close()
        self.listener.close()
        os.close(self.stop)
        assert self.error is None

    @contextlib.contextmanager
    def connect(self, client_id: bytes = b"c" * 16, *, hello: bool = True) -> Iterator[RawClient]:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(5)
            sock.connect(str(self.directory / SOCKET))
            client = RawClient(sock)
            if hello:
                client.welcome = client.ask(Hello(VERSION, client_id))
            yield client


class RawClient:
    """A connection that sends exactly the frames that the test makes."""

    welcome: Welcome

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.parser = wire.Parser(decode=decode_answer)
        self.answers: list[Any] = []

    def ask(self, header: Any, payload: bytes = b"") -> Any:
        self.send(header, payload)
        return self.receive()

    def send(self, header: Any, payload: bytes = b"") -> None:
        wire.send(self.sock, header, payload)

    def receive(self) -> Any:
        while not self.answers:
            self.answers += [header for header, _ in self.parser.receive(self.sock)]
        return self.answers.pop(0)

    def is_closed(self) -> bool:
        try:
            self.receive()
        except ConnectionError:
            return True
        return False


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[ServerInThread]:
    serving = ServerInThread(tmp_path)
    yield serving
    serving.close()


def put(number: int, name: str, value: Any, *, quiet: bool = False, **options: Any) -> tuple[Put, bytes]:
    encoding, payload = encode_value(value)
    return Put(number, quiet, "p", name, encoding, **options), payload


def test_the_welcome_holds_the_last_request_that_was_carried_out(serving: ServerInThread) -> None:
    with serving.connect() as client:
        assert client.welcome == Welcome(0, [])
        assert client.ask(*put(1, "a", 1)) == Reply(1, ReplyCode.OK, 1)
    with serving.connect() as client:
        assert client.welcome == Welcome(1, [Reply(1, ReplyCode.OK, 1)])
    with serving.connect(b"another") as client:
        assert client.welcome == Welcome(0, [])


def test_a_request_that_is_sent_again_is_carried_out_once(serving: ServerInThread) -> None:
    one = Increment(1, False, "p", "n", encode_value(1), encode_value(0))
    with serving.connect() as client:
        assert client.ask(one).detail == [1, b"\x01"]
        assert client.ask(one) == Reply(1, ReplyCode.OK, 1)
    with serving.connect() as client:
        assert client.welcome.replies == [Reply(1, ReplyCode.OK, 1, [1, b"\x01"])]
        client.ask(one)
        assert client.ask(Increment(2, False, "p", "n", encode_value(1), encode_value(0))).detail == [1, b"\x02"]


def test_quiet_requests_share_one_reply_and_each_refusal_has_its_own(serving: ServerInThread) -> None:
    with serving.connect() as client:
        frames = [wire.encode(*put(number, "a", number, quiet=True)) for number in range(1, 51)]
        frames[20] = wire.encode(Remove(21, True, "p", "missing"))
        client.sock.sendall(b"".join(frames))
        replies = [client.receive()]
        while replies[-1].request < 50:
            replies.append(client.receive())
        assert [reply.request for reply in replies if reply.status is ReplyCode.MISSING] == [21]
        assert len(replies) < 10


def test_the_welcome_repeats_refusals_that_may_not_have_arrived(serving: ServerInThread) -> None:
    with serving.connect() as client:
        client.ask(*put(1, "a", 1))
        for number in (2, 3, 4):
            assert client.ask(*put(number, "a", 1, quiet=True, mode=PutMode.NEW)).status is ReplyCode.EXISTS
    with serving.connect() as client:
        assert [reply.request for reply in client.welcome.replies] == [2, 3, 4]
        client.ask(*put(5, "a", 2))
    with serving.connect() as client:
        assert [reply.request for reply in client.welcome.replies] == [2, 3, 4, 5]
        client.ask(*put(6, "a", 2))
    with serving.connect() as client:
        assert [reply.request for reply in client.welcome.replies] == [6], (
            "a client that waited for 5 has received the earlier replies"
        )


def test_an_older_connection_of_a_client_is_closed_by_its_newer_one(serving: ServerInThread) -> None:
    with serving.connect() as old, serving.connect() as new:
        assert old.is_closed()
        assert new.ask(*put(1, "a", 1)).status is ReplyCode.OK


@pytest.mark.parametrize(
    "invalid",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\0" * 64,
        os.urandom(1000),
        wire.encode(("not", "a", "request")),
        wire.encode(Hello(VERSION + 1, b"x")),
        wire.encode(put(1, "a", 1)[0]),
        wire.encode(Hello(VERSION, b"x")) + wire.encode(Put(1, False, "a//b", "n", 0)),
        wire.encode(Hello(VERSION, b"x")) + wire.encode(Put(1, False, "a", "", 0)),
        wire.encode(Hello(VERSION, b"x")) + wire.encode(Increment(1, False, "a", "b", (2, b""), (1, b""))),
        wire.encode(Hello(VERSION, b"x")) + wire.encode(Put(1, False, "a", "b", 9)),
        wire.encode(Hello(VERSION, b"x")) + wire.encode(Put(1, False, "a", "b", 0, metadata=MARKED, owner="plain")),
        wire.encode(Hello(VERSION, b"x")) + wire.encode(Forget(1, False, "plain", True)),
        wire.encode(Hello(VERSION, b"x")) + wire.encode(Forget(1, False, "plain", False)),
        wire.encode(Watch(VERSION + 1, "a", None)),
        wire.encode(Watch(VERSION, "a//b", None)),
        wire.encode(Watch(VERSION, "a", None)) + wire.encode(Watch(VERSION, "b", None)),
        wire.encode(Hello(VERSION, b"x")) + wire.encode(Watch(VERSION, "a", None)),
    ],
    ids=range(17),
)
def test_an_invalid_request_closes_its_connection_and_is_logged(
    serving: ServerInThread, invalid: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), serving.connect(b"good") as good:
        with serving.connect(hello=False) as bad:
            bad.sock.sendall(invalid)
            while not bad.is_closed():
                pass
        assert good.ask(*put(1, "a", 1)).status is ReplyCode.OK
    assert f"connection from pid {os.getpid()} closed: invalid " in caplog.text


def test_an_invalid_request_does_not_affect_other_clients_in_the_same_transaction(serving: ServerInThread) -> None:
    with serving.connect(b"bad") as bad, serving.connect(b"good") as good:
        for number in range(1, 20):
            good.send(*put(number, "a", number, quiet=True))
            if number == 10:
                bad.send(Put(1, False, "a//b", "n", 0))
        good.send(*put(20, "b", 1))
        while good.receive().request < 20:
            pass
        assert bad.is_closed()
    tree = Tree(serving.directory)
    assert tree.get_all_from("p") == {"a": 19, "b": 1}
    tree.close()


def test_a_connection_of_another_user_is_refused(
    serving: ServerInThread, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sockets, "peer_of", lambda sock: (os.getpid(), os.geteuid() + 1))
    with caplog.at_level(logging.WARNING), serving.connect(hello=False) as client:
        assert client.is_closed()
    assert "refused" in caplog.text
    assert serving.server.client_count == 0


def test_a_client_that_does_not_read_blocks_no_other_and_its_output_is_bounded(
    serving: ServerInThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "MAX_OUTPUT", 1 << 14)
    monkeypatch.setattr(connections, "_BUFFER", 1 << 14)
    with serving.connect(b"lazy") as lazy, serving.connect(b"busy") as busy:
        refused = b"".join(
            wire.encode(*put(number, "a", 1, quiet=True, mode=PutMode.EXISTING)) for number in range(1, 20_000)
        )
        lazy.sock.setblocking(False)
        sent, busy_number = 0, 0
        with contextlib.suppress(BlockingIOError):
            while sent < len(refused):
                sent += lazy.sock.send(refused[sent : sent + (1 << 16)])
                busy_number += 1
                busy.ask(*put(busy_number, "b", 1))  # the reply proves that the server has read what it accepts
        assert sent < len(refused), "the server read on although its replies were not read"
        assert busy.ask(*put(busy_number + 1, "b", 1)).status is ReplyCode.OK
        waiting = max(len(one.output) for one in serving.server._connections._connections)
        assert connections.MAX_OUTPUT <= waiting < connections.MAX_OUTPUT + (1 << 20)
        lazy.sock.settimeout(5)
        seen = 0
        while seen < 1000:  # the server goes on once its replies are read
            lazy.receive()
            seen += 1


def test_a_frame_cut_short_by_the_end_of_the_connection_is_ignored(serving: ServerInThread) -> None:
    with serving.connect() as client:
        client.sock.sendall(wire.encode(*put(1, "a", "x" * 1000))[:-5])
    with serving.connect() as client:
        assert client.welcome == Welcome(0, [])


def test_a_frame_that_claims_a_gigabyte_and_a_writer_of_single_bytes_delay_and_cost_nothing(
    serving: ServerInThread,
) -> None:
    with serving.connect(b"good") as good, serving.connect(b"liar") as liar, serving.connect(b"slow") as slow:
        claim = wire.encode(put(1, "lie", 1)[0])
        liar.sock.sendall(claim[:4] + (1 << 30).to_bytes(4, "little") + claim[8:])
        one_by_one = wire.encode(*put(1, "slow", 1))
        for number, byte in enumerate(one_by_one, start=1):
            slow.sock.sendall(bytes([byte]))
            assert good.ask(*put(number, "a", number)).status is ReplyCode.OK
        assert slow.receive().status is ReplyCode.OK
        kept = [len(connection.parser._buffer) for connection in serving.server._connections._connections]
        assert max(kept) < 1 << 20
    with contextlib.closing(Tree(serving.directory)) as tree:
        assert tree.get_all_from("p") == {"a": len(one_by_one), "slow": 1}


def test_an_atomic_request_is_all_or_nothing(serving: ServerInThread) -> None:
    values = [encode_value(value) for value in ("x", [1, 2])]
    payload = b"".join(data for _, data in values)
    puts: list[Put | Remove] = [
        Put(0, False, "p", name, encoding, metadata={}) for name, (encoding, _) in zip("xy", values, strict=True)
    ]
    sizes = [len(data) for _, data in values]
    with serving.connect() as client:
        revision = client.ask(*put(1, "a", 1)).revision
        lost = Atomic(2, False, [*puts, Remove(0, False, "p", "a")], sizes, [("p", "a", revision + 1)], [])
        assert client.ask(lost, payload) == Reply(2, ReplyCode.CONFLICT, revision, ["p", "a"])
        lost = Atomic(3, False, puts, sizes, [], [ContainerVersion("p", 2, revision)])
        assert client.ask(lost, payload) == Reply(3, ReplyCode.CONFLICT, revision, ["p", ""])
        tree = Tree(serving.directory)
        assert tree.get_all_from("p") == {"a": 1}
        won = Atomic(
            4,
            False,
            [*puts, Remove(0, False, "p", "a")],
            sizes,
            [("p", "a", revision)],
            [ContainerVersion("p", 1, revision)],
        )
        assert client.ask(won, payload).status is ReplyCode.OK
        assert tree.get_all_from("p") == {"x": "x", "y": [1, 2]}
        tree.close()


def test_the_server_never_decodes_a_value(serving: ServerInThread) -> None:
    with serving.connect() as client:
        assert client.ask(Put(1, False, "p", "a", 0), b"this is no pickle").status is ReplyCode.OK
        assert client.ask(Put(2, False, "p", "l", 3), b"nor this").status is ReplyCode.OK
        tree = Tree(serving.directory)
        tree.append("l", 1, "p")
        with pytest.raises(Exception, match=r"MARK|pickle"):
            tree.get("a", "p")
        tree.close()


def test_the_server_does_not_decode_a_pickle_in_the_place_of_a_number(serving: ServerInThread) -> None:
    pickle = codec.dumps(print)
    with serving.connect() as client:
        for number, (amount, start) in enumerate([((0, pickle), (1, b"")), ((1, b""), (0, pickle))], 1):
            reply = client.ask(Increment(number, False, "p", "n", amount, start))
            assert reply.status is ReplyCode.NOT_A_NUMBER


def test_a_sum_that_fits_into_no_reply_is_stored_and_read(tmp_path: Path, file_engine: str) -> None:
    large = 1 << (9 << 20)
    with closing(ServerInThread(tmp_path, file_engine)), closing(Tree(tmp_path)) as tree:
        tree.add("n", large, path="p")
        assert tree.increment("n", path="p") == large + 1
        assert tree.increment("small", 2, path="p") == 2  # the server goes on


def test_an_entry_that_is_too_large_for_sqlite_is_refused_and_all_else_goes_on(tmp_path: Path) -> None:
    with closing(ServerInThread(tmp_path, "sqlite")) as serving, closing(Tree(tmp_path)) as tree:
        opened: Any = serving.server._store.opened
        opened._connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 100_000)  # its own limit takes 1 GB to reach
        with pytest.raises(StorageFull, match=r"no room is left for 'a' in 'p': an entry in SQLite may have 1,000,000"):
            tree.add("a", bytes(100_000), path="p")
        tree.append("list", "x" * 60_000, path="p")
        with pytest.raises(StorageFull, match=r"'list' in 'p': an entry in SQLite"):
            tree.append("list", "x" * 60_000, path="p")
        tree.add("b", 1, path="p")
        assert tree.get_all_from("p") == {"b": 1, "list": ["x" * 60_000]}


def test_a_readable_wake_descriptor_ends_a_cycle_without_requests(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / SOCKET))
        listener.listen()
        served = StorageServer(tmp_path, listener)
        wake, other = os.eventfd(1), os.eventfd(0)
        served.serve(None, wake)
        served.serve(None, other, wake)
        assert os.eventfd_read(wake) == 1
        served.serve(0.001, other)
        os.close(wake)
        served.serve(0.001, other)
        served.serve(0.001)
        os.close(other)
        served.close()


def test_reaping_lets_other_clients_write_and_replies_at_its_end(
    serving: ServerInThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "REAP_AT_ONCE", 10)
    with serving.connect(b"one") as one, serving.connect(b"two") as two:
        for number in range(1, 101):
            one.ask(*put(number, f"n{number}", 1, metadata=MARKED, owner="w#1"))
        one.send(Forget(101, False, "w#1", True))
        assert two.ask(*put(1, "other", 1)).status is ReplyCode.OK
        assert two.ask(*put(2, "late", 1, owner="w#1")).status is ReplyCode.OWNER_DEAD
        assert one.receive().status is ReplyCode.OK
    tree = Tree(serving.directory)
    assert tree.get_all_from("p") == {"other": 1}
    tree.close()


def test_without_free_descriptors_a_connection_is_closed_and_the_server_goes_on(
    serving: ServerInThread, caplog: pytest.LogCaptureFixture
) -> None:
    with serving.connect(b"first") as first:
        # As if this process had reached its limit of open descriptors.
        serving.server._connections._turn_away(OSError(24, "Too many open files"))
        assert "cannot accept a connection: [Errno 24]" in caplog.text
        with serving.connect(b"second") as second:
            assert second.ask(*put(1, "a", 1)).status is ReplyCode.OK
        assert first.ask(*put(1, "a", 1)).status is ReplyCode.OK
