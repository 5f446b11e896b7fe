"""A bounded mailbox at its address: what is accepted, what waits, what is dropped, and in which order."""

from __future__ import annotations

import contextlib
import itertools
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest

from suitkaise import Status
from suitkaise.errors import AskTimeout, MailboxFull, SpecError, WorkerDead
from suitkaise.events import DeadLetter, Event
from suitkaise.exits import Normal, Signaled
from suitkaise.messaging import bounded, pending
from suitkaise.messaging.address import Address
from suitkaise.messaging.answer import DEFAULT_TIMEOUT, Answer
from suitkaise.messaging.dead_letters import DeadLetters
from suitkaise.messaging.identity import set_supervises
from suitkaise.messaging.inbox import Inbox, Taken
from suitkaise.messaging.messages import Message, Payload
from suitkaise.messaging.registry import Registry
from suitkaise.platform.board import MESSAGES, OWN, OWN_TAKEN, SLOT_BYTES, Slot
from suitkaise.specs.bounded import ON_FULL, Bounded, OnFull
from tests.support import collected_at_each_allocation, in_background


class Parent:
    def status_of(self, id: str) -> Status:
        return Status.RUNNING

    def control(self, kind: str, id: str, drain: float | None = None) -> Answer[Any]:
        raise NotImplementedError


class Worker:
    """An incarnation that gets messages, and handles one when it is told to."""

    def __init__(self) -> None:
        self.slot = Slot(memoryview(bytearray(SLOT_BYTES)))
        self.inbox = Inbox(self.slot)
        self.on_room: Callable[[int], None] = lambda dropped: None
        self.taken = Taken(self.slot, lambda dropped: self.on_room(dropped))
        self.got: deque[Message] = deque()
        self.handled: list[Any] = []
        self.dead = False

    def deliver(self, message: Message, *, accepted: bool = False) -> None:
        if self.dead:
            raise WorkerDead("gone")
        self.inbox.delivered += 1
        self.got.append(message)

    def ring_timer(self) -> None:
        self.slot.words[OWN] += 1
        self.got.append(Message("signal", Payload("tick")))

    def handle(self, most: int = 1) -> list[Any]:
        """Take messages out as a worker does, until `most` were handled; return the values of those."""
        before = len(self.handled)
        while self.got and len(self.handled) - before < most:
            message = self.got.popleft()
            self.slot.words[MESSAGES] += 1
            self.slot.words[OWN_TAKEN] += message.body.value == "tick"
            if self.taken(message, self.slot.words[MESSAGES]):
                message.fail(MailboxFull("dropped"))
            else:
                self.handled.append(message.body.value)
        return self.handled[before:]


class Scene:
    def __init__(self, size: int, on_full: OnFull) -> None:
        self.events: list[Event] = []
        self.dead_letters = DeadLetters(self.events.append)
        self.address = Address("tree/one", "one", "thread", Parent(), self.dead_letters)
        self.address.set_bound(Bounded(size, on_full))
        self.worker = Worker()
        self.address.attach(self.worker)

    def tell(self, value: Any, *, waits: bool = False) -> Answer[bool] | None:
        room: Answer[bool] | None = Answer() if waits else None
        self.address.send(Message("message", Payload(value)), room)
        return room

    def ask(self, value: Any, deadline: float | None = None) -> Answer[Any]:
        answer: Answer[Any] = Answer()
        self.address.send(Message("message", Payload(value), answer.settle, deadline=deadline))
        return answer

    def waiting(self) -> int:
        assert self.address._bounded is not None
        return len(self.address._bounded)

    def blocked(self) -> int:
        assert self.address._bounded is not None
        return self.address._bounded.blocked


@pytest.mark.parametrize("size, on_full", [(0, "block"), (True, "block"), (1.5, "block"), (3, "drop"), (3, None)])
def test_s84_a_bound_that_is_none_is_refused(size: Any, on_full: Any) -> None:
    with pytest.raises(SpecError, match="Bounded: "):
        Bounded(size, on_full)


def test_s84_reject_refuses_one_more_than_the_bound() -> None:
    scene = Scene(3, "reject")
    for number in range(3):
        scene.tell(number)
    with pytest.raises(MailboxFull, match="the mailbox of 'tree/one' is full: 3 messages wait for it"):
        scene.tell(3)
    with pytest.raises(MailboxFull):
        scene.ask(3)
    assert scene.worker.handle() == [0]
    scene.tell(4)
    with pytest.raises(MailboxFull):
        scene.tell(5)
    assert scene.worker.handle(9) == [1, 2, 4]
    assert scene.waiting() == 0


def test_s84_a_told_message_that_is_blocked_is_accepted_when_there_is_room() -> None:
    scene = Scene(2, "block")
    rooms = [scene.tell(number, waits=True) for number in range(4)]
    assert [room is not None and room.done() for room in rooms] == [True, True, False, False]
    assert (scene.waiting(), scene.blocked()) == (2, 2)
    scene.worker.handle()
    assert [room is not None and room.done() for room in rooms] == [True, True, True, False]
    assert scene.worker.handle(9) == [1, 2, 3]


def test_s84_a_destructor_may_send_at_any_moment() -> None:
    def prepare() -> Callable[[], None]:
        nonlocal scene, late
        late, scene = [], Scene(2, "block")
        for number in range(4):
            scene.tell(number, waits=True)
        return use

    def use() -> None:
        mailbox = scene.address._bounded
        assert mailbox is not None
        mailbox.withdraw(None)
        mailbox._end_late(0.0)
        assert not scene.address.has_asks
        assert not scene.address.take_asks(lambda asker: True)
        scene.address.stats()
        scene.worker.handle(2)

    late: list[Any] = []
    scene: Any = None
    times = 0
    for _ in collected_at_each_allocation(prepare, lambda: late.append(scene.tell("late", waits=True))):
        scene.worker.handle(9)
        assert scene.worker.handled == [0, 1, 2, 3, "late"]
        assert late[0].result(0)
        times += 1
    assert times


def test_s84_a_destructor_in_the_thread_of_a_supervisor_does_not_wait_for_room() -> None:
    def run() -> float:
        set_supervises()
        began = time.monotonic()
        with pytest.raises(MailboxFull):
            registry.send("tree/one", Message("message", Payload("second")))
        return time.monotonic() - began

    registry = Registry()
    registry.add("tree/one", "one", "thread", Parent(), Bounded(1, "block")).attach(Worker())
    registry.send("tree/one", Message("message", Payload("first")))
    assert in_background(run).result(30) < DEFAULT_TIMEOUT


def test_s84_what_cannot_wait_is_refused_while_others_are_blocked() -> None:
    scene = Scene(1, "block")
    scene.tell(0)
    with pytest.raises(MailboxFull):
        scene.tell(1)


def test_s84_what_is_published_goes_behind_what_has_waited_for_room() -> None:
    scene = Scene(3, "block")
    scene.address.begin(7)
    for number in range(3):
        scene.tell(number)
    asked = scene.ask(3)
    scene.worker.on_room = lambda dropped: None  # the hub has not read yet that there is room
    assert scene.worker.handle() == [0]
    with pytest.raises(MailboxFull, match="3 messages already wait"):
        scene.address.offer(7, Message("signal", Payload("published")), most=10)
    assert scene.blocked() == 0
    assert scene.worker.handle() == [1]
    scene.ask(4)
    assert scene.worker.handle() == [2]
    assert scene.address.offer(7, Message("signal", Payload("published")), most=10)
    assert scene.worker.handle(9) == [3, 4, "published"]
    assert not asked.done()


def test_s84_a_sender_that_gives_up_is_forgotten_and_overtaken() -> None:
    scene = Scene(1, "block")
    scene.tell(0)
    rooms = [scene.tell(number, waits=True) for number in (1, 2)]
    assert rooms[0] is not None
    assert rooms[0].cancel()
    assert scene.blocked() == 1
    assert scene.worker.handle(9) == [0, 2]


def test_s84_an_ask_waits_for_room_and_is_forgotten_when_its_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded, "_PURGE", 0.0)
    scene = Scene(1, "block")
    scene.tell(0)
    late = scene.ask("late", deadline=0.0)
    scene.ask("long", deadline=1e12)
    with pytest.raises(AskTimeout):
        late.get(0)
    assert scene.worker.handle(9) == [0, "long"]


def test_s84_the_number_of_blocked_messages_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded, "MOST", 3)
    scene = Scene(1, "block")
    for number in range(4):
        scene.ask(number)
    with pytest.raises(MailboxFull):
        scene.ask(4)


@pytest.mark.parametrize("size", [1, 3, 100])
def test_s84_drop_oldest_keeps_the_newest_and_counts_the_others(size: int) -> None:
    scene = Scene(size, "drop_oldest")
    for number in range(1000):
        scene.tell(number)
        assert scene.waiting() <= size
        assert len(scene.worker.got) <= bounded.WINDOW
    assert scene.worker.handle(2000) == list(range(1000 - size, 1000))
    assert scene.dead_letters.count("tree/one") == 1000 - size
    assert isinstance(scene.events[0], DeadLetter)
    assert "its mailbox is full (drop_oldest)" in scene.events[0].why


def test_s84_a_dropped_ask_gets_mailbox_full() -> None:
    scene = Scene(2, "drop_oldest")
    answers = [scene.ask(number) for number in range(5)]
    scene.worker.handle(9)
    assert scene.worker.handled == [3, 4]
    for answer in answers[:3]:
        with pytest.raises(MailboxFull):
            answer.get(0)
    newest = Scene(1, "drop_newest")
    newest.tell(0)
    with pytest.raises(MailboxFull):
        newest.ask(1).get(0)


def test_s84_drop_newest_keeps_the_oldest_and_tells_so() -> None:
    scene = Scene(2, "drop_newest")
    rooms = [scene.tell(number, waits=True) for number in range(4)]
    assert [room.result(0) for room in rooms if room is not None] == [True, True, False, False]
    assert scene.worker.handle(9) == [0, 1]
    assert scene.dead_letters.count("tree/one") == 2


@pytest.mark.parametrize("on_full", ON_FULL)
def test_s84_a_report_of_a_link_is_never_refused_and_never_dropped(on_full: OnFull) -> None:
    scene = Scene(1, on_full)
    scene.address.begin(7)
    scene.address.signal(7, Message("signal", Payload("down")))
    scene.address.signal(7, Message("signal", Payload("down")))
    if on_full == "drop_oldest":
        for number in range(3):
            scene.tell(number)
    assert scene.worker.handle(9) == ["down", "down"] + [2] * (on_full == "drop_oldest")


@pytest.mark.parametrize("on_full", ["reject", "drop_oldest"])
def test_s84_messages_of_timers_take_room_and_are_never_dropped(on_full: OnFull) -> None:
    scene = Scene(2, on_full)
    for number in range(3):
        scene.worker.ring_timer()
        assert scene.waiting() == 1
        scene.tell(number)
        with contextlib.suppress(MailboxFull):
            scene.tell(-1)
        assert scene.waiting() == 2
        got = scene.worker.handle(9)
        assert got == (["tick", number] if on_full == "reject" else ["tick", number, -1])
        assert scene.waiting() == 0


def test_s84_the_messages_of_timers_have_no_age(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(pending.time, "monotonic", lambda: now)
    scene = Scene(9, "block")
    assert scene.address._bounded is not None
    scene.tell(0)
    scene.worker.handle()
    now = 4000.0
    scene.worker.ring_timer()
    assert (scene.waiting(), scene.address._bounded.oldest) == (1, None)
    scene.tell(1)
    now = 4001.0
    scene.tell(2)
    scene.worker.ring_timer()
    assert scene.address._bounded.oldest == 4000.0
    assert scene.worker.handle(2) == ["tick", 1]
    assert scene.address._bounded.oldest == 4001.0
    assert scene.worker.handle(9) == [2, "tick"]
    assert (scene.waiting(), scene.address._bounded.oldest) == (0, None)


def test_s84_messages_between_two_incarnations_are_bounded_too() -> None:
    scene = Scene(2, "drop_oldest")
    scene.tell("lost")
    scene.address.detach(Signaled(9), None)
    for number in range(5):
        scene.tell(number)
    assert scene.waiting() == 2
    second = Worker()
    scene.address.attach(second)
    assert second.handle(9) == [3, 4]


def test_s84_messages_that_an_incarnation_hands_over_go_first_and_count() -> None:
    scene = Scene(2, "block")
    rooms = [scene.tell(number, waits=True) for number in range(3)]
    returned = list(scene.worker.got)
    scene.address.detach(Normal(), None, returned)
    assert (scene.waiting(), scene.blocked()) == (2, 1)
    second = Worker()
    scene.address.attach(second)
    assert second.handle(9) == [0, 1, 2]
    assert all(room is not None and room.result(0) for room in rooms)


def test_s84_messages_wait_when_the_incarnation_has_just_ended() -> None:
    scene = Scene(2, "reject")
    scene.worker.dead = True
    scene.tell(1)
    scene.address.detach(Signaled(9), None)
    second = Worker()
    scene.address.attach(second)
    assert second.handle(9) == [1]


def test_s84_a_message_goes_on_although_the_worker_takes_out_all_while_too_many_bytes_wait() -> None:
    scene = Scene(5, "block")
    scene.tell(0)
    deliver, worker = scene.worker.deliver, scene.worker

    def refuse(message: Message, *, accepted: bool = False) -> None:
        worker.deliver = deliver  # type: ignore[method-assign]
        worker.handle()  # before the hub has told that it waits for room
        raise MailboxFull("too many bytes")

    worker.deliver = refuse  # type: ignore[method-assign]
    scene.tell(1)
    assert worker.handle(9) == [1]


@pytest.mark.parametrize("on_full", ["block", "drop_oldest"])
def test_s84_a_message_that_is_sent_while_another_one_is_handed_over_goes_behind_it(on_full: OnFull) -> None:
    """As a signal handler does it, or a `__del__` that the garbage collector calls."""
    scene = Scene(3, on_full)
    deliver = scene.worker.deliver
    late = iter(["b", "c", "d"])

    def interrupted(message: Message, *, accepted: bool = False) -> None:
        for one in itertools.islice(late, 1):
            scene.tell(one, waits=True)
        deliver(message, accepted=accepted)
        for one in itertools.islice(late, 1):
            scene.tell(one, waits=True)

    scene.worker.deliver = interrupted  # type: ignore[method-assign]
    scene.tell("a", waits=True)
    assert scene.worker.handle(9) + scene.worker.handle(9) == ["a", "b", "c", "d"]
    assert (scene.waiting(), scene.blocked()) == (0, 0)


def test_s84_who_waits_for_room_learns_that_the_worker_is_over() -> None:
    scene = Scene(1, "block")
    scene.tell(0)
    room, answer = scene.tell(1, waits=True), scene.ask(2)
    scene.address.detach(Signaled(9), None)
    accepted = room is not None and room.result(0)
    scene.address.finish()
    assert accepted  # there was room when the first message was lost with its incarnation
    with pytest.raises(WorkerDead):
        answer.get(0)
    with pytest.raises(WorkerDead):
        scene.tell(3)


@pytest.mark.parametrize("on_full", ON_FULL)
def test_s84_nothing_is_lost_or_overtaken_while_senders_and_worker_race(on_full: OnFull) -> None:
    scene = Scene(5, on_full)
    ends = threading.Event()
    refused: list[int] = []
    per_sender = 300

    def send(sender: int) -> None:
        chance = random.Random(sender)
        for number in range(per_sender):
            value = (sender, number)
            try:
                room = scene.tell(value, waits=True)
                assert room is not None
                if not room.result(30):
                    refused.append(1)
            except MailboxFull:
                refused.append(1)
            if chance.random() < 0.1:
                scene.address.status  # noqa: B018  (something else, so that the threads mix)

    def work() -> None:
        while not ends.is_set() or scene.worker.got:
            scene.worker.handle()

    worker = threading.Thread(target=work)
    senders = [threading.Thread(target=send, args=(number,)) for number in range(4)]
    for thread in (worker, *senders):
        thread.start()
    for thread in senders:
        thread.join(60)
    ends.set()
    worker.join(60)
    lost = 4 * per_sender - len(scene.worker.handled)
    dropped = scene.dead_letters.count("tree/one")
    assert lost == {"block": 0, "reject": len(refused)}.get(on_full, dropped)
    assert scene.waiting() == scene.blocked() == 0
    for sender in range(4):
        numbers = [number for one, number in scene.worker.handled if one == sender]
        assert all(one < other for one, other in itertools.pairwise(numbers))
