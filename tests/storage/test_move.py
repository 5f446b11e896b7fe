from __future__ import annotations

import threading

import pytest

from suitkaise.errors import EntryExists, TransactionConflict
from suitkaise.messaging.identity import set_owner
from suitkaise.storage.tree import Tree


def test_a_moved_entry_keeps_value_metadata_and_owner(tree: Tree) -> None:
    set_owner("w/moves#1")
    try:
        tree.add("a", [1], "from", {"pid": 1, "remove_on_process_join": True})
    finally:
        set_owner(None)
    before = tree.entry("a", "from")
    tree.move("a", to="to/other", path="from")
    assert tree.containers() == ["to/other"]
    after = tree.entry("a", "to/other")
    assert (after.metadata, after.owner, after.revision > before.revision) == (before.metadata, "w/moves#1", True)
    assert tree.get("a", "to/other") == [1]
    assert [entry.path for entry in tree.select_all_with({"pid": 1}, "")] == ["to/other"]
    tree.remove_owned("w/moves#1")
    assert tree.containers() == []


def test_the_path_defaults_to_the_callers_file_and_the_name_may_change(tree: Tree) -> None:
    tree.add("a", 1)
    tree.move("a", to="", new_name="b")
    assert tree.get_all_from("") == {"b": 1}
    tree.move("b", "n" * 300, "", new_name="m" * 600)
    assert tree.get_all_from("n" * 300) == {"m" * 600: 1}


def test_a_move_replaces_the_target_unless_exist_ok_is_false(tree: Tree) -> None:
    tree.add("a", 1, "p")
    tree.add("a", 2, "q", {"pid": 9})
    for block in (False, True):
        with pytest.raises(EntryExists, match="'a' in 'q' exists already"):
            if block:
                with tree.transaction():
                    tree.move("a", "q", "p", exist_ok=False)
            else:
                tree.move("a", "q", "p", exist_ok=False)
    tree.move("a", "q", "p")
    assert (tree.get_all_from("p"), tree.get_all_from("q")) == ({}, {"a": 1})
    assert tree.entry("a", "q").metadata == {}
    assert not tree.select_all_with({"pid": 9}, "")


def test_a_move_of_nothing_is_a_key_error_and_a_move_to_itself_changes_nothing(tree: Tree) -> None:
    tree.add("abc", 1, "p")
    with pytest.raises(KeyError, match=r"there is no 'abd' in 'p'; did you mean 'abc'\?"):
        tree.move("abd", "q", "p")
    revision = tree.revision("abc", "p")
    tree.move("abc", "p", "p", exist_ok=False)
    with tree.transaction():
        tree.move("abc", "p", "p", exist_ok=False)
    assert tree.revision("abc", "p") == revision
    tree.move("abc", "q", "p", wait=False)
    tree.flush()
    assert tree.containers() == ["q"]


def test_a_reader_always_finds_a_moving_entry_in_one_of_its_places(tree: Tree) -> None:
    tree.add("a", 1, "m/0")
    done = threading.Event()
    counts: set[int] = set()

    def read() -> None:
        other = Tree(tree.directory)
        while not done.is_set():
            counts.add(len(other.select_all_with({}, "m")))

    thread = threading.Thread(target=read)
    thread.start()
    try:
        for number in range(300):
            tree.move("a", f"m/{number + 1}", f"m/{number}")
    finally:
        done.set()
        thread.join()
    assert counts == {1}


def test_a_move_in_a_transaction_is_part_of_it(tree: Tree) -> None:
    set_owner("w/moves#2")
    try:
        tree.add("a", 1, "p", {"pid": 1})
    finally:
        set_owner(None)
    with tree.transaction():
        tree.move("a", "q", "p")
        assert (tree.exists("a", "p"), tree.get("a", "q")) == (False, 1)
        tree.update("a", 2, "q")
        tree.move("a", "r", "q")
    assert tree.containers() == ["r"]
    assert (tree.get("a", "r"), tree.entry("a", "r").metadata, tree.entry("a", "r").owner) == (
        2,
        {"pid": 1},
        "w/moves#2",
    )
    with pytest.raises(TransactionConflict):
        with tree.transaction():
            tree.move("a", "s", "r")
            thread = threading.Thread(target=Tree(tree.directory).update, args=("a", 3, "r"))
            thread.start()
            thread.join()
    assert tree.containers() == ["r"]
