from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from suitkaise.storage.backends.lmdb_writer import Store
from suitkaise.storage.tree import Tree
from tests.storage.support import Storage, clear


@pytest.fixture
def storage() -> Iterator[Storage]:
    """A storage for one test, which may kill the server."""
    with Storage() as storage:
        yield storage


@pytest.fixture(scope="module")
def shared_storage() -> Iterator[Storage]:
    with Storage() as storage:
        yield storage


@pytest.fixture
def tree(shared_storage: Storage) -> Iterator[Tree]:
    """An empty tree. All tests of the module share the server."""
    tree = Tree(shared_storage.directory)
    clear(tree)
    yield tree
    tree.close()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A store that this process writes to, without a server."""
    store = Store(tmp_path)
    yield store
    store.close()
