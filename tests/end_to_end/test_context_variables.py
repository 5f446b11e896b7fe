"""Context variables travel to threads: each incarnation runs in a copy of the context of the caller that started it."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from typing import Any

import pytest

from suitkaise import Child, ChildAlreadyStarted, DynamicSupervisor, Process, RunningTree, Supervisor, Thread, pools
from suitkaise.messaging.protocol import AdminAction
from tests.support import eventually

pytestmark = pytest.mark.usefixtures("one_runtime_for_all")

REQUEST: contextvars.ContextVar[str] = contextvars.ContextVar("REQUEST", default="none")


class Reads(Thread):
    """Answers with the variable; in its first incarnation after setting it to another value."""

    def on_start(self) -> None:
        self.at_start = REQUEST.get()

    def on_receive(self, message: str) -> Any:
        if message == "die":
            REQUEST.set("from the first incarnation")
            raise ValueError("it was asked to die")
        return self.at_start, REQUEST.get()


class ReadsInALoop(Reads):
    async def on_receive(self, message: str) -> Any:
        await asyncio.sleep(0)
        return super().on_receive(message)


class HasBackground(Thread):
    background = (Child(Reads, id="declared"),)

    def on_start(self) -> None:
        REQUEST.set("of the worker")
        self.ref_of_thread = self.start_thread(Reads)

    def on_receive(self, message: str) -> Any:
        return self.ref_of_thread.ask(message, 10)[0]


class HasBackgroundInAProcess(Process):
    def on_start(self) -> None:
        REQUEST.set("of the worker")
        self.ref_of_thread = self.start_thread(Reads)

    def on_receive(self, message: str) -> Any:
        return self.ref_of_thread.ask(message, 10)[0]


class WaitsAtItsStart(Thread):
    def __init__(self, go_on: threading.Event) -> None:
        self.go_on = go_on

    def on_start(self) -> None:
        self.go_on.wait(10)


def read() -> str:
    return REQUEST.get()


def in_context(value: str, function: Any) -> Any:
    context = contextvars.copy_context()
    context.run(REQUEST.set, value)
    return context.run(function)


def requested_start(running: RunningTree, child: Child) -> Any:
    """Request a start, as `start_child` does; return the answer without waiting for it."""
    return running._administer("", AdminAction.START_CHILD, child)


def test_a_declared_thread_has_the_context_of_the_caller_that_started_the_tree() -> None:
    tree = Supervisor("app", Child(Reads, id="plain"), Child(ReadsInALoop, id="async"), Supervisor("below", Reads))
    with in_context("of the tree", tree.start) as running:
        for path in ("plain", "async", "below/reads"):
            assert running[path].ask("read", 10) == ("of the tree", "of the tree")


def test_a_thread_does_not_see_what_the_caller_sets_later_nor_the_caller_what_the_thread_sets() -> None:
    with in_context("before", Supervisor("app", Reads).start) as running:
        in_context("after", lambda: running["reads"].tell("read"))
        assert running["reads"].ask("read", 10) == ("before", "before")
        assert REQUEST.get() == "none"


def test_a_restarted_thread_begins_with_the_context_of_the_first_start() -> None:
    with in_context("of the tree", Supervisor("app", Reads).start) as running:
        ref = running["reads"]
        ref.tell("die")
        eventually(lambda: ref.incarnation == 2)
        assert ref.ask("read", 10) == ("of the tree", "of the tree")


def test_a_thread_that_start_child_starts_has_the_context_of_that_caller() -> None:
    with in_context("of the tree", Supervisor("app", DynamicSupervisor("pool")).start) as running:
        child = Child(Reads, id="one")
        ref = in_context("of start_child", lambda: running.start_child(child, under="pool"))
        assert ref.ask("read", 10)[0] == "of start_child"
        below = in_context("of start_child", lambda: running.start_child(Child(Supervisor("more", Reads), id="more")))
        assert running[f"{below.path}/reads".partition("/")[2]].ask("read", 10)[0] == "of start_child"


@pytest.mark.parametrize("same", [True, False], ids=["one declaration", "two declarations"])
def test_of_two_callers_that_start_a_child_with_one_id_its_thread_has_the_context_of_the_one_that_succeeds(
    same: bool,
) -> None:
    child, go_on = Child(Reads, id="one"), threading.Event()
    other = child if same else Child(Reads, id="one")
    with in_context("of the tree", Supervisor("app").start) as running:
        requested_start(running, Child(WaitsAtItsStart, args=(go_on,)))
        first = in_context("of the first", lambda: requested_start(running, child))
        second = in_context("of the second", lambda: requested_start(running, other))
        go_on.set()
        assert first.get(10).ask("read", 10)[0] == "of the first"
        with pytest.raises(ChildAlreadyStarted):
            second.get(10)
        running.recall("one")
        assert running["one"].ask("read", 10)[0] == "of the first"


def test_a_child_whose_start_waits_for_the_end_of_another_one_with_its_id_has_the_context_of_its_own_caller() -> None:
    go_on = threading.Event()
    with in_context("of the tree", Supervisor("app", Child(Reads, id="one", restart="temporary")).start) as running:
        requested_start(running, Child(WaitsAtItsStart, args=(go_on,)))
        running._administer("", AdminAction.TERMINATE_CHILD, "one")
        again = in_context("of start_child", lambda: requested_start(running, Child(Reads, id="one")))
        go_on.set()
        assert again.get(10).ask("read", 10)[0] == "of start_child"


def test_the_context_of_a_removed_child_is_not_kept() -> None:
    with Supervisor("app", DynamicSupervisor("pool")).start() as running:
        running.start_child(Child(Reads, id="one"), under="pool")
        interface = running._supervisor("pool")
        assert list(interface.contexts) == ["one"]
        running.terminate_child("pool/one")
        eventually(lambda: not interface.contexts)


def test_a_background_thread_has_the_context_of_its_worker() -> None:
    with Supervisor("app", HasBackground, HasBackgroundInAProcess).start() as running:
        assert running["has_background"].ask("read", 10) == "of the worker"
        assert running["has_background_in_a_process"].ask("read", 10) == "of the worker"


def test_a_thread_of_a_pool_has_the_context_of_the_caller_that_made_the_pool() -> None:
    def results() -> list[str]:
        with pools.ThreadPool(2) as pool:
            return [in_context("of submit", lambda: pool.submit(read)).result(10) for _ in range(3)]

    assert in_context("of the pool", results) == ["of the pool"] * 3


def test_a_tree_that_an_event_loop_starts_has_the_context_of_its_task() -> None:
    async def main() -> Any:
        async with Supervisor("app", Reads).start_async() as running:
            return await running["reads"].ask_future("read")

    assert in_context("of the task", lambda: asyncio.run(main())) == ("of the task", "of the task")
