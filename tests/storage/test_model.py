"""The tree behaves like a plain dict, even if its server is killed between two steps."""

from __future__ import annotations

import itertools
import threading
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

from suitkaise.errors import StorageError, TransactionConflict
from suitkaise.messaging.identity import set_owner
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
EXAMPLES = itertools.count()


class TreeAgainstDict(RuleBasedStateMachine):
    storage: Storage

    def __init__(self) -> None:
        super().__init__()
        self.model: dict[tuple[str, str], Any] = {}
        self.owners: dict[tuple[str, str], str] = {}  # of marked entries
        self.dead: dict[str, int] = {}
        self.tree = Tree(self.storage.directory)
        self.generation = 0
        self.example = next(EXAMPLES)

    @initialize()
    def empty(self) -> None:
        clear(self.tree)

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

    @rule(path=PATHS, name=NAMES, value=VALUES, owner=OWNERS, marked=st.booleans(), wait=st.booleans())
    def add(self, path: str, name: str, value: Any, owner: str | None, marked: bool, wait: bool) -> None:
        metadata = {"remove_on_process_join": True} if marked else None
        wait = wait or self.is_dead(owner)
        self.by(owner, lambda: self.tree.add(name, value, path, metadata, wait=wait))
        if not self.is_dead(owner):
            self.put(path, name, value)
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
            self.put(path, name, value)

    @rule(path=PATHS, name=NAMES, value=VALUES, by_function=st.booleans())
    def update(self, path: str, name: str, value: Any, by_function: bool) -> None:
        new = (lambda _: value) if by_function else value
        if (path, name) in self.model:
            assert self.tree.update(name, new, path) == value
            self.put(path, name, value)
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

    @rule(path=PATHS, name=NAMES, value=VALUES, stale=st.booleans())
    def compare_and_set(self, path: str, name: str, value: Any, stale: bool) -> None:
        self.tree.flush()
        revision = self.tree.revision(name, path)
        assert (revision > 0) is ((path, name) in self.model)
        assert self.tree.compare_and_set(name, revision + stale, value, path) is not stale
        if not stale:
            self.put(path, name, value)

    @rule(path=PATHS, name=NAMES, wait=st.booleans())
    def remove(self, path: str, name: str, wait: bool) -> None:
        if (path, name) in self.model:
            self.tree.remove(name, path, wait=wait)
            del self.model[path, name]
            self.owners.pop((path, name), None)
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
                del self.model[key], self.owners[key]

    @rule(steps=st.lists(st.tuples(PATHS, NAMES, VALUES | st.just("remove")), max_size=4), fail=st.booleans())
    def transaction(self, steps: list[tuple[str, str, Any]], fail: bool) -> None:
        self.tree.flush()
        after = dict(self.model)
        owners = dict(self.owners)
        try:
            with self.tree.transaction():
                for path, name, value in steps:
                    assert self.tree.get(name, path, None) == after.get((path, name))
                    if value == "remove":
                        self.tree.remove(name, path, missing_ok=True)
                        after.pop((path, name), None)
                    else:
                        self.tree.add(name, value, path)
                        after[path, name] = value
                    owners.pop((path, name), None)
                if fail:
                    raise ZeroDivisionError
        except ZeroDivisionError:
            return
        self.model, self.owners = after, owners

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
        self.put(path, name, value)
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

    def put(self, path: str, name: str, value: Any) -> None:
        self.model[path, name] = value

    def teardown(self) -> None:
        self.tree.close()


def check(examples: int, steps: int) -> None:
    with Storage() as storage:
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


def test_the_tree_behaves_like_a_dict() -> None:
    check(examples=12, steps=25)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_tree_behaves_like_a_dict_in_long_runs() -> None:
    check(examples=200, steps=60)
