from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lmdb
import pytest

from suitkaise.errors import StorageError
from suitkaise.storage.backends import lmdb_environment as environment
from suitkaise.storage.backends import lmdb_writer
from suitkaise.storage.backends.lmdb_reader import NotThereYet, Reader, reader_of
from suitkaise.storage.backends.lmdb_writer import Store, WriteTransaction
from suitkaise.storage.backends.revision import RevisionWord
from suitkaise.storage.keys import MAX_KEY, entry_key
from suitkaise.storage.protocol import ClientRecord, Reply
from suitkaise.storage.records import Encoding, encode_value, value_of
from tests.storage.support import run_in_process


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Store]:
    with_store = Store(tmp_path)
    yield with_store
    with_store.close()


def put(name: str, value: Any, path: str = "p", owner: str | None = None) -> Any:
    key, long_key = entry_key(path, name)
    return lambda transaction: transaction.put(
        key, long_key, transaction.get(key), *encode_value(value), owner, b"", owner is not None
    )


def names(reader: Reader, path: str = "p") -> list[Any]:
    return [value_of(record) for _, record in reader.container(path)]


def test_what_is_committed_is_there_after_the_store_was_closed_and_opened(tmp_path: Path) -> None:
    first = Store(tmp_path)
    first.write(put("a", [1]))
    first.write(put("a", [2]))
    first.close()
    second = Store(tmp_path)
    assert second.revision == 2
    second.close()
    reader = Reader(tmp_path)
    assert names(reader) == [[2]]
    reader.close()


def test_what_raises_leaves_nothing(opened: Store) -> None:
    def work(transaction: WriteTransaction) -> None:
        put("a", 1)(transaction)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        opened.write(work)
    assert opened.revision == 0
    opened.write(put("b", 1))
    assert names(Reader(opened.directory)) == [1]


def test_one_process_writes_at_a_time(opened: Store) -> None:
    with pytest.raises(StorageError, match=r"this process writes to the storage in .* already"):
        Store(opened.directory)
    program = """
import sys
from pathlib import Path
from suitkaise.storage.backends.lmdb_writer import Store
try:
    Store(Path(sys.argv[1]))
except Exception as error:
    print(error)
"""
    with run_in_process(program, opened.directory) as other:
        assert "another process writes to the storage in" in other.communicate()[0]


def test_the_map_grows_when_it_is_full_and_the_batch_is_done_again(tmp_path: Path) -> None:
    small = Store(tmp_path, map_size=1 << 17)
    runs = []

    def work(transaction: WriteTransaction) -> None:
        runs.append(1)
        for index in range(50):
            put(f"n{index}", b"x" * 30_000)(transaction)

    small.write(work)
    assert len(runs) > 1
    assert small.revision == 50
    assert len(names(reader_of(tmp_path))) == 50
    small.close()


def test_a_reader_follows_a_map_that_another_process_has_grown(tmp_path: Path) -> None:
    program = """
import sys
from pathlib import Path
from suitkaise.storage.backends.lmdb_writer import Store
from tests.storage.test_backends import put
store = Store(Path(sys.argv[1]), map_size=1 << 17)
store.write(put("a", "small"))
print("ready", flush=True)
for line in sys.stdin:
    for index in range(40):
        store.write(put(f"{line}{index}", b"x" * 30_000))
    print("grown", flush=True)
"""
    with run_in_process(program, tmp_path) as writer:
        assert writer.stdout is not None
        assert writer.stdin is not None
        assert writer.stdout.readline() == "ready\n"
        reader = Reader(tmp_path, map_size=1 << 17)
        key = entry_key("p", "a")[0]
        assert value_of(reader.get(key) or b"") == "small"
        for round_ in range(3):
            writer.stdin.write(f"{round_}\n")
            writer.stdin.flush()
            assert writer.stdout.readline() == "grown\n"
            assert value_of(reader.get(key) or b"") == "small"
            assert len(reader.container("p")) == 1 + 40 * (round_ + 1)
        reader.close()


def test_there_is_nothing_to_read_before_anybody_wrote(tmp_path: Path) -> None:
    reader = Reader(tmp_path)
    with pytest.raises(NotThereYet):
        reader.get(b"a\0b")
    first = Store(tmp_path)
    assert reader.get(b"a\0b") is None
    first.close()
    assert reader.get(b"a\0b") is None
    reader.close()


def test_reading_where_this_process_also_writes_shares_its_environment(tmp_path: Path) -> None:
    first = Store(tmp_path)
    first.write(put("a", 1))
    reader = Reader(tmp_path)
    assert names(reader) == [1]
    first.close()
    assert names(reader) == [1], "and it opens its own when the writer is gone"
    second = Store(tmp_path)
    second.write(put("a", 2))
    assert names(reader) == [2]
    second.close()
    reader.close()


def test_a_read_is_done_again_as_often_as_its_environment_is_closed_under_it(tmp_path: Path) -> None:
    with contextlib.closing(Store(tmp_path)) as store:
        store.write(put("a", 1))
    with contextlib.closing(Reader(tmp_path)) as reader:
        closed: list[object] = []

        def work(transaction: lmdb.Transaction[bytes]) -> bytes | None:
            if len(closed) < 20:
                closed.append(reader.release())
                names(reader)  # another read, which opens it again: that one is left alone
            return transaction.get(entry_key("p", "a")[0])

        assert reader._read(work) is not None
        assert len(closed) == 20


def test_many_threads_read_while_the_environment_is_closed_under_them(tmp_path: Path) -> None:
    first = Store(tmp_path)
    first.write(put("a", list(range(500))))
    first.close()
    reader = Reader(tmp_path)
    stop = threading.Event()
    wrong: list[object] = []

    def work() -> None:
        while not stop.is_set():
            try:
                if names(reader) != [list(range(500))]:
                    wrong.append("torn")
                reader.get(entry_key("p", "a")[0])
            except Exception as error:
                wrong.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(200):
        reader.release()
    stop.set()
    for thread in threads:
        thread.join()
    assert wrong == []
    reader.close()


def test_slots_of_dead_readers_are_taken_back(opened: Store) -> None:
    program = """
import sys
from pathlib import Path
from suitkaise.storage.backends.lmdb_reader import Reader
reader = Reader(Path(sys.argv[1]))
reader.get(b"a")
transaction = reader._environment.begin()
print("in", flush=True)
sys.stdin.read()
"""
    opened.write(put("a", 1))
    with run_in_process(program, opened.directory) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "in\n"
        assert str(other.pid) in opened._environment.readers()
        other.kill()
        other.wait()
        opened.check_readers()
        assert str(other.pid) not in opened._environment.readers()


def test_a_forked_child_may_not_write_to_its_parents_store(opened: Store) -> None:
    child = os.fork()
    if child == 0:
        code = 1
        try:
            opened.write(put("a", 1))
        except StorageError:
            opened.close()
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    opened.write(put("a", 2))
    assert opened.revision == 1


def test_the_parents_slot_outlives_a_fork(tmp_path: Path) -> None:
    first = Store(tmp_path)
    first.write(put("a", 1))
    first.close()
    reader = Reader(tmp_path)
    assert names(reader) == [1]
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = 0 if names(reader) == [1] else 2
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert names(reader) == [1]
    assert reader._environment is not None
    assert str(os.getpid()) in reader._environment.readers()
    reader.close()


def test_keys_are_bounded_and_distinct() -> None:
    long = "x" * 1000
    keys = {
        entry_key(path, name)[0]
        for path in ("", "a", long, long + "y", "é" * 400)
        for name in ("n", long, long + "z", "é" * 400)
    }
    assert len(keys) == 20
    assert max(map(len, keys)) <= MAX_KEY


def test_dead_owners_are_remembered_by_their_highest_incarnation(tmp_path: Path) -> None:
    first = Store(tmp_path)
    first.write(lambda transaction: transaction.mark_dead("a/b#5"))
    first.write(lambda transaction: transaction.mark_dead("a/b#3"))
    first.close()
    second = Store(tmp_path)
    assert [second.is_dead(f"a/b#{number}") for number in (3, 5, 6)] == [True, True, False]
    assert not second.is_dead("a/c#1")
    assert len(second.dead_owners) == 1
    second.close()


def test_dead_owners_are_bounded(opened: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lmdb_writer, "MAX_DEAD_OWNERS", 10)
    for number in range(25):
        opened.write(lambda transaction, number=number: transaction.mark_dead(f"w{number}#1"))
    assert len(opened.dead_owners) <= 10
    assert opened.is_dead("w24#1")
    directory = opened.directory
    opened.close()
    again = Store(directory)
    assert len(again.dead_owners) <= 10
    again.close()


def test_reaping_goes_in_portions_and_what_a_crash_interrupted_is_found(tmp_path: Path) -> None:
    first = Store(tmp_path)

    def fill(transaction: WriteTransaction) -> None:
        for number in range(25):
            put(f"n{number}", number, owner="a/b#2")(transaction)
        put("other", 0, owner="a/b#3")(transaction)

    first.write(fill)
    first.write(lambda transaction: transaction.mark_dead("a/b#2"))
    assert first.write(lambda transaction: transaction.reap("a/b#2", earlier=True, limit=10)) == 10
    assert first.dead_with_entries() == {"a/b#2"}
    first.close()
    second = Store(tmp_path)
    assert second.dead_with_entries() == {"a/b#2"}
    assert second.write(lambda transaction: transaction.reap("a/b#2", earlier=True, limit=100)) == 15
    assert second.dead_with_entries() == set()
    assert names(reader_of(tmp_path)) == [0]
    second.close()


def test_clients_that_are_gone_for_long_are_forgotten(opened: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def work(transaction: WriteTransaction) -> None:
        for name in (b"gone", b"here", b"late"):
            transaction.client(name).last = 7
            transaction.client(name).replies.append(Reply(7))

    opened.write(work)
    assert opened.forget_clients([b"here"]) == 0
    monkeypatch.setattr(time, "time", lambda now=time.time: now() + lmdb_writer.FORGET_CLIENTS_AFTER + 1)
    opened.write(lambda transaction: setattr(transaction.client(b"late"), "last", 8))
    assert opened.forget_clients([b"here"]) == 1
    opened.write(lambda transaction: [transaction.look_up_client(n) for n in (b"gone", b"here", b"late")])
    assert opened.write(lambda transaction: transaction.look_up_client(b"gone")) == ClientRecord()
    assert opened.write(lambda transaction: transaction.look_up_client(b"here")).last == 7
    assert opened.write(lambda transaction: transaction.look_up_client(b"late")).replies == [Reply(7)]


def test_the_revision_word_is_odd_while_a_commit_is_under_way(opened: Store) -> None:
    word = RevisionWord(opened.directory)
    seen = []
    opened._word.begin = lambda revision: seen.append(revision)  # type: ignore[method-assign]
    opened.write(put("a", 1))
    assert seen == [0]
    assert word.words[0] == 2
    opened.write(lambda transaction: None)
    assert word.words[0] == 2
    word.close()


def test_the_files_are_for_their_owner_alone(opened: Store) -> None:
    opened.write(put("a", 1))
    for path in opened.directory.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path
    lock = opened.directory / environment.DATA / "lock.mdb"
    assert lock.stat().st_blocks * 512 >= lock.stat().st_size, "a hole in it would be SIGBUS on a full tmpfs"


def test_encodings_are_those_that_the_server_knows() -> None:
    kinds = [encode_value(value)[0] for value in (True, 1, 1.0, [], (), "x", None)]
    assert kinds == [
        Encoding.PICKLE,
        Encoding.INTEGER,
        Encoding.REAL,
        Encoding.LIST,
        Encoding.PICKLE,
        Encoding.PICKLE,
        Encoding.PICKLE,
    ]
