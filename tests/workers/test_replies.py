"""Answers after the handler has returned: a returned future, and `reply_to`, in plain and in async workers."""

from __future__ import annotations

import asyncio
import concurrent.futures
import pickle
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from suitkaise import Process, Reject, Thread, WorkerDead, WorkerFailed
from suitkaise.errors import NotSerializable, SuitkaiseError
from suitkaise.exits import Crashed, Normal
from suitkaise.messaging.answer import Answer
from suitkaise.messaging.messages import Message, Payload
from suitkaise.workers.replies import Replies, ReplyTo
from tests.support import in_background

Harness = Any
Act = Callable[[Any], Any]


class Does(Thread):
    """Calls each message with itself, and gives the result as the answer; `None` ends it."""

    def on_receive(self, message: Act | None) -> Any:
        return self.rejoin() if message is None else message(self)

    def hands_out(self, future: Any) -> Any:
        return future


def answers(harness: Harness, *acts: Act, then: Callable[[], object] = lambda: None) -> list[Answer[Any]]:
    """Return the answers to the acts; `then` is called in a handler after them, and the worker ends after that."""
    one = harness(Does())
    asked = [one.ask(act) for act in acts]
    one.tell(lambda worker: then())
    one.tell(None)
    assert one.run().reason == Normal()
    return asked


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


def test_a_refusal_whose_text_cannot_be_made_is_an_error_of_the_ask_and_not_of_the_worker(harness: Harness) -> None:
    def refuse(worker: Any) -> None:
        raise Reject(Unspeakable())

    asked, after = answers(harness, refuse, lambda worker: 1)
    with pytest.raises(WorkerFailed, match="Unspeakable"):
        asked.get()
    assert after.get() == 1


# ---------------------------------------------------------------- futures
def test_the_asker_gets_what_a_returned_future_gets_while_the_worker_handles_other_messages(harness: Harness) -> None:
    future: concurrent.futures.Future[str] = concurrent.futures.Future()
    later, at_once = answers(
        harness, lambda worker: future, lambda worker: "at once", then=lambda: future.set_result("later")
    )
    assert (later.get(), at_once.get()) == ("later", "at once")


def test_a_future_that_is_done_already_is_answered_at_once(harness: Harness) -> None:
    done: concurrent.futures.Future[int] = concurrent.futures.Future()
    done.set_result(5)
    assert answers(harness, lambda worker: done)[0].get() == 5


def test_a_future_that_fails_is_an_error_of_the_ask_and_not_of_the_worker(harness: Harness) -> None:
    future: concurrent.futures.Future[None] = concurrent.futures.Future()
    asked, after = answers(
        harness, lambda worker: future, lambda worker: 1, then=lambda: future.set_exception(LookupError("not found"))
    )
    with pytest.raises(LookupError, match="not found"):
        asked.get()
    assert after.get() == 1


def test_a_future_that_is_cancelled_is_an_error_of_the_ask(harness: Harness) -> None:
    future: concurrent.futures.Future[None] = concurrent.futures.Future()
    (asked,) = answers(harness, lambda worker: future, then=future.cancel)
    with pytest.raises(WorkerFailed, match=r"^CancelledError: 'tree/worker' has cancelled the answer"):
        asked.get()


def test_an_answer_that_is_cancelled_does_not_cancel_the_task_that_awaits_it(harness: Harness) -> None:
    cancelled: concurrent.futures.Future[None] = concurrent.futures.Future()
    cancelled.cancel()

    def wait(worker: Any) -> None:
        raise Reject(concurrent.futures.CancelledError("a task of a pool"))

    async def text_of(answer: Any) -> str:
        with pytest.raises(WorkerFailed) as failed:
            await answer
        return str(failed.value)

    returned, raised = answers(harness, lambda worker: cancelled, wait)
    assert asyncio.run(text_of(returned)) == "CancelledError: 'tree/worker' has cancelled the answer"
    assert asyncio.run(text_of(raised)) == "CancelledError: a task of a pool"


def test_a_rejection_in_a_future_gives_the_asker_its_error(harness: Harness) -> None:
    future: concurrent.futures.Future[None] = concurrent.futures.Future()
    (asked,) = answers(harness, lambda worker: future, then=lambda: future.set_exception(Reject(KeyError("no"))))
    with pytest.raises(KeyError, match="no"):
        asked.get()


@pytest.mark.parametrize("end", [SystemExit(3), KeyboardInterrupt(3), asyncio.CancelledError(3)], ids=repr)
@pytest.mark.parametrize("how", ["raised", "in a future", "by reply_to"])
def test_the_end_of_a_program_in_a_rejection_does_not_end_the_asker(
    harness: Harness, how: str, end: BaseException
) -> None:
    def refuse(worker: Any) -> Any:
        if how == "raised":
            raise Reject(end)
        if how == "by reply_to":
            worker.reply_to().fail(Reject(end))
            return None
        future: concurrent.futures.Future[None] = concurrent.futures.Future()
        future.set_exception(Reject(end))
        return future

    asked, after = answers(harness, refuse, lambda worker: "goes on")
    with pytest.raises(WorkerFailed, match=f"{type(end).__name__}: 3"):
        asked.get()
    assert after.get() == "goes on"


def test_the_end_of_a_program_in_a_future_does_not_end_the_asker(harness: Harness) -> None:
    future: concurrent.futures.Future[None] = concurrent.futures.Future()
    (asked,) = answers(harness, lambda worker: future, then=lambda: future.set_exception(SystemExit(3)))
    with pytest.raises(WorkerFailed, match="SystemExit: 3"):
        asked.get()


def test_an_asker_that_awaits_is_not_cancelled_by_a_handler_that_has_found_a_future_cancelled(
    harness: Harness,
) -> None:
    cancelled: concurrent.futures.Future[None] = concurrent.futures.Future()
    cancelled.cancel()
    one = harness(Does())
    answer = one.ask(lambda worker: cancelled.result())
    reason = one.run().reason
    assert isinstance(reason, Crashed)
    assert isinstance(reason.error, concurrent.futures.CancelledError)

    async def asks() -> Any:
        return await answer

    with pytest.raises(WorkerFailed, match="CancelledError") as failed:
        asyncio.run(asks())
    assert "cancelled.result()" in failed.value.__notes__[0]


@pytest.mark.parametrize("failed", [False, True])
def test_the_answer_of_another_ask_is_passed_on_without_being_read(harness: Harness, failed: bool) -> None:
    answer: Answer[Any] = Answer()
    payload = Payload(data=b"not decodable")
    (asked,) = answers(harness, lambda worker: answer, then=lambda: answer.settle(not failed, payload))
    assert asked.outcome() == (not failed, payload)


def test_a_method_that_a_proxy_calls_may_return_a_future(harness: Harness) -> None:
    future: concurrent.futures.Future[str] = concurrent.futures.Future()
    one = harness(Does())
    asked = one.call("hands_out", future)
    one.tell(lambda worker: future.set_result("later"))
    one.tell(None)
    one.run()
    assert asked.get() == "later"


def test_a_future_that_was_returned_to_nobody_is_left_alone(harness: Harness) -> None:
    future: Any = concurrent.futures.Future()
    one = harness(Does())
    one.tell(lambda worker: future)
    one.tell(None)
    assert one.run().reason == Normal()
    assert not future._done_callbacks


# ---------------------------------------------------------------- reply_to
def test_a_kept_reply_to_answers_from_any_thread_and_the_returned_value_does_not_count(harness: Harness) -> None:
    kept: list[ReplyTo] = []

    def keep(worker: Any) -> str:
        kept.append(worker.reply_to())
        return "ignored"

    (asked,) = answers(harness, keep, then=lambda: in_background(lambda: kept[0].reply("from a thread")).result(10))
    assert asked.get() == "from a thread"
    assert not kept[0].wanted


def test_an_answer_within_the_handler_counts(harness: Harness) -> None:
    def answer_early(worker: Any) -> str:
        worker.reply_to().reply("early")
        return "late"

    assert answers(harness, answer_early)[0].get() == "early"


def test_only_the_first_answer_counts(harness: Harness) -> None:
    kept: list[ReplyTo] = []

    def then() -> None:
        assert kept[0].wanted
        kept[0].reply(1)
        kept[0].reply(2)
        kept[0].fail(ValueError("3"))

    assert answers(harness, lambda worker: kept.append(worker.reply_to()), then=then)[0].get() == 1


def test_a_second_reply_to_of_a_message_that_is_answered_already_is_not_wanted(harness: Harness) -> None:
    def answer_twice(worker: Any) -> None:
        first, second = worker.reply_to(), worker.reply_to()
        assert [one.wanted for one in (first, second)] == [True, True]
        first.reply(1)
        assert [one.wanted for one in (first, second, worker.reply_to())] == [False, False, False]
        assert worker._worker_context.replies.take_all() == []

    assert answers(harness, answer_twice)[0].get() == 1


def test_an_asker_can_be_told_an_error(harness: Harness) -> None:
    kept: list[ReplyTo] = []
    (asked,) = answers(
        harness, lambda worker: kept.append(worker.reply_to()), then=lambda: kept[0].fail(LookupError("none"))
    )
    with pytest.raises(LookupError, match="none"):
        asked.get()


@pytest.mark.parametrize("how", ["by reply_to", "in a future"])
@pytest.mark.parametrize("error, kind", [(LookupError, LookupError), ("no such book", SuitkaiseError)])
def test_a_class_or_a_text_in_place_of_an_error_is_what_a_rejection_makes_of_it(
    harness: Harness, how: str, error: Any, kind: type[Exception]
) -> None:
    future: concurrent.futures.Future[None] = concurrent.futures.Future()
    future.set_exception(error)
    fail = (lambda worker: worker.reply_to().fail(error)) if how == "by reply_to" else lambda worker: future
    (asked,) = answers(harness, fail)
    with pytest.raises(kind) as caught:
        asked.get()
    assert type(caught.value) is kind


def test_a_handler_that_is_left_by_a_rejection_has_answered_with_it(harness: Harness) -> None:
    kept: list[ReplyTo] = []

    def refuse(worker: Any) -> None:
        kept.append(worker.reply_to())
        raise Reject(ValueError("refused"))

    asked, after = answers(harness, refuse, lambda worker: "goes on", then=lambda: kept[0].reply("too late"))
    with pytest.raises(ValueError, match="refused"):
        asked.get()
    assert after.get() == "goes on"


def test_an_error_after_reply_to_is_a_crash_as_always(harness: Harness) -> None:
    def crash(worker: Any) -> None:
        worker.reply_to()
        raise LookupError("of the handler")

    one = harness(Does())
    asked = one.ask(crash)
    assert isinstance(one.run().reason, Crashed)
    with pytest.raises(LookupError, match="of the handler"):
        asked.get()


def test_no_answer_is_wanted_once_the_asker_waits_no_longer() -> None:
    replies = Replies("app/library")

    def wanted(deadline: float | None) -> bool:
        return replies.defer(Message("message", Payload("Emma"), lambda ok, answer: None, deadline=deadline)).wanted

    now = time.monotonic()
    assert [wanted(now - 1.0), wanted(now + 600.0), wanted(None)] == [False, True, True]


def test_a_told_message_has_no_asker(harness: Harness) -> None:
    def reply(worker: Any) -> None:
        reply_to = worker.reply_to()
        assert not reply_to.wanted
        reply_to.reply("to nobody")
        worker.rejoin()

    one = harness(Does())
    one.tell(reply)
    assert one.run().reason == Normal()


def test_reply_to_is_for_handlers_in_the_worker_itself(harness: Harness) -> None:
    def elsewhere(worker: Any) -> Any:
        with pytest.raises(RuntimeError, match="for the handler of a message, in the worker's own thread"):
            in_background(worker.reply_to).result(10)

    class Early(Does):
        def on_start(self) -> None:
            self.reply_to()

    assert answers(harness, elsewhere)[0].get() is None
    assert "for the handler of a message" in str(harness(Early()).run().reason)


def test_a_reply_to_cannot_be_sent() -> None:
    with pytest.raises(TypeError, match="send the other worker a ref"):
        pickle.dumps(ReplyTo(Replies("a"), Message("message", Payload())))


def test_a_value_that_cannot_be_sent_is_an_error_of_the_ask() -> None:
    replies, told = Replies("a"), []

    def reply(ok: bool, payload: Payload) -> None:
        told.append((ok, type(payload.value)))
        payload.data  # noqa: B018  (encode it, as for another process)

    message = Message("message", Payload(), reply)
    replies.defer(message).reply(threading.Lock())
    assert told == [(True, type(threading.Lock())), (False, NotSerializable)]


def test_the_answer_of_another_ask_that_cannot_be_sent_is_an_error_of_the_ask(harness: Harness) -> None:
    told: list[tuple[bool, Any]] = []

    def reply(ok: bool, payload: Payload) -> None:
        payload.data  # noqa: B018  (encode it, as for another process)
        told.append((ok, payload.value))

    answer: Answer[Any] = Answer()  # of a background thread, say, which gives the value itself
    replies, message = Replies("a"), Message("message", Payload(), reply)
    replies.settle(message, answer)
    answer.set_result(threading.Lock())
    ((ok, error),) = told
    assert (ok, type(error)) == (False, NotSerializable)


# ---------------------------------------------------------------- the end of the worker
def test_whoever_waits_for_an_answer_at_the_end_of_the_worker_is_told(harness: Harness) -> None:
    never: concurrent.futures.Future[None] = concurrent.futures.Future()
    kept: list[ReplyTo] = []
    for asked in answers(harness, lambda worker: never, lambda worker: kept.append(worker.reply_to())):
        with pytest.raises(WorkerDead, match="'tree/worker' died before it answered"):
            asked.get()
    never.set_result(None)  # no one listens
    kept[0].reply("too late")


# ---------------------------------------------------------------- futures of asyncio
class Async(Process):
    def on_start(self) -> None:
        self.tasks: list[Any] = []

    async def on_receive(self, message: Any) -> Any:
        if message == "end":
            return self.rejoin()
        self.tasks.append(asyncio.create_task(self.answer(message)))
        return self.tasks[-1]

    async def answer(self, message: Any) -> Any:
        if message == "never":
            await asyncio.sleep(600)
        if message == "cancelled":
            self.tasks[0].cancel()
        await asyncio.sleep(0)
        return message

    async def on_finish(self) -> None:
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("harness", ["plain"], indirect=True)
def test_an_async_worker_may_return_a_task(harness: Harness) -> None:
    one = harness(Async())
    never, other, late = one.ask("never"), one.ask("hello"), one.ask("never")
    one.tell("cancelled")
    one.tell("end")
    assert one.run().reason == Normal()
    assert other.get() == "hello"
    with pytest.raises(WorkerFailed, match="'tree/worker' has cancelled the answer"):
        never.get()
    with pytest.raises(WorkerDead, match="died before it answered"):  # and not that its task was cancelled
        late.get()
