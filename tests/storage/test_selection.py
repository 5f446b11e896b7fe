from __future__ import annotations

import pickle
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from suitkaise.errors import StorageError, TransactionConflict
from suitkaise.messaging.identity import set_owner
from suitkaise.storage import index, writes
from suitkaise.storage.backends.reader import Reader
from suitkaise.storage.backends.store import Store, WriteTransaction
from suitkaise.storage.records import Metadata
from suitkaise.storage.selection import Selection
from suitkaise.storage.tree import Tree
from tests.storage.support import Storage
from tests.support import eventually

P = "selection"
LONG = "p" * 300


@pytest.fixture(autouse=True)
def deselected(tree: Tree) -> Iterator[None]:
    yield
    tree.deselect()


def names(selection: Any) -> list[str]:
    return [entry.name for entry in selection]


def fill(tree: Tree, path: str = P) -> None:
    for name, metadata in (
        ("a", {"pid": 1, "kind": "x"}),
        ("b", {"pid": 1, "kind": "y", "remove_on_process_join": True}),
        ("c", {"pid": 2, "kind": "x"}),
        ("d", {"kind": "x"}),
        ("e", {}),
    ):
        tree.add(name, name, path, metadata)


@pytest.mark.parametrize(
    "wanted, expected",
    [
        ({"pid": 1}, "ab"),
        ({"pid": 1.0}, "ab"),
        ({"pid": True}, "ab"),
        ({"pid": "1"}, ""),
        ({"pid": 3}, ""),
        ({"kind": "x"}, "acd"),
        ({"kind": "x", "pid": 1}, "a"),
        ({"pid": 1, "remove_on_process_join": True}, "b"),
        ({"pid": 1, "nothing": None}, ""),
        ({}, "abcde"),
    ],
    ids=str,
)
def test_a_selection_holds_the_entries_that_have_all_pairs(tree: Tree, wanted: Metadata, expected: str) -> None:
    fill(tree)
    assert names(tree.select_all_with(wanted, P)) == list(expected)


def test_a_path_selects_the_container_and_all_that_lies_below_it(tree: Tree) -> None:
    for path in ("", "a", "a/b", "a/b/c", "ab", "a b", "a.b", f"a/{LONG}", LONG, f"{LONG}/deeper"):
        tree.add("x", 1, path, {"pid": 1})

    def selected(path: str) -> list[str]:
        return [entry.path for entry in tree.select_all_with({"pid": 1}, path)]

    assert selected("a") == ["a", "a/b", "a/b/c", f"a/{LONG}"]
    assert selected("/a/b/") == ["a/b", "a/b/c"]
    assert selected(LONG) == [LONG, f"{LONG}/deeper"]
    assert len(selected("")) == 10
    tree.select_all_with({"pid": 1}, "a").update(2)
    by_scan = [entry.path for entry in tree.select_all_with({}, "a")]
    assert by_scan == selected("a")


def test_the_path_defaults_to_the_callers_file(tree: Tree) -> None:
    tree.add("x", 1, metadata={"pid": 1})
    tree.add("y", 1, "elsewhere", {"pid": 1})
    assert [entry.path for entry in tree.select_all_with({"pid": 1})] == ["tests/storage/test_selection"]


def test_a_selection_knows_its_entries_and_their_values(tree: Tree) -> None:
    fill(tree)
    selection = tree.select_all_with({"pid": 1}, P)
    assert (len(selection), selection.count(), bool(selection)) == (2, 2, True)
    assert selection.values() == ["a", "b"]
    assert list(selection) == [tree.entry("a", P), tree.entry("b", P)]
    assert not tree.select_all_with({"pid": 9}, P)
    assert repr(selection) == "<Selection of 2 entries with {'pid': 1} below 'selection'>"
    assert (selection.path, selection.metadata) == (P, {"pid": 1})


def test_a_selection_is_what_matched_at_its_moment(tree: Tree) -> None:
    fill(tree)
    selection = tree.select_all_with({"pid": 1}, P)
    tree.add("late", 1, P, {"pid": 1})
    tree.add("a", "changed", P, {"pid": 1})
    tree.update("b", "b", P, {"pid": 5})
    assert selection.values() == ["changed"]
    assert selection.remove() == 1
    assert sorted(tree.get_all_from(P)) == ["b", "c", "d", "e", "late"]


def test_update_takes_a_value_or_a_function_and_leaves_what_is_gone(tree: Tree) -> None:
    fill(tree)
    selection = tree.select_all_with({"kind": "x"}, P)
    tree.remove("c", P)
    assert selection.update(lambda value: value * 2) == 2
    assert tree.get_all_from(P) == {"a": "aa", "b": "b", "d": "dd", "e": "e"}
    assert selection.update(None) == 2
    assert selection.values() == [None, None]
    assert tree.entry("a", P).metadata == {"pid": 1, "kind": "x"}


def test_updates_of_a_selection_lose_nothing_among_threads(tree: Tree) -> None:
    for name in "abc":
        tree.add(name, 0, P, {"pid": 1})

    def work() -> None:
        selection = tree.select_all_with({"pid": 1}, P)
        for _ in range(20):
            assert selection.update(lambda value: value + 1) == 3

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert tree.get_all_from(P) == {"a": 60, "b": 60, "c": 60}


def test_selected_belongs_to_the_thread_and_to_all_its_handles(tree: Tree) -> None:
    fill(tree)
    assert tree.selected is None
    selection = tree.select_all_with({"pid": 1}, P)
    assert Tree(tree.directory).selected is tree.selected is selection
    seen: list[Selection | None] = []
    thread = threading.Thread(target=lambda: seen.append(tree.selected))
    thread.start()
    thread.join()
    assert seen == [None]
    tree.deselect()
    assert tree.selected is None


def test_remove_selected_removes_and_deselects(tree: Tree) -> None:
    fill(tree)
    tree.select_all_with({"pid": 1}, P)
    assert tree.remove_selected() == 2
    assert sorted(tree.get_all_from(P)) == ["c", "d", "e"]
    assert tree.selected is None
    with pytest.raises(StorageError, match="nothing is selected in this thread; call select_all_with first"):
        tree.remove_selected()
    tree.select_all_with({"pid": 9}, P)
    assert tree.remove_selected() == 0


def test_a_selection_removes_in_portions(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writes, "_MOST_AT_ONCE", 7)
    for number in range(30):
        tree.add(f"{number}" + "n" * 1000, 1, P, {"pid": 1}, wait=False)
    tree.flush()
    assert tree.select_all_with({"pid": 1}, P).remove() == 30
    assert tree.get_all_from(P) == {}


def test_a_selection_is_removed_exactly_once_although_the_server_is_killed(storage: Storage) -> None:
    for number in range(3000):
        storage.tree.add(f"n{number}", 1, P, {"pid": 1}, wait=False)
    storage.tree.flush()
    selection = storage.tree.select_all_with({"pid": 1}, P)
    removed: list[int] = []
    thread = threading.Thread(target=lambda: removed.append(selection.remove()))
    thread.start()
    while thread.is_alive():
        left = len(storage.tree.get_all_from(P))
        storage.restart()
        eventually(lambda left=left: not thread.is_alive() or len(storage.tree.get_all_from(P)) < left, timeout=30)
    assert removed == [3000]
    assert storage.tree.get_all_from(P) == {}
    storage.tree.deselect()


def test_a_selection_can_be_pickled(tree: Tree) -> None:
    fill(tree)
    copy = pickle.loads(pickle.dumps(tree.select_all_with({"pid": 1}, P)))
    assert copy.values() == ["a", "b"]
    assert copy.remove() == 2


def test_metadata_must_be_scalars(tree: Tree) -> None:
    with pytest.raises(TypeError, match=r"metadata\['a'\] must be a str, int"):
        tree.select_all_with({"a": []}, P)
    assert tree.selected is None


def test_the_writes_of_a_dead_owner_are_refused(tree: Tree) -> None:
    fill(tree)
    selection = tree.select_all_with({"pid": 1}, P)
    tree.forget_owner("selects/dead#1")
    set_owner("selects/dead#1")
    try:
        for call in (selection.remove, lambda: selection.update(1), lambda: tree.move("a", "b", P)):
            with pytest.raises(StorageError, match="has ended"):
                call()
    finally:
        set_owner(None)
    assert selection.values() == ["a", "b"]


# Transactions.


def test_a_selection_in_a_transaction_sees_the_writes_of_the_block(tree: Tree) -> None:
    fill(tree)
    with tree.transaction():
        tree.add("new", 1, P, {"pid": 1})
        tree.add("deeper", 1, f"{P}/x", {"pid": 1})
        tree.add("elsewhere", 1, "other", {"pid": 1})
        tree.remove("a", P)
        tree.update("c", "c", P, {"pid": 1})
        tree.update("b", "B", P)
        selection = tree.select_all_with({"pid": 1}, P)
        assert names(selection) == ["b", "c", "new", "deeper"]
        assert selection.values() == ["B", "c", 1, 1]
        assert selection.update(lambda value: [value]) == 4
        assert tree.get("b", P) == ["B"]
        assert tree.remove_selected() == 4
        assert not tree.exists("b", P)
        other = Tree(tree.directory)
        assert other.selected is None
    assert sorted(tree.get_all_from(P)) == ["d", "e"]
    assert tree.containers() == ["other", P]


def change(tree: Tree, call: Any) -> None:
    """Call in another thread, and so outside of this thread's transaction."""
    thread = threading.Thread(target=call, args=(Tree(tree.directory),))
    thread.start()
    thread.join()


@pytest.mark.parametrize(
    "other",
    [
        lambda tree: tree.add("phantom", 1, f"{P}/deeper", {"pid": 1}),
        lambda tree: tree.update("a", 2, P),
        lambda tree: tree.remove("a", P),
        lambda tree: tree.update("a", "a", P, {}),
        lambda tree: tree.update("e", "e", P, {"pid": 1}),
    ],
    ids=range(5),
)
def test_a_change_of_what_was_selected_is_a_conflict(tree: Tree, other: Any) -> None:
    fill(tree)
    with pytest.raises(TransactionConflict, match="the container 'selection' was changed"):
        with tree.transaction():
            tree.add("count", len(tree.select_all_with({"pid": 1}, P)), "counts")
            change(tree, other)
    assert not tree.exists("count", "counts")


def test_a_change_beside_the_selection_is_no_conflict(tree: Tree) -> None:
    fill(tree)
    with tree.transaction():
        tree.add("count", len(tree.select_all_with({"pid": 1}, P)), "counts")
        change(tree, lambda other: other.update("c", 5, P))
        change(tree, lambda other: other.add("x", 5, "elsewhere", {"pid": 1}))
    assert tree.get("count", "counts") == 2


def test_the_containers_and_walk_in_a_transaction_are_what_the_block_sees(tree: Tree) -> None:
    tree.add("a", 1, "w/x")
    tree.add("b", 1, "w/y")
    with tree.transaction():
        tree.add("c", 1, "w/z")
        tree.remove("b", "w/y")
        assert tree.containers("w") == ["w/x", "w/z"]
        assert list(tree.walk("w")) == [("w/x", ["a"]), ("w/z", ["c"])]
    with pytest.raises(TransactionConflict):
        with tree.transaction():
            tree.add("n", len(tree.containers("w")), "elsewhere")
            change(tree, lambda other: other.add("d", 1, "w/new"))


# The index.


def indexed_keys(store: Store) -> int:
    return store.write(lambda transaction: transaction.raw.stat(store.by_metadata)["entries"])


def put(name: str, metadata: bytes = b"") -> Any:
    from suitkaise.storage.keys import entry_key

    key, long_key = entry_key(P, name)
    return lambda transaction: transaction.put(key, long_key, transaction.get(key), 0, b"", None, metadata)


def packed(**metadata: Any) -> bytes:
    from suitkaise.storage.records import pack_metadata

    return pack_metadata(metadata)


def select(store: Store, **wanted: Any) -> list[bytes]:
    by_writer = store.write(lambda transaction: [bytes(key) for key, _ in transaction.select(wanted, P)])
    assert by_writer == [key for key, _, _ in Reader(store.directory).select(wanted, P)]
    return [key.partition(b"\0")[2] for key in by_writer]


def test_the_index_follows_every_change(store: Store) -> None:
    store.write(put("a", packed(pid=1, kind="x")))
    store.write(put("b", packed(pid=1)))
    assert select(store, pid=1) == [b"a", b"b"]
    assert indexed_keys(store) == 2
    store.write(put("a", packed(pid=2, remove_on_process_join=True)))
    assert (select(store, pid=1), select(store, pid=2)) == ([b"b"], [b"a"])
    assert indexed_keys(store) == 3
    store.write(put("a"))
    store.write(lambda transaction: transaction.remove(b"selection\0b", transaction.get(b"selection\0b")))
    assert (select(store, pid=1), select(store, pid=2), indexed_keys(store)) == ([], [], 0)


def test_an_index_that_is_declared_later_holds_the_earlier_entries(store: Store) -> None:
    store.write(put("a", packed(kind="x")))
    store.write(lambda transaction: transaction.declare_index(["kind"]))
    store.write(put("b", packed(kind="x")))
    assert (select(store, kind="x"), indexed_keys(store)) == ([b"a", b"b"], 2)
    store.write(lambda transaction: transaction.declare_index(["kind", "pid"]))
    assert indexed_keys(store) == 2


def test_a_store_of_a_version_without_index_is_indexed_when_it_is_opened(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write(put("a", packed(pid=1)))

    def forget_index(transaction: WriteTransaction) -> None:
        transaction.raw.drop(store.by_metadata)
        transaction.raw.delete(b"index", db=store.facts)
        transaction._changed = True

    store.write(forget_index)
    assert [key for key, _, _ in Reader(store.directory).select({"pid": 1}, P)] == [b"selection\0a"]
    store.close()
    store = Store(tmp_path)
    assert (store.declared, indexed_keys(store)) == (frozenset(index.ALWAYS_INDEXED), 1)
    assert select(store, pid=1) == [b"a"]
    store.close()


def test_the_rarest_pair_decides_how_much_of_the_index_is_read() -> None:
    read: list[bytes] = []
    entries = {b"p\0" + str(number).encode(): packed(pid=number == 7, owner="x") for number in range(100)}
    keys = sorted(
        key for entry, metadata in entries.items() for key in index.index_keys(metadata, index.ALWAYS_INDEXED, entry)
    )

    def scan(start: bytes, stop: bytes) -> Iterator[tuple[bytes, bytes]]:
        for key in keys:
            if start <= key < stop:
                read.append(key)
                yield key, b""

    found = index.find(scan, scan, lambda key: None, index.ALWAYS_INDEXED, {"owner": "x", "pid": True}, "p")
    assert (list(found), len(read) < 10) == ([], True)
