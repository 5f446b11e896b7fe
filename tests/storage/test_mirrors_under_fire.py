"""Mirrors that follow watches, as the docs write them, while the storage is written and its server is killed."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable

import pytest

from suitkaise.storage import watchers
from suitkaise.storage.history import Change
from suitkaise.storage.tree import Tree
from tests.storage.support import Storage
from tests.support import GRACE, eventually, in_background

NAMES = [f"n{number}" for number in range(50)]
WRITES = 6 * watchers.MERGE_ABOVE


def names_in(tree: Tree) -> set[str]:
    return set(tree.get_all_from("w"))


class Mirror:
    """The names in the container `w`, by its changes. A faulty one leaves out every third change."""

    def __init__(self, tree: Tree, *, faulty: bool = False) -> None:
        self.names: set[str] = set()
        self._tree = tree
        self._faulty = faulty
        self._count = 0

    def follow(self, change: Change) -> None:
        self._count += 1
        if self._faulty and self._count % 3 == 0:
            return
        if change.kind == "overflow":
            self.names = names_in(self._tree)
        elif change.kind == "removed":
            self.names.discard(change.name)
        else:
            self.names.add(change.name)


def keep_going_on(tree: Tree, follow: Callable[[Change], None], over: threading.Event, choose: random.Random) -> None:
    """Follow the changes by one watch after the other, each from where the last one was left."""
    since = 0
    while not over.is_set():
        with tree.watch("w", since=since) as watch:
            for _ in range(choose.choice([1, 3, 20, 40])):
                try:
                    follow(watch.get(timeout=0.05))
                except TimeoutError:
                    break
            since = watch.revision


def write(tree: Tree, choose: random.Random) -> None:
    for number in range(WRITES):
        name, wait = choose.choice(NAMES), number % 500 == 499
        if choose.random() < 0.5:
            tree.add(name, number, "w", wait=wait)
        else:
            tree.remove(name, "w", missing_ok=True, wait=wait)
    tree.flush()


def differences(storage: Storage, seed: int, *, faulty: bool = False) -> list[set[str]]:
    """Return for each mirror what it holds wrongly when all is quiet: one of a callback, one that goes on anew."""
    choose = random.Random(seed)
    tree, over = storage.tree, threading.Event()
    mirrors = [Mirror(tree, faulty=faulty), Mirror(tree, faulty=faulty)]
    with tree.watch("w", mirrors[0].follow):
        going_on = in_background(lambda: keep_going_on(tree, mirrors[1].follow, over, random.Random(seed)))
        writing = in_background(lambda: write(tree, choose))
        for _ in range(3):
            eventually(lambda: mirrors[0].names, timeout=GRACE)
            storage.restart()
        writing.result(4 * GRACE)
        tree.add("last", 1, "w")  # which all of them see at the end
        for mirror in mirrors:
            eventually(lambda mirror=mirror: faulty or "last" in mirror.names, timeout=GRACE)
        wanted = names_in(tree)
        over.set()
        going_on.result(GRACE)
    return [mirror.names ^ wanted for mirror in mirrors]


@pytest.mark.chaos
@pytest.mark.parametrize("seed", range(3))
def test_mirrors_agree_with_the_storage_after_kills_of_its_server(storage: Storage, seed: int) -> None:
    assert differences(storage, seed) == [set(), set()]


@pytest.mark.chaos
def test_a_mirror_that_leaves_out_changes_is_detected(storage: Storage) -> None:
    assert any(differences(storage, 0, faulty=True))
