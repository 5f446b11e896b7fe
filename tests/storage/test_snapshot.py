from __future__ import annotations

import os
import sys
import threading
import traceback
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from suitkaise.errors import SnapshotError, StorageError
from suitkaise.messaging.identity import set_owner
from suitkaise.storage import operations, snapshot
from suitkaise.storage.backends.store import Store
from suitkaise.storage.protocol import Restore
from suitkaise.storage.tree import Tree
from tests.storage.support import Storage, with_last_byte_changed
from tests.support import eventually, in_background

LONG = "p" * 300


def contents(tree: Tree) -> dict[str, dict[str, Any]]:
    return {path: tree.get_all_from(path) for path in tree.containers()}


def fill(tree: Tree) -> dict[str, dict[str, Any]]:
    tree.add("number", 2**70, "")
    tree.add("list", [1, [2]], "a")
    tree.append("list", "x", "a")
    tree.add("marked", 1, "a", {"pid": 7, "remove_on_process_join": True})
    tree.add("big", b"x" * 100_000, "a/b", {"pid": 7, "kind": "k"})
    tree.add("n" * 600, 1.5, LONG)
    return contents(tree)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "tree.snapshot"


def test_a_restored_storage_is_what_it_was(tree: Tree, file: Path) -> None:
    before = fill(tree)
    assert tree.snapshot(file) == 5
    tree.add("number", "changed", "")
    tree.remove("list", "a")
    tree.add("later", 1, "a")
    assert tree.restore(file) == 5
    assert contents(tree) == before
    assert tree.entry("big", "a/b").metadata == {"pid": 7, "kind": "k"}
    assert [entry.name for entry in tree.select_all_with({"pid": 7}, "")] == ["marked", "big"]
    tree.increment("number", path="")
    tree.append("list", "y", "a")
    assert tree.get("list", "a") == [1, [2], "x", "y"]


def test_another_storage_can_be_filled_from_a_snapshot(tree: Tree, storage: Storage, file: Path) -> None:
    before = fill(tree)
    tree.snapshot(file)
    assert storage.tree.restore(file) == 5
    assert contents(storage.tree) == before


def test_a_restore_may_be_of_one_branch_and_may_keep_the_rest(tree: Tree, file: Path) -> None:
    before = fill(tree)
    tree.snapshot(file)
    for path in ("", "a", "a/b", "a/b/c", "ab", LONG):
        tree.add("later", 1, path)
    tree.remove("number", "")
    tree.update("big", 1, "a/b")
    assert tree.restore(file, "a/b", replace=False) == 1
    assert tree.get_all_from("a/b") == {**before["a/b"], "later": 1}
    assert tree.restore(file, "/a/") == 3
    after = contents(tree)
    assert {path: after[path] for path in ("a", "a/b")} == {path: before[path] for path in ("a", "a/b")}
    assert "a/b/c" not in after
    assert (after[""], after["ab"]) == ({"later": 1}, {"later": 1})


def test_replace_may_be_any_value_that_is_true_or_false(tree: Tree, file: Path) -> None:
    tree.add("a", 1, "p")
    tree.snapshot(file)
    tree.add("later", 1, "p")
    assert tree.restore(file, replace=0) == 1  # type: ignore[arg-type]
    assert tree.get_all_from("p") == {"a": 1, "later": 1}
    tree.restore(file, replace=1)  # type: ignore[arg-type]
    assert tree.get_all_from("p") == {"a": 1}


def test_the_marked_entries_of_workers_are_neither_saved_nor_removed(tree: Tree, file: Path) -> None:
    set_owner("w/snapshot#1")
    try:
        tree.add("before", 1, "p", {"remove_on_process_join": True})
        tree.add("data", 1, "p")
        assert tree.snapshot(file) == 1
        tree.remove("before", "p")
        tree.add("after", 1, "p", {"remove_on_process_join": True})
        tree.restore(file)
    finally:
        set_owner(None)
    assert tree.get_all_from("p") == {"after": 1, "data": 1}
    assert tree.entry("data", "p").owner == "w/snapshot#1"


def test_a_snapshot_is_of_one_moment(tree: Tree, file: Path) -> None:
    done = threading.Event()

    def write() -> None:
        other = Tree(tree.directory)
        number = 0
        while not done.is_set():
            number += 1
            with other.transaction():
                for name in "abc":
                    other.add(name, number, "p")

    thread = threading.Thread(target=write)
    thread.start()
    try:
        eventually(lambda: tree.exists("a", "p"))
        snapshots = []
        for count in range(10):
            tree.snapshot(file.with_suffix(f".{count}"))
            snapshots.append(file.with_suffix(f".{count}"))
    finally:
        done.set()
        thread.join()
    for one in snapshots:
        tree.restore(one)
        assert len(set(tree.get_all_from("p").values())) == 1


def test_other_threads_read_and_write_while_a_snapshot_is_written(tree: Tree, file: Path) -> None:
    tree.add("n", 1, path="p")
    found = []

    def look(done: int, total: int) -> None:
        found.append(in_background(lambda: (tree.get("n", path="p"), tree.increment("n", path="p"))).result(30))

    tree.snapshot(file, progress=look)
    assert found[0] == (1, 2)
    tree.restore(file)
    assert tree.get("n", path="p") == 1


@pytest.mark.timeout(30)
def test_the_progress_may_read_while_another_thread_forks(tree: Tree, file: Path) -> None:
    tree.add("n", 1, path="p")
    forks: list[Future[int]] = []

    def fork() -> int:
        if not (pid := os.fork()):
            os._exit(3)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def is_forking() -> bool:
        calls = [call for frame in sys._current_frames().values() for call, _ in traceback.walk_stack(frame)]
        return forks[0].done() or any(call.f_code.co_name == "_before_fork" for call in calls)

    def look(done: int, total: int) -> None:
        if not forks:
            forks.append(in_background(fork))
            eventually(is_forking)
        for _ in range(1000):
            assert tree.get("n", path="p") == 1

    tree.snapshot(file, progress=look)
    assert forks[0].result(10) == 3
    assert tree.restore(file) == 1


@pytest.mark.parametrize("at", [0, 5, 30, 60, 400, 100_200, -60, -41, -33, -1])
def test_a_changed_byte_is_found_and_nothing_is_restored(tree: Tree, file: Path, at: int) -> None:
    fill(tree)
    tree.snapshot(file)
    data = bytearray(file.read_bytes())
    data[at] ^= 0x41
    file.write_bytes(data)
    tree.remove("number", "")
    before = contents(tree)
    with pytest.raises(StorageError, match=r"is damaged, so nothing was restored|is no snapshot of this version"):
        tree.restore(file)
    assert contents(tree) == before


@pytest.mark.parametrize("length", [0, 10, 30, 60, 1000, -1, -40])
def test_a_cut_file_is_found_and_nothing_is_restored(tree: Tree, file: Path, length: int) -> None:
    fill(tree)
    tree.snapshot(file)
    file.write_bytes(file.read_bytes()[:length])
    before = contents(tree)
    with pytest.raises(SnapshotError):
        tree.restore(file)
    assert contents(tree) == before


def test_a_file_that_is_damaged_after_the_client_has_verified_it_changes_nothing(
    tree: Tree, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tree)
    tree.snapshot(file)
    tree.remove("list", "a")
    before = contents(tree)
    monkeypatch.setattr(
        snapshot.Snapshot, "verify", lambda snapshot: file.write_bytes(with_last_byte_changed(file.read_bytes()))
    )
    with pytest.raises(SnapshotError, match="its checksum is wrong"):
        tree.restore(file)
    monkeypatch.setattr(snapshot.Snapshot, "verify", lambda snapshot: file.unlink())
    with pytest.raises(SnapshotError, match="No such file"):
        tree.restore(file)
    assert contents(tree) == before
    tree.add("still", "works", "")


def test_a_missing_file_or_a_folder_is_an_os_error_and_a_pipe_is_no_snapshot(tree: Tree, file: Path) -> None:
    with pytest.raises(FileNotFoundError):
        tree.restore(file)
    with pytest.raises(FileNotFoundError, match=r"/nowhere'$"):
        tree.snapshot(file / "nowhere")
    open_before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(IsADirectoryError, match=str(file.parent)):
        tree.restore(file.parent)
    assert len(os.listdir("/proc/self/fd")) <= open_before
    os.mkfifo(file)
    with pytest.raises(SnapshotError, match="is no snapshot"):
        tree.restore(file)


def test_a_snapshot_replaces_no_pipe_and_no_device(tree: Tree, file: Path) -> None:
    os.mkfifo(file)
    link = file.with_name("link")
    link.symlink_to(file)
    for place in (file, link):
        with pytest.raises(OSError, match="a snapshot replaces only a regular file"):
            tree.snapshot(place)
    assert (file.is_fifo(), link.is_symlink()) == (True, True)
    with pytest.raises(IsADirectoryError, match=f"'{file.parent}'$"):
        tree.snapshot(file.parent)


def test_a_snapshot_that_fails_leaves_the_earlier_file(tree: Tree, file: Path) -> None:
    tree.add("a", 1, "p")
    tree.snapshot(file)
    before = file.read_bytes()

    def refuse(done: int, total: int) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        tree.snapshot(file, progress=refuse)
    assert file.read_bytes() == before
    assert os.listdir(file.parent) == [file.name]
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_relative_path_is_the_callers(tree: Tree, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(file.parent)
    tree.add("a", 1, "p")
    tree.snapshot(file.name)
    tree.remove("a", "p")
    assert tree.restore(file.name) == 1
    assert tree.get("a", "p") == 1


def test_neither_can_be_part_of_a_transaction(tree: Tree, file: Path) -> None:
    with tree.transaction():
        for call in (tree.snapshot, tree.restore):
            with pytest.raises(StorageError, match="cannot be part of a transaction"):
                call(file)


def test_the_progress_is_told_to_a_function(tree: Tree, file: Path) -> None:
    for number in range(2500):
        tree.add(f"n{number}", number, "p", wait=False)
    tree.flush()
    told: list[tuple[int, int]] = []
    tree.snapshot(file, progress=lambda done, total: told.append((done, total)))
    assert told == [(0, 2500), (1000, 2500), (2000, 2500), (2500, 2500)]
    told.clear()
    tree.restore(file, progress=lambda done, total: told.append((done, total)))
    assert told == sorted(told)
    assert told[-1] == (2500, 2500)


def test_a_wrong_progress_is_refused_and_nothing_done(tree: Tree, file: Path) -> None:
    for call in (tree.snapshot, tree.restore):
        for wrong in (1, 0, "no"):
            with pytest.raises(TypeError, match=f"progress must be True, False, None or a function, not {wrong!r}"):
                call(file, progress=wrong)  # type: ignore[operator]
    assert not file.exists()


def test_the_progress_line_is_shown_on_demand_only(tree: Tree, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree.add("a", 1, "p")
    tree.snapshot(file)
    tree.restore(file, progress=False)
    assert capsys.readouterr().err == ""
    tree.snapshot(file, progress=True)
    tree.restore(file, progress=True)
    bar = "[##############################] 100% of 1 entry"
    assert capsys.readouterr().err == f"snapshot to tree.snapshot {bar}\nrestore of tree.snapshot {bar}\n"


def test_a_terminal_shows_the_progress_when_it_takes_long(
    tree: Tree, file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    tree.add("a", 1, "p")
    tree.snapshot(file)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("suitkaise.storage.progress._PATIENCE", 0.0)
    tree.snapshot(file)
    shown = capsys.readouterr().err
    assert shown.startswith("\rsnapshot to tree.snapshot [..............................]   0% of 1 entry\r")
    assert shown.endswith("] 100% of 1 entry\n")


def test_a_restore_runs_again_when_the_map_grows(tmp_path: Path, tree: Tree, file: Path) -> None:
    for number in range(40):
        tree.add(f"n{number}", b"x" * 30_000, "p")
    tree.snapshot(file)
    small = Store(tmp_path, map_size=1 << 18)
    change = Restore(1, False, os.fsencode(file), "", True)
    outcome = small.write(lambda transaction: operations._restore(transaction, change))
    assert outcome[1] == small.revision == 40
    small.close()


def test_a_restore_is_carried_out_once_although_the_server_is_killed(storage: Storage, file: Path) -> None:
    tree = storage.tree
    for number in range(5000):
        tree.add(f"n{number}", number, "p", wait=False)
    tree.flush()
    tree.snapshot(file)
    tree.add("later", 1, "p")
    done = threading.Event()
    restored: list[int] = []

    def restore() -> None:
        try:
            restored.append(Tree(storage.directory).restore(file))
        finally:
            done.set()

    thread = threading.Thread(target=restore)
    thread.start()
    for _ in range(3):
        done.wait(0.05)
        storage.restart()
        done.wait(1.0)
    thread.join()
    assert restored == [5000]
    assert len(tree.get_all_from("p")) == 5000
