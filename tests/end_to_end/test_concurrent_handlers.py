"""Several messages handled at once by async workers in real processes and threads; limits, kills and stops."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import pytest

from suitkaise import Child, Hung, Killed, Process, Supervisor, Thread, WorkerDead
from suitkaise.events import ChildExited, ChildStarted
from suitkaise.workers.worker import Worker
from tests.end_to_end.kinds import next_event
from tests.support import eventually

pytestmark = pytest.mark.usefixtures("one_runtime_for_all")


class Meets(Worker):
    """A message `("meet", n)` returns when n of them are being handled; others have a meaning of their own."""

    concurrency = 8

    def on_start(self) -> None:
        self.here = 0
        self.seen: list[Any] = []
        self.changed = asyncio.Condition()

    async def on_receive(self, message: Any) -> Any:
        match message:
            case ("meet", int() as wanted):
                async with self.changed:
                    self.here += 1
                    self.changed.notify_all()
                    await self.changed.wait_for(lambda: self.here >= wanted)
                return "met"
            case "here":
                return self.here
            case "for ever":
                self.here += 1
                await asyncio.sleep(600)
            case "a while":
                self.here += 1
                await asyncio.sleep(0.3)
                return "a while later"
            case int():
                self.seen.append(message)
                await asyncio.sleep(0.001 * (message % 3))
                return message
        return list(self.seen)


class MeetsProcess(Meets, Process):
    pass


class MeetsThread(Meets, Thread):
    pass


CLASSES = {"process": MeetsProcess, "thread": MeetsThread}
both = pytest.mark.parametrize("kind", CLASSES)


@both
def test_handlers_wait_for_each_other(kind: str) -> None:
    with Supervisor("app", Child(CLASSES[kind], id="w")).start() as running:
        answers = [running["w"].ask_future(("meet", 8)) for _ in range(8)]
        assert [answer.get(20) for answer in answers] == ["met"] * 8


@both
def test_the_order_of_the_starts_is_the_order_of_the_messages(kind: str) -> None:
    with Supervisor("app", Child(CLASSES[kind], id="w")).start() as running:
        answers = [running["w"].ask_future(number) for number in range(300)]
        assert [answer.get(20) for answer in answers] == list(range(300))
        assert running["w"].ask("seen") == list(range(300))


@both
def test_s42_a_stop_waits_for_the_handlers_that_run_within_the_shutdown_time(kind: str) -> None:
    with Supervisor("app", Child(CLASSES[kind], id="w", shutdown=20.0)).start() as running:
        answers = [running["w"].ask_future("a while") for _ in range(3)]
        eventually(lambda: running["w"].ask("here") == 3)
        running.terminate_child("w")
        assert [answer.get() for answer in answers] == ["a while later"] * 3


def test_s42_a_worker_whose_handlers_exceed_the_shutdown_time_is_killed() -> None:
    with Supervisor("app", Child(MeetsProcess, id="w", shutdown=0.3)).start() as running:
        answers = [running["w"].ask_future("for ever") for _ in range(7)]
        eventually(lambda: running["w"].ask("here") == 7)
        answers.append(running["w"].ask_future("for ever"))  # as many as may run
        running.terminate_child("w")
        for answer in answers[:7]:
            with pytest.raises(WorkerDead) as caught:
                answer.get()
            assert caught.value.reason == Killed("shutdown timeout")


@both
def test_s55_receive_timeout_is_for_each_handler(kind: str) -> None:
    child = Child(CLASSES[kind], id="w", receive_timeout=1.5, restart="temporary")
    with Supervisor("app", child, Supervisor("others")).start() as running, running.events() as events:
        ref = running["w"]
        for _ in range(8):  # together they take longer than the limit; always at least one runs
            pair = ref.ask_future("a while"), ref.ask_future("a while")
            assert [one.get(20) for one in pair] == ["a while later"] * 2
        assert ref.is_alive()
        hung = ref.ask_future("for ever")
        reason = next_event(events, ChildExited, "w").reason
        assert isinstance(reason, Hung)
        assert reason.phase == "on_receive"
        with pytest.raises(WorkerDead):
            hung.get()


def test_a_kill_is_told_to_all_askers_and_the_next_incarnation_works() -> None:
    with Supervisor("app", Child(MeetsProcess, id="w")).start() as running, running.events() as events:
        ref = running["w"]
        answers = [ref.ask_future("for ever") for _ in range(5)]
        eventually(lambda: ref.ask("here") == 5)
        assert ref.pid is not None
        os.kill(ref.pid, signal.SIGKILL)
        for answer in answers:
            with pytest.raises(WorkerDead):
                answer.get()
        next_event(events, ChildStarted, "w")
        assert ref.ask("here") == 0
