"""Dynamic supervisors (rules 12, 13, 40, 44, 53) with real processes and threads."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from suitkaise import (
    Backoff,
    Child,
    ChildAlreadyStarted,
    ChildNotFound,
    ChildRestarting,
    ChildRunning,
    ChildStartFailed,
    DynamicSupervisor,
    Ignore,
    MaxChildren,
    NotSerializable,
    Process,
    Reject,
    Shutdown,
    SuitkaiseError,
    Supervisor,
    Thread,
    WorkerDead,
    WorkerRef,
    whereis,
)
from suitkaise.events import ChildStopError, ChildStopped
from suitkaise.runtime.running_tree import RunningTree
from tests.end_to_end.kinds import Kinds, statuses, wait_for_incarnation
from tests.sample_workers import Echo, EchoThread
from tests.support import eventually, in_background, wait_gone

pytestmark = pytest.mark.usefixtures("one_runtime_for_all")


class Ignores(Process):
    def on_start(self) -> None:
        raise Ignore


class Sum(Process):
    num_loops = 1

    def __init__(self, *numbers: int) -> None:
        self.numbers = numbers

    def loop(self) -> int:
        return sum(self.numbers)

    def result(self) -> Any:
        return self.last_result


class IgnoresLater(Process):
    def __init__(self, file: Path) -> None:
        self.file = file

    def on_start(self) -> None:
        if self.file.exists():
            raise Ignore
        self.file.touch()


class PoolManager(Process):
    """Adds and terminates workers of the pool."""

    def on_receive(self, message: Any) -> Any:
        try:
            pool: Any = whereis("tree/pool")
            match message:
                case "add":
                    return pool.start_child(Echo)
                case ("terminate", id):
                    pool.terminate_child(id)
                case "count":
                    return pool.count_children().active
        except SuitkaiseError as error:
            raise Reject(error) from error


class _Copy:
    def __init__(self, base: int) -> None:
        self.base = base

    def on_receive(self, message: Any) -> Any:
        if message == "crash":
            raise ValueError("it was asked to crash")
        return self.copy, self.name, self.base  # type: ignore[attr-defined]


class CopyProcess(_Copy, Process):
    pass


class CopyThread(_Copy, Thread):
    pass


def wait_for_notes(kinds: Kinds, *lines: str) -> None:
    eventually(lambda: set(lines) <= set(kinds.notes()), what=f"{lines} are wait_for_notes")


def kill(running: RunningTree, path: str) -> None:
    """SIGKILL the process of the worker at `path`, and wait until it is gone."""
    pid = running[path].pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    wait_gone(pid)


# ---------------------------------------------------------------- start_child
def test_s53_children_are_added_found_and_asked(kinds: Kinds) -> None:
    with DynamicSupervisor("pool").start() as running:
        assert list(running) == []
        refs = [running.start_child(Child(kinds.worker, args=(kinds.folder,))) for _ in range(3)]
        assert [ref.path.partition("-")[2] for ref in refs] == ["1", "2", "3"]
        assert [ref.ask("hello") for ref in refs] == ["hello"] * 3
        assert list(running) == refs
        assert running.count_children().active == 3
        running.terminate_child(refs[1].path.partition("/")[2])
        assert list(running) == [refs[0], refs[2]]
        with pytest.raises((WorkerDead, ChildNotFound)):
            refs[1].ask("anybody there?")
    assert kinds.notes() == [f"start {ref.path[5:]}" for ref in refs] + kinds.notes()[3:]
    assert sorted(kinds.notes()[3:]) == [f"stop {ref.path[5:]}" for ref in refs]


def test_s53_a_slow_start_delays_no_other_child(kinds: Kinds) -> None:
    with Supervisor("tree", DynamicSupervisor("pool")).start() as running:
        slow_start = kinds.order("starts_slowly", "slow")
        slow = in_background(lambda: running.start_child(kinds.child("slow"), under="pool"))
        wait_for_notes(kinds, "slow slow")

        assert running.start_child(kinds.child("a"), under="pool").ask("there?") == "there?"
        assert running.recall("pool/a").ask("again?") == "again?"
        running.terminate_child("pool/a")
        assert statuses(running, "pool") == {"slow": "starting"}

        slow_start.unlink()
        assert slow.result(15).ask("at last") == "at last"


def test_s53_children_without_ids_can_be_added_from_many_threads_at_once() -> None:
    with DynamicSupervisor("pool").start() as running, ThreadPoolExecutor(8) as threads:
        refs = list(threads.map(lambda _: running.start_child(EchoThread), range(50)))
        assert len({ref.path for ref in refs}) == 50
        assert running.count_children().active == 50


def test_s12_a_child_that_raises_ignore_is_not_kept() -> None:
    with DynamicSupervisor("pool", 1).start() as running:
        assert running.start_child(Ignores) == WorkerRef("pool/ignores-1")
        assert list(running) == []
        assert running.start_child(EchoThread).ask("room?") == "room?"


def test_s08_s10_a_taken_id_and_a_failed_start_are_errors(kinds: Kinds) -> None:
    with DynamicSupervisor("pool").start() as running:
        first = running.start_child(kinds.child("a"))
        with pytest.raises(ChildAlreadyStarted) as taken:
            running.start_child(kinds.child("a"))
        assert taken.value.ref == first
        kinds.order("fails", "b")
        with pytest.raises(ChildStartFailed):
            running.start_child(kinds.child("b"))
        for refusing in (running.restart_child, running.delete_child):
            with pytest.raises(ChildRunning):
                refusing("a")
            with pytest.raises(ChildNotFound):
                refusing("b")
        assert statuses(running) == {"a": "running"}


# ---------------------------------------------------------------- ends of children
def test_s23_a_killed_process_is_restarted_and_the_others_run_on(tmp_path: Path) -> None:
    kinds = Kinds(tmp_path, "process")
    with Supervisor("tree", DynamicSupervisor("pool")).start() as running:
        refs = [running.start_child(kinds.child(id), under="pool") for id in "abc"]
        pids = [ref.pid for ref in refs]
        kinds.crash_and_wait(running, "pool/b")

        assert [ref.ask("there?") for ref in refs] == ["there?"] * 3
        after = [ref.pid for ref in refs]
        assert (after[0], after[2]) == (pids[0], pids[2])
        assert after[1] != pids[1]


@pytest.mark.parametrize("restart", ["temporary", "transient"])
def test_s24_s26_an_ended_child_is_removed_but_its_result_is_kept(restart: Any) -> None:
    with DynamicSupervisor("pool", max_children=1).start() as running:
        for number in range(3):
            ref = running.start_child(Child(Sum, args=(number, 10), restart=restart))
            ref.join(15)
            eventually(lambda: running.which_children() == [], what="the child is removed")
            assert ref.result(15) == number + 10


def test_s13_a_child_that_raises_ignore_at_its_restart_is_removed(tmp_path: Path) -> None:
    with DynamicSupervisor("pool").start() as running:
        ref = running.start_child(Child(IgnoresLater, args=(tmp_path / "been here",)))
        kill(running, "ignores_later-1")
        assert ref.join(15) is not None
        eventually(lambda: running.which_children() == [], what="the child is removed")


# ---------------------------------------------------------------- max_children
def test_s53_max_children_counts_those_that_are_being_restarted(kinds: Kinds) -> None:
    with DynamicSupervisor("pool", max_children=2).start() as running:
        running.start_child(kinds.child("a", backoff=Backoff(60.0)))
        running.start_child(kinds.child("b"))
        with pytest.raises(MaxChildren, match="'pool' has 2 children, and max_children is 2"):
            running.start_child(kinds.child("c"))
        kinds.crash(running, "a")
        eventually(lambda: statuses(running)["a"] == "restarting", what="a waits for its next attempt")
        with pytest.raises(MaxChildren):
            running.start_child(kinds.child("c"))
        with pytest.raises(ChildRestarting):
            running.restart_child("a")

        running.terminate_child("a")
        assert running.start_child(kinds.child("c")).ask("room?") == "room?"
    assert "start c" in kinds.notes()


def paths(running: RunningTree) -> list[str]:
    """Return all paths of the tree that lead to something."""
    return [path for path in running._runtime.registry.paths() if path.split("/")[0] == running.name]


def recipes(running: RunningTree) -> list[str]:
    """Return the paths of the tree for which the engine of its processes keeps a recipe."""
    engine: Any = running._root._env.engines["process"]
    return [path for path in engine._recipes if path.split("/")[0] == running.name]


def test_s53_nothing_is_kept_of_a_child_that_was_refused_or_removed() -> None:
    with DynamicSupervisor("pool", max_children=1).start() as running:
        ref = running.start_child(Echo)
        with pytest.raises(MaxChildren):
            running.start_child(Echo)
        assert recipes(running) == [ref.path]
        assert paths(running) == ["pool", ref.path]
        running.terminate_child("echo-1")
        assert recipes(running) == []
        assert paths(running) == ["pool"]


class DoesNotStart(Thread):
    def on_start(self) -> None:
        raise ValueError("it does not start")


def test_s53_nothing_is_kept_of_the_children_of_a_supervisor_that_was_refused_or_did_not_start() -> None:
    with DynamicSupervisor("pool", max_children=1).start() as running:
        running.start_child(Echo)
        with pytest.raises(MaxChildren):
            running.start_child(Supervisor("team", Echo))
        running.terminate_child("echo-1")
        assert recipes(running) == []
        with pytest.raises(NotSerializable):
            running.start_child(Supervisor("team", Echo, Child(Sum, args=(threading.Lock(),), restart="transient")))
        assert recipes(running) == []
        with pytest.raises(ChildStartFailed):
            running.start_child(Supervisor("team", DoesNotStart, Supervisor("inner", Echo)))
        assert recipes(running) == []


# ---------------------------------------------------------------- stopping
@pytest.mark.parametrize("how", ["the tree stops", "the pool is terminated"])
def test_s44_all_children_are_stopped_at_once(kinds: Kinds, how: str) -> None:
    """All children are in `on_finish` before the first one has left it."""
    running = Supervisor("tree", DynamicSupervisor("pool")).start()
    files = []
    for id in "abcd":
        running.start_child(kinds.child(id, shutdown="infinity"), under="pool")
        files.append(kinds.order("stops_slowly", id))

    ending = in_background(lambda: running.stop() if how == "the tree stops" else running.terminate_child("pool"))
    wait_for_notes(kinds, "slow a", "slow b", "slow c", "slow d")
    assert not [line for line in kinds.notes() if line.startswith("stop")]
    assert not ending.done()
    for file in files:
        file.unlink()

    ending.result(10)
    assert sorted(kinds.notes()[8:]) == ["stop a", "stop b", "stop c", "stop d"]
    running.stop()


def test_s42_s44_children_that_do_not_stop_in_time_are_killed_together(tmp_path: Path) -> None:
    kinds = Kinds(tmp_path, "process")
    running = DynamicSupervisor("pool").start()
    with running.events() as happened:
        for id in "abc":
            running.start_child(kinds.child(id, shutdown=0.3))
            kinds.order("stops_slowly", id)
        running.start_child(kinds.child("d", shutdown="infinity"))
        pids = [ref.pid for ref in running]
        assert running.stop(10) == Shutdown("stop")
        ends = {event.path: event for event in happened if isinstance(event, ChildStopped | ChildStopError)}
    assert {path: str(event.reason) for path, event in ends.items()} == {
        "pool/a": "killed (shutdown timeout)",
        "pool/b": "killed (shutdown timeout)",
        "pool/c": "killed (shutdown timeout)",
        "pool/d": str(Shutdown()),
    }
    for pid in pids:
        assert pid is not None
        wait_gone(pid, 0.0)


def test_s39_s45_a_dynamic_supervisor_stops_while_children_are_being_started(kinds: Kinds) -> None:
    running = DynamicSupervisor("pool").start()
    kinds.order("starts_slowly", "slow")  # its `wait` ends at a stop request
    slow = in_background(lambda: running.start_child(kinds.child("slow")))
    wait_for_notes(kinds, "slow slow")

    assert running.stop(10) == Shutdown("stop")

    with pytest.raises(WorkerDead):
        slow.result(15)


# ---------------------------------------------------------------- many children
def test_s54_starting_finding_and_restarting_a_child_takes_as_long_among_few_as_among_many() -> None:
    """Count the function calls in the supervisor's thread; a walk over all children would add 360."""
    calls: Counter[int] = Counter()

    def profiler(frame: FrameType, event: str, argument: Any) -> None:
        if event in ("call", "c_call"):
            calls[threading.get_ident()] += 1

    threading.setprofile(profiler)  # of the threads that are started now
    running = DynamicSupervisor("pool", max_restarts=1000, max_seconds=1000).start()
    threading.setprofile(None)
    supervisor = next(thread.ident for thread in threading.enumerate() if thread.name == "suitkaise-pool")
    assert supervisor is not None

    def work(of: Callable[[], object]) -> int:
        before = calls[supervisor]
        of()
        with pytest.raises(ChildNotFound):
            running.terminate_child("nobody")  # the supervisor has handled all earlier requests when it answers
        return calls[supervisor] - before

    def start() -> None:
        assert running.start_child(Child(EchoThread, id="one more", shutdown="infinity")).ask("there?") == "there?"

    def lose() -> None:
        running["one more"].tell("crash")
        wait_for_incarnation(running, "one more")

    costs = []
    with running:
        for number in (40, 400):
            while running.count_children().active < number:
                running.start_child(Child(EchoThread, shutdown="infinity"))
            acts = (start, lambda: whereis("pool/one more"), lose, lambda: running.terminate_child("one more"))
            costs.append([work(act) for act in acts])

    few, many = costs
    assert all(more < less + 200 for less, more in zip(few, many, strict=True)), costs


# ---------------------------------------------------------------- restarts of a dynamic supervisor
def test_s40_a_dynamic_supervisor_is_empty_after_its_restart(tmp_path: Path) -> None:
    kinds = Kinds(tmp_path, "process")
    tree = Supervisor("tree", kinds.child("first"), DynamicSupervisor("pool"), strategy="one_for_all")
    with tree.start() as running:
        old = running.start_child(Echo, under="pool")
        pid = old.pid
        assert pid is not None
        kinds.crash_and_wait(running, "first")

        eventually(lambda: statuses(running)["pool"] == "running", what="the pool is back")
        wait_gone(pid)
        assert running.which_children("pool") == []
        new = running.start_child(Echo, under="pool")
        assert (old.path, new.path) == ("tree/pool/echo-1", "tree/pool/echo-2")
        with pytest.raises((ChildNotFound, WorkerDead)):
            old.ask("still there?")
        assert new.ask("hello") == "hello"


def test_s30_s40_a_dynamic_supervisor_that_gives_up_is_restarted_empty() -> None:
    with Supervisor("tree", DynamicSupervisor("pool", max_restarts=0)).start() as running:
        pids = [running.start_child(Echo, under="pool").pid for _ in range(3)]
        kill(running, "pool/echo-2")

        for pid in pids:
            assert pid is not None
            wait_gone(pid)
        eventually(lambda: [line.restarts for line in running.which_children()] == [1], what="the pool is back")
        eventually(lambda: statuses(running)["pool"] == "running", what="the pool is up")
        assert running.which_children("pool") == []
        assert running.start_child(Echo, under="pool").ask("hello") == "hello"


# ---------------------------------------------------------------- deadlines
@pytest.mark.one_machine("nodes have timers of their own")
def test_s42_the_deadline_of_a_child_that_has_stopped_in_time_is_not_kept() -> None:
    with DynamicSupervisor("pool").start() as running:
        for _ in range(20):
            running.terminate_child(running.start_child(Child(EchoThread, shutdown=3600)).name)
        soon = time.monotonic() + 1800
        assert not [timer for when, _, timer in running._runtime.reactor._timers if timer.waits and when > soon]


# ---------------------------------------------------------------- from workers
def test_s53_a_worker_adds_and_terminates_children() -> None:
    with Supervisor("tree", PoolManager, DynamicSupervisor("pool", max_children=2)).start() as running:
        manager = running["pool_manager"]
        refs = [manager.ask("add"), manager.ask("add")]
        assert [ref.ask("hello") for ref in refs] == ["hello"] * 2
        assert manager.ask("count") == 2
        with pytest.raises(MaxChildren) as full:
            manager.ask("add")
        assert full.value.path == "tree/pool"
        manager.ask(("terminate", "echo-1"))
        assert manager.ask("add").path == "tree/pool/echo-4"  # 3 was refused


# ---------------------------------------------------------------- copies
@pytest.mark.parametrize("base", [Process, Thread])
def test_each_copy_is_a_worker_of_its_own_and_knows_its_number(base: type) -> None:
    worker = CopyProcess if base is Process else CopyThread
    with Supervisor("tree", Child(worker, args=(100,), id="copy", copies=4)).start() as running:
        refs = [running[f"copy-{number}"] for number in range(4)]
        assert [ref.ask("which?") for ref in refs] == [(number, f"copy-{number}", 100) for number in range(4)]
        refs[2].tell("crash")
        wait_for_incarnation(running, "copy-2")
        assert refs[2].ask("which?") == (2, "copy-2", 100)
        assert [ref.incarnation for ref in refs] == [1, 1, 2, 1]
