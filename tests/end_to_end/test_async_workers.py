"""Workers with async hooks, in real processes and threads, with real signals."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from suitkaise import (
    Child,
    ChildStartFailed,
    Crashed,
    Down,
    Hung,
    Killed,
    Normal,
    NotSerializable,
    Process,
    Shutdown,
    Signaled,
    SpecError,
    Supervisor,
    Thread,
    WorkerDead,
)  # fmt: skip
from suitkaise.events import ChildExited, ChildStarted, Event
from tests.end_to_end import workers_async
from tests.end_to_end.kinds import next_event, notes
from tests.support import GRACE, eventually, run_program, start_program, wait_gone

pytestmark = pytest.mark.usefixtures("one_runtime_for_all")

both = pytest.mark.parametrize("kind", ["process", "thread"])


def of(kind: str, name: str) -> Any:
    return getattr(workers_async, f"{name}InA{kind.capitalize()}")


def ticks(kind: str, folder: Path, id: str = "w", **options: Any) -> Child:
    return Child(of(kind, "Ticks"), args=(folder,), id=id, **options)


# ------------------------------------------------------------ hooks, messages, tasks
@both
def test_tasks_run_while_the_worker_waits_for_messages_and_while_it_handles_one(tmp_path: Path, kind: str) -> None:
    with Supervisor("tree", ticks(kind, tmp_path)).start() as running:
        worker = running["w"]
        first = worker.ask("ticks")
        eventually(lambda: worker.ask("ticks") > first)
        assert worker.ask("ticks a little later") is True
        assert worker.proxy().numbers(3).get() == [0, 1, 2]
    assert notes(tmp_path) == ["finished, ticking", "cancelled"]


@both
def test_an_async_worker_loops_and_has_a_result(kind: str) -> None:
    child = Child(of(kind, "Loops"), id="w", restart="transient", join_after=3)
    with Supervisor("tree", child, Supervisor("more")).start() as running:
        assert running["w"].result(10) == ("loops", 3)


@both
def test_messages_are_handled_between_the_loops(kind: str) -> None:
    with Supervisor("tree", Child(of(kind, "Loops"), id="w")).start() as running:
        assert [running["w"].ask(number) for number in range(50)] == list(range(50))


@pytest.mark.parametrize("make", [Process.of, Thread.of], ids=["process", "thread"])
def test_an_async_function_is_awaited_once_a_loop(make: Any) -> None:
    child = Child(make(workers_async.sleeps_and_returns, "something"), id="w", restart="temporary", join_after=2)
    with Supervisor("tree", child).start() as running:
        assert running["w"].result(10) == "something"


@both
def test_an_async_worker_awaits_the_answer_of_another_worker(tmp_path: Path, kind: str) -> None:
    with Supervisor("tree", ticks(kind, tmp_path, "a"), ticks("process", tmp_path, "b")).start() as running:
        assert running["a"].ask(("ask", running["b"], "ticks a little later")) is True
        with pytest.raises(LookupError, match="of its own"):
            running["a"].ask(("ask", running["b"], "crash"))


@both
def test_an_async_worker_can_run_programs(tmp_path: Path, kind: str) -> None:
    with Supervisor("tree", ticks(kind, tmp_path)).start() as running:
        assert running["w"].ask("run a program") == b"hello\n"


# ------------------------------------------------------------ stopping
@both
def test_s42_a_stop_request_ends_a_wait_at_once(tmp_path: Path, kind: str) -> None:
    running = Supervisor("tree", Child(of(kind, "Waits"), args=(tmp_path,), id="w", shutdown=60.0)).start()
    eventually((tmp_path / "waits").exists)
    assert running.stop(timeout=10) == Shutdown("stop")
    assert (tmp_path / "finished").exists()


@both
def test_s42_a_stop_request_ends_a_wait_in_a_handler(tmp_path: Path, kind: str) -> None:
    with Supervisor("tree", ticks(kind, tmp_path, shutdown=60.0)).start() as running:
        answer = running["w"].ask_future("pause")
        eventually(lambda: notes(tmp_path))
        running.terminate_child("w")
        assert answer.get() is True
    assert notes(tmp_path) == ["awaits", "finished, ticking", "cancelled"]


def test_s42_a_worker_whose_await_exceeds_the_shutdown_time_is_killed(tmp_path: Path) -> None:
    with Supervisor("tree", ticks("process", tmp_path, shutdown=0.2)).start() as running:
        answer = running["w"].ask_future("await something for ever")
        eventually(lambda: notes(tmp_path))
        running.terminate_child("w")
        with pytest.raises(WorkerDead) as caught:
            answer.get()
        assert caught.value.reason == Killed("shutdown timeout")
    assert notes(tmp_path) == ["awaits"]


@both
@pytest.mark.parametrize("shutdown", ["brutal_kill", "infinity"])
def test_an_async_worker_may_rejoin_whatever_its_shutdown_time_is(tmp_path: Path, kind: str, shutdown: Any) -> None:
    child = ticks(kind, tmp_path, shutdown=shutdown, restart="transient")
    with Supervisor("tree", child).start() as running:
        running["w"].tell("leave")
        assert running["w"].join(10) == Normal()
    assert notes(tmp_path) == ["finished, ticking", "cancelled"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=lambda number: number.name)
def test_sigterm_ends_an_async_worker_but_sigint_and_sighup_do_not(tmp_path: Path, number: int) -> None:
    child = Child(workers_async.WaitsInAProcess, args=(tmp_path,), id="w", restart="temporary")
    with Supervisor("tree", child).start() as running, running.events() as events:
        eventually((tmp_path / "waits").exists)
        pid = running["w"].pid
        assert pid is not None
        os.kill(pid, number)
        if number != signal.SIGTERM:
            running.terminate_child("w")
        ended: Any = next_event(events, Event)
        assert ended.reason == (Signaled(signal.SIGTERM) if number == signal.SIGTERM else Shutdown())
    assert (tmp_path / "finished").exists()


def test_sigterm_wakes_a_worker_that_waits_for_messages(tmp_path: Path) -> None:
    with Supervisor("tree", ticks("process", tmp_path, restart="temporary")).start() as running:
        worker = running["w"]
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGTERM)
        assert worker.join(10) == Signaled(signal.SIGTERM)
    assert notes(tmp_path) == ["finished, ticking", "cancelled"]


# ------------------------------------------------------------ faults
@both
def test_s58_a_crash_has_its_traceback_and_cancels_the_tasks_before_the_restart(tmp_path: Path, kind: str) -> None:
    with Supervisor("tree", ticks(kind, tmp_path)).start() as running, running.events() as events:
        running["w"].tell("crash")
        reason = next_event(events, ChildExited).reason
        assert isinstance(reason, Crashed)
        assert (reason.phase, type(reason.error)) == ("on_receive", LookupError)
        assert "in fail" in reason.traceback
        assert notes(tmp_path) == ["cancelled"]
        assert running["w"].ask("ticks") >= 0


@both
def test_s57_the_next_incarnation_gets_the_checkpoint(tmp_path: Path, kind: str) -> None:
    with Supervisor("tree", ticks(kind, tmp_path)).start() as running:
        worker = running["w"]
        assert worker.ask("recalled") is None
        worker.ask(("keep", [1, 2]))
        with pytest.raises(LookupError):
            worker.ask("crash")
        assert worker.ask("recalled") == (1, [1, 2])
        worker.recall()
        assert worker.ask("recalled") == (2, [1, 2])


def test_a_killed_async_worker_is_restarted(tmp_path: Path) -> None:
    with Supervisor("tree", ticks("process", tmp_path)).start() as running, running.events() as events:
        old = running["w"].pid
        assert old is not None
        os.kill(old, signal.SIGKILL)
        assert next_event(events, ChildExited).reason == Signaled(signal.SIGKILL)
        assert next_event(events, ChildStarted).pid != old
        assert running["w"].ask("ticks") >= 0


def test_s02_an_exception_in_an_async_start_is_a_failed_start() -> None:
    class Fails(Process):
        async def on_start(self) -> None:
            raise LookupError("at the start")

    with pytest.raises(ChildStartFailed, match="at the start"):
        Supervisor("tree", Fails).start()


@both
def test_s55_s59_an_await_that_never_ends_is_a_hang_and_the_stack_shows_where(tmp_path: Path, kind: str) -> None:
    with Supervisor("tree", ticks(kind, tmp_path, receive_timeout=0.3)).start() as running, running.events() as events:
        with pytest.raises(WorkerDead) as caught:
            running["w"].ask("await something for ever", timeout=10)
        hung = next_event(events, ChildExited).reason
        assert isinstance(hung, Hung)
        assert hung.phase == "on_receive"
        assert caught.value.reason == hung
        assert "Task 'tree/w' (most recent call first):" in hung.stack
        assert "in something\n" in hung.stack
        assert "in tick\n" in hung.stack  # the stack of its other task
        assert running["w"].ask("ticks") >= 0
    # The await of a hung thread is cancelled, so its task is cancelled twice; a hung process is killed.
    assert notes(tmp_path).count("cancelled") == {"process": 1, "thread": 2}[kind]


def test_a_task_that_ignores_its_cancellation_delays_a_crash_by_the_shutdown_time_at_most() -> None:
    child = Child(workers_async.Stubborn, shutdown=0.1)
    with Supervisor("tree", child).start() as running, running.events() as events:
        running["stubborn"].tell("crash")
        assert isinstance(next_event(events, ChildExited).reason, Crashed)
        assert isinstance(next_event(events, ChildStarted), ChildStarted)


def test_s55_cancelling_the_tasks_counts_as_part_of_on_finish() -> None:
    child = Child(workers_async.Stubborn, shutdown="infinity", finish_timeout=0.3)
    with Supervisor("tree", child).start() as running, running.events() as events:
        running["stubborn"].tell("crash")
        reason = next_event(events, ChildExited).reason
        assert isinstance(reason, Hung)
        assert reason.phase == "on_finish"
        assert "in go_on\n" in reason.stack


@both
def test_a_task_that_fails_is_logged(tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    with Supervisor("tree", ticks(kind, tmp_path)).start() as running:
        running["w"].tell("fail in a task")
        eventually(lambda: "LookupError: of its own" in caplog.text)
        assert running["w"].ask("ticks") >= 0
    (logged,) = [record for record in caplog.records if "never retrieved" in record.getMessage()]
    assert logged.name == "suitkaise.worker"
    assert logged.getMessage().startswith("tree/w: Task exception was never retrieved (failing)")


WAITS = """
import asyncio
import os
from suitkaise import Process, Supervisor

class Waits(Process):
    async def loop(self):
        line = f"waits {self.pid}\\n".encode()
        asyncio.get_running_loop().call_soon(os.write, 1, line)  # runs only while the next line awaits
        await self.wait_async(600)

Supervisor("tree", Waits).run()
"""


def test_sigusr1_shows_what_a_worker_awaits() -> None:
    with start_program(WAITS) as program:
        worker = int(program.expect("waits", timeout=15).split()[1])
        os.kill(worker, signal.SIGUSR1)
        eventually(lambda: "Task 'tree/waits'" in program.stderr and program.stderr.endswith("in loop\n"))
        assert "Thread" in program.stderr
        program.send_signal(signal.SIGTERM)
        assert program.wait() == 0, program.stderr


# ------------------------------------------------------------ links, monitors, suspension
@both
def test_s60_a_monitor_wakes_an_async_worker(tmp_path: Path, kind: str) -> None:
    other = ticks("process", tmp_path, "other", restart="temporary")
    with Supervisor("tree", ticks(kind, tmp_path), other).start() as running:
        running["w"].ask(("monitor", running["other"]))
        running["other"].kill()
        eventually(lambda: notes(tmp_path))
        assert notes(tmp_path)[0].startswith(Down.__name__)


@both
def test_a_suspended_async_worker_handles_no_message_but_its_tasks_run(tmp_path: Path, kind: str) -> None:
    with Supervisor("tree", ticks(kind, tmp_path)).start() as running:
        worker = running["w"]
        worker.ask("wait for a file in a task")
        running.suspend("w")
        answer = worker.ask_future("ticks")
        (tmp_path / "go").touch()
        eventually((tmp_path / "went").exists)
        assert not answer.done()
        running.resume("w")
        assert answer.get() > 0
        running.suspend("w")
        running.terminate_child("w")
    assert notes(tmp_path) == ["finished, ticking", "cancelled"]


# ------------------------------------------------------------ imports
PROGRAM = """
import sys
from suitkaise import Process, Supervisor

class Plain(Process):
    def on_receive(self, message):
        return "asyncio" in sys.modules

class Async(Plain):
    async def on_start(self):
        pass

with Supervisor("tree", Plain).start() as running:
    print("plain alone:", running["plain"].ask(""), "asyncio" in sys.modules)
    running.start_child(Async)
    running["plain"].recall()
    print("beside an async one:", running["plain"].ask(""), "asyncio" in sys.modules)
"""


def test_plain_workers_do_not_import_asyncio_and_async_workers_find_it_preloaded() -> None:
    """The keeper imports asyncio before it forks an async worker; later workers have it, the program has not."""
    finished = run_program(PROGRAM).check()
    assert finished.stdout.splitlines() == ["plain alone: False False", "beside an async one: True False"]


def test_no_process_of_an_async_worker_is_left(tmp_path: Path) -> None:
    with Supervisor("tree", ticks("process", tmp_path)).start() as running:
        pid = running["w"].pid
    assert pid is not None
    wait_gone(pid)


class Squares(Process):
    async def on_start(self) -> None: ...

    def on_receive(self, numbers: list[int]) -> Any:
        return (number * number for number in numbers)

    def each(self) -> Any:
        yield 1


@pytest.mark.parametrize("concurrency", [1, 2])
def test_a_generator_is_no_answer_and_is_not_awaited(concurrency: int) -> None:
    with Supervisor("app", Child(Squares, id="w", concurrency=concurrency)).start() as running:
        for answer in (running["w"].ask_future([1, 2]), running["w"].proxy().each()):
            with pytest.raises(NotSerializable, match="make a list or a tuple of what it yields"):
                answer.get(20)
        assert running["w"].incarnation == 1


class OtherLoop(asyncio.SelectorEventLoop):
    pass


def other_loop() -> OtherLoop:
    return OtherLoop()


def no_loop() -> Any:
    return "no loop"


class TellsItsLoop(Process):
    loop_factory = OtherLoop

    async def on_receive(self, message: Any) -> str:
        return type(asyncio.get_running_loop()).__name__


class OfFunction(TellsItsLoop):
    loop_factory = other_loop


class OfStaticMethod(TellsItsLoop):
    @staticmethod
    def loop_factory() -> OtherLoop:
        return OtherLoop()


class InThread(Thread):
    loop_factory = OtherLoop

    async def on_receive(self, message: Any) -> str:
        return type(asyncio.get_running_loop()).__name__


class SetsItTooLate(TellsItsLoop):
    def __init__(self) -> None:
        self.loop_factory = other_loop


class HasNoLoop(TellsItsLoop):
    loop_factory = no_loop


@pytest.mark.parametrize("worker", [TellsItsLoop, OfFunction, OfStaticMethod, InThread])
def test_the_event_loop_of_a_worker_is_what_its_loop_factory_makes(worker: type[Process] | type[Thread]) -> None:
    with Supervisor("app", Child(worker, id="w")).start() as running:
        assert running["w"].ask("which", timeout=GRACE) == "OtherLoop"


@pytest.mark.parametrize(
    "worker, error",
    [
        (HasNoLoop, "loop_factory must return an event loop, not 'no loop'"),
        (SetsItTooLate, "SetsItTooLate.loop_factory is assigned too late: set it in the class"),
    ],
)
def test_a_loop_factory_that_cannot_be_used_is_a_failed_start_which_says_so(worker: type[Process], error: str) -> None:
    with pytest.raises(ChildStartFailed, match=error):
        Supervisor("app", worker).start()


async def coroutine_function() -> None: ...


@pytest.mark.parametrize(
    "factory, error",
    [
        ("uvloop", "must be a function that returns an event loop, not 'uvloop'"),
        (coroutine_function, "must be a function that returns an event loop, not <function coroutine_function"),
        (lambda self: None, "is called without arguments, also without self"),
    ],
    ids=["no function", "a coroutine function", "a method"],
)
def test_a_wrong_loop_factory_is_refused_where_the_class_is_made(factory: Any, error: str) -> None:
    with pytest.raises(SpecError, match=f"^Wrong: loop_factory {error}"):
        type("Wrong", (Process,), {"loop_factory": factory})


def test_a_loop_factory_of_a_class_without_an_event_loop_is_refused_but_not_an_inherited_one() -> None:
    class Base(Process):
        loop_factory = OtherLoop

    class Plain(Base):
        pass

    with pytest.raises(SpecError, match="'base': loop_factory makes no sense here: Base has no event loop"):
        Child(Base)
    assert Child(Plain).id == "plain"
