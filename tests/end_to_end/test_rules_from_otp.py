"""Rules 61-67, taken from OTP's own tests, and further cases of earlier rules, with real processes and threads."""

from __future__ import annotations

import gc
import math
import weakref
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from suitkaise import (
    AskTimeout,
    Child,
    ChildNotFound,
    ChildStartFailed,
    Crashed,
    DynamicSupervisor,
    ExitCode,
    Killed,
    Normal,
    Shutdown,
    Signaled,
    Supervisor,
    Thread,
    WorkerDead,
    whereis,
)
from suitkaise.events import (
    ChildExited,
    ChildRestarting,
    ChildStarted,
    ChildStopError,
    ChildStopped,
    SupervisorGaveUp,
    SupervisorStopped,
)
from suitkaise.runtime.running_tree import RunningTree
from tests.end_to_end.kinds import Kinds, next_event, statuses
from tests.sample_workers import CutsItselfOff, FailingProcess, FailingThread, Fails, Tallies, TallyProcess, TallyThread
from tests.support import eventually, in_background, wait_gone

pytestmark = pytest.mark.usefixtures("one_runtime_for_all")

RESTARTS = ("permanent", "transient", "temporary")


# ------------------------------------------------------------ 61: ends while the supervisor stops
@pytest.mark.parametrize("strategy", ["one_for_one", "one_for_all"])
def test_s61_children_that_end_by_themselves_while_the_tree_stops_are_skipped(kinds: Kinds, strategy: Any) -> None:
    ends = {f"{restart}-{how}": (restart, how) for restart, how in product(RESTARTS, ("leave", "crash"))}
    children = [kinds.child(id, restart=restart) for id, (restart, _) in ends.items()]
    tree = Supervisor("tree", kinds.child("a"), *children, kinds.child("z"), strategy=strategy, max_restarts=0)
    running = tree.start()
    with running.events() as happened:
        slowly = kinds.order("stops_slowly", "z")
        stopped = in_background(lambda: running.stop(timeout=10))
        eventually(lambda: "slow z" in kinds.notes())

        for id, (_, how) in ends.items():
            if how == "crash":
                kinds.crash(running, id)
            else:
                running[id].tell("leave")
        gone = {next_event(happened, ChildExited).path for _ in ends}
        assert gone == {f"tree/{id}" for id in ends}
        assert kinds.notes("a") == ["start a"]  # `a` is stopped after them
        slowly.unlink()

        assert stopped.result(10) == Shutdown("stop")
        assert [next_event(happened, ChildStopped).path for _ in "za"] == ["tree/z", "tree/a"]
        assert next_event(happened, SupervisorStopped).reason == Shutdown("stop")
    assert [line for line in kinds.notes() if line.startswith("start")] == [f"start {id}" for id in ("a", *ends, "z")]


def test_s61_children_that_end_by_themselves_while_a_dynamic_supervisor_stops_are_skipped(kinds: Kinds) -> None:
    running = DynamicSupervisor("pool", max_restarts=0).start()
    for restart in RESTARTS:
        running.start_child(kinds.child(restart, restart=restart))
    running.start_child(kinds.child("z"))
    with running.events() as happened:
        for restart in RESTARTS:
            kinds.order("raises_at_the_end", restart)
        slowly = kinds.order("stops_slowly", "z")
        stopped = in_background(lambda: running.stop(timeout=10))
        ended = {next_event(happened, ChildStopError).path for _ in RESTARTS}
        assert ended == {f"pool/{restart}" for restart in RESTARTS}
        slowly.unlink()
        assert stopped.result(10) == Shutdown("stop")
    assert kinds.notes()[:4] == [f"start {id}" for id in (*RESTARTS, "z")]
    assert len([line for line in kinds.notes() if line.startswith("start")]) == 4


# ------------------------------------------------------------ 62: requests without a running supervisor
def requests(running: RunningTree, kinds: Kinds, under: str = "") -> list[Callable[[], Any]]:
    path = f"{under}/a" if under else "a"
    return [
        lambda: running.start_child(kinds.child("new"), under=under),
        lambda: running.start_child(kinds.child("a"), under=under),
        lambda: running.terminate_child(path),
        lambda: running.restart_child(path),
        lambda: running.delete_child(path),
        lambda: running.recall(path),
    ]


@pytest.mark.parametrize("kind", [Supervisor, DynamicSupervisor])
def test_s62_a_tree_that_stops_or_has_stopped_refuses_at_once(kinds: Kinds, kind: type[Supervisor]) -> None:
    with kind("tree").start() as running:
        running.start_child(kinds.child("a"))
        running.start_child(kinds.child("z"))
        slowly = kinds.order("stops_slowly", "z")
        with pytest.raises(AskTimeout):
            running.stop(timeout=0.01)

        for request in requests(running, kinds):
            with pytest.raises(WorkerDead, match="supervisor 'tree' is stopping") as refused:
                request()
            assert refused.value.reason == Shutdown("stop")
        assert statuses(running)["z"] == "stopping"  # lists are still available
        slowly.unlink()
        assert running.stop(timeout=15) == Shutdown("stop")

        for request in requests(running, kinds):
            with pytest.raises(WorkerDead):
                request()
        assert kinds.notes("new") == []


@pytest.mark.parametrize("what", ["a supervisor that was terminated", "nothing", "a worker"])
def test_s62_requests_to_a_path_without_a_running_supervisor_are_refused(kinds: Kinds, what: str) -> None:
    under = {"a supervisor that was terminated": "inner", "nothing": "nobody", "a worker": "work"}[what]
    with Supervisor("tree", kinds.tree("a", name="inner"), kinds.child("work")).start() as running:
        if under == "inner":
            running.terminate_child("inner")
        for request in requests(running, kinds, under):
            with pytest.raises(ChildNotFound, match=f"no running supervisor at 'tree/{under}'"):
                request()
        for question in (running.which_children, running.count_children):
            with pytest.raises(ChildNotFound):
                question(under)


@pytest.mark.parametrize("end", ["stops", "gives up", "is killed"])
def test_s62_a_request_made_before_the_end_of_a_supervisor_is_refused_at_its_end(kinds: Kinds, end: str) -> None:
    inner = kinds.tree("a", name="inner", max_restarts=0, restart="temporary")
    with Supervisor("tree", inner).start() as running:
        slowly = kinds.order("starts_slowly", "slow")
        asked = in_background(lambda: running.start_child(kinds.child("slow"), under="inner"))
        eventually(lambda: "slow slow" in kinds.notes())

        match end:
            case "stops":
                in_background(lambda: running.terminate_child("inner"))
            case "gives up":
                kinds.crash(running, "inner/a")
            case "is killed" if kinds.kind == "process":
                running["inner"].kill()
            case "is killed":  # a thread that starts cannot be killed, only abandoned
                running["inner"].rejoin()

        with pytest.raises(WorkerDead, match="supervisor 'tree/inner' is stopping"):
            asked.result(15)
        slowly.unlink()


# ------------------------------------------------------------ 63: starts that fail
WAYS: dict[str, Any] = {
    "raises": Crashed,
    "is interrupted": Crashed,
    "exits": ExitCode(3),
    "exits as if all was well": Normal(),
    "exits at once": ExitCode(3),
    "exits at once as if all was well": ExitCode(0),
    "is killed": Signaled(9),
}
NOT_IN_A_THREAD = ("exits at once", "exits at once as if all was well", "is killed")
both = pytest.mark.parametrize("worker", [FailingProcess, FailingThread], ids=lambda worker: worker.__name__)


def ways_of(worker: type[Fails]) -> dict[str, Any]:
    return {how: WAYS[how] for how in WAYS if worker is FailingProcess or how not in NOT_IN_A_THREAD}


@both
def test_s63_a_start_that_fails_in_any_way_raises_its_reason_once_its_process_is_gone(
    tmp_path: Path, worker: type[Fails]
) -> None:
    pids = tmp_path / "pids"
    with Supervisor("tree", DynamicSupervisor("pool")).start() as running:
        for (how, reason), under in product(ways_of(worker).items(), ("", "pool")):
            with pytest.raises(ChildStartFailed) as failed:
                running.start_child(Child(worker, args=(how, pids), id="new"), under=under)
            if worker is FailingProcess:
                wait_gone(int(pids.read_text().split()[-1]), timeout=0.0)
            assert failed.value.path == (f"tree/{under}/new" if under else "tree/new")
            assert failed.value.reason == reason or failed.value.reason.__class__ is reason, how
        assert statuses(running) == {"pool": "running"}
        assert statuses(running, "pool") == {}


@both
def test_s63_a_restart_that_fails_in_any_way_is_tried_again(tmp_path: Path, worker: type[Fails]) -> None:
    ways = ways_of(worker)
    files = {how: tmp_path / how for how in ways}
    children = [
        Child(worker, args=(how, tmp_path / "pids", file), id=how, restart="transient") for how, file in files.items()
    ]
    with (
        Supervisor("tree", *children, max_restarts=100, max_seconds=600).start() as running,
        running.events() as happened,
    ):
        for number, (how, file) in enumerate(files.items()):
            file.touch()
            running[how].kill()
            tries = [next_event(happened, ChildRestarting, how).used for _ in range(2)]
            assert tries == [2 * number + 1, 2 * number + 2], how
            next_event(happened, ChildStarted, how)
            assert not file.exists()


# ------------------------------------------------------------ 64: removed children
class Argument:
    pass


class Holds(Thread):
    def __init__(self, argument: Argument) -> None:
        self.argument = argument

    def on_receive(self, message: Any) -> None:
        raise ValueError("a crash on request")


@pytest.mark.parametrize("kind", [Supervisor, DynamicSupervisor])
def test_s64_the_arguments_of_a_removed_child_are_not_kept(kind: type[Supervisor]) -> None:
    with kind("tree").start() as running:
        for end in ("leaves", "crashes", "is terminated", "is deleted"):
            argument = Argument()
            reference = weakref.ref(argument)
            restart: Any = "permanent" if end == "is deleted" else "temporary"
            running.start_child(Child(Holds, args=(argument,), id="a", restart=restart))
            del argument
            match end:
                case "leaves":
                    running["a"].rejoin()
                case "crashes":
                    running["a"].tell("crash")
                case _:
                    running.terminate_child("a")
            if end == "is deleted" and kind is Supervisor:
                running.delete_child("a")
            eventually(lambda: "a" not in running)
            eventually(lambda: is_freed(reference), what=f"its argument is freed when it {end}")  # noqa: B023


def is_freed(reference: weakref.ref[Argument]) -> bool:
    gc.collect()
    return reference() is None


# ------------------------------------------------------------ 65: a supervisor that is killed
def test_s42_s43_s65_a_supervisor_that_does_not_stop_in_time_is_killed_and_that_is_an_error(tmp_path: Path) -> None:
    kinds = Kinds(tmp_path, "process")
    inner = kinds.tree("ab", name="inner", shutdown=0.3)
    with Supervisor("tree", inner).start() as running, running.events() as happened:
        pids = [running[f"inner/{id}"].pid for id in "ab"]
        kinds.order("stops_slowly", "b")
        running.terminate_child("inner")
        for pid in pids:
            assert pid is not None
            wait_gone(pid, timeout=0.0)
        assert next_event(happened, ChildStopError, "inner/b").reason == Killed("shutdown timeout")
        assert next_event(happened, SupervisorStopped, "inner").reason == Killed("shutdown timeout")
        assert next_event(happened, ChildStopError, "inner").reason == Killed("shutdown timeout")
        assert running.which_children()[0].last_exit == Killed("shutdown timeout")


def test_s42_s65_a_supervisor_with_brutal_kill_is_killed_with_all_its_descendants(kinds: Kinds) -> None:
    inner = Supervisor("inner", kinds.tree("ab", name="low"), kinds.child("c"), shutdown="brutal_kill")
    with Supervisor("tree", inner).start() as running, running.events() as happened:
        pids = [running[f"inner/{id}"].pid for id in ("low/a", "low/b", "c")]
        running.terminate_child("inner")
        assert next_event(happened, ChildStopped, "inner").reason == Killed("brutal_kill")
        if kinds.kind == "process":
            for pid in pids:
                assert pid is not None
                wait_gone(pid, timeout=0.0)
            assert not [line for line in kinds.notes() if line.startswith("stop")]


@pytest.mark.parametrize("restart", RESTARTS)
def test_s65_a_supervisor_that_is_killed_by_its_ref_is_restarted_as_any_child_is(kinds: Kinds, restart: Any) -> None:
    inner = kinds.tree("ab", name="inner", restart=restart)
    tree = Supervisor("tree", inner, kinds.child("c"), strategy="one_for_all")
    with tree.start() as running, running.events() as happened:
        refs = [running[f"inner/{id}"] for id in "ab"]
        pids = [ref.pid for ref in refs]
        running["inner"].kill()
        if restart == "temporary":
            eventually(lambda: "inner" not in running)
            assert statuses(running) == {"c": "running"}
        else:
            next_event(happened, ChildStarted, "c")
            assert [ref.ask("there?") for ref in refs] == ["there?"] * 2
        if kinds.kind == "process":
            for pid in pids:
                assert pid is not None
                wait_gone(pid, timeout=0.0)


# ------------------------------------------------------------ 66: a child without connections
def test_s66_a_child_that_has_closed_its_connections_can_be_stopped(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    with Supervisor("tree", Child(CutsItselfOff, args=(pids,), id="deaf"), max_restarts=100).start() as running:
        eventually(pids.exists)
        running.terminate_child("deaf")  # unless it has ended by itself, since it has no connection
        assert statuses(running)["deaf"] != "running"
        seen = pids.read_text()
        for pid in seen.split():
            wait_gone(int(pid), timeout=0.0)
        running.restart_child("deaf")
        eventually(lambda: pids.read_text() != seen)
        assert running.stop(timeout=15) == Shutdown("stop")
        for pid in pids.read_text().split():
            wait_gone(int(pid), timeout=0.0)


def test_s66_the_end_of_a_child_that_has_closed_its_connections_is_noticed(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    with Supervisor("tree", Child(CutsItselfOff, args=(pids,), id="deaf"), max_restarts=100).start() as running:
        ref = running["deaf"]
        eventually(pids.exists)
        ref.kill()
        eventually(lambda: ref.incarnation > 1 and ref.status == "running")


# ------------------------------------------------------------ 67: a ref leads to the running incarnation
@pytest.mark.parametrize("worker", [TallyProcess, TallyThread], ids=lambda worker: worker.__name__)
def test_s67_a_ref_leads_to_the_incarnation_that_runs(worker: type[Tallies]) -> None:
    with Supervisor("tree", Supervisor("inner", Child(worker, id="tally"))).start() as running:
        ref = running["inner/tally"]

        def restart_by_request() -> None:
            running.terminate_child("inner/tally")
            running.restart_child("inner/tally")

        ways: list[Callable[[], Any]] = [
            lambda: ref.tell("leave"),
            lambda: ref.tell("crash"),
            ref.kill,
            restart_by_request,
            lambda: running.recall("inner/tally"),
            running["inner"].kill,
        ]
        for incarnation, end in enumerate(ways, start=1):
            assert [ref.ask("one"), ref.ask("two")] == [1, 2]  # a new incarnation counts from 0 (rule 41)
            end()
            eventually(lambda: ref.incarnation > incarnation and ref.status == "running")  # noqa: B023
            assert whereis("tree/inner/tally") == ref == running["inner/tally"]
        assert ref.ask("one") == 1


# ------------------------------------------------------------ further cases of earlier rules
def test_s30_s34_s40_a_group_restart_of_supervisors_starts_all_with_their_declared_children(kinds: Kinds) -> None:
    one, two = kinds.tree("ab", name="one"), Supervisor("two", max_restarts=0)
    three = Supervisor("three", restart="transient")
    with Supervisor("tree", one, two, three, strategy="one_for_all").start() as running, running.events() as happened:
        running.terminate_child("three")
        counts = running.count_children()
        assert (counts.specs, counts.active, counts.supervisors, counts.workers) == (3, 2, 3, 0)
        running.start_child(kinds.child("c"), under="two")
        kinds.crash(running, "two/c")
        assert next_event(happened, SupervisorGaveUp).path == "tree/two"
        next_event(happened, ChildStarted, "three")

        assert statuses(running) == {"one": "running", "two": "running", "three": "running"}
        assert list(statuses(running, "one").values()) == ["running", "running"]
        assert statuses(running, "two") == statuses(running, "three") == {}


def test_s20_s21_s32_children_are_listed_during_a_group_restart_and_a_new_child_waits_for_its_end(
    kinds: Kinds,
) -> None:
    with kinds.tree("abc", strategy="one_for_all").start() as running:
        stops, starts = kinds.order("stops_slowly", "b"), kinds.order("starts_slowly", "b")
        kinds.crash(running, "a")
        eventually(lambda: "slow b" in kinds.notes())
        assert statuses(running) == {"a": "restarting", "b": "stopping", "c": "stopped"}
        assert (running.count_children().specs, running.count_children().active) == (3, 1)
        added = in_background(lambda: running.start_child(kinds.child("d")))

        stops.unlink()
        eventually(lambda: kinds.notes("b").count("slow b") == 2)
        assert statuses(running) == {"a": "running", "b": "starting", "c": "stopped"}
        assert not added.done()

        starts.unlink()
        assert added.result(15).ask("there?") == "there?"
        assert set(statuses(running).values()) == {"running"}
        assert [note for note in kinds.notes() if note.startswith("start")][3:] == [f"start {id}" for id in "abcd"]


@pytest.mark.parametrize("mode", ["any_significant", "all_significant"])
def test_s52_the_auto_shutdown_of_a_supervisor_that_is_not_significant_ends_it_alone(kinds: Kinds, mode: Any) -> None:
    work = kinds.child("work", restart="transient", significant=True)
    inner = Supervisor("inner", work, auto_shutdown=mode, restart="transient")
    with Supervisor("tree", inner, kinds.child("a"), auto_shutdown=mode).start() as running:
        running["inner/work"].tell("leave")
        eventually(lambda: statuses(running)["inner"] == "finished")
        assert running["a"].ask("there?") == "there?"


@pytest.mark.parametrize("wrong", ["soon", math.nan, True])
def test_s45_a_wrong_time_out_stops_nothing(tmp_path: Path, wrong: Any) -> None:
    kinds = Kinds(tmp_path, "thread")
    with kinds.tree("a").start() as running, running.events() as happened:
        for waiting in (running.stop, running.wait, running["a"].join, happened.get):
            with pytest.raises(TypeError, match="timeout must be seconds, or None for ever, not "):
                waiting(wrong)
        assert running["a"].ask("there?", timeout=math.inf) == "there?"
        assert running.stop(math.inf) == Shutdown("stop")


def test_s44_each_child_of_a_dynamic_supervisor_has_a_shutdown_of_its_own(tmp_path: Path) -> None:
    kinds = Kinds(tmp_path, "process")
    shutdowns: dict[str, Any] = {"patient": "infinity", "brutal": "brutal_kill", "short": 0.1, "none": 0, "five": 5.0}
    running = DynamicSupervisor("pool").start()
    for id, shutdown in shutdowns.items():
        running.start_child(kinds.child(id, shutdown=shutdown))
    with running.events() as happened:
        for id in ("short", "five"):
            kinds.order("stops_slowly", id)
        stopped = in_background(lambda: running.stop(timeout=10))
        eventually(lambda: "slow five" in kinds.notes())
        (tmp_path / "stops_slowly-five").unlink()
        assert stopped.result(10) == Shutdown("stop")
        ends = {event.path[5:]: event for event in happened if isinstance(event, ChildStopped | ChildStopError)}
    assert {id for id, event in ends.items() if isinstance(event, ChildStopError)} >= {"short"}
    assert ends["short"].reason == Killed("shutdown timeout")
    assert ends["brutal"].reason == Killed("brutal_kill")
    assert ends["patient"].reason == ends["five"].reason == Shutdown()
    assert ends["none"].reason in (Shutdown(), Killed("shutdown timeout"))
