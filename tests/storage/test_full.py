from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from suitkaise.errors import StorageFull
from tests.storage.support import Storage
from tests.support import small_file_system

SIZE = 6 << 20
BLOB = b"x" * 50_000


@pytest.fixture
def small_tmpfs() -> Iterator[Path]:
    with small_file_system(SIZE) as folder:
        yield folder


def fill(storage: Storage) -> int:
    """Add entries until the file system is full; return how many were stored."""
    count = 0
    with pytest.raises(StorageFull, match=r"no room is left for 'n\d+' in 'full'"):
        while True:
            storage.tree.add(f"n{count}", BLOB, path="full")
            count += 1
            assert count * len(BLOB) < SIZE
    return count


def test_a_full_file_system_raises_storage_full_and_reads_still_work(small_tmpfs: Path, file_engine: str) -> None:
    with Storage(small_tmpfs, engine=file_engine) as storage:
        count = fill(storage)
        assert count > 50
        for index in range(count):
            assert storage.tree.get(f"n{index}", path="full") == BLOB
        assert not storage.tree.exists(f"n{count}", path="full")
        assert str(storage.tree).startswith(f"storage in {small_tmpfs}: {count} entries")


def test_freed_space_can_be_used(small_tmpfs: Path, file_engine: str) -> None:
    ballast = small_tmpfs / "ballast"
    ballast.write_bytes(bytes(1 << 20))
    with Storage(small_tmpfs, engine=file_engine) as storage:
        fill(storage)
        ballast.unlink()
        storage.tree.add("after", BLOB, path="full")
        for index in range(20):
            storage.tree.remove(f"n{index}", path="full")
        for index in range(15):
            storage.tree.add(f"m{index}", BLOB, path="full")
        assert storage.tree.get("m14", path="full") == BLOB


def test_the_room_of_a_removed_entry_can_be_used_at_once(small_tmpfs: Path) -> None:
    large = bytes(1 << 20)
    with Storage(small_tmpfs, engine="lmdb") as storage:
        count = 0
        with pytest.raises(StorageFull):
            for count in range(100):
                storage.tree.add(f"n{count}", large, path="full")
        for index in range(count):
            storage.tree.remove(f"n{index}", path="full")
            storage.tree.add(f"m{index}", large, path="full")
        assert len(storage.tree.get_all_from("full")) == count > 2


def test_flush_raises_storage_full_even_if_the_server_was_killed_meanwhile(small_tmpfs: Path, file_engine: str) -> None:
    with Storage(small_tmpfs, engine=file_engine) as storage:
        count = fill(storage)
        tree = storage.tree
        for index in range(5):
            tree.add(f"late{index}", BLOB, path="full", wait=False)
        storage.restart()
        with pytest.raises(StorageFull):
            tree.flush()
        found = tree.get_all_from("full")
        assert len(found) < count + 5
        assert set(found.values()) == {BLOB}


def test_the_server_starts_on_a_full_file_system(small_tmpfs: Path, file_engine: str) -> None:
    with Storage(small_tmpfs, engine=file_engine) as storage:
        count = fill(storage)
        (small_tmpfs / "ballast").touch()
        with pytest.raises(OSError, match="No space left"):
            with (small_tmpfs / "ballast").open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(4096))
        storage.restart()
        storage.tree.close()
        assert len(storage.tree.get_all_from("full")) == count
        with pytest.raises(StorageFull):
            storage.tree.add("more", BLOB, path="full")
        assert len(storage.tree.get_all_from("full")) == count


def test_a_restore_for_which_there_is_no_room_changes_nothing(
    small_tmpfs: Path, tmp_path: Path, file_engine: str
) -> None:
    with Storage(engine=file_engine) as roomy:
        for index in range(200):
            roomy.tree.add(f"n{index}", BLOB, path="full")
        roomy.tree.snapshot(tmp_path / "large")
    with Storage(small_tmpfs, engine=file_engine) as storage:
        storage.tree.add("n0", 1, path="full")
        with pytest.raises(StorageFull, match=r"no room is left for the entries of .*large"):
            storage.tree.restore(tmp_path / "large")
        assert storage.tree.get_all_from("full") == {"n0": 1}
        storage.tree.add("after", BLOB, path="full")


def test_a_snapshot_for_which_there_is_no_room_leaves_no_file(small_tmpfs: Path, file_engine: str) -> None:
    (small_tmpfs / "earlier").write_bytes(b"snapshot")
    with Storage(engine=file_engine) as roomy:
        for index in range(200):
            roomy.tree.add(f"n{index}", BLOB, path="full")
        with pytest.raises(OSError, match="No space left"):
            roomy.tree.snapshot(small_tmpfs / "earlier")
    assert [file.name for file in small_tmpfs.iterdir()] == ["earlier"]
    assert (small_tmpfs / "earlier").read_bytes() == b"snapshot"
