from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from suitkaise.storage import pipeline
from suitkaise.storage.backends.store import Store
from suitkaise.storage.tree import Tree
from tests.redis_server import RedisProcess, needs_redis
from tests.storage import support
from tests.storage.support import Storage, clear

FILES = ("lmdb", "sqlite")
ENGINES = (*FILES, pytest.param("redis", marks=needs_redis))


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisProcess]:
    """One server for the storages of all tests."""
    server = RedisProcess()
    support.redis_server = server
    yield server
    support.redis_server = None
    server.close()


@pytest.fixture(scope="module", params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    """Each test that uses a storage runs with every engine."""
    name: str = request.param
    if name == "redis":
        request.getfixturevalue("redis_server")
    return name


@pytest.fixture(scope="module", params=FILES)
def file_engine(request: pytest.FixtureRequest) -> str:
    """A test of what concerns files runs with the engines that keep a storage in files."""
    name: str = request.param
    return name


@pytest.fixture(autouse=True)
def _short_linger(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the thread of the pipeline end soon after its last write, since each test waits for its end."""
    monkeypatch.setattr(pipeline, "LINGER", 0.01)


@pytest.fixture
def storage(engine: str) -> Iterator[Storage]:
    """A storage for one test, which may kill the server."""
    with Storage(engine=engine) as storage:
        yield storage


@pytest.fixture(scope="module")
def shared_storage(engine: str) -> Iterator[Storage]:
    with Storage(engine=engine) as storage:
        yield storage


@pytest.fixture
def tree(shared_storage: Storage) -> Iterator[Tree]:
    """An empty tree. All tests of the module share the server."""
    tree = Tree(shared_storage.directory)
    clear(tree)
    yield tree
    tree.close()


@pytest.fixture
def store(tmp_path: Path, engine: str) -> Iterator[Store]:
    """A store that this process writes to, without a server."""
    support.lead_to_redis(tmp_path, engine)
    store = Store(tmp_path, engine=engine)
    yield store
    store.close()
