"""Workers in processes of their own: hooks, attributes, ways to finish, results."""

import logging
import math
import os
import sys
import threading
import time
from pathlib import Path

import pytest

from suitkaise import Child, Normal, Process, Shutdown, Supervisor, Thread, WorkerFailed
from suitkaise.engines.threads import ThreadEngine
from tests.sample_workers import Echo
from tests.support import ROOT, eventually, run_program

pytestmark = pytest.mark.usefixtures("one_runtime_for_all")


class Journal(Process):
    """Records its hooks; calls `what` in the hook `where`, in loop 2 or outside of the loops."""

    def __init__(self, file, where=None, what=None):
        self.file, self.where, self.what = file, where, what

    def note(self, hook):
        with open(self.file, "a") as file:
            file.write(f"{hook}{self.current_loop or ''}\n")
        if hook == self.where and (self.current_loop in (0, 2) or hook == "on_finish"):
            getattr(self, self.what)()

    def on_start(self):
        self.note("on_start")

    def before_loop(self):
        self.note("before_loop")

    def loop(self):
        self.note("loop")

    def after_loop(self):
        self.note("after_loop")

    def on_finish(self):
        self.note("on_finish")

    def result(self):
        return open(self.file).read().split()


def run_journal(tmp_path, where, what, **options):
    """Run a journal that calls `what` in `where`; return its exit reason and the hooks that ran."""
    file = tmp_path / "journal"
    child = Child(Journal, args=(str(file), where, what), restart="transient", **options)
    with Supervisor("tree", child).start() as running:
        reason = running["journal"].join(15)
    return reason, file.read_text().split()


LOOP1 = ["before_loop1", "loop1", "after_loop1"]


@pytest.mark.parametrize(
    "where, hooks",
    [
        ("on_start", ["on_start", "on_finish"]),
        ("before_loop", ["on_start", *LOOP1, "before_loop2", "loop2", "after_loop2", "on_finish2"]),
        ("loop", ["on_start", *LOOP1, "before_loop2", "loop2", "after_loop2", "on_finish2"]),
        ("after_loop", ["on_start", *LOOP1, "before_loop2", "loop2", "after_loop2", "on_finish2"]),
    ],
)
def test_rejoin_in_each_hook_ends_the_worker_after_that_loop_with_on_finish(tmp_path, where, hooks):
    assert run_journal(tmp_path, where, "rejoin") == (Normal(), hooks)


@pytest.mark.parametrize(
    "where, hooks",
    [
        ("on_start", ["on_start", "on_finish"]),
        ("before_loop", ["on_start", *LOOP1, "before_loop2", "loop2", "on_finish2"]),
        ("loop", ["on_start", *LOOP1, "before_loop2", "loop2", "on_finish2"]),
        ("after_loop", ["on_start", *LOOP1, "before_loop2", "loop2", "after_loop2", "on_finish2"]),
    ],
)
def test_skip_and_rejoin_in_each_hook_skips_after_loop_and_runs_on_finish(tmp_path, where, hooks):
    assert run_journal(tmp_path, where, "skip_and_rejoin") == (Normal(), hooks)


@pytest.mark.parametrize(
    "where, hooks",
    [
        ("before_loop", ["on_start", *LOOP1, "before_loop2"]),
        ("loop", ["on_start", *LOOP1, "before_loop2", "loop2"]),
        ("after_loop", ["on_start", *LOOP1, "before_loop2", "loop2", "after_loop2"]),
    ],
)
def test_force_finish_in_each_hook_runs_no_further_hook(tmp_path, where, hooks):
    assert run_journal(tmp_path, where, "force_finish") == (Shutdown("forced"), hooks)


def test_join_after_ends_a_worker_after_that_many_loops(tmp_path):
    hooks = ["on_start", *LOOP1, "before_loop2", "loop2", "after_loop2", "on_finish2"]
    assert run_journal(tmp_path, None, None, join_after=2) == (Normal(), hooks)


def test_join_in_ends_a_worker_that_waits_for_messages():
    with Supervisor("tree", Child(Echo, join_in=0.2, restart="transient")).start() as running:
        assert running["echo"].join(15) == Normal()


class Knows(Process):
    """Collects everything that it knows of itself."""

    def __init__(self):
        super().__init__(num_loops=3)
        self.seen = []

    def before_loop(self):
        assert self.current_loop == self.get_current_loop()

    def loop(self):
        time.sleep(0.002)
        return self.current_loop * 10

    def after_loop(self):
        facts = self.current_loop, self.last_loop, self.last_result, self.last_loop_time > 0.001
        self.seen.append(facts)

    def result(self):
        report = self.generate_loop_time_report("title")
        return {
            "seen": self.seen, "name": self.name, "path": self.path, "pid": self.pid == os.getpid(), "copy": self.copy,
            "num_loops": self.num_loops, "metadata": self.metadata, "recalled": self.recalled,
            "report": (report["name"], report["loops"]), "ref": self.ref.path,
        }  # fmt: skip


def test_a_worker_knows_its_path_pid_and_loops():
    tree = Supervisor("tree", Child(Knows, copies=2, restart="transient"))
    with tree.start() as running:
        facts = running["knows-1"].result(15)
        pid = facts["metadata"].pop("pid")
    assert isinstance(pid, int)
    assert facts == {
        "seen": [(1, False, 10, True), (2, False, 20, True), (3, True, 30, True)],
        "name": "knows-1", "path": "tree/knows-1", "pid": True, "copy": 1, "num_loops": 3,
        "metadata": {"name": "knows-1", "current_loop": 3, "num_loops": 3, "remove_on_process_join": True},
        "recalled": None, "report": ("title", 3), "ref": "tree/knows-1",
    }  # fmt: skip


class Recalled(Echo):
    def on_receive(self, message):
        return self.recalled and (self.recalled.attempt, str(self.recalled.reason))


def test_a_worker_knows_of_the_incarnation_before():
    with Supervisor("tree", Recalled()).start() as running:
        assert running["recalled"].ask("?") is None
        running["recalled"].kill()
        eventually(lambda: running["recalled"].incarnation == 2)
        assert running["recalled"].ask("?") == (1, "killed (ref.kill())")


class LooksAtItself(Thread):
    """Uses its own ref in its first hook."""

    def __init__(self, seen):
        self.seen = seen

    def on_start(self):
        self.seen.append(self.ref.incarnation)
        self.ref.tell(self.ref.incarnation)

    def on_receive(self, message):
        self.seen.append(message)


def test_the_ref_of_a_worker_tells_its_own_incarnation_from_the_first_hook_on(monkeypatch):
    """However far the worker has come when its supervisor goes on."""

    def spawn(engine, launch):
        handle = start(engine, launch)
        handle.ready.result(15)
        return handle

    start = ThreadEngine.spawn
    monkeypatch.setattr(ThreadEngine, "spawn", spawn)
    seen = []
    with Supervisor("tree", Child(LooksAtItself(seen), id="it")).start() as running:
        eventually(lambda: seen == [1, 1])
        running.recall("it")
        eventually(lambda: seen == [1, 1, 2, 2])
        running.terminate_child("it")
        running.restart_child("it")  # the address was over
        eventually(lambda: seen == [1, 1, 2, 2, 3, 3])


class Dunders(Process):
    def __init__(self):
        self.hooks = []

    def __onstart__(self):
        self.hooks.append("start")

    def __beforeloop__(self):
        self.hooks.append("before")

    def __loop__(self):
        self.hooks.append("loop")
        self.rejoin()

    def __afterloop__(self):
        self.hooks.append("after")

    def __onfinish__(self):
        self.hooks.append("finish")

    def __result__(self):
        return self.hooks


def test_hooks_with_dunder_names_run_in_order():
    with Supervisor("tree", Child(Dunders, restart="transient")).start() as running:
        assert running["dunders"].result(15) == ["start", "before", "loop", "after", "finish"]


class Waits(Process):
    def __init__(self, flag):
        self.flag = flag

    def loop(self):
        self.flag.touch()
        return self.wait(60)


def test_wait_returns_true_when_the_worker_gets_a_stop_request(tmp_path):
    with Supervisor("tree", Child(Waits(tmp_path / "flag"), restart="transient")).start() as running:
        ref = running["waits"]
        eventually((tmp_path / "flag").exists)
        running.terminate_child("waits")
        assert ref.join(15) == Shutdown()
        assert ref.result(1) is True


def double(n):
    return 2 * n


def test_a_function_is_a_worker_and_its_value_the_result():
    tree = Supervisor(
        "tree", Child(double, args=(21,), id="p", restart="transient", join_after=1),
        Child(Thread.of(double, 4), id="t", restart="transient", join_after=1),
    )  # fmt: skip
    with tree.start() as running:
        assert running["p"].result(15) == 42
        assert running["t"].result(15) == 8


class FailsFirst(Process):
    def loop(self):
        if self.recalled is None:
            raise LookupError("the first time")
        return "in the end"


def test_result_waits_for_the_last_incarnation():
    with Supervisor("tree", Child(FailsFirst, restart="transient", join_after=1)).start() as running:
        assert running["fails_first"].result(15) == "in the end"


def test_the_result_of_a_worker_that_crashed_is_an_error_with_its_traceback():
    with Supervisor("tree").start() as running:
        ref = running.start_child(Child(FailsFirst, restart="temporary", id="x"))
        with pytest.raises(WorkerFailed, match="the first time") as caught:
            ref.result(15)
        assert "LookupError: the first time" in caught.value.traceback


class Logs(Process):
    def on_receive(self, message):
        logging.getLogger("mine").warning("said %s", message, extra={"words": (message, 7)})
        self.log.warning("through structlog", word=message)


def test_log_records_of_a_worker_reach_the_logging_of_the_hub(caplog):
    with Supervisor("tree", Logs()).start() as running:
        running["logs"].ask("a word")
        pid = running["logs"].pid
    [record] = [record for record in caplog.records if record.name == "mine"]
    assert record.getMessage() == "said a word"
    assert (record.process, record.module, record.words) == (pid, "test_workers", ("a word", 7))
    assert record.processName == "tree/logs"  # and not MainProcess, as in the worker
    [bound] = [record.getMessage() for record in caplog.records if record.name == "suitkaise.worker"]
    assert "through structlog" in bound
    assert "tree/logs" in bound


class Lingers(Process):
    def __init__(self, file):
        self.file = file

    def on_start(self):
        threading.Thread(target=self.later).start()

    def later(self):
        threading.Event().wait(0.3)
        Path(self.file).write_text("the process has waited for the thread")


def test_the_process_waits_for_a_non_daemon_thread(tmp_path):
    with Supervisor("tree", Lingers(str(tmp_path / "file"))).start():
        pass
    assert (tmp_path / "file").read_text() == "the process has waited for the thread"


def test_the_output_of_a_worker_is_complete_when_the_program_has_ended():
    program = """
from suitkaise import Child, Process, Supervisor

class Prints(Process):
    def loop(self):
        print("printed", end=" ")
        self.rejoin()

with Supervisor("tree", Child(Prints, restart="transient")).start() as running:
    running["prints"].join(15)
"""
    assert run_program(program, env={"PYTHONUNBUFFERED": None}).check().stdout == "printed "


def test_num_loops_is_infinite_by_default():
    assert Echo().num_loops == math.inf


def test_a_worker_has_the_arguments_of_the_program():
    with Supervisor("tree", Child(arguments, restart="transient", join_after=1)).start() as running:
        assert running["arguments"].result(15) == (sys.argv, os.getcwd())


def arguments():
    return sys.argv, os.getcwd()


def test_a_signal_handler_may_log_while_its_worker_logs():
    program = Path(__file__).parent / "programs" / "noisy_signals.py"
    run = run_program(program, timeout=60, env={"PYTHONPATH": str(ROOT)}).check()
    assert int(run.stdout.removeprefix("signals ")) > 0
