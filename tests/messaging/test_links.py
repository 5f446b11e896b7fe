"""Rule 60 without processes: what the hub keeps of links and monitors, and whom it tells."""

from __future__ import annotations

from typing import Any

import pytest

from suitkaise.errors import WorkerDead
from suitkaise.exits import ExitReason, Lost, Normal, Shutdown, Signaled
from suitkaise.messaging.address import Address
from suitkaise.messaging.messages import Message
from suitkaise.messaging.refs import Down, LinkedExit, Monitor
from suitkaise.messaging.registry import Registry

REASON = Signaled(9)


class Worker:
    def __init__(self) -> None:
        self.got: list[Any] = []
        self.killed: list[str] = []

    def deliver(self, message: Message, *, accepted: bool = False) -> None:
        self.got.append(message.body.value)

    def kill(self, why: str) -> None:
        self.killed.append(why)


class World:
    """Addresses a, b, c with a worker each, of serials 1, 2, 3."""

    def __init__(self, *, trap_exits: bool = False) -> None:
        self.registry = Registry()
        self.workers: dict[str, Worker] = {}
        self.addresses: dict[str, Address] = {}
        for serial, id in enumerate("abc", 1):
            self.addresses[id] = self.registry.add(f"t/{id}", id, "thread", None)  # type: ignore[arg-type]
            self.begin(id, serial, trap_exits=trap_exits)

    def begin(self, id: str, serial: int, *, trap_exits: bool = False) -> None:
        self.addresses[id].begin(serial, trap_exits=trap_exits)
        self.workers[id] = Worker()
        self.addresses[id].attach(self.workers[id])

    def end(self, id: str, reason: ExitReason = REASON) -> None:
        self.addresses[id].detach(reason, None)

    def monitor(self, owner: str, path: str, number: int = 1) -> Monitor:
        monitor = Monitor(path, owner, number)
        self.post("monitor", path, monitor)
        return monitor

    def post(self, what: str, path: str, argument: Any = None) -> None:
        self.registry.post(what, path, argument).get(0)

    def bonds(self) -> int:
        return sum(len(address.presence) for address in self.addresses.values())


def test_s60_a_monitor_fires_once_and_leaves_nothing() -> None:
    world = World()
    monitor = world.monitor("t/a#1", "t/b")
    world.end("b")
    world.begin("b", 9)
    world.end("b")
    (down,) = world.workers["a"].got
    assert (down.ref.path, down.reason, down.monitor) == ("t/b", REASON, monitor)
    assert world.bonds() == 0


def test_s60_a_watcher_that_is_another_incarnation_by_now_hears_nothing() -> None:
    world = World()
    world.monitor("t/a#1", "t/b")
    world.end("a")
    world.begin("a", 7)
    world.end("b")
    assert world.workers["a"].got == []
    assert world.bonds() == 0
    with pytest.raises(WorkerDead):
        world.monitor("t/a#1", "t/b")


@pytest.mark.parametrize("path, reason", [("t/nobody", Lost("nobody was there")), ("t/c", REASON)])
def test_s60_nobody_there_is_told_at_once(path: str, reason: ExitReason) -> None:
    world = World()
    world.end("c")
    world.monitor("t/a#1", path)
    assert [down.reason for down in world.workers["a"].got] == [reason]
    assert world.bonds() == 0


def test_s60_a_demonitored_end_is_not_told() -> None:
    world = World()
    monitor = world.monitor("t/a#1", "t/b")
    world.post("demonitor", "t/b", monitor)
    world.post("demonitor", "t/b", monitor)
    world.end("b")
    assert world.workers["a"].got == []


def test_s60_who_asks_before_its_inbox_is_there_hears_of_it_then() -> None:
    world = World()
    world.end("a")
    world.addresses["a"].begin(8)
    world.monitor("t/a#8", "t/b")
    world.end("b")
    worker = Worker()
    world.addresses["a"].attach(worker)
    assert [type(one) for one in worker.got] == [Down]


@pytest.mark.parametrize("dies, lives", [("a", "b"), ("b", "a")])
@pytest.mark.parametrize("reason, ends", [(REASON, True), (Normal(), False), (Shutdown("x"), False)])
def test_s60_a_link_ends_the_other_one_after_an_abnormal_end(
    dies: str, lives: str, reason: ExitReason, ends: bool
) -> None:
    world = World()
    world.post("link", "t/b", "t/a#1")
    world.post("link", "t/a", "t/b#2")
    world.end(dies, reason)
    assert (len(world.workers[lives].killed) == 1) is ends
    assert world.workers[lives].got == []
    assert world.bonds() == 0


@pytest.mark.parametrize("reason", [REASON, Normal(), Shutdown("x")])
def test_s60_who_traps_exits_is_told(reason: ExitReason) -> None:
    world = World(trap_exits=True)
    world.post("link", "t/b", "t/a#1")
    world.end("b", reason)
    (told,) = world.workers["a"].got
    assert isinstance(told, LinkedExit)
    assert (told.ref.path, told.reason) == ("t/b", reason)
    assert world.workers["a"].killed == []


def test_s60_linked_to_nobody_ends_at_once() -> None:
    world = World()
    world.end("b", Normal())
    world.post("link", "t/b", "t/a#1")
    world.post("link", "t/nobody", "t/c#3")
    assert len(world.workers["a"].killed) == len(world.workers["c"].killed) == 1
    assert world.bonds() == 0


def test_s60_who_is_ended_by_a_link_before_its_inbox_is_there_is_ended_then() -> None:
    world = World()
    world.end("a")
    world.addresses["a"].begin(8)
    world.post("link", "t/b", "t/a#8")
    world.end("b")
    worker = Worker()
    world.addresses["a"].attach(worker)
    assert len(worker.killed) == 1


def test_s60_who_does_not_wait_for_an_end_any_more_is_forgotten() -> None:
    world = World()
    first, second = (world.registry.post("down", "t/b") for _ in range(2))
    first.cancel()
    assert world.bonds() == 1
    world.end("b")
    assert second.get(0).reason == REASON
    assert world.bonds() == 0


def test_s60_either_end_undoes_a_link() -> None:
    for path, owner in (("t/b", "t/a#1"), ("t/a", "t/b#2")):
        world = World()
        world.post("link", "t/b", "t/a#1")
        world.post("unlink", path, owner)
        assert world.bonds() == 0
        world.end("b")
        assert world.workers["a"].killed == []
