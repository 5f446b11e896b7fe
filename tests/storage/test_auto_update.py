from __future__ import annotations

import threading

import pytest

from suitkaise.errors import TransactionConflict
from suitkaise.storage.tree import Tree


def test_what_the_dict_holds_at_the_end_of_the_block_is_stored(tree: Tree) -> None:
    items = [1]
    tree.add("items", [], "p", {"pid": 1})
    with tree.AutoUpdate(("items", items), ("limit", 10), path="p") as values:
        assert values == {"items": [1], "limit": 10}
        items.append(2)
        values["limit"] += 1
        values["new"] = "x"
        assert tree.get_all_from("p") == {"items": []}
    assert tree.get_all_from("p") == {"items": [1, 2], "limit": 11, "new": "x"}
    assert tree.entry("items", "p").metadata == {"pid": 1}


def test_a_name_alone_is_read_from_the_tree_of_the_callers_file(tree: Tree) -> None:
    tree.add("settings", {"a": 1})
    with tree.AutoUpdate("settings") as values:
        values["settings"]["b"] = 2
    assert tree.get("settings") == {"a": 1, "b": 2}
    with pytest.raises(KeyError, match=r"there is no 'setting' in .* did you mean 'settings'\?"):
        tree.AutoUpdate("setting")


def test_a_name_that_the_block_takes_out_of_the_dict_is_removed(tree: Tree) -> None:
    tree.add("a", 1, "p")
    tree.add("b", 2, "p")
    with tree.AutoUpdate("a", ("b", 5), ("c", 6), path="p") as values:
        del values["a"], values["b"], values["c"]
    assert tree.get_all_from("p") == {}


def test_a_change_of_what_the_block_removes_is_a_conflict(tree: Tree) -> None:
    tree.add("a", 1, "p")
    with pytest.raises(TransactionConflict, match="'a' in 'p'"), tree.AutoUpdate("a", path="p") as values:
        del values["a"]
        add_in_another_thread(tree)
    assert tree.get_all_from("p") == {"a": 5}


def test_a_block_that_raises_stores_nothing(tree: Tree) -> None:
    with pytest.raises(ZeroDivisionError), tree.AutoUpdate(("a", 1), path="p") as values:
        values["b"] = 2
        raise ZeroDivisionError
    assert tree.get_all_from("p") == {}


def test_a_change_of_what_was_read_is_a_conflict(tree: Tree) -> None:
    tree.add("a", 1, "p")
    for inside in (False, True):
        with pytest.raises(TransactionConflict, match="'a' in 'p' was changed by another writer"):
            if inside:
                with tree.transaction(), tree.AutoUpdate("a", ("b", 1), path="p"):
                    add_in_another_thread(tree)
            else:
                with tree.AutoUpdate("a", ("b", 1), path="p"):
                    add_in_another_thread(tree)
        assert tree.get_all_from("p") == {"a": 5}
    with tree.AutoUpdate(("a", 7), path="p"):
        add_in_another_thread(tree)
    assert tree.get("a", "p") == 7


def add_in_another_thread(tree: Tree) -> None:
    thread = threading.Thread(target=tree.add, args=("a", 5, "p"))
    thread.start()
    thread.join()


def test_in_a_transaction_it_is_part_of_the_transaction(tree: Tree) -> None:
    with pytest.raises(ZeroDivisionError), tree.transaction():
        with tree.AutoUpdate(("a", 1), path="p") as values:
            values["a"] = 2
        assert tree.get("a", "p") == 2
        raise ZeroDivisionError
    assert tree.get_all_from("p") == {}


@pytest.mark.parametrize("wrong", [5, ("a",), ("a", 1, 2), (1, 2)])
def test_other_arguments_are_an_error_of_the_call(tree: Tree, wrong: object) -> None:
    with pytest.raises(TypeError, match="AutoUpdate takes names, and pairs of a name and its value"):
        tree.AutoUpdate(wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="a name must not be empty"):
        tree.AutoUpdate(("", 1))
