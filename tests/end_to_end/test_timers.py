"""Timers of workers in real processes and threads, through restarts, suspension and stops."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from suitkaise import Bounded, Child, Hung, Process, Shutdown, Supervisor, Thread, WorkerRef
from suitkaise.events import ChildExited, DeadLetter
from suitkaise.workers.worker import Worker
from tests.end_to_end.kinds import next_event
from tests.support import eventually

pytestmark = pytest.mark.usefixtures("one_runtime_for_all")

KINDS = ("process", "thread", "async process", "async thread")


class Tick:
    """Arrives as a tick, if it can be encoded, which fails with `error` the first time."""

    def __init__(self, error: BaseException) -> None:
        self._errors = [error]

    def __reduce__(self) -> Any:
        if self._errors:
            raise self._errors.pop()
        return str, ("tick",)


class Ticks(Worker):
    """Counts the ticks of its timers; other messages set and cancel timers."""

    def on_start(self) -> None:
        self.ticks = self.idle = 0
        self.timers: dict[str, Any] = {}

    def on_receive(self, message: Any) -> Any:
        match message:
            case "tick":
                self.ticks += 1
            case "idle":
                self.idle += 1
            case "crash":
                raise LookupError("as told")
            case ("every", float() as seconds, str() as name):
                self.timers[name] = self.every(seconds, name)
            case ("after", float() as seconds, what):
                self.timers[what] = self.send_after(seconds, what)
            case ("to", WorkerRef() as other, what):
                self.send_after(0.0, what, to=other)
            case ("every to", WorkerRef() as other, what):
                self.timers["every to"] = self.every(0.005, what, to=other)
            case ("fail first", WorkerRef() as other, kind):
                self.every(0.005, Tick(kind("as told")), to=other)
            case ("cancel", name):
                return self.timers[name].cancel()
        return self.ticks

    def handle_timeout(self) -> Any:
        self.rejoin("idle")


class TicksProcess(Ticks, Process):
    pass


class TicksThread(Ticks, Thread):
    pass


class AsyncTicks(Ticks):
    async def on_receive(self, message: Any) -> Any:
        await asyncio.sleep(0)
        return super().on_receive(message)

    async def handle_timeout(self) -> None:
        await asyncio.sleep(0)
        super().handle_timeout()


class AsyncTicksProcess(AsyncTicks, Process):
    pass


class AsyncTicksThread(AsyncTicks, Thread):
    pass


class Blocks(Thread):
    """Tells the worker of its first message every 10 ms to tick, and does not return from there."""

    def __init__(self, release: threading.Event) -> None:
        self.release = release

    def on_receive(self, other: WorkerRef) -> None:
        self.every(0.01, "tick", to=other)
        self.release.wait(60)


CLASSES: dict[str, Any] = {
    "process": TicksProcess,
    "thread": TicksThread,
    "async process": AsyncTicksProcess,
    "async thread": AsyncTicksThread,
}
every_kind = pytest.mark.parametrize("kind", KINDS)


@every_kind
def test_a_worker_ticks_until_it_cancels_its_timer(kind: str) -> None:
    with Supervisor("tree", Child(CLASSES[kind], id="w")).start() as running:
        worker = running["w"]
        worker.ask(("every", 0.005, "tick"))
        eventually(lambda: worker.ask("how many?") >= 3)
        assert worker.ask(("cancel", "tick")) is True
        ticks = worker.ask("how many?")
        assert worker.ask(("after", 0.02, "tick")) == ticks
        eventually(lambda: worker.ask("how many?") == ticks + 1)
        assert worker.ask(("cancel", "tick")) is False


@every_kind
def test_the_timers_of_an_incarnation_are_gone_after_a_restart(kind: str) -> None:
    with Supervisor("tree", Child(CLASSES[kind], id="w")).start() as running:
        worker = running["w"]
        worker.ask(("every", 0.005, "tick"))
        eventually(lambda: worker.ask("how many?") >= 1)
        worker.tell("crash")
        eventually(lambda: worker.incarnation == 2 and worker.status == "running")
        worker.ask(("after", 0.05, "tick"))  # in that time the former timer would have fired ten times
        eventually(lambda: worker.ask("how many?") >= 1)
        assert worker.ask("how many?") == 1


@every_kind
def test_a_timer_tells_another_worker(kind: str) -> None:
    children = [Child(CLASSES[kind], id="a"), Child(TicksProcess, id="p"), Child(TicksThread, id="t")]
    with Supervisor("tree", *children).start() as running:
        for other in ("p", "t"):
            running["a"].ask(("to", running[other], "tick"))
        for other in ("p", "t"):
            eventually(lambda other=other: running[other].ask("how many?") == 1)  # type: ignore[misc]


@every_kind
def test_the_message_of_a_timer_to_a_worker_that_is_over_is_a_dead_letter(kind: str) -> None:
    children = [Child(CLASSES[kind], id="a"), Child(TicksProcess, id="p", restart="temporary")]
    with Supervisor("tree", *children).start() as running, running.events() as events:
        over = running["p"]
        over.kill()
        next_event(events, ChildExited)
        running["a"].ask(("to", over, "tick"))
        letter = next_event(events, DeadLetter)
        assert (letter.path, letter.count) == ("tree/p", 1)
        assert letter.why.startswith("sent by a timer of 'tree/a': ")


@every_kind
@pytest.mark.parametrize("error", [LookupError, SystemExit])
def test_a_message_that_could_not_be_encoded_is_a_dead_letter_and_its_timer_goes_on(
    kind: str, error: type[BaseException]
) -> None:
    children = [Child(CLASSES[kind], id="a"), Child(TicksProcess, id="p")]
    with Supervisor("tree", *children).start() as running, running.events() as events:
        running["a"].ask(("fail first", running["p"], error))
        letter = next_event(events, DeadLetter)
        assert (letter.path, letter.count) == ("tree/p", 1)
        assert letter.why == f"sent by a timer of 'tree/a': {error.__name__}: as told"
        eventually(lambda: running["p"].ask("how many?") > 1)


def test_a_callback_of_an_answer_that_blocks_delays_no_message_of_a_timer() -> None:
    began, release = threading.Event(), threading.Event()

    def block(done: object) -> None:
        began.set()
        release.wait(60)

    with Supervisor("tree", Child(TicksThread, id="a"), Child(TicksThread, id="b")).start() as running:
        try:
            running.suspend("b")
            running["b"].ask_future("how many?").add_done_callback(block)
            running.resume("b")
            assert began.wait(10)
            running["a"].ask(("to", running["b"], "tick"))
            eventually(lambda: running["b"].ask("how many?") == 1)
        finally:
            release.set()


@pytest.mark.parametrize("receiver", ["process", "thread"])
@pytest.mark.parametrize("kind", ["process", "thread"])
def test_the_message_of_a_timer_waits_for_room_in_a_bounded_mailbox_and_delays_no_other(
    kind: str, receiver: str
) -> None:
    children = [Child(CLASSES[kind], id="a"), Child(CLASSES[receiver], id="full", mailbox=Bounded(1))]
    with Supervisor("tree", *children, Child(TicksThread, id="b")).start() as running:
        running.suspend("full")
        running["full"].tell("tick")
        running["a"].ask(("to", running["full"], "tick"))
        running["a"].ask(("to", running["b"], "tick"))
        eventually(lambda: running["b"].ask("how many?") == 1)
        running.resume("full")
        eventually(lambda: running["full"].ask("how many?") == 2)


@pytest.mark.parametrize("kind", ["process", "thread"])
def test_one_message_of_every_waits_for_room_in_a_bounded_mailbox(kind: str) -> None:
    children = [Child(CLASSES[kind], id="a"), Child(TicksThread, id="full", mailbox=Bounded(1))]
    with Supervisor("tree", *children).start() as running:
        running.suspend("full")
        running["full"].tell("tick")
        running["a"].ask(("every to", running["full"], "tick"))
        running["a"].ask(("every", 0.005, "tick"))
        eventually(lambda: running["a"].ask("how many?") >= 10)
        running["a"].ask(("cancel", "every to"))
        running.resume("full")
        assert running["full"].ask("how many?") <= 2


@every_kind
def test_a_suspended_worker_has_one_tick_waiting_when_it_is_resumed(kind: str) -> None:
    with Supervisor("tree", Child(CLASSES[kind], id="w"), Child(TicksThread, id="clock")).start() as running:
        worker, clock = running["w"], running["clock"]
        before = worker.ask(("every", 0.05, "tick"))
        running.suspend("w")
        clock.ask(("every", 0.05, "tick"))
        eventually(lambda: clock.ask("how many?") >= 8)
        running.resume("w")
        assert worker.ask("how many?") - before < 6


@every_kind
def test_handle_timeout_is_called_in_every_kind_of_worker(kind: str) -> None:
    children = [Child(CLASSES[kind], id="w", idle_timeout=0.02, restart="temporary"), Supervisor("others")]
    with Supervisor("tree", *children).start() as running:
        assert running["w"].join(15) == Shutdown("idle")


class HangsWhenIdle(Process):
    async def on_receive(self, message: Any) -> None: ...

    async def handle_timeout(self) -> None:
        await asyncio.sleep(600)


def test_receive_timeout_limits_handle_timeout() -> None:
    child = Child(HangsWhenIdle, id="w", idle_timeout=0.01, receive_timeout=0.3, restart="temporary")
    with Supervisor("tree", child, Supervisor("others")).start() as running:
        reason = running["w"].join(15)
        assert isinstance(reason, Hung)
        assert reason.phase == "handle_timeout"


def test_an_abandoned_thread_has_no_timers_any_more() -> None:
    release = threading.Event()
    child = Child(Blocks, args=(release,), id="w", restart="temporary", receive_timeout=0.2)
    with Supervisor("tree", child, Child(TicksThread, id="other")).start() as running, running.events() as events:
        other = running["other"]
        running["w"].tell(other)
        assert isinstance(next_event(events, ChildExited, "w").reason, Hung)
        ticks = other.ask("how many?")
        other.ask(("after", 0.2, "idle"))
        eventually(lambda: other.proxy().idle.get() == 1)
        assert ticks <= other.ask("how many?") <= ticks + 1  # one may have been on its way
        release.set()
