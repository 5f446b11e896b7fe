"""What `suitkaise.testing` does to running workers, and the fixture `tree` of the pytest plugin."""

from __future__ import annotations

import os
import re
import sys
import threading
from pathlib import Path
from typing import Any

import psutil
import pytest

from suitkaise import Child, Process, Supervisor, Thread
from suitkaise.testing import chaos, hang, kill, wait_until
from tests.support import Finished, run_program


class Answers(Process):
    def on_receive(self, message: object) -> int:
        return os.getpid()


class InThread(Thread):
    def on_receive(self, message: object) -> int:
        return threading.get_ident()


def test_kill_returns_when_the_next_incarnation_runs() -> None:
    with Supervisor("app", Child(Answers, copies=2)).start() as running:
        ref = running["answers-0"]
        before, other = ref.pid, running["answers-1"].pid
        kill(ref)
        assert (ref.status, ref.incarnation) == ("running", 2)
        assert ref.pid != before
        assert running["answers-1"].pid == other


@pytest.mark.parametrize("restart", ["temporary", "permanent"])
def test_kill_returns_when_no_incarnation_will_come(restart: str) -> None:
    child = Child(Answers, restart=restart, max_restarts=0 if restart == "permanent" else None)  # type: ignore[arg-type]
    with Supervisor("app", child, Child(Answers, id="other")).start() as running:
        kill(running["answers"])
        assert running["other"].is_alive()


def test_a_thread_has_no_process_that_could_be_killed_or_held() -> None:
    with Supervisor("app", InThread).start() as running:
        with pytest.raises(ValueError, match="'app/in_thread' is a thread, which has no process of its own"):
            kill(running["in_thread"])
        with pytest.raises(ValueError, match="is a thread"), hang(running["in_thread"]):
            pass


@pytest.mark.parametrize("wrong", ["app/answers", None, Answers])
def test_what_is_no_ref_is_neither_killed_nor_held(wrong: Any) -> None:
    with pytest.raises(TypeError, match="takes the ref of a worker, such as running\\[path\\], not "):
        kill(wrong)
    with pytest.raises(TypeError, match="takes the ref of a worker, such as running\\[path\\], not "), hang(wrong):
        pass
    with pytest.raises(TypeError, match="chaos takes a running tree, not "):
        chaos(wrong, seed=1)


def test_what_chaos_spares_are_several_paths() -> None:
    with (
        Supervisor("app", Answers).start() as running,
        pytest.raises(TypeError, match=r"spare must be several paths, not 'answers'; use \('answers',\)"),
    ):
        chaos(running, seed=1, spare="answers")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "wrong, says",
    [
        ("app/answers", "paths are relative to the tree: 'answers'"),
        ("anwsers", "did you mean 'app/answers'"),
        (Answers, r"running\[...\] takes the path of a worker"),
    ],
    ids=["absolute", "misspelt", "no path"],
)
def test_chaos_kills_nothing_if_there_is_nothing_at_a_path_that_it_should_spare(wrong: Any, says: str) -> None:
    with Supervisor("app", Answers).start() as running:
        with pytest.raises((LookupError, TypeError), match=says):
            chaos(running, seed=1, spare=(wrong,))
        assert running["answers"].incarnation == 1


@pytest.mark.parametrize("wrong", [-1, 2.5, "3", True])
def test_chaos_refuses_what_is_no_number_of_kills(wrong: Any) -> None:
    with (
        Supervisor("app", Answers).start() as running,
        pytest.raises(ValueError, match=f"chaos: kills must be a whole number >= 0, not {wrong!r}"),
    ):
        chaos(running, seed=1, kills=wrong)


@pytest.mark.parametrize("wrong", [0.1, (0.3, 0.1), (-1.0, 1.0), (0.1,), (0.0, float("inf")), "ab"])
def test_chaos_refuses_what_is_no_pause(wrong: Any) -> None:
    says = f"chaos: pause must be the least and the most seconds between two kills, as (0.05, 0.3), not {wrong!r}"
    with Supervisor("app", Answers).start() as running, pytest.raises(ValueError, match=re.escape(says)):
        chaos(running, seed=1, pause=wrong)


def test_hang_holds_a_worker_until_the_end_of_the_block() -> None:
    with Supervisor("app", Answers).start() as running:
        ref = running["answers"]
        with hang(ref):
            waiting = ref.ask_future("?")
            assert not waiting.done()
        assert waiting.get(20) == ref.pid


class Busy(Process):
    def loop(self) -> None:
        self.wait(0)


def test_a_worker_is_held_from_the_beginning_of_the_block_on() -> None:
    with Supervisor("app", Busy).start() as running:
        process = psutil.Process(running["busy"].pid)
        for _ in range(100):
            with hang(running["busy"]):
                assert process.status() == psutil.STATUS_STOPPED


def test_a_worker_that_hangs_is_killed_by_its_limit_and_the_block_ends_all_the_same() -> None:
    with Supervisor("app", Child(Answers, receive_timeout=0.3)).start() as running:
        ref = running["answers"]
        with hang(ref):
            ref.tell("?")
            wait_until(lambda: ref.incarnation == 2, 30)


def test_chaos_kills_what_it_says_and_spares_what_it_is_told() -> None:
    tree = Supervisor("app", Child(Answers, copies=2), Child(Answers, id="precious"), max_restarts=100)
    with tree.start() as running:
        killed = chaos(running, seed=7, kills=6, pause=(0.0, 0.05), spare=("precious",))
        assert len(killed) == 6
        assert {kill.path for kill in killed} <= {"app/answers-0", "app/answers-1"}
        assert len({kill.pid for kill in killed}) == 6
        assert {running[f"answers-{n}"].status for n in (0, 1)} == {"running"}
        assert {running[f"answers-{n}"].ask("?") for n in (0, 1)}.isdisjoint(kill.pid for kill in killed)
        assert running["precious"].incarnation == 1


def test_chaos_tells_that_the_tree_has_ended() -> None:
    running = Supervisor("app", Answers, max_restarts=1).start()
    with running, pytest.raises(AssertionError, match="'app' has ended"):
        chaos(running, seed=1, kills=5, pause=(0.3, 0.5))


# ---------------------------------------------------------------- the plugin
def run_pytest(folder: Path, source: str) -> Finished:
    (folder / "test_it.py").write_text(source)
    plugin = [] if _is_found() else ["-p", "suitkaise.pytest_plugin"]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "addopts=", *plugin, "test_it.py"]
    return run_program(command, cwd=folder, timeout=60.0)


def _is_found() -> bool:
    """Whether the installed package names the plugin; one that was installed before the plugin existed does not."""
    from importlib.metadata import entry_points

    return any(one.value == "suitkaise.pytest_plugin" for one in entry_points(group="pytest11"))


FINE = """
from suitkaise import Process, Supervisor
from suitkaise.testing import kill

class Answers(Process):
    def on_receive(self, message):
        return message * 2

def test_a_worker_answers_again_after_a_kill(tree):
    running = tree(Supervisor("app", Answers))
    kill(running["answers"])
    assert running["answers"].ask(21) == 42

def test_a_tree_of_the_same_name_can_be_started_by_the_next_test(tree):
    assert tree(Supervisor("app", Answers))["answers"].ask(1) == 2
"""


def test_the_fixture_starts_trees_and_stops_them(tmp_path: Path) -> None:
    finished = run_pytest(tmp_path, FINE).check()
    assert "2 passed" in finished.stdout
    assert finished.left_behind == []


TWICE = """
import pytest
from suitkaise import Supervisor

def test_a_tree_that_runs(tree):
    with pytest.raises(TypeError, match="without .start"):
        tree(Supervisor("app").start())

def test_a_tree_of_the_same_name_can_be_started_by_the_next_test(tree):
    tree(Supervisor("app"))
"""


NO_TREE = """
import pytest
from suitkaise import Child, Process, Supervisor

@pytest.mark.parametrize("wrong", ["app", None, Process, Child(Process), Supervisor], ids=str)
def test_what_is_no_supervisor(tree, wrong):
    with pytest.raises(TypeError, match="the fixture takes a Supervisor, as tree\\(Supervisor\\(...\\)\\), not "):
        tree(wrong)
"""


def test_the_fixture_refuses_what_is_no_supervisor(tmp_path: Path) -> None:
    assert "5 passed" in run_pytest(tmp_path, NO_TREE).check().stdout


def test_the_fixture_refuses_a_tree_that_runs_and_stops_it_too(tmp_path: Path) -> None:
    finished = run_pytest(tmp_path, TWICE).check()
    assert "2 passed" in finished.stdout
    assert finished.left_behind == []


STOP_FAILS = """
import pytest
from suitkaise import Supervisor

def test_the_last_tree_cannot_be_stopped(tree):
    first, last = tree(Supervisor("first")), tree(Supervisor("last"))

    def fail():
        type(last).stop(last)
        raise KeyError("the stop was interrupted")

    last.stop = fail

def test_the_names_of_all_trees_are_free(tree):
    tree(Supervisor("first")), tree(Supervisor("last"))
"""


def test_the_fixture_stops_the_other_trees_if_one_cannot_be_stopped(tmp_path: Path) -> None:
    finished = run_pytest(tmp_path, STOP_FAILS)
    assert "2 passed, 1 error" in finished.stdout
    assert "KeyError: 'the stop was interrupted'" in finished.stdout
    assert finished.left_behind == []


LEAKS = {
    "process": ("subprocess.Popen(['sleep', '600'])", "sleep 600"),
    "thread": ("threading.Thread(target=time.sleep, args=(600,), daemon=True, name='stray').start()", "thread stray"),
    "file": ("kept.append(open(__file__))", "file or socket"),
}


@pytest.mark.parametrize("kind", LEAKS)
def test_the_fixture_fails_a_test_that_leaves_something_behind(kind: str, tmp_path: Path) -> None:
    leak, told = LEAKS[kind]
    source = (
        f"import subprocess, threading, time\nkept = []\ndef test_leaks(tree):\n    kept.append({leak!r})\n    {leak}\n"
    )
    finished = run_pytest(tmp_path, source)
    assert finished.returncode == 1
    assert "left behind, 5 s after the trees have stopped" in finished.stdout
    assert told in finished.stdout


FAILS = """
import socket
from suitkaise import Supervisor

def test_fails_with_a_socket(tree):
    tree(Supervisor("app"))
    sock = socket.socket()  # pytest keeps this frame, for a debugger
    assert sock is None

def test_leaks_later(tree):
    kept.append(socket.socket())

kept = []
"""


def test_the_fixture_does_not_blame_a_test_that_has_failed_for_what_its_frames_hold(tmp_path: Path) -> None:
    finished = run_pytest(tmp_path, FAILS)
    assert "ERROR test_it.py::test_fails_with_a_socket" not in finished.stdout
    assert "ERROR test_it.py::test_leaks_later" in finished.stdout
    assert "1 failed, 1 passed, 1 error" in finished.stdout
    assert finished.left_behind == []


UNITTEST = """
import socket, unittest
import pytest
from suitkaise import Supervisor

class InClass(unittest.TestCase):
    @pytest.fixture(autouse=True)
    def start(self, tree):
        tree(Supervisor("app"))

    def test_fails_with_a_socket(self):
        self.socket = socket.socket()
        self.fail()

    @unittest.expectedFailure
    def test_is_expected_to_fail(self):
        self.socket = socket.socket()
        self.fail()
"""


def test_the_fixture_does_not_blame_a_failed_test_of_unittest_either(tmp_path: Path) -> None:
    finished = run_pytest(tmp_path, UNITTEST)
    assert "1 failed, 1 xfailed in" in finished.stdout


MULTIPROCESSING = """
import multiprocessing, os
from multiprocessing.shared_memory import SharedMemory
from suitkaise import Supervisor

def test_shares_memory(tree):
    tree(Supervisor("app"))
    memory = SharedMemory(create=True, size=100)
    memory.close()
    memory.unlink()

def test_uses_a_pool(tree):
    with multiprocessing.get_context("forkserver").Pool(1) as pool:
        assert pool.apply(os.getpid) != os.getpid()
        pool.close()
        pool.join()

def test_leaks(tree):
    kept.append(multiprocessing.get_context("forkserver").Process(target=os.system, args=("sleep 600",), daemon=True))
    kept[0].start()

kept = []
"""


def test_the_fixture_does_not_blame_a_test_for_what_multiprocessing_keeps(tmp_path: Path) -> None:
    finished = run_pytest(tmp_path, MULTIPROCESSING)
    assert "3 passed, 1 error" in finished.stdout
    assert "ERROR test_it.py::test_leaks" in finished.stdout
    assert ": sleep 600" in finished.stdout


STORAGE = """
from suitkaise import Process, Supervisor, sktree

class Writes(Process):
    def on_start(self):
        self.tree.add("written", True, path="writes")

def test_reads_what_a_worker_has_written(tree):
    tree(Supervisor("app", Writes))
    assert sktree.connect().get("written", path="writes")
    sktree.disconnect()

def test_keeps_the_storage(tree):
    tree(Supervisor("app", Writes))
    sktree.connect().get("written", path="writes")

def test_finds_the_storage_and_keeps_it(tree):
    sktree.connect().get("written", path="writes")
"""


def test_the_fixture_tells_how_a_storage_that_a_test_leaves_behind_is_ended(tmp_path: Path) -> None:
    finished = run_pytest(tmp_path, STORAGE)
    assert "3 passed, 1 error" in finished.stdout
    assert "ERROR test_it.py::test_keeps_the_storage" in finished.stdout
    told = finished.stdout.partition("left behind, ")[2].splitlines()
    assert told[1] == "  the shared storage; sktree.disconnect() at the end of the test ends it"
    assert told[2].startswith("=====")


STARTED = """
from suitkaise import Process, Supervisor, Thread
from suitkaise.pools import ProcessPool

class InProcess(Process): ...

class InThread(Thread): ...

def test_leaves_a_tree(tree):
    kept.append(Supervisor("other", InProcess, InThread).start())

def test_stops_it(tree):
    kept.pop().stop()

def test_leaves_a_pool(tree):
    kept.append(ProcessPool(1))
    kept[0].submit(abs, -1).result()

kept = []
"""


def test_the_fixture_names_the_tree_or_pool_that_a_test_leaves_behind(tmp_path: Path) -> None:
    finished = run_pytest(tmp_path, STARTED)
    assert "3 passed, 2 errors" in finished.stdout
    errors = finished.stdout.partition("short test summary")[0]  # which has them once more where `CI` is set
    told = re.findall(r"after the trees have stopped:\n((?:  .*\n)+)", errors)
    assert [one.splitlines() for one in told] == [
        ["  the tree or pool 'other', which still runs"],
        ["  the tree or pool 'process-pool-1', which still runs"],
    ]


DURABLE = """
import pytest
from suitkaise import sktree

@pytest.fixture(scope="module")
def storage(tmp_path_factory):
    yield sktree.connect(tmp_path_factory.mktemp("state"), durable=True)
    sktree.disconnect()

def test_is_the_first_to_use_the_storage_of_the_module(storage, tree):
    storage.add("a", 1, path="x")
    assert storage.get("a", path="x") == 1
"""


def test_the_fixture_does_not_blame_a_test_for_the_files_of_a_durable_storage_of_the_module(tmp_path: Path) -> None:
    finished = run_pytest(tmp_path, DURABLE).check()
    assert "1 passed in" in finished.stdout


BESIDE = """
import subprocess, pytest
from suitkaise import Command, Process, Supervisor, Thread, sktree
from suitkaise.testing import kill

class InProcess(Process):
    def on_receive(self, message):
        return message

class InThread(Thread):
    def on_receive(self, message):
        return message

@pytest.fixture(scope="module")
def shared():
    with Supervisor("shared", InProcess, InThread).start() as running:
        yield running

def test_starts_the_first_process(shared, tree):
    tree(Supervisor("app", InProcess))

def test_starts_the_first_command(shared, tree):
    tree(Supervisor("app", Command("sleep", "100")))

def test_kills_a_worker_of_the_other_tree(shared, tree):
    kill(shared["in_process"])
    shared["in_thread"].kill()
    assert shared["in_thread"].ask("back?") == "back?"

def test_uses_the_storage(shared, tree):
    sktree.connect().add("a", 1)

def test_leaks(shared, tree):
    kept.append((subprocess.Popen(["sleep", "600"]), open(__file__)))

kept = []
"""


def test_the_fixture_does_not_blame_a_test_for_what_belongs_to_another_tree(tmp_path: Path) -> None:
    finished = run_pytest(tmp_path, BESIDE)
    assert "5 passed, 1 error" in finished.stdout
    assert "ERROR test_it.py::test_leaks" in finished.stdout
    assert ": sleep 600" in finished.stdout
    assert "test_it.py\n" in finished.stdout.partition("file or socket")[2]
