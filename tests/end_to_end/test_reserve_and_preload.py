"""The process in reserve and preloaded modules: they make starts quick and change nothing else."""

import fcntl
import logging
import os
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from suitkaise import Child, Process, SpecError, Supervisor, WorkerDead, preload
from suitkaise.runtime import runtime
from tests.end_to_end.kinds import keeper_pid, notes
from tests.sample_workers import Echo, Recorder
from tests.support import eventually, wait_gone


def reserve(running) -> int:
    """Wait for a process in reserve, and return its pid."""
    workers = {ref.pid for ref in running}

    def others():
        return {child.pid for child in psutil.Process(keeper_pid()).children()} - workers

    return eventually(others).pop()


class Modules(Process):
    """Answers which process has imported a module, or whether a module is imported."""

    def on_receive(self, message):
        match message:
            case ("imported by", name):
                return __import__(name).IMPORTED_BY
            case ("there", name):
                return name in sys.modules
            case ("preload", name):
                preload(name)
            case "log":
                self.log.info("hello")
        return None


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Return a function that writes a module with a new name; the module has the pid of the process that imports it."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def make(name, *lines):
        name = f"{name}_{os.path.basename(tmp_path)}"
        text = "\n".join(("import os", *lines, "IMPORTED_BY = os.getpid()"))
        (tmp_path / f"{name}.py").write_text(text)
        return name

    return make


# ------------------------------------------------------------ the process in reserve
def test_a_worker_that_starts_after_a_quiet_moment_is_the_process_in_reserve():
    with Supervisor("tree").start() as running:
        waiting = reserve(running)
        assert running.start_child(Child(Echo)).ask("pid") == waiting
        assert reserve(running) != waiting


def test_a_start_works_when_the_process_in_reserve_was_killed():
    with Supervisor("tree", max_restarts=0).start() as running:
        waiting = reserve(running)
        os.kill(waiting, signal.SIGKILL)
        eventually(lambda: psutil.Process(waiting).status() == psutil.STATUS_ZOMBIE)
        eventually(lambda: len(os.listdir(f"/proc/{waiting}/task")) == 1)  # its other threads end a little later
        assert running.start_child(Child(Echo)).ask("hello") == "hello"
        wait_gone(waiting)


def test_the_process_in_reserve_ends_with_the_keeper_and_with_the_tree():
    with Supervisor("tree").start() as running:
        first, old = reserve(running), keeper_pid()
        os.kill(old, signal.SIGKILL)
        wait_gone(first)
        eventually(lambda: keeper_pid() != old)
        second = reserve(running)
    wait_gone(second)


def test_twelve_workers_that_start_at_once_have_processes_of_their_own():
    with Supervisor("tree", *(Child(Echo, id=f"e{n}") for n in range(12))).start() as running:
        assert len({running[f"e{n}"].ask("pid") for n in range(12)}) == 12


# ------------------------------------------------------------ never two incarnations at a time
def test_a_worker_forked_right_before_the_keeper_dies_is_kept(tmp_path):
    hub_may_go_on = threading.Event()
    with Supervisor("tree").start() as running, ThreadPoolExecutor() as pool:
        reserve(running)
        runtime.current().reactor.call_soon_threadsafe(hub_may_go_on.wait)
        started = pool.submit(running.start_child, Child(Recorder, args=(tmp_path,)))
        eventually(lambda: (tmp_path / "notes").exists())
        os.kill(keeper_pid(), signal.SIGKILL)
        wait_gone(keeper_pid())
        hub_may_go_on.set()
        assert started.result(10).ask("hello") == "hello"
        assert notes(tmp_path) == ["start recorder"]


class Alone(Process):
    """Leaves a file behind if another incarnation of it is still there when it starts."""

    def __init__(self, folder):
        self.folder = folder

    def on_start(self):
        self.lock = open(self.folder / self.name, "w")  # noqa: SIM115
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            (self.folder / f"two of {self.name}").touch()

    def on_receive(self, message):
        return message


def answers(ref):
    try:
        return ref.ask("there?", timeout=20.0) == "there?"  # after a new keeper has come up
    except WorkerDead:  # the hub had not noticed its end yet
        return False


@pytest.mark.chaos
def test_two_incarnations_never_run_at_once_whenever_the_keeper_is_killed(tmp_path):
    children = [Child(Alone, args=(tmp_path,), id=f"alone-{n}") for n in range(4)]
    with Supervisor("tree", *children, max_restarts=1000).start() as running:
        for round in range(4):
            for child in children:
                pid = running[child.id].pid
                if pid is not None:
                    os.kill(pid, signal.SIGKILL)
                if child.id == f"alone-{round % 4}":
                    os.kill(keeper_pid(), signal.SIGKILL)
            for child in children:
                eventually(lambda id=child.id: answers(running[id]), timeout=20)
    assert not list(tmp_path.glob("two of *"))


# ------------------------------------------------------------ preloading
def test_a_preloaded_module_is_imported_once_for_all_starts(module):
    name = module("once")
    preload(name)
    with Supervisor("tree", Modules()).start() as running:
        assert running["modules"].ask(("imported by", name)) == keeper_pid()
        running["modules"].recall()
        assert running["modules"].ask(("imported by", name)) == keeper_pid()


def test_what_python_ignores_in_its_search_path_harms_no_start(tmp_path, monkeypatch, module):
    class Text(str):
        """As libraries have it for their paths and names."""

        __slots__ = ()

    name = module("named_by_another_type")
    monkeypatch.setattr(sys, "path", [*sys.path, None, b"bytes", 7, tmp_path, Text(tmp_path)])
    preload(Text(name))
    with Supervisor("tree", Modules()).start() as running:
        assert running["modules"].ask(("imported by", name)) == keeper_pid()


def test_a_module_preloaded_while_a_tree_runs_is_imported_at_the_next_start(module):
    name = module("later")
    with Supervisor("tree", Modules()).start() as running:
        assert not running["modules"].ask(("there", name))
        preload(name)
        running["modules"].recall()
        assert running["modules"].ask(("imported by", name)) == keeper_pid()


def test_a_worker_can_preload_for_later_workers(module):
    name = module("by_a_worker")
    with Supervisor("tree", Modules()).start() as running:
        running["modules"].ask(("preload", name))
        running["modules"].recall()
        assert running["modules"].ask(("imported by", name)) == keeper_pid()


def test_a_new_keeper_preloads_again(module):
    name = module("again")
    preload(name)
    with Supervisor("tree", Modules()).start() as running:
        old = keeper_pid()
        os.kill(old, signal.SIGKILL)
        eventually(lambda: keeper_pid() != old)
        running["modules"].recall()
        assert running["modules"].ask(("imported by", name)) == keeper_pid() != old


def test_a_module_that_cannot_be_preloaded_is_logged_and_harms_no_worker(module, caplog):
    name = module("failing", f"assert os.environ.get('SK_FAIL') != '{os.getpid()}', 'not here'")
    with caplog.at_level(logging.WARNING, "suitkaise.keeper"):
        os.environ["SK_FAIL"] = str(os.getpid())
        try:
            preload(name)
            with Supervisor("tree", Modules()).start() as running:
                assert running["modules"].ask(("there", name)) is False
                eventually(lambda: "AssertionError: not here" in caplog.text)
        finally:
            del os.environ["SK_FAIL"]
    assert name in caplog.text


def test_a_preloaded_module_that_starts_threads_is_logged(module, caplog):
    name = module("threads", "import threading", "threading.Thread(target=threading.Event().wait, daemon=True).start()")
    preload(name)
    with (
        caplog.at_level(logging.WARNING, "suitkaise.keeper"),
        Supervisor("tree", Modules()).start() as running,
    ):
        assert running["modules"].ask(("there", name))
        eventually(lambda: f"{name} starts threads when it is imported" in caplog.text)


def test_the_first_worker_that_logs_makes_structlog_ready_for_the_next():
    with Supervisor("tree", Modules()).start() as running:
        running["modules"].ask("log")
        running["modules"].recall()
        assert running["modules"].ask(("there", "structlog"))


@pytest.mark.parametrize(
    "wrong, message",
    [
        ("no_such_module", "preload: no module named 'no_such_module' can be found"),
        ("no_such_package.module", "preload: no module named 'no_such_package.module' can be found"),
        ("", "preload: no module named '' can be found"),
        ("__main__", "preload: __main__ is never imported again"),
        (os, "preload: modules must be names, not module"),
    ],
)
def test_a_wrong_argument_of_preload_is_refused_at_once(wrong, message):
    with pytest.raises(SpecError, match=message):
        preload(wrong)
