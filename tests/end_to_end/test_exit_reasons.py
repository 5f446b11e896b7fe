"""Each kind of end of a worker has its own exit reason."""

import ctypes
import os
import signal
import sys
import threading
import types

import pytest

from suitkaise import (
    Child,
    Crashed,
    ExitCode,
    GaveUp,
    Killed,
    Normal,
    Process,
    Shutdown,
    Signaled,
    Supervisor,
    Thread,
    WorkerFailed,
)
from suitkaise.events import ChildStopError, ChildStopped
from tests.end_to_end.kinds import next_exit
from tests.sample_workers import Echo
from tests.support import eventually

pytestmark = pytest.mark.usefixtures("one_runtime_for_all")

LONG = 200_000  # bytes: several reads of the wire; an exit reason has no longer text complete


class OddError(Exception):
    def __init__(self, first, second):
        super().__init__(f"{first} and {second}")
        self.second = second


class Unpicklable(Exception):
    def __reduce__(self):
        raise TypeError("not me")


class Does(Process):
    """Ends in the way that a message names; notes in a file which hooks ran."""

    def __init__(self, notes=None):
        self.notes = notes

    def note(self, word):
        with open(self.notes, "a") as file:
            file.write(word + "\n")

    def on_finish(self):
        if self.notes:
            self.note("on_finish")

    def on_failure(self, error):
        if self.notes:
            self.note(f"on_failure {type(error).__name__}")

    def on_receive(self, message):
        match message:
            case "rejoin":
                self.rejoin()
            case "force":
                self.force_finish()
            case "crash":
                raise ValueError("bad value")
            case "odd":
                raise OddError("one", "two")
            case "unpicklable":
                raise Unpicklable("deep trouble")
            case "os._exit":
                os._exit(3)
            case "sys.exit":
                sys.exit(3)
            case "sys.exit text":
                sys.exit("with words")
            case "sys.exit 0":
                sys.exit()
            case "keyboard":
                raise KeyboardInterrupt
            case "segv":
                os.kill(self.pid, signal.SIGSEGV)
            case "abort":
                os.abort()
            case int():
                os.kill(os.getpid(), message)


class Waits(Thread):
    def on_start(self):
        self.thread = threading.get_ident()

    def on_receive(self, message):
        return self.thread


def end(message, *, notes=None, restart="temporary"):
    """Send `message` to a worker, and return the reason with which it ends."""
    tree = Supervisor("tree", Child(Does(notes), restart=restart, shutdown=1.0), max_restarts=9)
    with tree.start() as running, running.events() as events:
        running["does"].tell(message)
        return next_exit(events)


@pytest.mark.parametrize(
    "message, reason",
    [
        ("rejoin", Normal()),
        ("force", Shutdown("forced")),
        ("os._exit", ExitCode(3)),
        ("sys.exit", ExitCode(3)),
        ("sys.exit text", ExitCode(1)),
        ("sys.exit 0", Normal()),
        ("segv", Signaled(signal.SIGSEGV)),
        ("abort", Signaled(signal.SIGABRT)),
        (signal.SIGKILL, Signaled(signal.SIGKILL)),
        (signal.SIGTERM, Signaled(signal.SIGTERM)),
        (signal.SIGUSR2, Signaled(signal.SIGUSR2)),
    ],
)
def test_each_end_of_a_worker_has_its_exit_reason(message, reason):
    assert end(message) == reason


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_sigint_and_sighup_do_not_end_a_worker(number):
    with Supervisor("tree", Does()).start() as running:
        os.kill(running["does"].pid, number)
        assert running["does"].ask("nothing") is None
        assert running.which_children()[0].restarts == 0


def test_a_crash_has_the_original_exception_and_the_remote_traceback():
    reason = end("crash")
    assert isinstance(reason, Crashed)
    assert reason.phase == "on_receive"
    assert type(reason.error) is ValueError
    assert str(reason.error) == "bad value"
    assert 'raise ValueError("bad value")' in reason.traceback
    assert "test_exit_reasons.py" in reason.traceback


def test_an_exception_with_a_constructor_of_its_own_keeps_its_type_and_attributes():
    reason = end("odd")
    assert type(reason.error) is OddError
    assert str(reason.error) == "one and two"
    assert reason.error.second == "two"


def test_an_exception_that_cannot_be_pickled_arrives_as_worker_failed():
    reason = end("unpicklable")
    assert isinstance(reason.error, WorkerFailed)
    assert str(reason.error) == "Unpicklable: deep trouble"
    assert "Unpicklable: deep trouble" in reason.traceback


def test_a_keyboard_interrupt_is_a_crash_like_any_other():
    assert type(end("keyboard").error) is KeyboardInterrupt


def test_on_finish_runs_after_sigterm_and_on_failure_after_a_crash(tmp_path):
    assert end(signal.SIGTERM, notes=str(tmp_path / "a")) == Signaled(15)
    assert (tmp_path / "a").read_text() == "on_finish\n"
    end("crash", notes=str(tmp_path / "b"))
    assert (tmp_path / "b").read_text() == "on_failure ValueError\n"
    end("force", notes=str(tmp_path / "c"))
    assert not (tmp_path / "c").exists()


def test_a_transient_worker_that_gets_sigterm_is_restarted():
    tree = Supervisor("tree", Child(Echo, restart="transient"))
    with tree.start() as running, running.events() as events:
        first = running["echo"].pid
        os.kill(first, signal.SIGTERM)
        assert next_exit(events) == Signaled(15)
        assert running["echo"].ask("pid") != first


def test_ref_kill_is_a_fault_with_the_reason_killed():
    with Supervisor("tree", Echo()).start() as running, running.events() as events:
        running["echo"].kill()
        assert next_exit(events) == Killed("ref.kill()")
        assert running["echo"].ask("back?") == "back?"


def busy(flag):
    flag.touch()
    while True:
        pass


def test_a_worker_that_does_not_stop_in_time_is_killed_and_that_is_an_error(tmp_path):
    child = Child(busy, args=(tmp_path / "flag",), id="busy", shutdown=0.2)
    with Supervisor("tree", child).start() as running, running.events() as events:
        eventually((tmp_path / "flag").exists)
        running.terminate_child("busy")
        event = events.get(15)
    assert isinstance(event, ChildStopError)
    assert event.reason == Killed("shutdown timeout")


def test_a_brutal_kill_is_expected_and_no_error(tmp_path):
    child = Child(Does(str(tmp_path / "notes")), shutdown="brutal_kill")
    with Supervisor("tree", child).start() as running, running.events() as events:
        running.terminate_child("does")
        event = events.get(15)
    assert isinstance(event, ChildStopped)
    assert isinstance(event.reason, Killed)
    assert not (tmp_path / "notes").exists()


class CrashesIn(Process):
    def __init__(self, phase):
        self.phase = phase

    def crash(self, phase):
        if phase == self.phase:
            raise LookupError(phase)

    def on_start(self):
        self.crash("on_start")

    def before_loop(self):
        self.crash("before_loop")

    def loop(self):
        self.crash("loop")

    def after_loop(self):
        self.crash("after_loop")
        self.rejoin()

    def on_finish(self):
        self.crash("on_finish")

    def result(self):
        self.crash("result")


@pytest.mark.parametrize("phase", ["before_loop", "loop", "after_loop", "on_finish", "result"])
def test_a_crash_names_the_hook(phase):
    with Supervisor("tree").start() as running, running.events() as events:
        running.start_child(Child(CrashesIn(phase), restart="temporary"))
        reason = next_exit(events)
    assert reason.phase == phase
    assert type(reason.error) is LookupError


def crash_of(worker: type[Process]) -> Crashed:
    with Supervisor("app", Child(worker, id="worker"), max_restarts=0).start() as running:
        reason = running.wait(10)
    assert isinstance(reason, Shutdown)
    assert isinstance(reason.detail, GaveUp)
    assert isinstance(reason.detail.reason, Crashed)
    return reason.detail.reason


def test_a_long_exception_text_arrives_complete() -> None:
    class Verbose(Process):
        def loop(self) -> None:
            raise ValueError("x" * LONG)

    assert len(str(crash_of(Verbose).error)) == LONG


def test_an_exception_that_the_hub_cannot_import_is_still_a_crash() -> None:
    class Plugged(Process):
        def loop(self) -> None:
            plugin = sys.modules["a_plugin"] = types.ModuleType("a_plugin")
            exec("class Strange(Exception): pass", vars(plugin))
            raise plugin.Strange

    assert "a_plugin" in str(crash_of(Plugged).error)


@pytest.mark.parametrize("error", [SystemExit, TimeoutError])
def test_an_exception_that_another_thread_raises_in_a_waiting_worker_is_a_crash(error):
    with Supervisor("tree", Waits).start() as running, running.events() as events:
        thread = running["waits"].ask("your thread?")
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(error))
        running["waits"].tell("wake up")
        reason = next_exit(events)
        assert isinstance(reason, Crashed)
        assert (reason.phase, str(reason.error)) == ("waiting", f"internal error: {error.__name__}")
        assert running["waits"].ask("your thread?") > 0
