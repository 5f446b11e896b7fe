"""The hub's side of groups and topics: which incarnations have joined or subscribed, and deliveries to them.

A membership ends with its incarnation, in whatever way that ends: the address of the worker tells. All methods may be
called from any thread, and none of them waits for a worker.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Hashable, Iterable
from typing import Any, Generic, TypeVar, assert_never

from suitkaise.errors import ChildNotFound, MailboxFull, WorkerDead
from suitkaise.messaging.address import Address
from suitkaise.messaging.answer import Answer
from suitkaise.messaging.dead_letters import DeadLetters
from suitkaise.messaging.identity import split_owner
from suitkaise.messaging.messages import Message, Payload, payload_of
from suitkaise.messaging.patterns import matches
from suitkaise.messaging.protocol import GroupAction, TopicAction
from suitkaise.platform.locks import RLock

__all__ = ["Groups", "Topics"]

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class _Memberships(Generic[V]):
    """A value for each name and incarnation that belongs to it, in the order of their coming.

    `on_empty` is called with each name that no incarnation has any more.
    """

    def __init__(self, find: Callable[[str], Address], kind: str, on_empty: Callable[[str], object]) -> None:
        self.lock = RLock()  # a signal handler may publish, too
        self._find = find
        self._kind = kind
        self._on_empty = on_empty
        self._by_name: dict[str, dict[str, V]] = {}

    def add(self, name: str, owner: str, value: V) -> None:
        """Add the incarnation `owner`, until it ends; raise WorkerDead if it has ended already."""
        path, serial = split_owner(owner)
        with self.lock:
            self._by_name.setdefault(name, {})[owner] = value
        try:
            watchers = self._find(path).watchers
            alive = watchers.add((self._kind, name, owner), lambda reason: self.drop(name, owner), serial)
        except ChildNotFound:
            alive = False
        if not alive:
            self.drop(name, owner)
            raise WorkerDead.just_ended(path)

    def remove(self, name: str, owner: str) -> None:
        """Remove the incarnation `owner`; a missing one is no error."""
        self.drop(name, owner)
        try:
            self._find(split_owner(owner)[0]).watchers.remove((self._kind, name, owner))
        except ChildNotFound:
            return

    def drop(self, name: str, owner: str) -> None:
        """Remove the incarnation `owner`, which has ended."""
        with self.lock:
            members = self._by_name.get(name, {})
            members.pop(owner, None)
            if not members:
                self._by_name.pop(name, None)
                self._on_empty(name)

    def of(self, name: str) -> dict[str, V]:
        """Return the incarnations under this name, with their values."""
        with self.lock:
            return dict(self._by_name.get(name, {}))

    def all(self) -> list[tuple[str, dict[str, V]]]:
        """Return all names, and the incarnations under each."""
        with self.lock:
            return [(name, dict(members)) for name, members in self._by_name.items()]


class Groups:
    """The groups of a program. `find` returns the address at a path, or raises ChildNotFound."""

    def __init__(self, find: Callable[[str], Address], dead_letters: DeadLetters) -> None:
        self._find = find
        self._dead_letters = dead_letters
        self._turns: dict[str, dict[str, None]] = {}  # the members of each group, the one that is asked next first
        self._members: _Memberships[None] = _Memberships(find, "group", lambda name: self._turns.pop(name, None))

    def serve(self, name: str, action: GroupAction, argument: Any) -> Any:
        """Carry out what is requested of the group."""
        match action:
            case GroupAction.JOIN:
                return self._members.add(name, argument, None)
            case GroupAction.LEAVE:
                return self._members.remove(name, argument)
            case GroupAction.MEMBERS:
                return self._paths(name)
            case GroupAction.NEXT:
                return self._next(name, argument)
            case GroupAction.TELL:
                payload, in_use = argument
                return self._tell(name, payload_of(payload), in_use)
            case _:
                assert_never(action)

    def _paths(self, name: str) -> list[str]:
        return [split_owner(owner)[0] for owner in self._members.of(name)]

    def _next(self, name: str, asker: str) -> str:
        with self._members.lock:
            members: dict[str, None] = dict.fromkeys(self._paths(name))
            queue: dict[str, None] = {path: None for path in self._turns.get(name, ()) if path in members} | members
            chosen = next((path for path in queue if path != asker), None)
            if chosen is None:
                raise ChildNotFound(f"the group {name!r} has no {'other ' if members else ''}members", path=name)
            del queue[chosen]
            self._turns[name] = {**queue, chosen: None}
        return chosen

    def _tell(self, name: str, payload: Payload, in_use: list[str]) -> tuple[int, list[str]]:
        told = 0
        paths = self._paths(name)
        _check(payload, paths, self._find)
        for path in paths:
            if path in in_use:
                continue
            try:
                told += _send(self._find(path), Message("message", payload))
            except (ChildNotFound, MailboxFull, WorkerDead) as error:
                self._dead_letters.add(path, f"told to the group {name!r}: {error}")
        return told, [path for path in paths if path in in_use]


class Topics:
    """The subscriptions of a program. `find` returns the address at a path, or raises ChildNotFound."""

    def __init__(self, find: Callable[[str], Address], dead_letters: DeadLetters) -> None:
        self._find = find
        self._dead_letters = dead_letters
        self._subscriptions: _Memberships[int] = _Memberships(find, "topic", lambda name: None)

    def serve(self, name: str, action: TopicAction, argument: Any) -> Any:
        """Carry out what is requested of the topic, or of the pattern."""
        match action:
            case TopicAction.SUBSCRIBE:
                return self._subscriptions.add(name, *argument)
            case TopicAction.UNSUBSCRIBE:
                return self._subscriptions.remove(name, argument)
            case TopicAction.PUBLISH:
                payload, in_use = argument
                return self._publish(name, payload_of(payload), in_use)
            case TopicAction.OFFER:
                payload, owner, most = argument
                return self._deliver(owner, name, payload_of(payload), most)
            case _:
                assert_never(action)

    def _publish(self, topic: str, payload: Payload, in_use: list[str]) -> tuple[int, list[tuple[str, int]]]:
        most: dict[str, int] = {}
        for pattern, subscribers in self._subscriptions.all():
            if matches(pattern, topic):
                for owner, limit in subscribers.items():
                    most[owner] = max(limit, most.get(owner, 0))
        _check(payload, (split_owner(owner)[0] for owner in most), self._find)
        sent, left = 0, []
        for owner, limit in most.items():
            if split_owner(owner)[0] not in in_use:
                sent += self._deliver(owner, topic, payload, limit)
            elif self._deliver(owner, topic, None, limit):
                left.append((owner, limit))
        return sent, left

    def _deliver(self, owner: str, topic: str, payload: Payload | None, most: int) -> bool:
        """Send the message; without one, return whether it could be sent."""
        path, serial = split_owner(owner)
        message = None if payload is None else Message("signal", payload)
        try:
            return self._find(path).offer(serial, message, most)
        except (ChildNotFound, WorkerDead):  # it has ended just now
            return False
        except MailboxFull as error:
            self._dead_letters.add(path, f"published as {topic!r}: {error}")
            return False


def _send(address: Address, message: Message) -> bool:
    """Send a message without waiting for room; return False if it was dropped at once."""
    room: Answer[bool] | None = None
    if address.bound is not None and address.bound.on_full == "drop_newest":
        room = Answer()
    address.send(message, room)
    return room is None or not room.done() or room.result()  # another child may have come to that path just now


def _check(payload: Payload, paths: Iterable[str], find: Callable[[str], Address]) -> None:
    """Raise NotSerializable before any worker has got the message, if one of them needs it encoded."""
    for path in paths:
        with contextlib.suppress(ChildNotFound):
            if find(path).kind != "thread":
                payload.parts  # noqa: B018 - it is encoded once, for all
                return
