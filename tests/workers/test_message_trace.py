"""What the trace of a worker's messages reports, and that nothing of it is left when it is off."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from suitkaise.exits import Killed
from suitkaise.messaging.messages import Message, Payload
from suitkaise.platform.board import SLOT_BYTES, Slot
from suitkaise.workers import message_trace
from suitkaise.workers.message_trace import MessageTrace, shown
from suitkaise.workers.timers import CANCELLED, Timers


class Mailbox:
    descriptor = None

    def __init__(self) -> None:
        self.waiting: list[Message] = []

    def put(self, message: Message) -> bool:
        self.waiting.append(message)
        return True


class Lifecycle:
    """Answers a question with itself; `raise` ends the worker, and `later` is answered by the test."""

    path = "app/traced"

    def __init__(self) -> None:
        self.outcome: Any = None
        self.handled: list[Message] = []

    def receive(self, message: Message) -> None:
        self.handled.append(message)
        if message.body.value == "raise":
            self.outcome = SimpleNamespace(reason=Killed("by the test"))
        elif message.body.value != "later" and message.reply is not None:
            message.reply(True, message.body)


class Traced:
    """A worker whose messages are traced."""

    def __init__(self) -> None:
        self.mailbox, self.lifecycle = Mailbox(), Lifecycle()
        self.reports: list[dict[str, Any]] = []
        self.answers: list[tuple[bool, Any]] = []
        self.trace = MessageTrace(self.lifecycle, self.mailbox, self.reports.append)  # type: ignore[arg-type]

    def send(self, body: Any, *, ask: bool = False, kind: Any = "message", asker: str = "") -> None:
        reply = (lambda ok, payload: self.answers.append((ok, payload.value))) if ask else None
        self.mailbox.put(Message(kind, Payload(body), reply, asker))
        self.lifecycle.receive(self.mailbox.waiting.pop())


@pytest.fixture
def traced() -> Traced:
    traced = Traced()
    traced.trace.on()
    return traced


def test_an_ask_is_reported_with_its_sender_its_answer_and_its_times(traced: Traced) -> None:
    traced.send([1, 2], ask=True, asker="app/client")
    (report,) = traced.reports
    assert (report["kind"], report["sender"], report["message"], report["answer"]) == (
        "ask", "app/client", "[1, 2]", "[1, 2]",
    )  # fmt: skip
    assert 0 <= report["waited"] <= 10
    assert 0 <= report["ran"] <= 10
    assert traced.answers == [(True, [1, 2])]


def test_a_tell_a_call_and_a_read_of_an_attribute_have_their_own_words(traced: Traced) -> None:
    traced.send("x")
    traced.send(("add", (1,), {"b": 2}), ask=True, kind="call")
    traced.send("total", ask=True, kind="get")
    assert [(report["kind"], report["message"]) for report in traced.reports] == [
        ("tell", "'x'"), ("call", "add(1, b=2)"), ("get", "'total'"),
    ]  # fmt: skip
    assert "answer" not in traced.reports[0]


def test_a_message_that_ends_the_worker_is_reported_with_the_reason(traced: Traced) -> None:
    traced.send("raise", ask=True)
    assert "by the test" in traced.reports[0]["error"]


def test_an_answer_that_comes_later_is_a_report_of_its_own(traced: Traced) -> None:
    traced.send("later", ask=True)
    assert (traced.reports[0]["later"], "answer" in traced.reports[0]) == (True, False)
    reply = traced.lifecycle.handled[0].reply
    assert reply is not None
    reply(False, Payload(ValueError("too late")))
    assert traced.reports[1]["number"] == traced.reports[0]["number"]
    assert traced.reports[1]["error"] == "ValueError: too late"
    assert traced.answers[0][0] is False


def test_many_messages_are_counted_and_not_reported(traced: Traced, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(message_trace, "MOST_A_SECOND", 3)
    monkeypatch.setattr(message_trace.time, "monotonic", lambda: 7.0)
    for _ in range(10):
        traced.send("x", ask=True)
    assert (len(traced.reports), len(traced.answers)) == (3, 10)
    monkeypatch.setattr(message_trace.time, "monotonic", lambda: 8.0)
    traced.send("x")
    assert traced.reports[-1]["skipped"] == 7


def test_a_trace_that_is_off_leaves_nothing_behind(traced: Traced) -> None:
    traced.trace.off()
    assert "receive" not in vars(traced.lifecycle)
    assert "put" not in vars(traced.mailbox)
    traced.send("x")
    assert traced.reports == []


def test_a_value_is_shown_whatever_its_repr_does() -> None:
    class Evil:
        def __repr__(self) -> str:
            raise RuntimeError

    assert "RuntimeError" in shown(Evil()) or "Evil" in shown(Evil())
    assert len(shown("x" * 10_000)) <= message_trace.LONGEST
    assert len(shown(dict.fromkeys(range(500), "y" * 500))) <= message_trace.LONGEST


class Once(Lifecycle):
    """Handles a message as a worker does: takes its value once."""

    def __init__(self) -> None:
        super().__init__()
        self.values: list[Any] = []

    def receive(self, message: Message) -> None:
        self.values.append(message.body.value)


def test_a_look_at_the_message_of_a_timer_does_not_take_it() -> None:
    lifecycle, mailbox = Once(), Mailbox()
    mailbox.post = mailbox.put  # type: ignore[attr-defined]
    reports: list[dict[str, Any]] = []
    MessageTrace(lifecycle, mailbox, reports.append).on()  # type: ignore[arg-type]
    due: list[Any] = []
    timers = Timers(
        "app/one",
        mailbox,
        Slot(memoryview(bytearray(SLOT_BYTES))),
        lambda when, call: due.append(call),  # type: ignore[arg-type, return-value, func-returns-value]
    )
    once = timers.start(1.0, "once", None, repeats=False)
    cancelled = timers.start(1.0, "cancelled", None, repeats=False)
    for call in due:
        call()
    cancelled.cancel()
    for message in mailbox.waiting:
        lifecycle.receive(message)
    assert lifecycle.values == ["once", CANCELLED]
    assert [report["message"] for report in reports] == ["'once'", "'cancelled'"]
    assert not once.active


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class Surrogate:
    def __repr__(self) -> str:
        return "file \udcff"


@pytest.mark.parametrize("answer", [ValueError("file \udcff"), Surrogate(), Unspeakable()])
def test_whatever_is_answered_can_be_sent_to_the_program_and_reaches_the_asker(traced: Traced, answer: Any) -> None:
    traced.send("later", ask=True)
    reply = traced.lifecycle.handled[0].reply
    assert reply is not None
    reply(not isinstance(answer, Exception), Payload(answer))
    assert traced.answers == [(not isinstance(answer, Exception), answer)]
    assert msgspec.msgpack.encode(traced.reports)


def test_a_report_that_cannot_be_sent_ends_the_trace_and_not_the_worker(
    traced: Traced, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(report: dict[str, Any]) -> None:
        raise OSError("no room")

    traced.trace._report = fail
    traced.send("x", ask=True)
    traced.send("y", ask=True)
    assert traced.answers == [(True, "x"), (True, "y")]
    assert caplog.messages == ["'app/traced': its trace ends: a report could not be sent"]
