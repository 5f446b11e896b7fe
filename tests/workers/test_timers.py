"""Timers of a worker: `send_after`, `every`, and `handle_timeout`, in plain and in async workers."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import Any

import pytest

from suitkaise import Child, Process, SpecError, Supervisor, Thread, WorkerDead
from suitkaise.exits import Crashed, Shutdown
from suitkaise.platform.board import MESSAGES, OWN, SLOT_BYTES, Slot
from suitkaise.platform.reactor import TimerHandle
from suitkaise.workers.timers import Timer, Timers

Harness = Any
LONG = 600.0


class Hand:
    """A clock that goes on by hand: it calls what is due when it is told to."""

    def __init__(self) -> None:
        self.set: list[tuple[float, TimerHandle]] = []

    def call_at(self, when: float, callback: Callable[[], None]) -> TimerHandle:
        self.set.append((when, handle := TimerHandle(callback)))
        return handle

    def fire(self) -> None:
        """Call all that is set, whenever it is due."""
        due, self.set = self.set, []
        for _, handle in due:
            handle.fire()


class Notes(Thread):
    """Notes its messages; `begin` is called in `on_start`, `then` with each message."""

    def __init__(self, begin: Callable[[Any], object], then: Callable[[Any, Any], object] = lambda worker, message: 0):
        self.begin = begin
        self.then = then

    def on_start(self) -> None:
        self.notes: list[Any] = []
        self.begin(self)

    def on_receive(self, message: Any) -> Any:
        self.notes.append(message)
        if message == "end":
            self.rejoin()
        self.then(self, message)
        return list(self.notes)

    def result(self) -> Any:
        return self.notes


def result(harness: Harness) -> Any:
    outcome = harness.run()
    assert outcome.result is not None, outcome.reason
    return outcome.result.value


# ---------------------------------------------------------------- send_after
def test_a_message_of_a_timer_comes_to_the_worker_itself_after_its_time(harness: Harness) -> None:
    def begin(worker: Any) -> None:
        worker.send_after(0.05, "end")
        worker.send_after(0.02, "second")
        worker.send_after(0, "first")

    assert result(harness(Notes(begin))) == ["first", "second", "end"]


def test_a_looping_worker_gets_the_message_of_a_timer_between_two_loops(harness: Harness) -> None:
    class Loops(Notes):
        def loop(self) -> None: ...

    assert result(harness(Loops(lambda worker: worker.send_after(0.02, "end")))) == ["end"]


def test_the_message_itself_is_delivered_and_not_a_copy(harness: Harness) -> None:
    thing = threading.Lock()

    def then(worker: Any, message: Any) -> None:
        assert message is thing
        worker.rejoin()

    assert len(result(harness(Notes(lambda worker: worker.send_after(0, thing), then)))) == 1


def test_a_timer_is_active_until_its_message_is_handled(harness: Harness) -> None:
    seen: list[bool] = []

    def begin(worker: Any) -> None:
        worker.timer = worker.send_after(0.01, "end")
        seen.append(worker.timer.active)

    result(harness(Notes(begin, lambda worker, message: seen.append(worker.timer.active))))
    assert seen == [True, False]


def test_a_cancelled_timer_delivers_nothing_also_if_its_message_waits_already(harness: Harness) -> None:
    hand = Hand()

    def begin(worker: Any) -> None:
        worker._worker_context.timers.call_at = hand.call_at
        waits, later = worker.send_after(0, "cancelled"), worker.send_after(LONG, "cancelled")
        worker.send_after(0, "end")
        hand.set[1:2], not_yet = [], hand.set[1:2]
        hand.fire()
        hand.set += not_yet
        assert waits.cancel()
        assert later.cancel()
        hand.fire()
        assert not waits.cancel()
        assert not waits.active

    assert result(harness(Notes(begin))) == ["end"]


@pytest.mark.parametrize("seconds", [-1, math.nan, math.inf, 10**309, "1", None, True])
def test_a_time_that_is_none_is_refused(harness: Harness, seconds: Any) -> None:
    def begin(worker: Any) -> None:
        with pytest.raises(ValueError, match=r"send_after: seconds must be a number >= 0, not"):
            worker.send_after(seconds, "never")
        with pytest.raises(ValueError, match=r"every: seconds must be a number > 0, not 0"):
            worker.every(0, "never")
        worker.send_after(0, "end")

    assert result(harness(Notes(begin))) == ["end"]


@pytest.mark.parametrize("to", ["app/other", 5, Notes])
def test_a_receiver_that_is_no_ref_is_refused(harness: Harness, to: Any) -> None:
    def begin(worker: Any) -> None:
        with pytest.raises(TypeError, match="send_after: to must be the ref of a worker, not"):
            worker.send_after(0.0, "tick", to=to)
        with pytest.raises(TypeError, match="every: to must be the ref of a worker, not"):
            worker.every(1.0, "tick", to=to)
        worker.send_after(0, "end")

    assert result(harness(Notes(begin))) == ["end"]


def test_a_worker_without_on_receive_has_no_timer_for_itself(harness: Harness) -> None:
    class Silent(Thread):
        def on_start(self) -> None:
            self.send_after(1, "nobody hears")

    reason = harness(Silent()).run().reason
    assert isinstance(reason, Crashed)
    assert "Silent.send_after() needs an on_receive" in str(reason)


def test_a_worker_that_is_not_running_has_no_timers() -> None:
    with pytest.raises(RuntimeError, match=r"Notes.send_after\(\) is for a running worker"):
        Notes(lambda worker: 0).send_after(1, "x")


# ---------------------------------------------------------------- every
def test_every_delivers_again_and_again_until_it_is_cancelled(harness: Harness) -> None:
    def then(worker: Any, message: Any) -> None:
        if worker.notes == ["tick"] * 3:
            assert worker.timer.cancel()
            worker.send_after(0.05, "end")

    def begin(worker: Any) -> None:
        worker.timer = worker.every(0.01, "tick")

    assert result(harness(Notes(begin, then))) == ["tick", "tick", "tick", "end"]


def test_only_one_message_of_a_timer_waits_at_a_time(harness: Harness) -> None:
    hand = Hand()

    def begin(worker: Any) -> None:
        worker._worker_context.timers.call_at = hand.call_at
        worker.every(1, "tick")
        for _ in range(5):
            hand.fire()
        worker._worker_context.timers.call_at = None
        worker.send_after(0.01, "end")

    assert result(harness(Notes(begin))) == ["tick", "end"]


def test_the_times_do_not_drift_and_missed_ones_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("suitkaise.workers.timers.time.monotonic", lambda: now)
    hand = Hand()
    mailbox: Any = type("Inbox", (), {"post": lambda self, message: message.body._timer.take()})()
    Timers("tree/worker", mailbox, Slot(memoryview(bytearray(SLOT_BYTES))), hand.call_at).start(
        2.0, "tick", None, repeats=True
    )
    due = []
    for now in (102.1, 104.5, 111.0, 112.0):  # noqa: B007  (read by the clock)
        due.append(hand.set[0][0])
        hand.fire()
    assert [*due, hand.set[0][0]] == [102.0, 104.0, 106.0, 112.0, 114.0]


# ---------------------------------------------------------------- the end of the incarnation
def test_the_timers_end_with_their_incarnation(harness: Harness) -> None:
    kept: list[Timer] = []

    def begin(worker: Any) -> None:
        kept.extend((worker.send_after(LONG, "never"), worker.every(0.001, "tick")))
        worker.send_after(0.02, "end")

    one = harness(Notes(begin))
    result(one)
    assert not any(timer.active for timer in kept)
    with pytest.raises(WorkerDead, match="'tree/worker' has just ended"):
        one.worker.send_after(1, "late")
    assert not [thread for thread in threading.enumerate() if thread.name == "suitkaise-io"]


def test_a_message_of_a_timer_is_not_for_the_next_incarnation(harness: Harness) -> None:
    hand = Hand()

    def begin(worker: Any) -> None:
        worker._worker_context.timers.call_at = hand.call_at
        worker.send_after(0, "of this incarnation")
        hand.fire()

    one = harness(Notes(begin))
    one.mailbox.order_stop(Shutdown())
    one.tell("for any")
    assert one.run().reason == Shutdown()
    assert [message.body.value for message in one.mailbox.take_unhandled()] == []


def test_messages_of_timers_are_counted_apart_from_those_that_were_delivered(harness: Harness) -> None:
    one = harness(Notes(lambda worker: worker.send_after(0.01, "end")))
    one.tell("counted")
    assert result(one) == ["counted", "end"]
    assert (one.slot.words[MESSAGES], one.slot.words[OWN]) == (2, 1)


def test_a_worker_without_timers_has_no_thread_for_them(harness: Harness) -> None:
    one = harness(Notes(lambda worker: worker.rejoin()))
    one.run()
    assert one.lifecycle.context.timers._own is None


# ---------------------------------------------------------------- handle_timeout
class Idle(Notes):
    def handle_timeout(self) -> None:
        self.notes.append("idle")
        self.then(self, "idle")


def test_handle_timeout_is_called_when_no_message_has_come_for_the_time_and_again(harness: Harness) -> None:
    def then(worker: Any, message: Any) -> None:
        if worker.notes[-2:] == ["idle", "idle"]:
            worker.rejoin()

    one = harness(Idle(lambda worker: 0, then), idle_timeout=0.02)
    one.tell("first")
    one.tell("second")
    assert result(one) == ["first", "second", "idle", "idle"]


def test_a_message_begins_the_idle_time_anew(harness: Harness) -> None:
    def then(worker: Any, message: Any) -> None:
        if worker.notes.count("tick") == 20 or message == "idle":
            worker.rejoin()

    notes = result(harness(Idle(lambda worker: worker.every(0.01, "tick"), then), idle_timeout=LONG))
    assert notes == ["tick"] * 20


def test_without_the_option_handle_timeout_is_never_called(harness: Harness) -> None:
    assert result(harness(Idle(lambda worker: worker.send_after(0.05, "end")))) == ["end"]


def test_an_error_in_handle_timeout_is_a_crash_of_that_hook(harness: Harness) -> None:
    def then(worker: Any, message: Any) -> None:
        raise LookupError("nothing to do")

    reason = harness(Idle(lambda worker: 0, then), idle_timeout=0.01).run().reason
    assert isinstance(reason, Crashed)
    assert (reason.phase, str(reason.error)) == ("handle_timeout", "nothing to do")


def test_a_stop_goes_before_handle_timeout(harness: Harness) -> None:
    one = harness(Idle(lambda worker: 0), idle_timeout=LONG)
    one.mailbox.order_stop(Shutdown())
    assert result(one) == []


class Loops(Process):
    def loop(self) -> None: ...

    def handle_timeout(self) -> None: ...


class Deaf(Process):
    def on_receive(self, message: Any) -> None: ...


@pytest.mark.parametrize(
    "what, because",
    [
        (Loops, "Loops has a loop"),
        (Deaf, "needs a handle_timeout, which Deaf does not have"),
        (print, "a function is a loop"),
        (Supervisor("below"), "supervisors take no messages"),
    ],
    ids=["loop", "no hook", "function", "supervisor"],
)
def test_an_idle_timeout_without_a_meaning_is_refused(what: Any, because: str) -> None:
    with pytest.raises(SpecError, match=because):
        Child(what, id="child", idle_timeout=1.0)


def test_a_class_can_set_its_idle_timeout() -> None:
    class Sleepy(Idle):
        idle_timeout = 2.5

    assert Child(Sleepy, args=(print,)).idle_timeout == 2.5
