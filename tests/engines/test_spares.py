"""Spares: processes that stand by, are assigned once, and are replaced."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from suitkaise import Child
from suitkaise.engines import spares as module
from suitkaise.engines.engine import EngineContext
from suitkaise.engines.forked_process import ForkedProcess
from suitkaise.engines.keeper_client import KeeperClient
from suitkaise.engines.protocol import ProcessContext
from suitkaise.engines.spares import EncodedRecipe, Spares
from suitkaise.messaging import codec
from suitkaise.specs import Recipe
from tests.engines.processes import Idle, Owner
from tests.support import eventually, wait_gone

PATH = "tree/worker"


class Adopter:
    """A worker that needs a process; it records what it gets."""

    def __init__(self, context: EngineContext, client: KeeperClient) -> None:
        self.owner = Owner(context, client)
        self.offered: list[ForkedProcess] = []

    def adopt(self, process: ForkedProcess, prepared: ProcessContext) -> bool:
        self.offered.append(process)
        return process.hand_over(self.owner)


@pytest.fixture
def client(context: EngineContext) -> Iterator[KeeperClient]:
    client = KeeperClient(context, lambda: None)
    yield client
    client.close()


@pytest.fixture
def spares(context: EngineContext, client: KeeperClient) -> Iterator[Spares]:
    spares = Spares(context, lambda: client)
    yield spares
    spares.close()


def recipe(number: int) -> EncodedRecipe:
    return EncodedRecipe(Child(Idle, spares=number), codec.dumps(Recipe(Idle)), [])


def ready(spares: Spares, number: int) -> list[int]:
    """The pids of the spares, once there are `number` that are ready."""

    def pids() -> list[int]:
        return [spare.process.pid or 0 for spare in spares._spares.get(PATH, []) if spare.ready]

    eventually(lambda: len(pids()) == number, what=f"{number} spares are ready")
    return pids()


def kill_and_await_exit(adopter: Adopter, pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    while adopter.owner.next() != ("exit", -signal.SIGKILL):
        pass


def test_no_spare_is_assigned_where_none_was_asked_for(
    context: EngineContext, client: KeeperClient, spares: Spares
) -> None:
    adopter = Adopter(context, client)
    assert not spares.assign(PATH, adopter)
    assert adopter.offered == []


def test_each_spare_is_assigned_once_and_replaced_when_it_is_filled_up(
    context: EngineContext, client: KeeperClient, spares: Spares
) -> None:
    spares.fill(PATH, recipe(2))
    before = ready(spares, 2)
    adopter = Adopter(context, client)
    assert spares.assign(PATH, adopter)
    assert [process.pid for process in adopter.offered] == before[:1]
    spares.fill(PATH, recipe(2))
    assert before[0] not in ready(spares, 2)
    kill_and_await_exit(adopter, before[0])


def test_a_spare_that_has_just_died_is_not_assigned(
    context: EngineContext, client: KeeperClient, spares: Spares
) -> None:
    spares.fill(PATH, recipe(2))
    first, second = ready(spares, 2)
    blocked = [process.process for process in spares._spares[PATH]]
    with blocked[0]._lock:  # so that the I/O thread cannot take note of the death
        os.kill(first, signal.SIGKILL)
        wait_gone(first)
    adopter = Adopter(context, client)
    assert spares.assign(PATH, adopter)
    assert adopter.offered[-1].pid == second
    kill_and_await_exit(adopter, second)


def test_dismissed_spares_are_killed_and_not_replaced(
    context: EngineContext, client: KeeperClient, spares: Spares
) -> None:
    spares.fill(PATH, recipe(2))
    pids = ready(spares, 2)
    spares.dismiss(PATH)
    for pid in pids:
        wait_gone(pid)
    assert not spares.assign(PATH, Adopter(context, client))
    assert ready(spares, 0) == []


def test_spares_that_are_dismissed_before_they_exist_do_not_stay(spares: Spares, client: KeeperClient) -> None:
    os.kill(client.pid, signal.SIGSTOP)
    spares.fill(PATH, recipe(1))
    spares.dismiss(PATH)
    os.kill(client.pid, signal.SIGCONT)
    eventually(lambda: not spares._leaving)


def test_a_stable_spare_that_ends_by_itself_is_replaced(
    spares: Spares, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "STABLE_AFTER", 0.0)
    spares.fill(PATH, recipe(1))
    [pid] = ready(spares, 1)
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: ready(spares, 1) != [pid])
    assert "a spare process of tree/worker is gone: exit code -9" in caplog.text


def test_a_spare_that_ends_too_early_is_replaced_only_after_the_next_start(
    spares: Spares, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STABLE_AFTER", 1000.0)
    spares.fill(PATH, recipe(1))
    [pid] = ready(spares, 1)
    os.kill(pid, signal.SIGKILL)
    assert ready(spares, 0) == []
    spares.fill(PATH, recipe(1))
    assert ready(spares, 1) != [pid]


def test_spares_are_renewed_when_their_keeper_is_gone(spares: Spares) -> None:
    spares.fill(PATH, recipe(2))
    before = ready(spares, 2)
    spares.renew()
    for pid in before:
        wait_gone(pid)
    assert not set(before) & set(ready(spares, 2))


def test_the_end_waits_until_all_spares_are_gone(spares: Spares) -> None:
    spares.fill(PATH, recipe(2))
    pids = ready(spares, 2)
    spares.close()
    for pid in pids:
        wait_gone(pid, 0.0)
