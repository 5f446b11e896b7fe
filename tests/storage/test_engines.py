"""What differs between the engines; every other test of the storage runs with each of them."""

from __future__ import annotations

import logging
from contextlib import closing
from pathlib import Path

import pytest

from suitkaise.errors import StorageError
from suitkaise.storage import server
from suitkaise.storage.backends.engines import chosen_engine, engine_named, engine_of
from suitkaise.storage.backends.store import Store
from suitkaise.storage.tree import Tree
from tests.storage.support import run_in_process
from tests.storage.test_server import ServerInThread
from tests.support import eventually, run_program

READS_FOR_LONG = """
import sys
from pathlib import Path
from suitkaise.storage.backends.reader import Reader
reader = Reader(Path(sys.argv[1]))
reader.get(b"a")
transaction = reader._opened.begin(reader._entries)
transaction.get(b"a")
print("in", flush=True)
sys.stdin.read()
"""


def test_a_new_storage_is_lmdb_and_an_old_one_keeps_its_engine(tmp_path: Path, file_engine: str) -> None:
    engine = file_engine
    assert engine_of(tmp_path) is None
    assert chosen_engine(tmp_path, None) == "lmdb"
    Store(tmp_path, engine=engine).close()
    assert engine_of(tmp_path) == chosen_engine(tmp_path, None) == chosen_engine(tmp_path, engine) == engine


def test_a_storage_of_another_engine_is_refused(tmp_path: Path) -> None:
    Store(tmp_path, engine="sqlite").close()
    with pytest.raises(StorageError, match="was made with engine='sqlite', so 'lmdb' cannot open it; leave out"):
        Store(tmp_path, engine="lmdb")


def test_an_engine_that_does_not_exist_is_refused() -> None:
    with pytest.raises(StorageError, match="is 'lmdb', 'sqlite' or the URL of a Redis server, not 'oracle'"):
        engine_named("oracle")


def test_without_the_package_lmdb_the_storage_is_in_sqlite(tmp_path: Path) -> None:
    program = """
import sys
sys.modules["lmdb"] = None
from pathlib import Path
from suitkaise.storage.backends.engines import engine_of
from suitkaise.storage.backends.store import Store
from suitkaise.storage.tree import Tree
from suitkaise.storage.tree import Tree
from suitkaise.errors import StorageError
Store(Path(sys.argv[1])).close()
print(engine_of(Path(sys.argv[1])))
try:
    Store(Path(sys.argv[1]).parent, engine="lmdb")
except StorageError as error:
    print(error)
"""
    (tmp_path / "new").mkdir()
    lines = run_program(program, str(tmp_path / "new")).check().stdout.splitlines()
    assert lines[0] == "sqlite"
    assert lines[1].startswith("the engine 'lmdb' needs the package lmdb, which cannot be imported")
    assert lines[1].endswith("install it, or use engine='sqlite'")


def test_a_reader_that_is_stuck_on_an_old_state_is_reported_once(
    tmp_path: Path, file_engine: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(server, "STUCK_AFTER", 0.0)
    monkeypatch.setattr(server, "MAINTENANCE_INTERVAL", 0.0)
    with (
        caplog.at_level(logging.WARNING, "suitkaise.storage"),
        closing(ServerInThread(tmp_path, file_engine)),
        closing(Tree(tmp_path)) as tree,
    ):
        tree.add("a", 1, "w")
        with run_in_process(READS_FOR_LONG, tmp_path) as other:
            assert other.stdout is not None
            assert other.stdout.readline() == "in\n"
            blob = bytes(1 << 20)
            for number in range(24):  # SQLite tells once its log is long
                tree.add(f"n{number}", blob, "w")
            told = eventually(lambda: [line for line in caplog.messages if "an old state of the storage" in line])
            if file_engine == "lmdb":
                assert told[0].startswith(f"pid {other.pid} has been reading an old state")
            assert len(told) == 1
