from __future__ import annotations

import contextlib
import errno
import os
import threading
from pathlib import Path

import pytest

from suitkaise.storage.backends.reader import NotThereYet, Reader
from suitkaise.storage.backends.revision import RevisionWord
from suitkaise.storage.backends.store import Store
from suitkaise.storage.backends.tables import Transaction
from suitkaise.storage.keys import entry_key
from suitkaise.storage.records import value_of
from tests.storage.support import put_entry, run_in_process, values_in


def test_a_reader_follows_a_map_that_another_process_has_grown(tmp_path: Path) -> None:
    program = """
import sys
from pathlib import Path
from suitkaise.storage.backends.store import Store
from suitkaise.storage.backends.tables import Transaction
from tests.storage.support import put_entry
store = Store(Path(sys.argv[1]), map_size=1 << 17)
store.write(put_entry("a", "small"))
print("ready", flush=True)
for line in sys.stdin:
    for index in range(40):
        store.write(put_entry(f"{line}{index}", b"x" * 30_000))
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


def test_reading_before_the_first_writer_raises_not_there_yet(tmp_path: Path) -> None:
    reader = Reader(tmp_path)
    with pytest.raises(NotThereYet):
        reader.get(b"a\0b")
    first = Store(tmp_path)
    assert reader.get(b"a\0b") is None
    first.close()
    assert reader.get(b"a\0b") is None
    reader.close()


def test_a_reader_in_the_process_of_the_writer_uses_the_writers_environment(tmp_path: Path) -> None:
    first = Store(tmp_path)
    first.write(put_entry("a", 1))
    reader = Reader(tmp_path)
    assert values_in(reader) == [1]
    first.close()
    assert values_in(reader) == [1], "the reader opens its own environment when the writer is gone"
    second = Store(tmp_path)
    second.write(put_entry("a", 2))
    assert values_in(reader) == [2]
    second.close()
    reader.close()


def test_a_read_is_repeated_as_often_as_its_environment_is_closed(tmp_path: Path) -> None:
    with contextlib.closing(Store(tmp_path)) as store:
        store.write(put_entry("a", 1))
    with contextlib.closing(Reader(tmp_path)) as reader:
        closed: list[object] = []

        def work(transaction: Transaction) -> bytes | None:
            if len(closed) < 20:
                closed.append(reader.release())
                values_in(reader)  # another read opens the environment again; the failed read must not close that one
            return transaction.get(entry_key("p", "a")[0])

        assert reader._read(work) is not None
        assert len(closed) == 20


def test_threads_read_correctly_while_the_environment_is_closed_again_and_again(tmp_path: Path) -> None:
    first = Store(tmp_path)
    first.write(put_entry("a", list(range(500))))
    first.close()
    reader = Reader(tmp_path)
    stop = threading.Event()
    wrong: list[object] = []

    def work() -> None:
        while not stop.is_set():
            try:
                if values_in(reader) != [list(range(500))]:
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


def test_the_parents_slot_outlives_a_fork(tmp_path: Path) -> None:
    first = Store(tmp_path)
    first.write(put_entry("a", 1))
    first.close()
    reader = Reader(tmp_path)
    assert values_in(reader) == [1]
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = 0 if values_in(reader) == [1] else 2
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert values_in(reader) == [1]
    assert reader._opened is not None
    assert str(os.getpid()) in reader._opened.readers()
    reader.close()


def test_a_revision_word_for_which_there_is_no_room_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(path: Path, data: bytes) -> int:
        path.touch()
        raise OSError(errno.ENOSPC, "no space is left")

    monkeypatch.setattr(Path, "write_bytes", write)
    with pytest.raises(OSError, match="no space is left"):
        RevisionWord(tmp_path, write=True)
    assert os.listdir(tmp_path) == []


def test_the_revision_word_is_odd_while_a_commit_is_under_way(store: Store) -> None:
    word = RevisionWord(store.directory)
    seen = []
    store._word.begin = lambda revision: seen.append(revision)  # type: ignore[method-assign]
    store.write(put_entry("a", 1))
    assert seen == [0]
    assert word.words[0] == 2
    store.write(lambda transaction: None)
    assert word.words[0] == 2
    word.close()
