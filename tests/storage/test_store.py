from __future__ import annotations

import mmap
import os
import time
from pathlib import Path
from typing import Any

import pytest

from suitkaise.errors import StorageError, StorageFull
from suitkaise.storage.backends import store as stores
from suitkaise.storage.backends.reader import Reader, reader_of
from suitkaise.storage.backends.store import Store, WriteTransaction
from suitkaise.storage.protocol import ClientRecord, Reply
from tests.storage.support import put_entry, run_in_process, values_in


def test_committed_entries_are_there_after_the_store_was_closed_and_opened(tmp_path: Path) -> None:
    first = Store(tmp_path)
    first.write(put_entry("a", [1]))
    first.write(put_entry("a", [2]))
    first.close()
    second = Store(tmp_path)
    assert second.revision == 2
    second.close()
    reader = Reader(tmp_path)
    assert values_in(reader) == [[2]]
    reader.close()


def test_a_transaction_that_raises_stores_nothing(store: Store) -> None:
    def work(transaction: WriteTransaction) -> None:
        put_entry("a", 1)(transaction)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        store.write(work)
    assert store.revision == 0
    store.write(put_entry("b", 1))
    assert values_in(Reader(store.directory)) == [1]


def test_an_entry_that_is_too_large_for_lmdb_is_refused_and_the_store_goes_on(tmp_path: Path) -> None:
    store = Store(tmp_path, engine="lmdb")
    with mmap.mmap(-1, (1 << 32) + 1) as large, pytest.raises(StorageFull, match="4 GiB at most"):
        store.write(lambda transaction: transaction.raw.put(b"a", large, db=store.entries))
    store.write(put_entry("b", 1))
    assert values_in(reader_of(tmp_path)) == [1]
    store.close()


def test_a_second_writer_is_refused_in_this_process_and_in_another(store: Store) -> None:
    with pytest.raises(StorageError, match=r"this process writes to the storage in .* already"):
        Store(store.directory)
    program = """
import sys
from pathlib import Path
from suitkaise.storage.backends.store import Store
try:
    Store(Path(sys.argv[1]))
except Exception as error:
    print(error)
"""
    with run_in_process(program, store.directory) as other:
        assert "another process writes to the storage in" in other.communicate()[0]


def test_a_full_map_grows_and_the_transaction_runs_again(tmp_path: Path) -> None:
    small = Store(tmp_path, map_size=1 << 17)
    runs = []

    def work(transaction: WriteTransaction) -> None:
        runs.append(1)
        for index in range(50):
            put_entry(f"n{index}", b"x" * 30_000)(transaction)

    small.write(work)
    assert len(runs) > 1
    assert small.revision == 50
    assert len(values_in(reader_of(tmp_path))) == 50
    small.close()


@pytest.mark.parametrize("engine", ["lmdb"], scope="module")
def test_maintain_frees_the_slots_of_dead_readers(store: Store) -> None:
    program = """
import sys
from pathlib import Path
from suitkaise.storage.backends.reader import Reader
reader = Reader(Path(sys.argv[1]))
reader.get(b"a")
transaction = reader._opened.begin()
print("in", flush=True)
sys.stdin.read()
"""
    store.write(put_entry("a", 1))
    with run_in_process(program, store.directory) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "in\n"
        slots: Any = store.opened
        assert str(other.pid) in slots.readers()
        other.kill()
        other.wait()
        store.maintain()
        assert str(other.pid) not in slots.readers()


def test_a_forked_child_may_not_write_to_its_parents_store(store: Store) -> None:
    child = os.fork()
    if child == 0:
        code = 1
        try:
            store.write(put_entry("a", 1))
        except StorageError:
            store.close()
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    store.write(put_entry("a", 2))
    assert store.revision == 1


def test_the_highest_dead_incarnation_of_each_owner_is_stored(tmp_path: Path) -> None:
    first = Store(tmp_path)
    first.write(lambda transaction: transaction.mark_dead("a/b#5"))
    first.write(lambda transaction: transaction.mark_dead("a/b#3"))
    first.close()
    second = Store(tmp_path)
    assert [second.is_dead(f"a/b#{number}") for number in (3, 5, 6)] == [True, True, False]
    assert not second.is_dead("a/c#1")
    assert len(second.dead_owners) == 1
    second.close()


def test_the_number_of_stored_dead_owners_is_bounded(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "MAX_DEAD_OWNERS", 10)
    for number in range(25):
        store.write(lambda transaction, number=number: transaction.mark_dead(f"w{number}#1"))
    assert len(store.dead_owners) <= 10
    assert store.is_dead("w24#1")
    directory = store.directory
    store.close()
    again = Store(directory)
    assert len(again.dead_owners) <= 10
    again.close()


def test_reaping_goes_in_portions_and_an_interrupted_reaping_is_found_again(tmp_path: Path) -> None:
    first = Store(tmp_path)

    def fill(transaction: WriteTransaction) -> None:
        for number in range(25):
            put_entry(f"n{number}", number, owner="a/b#2")(transaction)
        put_entry("other", 0, owner="a/b#3")(transaction)

    first.write(fill)
    first.write(lambda transaction: transaction.mark_dead("a/b#2"))
    assert first.write(lambda transaction: transaction.reap("a/b#2", earlier=True, limit=10)) == 10
    assert first.dead_with_entries() == {"a/b#2"}
    first.close()
    second = Store(tmp_path)
    assert second.dead_with_entries() == {"a/b#2"}
    assert second.write(lambda transaction: transaction.reap("a/b#2", earlier=True, limit=100)) == 15
    assert second.dead_with_entries() == set()
    assert values_in(reader_of(tmp_path)) == [0]
    second.close()


def test_records_of_clients_that_are_gone_for_long_are_removed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def work(transaction: WriteTransaction) -> None:
        for name in (b"gone", b"here", b"late"):
            transaction.client(name).last = 7
            transaction.client(name).replies.append(Reply(7))

    store.write(work)
    assert store.forget_clients([b"here"]) == 0
    monkeypatch.setattr(time, "time", lambda now=time.time: now() + stores.FORGET_CLIENTS_AFTER + 1)
    store.write(lambda transaction: setattr(transaction.client(b"late"), "last", 8))
    assert store.forget_clients([b"here"]) == 1
    store.write(lambda transaction: [transaction.look_up_client(n) for n in (b"gone", b"here", b"late")])
    assert store.write(lambda transaction: transaction.look_up_client(b"gone")) == ClientRecord()
    assert store.write(lambda transaction: transaction.look_up_client(b"here")).last == 7
    assert store.write(lambda transaction: transaction.look_up_client(b"late")).replies == [Reply(7)]


def test_only_the_owner_may_access_the_files(store: Store) -> None:
    store.write(put_entry("a", 1))
    for path in store.directory.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path


@pytest.mark.parametrize("engine", ["lmdb"], scope="module")
def test_the_lock_file_has_no_holes(store: Store) -> None:
    lock = store.directory / "store" / "lock.mdb"
    assert lock.stat().st_blocks * 512 >= lock.stat().st_size, "a hole would be a SIGBUS on a full tmpfs"
