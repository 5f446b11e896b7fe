"""Spares: processes that stand by for a child with its recipe unpacked; a restart uses one of them."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from suitkaise import Child, Command, Process, SpecError, SuitkaiseError, Supervisor, Thread
from suitkaise.events import ChildExited, ChildStarted
from suitkaise.exits import Crashed, Signaled
from suitkaise.runtime import runtime
from suitkaise.runtime.running_tree import RunningTree
from tests.end_to_end.kinds import next_event, next_exit
from tests.sample_workers import Echo
from tests.support import children_named, eventually, send_signal, start_program, wait_gone


def keeper() -> psutil.Process:
    now = runtime.current()
    assert now is not None
    return psutil.Process(now.processes.keeper.pid)


def all_spares() -> list[list[Any]]:
    """Return the spares of each child, ready or not."""
    now = runtime.current()
    assert now is not None
    return [list(one) for one in now.processes._spares._spares.values()]


def spares() -> set[int]:
    """Return the pids of the spares that a restart could use."""
    there = {child.pid for child in children_named("sk:spare", keeper())}
    return there & {spare.process.pid for one in all_spares() for spare in one if spare.ready and spare.process.pid}


def wait_for_spares(number: int) -> set[int]:
    """Wait until that many spares stand by, and return their pids."""
    return eventually(lambda: len(spares()) == number and spares(), timeout=10)


def stable_spare() -> int:
    """Wait for the one spare until it is old enough to be replaced when it ends; return its pid."""
    [pid] = wait_for_spares(1)
    [[spare]] = all_spares()
    eventually(lambda: spare.is_stable, timeout=10)
    return pid


def crash(running: RunningTree, path: str = "w") -> int:
    """SIGKILL a worker, and return the pid of its next incarnation."""
    old = running[path].pid
    assert old is not None
    with running.events() as events:
        os.kill(old, signal.SIGKILL)
        next_event(events, ChildStarted, path)
    pid = running[path].pid
    assert pid not in (old, None)
    assert pid is not None
    return pid


LATE = """
import os
from pathlib import Path
from suitkaise import Process

with open({file!r}, "a") as file:
    file.write(f"{{os.getpid()}}\\n")
if Path({file!r}).with_suffix(".broken").exists():
    raise ImportError("broken")


class Late(Process):
    def on_receive(self, message):
        return os.getpid()
"""


@pytest.fixture
def late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[type[Process], Callable[[], list[int]]]:
    """Return a worker whose module notes the pid of each importing process, and a function that reads the notes."""
    name = f"late_{os.path.basename(tmp_path)}"
    notes = tmp_path / "imports"
    (tmp_path / f"{name}.py").write_text(LATE.format(file=str(notes)))
    monkeypatch.syspath_prepend(str(tmp_path))
    module = importlib.import_module(name)
    monkeypatch.delitem(sys.modules, name)
    sys.modules[name] = module
    return module.Late, lambda: [int(line) for line in notes.read_text().split()]


def test_a_restart_uses_a_spare() -> None:
    with Supervisor("tree", Child(Echo, id="w", spares=2), max_restarts=100).start() as running:
        for _ in range(5):
            waiting = wait_for_spares(2)
            assert running["w"].pid not in waiting
            assert crash(running) in waiting
            assert running["w"].ask("hello") == "hello"


def test_a_spare_has_imported_what_its_child_needs(late: Any) -> None:
    worker, imports = late
    with Supervisor("tree", Child(worker, id="w", spares=1)).start() as running:
        [waiting] = wait_for_spares(1)
        eventually(lambda: waiting in imports())
        before = imports()
        assert crash(running) == waiting == running["w"].ask("pid")
        assert imports()[: len(before)] == before
        assert imports().count(waiting) == 1


def test_spares_that_cannot_import_the_class_are_given_up_and_the_restart_forks_a_process(
    late: Any, tmp_path: Path
) -> None:
    worker, imports = late
    broken = tmp_path / "imports.broken"
    with Supervisor("tree", Child(worker, id="w", spares=1), max_restarts=100).start() as running:
        waiting = wait_for_spares(1)
        broken.touch()
        number = len(imports())
        assert crash(running) in waiting
        eventually(lambda: len(imports()) == number + 1)
        eventually(lambda: not any(all_spares()), what="the spare is given up")
        broken.unlink()
        assert crash(running) == running["w"].ask("pid") == imports()[number + 1]
        assert wait_for_spares(1) == set(imports()[number + 2 :])


def test_each_copy_has_a_spare_of_its_own() -> None:
    with Supervisor("tree", Child(Echo, id="w", spares=2, copies=3)).start():
        wait_for_spares(6)


def test_all_children_of_a_restarted_group_use_spares() -> None:
    children = [Child(Echo, id=name, spares=1) for name in "abc"]
    with Supervisor("tree", *children, strategy="one_for_all").start() as running:
        waiting = wait_for_spares(3)
        crash(running, "b")
        eventually(lambda: {ref.pid for ref in running} == waiting)
        assert [running[name].ask(name) for name in "abc"] == ["a", "b", "c"]


def test_a_spare_that_is_killed_is_replaced() -> None:
    with Supervisor("tree", Child(Echo, id="w", spares=1)).start() as running:
        pid = running["w"].pid
        first = stable_spare()
        os.kill(first, signal.SIGKILL)
        eventually(lambda: spares() and first not in spares(), timeout=10)
        assert running["w"].pid == pid
        assert [line.restarts for line in running.which_children()] == [0]


def test_a_worker_in_a_former_spare_has_the_usual_exit_reasons() -> None:
    with Supervisor("tree", Child(Echo, id="w", spares=1), max_restarts=100).start() as running:
        for _ in range(2):
            wait_for_spares(1)
            with running.events() as events:
                running["w"].tell("crash")
                reason = next_exit(events)
                assert isinstance(reason, Crashed)
                assert "asked to crash" in str(reason)
                next_event(events, ChildStarted)
            wait_for_spares(1)
            with running.events() as events:
                send_signal(running["w"], signal.SIGSEGV)
                assert next_exit(events) == Signaled(signal.SIGSEGV)
                next_event(events, ChildStarted)


def test_a_deleted_child_has_no_spare() -> None:
    with Supervisor("tree", Echo).start() as running:
        running.start_child(Child(Echo, id="w", spares=2))
        waiting = wait_for_spares(2)
        running.terminate_child("w")
        running.delete_child("w")
        for pid in waiting:
            wait_gone(pid)


def test_a_tree_whose_name_is_taken_dismisses_no_spare_of_the_running_tree() -> None:
    def tree() -> Supervisor:
        return Supervisor("tree", Child(Echo, id="w", spares=1))

    with tree().start():
        waiting = wait_for_spares(1)
        with pytest.raises(SuitkaiseError, match="runs already"):
            tree().start()
        assert wait_for_spares(1) == waiting


def test_restart_child_uses_a_spare() -> None:
    with Supervisor("tree", Child(Echo, id="w", spares=1)).start() as running:
        waiting = wait_for_spares(1)
        running.terminate_child("w")
        assert running.restart_child("w").pid in waiting


def test_sockets_among_the_arguments_reach_a_worker_in_a_former_spare() -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listener:
        child = Child(Listens, args=(listener,), id="w", spares=1)
        with Supervisor("tree", child).start() as running:
            waiting = wait_for_spares(1)
            assert crash(running) in waiting
            assert running["w"].ask("port") == listener.getsockname()[1]


class Listens(Process):
    def __init__(self, listener: Any) -> None:
        self.listener = listener

    def on_receive(self, message: Any) -> int:
        return int(self.listener.getsockname()[1])


def test_when_the_keeper_is_killed_its_spares_are_replaced() -> None:
    with Supervisor("tree", Child(Echo, id="w", spares=1)).start() as running:
        old = stable_spare()
        first = keeper()
        first.kill()
        wait_gone(old)
        eventually(lambda: keeper().pid != first.pid)
        new = wait_for_spares(1)
        assert crash(running) in new
        with running.events() as events:
            send_signal(running["w"], signal.SIGSEGV)
            assert next_event(events, ChildExited).reason == Signaled(signal.SIGSEGV)


def test_a_spare_stopped_by_sigstop_is_noticed_by_the_start_timeout() -> None:
    with Supervisor("tree", Child(Echo, id="w", spares=1, start_timeout=3), max_restarts=100).start() as running:
        [waiting] = wait_for_spares(1)
        os.kill(waiting, signal.SIGSTOP)
        old = running["w"].pid
        os.kill(old or 0, signal.SIGKILL)
        eventually(lambda: running["w"].status == "running" and running["w"].pid not in (None, old, waiting),
                   timeout=10)  # fmt: skip
        assert running["w"].ask("hello") == "hello"


PROGRAM = """
from suitkaise import Child, Process, Supervisor


class Idle(Process):
    def on_receive(self, message):
        return message


with Supervisor("tree", Child(Idle, id="w", spares=3)).start() as running:
    print("up", flush=True)
    running.wait()
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_spare_outlives_its_program(number: int) -> None:
    with start_program(PROGRAM) as program:
        program.expect("up")
        hub = psutil.Process(program.pid)
        eventually(lambda: len(children_named("sk:spare", hub, recursive=True)) == 3, timeout=10)
        family = hub.children(recursive=True)
        program.send_signal(number)
        program.wait()
        for one in family:
            wait_gone(one.pid)


@pytest.mark.parametrize("wrong", [-1, True, 1.5, "2", None])
def test_a_number_of_spares_that_is_not_whole_is_refused(wrong: Any) -> None:
    with pytest.raises(SpecError, match="spares must be a whole number >= 0"):
        Child(Echo, spares=wrong)


def test_spares_are_refused_for_threads_commands_supervisors_and_temporary_children() -> None:
    class Threaded(Thread): ...

    class Ready(Process):
        spares = 2

    assert Child(Ready).spares == 2
    assert Child(Ready, spares=0).spares == 0
    for make in (
        lambda: Child(Threaded, spares=1),
        lambda: Child(Command("sleep", "1"), spares=1),
        lambda: Child(Echo, spares=1, restart="temporary"),
        lambda: Child(Supervisor("inner"), spares=1),
    ):
        with pytest.raises(SpecError, match="spares makes no sense here"):
            make()
