"""Rule 41 with real processes and threads: every restart makes a new worker; only the storage keeps its state."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from suitkaise import Child, Supervisor, sktree
from suitkaise.runtime.running_tree import RunningTree
from tests.end_to_end.kinds import Kinds
from tests.sample_workers import GatheringProcess, GatheringThread, Gathers, of_this_process
from tests.support import eventually


@pytest.fixture
def clean() -> Iterator[None]:
    yield
    of_this_process.clear()
    Gathers.shared.clear()


def recalled(running: RunningTree) -> None:
    running.recall("a")


def terminated_and_restarted(running: RunningTree) -> None:
    running.terminate_child("a")
    running.restart_child("a")


def killed(running: RunningTree) -> None:
    pid = running["a"].pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)


def crashed(running: RunningTree) -> None:
    running["a"].tell("crash")


def of_the_group(running: RunningTree) -> None:
    running["first"].tell("crash")


def state_after(running: RunningTree, restart: Any) -> Any:
    """Restart `a`, and return the state of its next incarnation."""
    before = running["a"].incarnation
    restart(running)
    eventually(lambda: running["a"].incarnation > before and running["a"].status == "running")
    return running["a"].ask("what is there?")


@pytest.mark.parametrize("declared", ["as a class", "as a worker"])
def test_s41_no_state_of_the_last_incarnation_is_left_in_a_process(tmp_path: Path, declared: str) -> None:
    given, named = ["given"], {"given": "given"}
    if declared == "as a class":
        a = Child(GatheringProcess, args=(given,), kwargs={"named": named}, id="a")
    else:
        a = Child(GatheringProcess(given, named=named), id="a")
    given.append("after the declaration")  # the declaration holds a copy
    first = Kinds(tmp_path, "process").child("first")
    tree = Supervisor("tree", first, a, strategy="one_for_all", max_restarts=9)
    with tree.start() as running:
        named["after"] = "the start"
        for restart in (killed, crashed, recalled, terminated_and_restarted, of_the_group):
            full = running["a"].ask(("gather", "mine"))
            assert full == (
                ["given", "mine"], {"given": "given", "mine": "mine"}, ["mine"], "mine", ["mine"], ["mine"],
            )  # fmt: skip
            assert state_after(running, restart) == (["given"], {"given": "given"}, [], None, [], []), restart.__name__
    assert given == ["given", "after the declaration"]


@pytest.mark.usefixtures("clean")
def test_s41_a_thread_worker_is_built_anew_but_shares_its_arguments_and_its_process(tmp_path: Path) -> None:
    given: list[str] = []
    named: dict[str, str] = {}
    a = Child(GatheringThread, args=(given, named), id="a")
    first = Kinds(tmp_path, "thread").child("first")
    with Supervisor("tree", first, a, strategy="one_for_all", max_restarts=9).start() as running:
        words: list[str] = []
        for restart in (crashed, recalled, terminated_and_restarted, of_the_group):
            words.append(restart.__name__)
            running["a"].ask(("gather", restart.__name__))
            shared, mapping, own, later, of_the_class, of_the_process = state_after(running, restart)
            assert (own, later) == ([], None)
            assert shared == of_the_class == of_the_process == list(mapping) == words
            assert shared is given
            assert mapping is named


@pytest.mark.parametrize("worker", [GatheringProcess, GatheringThread])
def test_s41_entries_of_the_storage_survive_a_restart(worker: Any) -> None:
    storage = sktree.connect()
    try:
        with Supervisor("tree", Child(worker, args=([], {}), id="a")).start() as running:
            for word in ("one", "two"):
                pid = running["a"].pid
                running["a"].ask(("store", word))
                state_after(running, crashed)
                assert storage.get(word, path="gathered") == pid
            assert sorted(storage.get_all_from("gathered")) == ["one", "two"]
    finally:
        sktree.disconnect()
