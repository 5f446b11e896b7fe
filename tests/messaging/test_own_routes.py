"""What direct connections need of the hub, for the threads of the hub itself."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from suitkaise.errors import ChildNotFound, WorkerDead
from suitkaise.events import Event
from suitkaise.exits import Killed
from suitkaise.messaging import own_routes
from suitkaise.messaging.answer import Answer
from suitkaise.messaging.messages import Message, Payload
from suitkaise.messaging.own_routes import OwnRoutes
from suitkaise.messaging.protocol import RequestKind
from suitkaise.messaging.registry import Registry
from suitkaise.platform.board import Board
from suitkaise.platform.reactor import Reactor

SOON = 15.0


class Parent:
    """A supervisor of a worker that is always restarting."""

    def status_of(self, id: str) -> Any:
        return "restarting"

    def control(self, kind: Any, id: str, drain: float | None = None) -> Answer[Any]:
        raise NotImplementedError


class Ended:
    """An incarnation that reports its end when its reports are handled."""

    def __init__(self) -> None:
        self.caught_up_in: threading.Thread | None = None

    def deliver(self, message: Message, *, accepted: bool = False) -> None:
        if self.caught_up_in is None:
            raise AssertionError("a message for the next incarnation")
        raise WorkerDead("it has ended")

    def kill(self, why: str) -> None: ...

    def connect(self, sender: str) -> None: ...

    def catch_up(self) -> None:
        self.caught_up_in = threading.current_thread()


@pytest.fixture
def reactor() -> Iterator[Reactor]:
    reactor = Reactor()
    yield reactor
    reactor.close()


@pytest.fixture
def registry() -> Registry:
    registry = Registry()
    registry.add("tree/to", "to", "process", Parent())
    return registry


@pytest.fixture
def routes(registry: Registry, reactor: Reactor) -> Iterator[OwnRoutes]:
    routes = OwnRoutes(registry, Board.in_memory(), reactor)
    yield routes
    routes.close()


def test_the_reports_of_an_incarnation_that_has_ended_are_handled_before_messages_are_sent_again(
    registry: Registry, routes: OwnRoutes, reactor: Reactor
) -> None:
    address, receiver = registry.find("tree/to"), Ended()
    address.begin(7)
    address.attach(receiver)
    ended = routes.request(RequestKind.ENDED, "tree/to", 7)
    assert receiver.caught_up_in is reactor._thread
    routes.post_unawaited("tree/to", Message("message", Payload("again")))
    assert not ended.done()
    address.detach(Killed("why"), None)
    assert ended.get(SOON) == Killed("why")


def test_an_io_thread_that_does_nothing_holds_up_no_thread_for_long(
    routes: OwnRoutes, reactor: Reactor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_routes, "PATIENCE", 0.01)
    go_on = threading.Event()
    reactor.call_soon_threadsafe(lambda: go_on.wait(SOON))
    with pytest.raises(WorkerDead, match="'tree/to' has ended"):
        routes.request(RequestKind.ENDED, "tree/to", 7).get(SOON)
    go_on.set()


def test_what_is_refused_when_it_is_sent_again_fails_or_is_a_dead_letter(registry: Registry, routes: OwnRoutes) -> None:
    letters: list[Event] = []
    registry.dead_letters.publish = letters.append
    answer: Answer[Any] = Answer()
    routes.post_unawaited("tree/gone", Message("message", Payload("asked"), answer.settle))
    with pytest.raises(ChildNotFound, match="no worker at 'tree/gone'"):
        answer.get(SOON)
    assert letters == []
    routes.post_unawaited("tree/gone", Message("message", Payload("told")))
    assert [letter.path for letter in letters] == ["tree/gone"]


def test_a_worker_that_has_no_connections_is_asked_otherwise(routes: OwnRoutes) -> None:
    assert [routes.find("tree/to") for _ in range(3)] == [None] * 3
    assert not routes.send("tree/to", Message("message", Payload("told")))


def test_after_the_end_no_connection_is_made(routes: OwnRoutes) -> None:
    routes.close()
    assert [routes.find("tree/to") for _ in range(3)] == [None] * 3
