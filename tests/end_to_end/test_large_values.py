"""Large arrays between real processes: exact, private to the receiver, and no harm at the end of either side."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from suitkaise import Child, ChildNotFound, Process, Supervisor, Thread, WorkerDead, WorkerRef, preload
from suitkaise.messaging.route import Route
from suitkaise.messaging.router import HubClient, router
from suitkaise.runtime.running_tree import RunningTree
from tests.support import eventually, in_background, run_program, start_threads_of_the_runtime

numpy = pytest.importorskip("numpy")

pytestmark = pytest.mark.usefixtures("one_runtime_for_all")

MIB = 1 << 20


class Keeps:
    """Returns an array after it has changed it; keeps what it is told."""

    kept: Any = None

    def on_receive(self, message: Any) -> Any:
        if isinstance(message, numpy.ndarray):
            message += 1
            return message
        match message:
            case "kept?":
                return None if self.kept is None else (int(self.kept.min()), int(self.kept.max()))
            case "memory":
                return psutil.Process().memory_info().rss
            case "renew":
                self.rejoin()  # type: ignore[attr-defined]
            case "pid":
                return os.getpid()
            case ("hold", path):
                eventually(lambda: os.path.exists(path), timeout=60)
                return None
            case ("tell", array):
                self.kept = array
        return None


class InProcess(Keeps, Process): ...


class InThread(Keeps, Thread): ...


class InAsync(Process):
    def on_start(self) -> None:
        self.keeps = Keeps()

    async def on_receive(self, message: Any) -> Any:
        return self.keeps.on_receive(message)


class Sender(Process):
    def on_receive(self, message: Any) -> Any:
        function, *arguments = message
        return function(*arguments)


@pytest.fixture(scope="module")
def running() -> Iterator[RunningTree]:
    preload(__name__)
    children = [Child(kind, restart="permanent") for kind in (InProcess, InThread, InAsync, Sender)]
    with Supervisor("big", *children, max_restarts=1000).start() as running:
        for name in ("in_process", "in_thread", "in_async"):  # the connections are there before the first test
            for _ in range(2):
                running["sender"].ask((asks, f"big/{name}", 10))
                asks(f"big/{name}", 10)
        start_threads_of_the_runtime()
        yield running


# ------------------------------------------------------------ in the sender's process
def asks(path: str, size: int) -> bool:
    """Ask with an array; return whether the answer is right, and the array unchanged."""
    array = numpy.arange(size, dtype=numpy.float64)
    answer = WorkerRef(path).ask(array, timeout=60)
    answer[:1] += 0.0  # it can be changed
    return bool((answer == array + 1).all() and (array == numpy.arange(size)).all())


def tells_and_changes(path: str, size: int) -> bool:
    array = numpy.full(size, 1, dtype=numpy.uint8)
    WorkerRef(path).tell(("tell", array))
    array[:] = 2
    return is_direct(path)


def is_direct(path: str) -> bool:
    hub = router()
    assert isinstance(hub, HubClient)
    assert hub._routes is not None
    return type(hub._routes._of_thread.__dict__.get(path)) is Route


# ------------------------------------------------------------ the tests
@pytest.mark.parametrize("size", [1_000, 20_000, 200_000])
@pytest.mark.parametrize("name", ["in_process", "in_thread", "in_async"])
def test_arrays_arrive_exactly_and_can_be_changed(running: RunningTree, name: str, size: int) -> None:
    assert running["sender"].ask((asks, f"big/{name}", size), timeout=60)
    if name != "in_thread":  # which shares the program's objects
        assert asks(f"big/{name}", size)


@pytest.mark.parametrize("name", ["in_process", "in_async"])
def test_a_told_array_may_be_changed_at_once(running: RunningTree, name: str, tmp_path: Any) -> None:
    running[name].tell(("hold", str(tmp_path / "gate")))
    direct = running["sender"].ask((tells_and_changes, f"big/{name}", 5 * MIB), timeout=60)
    (tmp_path / "gate").touch()
    assert direct
    eventually(lambda: running[name].ask("kept?", timeout=60) == (1, 1))
    tells_and_changes_here(name)
    eventually(lambda: running[name].ask("kept?", timeout=60) == (3, 3))


def tells_and_changes_here(name: str) -> None:
    array = numpy.full(5 * MIB, 3, dtype=numpy.uint8)
    WorkerRef(f"big/{name}").tell(("tell", array))
    array[:] = 4


@pytest.mark.parametrize("direct", [False, True])
def test_s72_an_array_for_the_next_incarnation_is_the_one_that_was_sent(
    running: RunningTree, direct: bool, tmp_path: Any
) -> None:
    running.start_child(Child(InProcess, id="renews", restart="permanent"))
    asker = running["sender"].ask_future if direct else lambda message: in_background(lambda: message[0](*message[1:]))
    if direct:
        assert running["sender"].ask((asks, "big/renews", 10))
    running["renews"].tell(("hold", str(tmp_path / "gate")))
    running["renews"].tell("renew")
    answer = asker((asks_and_changes, "big/renews", 3 * MIB, str(tmp_path / "gate")))
    assert answer.result(60) == (2, 2)
    running.terminate_child("renews")
    running.delete_child("renews")


def asks_and_changes(path: str, size: int, gate: str) -> tuple[int, int]:
    """Ask with an array of ones that changes after that; return the least and the greatest number of the answer."""
    array = numpy.ones(size, dtype=numpy.uint8)
    answer = WorkerRef(path).ask_future(array)
    array[:] = 7
    Path(gate).touch()
    found = answer.get(60)
    return int(found.min()), int(found.max())


def test_small_messages_of_others_go_between_the_pieces_of_a_large_one(running: RunningTree) -> None:
    pid = running["sender"].pid
    assert pid is not None
    large = running["sender"].ask_future((asks, "big/in_process", 4 * MIB))
    for _ in range(10):
        os.kill(pid, signal.SIGSTOP)
        try:
            assert running["in_process"].ask("pid", timeout=30) == running["in_process"].pid
        finally:
            os.kill(pid, signal.SIGCONT)
    assert large.get(60)


def test_an_asker_learns_that_the_receiver_was_killed_in_the_midst_of_a_large_message(running: RunningTree) -> None:
    for number in range(3):
        running.start_child(Child(InProcess, id=f"killed-{number}", restart="temporary"))
        killed = running[f"killed-{number}"]
        large = running["sender"].ask_future((outcome, killed.path, 4 * MIB))
        killed.kill()
        assert large.get(60) in ("WorkerDead", "ChildNotFound", "answered")
    assert running["sender"].ask((asks, "big/in_process", 1000), timeout=60)


def outcome(path: str, size: int) -> str:
    try:
        for _ in range(3):  # the first message goes another way
            WorkerRef(path).ask(numpy.ones(size), timeout=60)
    except (WorkerDead, ChildNotFound) as error:
        return type(error).__name__
    return "answered"


def test_a_sender_that_is_killed_in_the_midst_of_a_large_message_leaves_nothing_behind(running: RunningTree) -> None:
    before = running["in_process"].ask("memory", timeout=30)
    for number in range(4):
        running.start_child(Child(Sender, id=f"dies-{number}", restart="temporary"))
        dies = running[f"dies-{number}"]
        dies.ask((asks, "big/in_process", 10), timeout=30)
        dies.tell((asks, "big/in_process", 4 * MIB))
        in_background(dies.kill).result(30)
    assert running["in_process"].ask("memory", timeout=60) - before < 2 * 8 * 4 * MIB
    assert running["sender"].ask((asks, "big/in_process", 1000), timeout=60)


def test_an_answer_for_which_the_program_has_no_memory_costs_its_worker_alone() -> None:
    program = """
import resource
from suitkaise import Process, Supervisor, Thread, WorkerDead

class Makes(Process):
    def on_receive(self, size):
        return bytes(size)

class Sends(Process):
    def on_receive(self, size):
        try:
            self.whereis("app/takes").tell(bytes(size), confirm=True)
        except Exception as error:
            return type(error).__name__

class Takes(Thread):
    def on_receive(self, message):
        pass

with Supervisor("app", Makes, Sends, Takes).start() as running:
    running["makes"].ask(1), running["sends"].ask(1)
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (100 << 20), -1))
    try:
        running["makes"].ask_future(200 << 20).get(60)
    except WorkerDead as error:
        print(str(error).partition("killed ")[2])
    print(running["sends"].ask(200 << 20, timeout=60), running["sends"].ask(1))
    print(len(running["makes"].ask(1, timeout=60)))
"""
    why = "(the program has no memory for what it has sent: there is no memory for a frame of 209,715,209 bytes)"
    assert run_program(program).check().stdout == f"{why}\nRuntimeGone None\n1\n"


@pytest.mark.parametrize("times", [0, 3])
def test_a_worker_that_has_no_memory_for_a_message_crashes_and_is_restarted(times: int) -> None:
    program = f"""
import resource
from suitkaise import Process, Supervisor, WorkerDead

class Limited(Process):
    restart = "transient"
    def on_start(self):
        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + (100 << 20), -1))
    def on_receive(self, message):
        return len(message)

class Sends(Process):
    def on_receive(self, size):
        limited = self.whereis("app/limited")
        for _ in range({times}):  # then there is a direct connection
            limited.ask(b"small")
        try:
            return limited.ask(bytes(size), timeout=60)
        except WorkerDead as error:
            return "there is no memory for a frame of 209,7" in str(error)

with Supervisor("app", Limited, Sends, max_restarts=5).start() as running:
    print(running["sends"].ask(200 << 20, timeout=60), running["limited"].ask(b"small", timeout=60))
    print(running["limited"].incarnation > 1)
"""
    done = run_program(program).check()
    assert done.stdout == "True 5\nTrue\n"
    assert "worker_main.py" not in done.stderr, done.stderr


def test_an_asker_that_has_no_memory_for_the_answer_is_told_and_can_ask_again() -> None:
    program = """
import resource
from suitkaise import Process, Supervisor

class Makes(Process):
    def on_receive(self, size):
        return bytes(size)

with Supervisor("app", Makes).start() as running:
    makes = running["makes"]
    for _ in range(3):  # then there is a direct connection
        makes.ask(1)
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (100 << 20), -1))
    try:
        makes.ask(200 << 20, timeout=None)
    except MemoryError as error:
        print(error)
    print(len(makes.ask(1, timeout=60)), makes.incarnation)
"""
    assert run_program(program).check().stdout == "there is no memory for a frame of 209,715,209 bytes\n1 1\n"
