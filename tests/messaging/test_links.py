"""Rule 60 without processes: links and monitors between the addresses of a registry."""

from __future__ import annotations

from typing import Any

import pytest

from suitkaise.errors import WorkerDead
from suitkaise.exits import ExitReason, Lost, Normal, Shutdown, Signaled
from suitkaise.messaging.address import Address
from suitkaise.messaging.messages import Message
from suitkaise.messaging.protocol import RequestKind
from suitkaise.messaging.refs import Down, LinkedExit, Monitor
from suitkaise.messaging.registry import Registry
from suitkaise.workers.context import WorkerLinks

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
        self.request(RequestKind.MONITOR, path, monitor)
        return monitor

    def request(self, kind: RequestKind, path: str, argument: Any = None) -> None:
        self.registry.request(kind, path, argument).get(0)

    def watchers(self) -> int:
        return sum(len(address.watchers) for address in self.addresses.values())


def test_s60_a_monitor_fires_once_and_leaves_nothing() -> None:
    world = World()
    monitor = world.monitor("t/a#1", "t/b")
    world.end("b")
    world.begin("b", 9)
    world.end("b")
    (down,) = world.workers["a"].got
    assert (down.ref.path, down.reason, down.monitor) == ("t/b", REASON, monitor)
    assert world.watchers() == 0


def test_s60_the_next_incarnation_of_a_watcher_gets_no_down() -> None:
    world = World()
    world.monitor("t/a#1", "t/b")
    world.end("a")
    world.begin("a", 7)
    world.end("b")
    assert world.workers["a"].got == []
    assert world.watchers() == 0
    with pytest.raises(WorkerDead):
        world.monitor("t/a#1", "t/b")


@pytest.mark.parametrize("path, reason", [("t/nobody", Lost("no incarnation was alive")), ("t/c", REASON)])
def test_s60_a_monitor_without_a_live_incarnation_fires_at_once(path: str, reason: ExitReason) -> None:
    world = World()
    world.end("c")
    world.monitor("t/a#1", path)
    assert [down.reason for down in world.workers["a"].got] == [reason]
    assert world.watchers() == 0


def test_s60_a_removed_monitor_does_not_fire() -> None:
    world = World()
    monitor = world.monitor("t/a#1", "t/b")
    world.request(RequestKind.DEMONITOR, "t/b", monitor)
    world.request(RequestKind.DEMONITOR, "t/b", monitor)
    world.end("b")
    assert world.workers["a"].got == []


def test_s60_a_down_waits_until_the_watcher_is_attached() -> None:
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
def test_s60_an_abnormal_end_ends_the_linked_worker_too(dies: str, lives: str, reason: ExitReason, ends: bool) -> None:
    world = World()
    world.request(RequestKind.LINK, "t/b", "t/a#1")
    world.request(RequestKind.LINK, "t/a", "t/b#2")
    world.end(dies, reason)
    assert (len(world.workers[lives].killed) == 1) is ends
    assert world.workers[lives].got == []
    assert world.watchers() == 0


@pytest.mark.parametrize("reason", [REASON, Normal(), Shutdown("x")])
def test_s60_a_linked_worker_that_traps_exits_gets_a_message(reason: ExitReason) -> None:
    world = World(trap_exits=True)
    world.request(RequestKind.LINK, "t/b", "t/a#1")
    world.end("b", reason)
    (exit,) = world.workers["a"].got
    assert isinstance(exit, LinkedExit)
    assert (exit.ref.path, exit.reason) == ("t/b", reason)
    assert world.workers["a"].killed == []


def test_s60_a_link_without_a_live_incarnation_ends_the_caller_at_once() -> None:
    world = World()
    world.end("b", Normal())
    world.request(RequestKind.LINK, "t/b", "t/a#1")
    world.request(RequestKind.LINK, "t/nobody", "t/c#3")
    assert len(world.workers["a"].killed) == len(world.workers["c"].killed) == 1
    assert world.watchers() == 0


def test_s60_a_link_ends_a_worker_that_is_still_starting_when_it_is_attached() -> None:
    world = World()
    world.end("a")
    world.addresses["a"].begin(8)
    world.request(RequestKind.LINK, "t/b", "t/a#8")
    world.end("b")
    worker = Worker()
    world.addresses["a"].attach(worker)
    assert len(worker.killed) == 1


def test_s60_a_cancelled_down_leaves_no_callback_behind() -> None:
    world = World()
    first, second = (world.registry.request(RequestKind.DOWN, "t/b") for _ in range(2))
    first.cancel()
    assert world.watchers() == 1
    world.end("b")
    assert second.get(0).reason == REASON
    assert world.watchers() == 0


def test_s60_either_side_can_remove_a_link() -> None:
    for path, owner in (("t/b", "t/a#1"), ("t/a", "t/b#2")):
        world = World()
        world.request(RequestKind.LINK, "t/b", "t/a#1")
        world.request(RequestKind.UNLINK, path, owner)
        assert world.watchers() == 0
        world.end("b")
        assert world.workers["a"].killed == []


@pytest.mark.parametrize("what", ["monitor", "demonitor", "link", "unlink"])
def test_s60_a_path_in_place_of_a_ref_is_refused(what: str) -> None:
    links = WorkerLinks("t/a#1")
    with pytest.raises(TypeError, match=rf"{what} takes .*, not 't/b'"):
        getattr(links, what)("t/b")
