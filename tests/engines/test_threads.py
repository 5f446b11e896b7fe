"""The engine for workers in threads: each end is reported once, and what cannot be killed is abandoned."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from suitkaise import Child, Thread, WorkerDead
from suitkaise.engines.engine import EngineContext, Launch
from suitkaise.engines.threads import ThreadEngine, ThreadHandle
from suitkaise.exits import Crashed, Hung, Killed, Normal, Shutdown
from suitkaise.messaging.answer import Answer
from suitkaise.messaging.messages import Message, Payload
from suitkaise.platform.board import Phase
from tests.support import eventually, no_thread_is_left

SOON = 10.0


class Echo(Thread):
    def on_receive(self, message: Any) -> Any:
        if message == "crash":
            raise ValueError("it was asked to crash")
        return message


class Stuck(Thread):
    """Ignores everything until `release` is set."""

    release = threading.Event()
    entered = threading.Event()

    def loop(self) -> None:
        Stuck.entered.set()
        Stuck.release.wait(SOON)


class Once(Thread):
    def loop(self) -> None:
        self.rejoin()


@pytest.fixture
def engine(context: EngineContext) -> Iterator[ThreadEngine]:
    Stuck.release.clear()
    Stuck.entered.clear()
    engine = ThreadEngine(context)
    yield engine
    Stuck.release.set()
    eventually(lambda: not engine.abandoned())
    engine.close()


serials = itertools.count(1)


def spawn(engine: ThreadEngine, worker: type[Thread]) -> ThreadHandle:
    handle = engine.spawn(Launch.of(Child(worker), "tree/worker", 1, next(serials)))
    assert handle.ready.result(SOON) == os.getpid()
    return handle


def ask(handle: ThreadHandle, body: Any) -> Answer[Any]:
    answer: Answer[Any] = Answer()
    handle.deliver(Message("message", Payload(body), answer.settle))
    return answer


def test_a_worker_answers_and_finishes_when_it_is_asked_to(engine: ThreadEngine) -> None:
    handle = spawn(engine, Echo)
    assert ask(handle, "hello").get(SOON) == "hello"
    handle.stop()
    assert handle.exited.result(SOON).reason == Shutdown()
    assert handle.snapshot() is None
    with pytest.raises(WorkerDead):
        ask(handle, "hello")


def test_an_end_by_itself_is_normal(engine: ThreadEngine) -> None:
    assert spawn(engine, Once).exited.result(SOON).reason == Normal()


def test_a_crash_is_reported_with_the_slot_of_the_worker(engine: ThreadEngine) -> None:
    handle = spawn(engine, Echo)
    ask(handle, "crash")
    end = handle.exited.result(SOON)
    assert isinstance(end.reason, Crashed)
    assert (end.abandoned, end.view is not None) == (False, True)


def test_s59_a_killed_thread_is_abandoned_and_listed_until_it_ends(engine: ThreadEngine) -> None:
    handle = spawn(engine, Stuck)
    assert Stuck.entered.wait(SOON)
    handle.kill("the test")
    end = handle.exited.result(0)
    assert (end.reason, end.abandoned) == (Killed("the test"), True)
    assert "release.wait" in end.stack
    assert engine.abandoned() == ["tree/worker"]
    Stuck.release.set()
    eventually(lambda: not engine.abandoned())
    assert handle.exited.result(0) is end


def test_messages_that_an_abandoned_thread_has_not_handled_fail(engine: ThreadEngine) -> None:
    handle = spawn(engine, Stuck)
    assert Stuck.entered.wait(SOON)
    answer = ask(handle, "anyone?")
    handle.kill("the test")
    with pytest.raises(WorkerDead, match=r"'tree/worker' was abandoned: killed \(the test\)"):
        answer.get(0)


def test_a_hung_thread_is_abandoned_with_its_stack(engine: ThreadEngine) -> None:
    handle = spawn(engine, Stuck)
    assert Stuck.entered.wait(SOON)
    handle.kill_hung(Hung("loop", 1.0))
    end = handle.exited.result(0)
    assert isinstance(end.reason, Hung)
    assert "release.wait" in end.reason.stack


def test_the_slot_shows_what_a_worker_does(engine: ThreadEngine) -> None:
    handle = spawn(engine, Stuck)
    assert Stuck.entered.wait(SOON)
    view = handle.snapshot()
    assert view is not None
    assert view.phase is Phase.LOOP
    handle.stop()
    Stuck.release.set()
    handle.exited.result(SOON)


def test_a_slot_is_free_again_after_the_end(engine: ThreadEngine, context: EngineContext) -> None:
    for _ in range(3):
        handle = spawn(engine, Once)
        handle.exited.result(SOON)
    assert context.board._next == 1


def test_a_worker_whose_thread_python_refuses_as_the_program_ends_is_ignored(
    engine: ThreadEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(self: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")  # as Python 3.12 does, before `atexit`

    monkeypatch.setattr(threading.Thread, "start", start)
    handle = engine.spawn(Launch.of(Child(Echo), "tree/worker", 1, next(serials)))
    end = handle.exited.result(0)
    assert end.ignored
    assert end.reason == Normal()
    with pytest.raises(WorkerDead):
        handle.deliver(Message("message", Payload(1)))


def test_a_worker_for_which_no_thread_is_left_fails_to_start(
    engine: ThreadEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threading.Thread, "start", no_thread_is_left)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        spawn(engine, Echo)
