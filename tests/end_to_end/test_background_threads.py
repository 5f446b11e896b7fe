"""Background threads: supervised threads that run in the process of a worker, beside its own hooks."""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from suitkaise import (
    Child,
    ChildAlreadyStarted,
    ChildStartFailed,
    Crashed,
    Normal,
    Process,
    Shutdown,
    SpecError,
    Supervisor,
    Thread,
    WorkerDead,
    WorkerFailed,
    current_worker,
)
from suitkaise.workers.worker import Worker
from tests.support import eventually, run_program, wait_gone

pytestmark = pytest.mark.usefixtures("one_runtime_for_all")


def tick(folder: str, name: str = "tick") -> None:
    """Note once a loop that the thread runs, and rest a moment."""
    note(folder, f"{name} {os.getpid()}")
    worker = current_worker()
    assert worker is not None
    worker.wait(0.01)


def fail_once(folder: str) -> None:
    """Raise in the first loop of all, and rest in every other."""
    if not Path(folder, "failed").exists():
        Path(folder, "failed").touch()
        raise ValueError("the first time")
    tick(folder, "again")


def fail(*, wait: float = 0.0) -> None:
    worker = current_worker()
    assert worker is not None
    worker.wait(wait)
    raise ValueError("no luck")


gate = threading.Event()


def stay_for_ever() -> None:
    gate.wait()


@pytest.fixture(autouse=True)
def threads_that_stay_are_let_go_at_the_end() -> Iterator[None]:
    global gate
    gate = threading.Event()
    yield
    gate.set()


def note(folder: str, line: str) -> None:
    with open(Path(folder, "notes"), "a") as file:
        file.write(f"{line}\n")


def notes(folder: Any) -> list[str]:
    path = Path(folder, "notes")
    return path.read_text().splitlines() if path.exists() else []


class Noting(Thread):
    """A background thread that notes the calls of its hooks."""

    def __init__(self, folder: str, title: str = "noting") -> None:
        self.folder = folder
        self.title = title

    def on_start(self) -> None:
        note(self.folder, f"{self.title} starts")

    def loop(self) -> None:
        self.wait(0.01)

    def on_receive(self, message: Any) -> Any:
        return message, self.path, os.getpid(), threading.current_thread().name

    def on_finish(self) -> None:
        note(self.folder, f"{self.title} finishes")


class FailsToStart(Thread):
    def on_start(self) -> None:
        raise ValueError("cannot start")


class Obeys(Worker):
    """Does in `on_receive` what the message says, and notes the calls of its own hooks."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def on_start(self) -> None:
        note(self.folder, "worker starts")

    def before_loop(self) -> None:
        if self.current_loop == 1:
            note(self.folder, "worker loops")

    def loop(self) -> None:
        self.wait(0.01)

    def on_receive(self, message: Any) -> Any:
        name, *args = message
        return getattr(self, f"do_{name}")(*args)

    def on_finish(self) -> None:
        note(self.folder, "worker finishes")

    def do_start(self, what: Any, *args: Any) -> str:
        self.thread = self.start_thread(what, *args)
        return self.thread.path

    def do_start_named(self, what: Any, named: dict[str, Any]) -> str:
        return self.start_thread(what, **named).path

    def do_start_and_fail(self, what: Any, *args: Any) -> str:
        try:
            self.start_thread(what, *args)
        except (SpecError, ChildStartFailed, ChildAlreadyStarted) as error:
            return f"{type(error).__name__}: {error}"
        return "nothing failed"

    def do_call(self, function: Any) -> Any:
        return function(self)

    def do_threads(self) -> list[str]:
        return threads_below(str(self.path))

    def do_hang(self) -> None:
        gate.wait()

    def do_force(self) -> None:
        self.force_finish()

    def do_crash(self) -> None:
        raise OSError("the worker itself")

    def do_join(self) -> Any:
        return self.thread.join(15), self.thread.is_alive()

    def do_tell_thread_later(self, message: str) -> None:
        self.send_after(0.0, message, to=self.thread)

    def do_use(self) -> Any:
        thread = self.thread
        answer = thread.ask("hello")
        facts = thread.name, thread.path, str(thread.status), thread.is_alive(), thread.pid == os.getpid()
        try:
            pickle.dumps(thread)
            sent = "sent"
        except TypeError as error:
            sent = str(error)
        thread.rejoin()
        return answer, facts, sent, thread.join(15), thread.is_alive()


class InAProcess(Obeys, Process):
    pass


class InAThread(Obeys, Thread):
    pass


KINDS = pytest.mark.parametrize("cls", [InAProcess, InAThread])


# ---------------------------------------------------------------- declared on the class
DECLARED = """
from suitkaise import Child, Process, Supervisor, Thread

class Noting(Thread):
    def __init__(self, title):
        self.title = title
    def on_start(self):
        print(self.title, "starts", flush=True)
    def loop(self):
        self.wait(0.01)
    def on_finish(self):
        print(self.title, "finishes", flush=True)

class Base(Process):
    background = (Noting("first"), Child(Noting, id="other", args=("second",)))
    restart = "transient"
    num_loops = 1
    def on_start(self):
        print("worker starts", flush=True)
    def loop(self):
        print("worker loops", flush=True)
    def on_finish(self):
        print("worker finishes", flush=True)

class Derived(Base):
    pass

with Supervisor("app", NAME()).start() as running:
    print(next(iter(running)).join(30))
"""


@pytest.mark.parametrize("name", ["Base", "Derived"])
def test_declared_threads_run_from_on_start_to_on_finish(name: str) -> None:
    lines = run_program(DECLARED.replace("NAME", name)).check().stdout.splitlines()
    assert lines[:5] == ["worker starts", "first starts", "second starts", "worker loops", "worker finishes"]
    assert sorted(lines[5:]) == ["first finishes", "normal", "second finishes"]
    assert lines[-1] == "normal", "the threads have ended before the end of the worker is known"


class DeclaresInItsConstructor(Process):
    def __init__(self, background: Any) -> None:
        self.background = background

    def on_receive(self, message: str) -> list[str]:
        return [thread.name for thread in threading.enumerate()]


def test_threads_may_be_declared_in_the_constructor_which_knows_their_arguments(tmp_path: Path) -> None:
    worker = DeclaresInItsConstructor((Noting(str(tmp_path)),))
    with Supervisor("app", Child(worker, id="worker")).start() as running:
        assert "app/worker/noting#1" in running["worker"].ask("names", timeout=20.0)
    assert notes(tmp_path) == ["noting starts", "noting finishes"]
    with pytest.raises(ChildStartFailed, match="background must be a tuple of Thread workers"):
        Supervisor("app", DeclaresInItsConstructor("blue")).start()


class DeclaresOneThatFails(Process):
    background = (FailsToStart,)


def test_a_declared_thread_that_cannot_start_is_a_failed_start_of_the_worker() -> None:
    with pytest.raises(
        ChildStartFailed, match=r"'app/worker/fails_to_start' failed to start: ValueError.*cannot start"
    ):
        Supervisor("app", Child(DeclaresOneThatFails, id="worker")).start()


# ---------------------------------------------------------------- started by a call
@KINDS
def test_a_function_is_called_again_and_again_in_the_workers_process(cls: Any, tmp_path: Path) -> None:
    with Supervisor("app", Child(cls, args=(str(tmp_path),), id="worker")).start() as running:
        worker = running["worker"]
        assert worker.ask(("start", tick, str(tmp_path))) == "app/worker/tick"
        assert worker.ask(("start", tick, str(tmp_path), "second")) == "app/worker/tick-2"
        expected = {f"tick {worker.pid}", f"second {worker.pid}"}
        eventually(lambda: expected <= set(notes(tmp_path)))
        assert worker.ask(("threads",)) == ["app/worker/tick#1", "app/worker/tick-2#1"]
        if cls is InAProcess:
            assert worker.pid != os.getpid()


@KINDS
def test_the_ref_of_a_thread_can_be_asked_told_and_rejoined(cls: Any, tmp_path: Path) -> None:
    with Supervisor("app", Child(cls, args=(str(tmp_path),), id="worker")).start() as running:
        worker = running["worker"]
        worker.ask(("start", Noting, str(tmp_path)))
        answer, facts, sent, reason, alive = worker.ask(("use",), 15)
        assert answer == ("hello", "app/worker/noting", worker.pid, "app/worker/noting#1")
        assert facts == ("noting", "app/worker/noting", "running", True, True)
        assert sent == "'app/worker/noting' is a background thread, which is known in its own process only"
        assert (reason, alive) == (Shutdown(), False)
        assert notes(tmp_path)[-1] == "noting finishes"


class NotesMessages(Thread):
    def __init__(self, folder: str) -> None:
        self.folder = folder

    def on_receive(self, message: str) -> None:
        note(self.folder, message)


@KINDS
def test_a_timer_of_the_worker_tells_a_thread(cls: Any, tmp_path: Path) -> None:
    with Supervisor("app", Child(cls, args=(str(tmp_path),), id="worker")).start() as running:
        running["worker"].ask(("start", NotesMessages, str(tmp_path)))
        running["worker"].ask(("tell_thread_later", "due"))
        eventually(lambda: "due" in notes(tmp_path))


@KINDS
def test_a_thread_that_fails_is_restarted_and_the_worker_goes_on(cls: Any, tmp_path: Path) -> None:
    with Supervisor("app", Child(cls, args=(str(tmp_path),), id="worker")).start() as running:
        worker, events = running["worker"], running.events()
        pid = worker.pid
        worker.ask(("start", fail_once, str(tmp_path)))
        eventually(lambda: f"again {pid}" in notes(tmp_path))
        assert (worker.pid, worker.incarnation) == (pid, 1)
        report = eventually(lambda: [one for one in running.crashes() if one.path == "app/worker/fail_once"])[0]
        assert (report.kind, report.pid, report.verdict, report.phase) == ("thread", pid, "restarts", "loop")
        assert "the first time" in report.reason
    seen = [event.kind for event in events if event.path.startswith("app/worker/")]
    assert (seen[:3], seen[-1]) == (["child_started", "child_exited", "child_restarting"], "child_stopped")


@KINDS
def test_when_the_supervisor_of_the_threads_gives_up_the_worker_crashes_and_is_restarted(
    cls: Any, tmp_path: Path
) -> None:
    with Supervisor("app", Child(cls, args=(str(tmp_path),), id="worker")).start() as running:
        worker = running["worker"]
        worker.ask(("start", Noting, str(tmp_path)))
        worker.ask(("start", fail))
        eventually(lambda: worker.incarnation == 2 and worker.is_alive())
        reports = eventually(lambda: reports if len(reports := running.crashes()) == 5 else None)
        assert [one.path for one in reports] == ["app/worker/fail"] * 4 + ["app/worker"]
        assert [one.verdict for one in reports] == ["restarts"] * 3 + ["gives up", "restarts"]
        assert (reports[-1].phase, reports[-1].reason_kind) == ("background", "Crashed")
        assert "gave up: 'app/worker/fail' would need more than 3 restarts in 5 s" in reports[-1].reason
        assert "ValueError: no luck" in reports[-1].traceback
        assert notes(tmp_path).count("noting finishes") == 1, "the other thread has ended with the worker"
        assert "worker finishes" not in notes(tmp_path)


class StaysInItsLoop(Process):
    """Never comes back from its loop, so it does not notice that its thread has given up."""

    shutdown = 0.5
    restart = "temporary"

    def on_start(self) -> None:
        self.start_thread(fail, wait=0.05)

    def loop(self) -> None:
        gate.wait()


def test_a_worker_that_stays_in_a_hook_when_its_threads_have_given_up_is_ended_after_its_shutdown_time() -> None:
    with Supervisor("app", StaysInItsLoop()).start() as running:
        reason = running["stays_in_its_loop"].join(30)
    assert isinstance(reason, Crashed)
    assert (reason.phase, type(reason.error)) == ("background", WorkerFailed)
    assert "gave up" in str(reason)


def watches_its_thread(what: str) -> Any:
    def call(worker: Any) -> str:
        try:
            getattr(worker, what)(worker.thread)
        except TypeError as error:
            return str(error)
        return "nothing failed"

    return call


@KINDS
def test_a_worker_that_monitors_or_links_its_thread_is_told_that_only_the_ref_can(cls: Any, tmp_path: Path) -> None:
    with Supervisor("app", Child(cls, args=(str(tmp_path),), id="worker")).start() as running:
        worker = running["worker"]
        worker.ask(("start", Noting, str(tmp_path)))
        for what in ("monitor", "link"):
            assert worker.ask(("call", watches_its_thread(what))) == (
                f"{what} takes the ref of a worker of the tree, and 'app/worker/noting' is a background thread; "
                "its ref.monitor() tells its end"
            )
        assert worker.incarnation == 1


@KINDS
def test_what_is_no_thread_or_cannot_start_is_an_error_of_the_call_alone(cls: Any, tmp_path: Path) -> None:
    with Supervisor("app", Child(cls, args=(str(tmp_path),), id="worker")).start() as running:
        ask = running["worker"].ask
        assert "ChildStartFailed: 'app/worker/fails_to_start'" in ask(("start_and_fail", FailsToStart))
        assert "'in_a_process' is a process, and background threads are threads" in ask(
            ("start_and_fail", InAProcess, "")
        )
        assert "SpecError" in ask(("start_and_fail", tick))  # an argument is missing
        named = Child(Noting, args=(str(tmp_path),), id="named")
        ask(("start", named))
        assert ask(("start_and_fail", named)) == "ChildAlreadyStarted: 'app/worker/named' is running already"
        copies = Child(Noting, args=(str(tmp_path),), id="copies", copies=2)
        assert "start_thread starts one thread; 'copies' has copies=2" in ask(("start_and_fail", copies))
        assert running["worker"].incarnation == 1


def start_under_many_names(worker: Any) -> Any:
    for number in range(20):
        worker.start_thread(Child(Thread.of(rest), id=f"job-{number}", restart="temporary", join_after=1))
    return len(worker._worker_context.background._names)


def start_beside_a_number(worker: Any) -> list[str]:
    threads = [Child(Thread.of(rest), id="rest-2"), rest, rest, Child(Thread.of(rest), id="rest-3x"), rest]
    return [worker.start_thread(one).path for one in threads]


def rest() -> None:
    worker = current_worker()
    assert worker is not None
    if not worker.path.rpartition("/")[2].startswith("job-"):
        worker.wait(60)


class Lets(Thread):
    """Calls each message with itself."""

    def on_receive(self, message: Any) -> Any:
        return message(self)


def test_the_names_that_were_given_to_threads_are_not_kept_when_the_threads_have_ended() -> None:
    with Supervisor("app", Lets).start() as running:
        assert running["lets"].ask(start_under_many_names, timeout=15) == 0


def test_a_default_name_passes_over_a_name_that_was_given() -> None:
    with Supervisor("app", Lets).start() as running:
        paths = running["lets"].ask(start_beside_a_number, timeout=15)
        assert [path.rpartition("/")[2] for path in paths] == ["rest-2", "rest", "rest-3", "rest-3x", "rest-4"]


class TellsItself(Thread):
    """A background thread that uses its own ref, and tries what needs an address in the tree."""

    def on_start(self) -> None:
        self.heard: list[Any] = []
        self.ref.tell("told")
        self.send_after(0, "sent", to=self.ref)

    def on_receive(self, message: Any) -> Any:
        if message == "heard":
            return self.heard, str(self.ref.status), self.ref.incarnation
        if callable(message):
            return message(self)
        self.heard.append(message)
        return None


def use_own_ref(worker: Any) -> Any:
    thread = worker.start_thread(TellsItself)
    heard = eventually(lambda: len((answer := thread.ask("heard"))[0]) == 2 and answer)
    try:
        pickle.dumps(thread.ask(lambda own: own.ref))
    except TypeError as error:
        return heard, str(error)
    return heard, "sent"


NEED_AN_ADDRESS = {
    "join_group()": lambda own: own.join_group("readers"),
    "subscribe()": lambda own: own.subscribe("news"),
    "monitor()": lambda own: own.monitor(own.ref),
    "link()": lambda own: own.link(own.ref),
    "trap_exits": lambda own: setattr(own, "trap_exits", True),
}


def try_what_needs_an_address(worker: Any) -> dict[str, str]:
    thread = worker.start_thread(TellsItself)
    told = {}
    for name, use in NEED_AN_ADDRESS.items():

        def attempt(own: Any, use: Any = use) -> str:
            try:
                return str(use(own))
            except RuntimeError as error:
                return str(error)

        told[name] = thread.ask(attempt)
    return told


@KINDS
def test_the_own_ref_of_a_thread_can_be_used_in_its_process(cls: Any, tmp_path: Path) -> None:
    with Supervisor("app", Child(cls, args=(str(tmp_path),), id="worker")).start() as running:
        (heard, status, incarnation), sent = running["worker"].ask(("call", use_own_ref), timeout=20.0)
    assert (sorted(heard), status, incarnation) == (["sent", "told"], "running", 1)
    assert sent == "'app/worker/tells_itself' is a background thread, which is known in its own process only"


@KINDS
def test_a_thread_tells_what_it_cannot_do_without_an_address(cls: Any, tmp_path: Path) -> None:
    with Supervisor("app", Child(cls, args=(str(tmp_path),), id="worker")).start() as running:
        told = running["worker"].ask(("call", try_what_needs_an_address), timeout=20.0)
    why = "is not for a background thread, which has no address in the tree; let its worker do it"
    assert told == {name: f"TellsItself.{name} {why}" for name in NEED_AN_ADDRESS}


def take_any(**named: str) -> None:
    tick(named["what"], " ".join(sorted(named)))


@KINDS
def test_an_argument_of_a_threads_function_may_have_any_name(cls: Any, tmp_path: Path) -> None:
    with Supervisor("app", Child(cls, args=(str(tmp_path),), id="worker")).start() as running:
        running["worker"].ask(("start_named", take_any, {"what": str(tmp_path), "self": "b"}))
        eventually(lambda: any(line.startswith("self what ") for line in notes(tmp_path)))


@KINDS
def test_a_thread_that_is_done_is_not_started_again_if_it_is_transient(cls: Any, tmp_path: Path) -> None:
    once = Child(Thread.of(tick, str(tmp_path), "once"), id="once", restart="transient", join_after=1)
    with Supervisor("app", Child(cls, args=(str(tmp_path),), id="worker")).start() as running:
        worker = running["worker"]
        for _ in range(2):  # the name is free again when the first one is done
            worker.ask(("start", once))
            assert worker.ask(("join",), 15) == (Normal(), False)
        assert notes(tmp_path).count(f"once {worker.pid}") == 2


@KINDS
def test_a_thread_that_hangs_is_abandoned_and_replaced(cls: Any, tmp_path: Path) -> None:
    hangs = Child(Thread.of(hang_once, str(tmp_path)), id="hangs", loop_timeout=0.2)
    with Supervisor("app", Child(cls, args=(str(tmp_path),), id="worker")).start() as running:
        worker = running["worker"]
        worker.ask(("start", hangs))
        eventually(lambda: f"again {worker.pid}" in notes(tmp_path))
        report = eventually(running.crashes)[0]
        assert (report.path, report.reason_kind, report.verdict) == ("app/worker/hangs", "Hung", "restarts")
        assert "hang_once" in report.traceback
        gate.set()
    eventually(lambda: not threads_below("app/worker"))


def hang_once(folder: str) -> None:
    if not Path(folder, "hung").exists():
        Path(folder, "hung").touch()
        gate.wait()
    tick(folder, "again")


# ---------------------------------------------------------------- how they end
@KINDS
def test_a_thread_that_does_not_end_in_time_is_abandoned_and_the_worker_ends_cleanly(cls: Any, tmp_path: Path) -> None:
    child = Child(cls, args=(str(tmp_path),), id="worker", shutdown=2.0)
    with Supervisor("app", child).start() as running:
        worker = running["worker"]
        worker.ask(("start", stay_for_ever))
        worker.ask(("start", Noting, str(tmp_path)))
        running.terminate_child("worker")
        assert running.which_children()[0].last_exit == Shutdown()
        assert notes(tmp_path)[-2:] == ["worker finishes", "noting finishes"]
        gate.set()
        eventually(lambda: not threads_below("app/worker"))


@KINDS
@pytest.mark.parametrize("how", ["force", "crash"])
def test_threads_end_with_a_worker_that_ends_in_another_way(cls: Any, how: str, tmp_path: Path) -> None:
    child = Child(cls, args=(str(tmp_path),), id="worker", restart="temporary")
    with Supervisor("app", child).start() as running:
        worker = running["worker"]
        worker.ask(("start", tick, str(tmp_path)))
        pid = worker.pid
        worker.tell((how,))
        reason = worker.join(15)
        assert reason == Shutdown("forced") if how == "force" else isinstance(reason, Crashed)
        if cls is InAProcess:
            assert pid is not None
            wait_gone(pid)
        eventually(lambda: not threads_below("app/worker"))
        assert [report.path for report in running.crashes()] == ([] if how == "force" else ["app/worker"])


def threads_below(path: str) -> list[str]:
    return sorted(one.name for one in threading.enumerate() if one.name.startswith(f"{path}/"))


def test_a_killed_process_takes_its_threads_along_and_its_successor_has_new_ones(tmp_path: Path) -> None:
    child = Child(StartsOne, args=(str(tmp_path),), id="worker")
    with Supervisor("app", child).start() as running:
        worker = running["worker"]
        first = worker.pid
        assert first is not None
        eventually(lambda: f"tick {first}" in notes(tmp_path))
        os.kill(first, signal.SIGKILL)
        wait_gone(first)
        eventually(lambda: worker.pid not in (None, first))
        eventually(lambda: f"tick {worker.pid}" in notes(tmp_path))
        assert worker.ask(("threads",)) == ["app/worker/tick#1"]


class StartsOne(InAProcess):
    def on_start(self) -> None:
        self.start_thread(tick, self.folder)


def test_the_threads_of_an_abandoned_thread_end(tmp_path: Path) -> None:
    child = Child(InAThread, args=(str(tmp_path),), id="worker", receive_timeout=1.0)
    with Supervisor("app", child).start() as running:
        worker = running["worker"]
        worker.ask(("start", tick, str(tmp_path)))
        worker.tell(("hang",))
        eventually(lambda: worker.incarnation == 2 and worker.is_alive())
        eventually(lambda: not threads_below("app/worker"))
        gate.set()
        eventually(lambda: not [one for one in threading.enumerate() if one.name == "app/worker#1"])


# ---------------------------------------------------------------- who they are
class Knows(Process):
    restart = "transient"

    def on_start(self) -> None:
        self.answers: list[Any] = []
        self.start_thread(Child(Thread.of(self.know), id="knows"))

    def know(self) -> None:
        worker = current_worker()
        assert worker is not None
        self.answers.append((worker.path, worker is not self, worker.get_current_loop(), Process.get_current_loop()))
        worker.start_thread(Child(Thread.of(self.know_below), id="below"))
        worker.wait(60)

    def know_below(self) -> None:
        worker = current_worker()
        assert worker is not None
        self.answers.append((worker.path, Process.get_pid() == os.getpid()))
        worker.wait(60)

    def loop(self) -> None:
        worker = current_worker()
        assert worker is self
        if len(self.answers) == 2:
            self.rejoin()
        self.wait(0.01)

    def result(self) -> Any:
        return self.answers


def test_a_thread_is_a_worker_of_its_own_and_may_have_threads_itself() -> None:
    with Supervisor("app", Knows()).start() as running:
        assert running["knows"].result(15) == [("app/knows/knows", True, 1, 1), ("app/knows/knows/below", True)]


class Awaits(Process):
    restart = "transient"

    async def on_start(self) -> None:
        self.seen = asyncio.Event()
        self.event_loop = asyncio.get_running_loop()
        self.start_thread(self.poke)

    def poke(self) -> None:
        self.event_loop.call_soon_threadsafe(self.seen.set)
        worker = current_worker()
        assert worker is not None
        worker.wait(60)

    async def loop(self) -> str:
        await self.seen.wait()
        self.rejoin()
        return "seen"


def test_an_async_worker_may_have_background_threads() -> None:
    with Supervisor("app", Awaits()).start() as running:
        assert running["awaits"].result(15) == "seen"
        assert running["awaits"].join(15) == Normal()


class StartsTooLate(Process):
    restart = "transient"

    def __init__(self, error: Path) -> None:
        self.error = error

    def on_start(self) -> None:
        self.start_thread(LateStart(self, self.error))

    def loop(self) -> None:
        self.rejoin()


class LateStart(Thread):
    """Tries to start a thread of its worker when that is about to end."""

    def __init__(self, worker: Any, error: Path) -> None:
        self.worker, self.error = worker, error

    def loop(self) -> None:
        self.wait(60)

    def on_finish(self) -> None:
        try:
            self.worker.start_thread(stay_for_ever)
        except WorkerDead as error:
            self.error.write_text(str(error))


def test_no_thread_is_started_when_the_worker_ends(tmp_path: Path) -> None:
    with Supervisor("app", StartsTooLate(tmp_path / "error")).start() as running:
        assert running["starts_too_late"].join(15) == Normal()
    assert (tmp_path / "error").read_text() == "'app/starts_too_late' ends, so it can start no background thread"


class EndsAtOnce(Thread):
    restart = "temporary"

    def __init__(self, workers: list[Any]) -> None:
        self.workers = workers

    def on_start(self) -> None:
        self.workers.append(self)

    def loop(self) -> None:
        self.rejoin()


def test_no_thread_is_started_when_the_worker_has_ended_without_having_had_one() -> None:
    workers: list[Any] = []
    with Supervisor("app", EndsAtOnce(workers), Supervisor("others")).start() as running:
        assert running["ends_at_once"].join(15) == Normal()
        with pytest.raises(WorkerDead, match="'app/ends_at_once' ends, so it can start no background thread"):
            workers[0].start_thread(stay_for_ever)
