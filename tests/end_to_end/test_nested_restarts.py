"""A supervisor that is itself restarted: refs to its workers stay good, and owners' names are never used again."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

from suitkaise import Child, Process, Supervisor, sktree
from suitkaise.errors import ChildNotFound
from suitkaise.messaging.protocol import RequestKind
from tests.support import eventually


class Owner(Process):
    def on_start(self) -> None:
        self.tree.add(self.name, self.pid, path="owners", metadata=self.metadata)

    def on_receive(self, message: Any) -> Any:
        return self.pid


def kill(pid: int | None) -> None:
    assert pid is not None
    os.kill(pid, signal.SIGKILL)


def test_a_ref_stays_good_when_the_supervisor_of_its_worker_is_restarted() -> None:
    tree = Supervisor("app", Owner("first"), Supervisor("inner", Owner("second")), strategy="one_for_all")
    with tree.start() as running:
        ref = running["inner/second"]
        before = ref.pid
        kill(running["first"].pid)
        after = eventually(lambda: (pid := ref.pid) not in (None, before) and pid)
        assert ref.ask("pid") == after
        assert ref.incarnation == 2


def test_a_worker_below_a_restarted_supervisor_may_write_what_it_owns() -> None:
    storage = sktree.connect()
    try:
        tree = Supervisor("app", Owner("first"), Supervisor("inner", Owner("second")), strategy="one_for_all")
        with tree.start() as running:
            for round_ in range(2, 5):
                kill(running["first"].pid)
                eventually(lambda round_=round_: running["inner/second"].incarnation == round_)
                eventually(lambda: storage.get("second", path="owners", default=None) == running["inner/second"].pid)
            assert running["inner/second"].ask("pid") == storage.get("second", path="owners")
    finally:
        sktree.disconnect()


def test_a_wait_for_a_worker_goes_on_while_its_supervisor_is_restarted() -> None:
    tree = Supervisor("app", Owner("first"), Supervisor("inner", Owner("second")), strategy="one_for_all")
    with tree.start() as running:
        ended = running._runtime.registry.request(RequestKind.JOIN, "app/inner/second")
        kill(running["first"].pid)
        eventually(lambda: running["inner/second"].incarnation == 2)
        assert not ended.done()
    assert ended.result(15) is not None


def test_children_that_were_added_to_a_restarted_supervisor_are_gone() -> None:
    tree = Supervisor("app", Owner("first"), Supervisor("inner", Owner("second")), strategy="one_for_all")
    with tree.start() as running:
        added = running.start_child(Child(Owner, id="added"), under="inner")
        assert added.ask("pid") == added.pid
        kill(running["first"].pid)
        eventually(lambda: running["inner/second"].incarnation == 2)
        assert "inner/added" not in running
        with pytest.raises(ChildNotFound) as caught:  # an added child is not restarted with its supervisor (rule 40)
            added.tell("there?")
        assert caught.value.path == "app/inner/added"


def test_a_tree_may_be_started_again_while_the_storage_lives_on() -> None:
    storage = sktree.connect()
    try:
        for _ in range(3):
            with Supervisor("app", Owner("first")).start() as running:
                assert storage.get("first", path="owners") == running["first"].pid
            assert storage.get_all_from("owners") == {}
    finally:
        sktree.disconnect()
