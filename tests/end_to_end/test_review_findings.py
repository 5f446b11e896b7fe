"""What a review found: each test showed a bug once."""

from __future__ import annotations

import logging
import multiprocessing
import os
import sys
import threading
import types
from pathlib import Path
from typing import Any

import pytest

from suitkaise import (
    AskTimeout,
    Child,
    Crashed,
    DeadlockError,
    GaveUp,
    Process,
    Reject,
    Shutdown,
    Supervisor,
    Thread,
    WorkerFailed,
    whereis,
)
from suitkaise.messaging import connection as outbox
from suitkaise.runtime import hub_server as desk
from tests.end_to_end.workers import Echo
from tests.support import eventually, run_program

LONG = 1_500_000  # more than a header of the wire holds elsewhere


class Unsendable(Exception):
    def __init__(self) -> None:
        super().__init__("it holds a lock")
        self.lock = threading.Lock()


class Handy(Process):
    """Does what it is asked to."""

    def on_receive(self, message: Any) -> Any:
        match message:
            case "log":
                logging.getLogger("handy").warning("y" * LONG)
            case "reject":
                raise Reject(Unsendable())
            case "wait":
                self.wait(5)
            case ("bytes", int(size)):
                return bytes(size)
            case ("ask", ref, what, float(timeout)):
                return len(ref.ask(what, timeout))
            case "terminate a child":
                return exit_code_of_a_terminated_child()
            case bytes():
                return len(message)
        return message


def says_so_and_waits(pipe: Any) -> None:
    pipe.send("up")
    threading.Event().wait()


def exit_code_of_a_terminated_child() -> int | None:
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    with ours, theirs:
        child = context.Process(target=says_so_and_waits, args=(theirs,))
        child.start()
        ours.recv()
    child.terminate()
    child.join(3.0)
    code = child.exitcode
    child.kill()
    child.join()
    return code


def gives_up_because_of(worker: type[Process]) -> Crashed:
    with Supervisor("app", Child(worker, id="worker"), max_restarts=0).start() as running:
        reason = running.wait(10)
    assert isinstance(reason, Shutdown)
    assert isinstance(reason.detail, GaveUp)
    assert isinstance(reason.detail.reason, Crashed)
    return reason.detail.reason


def test_an_exception_of_any_length_ends_its_worker() -> None:
    class Verbose(Process):
        def loop(self) -> None:
            raise ValueError("x" * LONG)

    assert len(str(gives_up_because_of(Verbose).error)) == LONG


def test_an_exception_that_the_hub_cannot_import_is_still_a_crash() -> None:
    class Plugged(Process):
        def loop(self) -> None:
            plugin = sys.modules["a_plugin"] = types.ModuleType("a_plugin")
            exec("class Strange(Exception): pass", vars(plugin))
            raise plugin.Strange

    assert "a_plugin" in str(gives_up_because_of(Plugged).error)


def test_a_long_log_line_does_not_break_the_connection_to_the_hub(caplog: pytest.LogCaptureFixture) -> None:
    with Supervisor("app", Handy).start() as running:
        running["handy"].ask("log")
        assert running["handy"].ask(1) == 1
    caplog.clear()


def test_a_message_that_is_longer_than_the_backlog_arrives_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "BACKLOG", 1 << 20)
    monkeypatch.setattr(desk, "BACKLOG", 1 << 20)
    with Supervisor("app", Handy, Child(Handy, id="other")).start() as running:
        assert running["handy"].ask(bytes(5 << 20), timeout=10) == 5 << 20
        assert running["handy"].ask(("ask", running["other"], ("bytes", 5 << 20), 10.0), timeout=10) == 5 << 20
        assert running["handy"].ask(1) == 1


def test_a_rejection_that_cannot_be_pickled_arrives_as_text_and_the_worker_lives() -> None:
    with Supervisor("app", Handy).start() as running:
        pid = running["handy"].pid
        with pytest.raises(WorkerFailed, match="it holds a lock"):
            running["handy"].ask("reject")
        assert running["handy"].pid == pid


def test_a_time_out_inside_a_handler_reaches_the_asker_as_that_time_out() -> None:
    with Supervisor("app", Handy, Child(Handy, id="other", shutdown="brutal_kill")).start() as running:
        with pytest.raises(AskTimeout) as caught:
            running["handy"].ask(("ask", running["other"], "wait", 0.01))
        assert caught.value.path == "app/other"


def test_messages_sent_right_after_a_kill_reach_the_next_incarnation() -> None:
    with Supervisor("app", Echo, max_restarts=100).start() as running:
        for number in range(5):
            running["echo"].kill()
            assert running["echo"].ask(number) == number


def test_sys_exit_in_a_callback_does_not_end_the_io_thread(caplog: pytest.LogCaptureFixture) -> None:
    with Supervisor("app", Echo).start() as running:
        running["echo"].ask_future(1).add_done_callback(lambda done: sys.exit(3))
        assert running["echo"].ask(2) == 2
    caplog.clear()


def test_repeated_waits_leave_no_callbacks_behind() -> None:
    with Supervisor("app", Echo).start() as running:
        before = len(running._root.exited._done_callbacks)
        for _ in range(10):
            with pytest.raises(AskTimeout):
                running.wait(0.001)
        assert len(running._root.exited._done_callbacks) == before


def test_processes_that_a_worker_forks_can_be_terminated() -> None:
    with Supervisor("app", Handy).start() as running:
        assert running["handy"].ask("terminate a child") == -15


def test_processes_that_a_program_forks_while_it_runs_a_tree_can_be_terminated() -> None:
    codes: list[int | None] = []

    class Forks(Thread):
        restart = "transient"
        significant = True

        def loop(self) -> None:
            codes.append(exit_code_of_a_terminated_child())
            self.rejoin()

    Supervisor("app", Forks, auto_shutdown="any_significant").run()
    assert codes == [-15]


def test_a_forked_child_that_leaves_the_with_block_of_a_tree_stops_nothing() -> None:
    with Supervisor("app", Echo).start() as running:
        child = multiprocessing.get_context("fork").Process(target=running.__exit__, args=(None, None, None))
        child.start()
        child.join(15)
        code = child.exitcode
        child.kill()
        child.join()
        assert code == 0
        assert running["echo"].ask(1) == 1


@pytest.mark.parametrize("option", ["--engine ray", "--observe", "--observe 127.0.0.1:0"])
def test_an_option_of_the_command_line_that_is_not_built_is_an_error(tmp_path: Path, option: str) -> None:
    (tmp_path / "app.py").write_text("from suitkaise import *\ntree = Supervisor('app')\n")
    finished = run_program([sys.executable, "-m", "suitkaise", "run", "app.py", *option.split()], cwd=tmp_path)
    assert finished.returncode == 2
    assert "not built yet" in finished.stderr


def test_options_after_the_target_are_of_suitkaise_and_those_after_a_double_dash_of_the_program(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(
        "import sys\nfrom suitkaise import *\nclass Once(Process):\n    restart, significant = 'transient', True\n"
        "    def loop(self): self.rejoin()\nprint(sys.argv)\n"
        "tree = Supervisor('app', Once, auto_shutdown='any_significant')\n"
    )
    finished = run_program(
        [sys.executable, "-m", "suitkaise", "run", "app.py", "--json", "--engine", "local", "--", "--json"],
        cwd=tmp_path,
    ).check()
    assert "['app.py', '--json']" in finished.stdout
    assert finished.stderr.startswith("{")
    assert os.listdir(tmp_path)


class Lingers(Thread):
    shutdown = 60.0

    def __init__(self, release: threading.Event) -> None:
        self.release = release

    def on_finish(self) -> None:
        self.release.wait(60)


class Leaves(Thread):
    restart = "transient"
    significant = True

    def on_receive(self, message: Any) -> None:
        self.rejoin()


def test_s20_a_supervisor_that_ends_by_itself_is_listed_as_stopping_until_it_has() -> None:
    release = threading.Event()
    team = Supervisor("team", Lingers(release), Leaves, restart="transient", auto_shutdown="any_significant")
    with Supervisor("app", team).start() as running:
        assert running["team"].status == "running"
        running["team/leaves"].tell("leave")
        eventually(lambda: running["team/lingers"].status == "stopping", what="the team ends")
        assert running["team"].status == "stopping"
        assert [str(line.status) for line in running.which_children()] == ["stopping"]
        assert running.status().children[0].status == "stopping"
        release.set()
        eventually(lambda: running["team"].status == "finished", what="the team has ended")


class Ends(Thread):
    """Ends its tree from inside."""

    def __init__(self, trees: list[Any]) -> None:
        self.trees = trees

    def on_receive(self, message: Any) -> None:
        if message == "by its ref":
            whereis("app").rejoin()
        else:
            self.trees[0].stop()


def test_a_worker_that_stops_its_own_tree_is_refused_and_nothing_is_stopped() -> None:
    trees: list[Any] = []
    with Supervisor("app", Ends(trees), Echo).start() as running:
        trees.append(running)
        with pytest.raises(DeadlockError, match=r"call whereis\('app'\)\.rejoin\(\)"):
            running["ends"].ask("by the tree")
        assert running["echo"].ask(1) == 1
        running["ends"].ask("by its ref")
        assert running.wait(15) == Shutdown()
