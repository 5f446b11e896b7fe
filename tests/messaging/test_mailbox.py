"""The inbox: no message is lost, a stop goes first, and no wake-up is missed."""

from __future__ import annotations

import math
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from suitkaise.exits import Normal, Shutdown
from suitkaise.messaging import mailbox, wire
from suitkaise.messaging.mailbox import ITERATE, STOP, Mailbox, ThreadMailbox
from suitkaise.messaging.messages import Message, Payload
from suitkaise.messaging.protocol import DirectMessage
from suitkaise.messaging.socket_mailbox import SocketMailbox
from suitkaise.platform.board import BELL, LOOKED, Board, Slot
from tests.messaging.frames import counts_on_no_board
from tests.support import eventually, in_background

SOON = 10.0


class Inbox:
    """A mailbox and its senders: they reach it directly, or as the hub does through a socket and the bell."""

    def __init__(self, slot: Slot, through_socket: bool) -> None:
        self.slot = slot
        self.box: Mailbox
        self._bell = slot.bytes[BELL : BELL + 1]
        self._hub: socket.socket | None = None
        if through_socket:
            self._hub, self._theirs = socket.socketpair()
            self.box = SocketMailbox(slot, counts_on_no_board(), self._theirs, self._on_frame)
        else:
            self.box = ThreadMailbox(slot)
        self.box.owner = threading.get_ident()

    def _on_frame(self, frame: wire.Frame) -> None:
        match frame[0]:
            case ("stop",):
                self.box.order_stop(Shutdown())
            case ("put", body):
                self.box.put(Message("message", Payload(body)))

    def put(self, body: Any) -> None:
        if self._hub is None:
            self.box.put(Message("message", Payload(body)))
        else:
            wire.send(self._hub, ("put", body))
            self._bell[0] = 1

    def stop(self) -> None:
        if self._hub is None:
            self.box.order_stop(Shutdown())
        else:
            wire.send(self._hub, ("stop",))
            self._bell[0] = 1

    def hang_up(self) -> None:
        if self._hub is not None:
            self._hub.close()

    def get(self) -> Any:
        """The next thing to do: a body, or ITERATE, or STOP."""
        message = self.box.get().message
        return message.body.value if isinstance(message, Message) else message

    def close(self) -> None:
        self.box.close()
        self._bell.release()
        if self._hub is not None:
            self._hub.close()
            self._theirs.close()


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Board]:
    board = Board.create(str(tmp_path / "board"))
    yield board
    board.close()


@pytest.fixture(params=["thread", "socket"])
def inbox(request: pytest.FixtureRequest, board: Board) -> Iterator[Inbox]:
    slot = board.take("tree/worker")
    inbox = Inbox(slot, request.param == "socket")
    yield inbox
    inbox.close()
    slot.release()


def in_thread(target: Callable[[], Any]) -> threading.Thread:
    thread = threading.Thread(target=target, daemon=True)
    thread.start()
    return thread


def test_messages_come_in_order(inbox: Inbox) -> None:
    for number in range(100):
        inbox.put(number)
    assert [inbox.get() for _ in range(100)] == list(range(100))


def test_a_looping_worker_gets_iterate_when_no_message_waits(inbox: Inbox) -> None:
    inbox.box.looping = True
    assert [inbox.get() for _ in range(3)] == [ITERATE] * 3


def test_a_message_rings_the_bell_and_getting_it_silences_the_bell(inbox: Inbox) -> None:
    inbox.box.looping = True
    assert inbox.box.bell[0] == 0
    inbox.put("x")
    assert inbox.box.bell[0] == 1
    assert inbox.get() == "x"
    assert inbox.box.bell[0] == 0


def test_after_a_batch_of_messages_the_loop_has_its_turn(inbox: Inbox) -> None:
    inbox.box.looping = True
    inbox.put(1)
    inbox.put(2)
    assert inbox.get() == 1
    inbox.put(3)
    assert [inbox.get() for _ in range(4)] == [2, ITERATE, 3, ITERATE]


def test_a_resume_just_before_the_worker_falls_asleep_is_not_lost(inbox: Inbox) -> None:
    box = inbox.box
    box.looping = True
    box.suspend(True)
    collect = box._collect

    def resumed_meanwhile() -> None:
        box._collect = collect  # type: ignore[method-assign]
        box.suspend(False)
        collect()

    box._collect = resumed_meanwhile  # type: ignore[method-assign]
    found: list[Any] = []
    thread = in_thread(lambda: found.append(inbox.get()))
    thread.join(SOON)
    if thread.is_alive():  # wake it up, so that it does not stay behind
        inbox.stop()
        thread.join(SOON)
    assert found == [ITERATE]


def test_an_order_to_stop_goes_ahead_of_messages(inbox: Inbox) -> None:
    inbox.put(1)
    inbox.put(2)
    assert inbox.get() == 1
    inbox.box.order_stop(Normal())
    assert inbox.get() is STOP


def test_a_stop_that_was_sent_after_messages_goes_ahead_of_them(inbox: Inbox) -> None:
    for number in range(10):
        inbox.put(number)
    inbox.stop()
    assert inbox.get() in (0, STOP)  # through the socket they are all taken in at once
    assert inbox.get() is STOP


def test_a_worker_that_only_waits_is_woken_by_a_message(inbox: Inbox) -> None:
    timer = threading.Timer(0.02, inbox.put, ["x"])
    timer.start()
    assert inbox.get() == "x"
    timer.join()


def test_a_worker_that_only_waits_is_woken_by_an_order_from_its_own_process(inbox: Inbox) -> None:
    timer = threading.Timer(0.02, inbox.box.order_stop, [Normal()])
    timer.start()
    assert inbox.get() is STOP
    timer.join()


def test_a_worker_that_only_waits_gets_its_turn_at_the_deadline(inbox: Inbox) -> None:
    inbox.box.deadline = time.monotonic() + 0.02
    assert inbox.get() is ITERATE
    assert time.monotonic() >= inbox.box.deadline


def test_wait_lasts_as_long_as_it_should(inbox: Inbox) -> None:
    began = time.monotonic()
    assert inbox.box.wait(0.03) is False
    assert time.monotonic() - began >= 0.03


def test_wait_ends_at_once_when_a_stop_comes(inbox: Inbox) -> None:
    timer = threading.Timer(0.02, inbox.stop)
    timer.start()
    assert inbox.box.wait(60) is True
    timer.join()


def test_wait_ends_at_once_after_a_stop(inbox: Inbox) -> None:
    inbox.stop()
    assert inbox.box.wait(60) is True


def test_a_wait_of_zero_seconds_notices_a_stop_too(inbox: Inbox) -> None:
    assert inbox.box.wait(0) is False
    inbox.stop()
    assert inbox.box.wait(0) is True


@pytest.mark.parametrize("seconds", [math.inf, 1e12, 40 * 86400.0])
def test_wait_takes_any_number_of_seconds(inbox: Inbox, seconds: float) -> None:
    timer = threading.Timer(0.02, inbox.stop)
    timer.start()
    assert inbox.box.wait(seconds) is True
    timer.join()


def test_wait_does_not_end_for_a_message_and_does_not_forget_it(inbox: Inbox) -> None:
    inbox.box.looping = True
    timer = threading.Timer(0.01, inbox.put, ["x"])
    timer.start()
    assert inbox.box.wait(0.05) is False
    timer.join()
    assert inbox.get() == "x"


def test_a_wait_in_another_thread_does_not_touch_the_inbox(inbox: Inbox) -> None:
    seen: list[bool] = []
    helper = in_thread(lambda: seen.append(inbox.box.wait(60)))
    inbox.put("x")
    assert inbox.get() == "x"
    inbox.box.order_stop(Normal())
    helper.join(SOON)
    assert seen == [True]


def test_a_stop_ends_the_waits_of_all_threads(inbox: Inbox) -> None:
    seen: list[bool] = []
    helpers = [in_thread(lambda: seen.append(inbox.box.wait(60))) for _ in range(10)]
    inbox.box.order_stop(Normal())
    inbox.box.order_stop(Normal())
    for helper in helpers:
        helper.join(SOON)
    assert seen == [True] * 10


def test_drain_returns_all_messages_that_were_not_handled(inbox: Inbox) -> None:
    for number in range(3):
        inbox.put(number)
    assert inbox.get() == 0
    inbox.put(3)
    assert [message.body.value for message in inbox.box.take_unhandled()] == [1, 2, 3]
    assert inbox.box.take_unhandled() == []


def test_a_worker_whose_inbox_is_drained_from_outside_goes_on(inbox: Inbox) -> None:
    inbox.put(1)
    inbox.put(2)
    assert inbox.get() == 1
    inbox.box._waiting.clear()  # as `drain` in another thread does, just before it resets the batch
    inbox.box.order_stop(Normal())
    inbox.box.stop_reason = None
    timer = threading.Timer(0.02, inbox.put, ["next"])
    timer.start()
    assert inbox.get() == "next"
    timer.join()


def test_an_inbox_that_is_shut_takes_no_message(board: Board) -> None:
    slot = board.take("tree/worker")
    box = ThreadMailbox(slot)
    assert box.put(Message("message", Payload(1)))
    assert [message.body.value for message in box.shut()] == [1]
    assert not box.put(Message("message", Payload(2)))
    assert box.shut() == []
    box.close()
    assert not box.put(Message("message", Payload(3)))
    slot.release()


def test_each_message_has_one_taker_although_the_inbox_is_shut_meanwhile(board: Board) -> None:
    for _ in range(50):
        slot = board.take("tree/worker")
        box = ThreadMailbox(slot)
        ready = threading.Barrier(4)

        def send(box: ThreadMailbox = box, ready: threading.Barrier = ready) -> tuple[int, int]:
            ready.wait(SOON)
            taken = 0
            while box.put(Message("message", Payload(taken))):
                taken += 1
            return taken, sum(box.put(Message("message", Payload(None))) for _ in range(100))

        senders = [in_background(send) for _ in range(3)]
        ready.wait(SOON)
        got = [box.get() for _ in range(20)]
        left = box.shut()
        sent = [sender.result(SOON) for sender in senders]
        assert len(got) + len(left) == sum(taken for taken, _ in sent)
        assert [late for _, late in sent] == [0, 0, 0]
        assert box.queued == 0
        box.close()
        slot.release()


def test_a_waiting_worker_stops_although_its_inbox_is_drained_at_once(board: Board) -> None:
    for _ in range(50):
        slot = board.take("tree/worker")
        box = ThreadMailbox(slot)
        got = in_background(box.get)
        eventually(lambda box=box: box._asleep)  # type: ignore[misc]
        box.order_stop(Normal())
        box.take_unhandled()
        assert got.result(5).message is STOP
        box.close()
        slot.release()


def test_the_end_of_the_hub_does_not_make_the_worker_spin(board: Board) -> None:
    slot = board.take("tree/worker")
    inbox = Inbox(slot, through_socket=True)
    inbox.put("last message")
    inbox.hang_up()
    assert inbox.get() == "last message"
    before = time.thread_time()
    assert inbox.box.wait(0.2) is False
    assert time.thread_time() - before < 0.1
    timer = threading.Timer(0.02, inbox.box.order_stop, [Normal()])
    timer.start()
    assert inbox.get() is STOP
    timer.join()
    inbox.close()
    slot.release()


class Endless:
    """A connection on which every read finds another frame."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._frame = wire.encode(("put", "more"))
        self.reads = 0

    def fileno(self) -> int:
        return self._sock.fileno()

    def recv_into(self, buffer: memoryview, size: int = 0, flags: int = 0) -> int:
        self.reads += 1
        assert self.reads < 10_000, "it reads for ever"
        buffer[: len(self._frame)] = self._frame
        return len(self._frame)

    def recvmsg_into(
        self, buffers: list[memoryview], size: int = 0, flags: int = 0
    ) -> tuple[int, list[Any], int, None]:
        return self.recv_into(buffers[0]), [], 0, None


@pytest.mark.parametrize("looping", [False, True])
def test_a_sender_that_is_as_quick_as_the_worker_does_not_starve_its_loops(board: Board, looping: bool) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(b"!")  # so that `poll`, too, sees something
        slot = board.take("tree/worker")
        box = SocketMailbox(
            slot,
            board.new_counts(slot.index),
            Endless(theirs),  # type: ignore[arg-type]
            lambda frame: box.put(Message("message", Payload(frame[0][1]))),
        )
        box.owner, box.looping = threading.get_ident(), looping
        box.bell[0] = 1
        got = [box.get().message for _ in range(500)]
        assert sum(message is ITERATE for message in got) == (len(got) - sum(map(_is_more, got)))
        assert sum(map(_is_more, got)) > 100
        assert (ITERATE in got) is looping
        assert box.wait(0.001) is False
        box.close()
        slot.release()


def _is_more(message: Any) -> bool:
    return isinstance(message, Message) and message.body.value == "more"


def test_invalid_data_from_the_hub_counts_as_its_end(board: Board, caplog: pytest.LogCaptureFixture) -> None:
    slot = board.take("tree/worker")
    inbox = Inbox(slot, through_socket=True)
    assert inbox._hub is not None
    inbox._hub.sendall(b"\xff" * 64)
    assert inbox.box.wait(0.0) is False
    assert inbox.box.descriptor is None
    lifeline = select.poll()
    lifeline.register(inbox._theirs, select.POLLRDHUP)
    assert lifeline.poll(0)
    assert "invalid data from the hub" in caplog.text
    inbox.close()
    slot.release()


@pytest.mark.parametrize("how", ["the_sender_closes_it", "it_has_invalid_data", "no_descriptor_is_left"])
def test_of_a_direct_connection_that_is_over_only_what_was_taken_counts_and_its_number_is_free(
    board: Board, how: str
) -> None:
    slot, (ours, theirs) = board.take("tree/worker"), socket.socketpair()
    counts = board.new_counts(slot.index)
    number = counts.add()
    assert number == 0
    with ours, theirs:
        box = SocketMailbox(slot, counts, theirs, lambda frame: None)
        box.owner = threading.get_ident()
        sends, receives = socket.socketpair()
        with sends, receives:
            box._descriptors.append(-1 if how == "no_descriptor_is_left" else receives.detach())
            box.accept("tree/from", number)
            counts.sent(number)[0] = 2 * 2  # another one is on its way
            sends.sendall(wire.encode(DirectMessage("message", None), Payload("one").data))
            if how != "no_descriptor_is_left":
                assert (box.take_in(), counts.messages) == (1, 2)
            if how == "it_has_invalid_data":
                sends.sendall(b"\xff" * 64)
            else:
                sends.close()
            box.take_in()
        assert counts.messages == int(how != "no_descriptor_is_left")
        assert counts.add() == number
        box.close()
    slot.release()


def test_frames_that_came_with_the_recipe_are_not_lost(board: Board) -> None:
    slot = board.take("tree/worker")
    inbox = Inbox(slot, through_socket=True)
    assert isinstance(inbox.box, SocketMailbox)
    inbox.box.adopt(wire.Parser(), [(("put", "early"), b"")])
    inbox.put("late")
    assert [inbox.get(), inbox.get()] == ["early", "late"]
    inbox.close()
    slot.release()


@pytest.mark.parametrize("looping", [False, True])
def test_no_wake_up_is_lost_when_many_threads_put(inbox: Inbox, looping: bool) -> None:
    """Bursts with pauses between, so that the worker falls asleep and is woken again and again."""
    inbox.box.looping = looping
    senders, each = 4, 250
    lock = threading.Lock()
    handled = threading.Semaphore(0)

    def send(sender: int) -> None:
        for number in range(each):
            with lock:
                inbox.put([sender, number])
            if number % 5 == 4:
                assert handled.acquire(timeout=SOON)

    threads = [in_thread(lambda sender=sender: send(sender)) for sender in range(senders)]
    got: list[list[int]] = [[] for _ in range(senders)]
    count = 0
    while count < senders * each:
        thing = inbox.get()
        if thing is ITERATE:
            continue
        sender, number = thing
        got[sender].append(number)
        count += 1
        if count % 5 == 0:
            handled.release()
    for _ in range(senders):
        handled.release()
    for thread in threads:
        thread.join(SOON)
    assert got == [list(range(each))] * senders


def test_no_stop_is_lost_whenever_it_comes(board: Board) -> None:
    """The order comes at every possible moment of falling asleep."""
    for kind in (False, True):
        for _ in range(150):
            slot = board.take("tree/worker")
            inbox = Inbox(slot, kind)
            go = threading.Barrier(2)

            def stop(inbox: Inbox = inbox, go: threading.Barrier = go) -> None:
                go.wait(SOON)
                inbox.box.order_stop(Normal())

            thread = in_thread(stop)
            go.wait(SOON)
            assert inbox.get() is STOP
            thread.join(SOON)
            inbox.close()
            slot.release()
            board.give_back(slot)


def test_no_message_that_waits_has_come_before_the_time_on_the_board(
    inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 5.0
    monkeypatch.setattr(mailbox, "time", SimpleNamespace(monotonic=lambda: now))
    inbox.put("first")
    assert inbox.get() == "first"
    now = 6.0
    inbox.put("second")
    inbox.put("third")
    now = 9.0
    assert inbox.get() == "second"
    assert inbox.slot.seconds[LOOKED] <= 6.0  # the third waits since then
    assert inbox.get() == "third"
    now = 70.0

    def wake() -> None:
        nonlocal now
        eventually(lambda: inbox.box._asleep)
        now = 90_000.0
        inbox.put("fourth")

    in_background(wake)
    assert inbox.get() == "fourth"
    assert inbox.slot.seconds[LOOKED] == 90_000.0  # the worker slept, so nothing has waited
