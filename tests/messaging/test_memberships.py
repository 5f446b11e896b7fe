"""The hub's side of groups and topics: what is left of a member, and what is left to the sender."""

from __future__ import annotations

from typing import Any

import pytest

from suitkaise import Status
from suitkaise.errors import ChildNotFound, WorkerDead
from suitkaise.events import DeadLetter, Event
from suitkaise.exits import Normal
from suitkaise.messaging.address import Address
from suitkaise.messaging.answer import Answer
from suitkaise.messaging.dead_letters import DeadLetters
from suitkaise.messaging.memberships import Groups, Topics
from suitkaise.messaging.messages import Payload
from suitkaise.messaging.protocol import GroupAction, TopicAction
from suitkaise.specs.bounded import Bounded


class Parent:
    def status_of(self, id: str) -> Status:
        return Status.RUNNING

    def control(self, kind: str, id: str, drain: float | None = None) -> Answer[None]:
        raise NotImplementedError


class Scene:
    """One worker, whose incarnations begin and end as a test wants it."""

    def __init__(self) -> None:
        self.address = Address("app/one", "one", "thread", Parent())
        self.events: list[Event] = []
        dead_letters = DeadLetters(self.events.append)
        self.groups = Groups(lambda path: self.address, dead_letters)
        self.topics = Topics(lambda path: self.address, dead_letters)

    def begin(self, serial: int) -> str:
        self.address.begin(serial)
        return f"app/one#{serial}"

    def end(self) -> None:
        self.address.detach(Normal(), None)

    def members(self) -> list[str]:
        paths: list[str] = self.groups.serve("g", GroupAction.MEMBERS, None)
        return paths


def test_an_abandoned_incarnation_that_leaves_late_leaves_only_itself() -> None:
    scene = Scene()
    first = scene.begin(1)
    scene.groups.serve("g", GroupAction.JOIN, first)
    scene.end()
    assert scene.members() == []
    second = scene.begin(2)
    scene.groups.serve("g", GroupAction.JOIN, second)
    scene.groups.serve("g", GroupAction.LEAVE, first)
    with pytest.raises(WorkerDead):
        scene.groups.serve("g", GroupAction.JOIN, first)
    assert scene.members() == ["app/one"]
    scene.end()
    assert scene.members() == []


def test_nothing_is_kept_of_a_group_that_has_no_members_any_more() -> None:
    scene = Scene()
    for serial in (1, 2):
        owner = scene.begin(serial)
        scene.groups.serve("g", GroupAction.JOIN, owner)
        assert scene.groups.serve("g", GroupAction.NEXT, "") == "app/one"
        assert scene.groups._turns
        if serial == 1:
            scene.end()
        else:
            scene.groups.serve("g", GroupAction.LEAVE, owner)
        assert not scene.groups._turns
    with pytest.raises(ChildNotFound):
        scene.groups.serve("g", GroupAction.NEXT, "")


@pytest.mark.parametrize("on_full, told", [("reject", 0), ("drop_newest", 0), ("drop_oldest", 1)])
def test_a_member_without_room_for_the_message_is_not_counted(on_full: Any, told: int) -> None:
    scene = Scene()
    scene.address.set_bound(Bounded(1, on_full))
    scene.groups.serve("g", GroupAction.JOIN, scene.begin(1))
    assert scene.groups.serve("g", GroupAction.TELL, (Payload("first"), [])) == (1, [])
    assert scene.groups.serve("g", GroupAction.TELL, (Payload("second"), [])) == (told, [])


def test_what_is_told_a_group_is_left_to_a_sender_that_has_a_connection_with_the_member() -> None:
    scene = Scene()
    scene.groups.serve("g", GroupAction.JOIN, scene.begin(1))
    assert scene.groups.serve("g", GroupAction.TELL, (Payload("x"), ["app/one", "app/two"])) == (0, ["app/one"])
    assert not scene.address._pending


def test_what_is_published_is_left_to_a_sender_that_has_a_connection_with_a_subscriber_which_has_room() -> None:
    scene = Scene()
    owner = scene.begin(1)
    scene.topics.serve("t", TopicAction.SUBSCRIBE, (owner, 2))
    publish = TopicAction.PUBLISH, (Payload("x"), ["app/one"])
    assert scene.topics.serve("t", *publish) == (0, [(owner, 2)])
    assert not scene.address._pending
    assert scene.topics.serve("t", TopicAction.OFFER, (Payload("offered"), owner, 2)) is True
    assert scene.topics.serve("t", TopicAction.PUBLISH, (Payload("x"), [])) == (1, [])
    assert scene.topics.serve("t", *publish) == (0, [])
    assert scene.topics.serve("t", TopicAction.OFFER, (Payload("x"), owner, 2)) is False
    assert [(event.count, event.why) for event in scene.events if isinstance(event, DeadLetter)] == [
        (number, "published as 't': 2 messages already wait for 'app/one'") for number in (1, 2)
    ]
    scene.end()
    scene.begin(2)
    assert scene.topics.serve("t", TopicAction.OFFER, (Payload("x"), owner, 2)) is False
