"""The time-out of an ask tells what the worker is doing: asked from the program and from a worker, of both kinds."""

from __future__ import annotations

import os
import pickle
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from suitkaise import AskTimeout, Backoff, Child, Process, Status, Supervisor, Thread, WorkerRef
from tests.support import eventually, in_background

pytestmark = pytest.mark.usefixtures("one_runtime_for_all")


class Slow:
    """Stays in a hook while a file exists."""

    wait: Any

    def __init__(self, hook: str, file: Path) -> None:
        self.hook = hook
        self.file = file

    def stay(self, hook: str) -> None:
        while self.hook == hook and self.file.exists():
            self.file.with_name("stays").touch()
            time.sleep(0.01)

    def on_receive(self, message: Any) -> Any:
        if message == "die":
            raise ValueError("it was asked to die")
        self.stay("on_receive")
        return message


class SlowProcess(Slow, Process):
    pass


class SlowThread(Slow, Thread):
    pass


class LoopingProcess(Slow, Process):
    def loop(self) -> None:
        self.stay("loop")
        self.wait(0.001)


class LoopingThread(Slow, Thread):
    def loop(self) -> None:
        self.stay("loop")
        self.wait(0.001)


class Asker(Process):
    """Asks on behalf of the test; returns the error as its askers get it."""

    def on_receive(self, message: tuple[WorkerRef, float]) -> Any:
        ref, timeout = message
        try:
            return ref.ask("hello", timeout)
        except AskTimeout as error:
            return str(error), vars(error)


@pytest.fixture
def file(tmp_path: Path) -> Any:
    file = tmp_path / "stay"
    file.touch()
    yield file
    file.unlink(missing_ok=True)


def ask(running: Any, asker: str, ref: WorkerRef, timeout: float) -> tuple[str, dict[str, Any]]:
    if asker == "worker":
        return running["asker"].ask((ref, timeout), 30)  # type: ignore[no-any-return]
    with pytest.raises(AskTimeout) as caught:
        ref.ask("hello", timeout)
    return str(caught.value), vars(caught.value)


@pytest.mark.parametrize("asker", ["program", "worker"])
@pytest.mark.parametrize(
    "worker, hook",
    [(SlowProcess, "on_receive"), (SlowThread, "on_receive"), (LoopingProcess, "loop"), (LoopingThread, "loop")],
)
def test_a_time_out_tells_the_phase_and_its_time_and_the_messages_that_wait(
    file: Path, worker: Any, hook: str, asker: str
) -> None:
    with Supervisor("app", Child(worker(hook, file), id="slow"), Asker).start() as running:
        ref = running["slow"]
        if hook == "loop":  # a message that comes before the first loop is handled before it
            eventually(file.with_name("stays").exists)
        ref.tell("first")
        eventually(file.with_name("stays").exists)
        ref.tell("second")
        text, facts = ask(running, asker, ref, 0.3)
        waiting = 2 if hook == "on_receive" else 3
        assert text.startswith(f"'app/slow' did not answer within 0.3 s: it is running (pid {ref.pid}): in {hook} for ")
        assert text.endswith(f" s; {waiting} messages wait for it")
        assert facts["path"] == "app/slow"
        assert (facts["status"], facts["pid"], facts["phase"]) == (Status.RUNNING, ref.pid, hook)
        assert facts["in_phase"] >= 0.3
        assert facts["queued"] == waiting
        file.unlink()
        assert ref.ask("hello", 30) == "hello"


@pytest.mark.parametrize("worker", [SlowProcess, SlowThread])
def test_a_time_out_tells_of_a_restart_that_is_waited_for(file: Path, worker: Any) -> None:
    child = Child(worker("", file), id="slow", backoff=Backoff(initial=60.0, maximum=60.0))
    with Supervisor("app", child).start() as running:
        with pytest.raises(ValueError, match="asked to die"):
            running["slow"].ask("die", 30)
        eventually(lambda: running["slow"].status is Status.RESTARTING)
        with pytest.raises(AskTimeout, match=r": it is being restarted; 1 message waits for it$") as caught:
            running["slow"].ask("hello", 0.1)
        assert (caught.value.status, caught.value.pid, caught.value.queued) == (Status.RESTARTING, None, 1)


def test_a_time_out_tells_of_a_suspended_worker(file: Path) -> None:
    with Supervisor("app", Child(SlowThread("", file), id="slow")).start() as running:
        running.suspend("slow")
        with pytest.raises(
            AskTimeout, match=r": it is suspended \(pid \d+\): waiting for messages for .* 1 message waits"
        ):
            running["slow"].ask("hello", 0.1)
        running.resume("slow")


def test_a_time_out_tells_what_a_stopped_process_was_doing(file: Path) -> None:
    with Supervisor("app", Child(SlowProcess("", file), id="slow")).start() as running:
        pid = running["slow"].pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        try:
            with pytest.raises(
                AskTimeout, match=rf"it is running \(pid {pid}\): waiting for messages for .*; 1 message"
            ):
                running["slow"].ask("hello", 0.2)
        finally:
            os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize("wait", ["proxy", "ask_future"])
def test_answers_of_futures_and_proxies_tell_it_too(file: Path, wait: str) -> None:
    with Supervisor("app", Child(SlowThread("on_receive", file), id="slow")).start() as running:
        ref = running["slow"]
        answer = ref.ask_future("first") if wait == "ask_future" else ref.proxy().on_receive("first")
        with pytest.raises(AskTimeout, match=r"'app/slow' did not answer within 0.1 s: it is running"):
            answer.get(0.1)
        with pytest.raises(AskTimeout, match=r"'app/slow' did not answer within 0 s$"):
            answer.get(0)
        file.unlink()
        assert answer.get(30) == "first"


def test_a_time_out_in_on_start_tells_of_the_start(file: Path) -> None:
    started = threading.Event()

    class StartsSlowly(Thread):
        def on_start(self) -> None:
            started.set()
            while file.exists():
                time.sleep(0.01)

    with Supervisor("app").start() as running:
        start = in_background(lambda: running.start_child(Child(StartsSlowly, id="slow")))
        assert started.wait(15)
        with pytest.raises(
            AskTimeout, match=r": it is starting \(pid \d+\): in on_start for .* 1 message waits for it"
        ):
            running["slow"].ask("hello", 0.1)
        file.unlink()
        start.result(15)


def test_a_time_out_keeps_its_attributes_when_it_is_sent() -> None:
    error = AskTimeout("late", path="a/b")
    error.phase, error.queued, error.status = "loop", 3, Status.RUNNING
    again = pickle.loads(pickle.dumps(error))
    assert vars(again) == vars(error)
    assert (again.pid, again.in_phase) == (None, None)
