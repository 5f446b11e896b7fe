"""Which process listens on a port or a Unix socket."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from suitkaise.platform.listeners import holder_of, holds_one, name_of, tcp_listeners, unix_listeners


def inode_of(sock: socket.socket) -> int:
    return os.fstat(sock.fileno()).st_ino


def test_a_listener_is_found_by_its_address_or_as_one_for_all_addresses() -> None:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("0.0.0.0", 0)) as every:
        assert tcp_listeners("127.0.0.1", one.getsockname()[1]) == {inode_of(one)}
        assert tcp_listeners("127.0.0.2", one.getsockname()[1]) == set()
        assert tcp_listeners("127.0.0.1", every.getsockname()[1]) == {inode_of(every)}
        assert tcp_listeners("127.0.0.1", 1) == set()


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 here")
def test_a_listener_for_ipv6_is_found_and_one_for_both_protocols_by_either_address() -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as one:
        assert tcp_listeners("::1", one.getsockname()[1]) == {inode_of(one)}
        assert tcp_listeners("127.0.0.1", one.getsockname()[1]) == set()
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as both:
        for address in ("::1", "127.0.0.1", "fe80::1%lo"):
            assert tcp_listeners(address, both.getsockname()[1]) == {inode_of(both)}
    with socket.create_server(("::ffff:127.0.0.1", 0), family=socket.AF_INET6, dualstack_ipv6=True) as mapped:
        assert tcp_listeners("127.0.0.1", mapped.getsockname()[1]) == {inode_of(mapped)}


def test_a_connection_is_no_listener() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        assert tcp_listeners("127.0.0.1", client.getsockname()[1]) == set()


def test_a_listening_unix_socket_is_found_by_the_last_part_of_its_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as one, socket.socket(socket.AF_UNIX) as silent:
        one.bind(f"a name with spaces {os.getpid()}")
        one.listen()
        silent.bind(str(tmp_path / "silent"))
        assert unix_listeners(f"/elsewhere/a name with spaces {os.getpid()}") == {inode_of(one)}
        assert inode_of(silent) not in unix_listeners("silent")


def test_the_process_that_has_a_socket_open_is_found_and_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        assert holds_one([1 << 22, os.getpid()], {inode_of(sock)})
        assert not holds_one([1 << 22, os.getpid()], {0})
        assert holder_of({inode_of(sock)}) == name_of(os.getpid())
    assert name_of(os.getpid()).endswith(f"(pid {os.getpid()})")
    assert name_of(1 << 22) == f"a process that is gone (pid {1 << 22})"


def test_a_process_whose_descriptors_cannot_be_read_may_have_the_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str) -> list[str]:
        raise PermissionError(path)

    monkeypatch.setattr(os, "listdir", refuse)
    assert holds_one([os.getpid()], {1})
