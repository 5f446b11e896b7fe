"""Both sides of a direct connection, in one process: answers, returns, and the end of the receiver."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from suitkaise.errors import AskTimeout, MailboxFull, WorkerDead
from suitkaise.exits import Killed
from suitkaise.messaging import codec, connection, direct, wire
from suitkaise.messaging import route as routing
from suitkaise.messaging.answer import Answer
from suitkaise.messaging.connection import Outbox
from suitkaise.messaging.direct import Routes
from suitkaise.messaging.held_back import holders, send_held
from suitkaise.messaging.incoming import Incoming
from suitkaise.messaging.messages import Message, Payload
from suitkaise.messaging.pieces import Pieces
from suitkaise.messaging.protocol import (
    DirectAnswer,
    DirectMessage,
    DirectReturn,
    RequestKind,
    decode_direct,
    decode_direct_answer,
    decode_several,
    encode_several,
)
from suitkaise.messaging.route import BURST, HELD, Connection, Route
from suitkaise.messaging.unawaited import Unawaited
from suitkaise.platform.board import SenderMarks
from tests.messaging.frames import uncounted
from tests.support import alarms, eventually, in_background, interrupted_at_each_call, interrupted_at_each_line

SOON = 15.0


class Hub:
    """Makes connections to itself, and records what is sent through it instead."""

    def __init__(self) -> None:
        self.incoming: list[Incoming] = []
        self.posted: list[Any] = []
        self.ended: list[tuple[str, int]] = []
        self.dead_letters: list[tuple[str, str, int]] = []
        self.connects = True
        self.marks = SenderMarks.of_no_board()
        self.marks.incarnation[0] = 7
        self.accepted: Answer[None] | None = None
        self.accept: Any = lambda message: None
        self.routes = Routes(self, lambda slot, number: self.marks, lambda: True)

    def connect(self, path: str) -> Answer[Connection | None]:
        answer: Answer[Connection | None] = Answer()
        if not self.connects:
            answer.set_result(None)
            return answer
        ours, theirs = socket.socketpair()
        self.incoming.append(Incoming(theirs.detach(), "", 0, uncounted()))
        answer.set_result(Connection(ours.detach(), 0, 7, 0))
        return answer

    def request(self, kind: RequestKind, path: str, argument: Any = None) -> Answer[Any]:
        answer: Answer[Any] = Answer()
        if kind is RequestKind.DEAD_LETTER:
            self.dead_letters.append((path, *argument))
            return answer
        assert kind is RequestKind.ENDED
        self.ended.append((path, argument))
        answer.set_result(Killed("why"))
        return answer

    def post_unawaited(self, path: str, message: Message) -> Answer[None] | None:
        self.posted.append(message.body.value)
        self.accept(message)
        if message.reply is not None:
            message.reply(True, Payload(f"{message.body.value} by the hub"))
            return None
        if self.accepted is not None:
            return self.accepted
        accepted: Answer[None] = Answer()
        accepted.set_result(None)
        return accepted

    def route(self) -> Route:
        assert self.routes.find("tree/to") is None
        route = self.routes.find("tree/to")
        assert route is not None
        return route

    def close(self) -> None:
        holders.clear()
        for incoming in self.incoming:
            incoming.close()
        if self.routes._reactor is not None:
            self.routes._reactor.close()
        self.routes._begin()  # no thread has a connection any more


@pytest.fixture
def hub() -> Iterator[Hub]:
    hub = Hub()
    yield hub
    hub.close()


def tell(body: Any) -> Message:
    return Message("message", Payload(body))


def future(body: Any) -> tuple[Answer[Any], Message]:
    answer: Answer[Any] = Answer()
    return answer, Message("message", Payload(body), answer.settle)


def received(incoming: Incoming, count: int) -> list[Message]:
    messages: list[Message] = []

    def read() -> bool:
        try:
            messages.extend(incoming.receive())
        except BlockingIOError:
            pass
        return len(messages) >= count

    eventually(read)
    return messages


def answer_all(messages: list[Message]) -> None:
    for message in messages:
        if message.reply is not None:
            message.reply(True, Payload(("answer", message.body.value)))


def test_the_first_message_goes_through_the_hub_and_the_next_ones_over_one_connection(hub: Hub) -> None:
    route = hub.route()
    assert hub.routes.find("tree/to") is route
    assert hub.routes.find("tree/other") is None
    assert in_background(lambda: hub.routes.find("tree/to")).result(SOON) is None  # each thread has its own


def test_a_worker_that_cannot_be_connected_is_not_asked_for_again_at_once(hub: Hub) -> None:
    hub.connects = False
    assert [hub.routes.find("tree/to") for _ in range(3)] == [None] * 3
    hub.connects = True
    assert hub.routes.find("tree/to") is None
    assert eventually(lambda: hub.routes.find("tree/to"))


@pytest.mark.parametrize("error", [OSError, RuntimeError])  # no descriptor is left, or no thread
def test_without_an_io_thread_for_its_end_no_connection_is_made(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def refuse() -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(direct, "Reactor", refuse)
        assert hub.routes.find("app/w") is None
        assert hub.routes.find("app/w") is None
    [refused] = hub.incoming
    with pytest.raises(wire.PeerClosed):
        refused.receive()
    assert eventually(lambda: hub.routes.find("app/w"))


def test_a_process_makes_a_limited_number_of_connections(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(direct, "MOST", 1)
    route = hub.route()
    assert [hub.routes.find("tree/other") for _ in range(2)] == [None, None]
    assert not route.broken


def test_a_connection_that_is_not_used_makes_room_for_another_one(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(direct, "MOST", 1)
    monkeypatch.setattr(direct, "UNUSED", 0.0)
    route = hub.route()
    assert hub.routes.find("tree/other") is None
    assert route.send(tell("not read yet"))
    assert [hub.routes.find("tree/other") for _ in range(3)] == [None] * 3
    assert not route.broken
    received(hub.incoming[0], 1)
    assert hub.routes.find("tree/other") is not None
    assert route.broken
    assert not route.send(tell("through the hub"))


def test_the_paths_without_a_connection_are_forgotten_when_there_are_many(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(direct, "_PATHS", 4)
    route = hub.route()
    for number in range(100):
        assert hub.routes.find(f"tree/{number}") is None
    assert len(hub.routes._of_thread.__dict__) <= 4
    assert hub.routes.find("tree/to") is route


def test_a_connection_closes_with_the_incarnation(hub: Hub) -> None:
    idle = hub.route()
    hub.routes.close_ended("tree/other")
    assert not idle.broken
    hub.routes.close_ended("tree/to")
    assert (idle.broken, idle.closed) == (True, True)


def test_a_connection_over_which_an_answer_is_to_come_closes_after_that(hub: Hub) -> None:
    route = hub.route()
    answer, message = future("asked")
    assert route.send(message)
    hub.routes.close_ended("tree/to")
    assert not route.broken
    answer_all(received(hub.incoming[0], 1))
    assert answer.get(SOON) == ("answer", "asked")
    eventually(lambda: route.fileno() == -1)


def test_a_connection_whose_answer_a_thread_reads_closes_after_that(hub: Hub) -> None:
    route = hub.route()

    def serve() -> None:
        messages = received(hub.incoming[0], 1)
        hub.routes.close_ended("tree/to")
        answer_all(messages)

    serving = in_background(serve)
    assert route.ask(Payload("question"), SOON) is not None
    serving.result(SOON)
    assert route.fileno() == -1


def test_a_connection_that_is_in_use_at_the_moment_closes_after_that(hub: Hub) -> None:
    route = hub.route()
    with route._lock:
        in_background(lambda: hub.routes.close_ended("tree/to")).result(SOON)
        assert not route.broken
    eventually(lambda: route.fileno() == -1)


def test_the_connections_of_a_thread_close_with_it(hub: Hub) -> None:
    in_background(hub.route).result(SOON)
    with pytest.raises(wire.PeerClosed):
        eventually(lambda: received(hub.incoming[0], 1))


def test_messages_are_counted_once_they_are_in_the_socket_as_a_whole(hub: Hub) -> None:
    route = hub.route()
    for number in range(FOR_LONG):
        assert route.send(tell((number, bytes(LARGE))))
    got = hub.incoming[0].cut()
    hub.incoming[0].close()
    eventually(lambda: len(got) + len(hub.posted) == FOR_LONG)
    assert hub.marks.sent[0] // 2 == len(got) < FOR_LONG


def test_messages_that_waited_are_counted_when_the_socket_has_taken_them(hub: Hub) -> None:
    route = hub.route()
    for number in range(FOR_LONG):
        assert route.send(tell((number, bytes(LARGE))))
    assert 0 < hub.marks.sent[0] // 2 < FOR_LONG
    assert len(received(hub.incoming[0], FOR_LONG)) == FOR_LONG
    eventually(lambda: not route._outbox.waiting)
    assert hub.marks.sent[0] == 2 * FOR_LONG


def test_connections_that_have_ended_are_no_trouble_in_a_forked_child(hub: Hub) -> None:
    assert hub.routes.reactor is not None
    hub.routes.close()
    hub.routes.close_after_fork()  # an error would leave the connections of others open there
    hub.routes.close()


def test_at_the_end_of_all_connections_a_thread_that_asks_gets_an_error(hub: Hub) -> None:
    route = hub.route()
    asking = in_background(lambda: hub.route().ask(Payload("question"), SOON))
    eventually(lambda: len(hub.incoming) == 2)
    received(hub.incoming[1], 1)
    later, message = future("later")
    assert route.send(message)
    hub.routes.close()
    outcome = asking.result(SOON)
    assert outcome is not None
    assert isinstance(outcome[1].value, WorkerDead)
    with pytest.raises(WorkerDead):
        later.get(SOON)
    assert not route.send(tell("late"))


def test_the_asking_thread_reads_its_answer_itself(hub: Hub) -> None:
    route = hub.route()
    serving = in_background(lambda: answer_all(received(hub.incoming[0], 1)))
    outcome = route.ask(Payload("question"), SOON)
    serving.result(SOON)
    assert outcome is not None
    assert (outcome[0], outcome[1].value) == (True, ("answer", "question"))
    assert not route._watched  # by the I/O thread
    assert hub.marks.bell[0] == 1


def test_futures_are_answered_by_the_io_thread_and_then_threads_read_again(hub: Hub) -> None:
    route = hub.route()
    answers = []
    for number in range(20):
        answer, message = future(number)
        answers.append(answer)
        assert route.send(message)
    assert route.ask(Payload("now"), SOON) is None  # the I/O thread reads
    answer_all(received(hub.incoming[0], 20))
    assert [answer.get(SOON) for answer in answers] == [("answer", number) for number in range(20)]
    serving = in_background(lambda: answer_all(received(hub.incoming[0], 1)))
    eventually(lambda: not route._watched)
    assert route.ask(Payload("again"), SOON) is not None
    serving.result(SOON)


def test_what_waits_is_sent_although_an_earlier_future_is_not_answered_yet(hub: Hub) -> None:
    route = hub.route()
    answer, message = future("first")
    assert route.send(message)
    (first,) = received(hub.incoming[0], 1)
    eventually(lambda: route._watched)
    for number in range(FOR_LONG):
        assert route.send(tell((number, bytes(LARGE))))
    got = received(hub.incoming[0], FOR_LONG)
    assert [message.body.value[0] for message in got] == list(range(FOR_LONG))
    answer_all([first])
    assert answer.get(SOON) == ("answer", "first")


def test_answers_come_while_a_thread_that_a_signal_handler_has_interrupted_has_the_lock_of_a_connection(
    hub: Hub,
) -> None:
    """The handler may wait for one of them. Without signals: what has the lock is this test."""
    first = hub.route()
    assert hub.routes.find("tree/other") is None
    second = hub.routes.find("tree/other")
    assert second is not None
    answers = []
    with first._lock:
        for route, incoming in ((first, hub.incoming[0]), (second, hub.incoming[1]), (first, hub.incoming[0])):
            answer, message = future("asked")
            assert route.send(message)
            answer_all(received(incoming, 1))
            answers.append(answer)
        assert [answer.get(SOON) for answer in answers] == [("answer", "asked")] * 3
        hub.routes.reactor.call_soon_threadsafe(first._close_when_free)
        first._send_held_soon()
        answer, message = future("asked")
        assert second.send(message)
        answer_all(received(hub.incoming[1], 1))
        assert answer.get(SOON) == ("answer", "asked")
    eventually(lambda: not first._watched)


def raises_timeout(*_: Any) -> Any:
    """Stand for a signal handler that raises in the midst of a call."""
    raise TimeoutError("of an alarm")


def test_a_timeout_of_an_alarm_while_an_answer_is_read_is_raised(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    route = hub.route()
    serving = in_background(lambda: answer_all(received(hub.incoming[0], 1)))
    with monkeypatch.context() as patch:
        patch.setattr(route, "_parser", type("Interrupted", (), {"receive": staticmethod(raises_timeout)}))
        with pytest.raises(TimeoutError, match="of an alarm"):
            route.ask(Payload("question"), SOON)
    serving.result(SOON)
    assert route.broken  # what was read may be lost
    assert hub.posted == []


def test_a_timeout_of_an_alarm_while_a_header_is_decoded_is_raised(ends: Any) -> None:
    ours, theirs = ends
    ours.sendall(wire.encode(HEADER, b"payload"))
    parser = wire.Parser(decode=raises_timeout)
    with pytest.raises(TimeoutError, match="of an alarm"):
        parser.receive(theirs)
    with pytest.raises(TimeoutError, match="of an alarm"):
        wire.Parser(decode=raises_timeout).feed(wire.encode(HEADER, b"payload"))


def test_an_answer_that_comes_too_late_is_dropped(hub: Hub) -> None:
    route = hub.route()
    with pytest.raises(AskTimeout, match=r"'tree/to' did not answer within 0\.01 s"):
        route.ask(Payload("slow"), 0.01)
    answer_all(received(hub.incoming[0], 1))
    eventually(lambda: not route._watched)
    serving = in_background(lambda: answer_all(received(hub.incoming[0], 1)))
    outcome = route.ask(Payload("next"), SOON)
    serving.result(SOON)
    assert outcome is not None
    assert outcome[1].value == ("answer", "next")


def test_what_the_receiver_returns_goes_through_the_hub_in_order_and_its_askers_get_their_answers(hub: Hub) -> None:
    route = hub.route()
    assert route.send(tell("told before"))
    first, message = future("asked")
    assert route.send(message)
    assert route.send(tell("told after"))
    incoming = hub.incoming[0]
    returned = [message for message in incoming.cut() if not incoming.send_back(message)]
    assert [message.body.value for message in returned] == ["told before"]
    incoming.close()
    assert first.get(SOON) == "asked by the hub"
    eventually(lambda: len(hub.posted) == 2)
    assert hub.posted == ["asked", "told after"]
    assert hub.ended == [("tree/to", 7)]
    assert route.broken
    assert not route.send(tell("later"))


@pytest.mark.parametrize("sends_next", ["a message", "a publication"])
def test_no_message_goes_ahead_of_those_that_the_io_thread_sends_again(sends_next: str, hub: Hub) -> None:
    posting, go_on = threading.Event(), threading.Event()

    def accept(message: Message) -> None:
        posting.set()
        assert go_on.wait(SOON)

    hub.accept = accept
    route = hub.route()
    answer, message = future("asked")
    assert route.send(message)
    incoming = hub.incoming[0]
    for one in incoming.cut():
        incoming.send_back(one)
    incoming.close()
    assert posting.wait(SOON)  # the I/O thread is in the midst of it
    assert route.broken
    hub.connects = False
    threading.Timer(0.05, go_on.set).start()
    if sends_next == "a message":
        assert hub.routes.find("tree/to") is None
    else:
        assert hub.routes.in_use() == []
    assert answer.done()
    assert answer.get(0) == "asked by the hub"


def test_a_receiver_that_has_cut_the_connection_gets_nothing_more_and_can_answer_still(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routing, "LAST_WORDS", 0.01)
    route = hub.route()
    answer, message = future(1)
    assert route.send(message)
    incoming = hub.incoming[0]
    messages = incoming.cut()
    assert not route.send(tell("later"))
    answer_all(messages)
    assert answer.get(SOON) == ("answer", 1)
    assert hub.posted == []
    eventually(lambda: route.closed)


def test_a_connection_is_in_use_while_the_receiver_has_not_read_all_or_an_answer_is_to_come(hub: Hub) -> None:
    route = hub.route()
    assert route.send(tell("told"))
    assert hub.routes.in_use() == ["tree/to"]
    received(hub.incoming[0], 1)
    answer, message = future("asked")
    assert route.send(message)
    messages = received(hub.incoming[0], 1)
    assert hub.routes.in_use() == ["tree/to"]
    answer_all(messages)
    assert answer.get(SOON) == ("answer", "asked")
    eventually(lambda: hub.routes.in_use() == [])
    assert route.closed
    assert in_background(hub.routes.in_use).result(SOON) == []


def signal_(body: Any) -> Message:
    return Message("signal", Payload(body))


def test_what_is_published_goes_over_the_connection_with_that_incarnation_and_no_other(hub: Hub) -> None:
    assert not hub.routes.send_to("tree/to#7", signal_("no connection"), 10)
    route = hub.route()
    assert route.send(tell("told"))
    assert hub.routes.send_to("tree/to#7", signal_("published"), 10)
    assert [(one.kind, one.body.value) for one in received(hub.incoming[0], 2)] == [
        ("message", "told"),
        ("signal", "published"),
    ]
    hub.incoming[0].close()  # the end of that incarnation
    assert not hub.routes.send_to("tree/to#8", signal_("later"), 10)
    assert hub.ended == [("tree/to", 7)]
    assert hub.posted == []


def test_what_is_published_is_bounded_by_what_waits_and_ends_with_its_receiver(hub: Hub) -> None:
    route = hub.route()
    for number in range(FOR_LONG):
        assert route.send(tell((number, bytes(LARGE))))
    waiting = len(route._outbox.waiting)
    assert hub.routes.send_to("tree/to#7", signal_("published"), waiting + 1)
    with pytest.raises(MailboxFull, match=f"{waiting + 1} messages already wait for 'tree/to'"):
        hub.routes.send_to("tree/to#7", signal_("one too many"), waiting + 1)
    got = hub.incoming[0].cut()
    hub.incoming[0].close()
    eventually(lambda: len(got) + len(hub.posted) == FOR_LONG)
    assert "published" not in hub.posted


@pytest.mark.parametrize("size,count", [(10 << 20, 1), (20_000, 100)])
def test_a_timer_of_the_program_does_not_prolong_the_wait_for_a_sender_that_reads_nothing(
    size: int, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("suitkaise.messaging.incoming.PATIENCE", 0.2)
    sender, receives = socket.socketpair()
    receiver = Incoming(receives.detach(), "", 0, uncounted())
    with sender, contextlib.closing(receiver), alarms(lambda *_: None, 0.02):
        rescue = threading.Timer(SOON, sender.shutdown, (socket.SHUT_RDWR,))
        rescue.start()
        for _ in range(count):
            receiver.answer(1, True, Payload(bytes(size)))
        assert rescue.is_alive()
        rescue.cancel()


def test_asks_that_the_receiver_got_and_did_not_answer_fail_with_its_exit_reason(hub: Hub) -> None:
    route = hub.route()
    answer, message = future(1)
    assert route.send(message)
    received(hub.incoming[0], 1)
    hub.incoming[0].close()
    with pytest.raises(WorkerDead, match="'tree/to' died before it answered: killed"):
        answer.get(SOON)


def test_a_thread_that_waits_for_its_answer_gets_the_exit_reason_too(hub: Hub) -> None:
    route = hub.route()

    def end() -> None:
        received(hub.incoming[0], 1)
        hub.incoming[0].close()

    ending = in_background(end)
    outcome = route.ask(Payload(1), SOON)
    ending.result(SOON)
    assert outcome is not None
    assert not outcome[0]
    assert isinstance(outcome[1].value, WorkerDead)


def test_what_the_receiver_does_not_take_is_sent_later_and_bounded(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "BACKLOG", 1 << 20)
    route = hub.route()
    told = 0
    with pytest.raises(MailboxFull, match="bytes already wait to be read by 'tree/to'"):
        for _ in range(1000):
            route.send(tell(bytes(50_000)))
            told += 1
    assert (1 << 20) // 50_000 <= told < 100
    assert len(received(hub.incoming[0], told)) == told


FOR_LONG = 20
"""Messages that no socket takes all at once, of `LARGE` bytes."""

LARGE = 50_000


def soon() -> float:
    return time.monotonic() + SOON


def test_a_thread_waits_until_the_receiver_has_all_that_it_was_told(hub: Hub) -> None:
    route = hub.route()
    for number in range(FOR_LONG):
        assert route.send(tell((number, bytes(LARGE))))
    assert not hub.routes.confirm("tree/to", time.monotonic() + 0.01)
    assert hub.routes.flush(time.monotonic()) > 0  # and it drops nothing
    confirming = in_background(lambda: (route.confirm(soon()), hub.routes.flush(soon())))
    got = received(hub.incoming[0], FOR_LONG)
    assert confirming.result(SOON) == (True, 0)
    assert [message.body.value[0] for message in got] == list(range(FOR_LONG))


def test_only_what_is_told_to_the_worker_itself_is_confirmed(hub: Hub) -> None:
    route = hub.route()
    for _ in range(FOR_LONG):
        assert route.send(tell(bytes(LARGE)))
    assert hub.routes.confirm("tree/other", time.monotonic())
    assert in_background(lambda: hub.routes.confirm("tree/to", 0.0)).result(SOON)  # another thread has told nothing
    assert not hub.routes.confirm("tree/to", 0.0)


@pytest.mark.parametrize("refusal", [None, WorkerDead("over"), MailboxFull("full")])
def test_what_the_hub_has_to_deliver_instead_is_confirmed_by_the_hub(hub: Hub, refusal: Exception | None) -> None:
    accepted: Answer[None] = Answer()
    hub.accepted = accepted
    route = hub.route()
    for _ in range(FOR_LONG):
        assert route.send(tell(bytes(LARGE)))
    hub.incoming[0].close()
    eventually(lambda: hub.posted)
    assert not route.confirm(time.monotonic() + 0.01)
    confirming = in_background(lambda: route.confirm(soon()))
    if refusal is None:
        accepted.set_result(None)
        assert confirming.result(SOON)
    else:
        accepted.set_exception(refusal)
        with pytest.raises(type(refusal)):
            confirming.result(SOON)


def test_what_was_not_sent_when_the_process_ends_are_dead_letters(hub: Hub) -> None:
    route = hub.route()
    for _ in range(FOR_LONG):
        assert route.send(tell(bytes(LARGE)))
    waiting = hub.routes.flush(0.0)
    hub.routes.finish(0.01)
    assert hub.routes.flush(0.0) == 0
    assert waiting > 0
    assert hub.dead_letters == [("tree/to", "it has not taken them in 0.01 s, and their sender has ended", waiting)]


def test_messages_that_nobody_waits_for_are_flushed_too() -> None:
    unawaited, first, second = Unawaited(), Answer[None](), Answer[None]()
    unawaited.add(first)
    unawaited.add(second)
    assert unawaited.wait(0.0) == 2
    first.set_exception(WorkerDead("over"))
    assert unawaited.wait(0.0) == 1
    flushing = in_background(lambda: unawaited.wait(soon()))
    second.set_result(None)
    assert flushing.result(SOON) == 0


@pytest.mark.parametrize("count, size", [(100, 60_000), (30, 2_000_000)])
def test_another_thread_may_flush_while_a_thread_asks_and_no_message_is_sent_twice(
    hub: Hub, count: int, size: int
) -> None:
    route = hub.route()
    over = threading.Event()
    got: list[int] = []

    def serve() -> None:
        while not over.is_set():
            with contextlib.suppress(BlockingIOError):
                for message in hub.incoming[0].receive():
                    got.append(message.body.value[0])
                    answer_all([message])

    def flush() -> None:
        while not over.is_set():
            hub.routes.flush(time.monotonic() + SOON)

    helpers = [in_background(serve), in_background(flush), in_background(flush)]
    for number in range(count):
        body = number, bytes(size if number % 2 else 10)
        if route.ask(Payload(body), SOON) is None:
            answer, message = future(body)
            assert route.send(message)
            answer.get(SOON)
    over.set()
    for helper in helpers:
        helper.result(SOON)
    assert got == list(range(count))


def test_messages_that_wait_when_the_receiver_ends_go_through_the_hub(hub: Hub) -> None:
    route = hub.route()
    for number in range(100):
        route.send(tell((number, bytes(50_000))))
    got = [message.body.value[0] for message in hub.incoming[0].cut()]
    hub.incoming[0].close()
    eventually(lambda: len(got) + len(hub.posted) == 100)
    assert got + [number for number, _ in hub.posted] == list(range(100))


# ------------------------------------------------------------ bursts
@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> None:
    """A burst goes on however slow this machine is, and the I/O thread sends nothing of what is held back."""
    monkeypatch.setattr(routing, "_SOON", SOON)
    monkeypatch.setattr(routing, "_MOMENT", SOON)


def burst(route: Route, held: int) -> list[int]:
    """Tell so many messages that so many of them are held back; return all bodies."""
    bodies = list(range(BURST + held))
    tell_all(route, bodies)
    return bodies


def tell_all(route: Route, bodies: Iterable[Any]) -> None:
    """Tell as a ref does."""
    for body in bodies:
        assert route.holds_back(body) or route.send(tell(body))


def arrived(incoming: Incoming) -> list[Any]:
    """Return the bodies of all messages that have arrived."""
    messages: list[Message] = []
    with contextlib.suppress(BlockingIOError):
        while True:
            messages += incoming.receive()
    return [message.body.value for message in messages]


def arrived_before_the_end(incoming: Incoming) -> list[Any]:
    return [message.body.value for message in incoming.cut()]


@pytest.mark.usefixtures("late")
def test_the_later_messages_of_a_burst_are_held_back_until_they_are_enough(hub: Hub) -> None:
    route = hub.route()
    bodies = burst(route, HELD - 1)
    assert arrived(hub.incoming[0]) == bodies[:BURST]
    hub.marks.bell[0] = 0
    tell_all(route, ["enough"])
    assert hub.marks.bell[0] == 1
    assert arrived(hub.incoming[0]) == [*bodies[BURST:], "enough"]


def test_what_is_held_back_is_sent_a_moment_later(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routing, "_SOON", SOON)
    route = hub.route()
    for _ in range(3):
        bodies = burst(route, 5)
        assert [message.body.value for message in received(hub.incoming[0], len(bodies))] == bodies
        eventually(lambda: not holders)


@pytest.mark.usefixtures("late")
def test_messages_that_do_not_follow_each_other_at_once_are_not_held_back(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routing, "_SOON", 0.0)
    bodies = burst(hub.route(), 5)
    assert arrived(hub.incoming[0]) == bodies


def ask_it(hub: Hub, route: Route) -> None:
    assert route.send(future("last")[1])


@pytest.mark.usefixtures("late")
def test_messages_to_several_receivers_in_turn_are_not_held_back_but_for_a_few(hub: Hub) -> None:
    """Each of them would be sent by itself, by the message to the next receiver, and cost more than without that."""
    assert hub.routes.find("tree/first") is None
    first = hub.routes.find("tree/first")
    assert first is not None
    routes = [first, hub.route()]
    held = 0
    for number in range(10 * BURST):
        route = routes[number % 2]
        if route.holds_back(number):
            held += 1
        else:
            assert route.send(tell(number))
    assert held <= 10
    send_held()
    assert [arrived(incoming) for incoming in hub.incoming] == [[*range(0, 10 * BURST, 2)], [*range(1, 10 * BURST, 2)]]


OTHERS: dict[str, Any] = {
    "a question": ask_it,
    "a large message": lambda hub, route: route.send(tell(bytes(100_000))),
    "a publication": lambda hub, route: hub.routes.send_to("tree/to#7", signal_("last"), 100),
    "a traced message": lambda hub, route: route.send(Message("message", Payload("last"), carrier={"of": "a trace"})),
    "a call": lambda hub, route: route.send(Message("call", Payload("last"))),
}


@pytest.mark.usefixtures("late")
@pytest.mark.parametrize("body", [bytes(1000), ValueError("an error")])
def test_a_large_message_and_an_error_end_a_burst(body: Any, hub: Hub) -> None:
    route = hub.route()
    bodies = burst(route, 5)
    tell_all(route, [body, *bodies])
    assert len(arrived(hub.incoming[0])) == len(bodies) + BURST


@pytest.mark.usefixtures("late")
@pytest.mark.parametrize("other", OTHERS)
def test_everything_else_over_the_connection_goes_behind_what_is_held_back(other: str, hub: Hub) -> None:
    route = hub.route()
    bodies = burst(route, 5)
    OTHERS[other](hub, route)
    assert arrived(hub.incoming[0])[:-1] == bodies


@pytest.mark.usefixtures("late")
def test_an_asking_thread_sends_what_it_holds_back_first(hub: Hub) -> None:
    route = hub.route()
    bodies = burst(route, 5)
    asked: list[Any] = []

    def serve() -> None:
        messages = received(hub.incoming[0], len(bodies) + 1)
        asked.extend(message.body.value for message in messages)
        answer_all(messages)

    serving = in_background(serve)
    outcome = route.ask(Payload("last"), SOON)
    serving.result(SOON)
    assert outcome is not None
    assert outcome[1].value == ("answer", "last")
    assert asked == [*bodies, "last"]


@pytest.mark.usefixtures("late")
@pytest.mark.parametrize("act", ["tell another worker", "ask another worker", "flush", "finish", "confirm", "look"])
def test_a_thread_sends_what_it_holds_back_before_it_does_anything_else(act: str, hub: Hub) -> None:
    other = hub.route()
    assert hub.routes.find("tree/first") is None
    route = hub.routes.find("tree/first")
    assert route is not None
    bodies = burst(route, 5)
    match act:
        case "tell another worker":
            assert other.send(tell("other"))
        case "ask another worker":
            with pytest.raises(AskTimeout):
                other.ask(Payload("other"), 0.0)
        case "flush":
            assert hub.routes.flush(soon()) == 0
        case "finish":
            hub.routes.finish(SOON)
        case "confirm":
            assert hub.routes.confirm("tree/first", soon())
        case _:
            send_held()
    assert arrived(hub.incoming[1]) == bodies


@pytest.mark.usefixtures("late")
def test_another_thread_sends_only_what_it_holds_back_itself(hub: Hub) -> None:
    bodies = burst(hub.route(), 5)
    in_background(send_held).result(SOON)
    assert arrived(hub.incoming[0]) == bodies[:BURST]


@pytest.mark.usefixtures("late")
def test_what_a_thread_holds_back_is_sent_before_its_end_is_known(hub: Hub) -> None:
    bodies: list[int] = []
    for _ in range(3):  # also by a thread that has the number of an earlier one
        thread = threading.Thread(target=lambda: bodies.extend(burst(hub.route(), 5)))
        thread.start()
        thread.join(SOON)
        assert arrived(hub.incoming.pop()) == bodies
        bodies.clear()


@pytest.mark.usefixtures("late")
def test_a_connection_that_holds_messages_back_is_in_use(hub: Hub) -> None:
    route = hub.route()
    bodies = burst(route, 5)
    arrived(hub.incoming[0])
    route.close_if_idle()
    assert not route.broken
    assert hub.routes.in_use() == ["tree/to"]
    send_held()
    assert arrived(hub.incoming[0]) == bodies[BURST:]


@pytest.mark.usefixtures("late")
def test_what_is_held_back_from_a_receiver_that_has_ended_goes_through_the_hub(hub: Hub) -> None:
    route = hub.route()
    bodies = burst(route, 5)
    assert hub.marks.sent[0] // 2 == BURST
    got = [message.body.value for message in hub.incoming[0].cut()]
    hub.incoming[0].close()
    send_held()
    eventually(lambda: len(hub.posted) == 5)
    assert got + hub.posted == bodies
    assert hub.marks.sent[0] // 2 == BURST
    assert not route.send(tell("later"))


def test_the_end_of_a_receiver_is_noticed_where_all_is_held_back(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routing, "_SOON", SOON)
    route = hub.route()
    bodies = burst(route, 5)
    hub.incoming[0].cut()
    hub.incoming[0].close()
    hub.routes.close_ended("tree/to")
    eventually(lambda: route.closed)
    assert hub.posted in ([], bodies[BURST:])  # it was sent before the end, or not


@pytest.mark.usefixtures("late")
def test_what_is_held_back_is_dropped_and_counted_with_the_rest_at_the_end(hub: Hub) -> None:
    route = hub.route()
    burst(route, 5)
    assert route.drop() == 5
    send_held()
    assert len(arrived(hub.incoming[0])) == BURST


@pytest.mark.usefixtures("late")
def test_a_forked_child_sends_nothing_of_what_its_parent_holds_back(hub: Hub) -> None:
    route = hub.route()
    bodies = burst(route, 5)

    def fork() -> int:
        child = os.fork()
        if child == 0:
            try:
                assert not holders
                send_held()
                route.send_held()
            finally:
                os._exit(0)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    assert in_background(fork).result(SOON) == 0
    assert arrived(hub.incoming[0]) == bodies[:BURST]
    send_held()
    assert arrived(hub.incoming[0]) == bodies[BURST:]


@pytest.mark.usefixtures("late")
def test_a_forked_child_sends_nothing_where_another_thread_has_a_connection(hub: Hub) -> None:
    connected, over = threading.Event(), threading.Event()

    def other() -> None:
        hub.route()
        connected.set()
        over.wait(SOON)

    with ThreadPoolExecutor(1) as threads:
        threads.submit(other)
        assert connected.wait(SOON)
        bodies = burst(hub.route(), 5)
        child = os.fork()  # Python ends the other thread's data there
        if child == 0:
            os._exit(0)
        over.set()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert arrived(hub.incoming[1]) == bodies  # once: the parent has sent the last of them before


@pytest.mark.usefixtures("late")
def test_what_is_held_back_is_not_sent_over_a_connection_that_was_given_up(hub: Hub) -> None:
    route = hub.route()
    bodies = burst(route, 5)
    route.give_up()
    hub.routes.reactor.close()
    send_held()
    assert arrived_before_the_end(hub.incoming[0]) == bodies[:BURST]


@pytest.mark.usefixtures("late")
def test_a_signal_handler_may_tell_at_any_moment_of_a_burst(hub: Hub) -> None:
    route = hub.route()
    burst(route, 0)
    total = 0

    def prepare() -> Any:
        hub.routes.flush(soon())
        arrived(hub.incoming[0])
        tell_all(route, range(HELD - 2))
        return lambda: tell_all(route, ("first", "second", "third"))

    for _ in interrupted_at_each_line(prepare, lambda: tell_all(route, ["handler"])):
        hub.routes.flush(soon())
        got = arrived(hub.incoming[0])
        assert [body for body in got if body != "handler"] == [*range(HELD - 2), "first", "second", "third"]
        assert got.count("handler") == 1
        total += 1
    assert total > 50
    assert not route._outbox.waiting


@pytest.mark.usefixtures("late")
def test_a_signal_handler_may_ask_at_any_moment_of_a_burst(hub: Hub) -> None:
    route = hub.route()
    over = threading.Event()
    got: list[Any] = []

    def serve() -> None:
        while not over.is_set():
            with contextlib.suppress(BlockingIOError):
                for message in hub.incoming[0].receive():
                    got.append(message.body.value)
                    answer_all([message])

    def ask() -> None:
        if route.ask(Payload("question"), SOON) is None:
            answer, message = future("question")
            assert route.send(message) or hub.post_unawaited("tree/to", message) is None
            asked.append(answer)

    burst(route, 0)
    assert len(arrived(hub.incoming[0])) == BURST
    serving = in_background(serve)
    asked: list[Answer[Any]] = []
    number = 0

    def prepare() -> Any:
        tell_all(route, range(HELD - 2))
        return lambda: tell_all(route, ("first", "second", "third"))

    for _ in interrupted_at_each_line(prepare, ask):
        number += 1
        send_held()
        eventually(lambda: got[-1:] == ["third"] or "third" in got[-3:])
        for answer in asked:
            answer.get(SOON)
        told = [body for body in got if body != "question"]
        assert told == [*range(HELD - 2), "first", "second", "third"]
        assert got.count("question") + hub.posted.count("question") == 1
        got.clear()
        hub.posted.clear()
        asked.clear()
    over.set()
    serving.result(SOON)
    assert number > 50


@pytest.mark.usefixtures("late")
def test_a_signal_handler_may_raise_at_any_moment_of_a_burst(hub: Hub) -> None:
    route = hub.route()
    burst(route, 0)
    arrived(hub.incoming[0])
    returned: list[int] = []
    number = interruptions = 0

    def tell_more() -> None:
        nonlocal number
        for _ in range(HELD + 1):
            number += 1
            tell_all(route, [number])
            returned.append(number)

    for _ in interrupted_at_each_call(tell_more):
        hub.routes.flush(soon())
        assert arrived(hub.incoming[0]) in (returned, [*returned, number])
        interruptions += len(returned) < HELD + 1
        returned.clear()
    assert interruptions > 100


@pytest.mark.usefixtures("late")
def test_a_signal_handler_that_raises_leaves_no_message_of_a_burst_behind_what_the_thread_sends_next(hub: Hub) -> None:
    route = hub.route()
    others = []
    for path in ("tree/other", "tree/third"):
        assert hub.routes.find(path) is None
        others.append(hub.routes.find(path))
    other, third = others
    assert other is not None
    assert third is not None
    burst(route, 5)
    arrived(hub.incoming[0])
    number = 0
    for _ in interrupted_at_each_call(lambda: other.send(tell("interrupted"))):
        assert third.send(tell("next"))
        assert len(received(hub.incoming[0], 5)) == 5  # the I/O thread may have the last bytes to send
        number += 1
        burst(route, 5)
        arrived(hub.incoming[0])
    assert number > 10


def test_bytes_that_are_no_frames_end_the_connection() -> None:
    ours, theirs = socket.socketpair()
    with ours:
        incoming = Incoming(theirs.detach(), "", 0, uncounted())
        ours.sendall(b"\xff" * 64)
        with pytest.raises(wire.WireError):
            incoming.receive()
        incoming.close()


# ------------------------------------------------------------ the outbox
@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


HEADER = DirectMessage("message", None)


@pytest.mark.parametrize("size", [1000, 100_000])
def test_each_message_is_counted_once_it_was_sent_and_an_odd_number_tells_that_one_is_being_sent(
    ends: Any, size: int
) -> None:
    ours, theirs = ends
    marks, seen = SenderMarks.of_no_board(), []
    counted = marks.sent

    class Looks:
        def send(self, *arguments: Any) -> int:
            seen.append(counted[0])
            return ours.send(*arguments)  # type: ignore[no-any-return]

        def sendmsg(self, *arguments: Any) -> int:
            seen.append(counted[0])
            return ours.sendmsg(*arguments)  # type: ignore[no-any-return]

    outbox, number = Outbox(Looks(), "x", marks, 0), 0  # type: ignore[arg-type]
    while not outbox.waiting:
        assert outbox.put(HEADER, bytes(size))
        number += 1
    assert counted[0] == 2 * (number - 1)
    outbox.held += [b"one", b"two"]
    outbox.send_held()
    while outbox.waiting:
        theirs.recv(1 << 20)
        outbox.flush()
    assert counted[0] == 2 * (number + 2)
    assert all(word % 2 for word in seen)


@pytest.mark.parametrize("how", ["small", "large", "held back", "waiting"])
def test_once_the_board_is_that_of_another_receiver_nothing_is_sent_or_counted_although_the_socket_is_open(
    ends: Any, how: str
) -> None:
    ours, theirs = ends
    marks = SenderMarks.of_no_board()
    outbox, number = Outbox(ours, "x", marks, 0), 0
    while how == "waiting" and not outbox.waiting:
        assert outbox.put(HEADER, bytes(100_000))
        number += 1
    received = b""
    with contextlib.suppress(BlockingIOError):
        while True:
            received += theirs.recv(1 << 20, socket.MSG_DONTWAIT)
    marks.sent[0], marks.incarnation[0] = 2 * 1000, 1
    if how == "held back":
        outbox.held.append(b"held")
        outbox.send_held()
    elif how == "waiting":
        outbox.flush()
    else:
        assert not outbox.put(HEADER, bytes(100_000 if how == "large" else 1))
    assert outbox.ended
    assert marks.sent[0] == 2 * 1000
    assert len(outbox.take_back()) == (how in ("held back", "waiting"))
    with pytest.raises(BlockingIOError):
        theirs.recv(1, socket.MSG_DONTWAIT)


def test_a_forked_child_in_the_midst_of_a_message_leaves_the_counts_to_its_parent(hub: Hub) -> None:
    route = hub.route()
    send = route._outbox._send

    def fork(*arguments: Any) -> int:  # by a signal handler; this is the child
        hub.marks.sent[0] = 2 * 5  # the parent goes on
        route.close_after_fork()
        return send(*arguments)

    route._outbox._send = fork  # type: ignore[assignment]
    route.send(tell("x"))
    assert hub.marks.sent[0] == 2 * 5


def test_a_frame_that_was_sent_as_a_whole_is_the_peers_and_any_other_is_taken_back(ends: Any) -> None:
    ours, theirs = ends
    outbox = Outbox(ours, "x", SenderMarks.of_no_board(), 0)
    assert outbox.put(HEADER, b"first")
    for _ in range(20):
        assert outbox.put(HEADER, bytes(100_000))
    assert outbox.waiting
    theirs.shutdown(socket.SHUT_RD)
    parser, whole = wire.Parser(decode=decode_direct), 0
    with pytest.raises(wire.PeerClosed):
        while True:
            whole += len(parser.receive(theirs))
    assert outbox.put(HEADER, b"last")  # behind the others
    outbox.flush()
    assert outbox.ended
    assert whole + len(outbox.take_back()) == 22
    assert not outbox.put(HEADER, b"later")


def test_what_goes_behind_others_costs_no_look_at_them(ends: Any) -> None:
    ours, _ = ends
    calls: list[Any] = []

    class Counts:
        def send(self, *arguments: Any) -> int:
            calls.append(arguments)
            return ours.send(*arguments)  # type: ignore[no-any-return]

        def sendmsg(self, *arguments: Any) -> int:
            calls.append(arguments)
            return ours.sendmsg(*arguments)  # type: ignore[no-any-return]

    outbox = Outbox(Counts(), "x", SenderMarks.of_no_board(), 0)  # type: ignore[arg-type]
    while not outbox.waiting:
        assert outbox.put(HEADER, bytes(10_000))
    calls.clear()
    array = bytearray(1 << 20)
    for _ in range(10):
        assert outbox.put(HEADER, Pieces((array,)))
    array[:] = b"x" * len(array)
    assert calls == []
    assert not any(isinstance(payload, Pieces) for _, _, payload in outbox.waiting)
    assert outbox.take_back()[-1] == (HEADER, bytes(1 << 20))


def test_small_frames_that_wait_go_out_together_and_whole(ends: Any) -> None:
    ours, theirs = ends
    outbox = Outbox(ours, "x", SenderMarks.of_no_board(), 0)
    number = 0
    while len(outbox.waiting) < 2000:
        assert outbox.put(HEADER, b"%d " % number * 30)
        number += 1
    parser, numbers, flushes = wire.Parser(decode=decode_direct), list[int](), 0
    while len(numbers) < number:
        outbox.flush()
        flushes += 1
        with contextlib.suppress(BlockingIOError):
            while True:
                frames = parser.receive(theirs, socket.MSG_DONTWAIT)
                numbers += [int(payload.split()[0]) for _, payload in frames]
    assert numbers == list(range(number))
    assert not outbox.waiting
    assert outbox._bytes == 0
    assert flushes < 100


def test_messages_that_were_held_back_wait_where_the_socket_takes_no_more_of_them(ends: Any) -> None:
    ours, theirs = ends
    outbox = Outbox(ours, "x", SenderMarks.of_no_board(), 0)
    bodies = [b"%d " % number * 100 for number in range(5_000)]
    for number, body in enumerate(bodies):
        if number % 7:
            outbox.held.append(body)
        else:
            assert outbox.put(HEADER, body)  # behind those
    assert outbox.waiting
    outbox.send_held()
    assert not outbox.held
    parser, got = wire.Parser(decode=decode_direct), []
    while len(got) < len(bodies):
        outbox.flush()
        with contextlib.suppress(BlockingIOError):
            for header, payload in parser.receive(theirs, socket.MSG_DONTWAIT):
                got += decode_several(payload) if header.kind == "several" else [payload]
    assert got == bodies
    assert outbox._bytes == 0


def test_messages_that_were_held_back_are_taken_back_one_by_one(ends: Any) -> None:
    ours, theirs = ends
    outbox = Outbox(ours, "x", SenderMarks.of_no_board(), 0)
    theirs.shutdown(socket.SHUT_RD)
    outbox.held += [b"first", b"second"]
    outbox.send_held()
    assert outbox.ended
    outbox.held.append(b"third")
    assert outbox.unsent == 3
    assert outbox.take_back() == [(HEADER, b"first"), (HEADER, b"second"), (HEADER, b"third")]
    assert outbox.unsent == 0


def test_several_messages_that_are_none_end_the_connection() -> None:
    ours, theirs = socket.socketpair()
    with ours:
        incoming = Incoming(theirs.detach(), "", 0, uncounted())
        for wrong in (b"", b"\xff", encode_several([b"right"]) + b"wrong", encode_several(["text"])):  # type: ignore[list-item]
            ours.sendall(wire.encode(DirectMessage("several", None), wrong))
            with pytest.raises(wire.WireError, match="several messages in a frame are invalid"):
                incoming.receive()
        incoming.close()


class Alarmed:
    """A socket in whose first call an alarm raises, before a byte is sent."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.raises = True

    def send(self, *arguments: Any) -> int:
        return self._call(self.sock.send, *arguments)

    def sendmsg(self, *arguments: Any) -> int:
        return self._call(self.sock.sendmsg, *arguments)

    def _call(self, call: Any, *arguments: Any) -> int:
        if self.raises:
            self.raises = False
            raises_timeout()
        sent: int = call(*arguments)
        return sent


@pytest.mark.parametrize("size", [1, 100_000])
def test_a_timeout_of_an_alarm_is_no_end_of_the_peer(ends: Any, size: int) -> None:
    ours, theirs = ends
    outbox = Outbox(Alarmed(ours), "x", SenderMarks.of_no_board(), 0)  # type: ignore[arg-type]
    with pytest.raises(TimeoutError, match="of an alarm"):
        outbox.put(HEADER, bytes(size))
    assert not outbox.ended
    assert not outbox.waiting
    assert outbox.put(HEADER, b"next")
    assert wire.Parser(decode=decode_direct).receive(theirs) == [(HEADER, b"next")]


def test_a_timeout_of_an_alarm_loses_nothing_that_is_held_back(ends: Any) -> None:
    ours, theirs = ends
    outbox = Outbox(Alarmed(ours), "x", SenderMarks.of_no_board(), 0)  # type: ignore[arg-type]
    outbox.held += [b"first", b"second"]
    with pytest.raises(TimeoutError, match="of an alarm"):
        outbox.send_held()
    assert not outbox.ended
    assert outbox.unsent == 2
    outbox.flush()
    ((header, payload),) = wire.Parser(decode=decode_direct).receive(theirs)
    assert (header.kind, decode_several(payload)) == ("several", [b"first", b"second"])


@pytest.mark.parametrize("size", [1, 10_000])
def test_a_frame_of_a_signal_handler_goes_out_behind_the_one_that_it_has_interrupted(ends: Any, size: int) -> None:
    ours, theirs = ends

    class Interrupted:
        def send(self, *arguments: Any) -> int:
            signal.raise_signal(signal.SIGUSR1)
            return ours.send(*arguments)  # type: ignore[no-any-return]

        def sendmsg(self, *arguments: Any) -> int:
            signal.raise_signal(signal.SIGUSR1)
            return ours.sendmsg(*arguments)  # type: ignore[no-any-return]

    outbox = Outbox(Interrupted(), "x", SenderMarks.of_no_board(), 0)  # type: ignore[arg-type]
    put: list[bool] = []
    main = b"main" * size

    def handle(number: int, frame: Any) -> None:
        if len(put) < 3:
            put.append(outbox.put(HEADER, b"handler"))

    before = signal.signal(signal.SIGUSR1, handle)
    try:
        assert outbox.put(HEADER, main)
    finally:
        signal.signal(signal.SIGUSR1, before)
    parser, frames = wire.Parser(decode=decode_direct), []
    while len(frames) < 4:
        frames += parser.receive(theirs)
    assert [payload for _, payload in frames] == [main, b"handler", b"handler", b"handler"]
    assert put == [True] * 3


# ------------------------------------------------------------ frames and descriptors
@pytest.mark.parametrize("frame", [DirectAnswer(1, True), DirectReturn("call", 2), DirectReturn("message", None)])
def test_a_frame_of_the_receiver_is_decoded_as_it_was_encoded(frame: Any) -> None:
    parser = wire.Parser(decode=decode_direct_answer)
    assert parser.feed(wire.encode(frame, b"payload")) == [(frame, b"payload")]


def test_a_descriptor_comes_with_its_frame(ends: Any) -> None:
    ours, theirs = ends
    reader, writer = os.pipe()
    wire.send(ours, ("before",))
    socket.send_fds(ours, [wire.encode(("with",))], [writer])
    wire.send(ours, ("after",))
    os.close(writer)
    descriptors: list[int] = []
    frames: list[Any] = []
    parser = wire.Parser()
    while len(frames) < 3:
        frames += parser.receive(theirs, 0, descriptors)
    assert [header for header, _ in frames] == [("before",), ("with",), ("after",)]
    (descriptor,) = descriptors
    assert not os.get_inheritable(descriptor)
    os.write(descriptor, codec.dumps(1))
    os.close(descriptor)
    with os.fdopen(reader, "rb") as pipe:
        assert codec.loads(pipe.read()) == 1


@pytest.mark.parametrize("size, piece", [(10, 1000), (10, 30), (20_000, 50_000)])
def test_an_exception_of_a_signal_handler_cuts_no_frame_of_an_outbox(ends: Any, size: int, piece: int) -> None:
    ours, theirs = ends

    class Stop(Exception):
        pass

    class Interrupted:
        """Raises before, or after a part of, a frame was sent."""

        turn = 0

        def send(self, data: bytes, flags: int) -> int:
            return self.sendmsg((data,), (), flags)

        def sendmsg(self, parts: Any, ancillary: Any, flags: int) -> int:
            self.turn += 1
            if self.turn % 3 == 0:
                raise Stop
            return ours.send(b"".join(parts)[:piece], flags)

    def read() -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                frames = parser.receive(theirs, socket.MSG_DONTWAIT)
                numbers.extend(int(payload.split()[0]) for _, payload in frames)

    outbox = Outbox(Interrupted(), "x", SenderMarks.of_no_board(), 0)  # type: ignore[arg-type]
    parser, numbers = wire.Parser(decode=decode_direct), list[int]()
    for number in range(30):
        with contextlib.suppress(Stop):
            outbox.put(HEADER, b"%d " % number * size)
        read()
    while outbox.waiting:
        with contextlib.suppress(Stop):
            outbox.flush()
        read()
    assert numbers == sorted(set(numbers))
    assert len(numbers) >= 5
    assert parser.pending == 0
