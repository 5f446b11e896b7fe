from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from suitkaise.errors import EntryExists, StorageError, TransactionConflict
from suitkaise.messaging.identity import set_owner
from suitkaise.storage.tree import Tree
from tests.storage.support import Storage

P = "transactions"


def test_all_changes_of_a_block_are_stored_at_its_end(tree: Tree) -> None:
    other = Tree(tree.directory)
    tree.add("gone", 1, path=P)
    with tree.transaction():
        tree.add("a", 1, path=P)
        tree.add("b", 2, path="elsewhere", metadata={"pid": 1})
        tree.remove("gone", path=P)
        in_another_thread(lambda: (other.exists("a", path=P), other.exists("gone", path=P)), (False, True))
    assert other.get_all_from(P) == {"a": 1}
    assert other.entry("b", path="elsewhere").metadata == {"pid": 1}


def test_the_name_after_as_is_the_tree(tree: Tree) -> None:
    with tree.transaction() as same:
        same.add("a", 1, "p")
    assert same is tree
    assert tree.get("a", "p") == 1


def test_an_exception_in_the_block_leaves_everything_as_it_was(tree: Tree) -> None:
    tree.add("a", 1, path=P)
    with pytest.raises(ZeroDivisionError):
        with tree.transaction():
            tree.add("a", 2, path=P)
            tree.add("b", 2, path=P)
            raise ZeroDivisionError
    assert tree.get_all_from(P) == {"a": 1}
    tree.add("a", 3, path=P)
    assert tree.get("a", path=P) == 3


def test_the_block_sees_its_own_writes(tree: Tree) -> None:
    tree.add("list", [1], path=P, metadata={"pid": 1})
    tree.add("old", 1, path=P)
    with tree.transaction():
        tree.add("a", 1, path=P, metadata={"x": 1})
        assert tree.get("a", path=P) == 1
        assert tree.update("a", lambda old: old + 1, path=P) == 2
        assert tree.update("a", 3, path=P) == 3
        assert tree.increment("a", 2, path=P) == 5
        assert tree.increment("new", path=P, start=10) == 11
        tree.append("list", 2, path=P)
        tree.append("made", 1, path=P)
        assert tree.setdefault("a", 9, path=P) == 5
        assert tree.setdefault("default", [9], path=P, metadata={"d": 1}) == [9]
        tree.remove("old", path=P)
        assert not tree.exists("old", path=P)
        tree.remove("old", path=P, missing_ok=True)
        assert tree.get("old", path=P, default="none") == "none"
        seen = {"a": 5, "new": 11, "list": [1, 2], "made": [1], "default": [9]}
        assert tree.get_all_from(P) == seen
        assert tree.entry("a", path=P).metadata == {"x": 1}
    assert tree.get_all_from(P) == seen
    assert tree.entry("a", path=P).metadata == {"x": 1}
    assert tree.entry("list", path=P).metadata == {"pid": 1}
    assert tree.entry("default", path=P).metadata == {"d": 1}


def test_a_block_raises_the_same_errors_as_direct_calls(tree: Tree) -> None:
    tree.add("text", "x", path=P)
    tree.add("large", 10**400, path=P)
    with tree.transaction():
        with pytest.raises(StorageError, match=r"'large' in .* is not an int or float that this can be added to"):
            tree.increment("large", 0.5, path=P)
        with pytest.raises(KeyError, match="'missing' in"):
            tree.get("missing", path=P)
        with pytest.raises(KeyError, match="'missing' in"):
            tree.update("missing", 1, path=P)
        with pytest.raises(KeyError, match="'missing' in"):
            tree.remove("missing", path=P)
        with pytest.raises(EntryExists):
            tree.add("text", 1, path=P, exist_ok=False)
        with pytest.raises(StorageError, match="is not an int or float"):
            tree.increment("text", path=P)
        with pytest.raises(StorageError, match="is not a list"):
            tree.append("text", 1, path=P)
        with pytest.raises(StorageError, match="cannot be part of a transaction"):
            tree.forget_owner("a/b#1")


def test_compare_and_set_in_a_block_compares_with_what_the_block_sees(tree: Tree) -> None:
    tree.add("a", 1, path=P, metadata={"pid": 1})
    with tree.transaction():
        assert not tree.compare_and_set("a", 0, 2, path=P)
        seen = tree.revision("a", path=P)
        assert tree.compare_and_set("a", seen, 2, path=P)
        assert not tree.compare_and_set("a", seen, 3, path=P)
        assert tree.compare_and_set("a", tree.revision("a", path=P), 4, path=P)
        assert tree.compare_and_set("new", 0, 5, path=P, metadata={"pid": 2})
        assert not tree.compare_and_set("new", 0, 6, path=P)
        tree.remove("new", path=P)
        assert tree.revision("new", path=P) == 0
        assert tree.compare_and_set("new", 0, 7, path=P)
        within = tree.revision("new", path=P)
    assert tree.get_all_from(P) == {"a": 4, "new": 7}
    assert tree.entry("a", path=P).metadata == {"pid": 1}
    assert not tree.compare_and_set("new", within, 8, path=P)


@pytest.mark.parametrize("stored", [True, False])
def test_a_change_after_compare_and_set_in_a_block_is_a_conflict(tree: Tree, stored: bool) -> None:
    tree.add("a", 1, path=P)
    other = Tree(tree.directory)
    with pytest.raises(TransactionConflict):
        with tree.transaction():
            assert tree.compare_and_set("a", tree.revision("a", path=P) + (not stored), 2, path=P) is stored
            in_another_thread(lambda: other.update("a", 3, path=P), 3)
            tree.add("b", 1, path=P)
    assert tree.get_all_from(P) == {"a": 3}


def test_an_entry_that_is_removed_and_made_again_in_a_block_loses_its_metadata(tree: Tree) -> None:
    for name in ("direct", "block"):
        tree.add(name, 1, path=P, metadata={"pid": 1})
    tree.remove("direct", path=P)
    tree.increment("direct", path=P)
    with tree.transaction():
        tree.remove("block", path=P)
        tree.increment("block", path=P)
        assert tree.entry("block", path=P).metadata == {}
    assert tree.entry("direct", path=P).metadata == tree.entry("block", path=P).metadata == {}


@pytest.mark.parametrize("how", ["update", "increment", "AutoUpdate"])
def test_an_entry_with_a_new_value_keeps_metadata_and_owner_in_the_block_too(tree: Tree, how: str) -> None:
    set_owner("w/maker#1")
    tree.add("a", 1, P, {"pid": 7, "remove_on_process_join": True})
    set_owner("w/mover#1")
    try:
        with tree.transaction():
            if how == "update":
                tree.update("a", 2, P)
            elif how == "increment":
                tree.increment("a", 1, P)
            else:
                with tree.AutoUpdate(("a", 2), path=P):
                    pass
            assert (tree.entry("a", P).metadata["pid"], tree.entry("a", P).owner) == (7, "w/maker#1")
            assert tree.select_all_with({"pid": 7}, P).values() == [2]
            tree.move("a", "moved", P)
    finally:
        set_owner(None)
    assert (tree.entry("a", "moved").metadata["pid"], tree.entry("a", "moved").owner) == (7, "w/maker#1")
    tree.remove_owned("w/mover#1")
    assert tree.exists("a", "moved")
    tree.remove_owned("w/maker#1")
    assert not tree.exists("a", "moved")


@pytest.mark.parametrize("looks", [False, True])
def test_a_value_that_replaces_an_unread_one_conflicts_once_its_entry_is_looked_at(tree: Tree, looks: bool) -> None:
    def work() -> None:
        with tree.transaction():
            with tree.AutoUpdate(("a", 2), path=P):
                pass
            in_another_thread(lambda: tree.add("a", 1, P, {"pid": 8}))
            if looks:
                assert tree.entry("a", P).metadata == {"pid": 7}

    tree.add("a", 1, P, {"pid": 7})
    if looks:
        with pytest.raises(TransactionConflict):
            work()
    else:
        work()
    assert (tree.get("a", P), tree.entry("a", P).metadata) == (1 if looks else 2, {"pid": 8})


def test_a_block_stores_a_copy_of_the_value(tree: Tree) -> None:
    items = [1]
    with tree.transaction():
        tree.add("a", items, path=P)
        items.append(2)
        assert tree.get("a", path=P) == [1]
    assert tree.get("a", path=P) == [1]


def test_a_block_conflicts_if_another_writer_changed_an_entry_that_it_read(tree: Tree) -> None:
    tree.add("a", 1, path=P)
    with pytest.raises(TransactionConflict, match=f"'a' in '{P}' was changed by another writer"):
        with tree.transaction():
            seen = tree.get("a", path=P)
            in_another_thread(lambda: tree.add("a", 10, path=P))
            assert tree.get("a", path=P) == seen, "repeated reads return the same value"
            tree.add("b", seen + 1, path=P)
    assert tree.get_all_from(P) == {"a": 10}


@pytest.mark.parametrize("change", ["add", "remove", "replace", "move"])
def test_a_block_that_listed_a_container_conflicts_with_any_change_of_the_container(tree: Tree, change: str) -> None:
    tree.add("a", 1, path=P)
    tree.add("b", 1, path=P)

    def meddle() -> None:
        if change in ("remove", "move"):
            tree.remove("a", path=P)
        if change in ("add", "move"):
            tree.add("c", 1, path=P)
        if change == "replace":
            tree.add("a", 1, path=P)

    with pytest.raises(TransactionConflict, match=f"the container '{P}' was changed"):
        with tree.transaction():
            count = len(tree.get_all_from(P))
            in_another_thread(meddle)
            tree.add("count", count, path="elsewhere")
    assert not tree.exists("count", path="elsewhere")


def test_a_block_that_read_a_missing_entry_conflicts_with_its_addition(tree: Tree) -> None:
    with pytest.raises(TransactionConflict):
        with tree.transaction():
            assert tree.get("a", path=P, default=None) is None
            in_another_thread(lambda: tree.add("a", 1, path=P))
            tree.add("a", 2, path=P)
    assert tree.get("a", path=P) == 1


def test_a_block_that_only_writes_never_conflicts(tree: Tree) -> None:
    tree.add("a", 1, path=P)
    with tree.transaction():
        tree.add("a", 2, path=P)
        in_another_thread(lambda: tree.add("a", 3, path=P))
    assert tree.get("a", path=P) == 2


def test_a_block_that_only_reads_conflicts_if_its_reads_are_inconsistent(tree: Tree) -> None:
    tree.add("a", 1, path=P)
    tree.add("b", 1, path=P)
    with pytest.raises(TransactionConflict):
        with tree.transaction():
            tree.get("a", path=P)
            in_another_thread(lambda: (tree.add("a", 2, path=P), tree.add("b", 2, path=P)))
            tree.get("b", path=P)


def test_atomically_tries_again_until_no_other_writer_is_faster(tree: Tree) -> None:
    accounts = [f"account{number}" for number in range(4)]
    for account in accounts:
        tree.add(account, 100, path=P)

    def move(source: str, target: str) -> None:
        def work(tree: Tree) -> None:
            money = tree.get(source, path=P)
            tree.add(source, money - 1, path=P)
            tree.update(target, lambda money: money + 1, path=P)

        for _ in range(40):
            tree.atomically(work, retries=1000)

    def check() -> None:
        for _ in range(100):
            total = tree.atomically(lambda tree: sum(tree.get_all_from(P).values()), retries=1000)
            assert total == 400

    errors: list[BaseException] = []

    def guarded(work: Any, *args: Any) -> None:
        try:
            work(*args)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(move, accounts[at], accounts[(at + 1) % 4])) for at in range(4)]
    threads.append(threading.Thread(target=guarded, args=(check,)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert sorted(tree.get_all_from(P).values()) == [100, 100, 100, 100]


def test_atomically_refuses_what_would_run_after_its_transaction(tree: Tree) -> None:
    async def work(tree: Any) -> None: ...

    with pytest.raises(TypeError, match="atomically: function must be a plain function"):
        tree.atomically(work)


@pytest.mark.parametrize("wrong", [5, None, "work"])
def test_atomically_refuses_what_is_no_function(tree: Tree, wrong: Any) -> None:
    with pytest.raises(TypeError, match=f"atomically: function must be a function of the tree, not {wrong!r}"):
        tree.atomically(wrong)


@pytest.mark.parametrize("wrong", ["3", 1.5, None, True])
def test_atomically_refuses_retries_that_are_no_number_before_it_calls_the_function(tree: Tree, wrong: Any) -> None:
    called: list[Any] = []
    with pytest.raises(TypeError, match=f"atomically: retries must be a whole number, not {wrong!r}"):
        tree.atomically(called.append, retries=wrong)
    assert called == []


def test_atomically_gives_up_after_its_retries(tree: Tree) -> None:
    tree.add("a", 0, path=P)
    calls = []

    def work(tree: Tree) -> None:
        calls.append(tree.get("a", path=P))
        in_another_thread(lambda: tree.increment("a", path=P))
        tree.add("b", 1, path=P)

    with pytest.raises(TransactionConflict, match=r"nothing was written, at any of 4 attempts$"):
        tree.atomically(work, retries=3)
    assert calls == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="retries must be 0 or more"):
        tree.atomically(work, retries=-1)


@pytest.mark.parametrize(
    "block",
    [lambda tree: tree.transaction(), lambda tree: tree.AutoUpdate("a", path=P)],
    ids=["transaction", "AutoUpdate"],
)
def test_the_error_of_a_block_that_met_another_writer_names_the_call_that_tries_again(tree: Tree, block: Any) -> None:
    tree.add("a", 0, path=P)
    with pytest.raises(TransactionConflict, match=r"; tree\.atomically\(function\) tries again by itself$"):
        with block(tree):
            tree.get("a", path=P)
            in_another_thread(lambda: tree.increment("a", path=P))
            tree.add("b", 1, path=P)


def test_transactions_do_not_nest_and_belong_to_their_thread(tree: Tree) -> None:
    with tree.transaction():
        with pytest.raises(StorageError, match="transactions do not nest"):
            with tree.transaction():
                pass
        in_another_thread(lambda: tree.add("a", 1, path=P))
        assert Tree(tree.directory).get("a", path=P) == 1
        tree.add("b", 1, path=P)
        assert Tree(tree.directory).get("b", path=P) == 1, "another handle in this thread uses the same transaction"
        in_another_thread(lambda: tree.exists("b", path=P), False)
    assert tree.get_all_from(P) == {"a": 1, "b": 1}


def test_what_other_tasks_of_the_event_loop_write_is_no_part_of_a_transaction(tree: Tree) -> None:
    async def transact(begun: asyncio.Event, other: asyncio.Event) -> None:
        with tree.transaction():
            tree.add("a", 1, P)
            begun.set()
            await other.wait()
            assert (tree.get("a", P), tree.get("b", P)) == (1, 2)
            raise ZeroDivisionError

    async def write(begun: asyncio.Event, other: asyncio.Event) -> None:
        await begun.wait()
        tree.add("b", 2, P)
        assert (tree.get("a", P, None), tree.get_all_from(P), tree.exists("a", P)) == (None, {"b": 2}, False)
        with pytest.raises(StorageError, match="there is a transaction in this thread already"):
            with tree.transaction():
                pass
        other.set()

    async def main() -> None:
        begun, other = asyncio.Event(), asyncio.Event()
        with pytest.raises(ZeroDivisionError):
            await asyncio.gather(transact(begun, other), write(begun, other))

    asyncio.run(main())
    assert tree.get_all_from(P) == {"b": 2}


def test_an_event_loop_that_runs_in_a_block_is_part_of_the_transaction(tree: Tree) -> None:
    async def main() -> None:
        tree.add("a", 1, P)

    with pytest.raises(ZeroDivisionError), tree.transaction():
        asyncio.run(main())
        raise ZeroDivisionError
    assert tree.get_all_from(P) == {}


@pytest.mark.parametrize("closes", [False, True])
def test_a_block_that_ends_in_another_thread_writes_nothing_and_leaves_no_transaction(tree: Tree, closes: bool) -> None:
    def block() -> Iterator[None]:
        with tree.transaction():
            tree.add("a", 1, P)
            yield

    def end() -> None:
        tree.add("b", 1, P)
        if closes:
            steps.close()
        else:
            with pytest.raises(StorageError, match="has to end in the process, thread and task in which it began"):
                next(steps)

    steps: Any = block()
    next(steps)
    in_another_thread(end)
    tree.add("c", 1, P)
    in_another_thread(lambda: tree.get_all_from(P), {"b": 1, "c": 1})
    with tree.transaction():
        tree.add("d", 1, P)
    assert tree.get_all_from(P) == {"b": 1, "c": 1, "d": 1}


def test_a_process_that_is_forked_in_a_block_is_no_part_of_the_transaction(tree: Tree) -> None:
    def write_in_child() -> None:
        child = os.fork()
        if child == 0:
            try:
                tree.add("child", int(tree.exists("a", P)), P)
            finally:
                os._exit(0)
        assert os.waitpid(child, 0)[1] == 0

    with pytest.raises(ZeroDivisionError), tree.transaction():
        tree.add("a", 1, P)
        write_in_child()
        raise ZeroDivisionError
    assert tree.get_all_from(P) == {"child": 0}


def test_a_block_that_ends_in_a_forked_process_writes_nothing_there(tree: Tree) -> None:
    code, child = 1, -1
    try:
        with tree.transaction():
            tree.increment("a", path=P)
            child = os.fork()
    except StorageError as error:
        code = 0 if "has to end in the process, thread and task in which it began" in str(error) else 2
    finally:
        if child == 0:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert tree.get_all_from(P) == {"a": 1}


@pytest.mark.parametrize("writes", [False, True])
def test_a_transaction_that_is_too_large_is_told_to_be_divided(tree: Tree, writes: bool) -> None:
    def work() -> None:
        with tree.transaction():
            for number in range(300):
                name = f"{number}{'n' * 5000}"
                if writes:
                    tree.add(name, 1, P)
                else:
                    tree.exists(name, P)

    counts = "300 writes and 0 reads" if writes else "0 writes and 300 reads"
    with pytest.raises(StorageError, match=f"the transaction is too large: {counts}; .* divide it"):
        work()
    assert tree.get_all_from(P) == {}


def test_a_dead_owner_commits_nothing(tree: Tree) -> None:
    set_owner("dead/worker#1")
    try:
        tree.forget_owner("dead/worker#1")
        with pytest.raises(StorageError, match="dead/worker#1 has ended"):
            with tree.transaction():
                tree.add("a", 1, path=P)
    finally:
        set_owner(None)
    assert tree.get_all_from(P) == {}


def test_a_block_without_writes_changes_no_revision(tree: Tree) -> None:
    tree.add("a", 1, path=P)
    before = tree.revision("a", path=P)
    with tree.transaction():
        pass
    with tree.transaction():
        tree.get("a", path=P)
    tree.add("a", 1, path=P)
    assert tree.revision("a", path=P) == before + 1


def test_a_transaction_survives_a_kill_of_the_server(storage: Storage) -> None:
    tree = storage.tree
    tree.add("a", 1, path=P)
    with tree.transaction():
        tree.increment("a", path=P)
        tree.add("big", b"x" * 300_000, path=P)
        storage.restart()
    assert tree.get("a", path=P) == 2
    assert len(tree.get("big", path=P)) == 300_000


def in_another_thread(work: Any, expected: Any = None) -> None:
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(work()))
    thread.start()
    thread.join()
    assert results, "the work raised"
    if expected is not None:
        assert results == [expected]
