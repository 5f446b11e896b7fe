"""The life cycle of a worker with async hooks: tasks in the background, awaited waits, cancellation at the end."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import logging
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from suitkaise import Process, Thread, WorkerDead
from suitkaise.exits import Crashed, ExitCode, Normal, Shutdown
from suitkaise.messaging.messages import Message, Payload
from suitkaise.messaging.socket_mailbox import SocketMailbox
from suitkaise.messaging.wire import encode
from suitkaise.platform.board import Board
from suitkaise.specs import Recipe
from suitkaise.workers.actor import WorkerActor, lifecycle_of
from suitkaise.workers.async_lifecycle import AsyncLifecycle
from suitkaise.workers.hooks import is_async
from suitkaise.workers.incarnation import Incarnation
from tests.support import eventually
from tests.workers.harness import harnesses

Harness = Any


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[Any]:
    with harnesses(tmp_path) as make:
        yield make


class Ticker(Thread):
    """Has a task that counts until the worker ends."""

    async def on_start(self) -> None:
        self.ticks = 0
        self.ticker = asyncio.create_task(self.tick())

    async def tick(self) -> None:
        while True:
            await asyncio.sleep(0.001)
            self.ticks += 1


def in_thread(harness: Harness) -> threading.Thread:
    thread = threading.Thread(target=harness.run, daemon=True)
    thread.start()
    return thread


# ---------------------------------------------------------------- which workers have an event loop
class Methods(Process):
    async def fetch(self) -> None: ...


class Helper(Process):
    async def _fetch(self) -> None: ...

    def loop(self) -> None: ...


class Overridden(Methods):
    def fetch(self) -> None: ...  # type: ignore[override]


class Static(Process):
    @staticmethod
    async def fetch() -> None: ...


class Old(Process):
    async def __loop__(self) -> None: ...


class Partial(Process):
    async def _fetch(self, number: int) -> None: ...

    loop = functools.partialmethod(_fetch, 3)  # type: ignore[assignment]


class Called:
    async def __call__(self) -> None: ...


async def function() -> None: ...


@pytest.mark.parametrize(
    "what",
    [
        Ticker(),
        Methods(),
        Static(),
        Old(),
        Partial(),
        *map(Process.of, (function, functools.partial(function), Called())),
    ],
    ids=["hook", "method", "static method", "old name", "partial method", "function", "partial", "callable object"],
)
def test_one_async_hook_or_public_method_is_enough(what: Any) -> None:
    assert is_async(getattr(what, "__recipe__", what))


@pytest.mark.parametrize(
    "what", [Helper(), Overridden(), Process(), Thread(), Process.of(print)],
    ids=["private method", "overridden", "process", "thread", "function"],
)  # fmt: skip
def test_other_workers_have_no_event_loop(what: Any) -> None:
    assert not is_async(getattr(what, "__recipe__", what))


# ---------------------------------------------------------------- tasks
def test_tasks_go_on_while_the_worker_waits_for_messages(harness: Harness) -> None:
    one = harness(Ticker())
    thread = in_thread(one)
    eventually(lambda: getattr(one.worker, "ticks", 0) > 5)
    one.mailbox.order_stop(Shutdown())
    thread.join(5)
    assert one.outcome.reason == Shutdown()


def test_tasks_go_on_while_a_hook_awaits_and_between_plain_loops(harness: Harness) -> None:
    class Both(Ticker):
        def loop(self) -> None:
            if self.ticks > 5:
                self.rejoin()

        async def on_finish(self) -> None:
            before = self.ticks
            await asyncio.sleep(0.02)
            assert self.ticks > before

    assert harness(Both()).run().reason == Normal()


def test_hooks_and_handlers_run_one_at_a_time(harness: Harness) -> None:
    calls: list[str] = []

    class Slow(Thread):
        async def on_receive(self, message: str) -> str:
            calls.append(f"{message} begins")
            await asyncio.sleep(0.002)
            calls.append(f"{message} ends")
            if message == "b":
                self.rejoin()
            return message

    one = harness(Slow())
    answers = [one.ask("a"), one.ask("b")]
    one.run()
    assert calls == ["a begins", "a ends", "b begins", "b ends"]
    assert [answer.get(0) for answer in answers] == ["a", "b"]


def test_all_hooks_run_in_one_task_and_one_context(harness: Harness) -> None:
    color = contextvars.ContextVar("color", default="none")
    seen: list[Any] = []

    class Contextual(Thread):
        async def on_start(self) -> None:
            color.set("red")
            seen.append(asyncio.current_task())

        def loop(self) -> None:  # a plain one
            seen.append(asyncio.current_task())
            seen.append(color.get())
            self.rejoin()

        async def on_finish(self) -> None:
            seen.append(asyncio.current_task())

    harness(Contextual()).run()
    assert seen == [seen[0], seen[0], "red", seen[0]]


def test_plain_hooks_may_start_tasks_and_return_a_coroutine(harness: Harness) -> None:
    class Spawns(Thread):
        def on_start(self) -> None:
            self.spawned = asyncio.create_task(self.answer())

        def loop(self) -> Any:
            return self.answer()

        async def answer(self) -> int:
            await asyncio.sleep(0)
            return 42

        async def on_finish(self) -> None:
            assert await self.spawned == self.last_result

    assert harness(Spawns(), join_after=1).run().result.value == 42


def test_async_methods_are_called_by_proxies(harness: Harness) -> None:
    class Adds(Thread):
        async def add(self, a: int, b: int) -> int:
            await asyncio.sleep(0)
            return a + b

        def leave(self) -> None:
            self.rejoin()

    one = harness(Adds())
    answer, _ = one.call("add", 1, b=2), one.call("leave")
    assert one.run().reason == Normal()
    assert answer.get(0) == 3


def test_stopping_the_loop_from_inside_does_no_harm(harness: Harness) -> None:
    class Stops(Thread):
        async def loop(self) -> str:
            asyncio.get_running_loop().stop()
            await asyncio.sleep(0.002)
            return "done"

    assert harness(Stops(), join_after=2).run().result.value == "done"


# ---------------------------------------------------------------- waiting
def looping(loop: Any) -> Any:
    return type("Looping", (Thread,), {"loop": loop})()


def test_wait_async_returns_false_after_its_time(harness: Harness) -> None:
    async def loop(self: Any) -> bool:
        return await self.wait_async(0.002)

    assert harness(looping(loop), join_after=1).run().result.value is False


def test_a_time_to_wait_async_that_is_none_is_refused(harness: Harness) -> None:
    async def loop(self: Any) -> None:
        for seconds in (float("nan"), None):
            with pytest.raises(ValueError, match=f"wait_async: seconds must be a number, not {seconds!r}"):
                await self.wait_async(seconds)

    assert harness(looping(loop), join_after=1).run().reason == Normal()


@pytest.mark.parametrize("how", ["stop", "rejoin"])
def test_wait_async_ends_when_the_worker_is_asked_to_finish(harness: Harness, how: str) -> None:
    waiting = threading.Event()

    async def loop(self: Any) -> Any:
        waiting.set()
        return await asyncio.gather(self.wait_async(60), self.wait_async(60))  # any number of tasks at once

    one = harness(looping(loop))
    thread = in_thread(one)
    assert waiting.wait(5)
    one.mailbox.order_stop(Shutdown()) if how == "stop" else one.worker.rejoin()
    thread.join(5)
    assert one.outcome.result.value == [True, True]


def test_wait_async_lets_other_tasks_run_even_after_a_stop_request(harness: Harness) -> None:
    class Stubborn(Ticker):
        async def on_finish(self) -> None:
            before = self.ticks
            while self.ticks < before + 3:
                assert await self.wait_async(60)

    one = harness(Stubborn())
    one.mailbox.order_stop(Shutdown())
    assert one.run().reason == Shutdown()


def test_join_in_ends_a_wait_async(harness: Harness) -> None:
    async def loop(self: Any) -> bool:
        return await self.wait_async(60)

    assert harness(looping(loop), join_in=0.02).run().result.value is True


def test_messages_that_arrive_during_a_wait_async_are_handled_afterwards(harness: Harness) -> None:
    calls: list[str] = []

    class Waits(Thread):
        async def loop(self) -> None:
            if self.current_loop == 1:
                one.tell("x")
                assert await self.wait_async(0.002) is False
            calls.append("loop")

        def on_receive(self, message: str) -> None:
            calls.append(message)

    one = harness(Waits(), join_after=2)
    one.run()
    assert calls == ["loop", "x", "loop"]


@pytest.mark.parametrize("how", ["wait_async", "another await"])
def test_a_flood_of_messages_is_received_during_a_wait_async_and_stays_in_the_socket_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr("suitkaise.workers.event_loop._MOST", 10)
    board = Board.create(str(tmp_path / "board"))
    slot, release = board.take("tree/worker"), threading.Event()

    class Slow(Thread):
        async def on_start(self) -> None:
            await (self.wait_async(60) if how == "wait_async" else asyncio.to_thread(release.wait, 60))

    with contextlib.ExitStack() as closing:
        hub, ours = (closing.enter_context(end) for end in socket.socketpair())
        counts = board.new_counts(slot.index)
        mailbox = SocketMailbox(slot, counts, ours, lambda frame: mailbox.put(Message("message", Payload(frame[1]))))
        lifecycle = lifecycle_of(Slow().__recipe__, Incarnation("tree/worker", 1), mailbox, slot)
        thread = threading.Thread(target=WorkerActor(lifecycle, mailbox).run_here, daemon=True)
        thread.start()
        hub.settimeout(10 if how == "wait_async" else 0.5)
        with contextlib.nullcontext() if how == "wait_async" else pytest.raises(TimeoutError):
            for _ in range(1_000):
                hub.sendall(encode(("put",), bytes(1 << 14)))  # 16 MiB in all: no socket takes as much
        release.set()
        mailbox.order_stop(Shutdown())
        thread.join(10)
        assert not thread.is_alive()
        mailbox.close()
    slot.release()
    board.close()


def test_a_wait_that_would_block_the_event_loop_is_refused(harness: Harness) -> None:
    async def loop(self: Any) -> None:
        self.wait(3)

    reason = harness(looping(loop)).run().reason
    assert "await self.wait_async(3)" in str(reason)


def test_helper_threads_of_an_async_worker_use_wait(harness: Harness) -> None:
    class Helped(Thread):
        async def on_start(self) -> None:
            self.helper = asyncio.create_task(asyncio.to_thread(self.wait, 60))

        async def on_finish(self) -> None:
            assert await self.helper is True

    one = harness(Helped())
    one.mailbox.order_stop(Shutdown())
    assert one.run().reason == Shutdown()


def test_wait_async_works_in_the_workers_own_event_loop_only(harness: Harness) -> None:
    def loop(self: Any) -> None:
        self.wait_async(1)

    assert "use self.wait" in str(harness(looping(loop)).run().reason)

    async def elsewhere(worker: Any) -> None:
        await worker.wait_async(1)

    class Elsewhere(Thread):
        async def loop(self) -> None:
            await asyncio.to_thread(asyncio.run, elsewhere(self))

    assert "the worker's own event loop" in str(harness(Elsewhere()).run().reason)


# ---------------------------------------------------------------- failures
class Grouped(Thread):
    """Has a task group from on_start to on_failure."""

    async def on_start(self) -> None:
        self.stack = contextlib.AsyncExitStack()
        group = await self.stack.enter_async_context(asyncio.TaskGroup())
        self.failing = group.create_task(self.fail())

    async def fail(self) -> None:
        await asyncio.sleep(0.002)
        raise LookupError("in the group")

    async def on_failure(self, error: BaseException) -> None:
        await self.stack.__aexit__(type(error), error, error.__traceback__)


class GroupedAndLooping(Grouped):
    async def loop(self) -> None:
        await asyncio.sleep(60)


@pytest.mark.parametrize("worker", [Grouped, GroupedAndLooping])
def test_a_task_group_that_fails_ends_its_worker(harness: Harness, worker: Any) -> None:
    reason = harness(worker()).run().reason
    assert isinstance(reason, Crashed)
    assert "LookupError: in the group" in reason.traceback


class GroupedAndReceiving(Grouped):
    async def fail(self) -> None:
        await self.receiving.wait()
        await super().fail()

    async def on_start(self) -> None:
        self.receiving = asyncio.Event()
        await super().on_start()

    async def on_receive(self, message: str) -> None:
        self.receiving.set()
        await asyncio.sleep(60)


def test_a_task_group_of_the_worker_that_fails_during_a_handler_ends_the_worker(harness: Harness) -> None:
    one = harness(GroupedAndReceiving())
    asked = one.ask("x")
    reason = one.run().reason
    assert isinstance(reason, Crashed)
    assert "LookupError: in the group" in reason.traceback
    with pytest.raises(WorkerDead):
        asked.get()


def test_a_task_group_can_be_left_in_on_finish(harness: Harness) -> None:
    class Leaves(Thread):
        async def on_start(self) -> None:
            self.group = await asyncio.TaskGroup().__aenter__()
            self.task = self.group.create_task(self.wait_async(60))

        async def on_finish(self) -> None:
            await self.group.__aexit__(None, None, None)
            assert self.task.result() is True

    one = harness(Leaves())
    one.mailbox.order_stop(Shutdown())
    assert one.run().reason == Shutdown()


def test_a_cancelled_hook_is_a_crash(harness: Harness) -> None:
    async def loop(self: Any) -> None:
        asyncio.current_task().cancel()  # type: ignore[union-attr]
        await asyncio.sleep(60)

    reason = harness(looping(loop)).run().reason
    assert isinstance(reason, Crashed)
    assert (reason.phase, type(reason.error)) == ("loop", asyncio.CancelledError)


def test_a_hook_that_has_cancelled_its_task_and_returns_is_a_crash_of_that_hook(harness: Harness) -> None:
    async def loop(self: Any) -> None:
        asyncio.current_task().cancel()  # type: ignore[union-attr]

    reason = harness(looping(loop)).run().reason
    assert isinstance(reason, Crashed)
    assert (reason.phase, type(reason.error)) == ("loop", asyncio.CancelledError)


@pytest.mark.parametrize("where", ["a task", "a callback"])
@pytest.mark.parametrize("loops", [False, True])
def test_sys_exit_in_a_task_ends_the_worker_with_that_code(harness: Harness, where: str, loops: bool) -> None:
    async def loop(self: Any) -> None:
        await asyncio.sleep(60)

    base = type("Base", (Thread,), {"loop": loop} if loops else {})

    class Exits(base):
        async def on_start(self) -> None:
            if where == "a task":
                self.task = asyncio.create_task(self.exit())
            else:
                asyncio.get_running_loop().call_soon(raise_exit)

        async def exit(self) -> None:
            raise_exit()

    def raise_exit() -> None:
        raise SystemExit(3)

    assert harness(Exits()).run().reason == ExitCode(3)


def test_force_finish_leaves_the_hook_that_awaits_something(harness: Harness) -> None:
    calls: list[str] = []

    class Forced(Thread):
        async def on_start(self) -> None:
            self.task = asyncio.create_task(self.force())

        async def force(self) -> None:
            self.force_finish()

        async def loop(self) -> None:
            await asyncio.sleep(60)

        def on_finish(self) -> None:
            calls.append("on_finish")

    assert harness(Forced()).run().reason == Shutdown("forced")
    assert calls == []


def test_force_finish_in_another_thread_leaves_the_hook_too(harness: Harness) -> None:
    async def loop(self: Any) -> None:
        threading.Thread(target=self.force_finish).start()
        await asyncio.sleep(60)

    assert harness(looping(loop)).run().reason == Shutdown("forced")


def test_a_failed_task_that_nothing_awaits_is_logged(harness: Harness, caplog: Any) -> None:
    class Careless(Thread):
        async def on_start(self) -> None:
            self.tasks = {asyncio.create_task(self.fail(), name="careless")}

        async def fail(self) -> None:
            raise LookupError("nobody hears me")

        async def loop(self) -> None:
            self.tasks.clear()

    notes: list[str] = []
    one = harness(Careless(), join_after=2)
    one.lifecycle.context.on_log_line = notes.append
    with caplog.at_level(logging.ERROR, "suitkaise.worker"):
        assert one.run().reason == Normal()
    (record,) = caplog.records
    assert record.getMessage() == "tree/worker: Task exception was never retrieved (careless)"
    assert isinstance(record.exc_info[1], LookupError)
    assert notes == [f"error: {record.getMessage()}: LookupError('nobody hears me')"]


# ---------------------------------------------------------------- the end
class Leftovers(Thread):
    """Leaves a task and an async generator behind."""

    def __init__(self, calls: list[str], crash: bool = False) -> None:
        self.calls = calls
        self.crash = crash

    async def on_start(self) -> None:
        self.task = asyncio.create_task(self.go_on())
        self.numbers = self.generate()
        await anext(self.numbers)

    async def go_on(self) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.002)
            self.calls.append("task")

    async def generate(self) -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await asyncio.sleep(0)
            self.calls.append("generator")

    async def loop(self) -> None:
        if self.crash:
            raise LookupError
        self.rejoin()

    async def on_finish(self) -> None:
        self.calls.append("on_finish")


@pytest.mark.parametrize("crash", [False, True])
def test_tasks_and_async_generators_end_before_the_outcome_is_reported(harness: Harness, crash: bool) -> None:
    calls: list[str] = []
    one = harness(Leftovers(calls, crash))
    one.run()
    assert calls == [*([] if crash else ["on_finish"]), "task", "generator"]
    assert one.lifecycle.context.event_loop._loop.is_closed()


def test_a_failed_start_ends_its_tasks_too(harness: Harness) -> None:
    calls: list[str] = []

    class Fails(Leftovers):
        async def on_start(self) -> None:
            await super().on_start()
            raise LookupError

    assert isinstance(harness(Fails(calls)).run().reason, Crashed)
    assert calls == ["task", "generator"]


class NoHook(Thread):
    async def loop(self) -> None:
        raise AssertionError


class NotBuilt(Thread):
    def __init__(self) -> None:
        raise LookupError

    async def loop(self) -> None:
        raise AssertionError


@pytest.mark.parametrize("recipe", [Recipe(NoHook), Recipe(NotBuilt)], ids=lambda recipe: recipe.target.__name__)
def test_a_worker_whose_end_comes_before_its_first_hook_closes_its_event_loop(
    harness: Harness, caplog: Any, recipe: Recipe
) -> None:
    one = harness(recipe)
    one.mailbox.order_stop(Shutdown())
    one.run()
    assert one.lifecycle.context.event_loop._loop.is_closed()
    assert caplog.text == ""


class Stubborn(Thread):
    async def on_start(self) -> None:
        self.task = asyncio.create_task(self.go_on(), name="stubborn")

    async def go_on(self) -> None:
        while True:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(60)


@pytest.mark.parametrize("grace", [0.0, 0.02])
def test_a_task_that_ignores_cancellation_is_logged_and_left_behind(
    harness: Harness, caplog: Any, grace: float
) -> None:
    one = harness(Stubborn(), grace=grace)
    one.mailbox.order_stop(Shutdown())
    assert one.run().reason == Shutdown()
    assert f"tree/worker: a task did not end when it was cancelled, within {grace:g} s (stubborn)" in caplog.text
    with contextlib.suppress(RuntimeError):  # "coroutine ignored GeneratorExit"
        one.worker.task.get_coro().close()


def test_a_task_that_fails_when_it_is_cancelled_is_logged(harness: Harness, caplog: Any) -> None:
    class Fails(Thread):
        async def on_start(self) -> None:
            self.task = asyncio.create_task(self.go_on(), name="failing")

        async def go_on(self) -> None:
            try:
                await asyncio.sleep(60)
            finally:
                raise LookupError

    one = harness(Fails())
    one.mailbox.order_stop(Shutdown())
    assert one.run().reason == Shutdown()
    assert "tree/worker: a task failed at the end (failing)" in caplog.text


# ---------------------------------------------------------------- stacks
def test_the_stacks_show_where_the_tasks_await(harness: Harness) -> None:
    class Deep(Ticker):
        async def loop(self) -> None:
            await self.deeper()

        async def deeper(self) -> None:
            await asyncio.wait_for(self.wait_async(60), 60)

    one = harness(Deep())
    assert one.lifecycle.stacks() == ""
    thread = in_thread(one)
    told = eventually(lambda: "deeper" in one.lifecycle.stacks() and one.lifecycle.stacks())
    one.mailbox.order_stop(Shutdown())
    thread.join(5)
    first, *others = [block.splitlines() for block in told.strip().split("\n\n")]
    assert first[0] == "Task 'tree/worker' (most recent call first):"
    assert [line.rpartition(" in ")[2] for line in first[-2:]] == ["deeper", "loop"]
    assert any(line.endswith("in tick") for block in others for line in block)


def test_a_worker_without_async_hooks_has_no_stacks_of_tasks(harness: Harness) -> None:
    one = harness(Helper())
    assert not isinstance(one.lifecycle, AsyncLifecycle)
    assert one.lifecycle.stacks() == ""
