"""A durable store whose files are damaged: one error, and never a wrong value, a hang or a dead program."""

from __future__ import annotations

import os
import random
import re
import shutil
import sqlite3
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from suitkaise import sktree
from suitkaise.errors import StorageDamaged, StorageError
from suitkaise.storage.backends.reader import NotThereYet, Reader
from suitkaise.storage.backends.store import Store
from suitkaise.storage.backends.tables import scan
from suitkaise.storage.records import intact, pack_record, value_of
from tests.storage.support import with_last_byte_changed
from tests.support import run_program

ENGINES = ("lmdb", "sqlite")
ENTRIES = 200
FILES = {"lmdb": "store/data.mdb", "sqlite": "store.sqlite"}

READER = f"""
import sys
from suitkaise import sktree
from suitkaise.errors import StorageError
try:
    tree = sktree.connect(sys.argv[1], durable=True)
    wrong = [n for n in range({ENTRIES}) if tree.get(f"name-{{n}}", path="some/path") != [n, "x" * n]]
    tree.add("written", 1, path="some/path")
    assert tree.get("written", path="some/path") == 1
    found = len(tree.select_all_with({{"number": 7}}, "some"))
    print("wrong" if wrong or found != 1 else "fine")
except StorageError as error:
    print("refused", error)
"""


def value(number: int) -> list[Any]:
    return [number, "x" * number]


def fill(place: Path, engine: str) -> None:
    tree = sktree.connect(place, durable=True, engine=engine)
    for number in range(ENTRIES):
        tree.add(
            f"name-{number}", value(number), path="some/path", metadata={"number": number, "pid": number}, wait=False
        )
    sktree.disconnect()
    (place / "store.sock").unlink()
    if engine == "sqlite":  # a log that still lies beside the file would hide what happens to the file
        connection = sqlite3.connect(place / "store.sqlite")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        connection.close()


@pytest.fixture(scope="module")
def gold(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A sound store of each engine."""
    stores = {engine: tmp_path_factory.mktemp("gold") / engine for engine in ENGINES}
    for engine, place in stores.items():
        fill(place, engine)
    return stores


@pytest.fixture(params=ENGINES)
def damage(request: pytest.FixtureRequest, gold: dict[str, Path], tmp_path: Path) -> tuple[Path, Path]:
    """A copy of a sound store, and its file."""
    place = tmp_path / "state"
    shutil.copytree(gold[request.param], place)
    return place, place / FILES[request.param]


def outcome(place: Path) -> str:
    """Use the store as a program would; return how that ended. A hang is a test that fails."""
    return run_program([sys.executable, "-c", READER, str(place)], timeout=60.0).check().stdout.strip()


def test_a_store_without_damage_is_used(damage: tuple[Path, Path]) -> None:
    assert outcome(damage[0]) == "fine"


@pytest.mark.parametrize("size", [0, 10])
def test_a_file_of_the_revision_that_is_cut_short_is_made_anew_and_nothing_is_lost(
    damage: tuple[Path, Path], size: int
) -> None:
    place, _ = damage
    os.truncate(place / "revision", size)
    with pytest.raises(NotThereYet, match=r"there is no storage in .* yet"):
        Reader(place).revision_words()
    assert outcome(place) == "fine"


def flip(file: Path, chance: random.Random) -> None:
    """Change a few bits; most of them where the pages have their own data."""
    size = file.stat().st_size
    with file.open("r+b") as stream:
        for _ in range(chance.choice([1, 3, 30])):
            page = chance.randrange(size // 4096) * 4096
            offset = chance.randrange(size) if chance.random() < 0.4 else page + chance.randrange(200)
            stream.seek(offset)
            byte = stream.read(1)[0] ^ 1 << chance.randrange(8)
            stream.seek(offset)
            stream.write(bytes([byte]))


@pytest.mark.parametrize("seed", range(12))
def test_flipped_bits_are_told_or_harmless_and_never_a_wrong_value(damage: tuple[Path, Path], seed: int) -> None:
    place, file = damage
    flip(file, random.Random(seed))
    assert outcome(place).split()[0] in ("fine", "refused")


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_two_hundred_damaged_stores_give_no_wrong_value_and_no_hang(
    gold: dict[str, Path], tmp_path: Path, engine: str
) -> None:
    seen: Counter[str] = Counter()
    for seed in range(200):
        place = tmp_path / "state"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(gold[engine], place)
        flip(place / FILES[engine], random.Random(1000 + seed))
        seen[outcome(place).split()[0]] += 1
    assert set(seen) <= {"fine", "refused"}, seen
    assert seen["refused"] > 20, seen


def cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def empty(file: Path) -> None:
    os.truncate(file, 0)


def noise(file: Path) -> None:
    file.write_bytes(random.Random(1).randbytes(file.stat().st_size))


def text(file: Path) -> None:
    file.write_text("this is no store\n")


@pytest.mark.parametrize("spoil", [cut, noise, text])
def test_a_file_that_is_no_store_is_one_error(damage: tuple[Path, Path], spoil: Callable[[Path], None]) -> None:
    place, file = damage
    spoil(file)
    assert outcome(place).startswith("refused ")


def revision(file: Path) -> None:
    """Spoil the revision, in a file that is sound otherwise."""
    store = Store(next(place for place in file.parents if (place / "writer").exists()))
    transaction = store.opened.begin(write=True)
    for key, stored in list(scan(transaction, store.clients, b"", None)):
        if len(stored) == 8:
            transaction.put(key, b"?", db=store.clients)
    transaction.commit()
    store.close()


@pytest.mark.parametrize("spoil", [noise, text, revision])
def test_a_store_that_cannot_be_opened_leaves_no_file_open_and_no_lock(
    damage: tuple[Path, Path], spoil: Callable[[Path], None]
) -> None:
    place, file = damage
    spoil(file)
    told = []
    for _ in range(2):
        with pytest.raises(Exception) as caught:
            Store(place)
        told.append((caught.type, str(caught.value)))
        assert open_below(place) == []
    assert told[0] == told[1]  # not: this process writes to the storage already


def test_a_reader_of_a_damaged_store_leaves_no_file_open(damage: tuple[Path, Path]) -> None:
    place, file = damage
    noise(file)
    reader = Reader(place)
    with pytest.raises(StorageError) as caught:
        reader.owners()
    reader.close()
    assert open_below(place) == []
    del caught


def open_below(place: Path) -> list[str]:
    """Return the files in `place` that this process has open."""
    files = [os.path.realpath(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")]
    return [file for file in files if file.startswith(f"{place.resolve()}/")]


@pytest.mark.parametrize("spoil", [empty, Path.unlink])
def test_a_store_whose_data_is_gone_is_told_and_not_taken_for_a_new_one(
    damage: tuple[Path, Path], spoil: Callable[[Path], None]
) -> None:
    place, file = damage
    spoil(file)
    assert re.search(r"^refused .* has lost its last \d+ changes: its data was removed", told := outcome(place)), told
    (place / "revision").unlink()
    assert outcome(place).startswith("refused there is no 'name-0'")


def test_an_older_copy_of_the_data_is_told(damage: tuple[Path, Path]) -> None:
    place, file = damage
    older = file.read_bytes()
    assert outcome(place) == "fine"
    if file.suffix == ".sqlite":
        for more in place.glob("store.sqlite-*"):
            more.unlink()
    file.write_bytes(older)
    assert "or replaced by an older copy" in outcome(place)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_one_error(damage: tuple[Path, Path]) -> None:
    place, file = damage
    file.chmod(0)
    assert outcome(place).startswith("refused ")


# ---------------------------------------------------------------- one entry
def test_each_flipped_bit_of_a_record_is_noticed() -> None:
    record = pack_record(7, 1.5, 0, b"value", "owner#1", b"\x80", True, ("path", "name"))
    assert intact(record)
    for position in range(len(record)):
        for bit in range(8):
            changed = bytearray(record)
            changed[position] ^= 1 << bit
            assert not intact(bytes(changed))
    assert not intact(record[:-1])
    assert not intact(b"")


def test_a_large_record_is_checked_too() -> None:
    record = bytearray(pack_record(7, 1.5, 0, bytes(100_000)))
    assert intact(bytes(record))
    record[50_000] = 1
    assert not intact(bytes(record))
    assert not intact(record)


def test_an_entry_that_is_damaged_while_the_store_is_open_is_named_and_the_others_are_read(tmp_path: Path) -> None:
    place = tmp_path / "state"
    tree = sktree.connect(place, durable=True, engine="sqlite")
    try:
        for name in ("sound", "spoilt"):
            tree.add(name, "some text", path="a/path", metadata={"kind": name})
        with sqlite3.connect(place / "store.sqlite") as connection:
            rows = connection.execute("SELECT key, value FROM entries").fetchall()
            [(key, record)] = [row for row in rows if b"spoilt" in row[0]]
            assert value_of(record) == "some text"
            connection.execute("UPDATE entries SET value = ? WHERE key = ?", (with_last_byte_changed(record), key))
        connection.close()
        assert tree.get("sound", path="a/path") == "some text"
        for attempt in (
            lambda: tree.get("spoilt", path="a/path"),
            lambda: tree.entry("spoilt", path="a/path"),
            lambda: tree.get_all_from("a/path"),
            lambda: tree.update("spoilt", lambda old: old + "!", path="a/path"),
            lambda: tree.append("spoilt", 1, path="a/path"),
            lambda: tree.add("spoilt", "new", path="a/path"),
            lambda: list(tree.select_all_with({"kind": "spoilt"}, "a")),
            lambda: tree.snapshot(tmp_path / "snapshot"),  # which would vouch for the wrong value
            lambda: tree.move("spoilt", to="elsewhere", path="a/path"),
            lambda: tree.atomically(lambda tree: tree.move("spoilt", to="elsewhere", path="a/path")),
        ):
            with pytest.raises(StorageDamaged, match=r"'spoilt' in 'a/path' is damaged.*tree.restore"):
                attempt()
        assert not list(tmp_path.glob("*snapshot*"))
        assert "spoilt = <damaged>" in str(tree)
        assert tree.get("sound", path="a/path") == "some text"
        tree.add("sound", "more", path="a/path")
    finally:
        sktree.disconnect()
    with pytest.raises(StorageError, match="'spoilt' in 'a/path' is damaged"):
        sktree.connect(place, durable=True)
