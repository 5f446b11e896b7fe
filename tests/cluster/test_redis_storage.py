"""A storage in Redis: workers on nodes read from the server, and write and watch as with any other storage."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from suitkaise import Child, Process, Ray, Supervisor, sktree
from suitkaise.storage.backends.redis_address import Address, address_for_others, note_address
from suitkaise.storage.backends.redis_reader import RedisReader
from suitkaise.storage.backends.remote_reader import RemoteReader
from tests.cluster.workers import Keeps
from tests.redis_server import RedisProcess, needs_redis

pytestmark = needs_redis


@pytest.fixture(scope="module")
def server() -> Iterator[RedisProcess]:
    server = RedisProcess("--requirepass", "secret")
    yield server
    server.close()


class Reads(Process):
    def on_receive(self, message: Any) -> Any:
        tree = sktree.connect()
        tree.get("count", path="numbers")
        return type(tree._reader).__name__


@pytest.mark.parametrize("elsewhere", [True, False])
def test_workers_on_nodes_read_from_a_server_that_they_can_reach_and_else_from_the_program(
    cluster: Any, server: RedisProcess, monkeypatch: pytest.MonkeyPatch, elsewhere: bool
) -> None:
    cluster("only")
    if elsewhere:  # the node of this test sees the socket of this machine
        monkeypatch.setattr(Address, "is_local", False)
    storage = sktree.connect(engine=server.url(user=":secret@"))
    try:
        with Supervisor("app", Child(Keeps, id="left"), Reads, engine=Ray()).start() as running:
            assert running["left"].ask("count", timeout=60.0) == 100
            assert storage.get("count", path="numbers") == 100
            assert running["left"].ask("watch", timeout=30.0) == "watched"
            assert running["left"].ask("transaction", timeout=30.0) == ["count", "left", "right", "watched"]
            expected = RedisReader if elsewhere else RemoteReader
            assert running["reads"].ask("which", timeout=60.0) == expected.__name__
            assert storage.get("left", path="numbers") == 100
    finally:
        sktree.disconnect()


@pytest.mark.parametrize(
    "url, travels",
    [
        ("redis://cache/0?name=shop", True),
        ("rediss://10.0.0.7:7000/0?name=shop", True),
        ("redis://localhost/0?name=shop", False),
        ("redis://127.0.0.1/0?name=shop", False),
        ("redis://[::1]/0?name=shop", False),
        ("unix:///run/redis.sock?name=shop", False),
    ],
)
def test_an_address_that_means_another_server_elsewhere_does_not_travel(
    tmp_path: Path, url: str, travels: bool
) -> None:
    assert address_for_others(tmp_path) is None
    note_address(tmp_path, url)
    assert (address_for_others(tmp_path) is not None) is travels
