"""The rules of stopping (43, 45) and of auto-shutdown (51) with real processes and threads."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from suitkaise import (
    AskTimeout,
    Child,
    ChildNotFound,
    Crashed,
    ExitCode,
    ExitReason,
    Killed,
    Shutdown,
    Signaled,
    Supervisor,
    Thread,
)
from suitkaise.events import ChildRestarting, ChildStarted, ChildStopError, ChildStopped, SupervisorStopped
from suitkaise.runtime.running_tree import RunningTree
from tests.end_to_end.kinds import Kinds, next_event, statuses
from tests.sample_workers import HandlesSlowly, SlowLoopingProcess, SlowProcess
from tests.support import eventually, wait_gone

pytestmark = pytest.mark.usefixtures("one_runtime_for_all")

ODD = {
    "raises_at_the_end": ("process", Crashed),
    "exits_at_the_end": ("process", ExitCode(3)),
    "is_killed_at_the_end": ("process", Signaled(signal.SIGKILL)),
    "raises_at_the_end, a thread": ("thread", Crashed),
}
odd_ends = pytest.mark.parametrize(
    "kinds, what, reason",
    [(kind, what.partition(",")[0], reason) for what, (kind, reason) in ODD.items()],
    ids=list(ODD),
    indirect=["kinds"],
)
both_groups = pytest.mark.parametrize(
    "kinds, strategy", [("process", "one_for_all"), ("thread", "rest_for_one")], indirect=["kinds"]
)


def is_it(reason: ExitReason | None, expected: Any) -> bool:
    if expected is Crashed:
        return isinstance(reason, Crashed) and reason.phase == "on_finish" and isinstance(reason.error, LookupError)
    return bool(reason == expected)


# ------------------------------------------------------------ odd exits
@odd_ends
def test_s43_an_odd_exit_while_the_tree_stops_is_reported_and_keeps_the_order(
    kinds: Kinds, what: str, reason: Any
) -> None:
    running = kinds.tree("abc", max_restarts=0).start()
    with running.events() as happened:
        kinds.order(what, "b")
        pids = [running[id].pid for id in "abc"]
        assert running.stop(timeout=15) == Shutdown("stop")
        ends = [event for event in happened if isinstance(event, ChildStopped | ChildStopError)]
    assert [(type(event), event.path) for event in ends] == [
        (ChildStopped, "tree/c"),
        (ChildStopError, "tree/b"),
        (ChildStopped, "tree/a"),
    ]
    assert is_it(ends[1].reason, reason), ends[1]
    assert kinds.notes()[3:] == ["stop c", "stop b", "stop a"]
    if kinds.kind == "process":
        for pid in pids:
            assert pid is not None
            wait_gone(pid, 0.0)


@odd_ends
def test_s43_an_odd_exit_under_terminate_child_is_reported_and_restarts_nothing(
    kinds: Kinds, what: str, reason: Any
) -> None:
    tree = kinds.tree("abc", strategy="one_for_all", max_restarts=0)
    with tree.start() as running, running.events() as happened:
        kinds.order(what, "b")
        running.terminate_child("b")
        assert is_it(next_event(happened, ChildStopError, "b").reason, reason)
        assert statuses(running) == {"a": "running", "b": "stopped", "c": "running"}
        line = running.which_children()[1]
        assert is_it(line.last_exit, reason), line
        assert line.restarts == 0
        assert kinds.notes("a", "c") == ["start a", "start c"]


def test_s43_an_odd_exit_while_its_group_is_stopped_is_no_restart_of_its_own(kinds: Kinds) -> None:
    tree = kinds.tree("abc", strategy="one_for_all", max_restarts=1)
    with tree.start() as running, running.events() as happened:
        odd = kinds.order("raises_at_the_end", "b")
        kinds.crash(running, "a")
        restart = next_event(happened, ChildRestarting)
        assert (restart.path, restart.used) == ("tree/a", 1)
        next_event(happened, ChildStopError, "b")
        next_event(happened, ChildStarted, "c")
        assert kinds.notes()[3:] == ["stop c", "stop b", "start a", "start b", "start c"]
        odd.unlink()


# ------------------------------------------------------------ the caller's time-out
def test_s45_the_callers_time_out_does_not_cancel_the_stop(kinds: Kinds) -> None:
    running = kinds.tree("abc").start()
    with running.events() as happened:
        slowly = kinds.order("stops_slowly", "b")
        with pytest.raises(AskTimeout, match="'tree' still runs after"):
            running.stop(timeout=0.05)
        eventually(lambda: "slow b" in kinds.notes())
        with pytest.raises(AskTimeout):
            running.stop(timeout=0.0)  # a second request changes nothing: `a` is not stopped before `b` is gone
        assert statuses(running) == {"a": "running", "b": "stopping", "c": "stopped"}
        slowly.unlink()
        assert next_event(happened, SupervisorStopped).reason == Shutdown("stop")  # although no caller waits
        assert kinds.notes()[3:] == ["stop c", "slow b", "stop b", "stop a"]
    assert running.wait(15) == Shutdown("stop")
    assert running.stop(timeout=15) == Shutdown("stop")


def test_s45_the_callers_time_out_does_not_move_the_deadline_of_a_child(tmp_path: Path) -> None:
    kinds = Kinds(tmp_path, "process")
    running = Supervisor("tree", kinds.child("a"), kinds.child("b", shutdown=0.3)).start()
    with running.events() as happened:
        kinds.order("stops_slowly", "b")
        with pytest.raises(AskTimeout):
            running.stop(timeout=0.01)
        assert next_event(happened, ChildStopError, "b").reason == Killed("shutdown timeout")
        assert running.wait(15) == Shutdown("stop")
    assert kinds.notes()[2:] in (["slow b", "stop a"], ["stop a"])


# ------------------------------------------------------------ orders to kill
def test_s79_kill_child_is_an_order_so_nothing_is_restarted(kinds: Kinds) -> None:
    with kinds.tree("ab", max_restarts=0).start() as running:
        ref = running["a"]
        running.kill_child("a")
        assert statuses(running)["b"] == "running"
        assert running.which_children()[0].last_exit == Killed("kill_child()")
        assert not ref.is_alive()
        running.kill_child("a")  # it is down already
        with pytest.raises(ChildNotFound):
            running.kill_child("c")
        assert running.restart_child("a").ask("there?") == "there?"
    if kinds.kind == "process":  # a thread cannot be killed: it is abandoned, and told to finish
        assert kinds.notes("a") == ["start a", "start a", "stop a"]


def test_s79_kill_child_ends_a_stop_that_takes_long(tmp_path: Path) -> None:
    kinds = Kinds(tmp_path, "process")
    with Supervisor("tree", kinds.child("a", shutdown="infinity")).start() as running:
        kinds.order("stops_slowly", "a")
        running["a"].rejoin()
        eventually(lambda: "slow a" in kinds.notes())
        running.kill_child("a")
        assert statuses(running) == {"a": "stopped"}
    assert kinds.notes("a") == ["start a", "slow a"]


# ------------------------------------------------------------ significant children, stopped because of a sibling
def significant(kinds: Kinds, id: str, restart: str = "transient") -> Child:
    return kinds.child(id, restart=restart, significant=True)


@both_groups
@pytest.mark.parametrize("auto_shutdown", ["any_significant", "all_significant"])
def test_s51_a_significant_child_that_is_stopped_because_of_a_sibling_ends_nothing(
    kinds: Kinds, strategy: Any, auto_shutdown: Any
) -> None:
    children = kinds.child("a"), significant(kinds, "b"), significant(kinds, "c", "temporary"), kinds.child("d")
    tree = Supervisor("tree", *children, strategy=strategy, auto_shutdown=auto_shutdown)
    running = tree.start()
    with running.events() as happened:
        kinds.crash(running, "a")
        next_event(happened, ChildStarted, "d")
        assert statuses(running) == {"a": "running", "b": "running", "d": "running"}
        assert [running[id].ask("there?") for id in "abd"] == ["there?"] * 3
        running["b"].tell("leave")  # now the last significant child ends by itself
        assert running.wait(15) == Shutdown("auto-shutdown: 'b' has ended")


@pytest.mark.parametrize("restart", ["transient", "temporary"])
def test_s51_a_significant_child_that_a_retry_or_a_request_stops_ends_nothing(tmp_path: Path, restart: str) -> None:
    kinds = Kinds(tmp_path, "thread")
    children = significant(kinds, "a", restart), significant(kinds, "b", restart), kinds.child("c")
    tree = Supervisor("tree", *children, strategy="one_for_all", auto_shutdown="any_significant")
    with tree.start() as running, running.events() as happened:
        running.terminate_child("a")
        kinds.order("fails_once", "c")
        kinds.crash(running, "c")
        for _ in range(2):
            next_event(happened, ChildRestarting, "c")
        next_event(happened, ChildStarted, "c")
        kept = {"a": "running", "b": "running"} if restart == "transient" else {}
        assert statuses(running) == {**kept, "c": "running"}


def test_s51_a_supervisor_that_is_stopped_because_of_its_sibling_does_not_chain_upward(kinds: Kinds) -> None:
    inner = Supervisor(
        "inner", significant(kinds, "work"), auto_shutdown="any_significant", restart="transient", significant=True
    )
    tree = Supervisor("tree", kinds.child("a"), inner, strategy="one_for_all", auto_shutdown="any_significant")
    running = tree.start()
    with running.events() as happened:
        kinds.crash(running, "a")
        next_event(happened, ChildStarted, "inner")
        assert running["inner/work"].ask("there?") == "there?"
        running["inner/work"].tell("leave")
        assert running.wait(15) == Shutdown("auto-shutdown: 'inner' has ended")


# ------------------------------------------------------------ stop requests and messages
def handling(folder: Path, worker: type[HandlesSlowly]) -> RunningTree:
    """Start a tree whose worker has begun to handle far more messages than it can handle in a few seconds."""
    running = Supervisor("tree", Child(worker, args=(folder,), id="w", shutdown=8.0)).start()
    for number in range(1_000):  # 20 seconds of work
        running["w"].tell(number)
    (folder / "go").touch()
    eventually(lambda: (folder / "handled").exists() and int((folder / "handled").read_text() or 0) > 1)
    return running


slow_workers = pytest.mark.parametrize("worker", [SlowProcess, SlowLoopingProcess])


@slow_workers
def test_s42_a_stop_request_does_not_wait_until_all_messages_are_handled(
    tmp_path: Path, worker: type[HandlesSlowly]
) -> None:
    with handling(tmp_path, worker) as running, running.events() as events:
        running.terminate_child("w")
        assert next_event(events, ChildStopped).reason == Shutdown()
    assert (tmp_path / "finished").exists()


@slow_workers
def test_a_worker_suspended_and_then_stopped_between_messages_ends_cleanly(
    tmp_path: Path, worker: type[HandlesSlowly]
) -> None:
    with handling(tmp_path, worker) as running, running.events() as events:
        running.suspend("w")
        running.resume("w")
        handled = int((tmp_path / "handled").read_text() or 0)
        eventually(lambda: int((tmp_path / "handled").read_text() or 0) > handled + 1)
        running.terminate_child("w")
        assert next_event(events, ChildStopped).reason == Shutdown()


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


def test_s20_a_supervisor_that_ends_by_itself_is_listed_as_stopping_until_it_has_ended() -> None:
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
