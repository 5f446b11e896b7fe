"""Whom a process connects to, and whose connections it accepts. The other user is 65534, so root must run this."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from suitkaise.errors import RuntimeGone, StorageError
from suitkaise.messaging.answer import DEFAULT_TIMEOUT
from suitkaise.messaging.protocol import RequestKind
from suitkaise.messaging.router import HubClient
from suitkaise.platform.sockets import Peers, UntrustedServer, accept_own, bind_unix, connect_own, is_trusted
from suitkaise.storage.client import SOCKET, Client
from tests.support import STRANGER, eventually, only_root, stranger


def serve(path: Path) -> Callable[[int], None]:
    """Return an act: listen at `path`, and write what a client sends."""

    def act(out: int) -> None:
        listener = socket.socket(socket.AF_UNIX)
        bind_unix(listener, path)
        listener.listen()
        os.write(out, b"listening\n")
        while True:
            sock, _ = listener.accept()
            os.write(out, b"got " + sock.recv(100) + b"\n")

    return act


@pytest.fixture
def open_to_all() -> Iterator[Path]:
    """A folder in which another user can make a socket; `tmp_path` lies below folders of this user."""
    with tempfile.TemporaryDirectory(prefix="open-to-all-") as folder:
        os.chmod(folder, 0o777)
        yield Path(folder)


@only_root
def test_a_client_sends_nothing_to_the_server_of_another_user(open_to_all: Path) -> None:
    path = open_to_all / "hub.sock"
    with stranger(serve(path)) as told:
        assert os.read(told, 100) == b"listening\n"
        with socket.socket(socket.AF_UNIX) as sock, pytest.raises(UntrustedServer, match=f"of user {STRANGER} listens"):
            connect_own(sock, path)
        assert os.read(told, 100) == b"got \n"


@only_root
def test_a_worker_tells_a_hub_of_another_user_nothing_and_believes_it_nothing(open_to_all: Path) -> None:
    path = open_to_all / "hub.sock"
    with stranger(serve(path)) as told:
        assert os.read(told, 100) == b"listening\n"
        with pytest.raises(RuntimeGone, match=f"of user {STRANGER} listens"):
            HubClient(str(path)).request(RequestKind.STORAGE, "").get(DEFAULT_TIMEOUT)
        assert os.read(told, 100) == b"got \n"


@only_root
def test_a_client_of_the_storage_refuses_an_actor_of_another_user_at_once(open_to_all: Path) -> None:
    with stranger(serve(open_to_all / SOCKET)) as told:
        assert os.read(told, 100) == b"listening\n"
        client = Client(str(open_to_all), 30.0)
        with pytest.raises(StorageError, match=f"of user {STRANGER} listens"):
            client.ping()
        client.close()
        assert os.read(told, 100) == b"got \n"


@only_root
def test_a_connection_of_another_user_is_closed_before_a_byte_is_read(
    open_to_all: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = open_to_all / "ours.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        bind_unix(listener, path)
        path.chmod(0o777)
        listener.listen()
        listener.setblocking(False)

        def act(out: int) -> None:
            with socket.socket(socket.AF_UNIX) as sock:
                sock.connect(str(path))
                os.write(out, b"connected\n")
                os.write(out, b"answer " + sock.recv(100) + b"\n")

        with stranger(act) as told:
            assert os.read(told, 100) == b"connected\n"
            assert list(accept_own(listener, Peers(9))) == []
            assert os.read(told, 100) == b"answer \n"
    eventually(lambda: any(f"of user {STRANGER} refused" in line for line in caplog.messages))


@only_root
@pytest.mark.parametrize("effective, trusted", [(0, {0}), (STRANGER, {0, STRANGER})])
def test_the_effective_user_and_root_are_trusted_and_nobody_else(effective: int, trusted: set[int]) -> None:
    os.seteuid(effective)
    try:
        assert {uid for uid in (0, 1, 1000, STRANGER) if is_trusted(uid)} == trusted
    finally:
        os.seteuid(0)


def test_a_client_connects_to_a_server_of_its_own_user(tmp_path: Path) -> None:
    path = tmp_path / "ours.sock"
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as sock:
        bind_unix(listener, path)
        listener.listen()
        connect_own(sock, path)
        listener.setblocking(False)
        [(accepted, pid)] = accept_own(listener, Peers(9))
        accepted.close()
        assert pid == os.getpid()


def test_a_process_gets_a_limited_number_of_connections_until_one_of_them_ends(tmp_path: Path) -> None:
    path, peers = tmp_path / "ours.sock", Peers(2)
    with socket.socket(socket.AF_UNIX) as listener:
        bind_unix(listener, path)
        listener.listen()
        listener.setblocking(False)
        clients = [socket.socket(socket.AF_UNIX) for _ in range(4)]
        for client in clients[:3]:
            client.connect(str(path))
        accepted = list(accept_own(listener, peers))
        assert [pid for _, pid in accepted] == [os.getpid()] * 2
        assert clients[2].recv(1) == b"", "one too many"
        peers.forget(os.getpid())
        clients[3].connect(str(path))
        accepted += accept_own(listener, peers)
        assert len(accepted) == 3
        for sock in (*clients, *(sock for sock, _ in accepted)):
            sock.close()
