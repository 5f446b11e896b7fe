"""The tree behaves like a plain dict, even if its server is killed between two steps."""

from __future__ import annotations

import contextlib
import itertools
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from suitkaise.errors import EntryExists, StorageError, TransactionConflict
from suitkaise.messaging.identity import set_owner
from suitkaise.storage.keys import is_below
from suitkaise.storage.tree import Tree
from tests.storage.support import Storage, clear

PATHS = st.sampled_from(["", "a", "a/b", "p" * 300])
NAMES = st.sampled_from(["x", "y", "n" * 600])
OWNERS = st.sampled_from([None, "w/one#1", "w/one#2", "w/two#1"])
VALUES = (
    st.none()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False)
    | st.text(max_size=5)
    | st.lists(st.integers(0, 9), max_size=3)
    | st.binary(max_size=3000)
)
MARK = {"remove_on_process_join": True}
METADATA = st.sampled_from([{}, {"pid": 1}, {"pid": 2, "kind": "k"}, {"kind": "k"}])
WANTED = st.sampled_from([{}, {"pid": 1}, {"kind": "k"}, {"pid": 2, "kind": "k"}, MARK, {"pid": True}])
EXAMPLES = itertools.count()


class TreeAgainstDict(RuleBasedStateMachine):
    storage: Storage

    def __init__(self) -> None:
        super().__init__()
        self.model: dict[tuple[str, str], Any] = {}
        self.metadata: dict[tuple[str, str], dict[str, Any]] = {}
        self.owners: dict[tuple[str, str], str] = {}  # of marked entries
        self.saved: dict[tuple[str, str], tuple[Any, dict[str, Any]]] = {}  # in the snapshot
        self.dead: dict[str, int] = {}
        self.tree = Tree(self.storage.directory)
        self.generation = 0
        self.example = next(EXAMPLES)

    @initialize()
    def empty(self) -> None:
        clear(self.tree)
        self.tree.deselect()
        self.tree.snapshot(self.file)

    @property
    def file(self) -> Path:
        return self.storage.directory / "model.snapshot"

    def inside(self, block: bool) -> contextlib.AbstractContextManager[None]:
        return self.tree.transaction() if block else contextlib.nullcontext()

    def is_dead(self, owner: str | None) -> bool:
        if owner is None:
            return False
        path, _, number = owner.rpartition("#")
        return int(number) <= self.dead.get(self.named(path), 0)

    def named(self, path: str) -> str:
        """Return an owner of this example alone: a dead owner stays dead, and all examples share the server."""
        return f"{path}-{self.example}"

    def by(self, owner: str | None, call: Any) -> Any:
        """Call as this owner; expect a refusal and return None if the owner is dead."""
        mine = None
        if owner is not None:
            path, _, number = owner.rpartition("#")
            mine = f"{self.named(path)}#{number}"
        set_owner(mine)
        try:
            if not self.is_dead(owner):
                return call()
            with pytest.raises(StorageError, match="has ended"):
                call()
            return None
        finally:
            set_owner(None)

    @rule(
        path=PATHS, name=NAMES, value=VALUES, owner=OWNERS, marked=st.booleans(), wait=st.booleans(), metadata=METADATA
    )
    def add(
        self,
        path: str,
        name: str,
        value: Any,
        owner: str | None,
        marked: bool,
        wait: bool,
        metadata: dict[str, Any],
    ) -> None:
        metadata = metadata | MARK if marked else metadata
        wait = wait or self.is_dead(owner)
        self.by(owner, lambda: self.tree.add(name, value, path, metadata, wait=wait))
        if not self.is_dead(owner):
            self.put(path, name, value, metadata)
            self.owners.pop((path, name), None)
            if marked and owner is not None:
                self.owners[path, name] = owner

    @rule(path=PATHS, name=NAMES, value=VALUES)
    def add_new(self, path: str, name: str, value: Any) -> None:
        if (path, name) in self.model:
            with pytest.raises(StorageError, match="exists already"):
                self.tree.add(name, value, path, exist_ok=False)
        else:
            self.tree.add(name, value, path, exist_ok=False)
            self.put(path, name, value, {})

    @rule(path=PATHS, name=NAMES, value=VALUES, by_function=st.booleans(), metadata=st.none() | METADATA)
    def update(self, path: str, name: str, value: Any, by_function: bool, metadata: dict[str, Any] | None) -> None:
        new = (lambda _: value) if by_function else value
        if (path, name) in self.model:
            assert self.tree.update(name, new, path, metadata) == value
            self.put(path, name, value, metadata)
            if metadata is not None:
                self.owners.pop((path, name), None)
        else:
            with pytest.raises(KeyError):
                self.tree.update(name, new, path)

    @rule(path=PATHS, name=NAMES, amount=st.integers(-5, 2**66) | st.floats(-10, 10), wait=st.booleans())
    def increment(self, path: str, name: str, amount: float, wait: bool) -> None:
        old = self.model.get((path, name), 0)
        if type(old) in (int, float):
            result = self.tree.increment(name, amount, path, wait=wait)
            self.put(path, name, old + amount)
            assert result == (old + amount if wait else None)
        else:
            with pytest.raises(StorageError, match="is not an int or float"):
                self.tree.increment(name, amount, path)

    @rule(path=PATHS, name=NAMES, item=VALUES, wait=st.booleans())
    def append(self, path: str, name: str, item: Any, wait: bool) -> None:
        old = self.model.get((path, name), [])
        if type(old) is list:
            self.tree.append(name, item, path, wait=wait)
            self.put(path, name, [*old, item])
        else:
            with pytest.raises(StorageError, match="is not a list"):
                self.tree.append(name, item, path)

    @rule(path=PATHS, name=NAMES, value=VALUES)
    def setdefault(self, path: str, name: str, value: Any) -> None:
        self.tree.flush()
        expected = self.model.get((path, name), value)
        assert self.tree.setdefault(name, value, path) == expected
        if (path, name) not in self.model:
            self.put(path, name, value)

    @rule(path=PATHS, name=NAMES, value=VALUES, stale=st.booleans(), block=st.booleans())
    def compare_and_set(self, path: str, name: str, value: Any, stale: bool, block: bool) -> None:
        self.tree.flush()
        with self.inside(block):
            revision = self.tree.revision(name, path)
            assert (revision > 0) is ((path, name) in self.model)
            assert self.tree.compare_and_set(name, revision + stale, value, path) is not stale
        if not stale:
            self.put(path, name, value)

    @rule(path=PATHS, name=NAMES, to=PATHS, new_name=st.none() | NAMES, exist_ok=st.booleans(), block=st.booleans())
    def move(self, path: str, name: str, to: str, new_name: str | None, exist_ok: bool, block: bool) -> None:
        self.tree.flush()
        here, there = (path, name), (to, new_name or name)
        error: type[Exception] | None = None
        if here not in self.model:
            error = KeyError
        elif there in self.model and here != there and not exist_ok:
            error = EntryExists
        with self.inside(block), pytest.raises(error) if error else contextlib.nullcontext():
            self.tree.move(name, to, path, new_name=new_name, exist_ok=exist_ok)
        if error is None and here != there:
            self.model[there], self.metadata[there] = self.model.pop(here), self.metadata.pop(here)
            self.owners.pop(there, None)
            if here in self.owners:
                self.owners[there] = self.owners.pop(here)

    @rule(
        path=PATHS,
        wanted=WANTED,
        action=st.sampled_from(["look", "remove", "update", "remove_selected"]),
        block=st.booleans(),
    )
    def select(self, path: str, wanted: dict[str, Any], action: str, block: bool) -> None:
        self.tree.flush()
        expected = sorted(
            key
            for key, metadata in self.metadata.items()
            if is_below(key[0], path) and all(metadata.get(name, ...) == value for name, value in wanted.items())
        )
        with self.inside(block):
            selection = self.tree.select_all_with(wanted, path)
            assert [(entry.path, entry.name) for entry in selection] == expected
            assert [entry.metadata for entry in selection] == [self.metadata[key] for key in expected]
            assert selection.values() == [self.model[key] for key in expected]
            assert self.tree.containers(path) == sorted({at for at, _ in self.model if is_below(at, path)})
            match action:
                case "update":
                    assert selection.update(lambda value: [value]) == len(expected)
                case "remove":
                    assert selection.remove() == len(expected)
                case "remove_selected":
                    assert self.tree.remove_selected() == len(expected)
        for key in expected:
            if action == "update":
                self.put(*key, [self.model[key]])
            elif action != "look":
                self.drop(key)

    @rule(keys=st.sampled_from([["kind"], ["kind", "pid"]]))
    def declare_index(self, keys: list[str]) -> None:
        self.tree.declare_index(keys)

    @rule()
    def snapshot(self) -> None:
        self.tree.flush()
        self.saved = {key: (value, self.metadata[key]) for key, value in self.model.items() if key not in self.owners}
        assert self.tree.snapshot(self.file) == len(self.saved)

    @rule(path=PATHS, replace=st.booleans())
    def restore(self, path: str, replace: bool) -> None:
        self.tree.flush()
        restored = {key: saved for key, saved in self.saved.items() if is_below(key[0], path)}
        assert self.tree.restore(self.file, path, replace=replace) == len(restored)
        for key in [key for key in self.model if replace and is_below(key[0], path) and key not in self.owners]:
            self.drop(key)
        for key, (value, metadata) in restored.items():
            self.put(*key, value, metadata)
            self.owners.pop(key, None)

    @rule(path=PATHS, values=st.dictionaries(NAMES, VALUES), read=NAMES, fail=st.booleans())
    def auto_update(self, path: str, values: dict[str, Any], read: str, fail: bool) -> None:
        self.tree.flush()
        names = [read] if (path, read) in self.model and read not in values else []
        with contextlib.suppress(ZeroDivisionError), self.tree.AutoUpdate(*names, *values.items(), path=path) as block:
            assert block == {**{name: self.model[path, name] for name in names}, **values}
            for name in names:
                block[name] = values[name] = "read"
            if fail:
                raise ZeroDivisionError
        for name, value in values.items() if not fail else ():
            self.put(path, name, value)

    @rule(path=PATHS, name=NAMES, wait=st.booleans())
    def remove(self, path: str, name: str, wait: bool) -> None:
        if (path, name) in self.model:
            self.tree.remove(name, path, wait=wait)
            self.drop((path, name))
        else:
            with pytest.raises(KeyError):
                self.tree.remove(name, path)

    @rule(owner=OWNERS.filter(bool), dead=st.booleans())
    def forget(self, owner: str, dead: bool) -> None:
        path, _, number = owner.rpartition("#")
        if dead:
            self.dead[self.named(path)] = max(int(number), self.dead.get(self.named(path), 0))
            self.tree.forget_owner(f"{self.named(path)}#{number}")
        else:
            self.tree.remove_owned(f"{self.named(path)}#{number}")
        for key, other in list(self.owners.items()):
            if other == owner or (dead and self.is_dead(other)):
                self.drop(key)

    @rule(steps=st.lists(st.tuples(PATHS, NAMES, VALUES | st.just("remove")), max_size=4), fail=st.booleans())
    def transaction(self, steps: list[tuple[str, str, Any]], fail: bool) -> None:
        self.tree.flush()
        after, metadata, owners = dict(self.model), dict(self.metadata), dict(self.owners)
        try:
            with self.tree.transaction():
                for path, name, value in steps:
                    assert self.tree.get(name, path, None) == after.get((path, name))
                    if value == "remove":
                        self.tree.remove(name, path, missing_ok=True)
                        after.pop((path, name), None)
                        metadata.pop((path, name), None)
                    else:
                        self.tree.add(name, value, path)
                        after[path, name], metadata[path, name] = value, {}
                    owners.pop((path, name), None)
                if fail:
                    raise ZeroDivisionError
        except ZeroDivisionError:
            return
        self.model, self.metadata, self.owners = after, metadata, owners

    @rule(path=PATHS, name=NAMES, value=VALUES)
    def transaction_that_conflicts(self, path: str, name: str, value: Any) -> None:
        self.tree.flush()
        other = Tree(self.storage.directory)
        with pytest.raises(TransactionConflict):
            with self.tree.transaction():
                self.tree.get(name, path, None)
                thread = threading.Thread(target=other.add, args=(name, value, path))
                thread.start()
                thread.join()
                self.tree.add("never", 1, path)
        self.put(path, name, value, {})
        self.owners.pop((path, name), None)

    @precondition(lambda self: self.generation < 3)
    @rule()
    def kill_the_server(self) -> None:
        self.generation += 1
        self.storage.restart()

    @rule()
    def another_handle(self) -> None:
        self.tree.close()
        self.tree = Tree(self.storage.directory)

    @invariant()
    def is_like_the_dict(self) -> None:
        self.tree.flush()
        paths = {path for path, _ in self.model}
        assert self.tree.containers() == sorted(paths)
        for path in paths:
            mine = {name: value for (at, name), value in self.model.items() if at == path}
            found = self.tree.get_all_from(path)
            assert found == mine
            assert all(type(found[name]) is type(mine[name]) for name in mine)

    def put(self, path: str, name: str, value: Any, metadata: dict[str, Any] | None = None) -> None:
        self.model[path, name] = value
        if metadata is not None or (path, name) not in self.metadata:
            self.metadata[path, name] = metadata or {}

    def drop(self, key: tuple[str, str]) -> None:
        del self.model[key], self.metadata[key]
        self.owners.pop(key, None)

    def teardown(self) -> None:
        self.tree.close()


def check(engine: str, examples: int, steps: int) -> None:
    with Storage(engine=engine) as storage:
        machine = type("Machine", (TreeAgainstDict,), {"storage": storage})
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=examples,
                stateful_step_count=steps,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            ),
        )


def test_the_tree_behaves_like_a_dict(engine: str) -> None:
    check(engine, examples=12, steps=25)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_tree_behaves_like_a_dict_in_long_runs(engine: str) -> None:
    check(engine, examples=200, steps=60)
