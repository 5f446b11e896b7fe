"""Several messages handled at once in an async worker: order, limit, stops, failures, the board."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from suitkaise import Child, Process, Reject, SpecError, Supervisor, Thread, WorkerDead, WorkerFailed
from suitkaise.errors import SuitkaiseError
from suitkaise.exits import Crashed, Normal, Shutdown
from suitkaise.messaging.identity import deadline_of_ask
from suitkaise.platform.board import Phase
from tests.support import eventually, in_background
from tests.workers.harness import harnesses

Harness = Any


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[Any]:
    with harnesses(tmp_path) as make:
        yield make


class Gates(Thread):
    """Each message waits for the gate of its name; `open` opens gates, other words have a meaning of their own."""

    def __init__(self, **gates: threading.Event) -> None:
        self.outside = gates

    def on_start(self) -> None:
        self.gates: dict[str, asyncio.Event] = {}
        self.notes: list[Any] = []
        self.most = self.now = 0

    def gate(self, name: str) -> asyncio.Event:
        return self.gates.setdefault(name, asyncio.Event())

    async def on_receive(self, message: Any) -> Any:
        match message:
            case ("open", *names):
                for name in names:
                    self.gate(name).set()
                return None
            case ("crash", str() as name):
                await self.gate(name).wait()
                raise LookupError(name)
            case ("refuse", str() as name):
                await self.gate(name).wait()
                raise Reject(ValueError(name))
            case ("keep", str() as name):
                await self.gate(name).wait()
                reply = self.reply_to()
                asyncio.get_running_loop().call_soon(reply.reply, f"kept {name}")
                return "ignored"
            case "end":
                return self.rejoin()
            case "force":
                self.force_finish()
        self.now += 1
        self.most = max(self.most, self.now)
        self.notes.append(message)
        await self.gate(message).wait()
        self.now -= 1
        return f"through {message}"

    async def fetch(self, name: str) -> str:
        await self.gate(name).wait()
        return f"fetched {name}"

    def plain(self, value: int) -> int:
        return value + 1

    async def on_finish(self) -> None:
        self.notes.append("on_finish")

    def result(self) -> Any:
        return self.notes


def value(outcome: Any) -> Any:
    assert outcome.result is not None, outcome.reason
    return outcome.result.value


def phase(one: Harness) -> tuple[Phase, float]:
    view = one.slot.read()
    return view.phase, view.since


# ---------------------------------------------------------------- order and limit
def test_handlers_start_in_the_order_of_their_messages_and_end_in_any_order(harness: Harness) -> None:
    one = harness(Gates(), concurrency=4)
    first, second, third = (one.ask(name) for name in "abc")
    one.tell(("open", "c"))
    one.tell(("open", "a", "b"))
    one.tell("end")
    assert value(one.run()) == ["a", "b", "c", "on_finish"]
    assert [answer.get() for answer in (first, second, third)] == ["through a", "through b", "through c"]


def test_no_more_handlers_run_at_once_than_the_limit(harness: Harness) -> None:
    one = harness(Gates(), concurrency=2)
    asked = [one.ask(name) for name in "abcd"]
    thread = in_background(one.run)
    eventually(lambda: one.was_ready and one.worker.now == 2)
    one.worker.gate("a")  # nothing else has begun: the rest waits in the inbox
    assert one.worker.notes == ["a", "b"]
    loop = one.lifecycle.context.event_loop._loop
    for name, answer in zip("bacd", [asked[1], asked[0], asked[2], asked[3]], strict=True):
        loop.call_soon_threadsafe(one.worker.gate(name).set)
        assert answer.get(10) == f"through {name}"
    one.tell("end")
    thread.result(10)
    assert one.worker.most == 2
    assert one.worker.notes == ["a", "b", "c", "d", "on_finish"]


def test_with_a_concurrency_of_one_nothing_overlaps(harness: Harness) -> None:
    one = harness(Gates())
    asked = one.ask("a")
    one.tell(("open", "a"))
    one.mailbox.order_stop(Shutdown())
    in_background(one.run).result(10)
    with pytest.raises(WorkerDead):
        asked.get()


def test_methods_of_proxies_are_handled_side_by_side_too(harness: Harness) -> None:
    one = harness(Gates(), concurrency=3)
    fetched, plain = one.call("fetch", "a"), one.call("plain", 1)
    wrong, missing = one.call("plain"), one.call("nothing")
    one.tell(("open", "a"))
    one.tell("end")
    one.run()
    assert (fetched.get(), plain.get()) == ("fetched a", 2)
    with pytest.raises(TypeError, match="plain"):
        wrong.get()
    with pytest.raises(AttributeError, match="nothing"):
        missing.get()


def test_reply_to_is_that_of_the_message_of_the_task(harness: Harness) -> None:
    one = harness(Gates(), concurrency=4)
    asked = [one.ask(("keep", name)) for name in "ab"]
    one.tell(("open", "b"))
    one.tell(("open", "a"))
    one.tell("end")
    one.run()
    assert [answer.get() for answer in asked] == ["kept a", "kept b"]


@pytest.mark.parametrize("concurrency", [1, 4])
def test_a_task_handles_the_message_of_the_handler_that_has_started_it_until_that_returns_and_no_other_one(
    harness: Harness, concurrency: int
) -> None:
    class Leaves(Thread):
        async def on_receive(self, message: str) -> Any:
            if message == "begin":
                self.look_again, self.first = asyncio.Event(), asyncio.current_task()
                self.task = asyncio.create_task(self.look())
                await asyncio.create_task(self.look_within())
                return "begun"
            assert self.first is not None
            if self.first is not asyncio.current_task():
                await asyncio.wait([self.first])
            self.look_again.set()
            found = await self.task
            self.rejoin()
            return found

        async def look_within(self) -> None:
            assert deadline_of_ask() == until
            self.reply_to().reply("by a task of it")

        async def look(self) -> Any:
            await self.look_again.wait()
            with pytest.raises(RuntimeError, match="for the handler of a message"):
                self.reply_to()
            return deadline_of_ask()

    until = time.monotonic() + 1000
    one = harness(Leaves(), concurrency=concurrency)
    begun, found = one.ask("begin", deadline=until), one.ask("wait", deadline=until + 1)
    assert one.run().reason == Normal()
    assert (begun.get(), found.get()) == ("by a task of it", None)


def test_timers_and_a_time_without_messages_work_beside_handlers(harness: Harness) -> None:
    class Idle(Gates):
        def on_start(self) -> None:
            super().on_start()
            self.send_after(0.02, ("open", "a"))

        def handle_timeout(self) -> None:
            assert self.now == 0
            self.rejoin("idle")

    one = harness(Idle(), concurrency=2, idle_timeout=0.1)
    asked = one.ask("a")
    assert one.run().reason == Shutdown("idle")
    assert asked.get() == "through a"


@pytest.mark.parametrize("concurrency", [1, 2])
def test_the_time_without_messages_begins_when_the_last_handler_has_returned(
    harness: Harness, concurrency: int
) -> None:
    class Idle(Gates):
        def on_start(self) -> None:
            super().on_start()
            self.returned = 0.0

        async def on_receive(self, seconds: float) -> None:
            await asyncio.sleep(seconds)
            self.returned = time.monotonic()

        def handle_timeout(self) -> None:
            self.notes.append(time.monotonic() - self.returned)
            self.rejoin()

    one = harness(Idle(), concurrency=concurrency, idle_timeout=0.2)
    one.tell(0.15)
    (seconds, _) = value(one.run())
    assert seconds >= 0.2


# ---------------------------------------------------------------- ends
def test_a_stop_waits_for_the_handlers_that_run(harness: Harness) -> None:
    one = harness(Gates(), concurrency=2)
    asked = one.ask("a")
    thread = in_background(one.run)
    eventually(lambda: one.was_ready and one.worker.now == 1)
    one.mailbox.order_stop(Shutdown("stop"))
    eventually(lambda: one.lifecycle.context.event_loop.stopping.done())
    assert phase(one)[0] is Phase.ON_RECEIVE
    one.lifecycle.context.event_loop._loop.call_soon_threadsafe(one.worker.gate("a").set)
    assert thread.result(10).reason == Shutdown("stop")
    assert asked.get() == "through a"
    assert one.worker.notes == ["a", "on_finish"]


def test_a_stop_is_noticed_while_as_many_handlers_run_as_may(harness: Harness) -> None:
    one = harness(Gates(), concurrency=2)
    running, waiting = [one.ask("a"), one.ask("b")], one.ask("c")
    thread = in_background(one.run)
    eventually(lambda: one.was_ready and one.worker.now == 2)
    one.mailbox.order_stop(Shutdown("stop"))
    loop = one.lifecycle.context.event_loop._loop
    loop.call_soon_threadsafe(one.worker.gate("a").set)
    loop.call_soon_threadsafe(one.worker.gate("b").set)
    assert thread.result(10).reason == Shutdown("stop")
    assert [answer.get() for answer in running] == ["through a", "through b"]
    with pytest.raises(WorkerDead, match="ended before it handled the message"):
        waiting.get()


def test_messages_are_drained_side_by_side_before_a_stop(harness: Harness) -> None:
    one = harness(Gates(), concurrency=2, drain=5.0)
    asked = [one.ask(name) for name in "ab"]
    for name in "ab":
        one.tell(("open", name))
    one.mailbox.order_stop(Shutdown("stop"))
    thread = in_background(one.run)
    eventually(lambda: one.was_ready and one.worker.now == 2)
    loop = one.lifecycle.context.event_loop._loop
    loop.call_soon_threadsafe(one.worker.gate("a").set)
    assert thread.result(10).reason == Shutdown("stop")
    assert [answer.get() for answer in asked] == ["through a", "through b"]


def test_an_error_in_one_handler_ends_the_worker_and_its_asker_gets_it(harness: Harness) -> None:
    one = harness(Gates(), concurrency=3)
    waits, crashes = one.ask("a"), one.ask(("crash", "b"))
    one.tell(("open", "b"))
    reason = one.run().reason
    assert isinstance(reason, Crashed)
    assert (reason.phase, str(reason.error)) == ("on_receive", "b")
    with pytest.raises(LookupError):
        crashes.get()
    with pytest.raises(WorkerDead, match="died before it answered"):
        waits.get()
    assert one.worker.notes == ["a"]  # neither `on_finish` nor the rest of the handler


def test_the_second_of_two_handlers_that_fail_is_told_that_the_worker_has_died(harness: Harness) -> None:
    one = harness(Gates(), concurrency=4)
    first, second = one.ask(("crash", "a")), one.ask(("crash", "b"))
    one.tell(("open", "a", "b"))
    assert isinstance(one.run().reason, Crashed)
    with pytest.raises(LookupError):
        first.get()
    with pytest.raises(WorkerDead):
        second.get()


def test_a_refusal_leaves_the_worker_and_the_other_handlers_alone(harness: Harness) -> None:
    one = harness(Gates(), concurrency=4)
    waits, refused = one.ask("a"), one.ask(("refuse", "b"))
    one.tell(("open", "b"))
    one.tell(("open", "a"))
    one.tell("end")
    assert one.run().reason == Normal()
    with pytest.raises(ValueError, match="b"):
        refused.get()
    assert waits.get() == "through a"


def test_force_finish_in_a_handler_waits_for_no_other_one(harness: Harness) -> None:
    one = harness(Gates(), concurrency=4)
    waits, forces = one.ask("a"), one.ask("force")
    assert one.run().reason == Shutdown("forced")
    for answer in (waits, forces):
        with pytest.raises(WorkerDead):
            answer.get()


def test_force_finish_from_another_thread_ends_the_wait_for_room_and_the_wait_for_all(harness: Harness) -> None:
    for then in ("room", "all"):
        one = harness(Gates(), concurrency=2)
        asked = [one.ask(name) for name in ("ab" if then == "room" else "a")]
        thread = in_background(one.run)
        eventually(lambda one=one, asked=asked: one.was_ready and one.worker.now == len(asked))  # type: ignore[misc]
        if then == "all":
            one.mailbox.order_stop(Shutdown())
            eventually(lambda one=one: one.lifecycle.context.event_loop.stopping.done())  # type: ignore[misc]
        one.lifecycle.context.force_finish()
        assert thread.result(10).reason == Shutdown("forced")


class Cancels(Thread):
    """Handlers that cancel their own task, or await what was cancelled."""

    async def on_receive(self, message: Any) -> Any:
        task = asyncio.current_task()
        assert task is not None
        match message:
            case "and awaits":
                task.cancel()
                await asyncio.sleep(60)
            case "and goes on":
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.sleep(60)
            case "from a task of its own":
                async with asyncio.TaskGroup() as group:
                    group.create_task(self.cancel(task))
                    await asyncio.sleep(60)
            case "another task":
                other = asyncio.create_task(asyncio.sleep(60))
                asyncio.get_running_loop().call_soon(other.cancel)
                await other
            case "and fails":
                task.cancel()
                raise LookupError("and fails")
            case "end":
                self.rejoin()
        await asyncio.sleep(0)  # the next handler finds no trace of it
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(0))
        return message

    async def cancel(self, task: asyncio.Task[Any]) -> None:
        task.cancel()


class Returns(Thread):
    """Handlers that cancel their own task and return."""

    async def on_receive(self, message: str) -> str:
        if message == "end":
            self.rejoin()
        return self.plainly() if message == "cancel" else message

    def plainly(self) -> str:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        return "not returned"


@pytest.mark.parametrize("concurrency", [1, 2])
@pytest.mark.parametrize("how", ["and awaits", "from a task of its own", "another task"])
def test_a_handler_that_is_cancelled_fails_alone(harness: Harness, how: str, concurrency: int) -> None:
    one = harness(Cancels(), concurrency=concurrency)
    before, cancelled, after, told = one.ask("before"), one.ask(how), one.ask("after"), one.tell(how)
    last = one.ask("last")
    one.tell("end")
    assert one.run().reason == Normal()
    with pytest.raises(WorkerFailed, match=r"^CancelledError: 'tree/worker' has cancelled the handler of the message$"):
        cancelled.get()
    assert (before.get(), after.get(), told, last.get()) == ("before", "after", None, "last")


@pytest.mark.parametrize("concurrency", [1, 2])
def test_a_handler_that_has_cancelled_itself_and_ends_before_it_is_cancelled_fails_alone(
    harness: Harness, concurrency: int
) -> None:
    one = harness(Returns(), concurrency=concurrency)
    cancelled, plainly, after = one.ask("cancel"), one.call("plainly"), one.ask("after")
    one.tell("end")
    assert one.run().reason == Normal()
    for answer in (cancelled, plainly):
        with pytest.raises(WorkerFailed, match="has cancelled the handler"):
            answer.get()
    assert after.get() == "after"


def test_a_handler_that_is_cancelled_before_it_begins_leaves_its_place_to_the_next(harness: Harness) -> None:
    class CancelsOthers(Thread):
        async def on_receive(self, message: str) -> str:
            if message == "first":
                for task in asyncio.all_tasks() - {asyncio.current_task()}:
                    if task.get_coro().__qualname__ == "Handlers._handle":  # type: ignore[union-attr]
                        task.cancel()
            elif message == "end":
                self.rejoin()
            return message

    one = harness(CancelsOthers(), concurrency=2)
    first, second, third = one.ask("first"), one.ask("second"), one.ask("third")
    one.tell("end")
    assert one.run().reason == Normal()
    with pytest.raises(WorkerFailed, match="has cancelled the handler"):
        second.get()
    assert (first.get(), third.get()) == ("first", "third")


@pytest.mark.parametrize("concurrency", [1, 2])
def test_a_handler_that_swallows_its_own_cancellation_answers(harness: Harness, concurrency: int) -> None:
    one = harness(Cancels(), concurrency=concurrency)
    swallows, after = one.ask("and goes on"), one.ask("after")
    one.tell("end")
    assert one.run().reason == Normal()
    assert (swallows.get(), after.get()) == ("and goes on", "after")


@pytest.mark.parametrize("concurrency", [1, 2])
def test_a_handler_that_cancels_itself_and_fails_is_a_crash(harness: Harness, concurrency: int) -> None:
    one = harness(Cancels(), concurrency=concurrency)
    fails = one.ask("and fails")
    reason = one.run().reason
    assert isinstance(reason, Crashed)
    assert reason.phase == "on_receive"
    with pytest.raises(LookupError):
        fails.get()


def test_a_worker_without_on_receive_refuses_messages(harness: Harness) -> None:
    class Only(Thread):
        async def fetch(self) -> int:
            return 1

        async def leave(self) -> None:
            self.rejoin()

    one = harness(Only(), concurrency=2)
    refused, fetched = one.ask("x"), one.call("fetch")
    one.call("leave")
    one.run()
    assert fetched.get() == 1
    with pytest.raises(SuitkaiseError, match="has no on_receive"):
        refused.get()


# ---------------------------------------------------------------- the board
def test_the_board_shows_on_receive_since_the_start_of_the_oldest_handler(harness: Harness) -> None:
    one = harness(Gates(), concurrency=3)
    asked = [one.ask("a")]
    thread = in_background(one.run)
    eventually(lambda: one.was_ready and one.worker.now == 1)
    first = phase(one)
    asked.append(one.ask("b"))
    eventually(lambda: one.worker.now == 2)
    assert phase(one) == first
    loop = one.lifecycle.context.event_loop._loop
    loop.call_soon_threadsafe(one.worker.gate("a").set)
    asked[0].get()
    eventually(lambda: phase(one) != first)
    second = phase(one)
    assert second[0] is Phase.ON_RECEIVE
    assert second[1] > first[1]
    loop.call_soon_threadsafe(one.worker.gate("b").set)
    asked[1].get()
    eventually(lambda: phase(one)[0] is Phase.WAITING)
    one.tell("end")
    thread.result(10)


# ---------------------------------------------------------------- declarations
class Loops(Process):
    async def loop(self) -> None: ...


class Plain(Process):
    def on_receive(self, message: Any) -> None: ...


@pytest.mark.parametrize(
    "what, concurrency, because",
    [
        (Loops, 2, "Loops has a loop"),
        (Plain, 2, "concurrency needs handlers that await, and Plain has none"),
        (print, 2, "a function is a loop"),
        (Supervisor("below"), 2, "supervisors take no messages"),
        (Gates, 0, "concurrency must be a whole number >= 1, not 0"),
        (Gates, 1.5, "concurrency must be a whole number >= 1, not 1.5"),
    ],
    ids=["loop", "plain", "function", "supervisor", "zero", "fraction"],
)
def test_a_concurrency_without_a_meaning_is_refused(what: Any, concurrency: Any, because: str) -> None:
    with pytest.raises(SpecError, match=because):
        Child(what, id="child", concurrency=concurrency)


def test_a_class_can_set_its_concurrency() -> None:
    class Wide(Gates):
        concurrency = 8

    assert Child(Wide).concurrency == 8


def test_an_internal_error_while_a_message_is_answered_ends_the_worker_and_its_asker_is_told(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any) -> None:
        raise MemoryError("no room for the answer")

    one = harness(Gates(), concurrency=2)
    monkeypatch.setattr(one.lifecycle.context.replies, "settle", fail)
    answer = one.ask(("open", "a"))
    reason = one.run().reason
    assert isinstance(reason, Crashed)
    assert (reason.phase, type(reason.error)) == ("on_receive", MemoryError)
    with pytest.raises(MemoryError, match="no room for the answer"):
        answer.get(0)
