"""`rejoin`, `skip_and_rejoin` and `force_finish` where a worker begins and ends, with real processes and threads."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, ClassVar

import pytest

from suitkaise import Child, ChildStartFailed, ExitReason, Normal, Shutdown, Supervisor, Thread, WorkerFailed
from suitkaise.events import ChildExited, ChildStarted, ChildStartFailure, ChildStopError, ChildStopped, Event
from tests.end_to_end.kinds import Kinds, next_event, statuses
from tests.sample_workers import FinishingProcess, FinishingThread

pytestmark = pytest.mark.usefixtures("one_runtime_for_all")


both = pytest.mark.parametrize("worker", [FinishingProcess, FinishingThread])
rejoins = pytest.mark.parametrize("what", ["rejoin", "skip_and_rejoin"])


def hooks(folder: Path) -> list[str]:
    return (folder / "hooks").read_text().splitlines()


def end_of(child: Child, how: str) -> tuple[type, ExitReason | None, ExitReason | None, Any]:
    """End a child in the way `how`; return (kind of event, its reason, value of `join`, result)."""
    with Supervisor("tree", child).start() as running, running.events() as happened:
        ref = running[child.id]
        if how == "terminated":
            running.terminate_child(child.id)
        else:
            ref.tell("leave")
        joined = ref.join(15)
        event = next_event(happened, Event, child.id)
        assert isinstance(event, ChildExited | ChildStopped | ChildStopError)
        try:
            result = ref.result(15)
        except WorkerFailed as error:
            result = error
        return type(event), event.reason, joined, result


# ------------------------------------------------------------ in on_finish
@both
@rejoins
def test_rejoin_in_on_finish_changes_nothing_at_a_clean_end(worker: Any, what: str, tmp_path: Path) -> None:
    (tmp_path / "on_finish").touch()
    child = Child(worker, args=(tmp_path, what), id="w", restart="transient")
    assert end_of(child, "leaves") == (ChildExited, Normal(), Normal(), "the result")
    assert hooks(tmp_path) == ["on_start", "on_finish", "the rest of on_finish", "result"]


@both
def test_rejoin_in_on_finish_changes_nothing_when_the_worker_is_terminated(worker: Any, tmp_path: Path) -> None:
    (tmp_path / "on_finish").touch()
    child = Child(worker, args=(tmp_path, "rejoin"), id="w")
    assert end_of(child, "terminated") == (ChildStopped, Shutdown(), Shutdown(), "the result")
    assert hooks(tmp_path) == ["on_start", "on_finish", "the rest of on_finish", "result"]


@both
@pytest.mark.parametrize("how, event", [("leaves", ChildExited), ("terminated", ChildStopped)])
def test_force_finish_in_on_finish_ends_the_worker_at_once_without_a_result(
    worker: Any, how: str, event: type, tmp_path: Path
) -> None:
    (tmp_path / "on_finish").touch()
    child = Child(worker, args=(tmp_path, "force_finish"), id="w", restart="transient")
    kind, reason, joined, result = end_of(child, how)
    assert (kind, reason, joined) == (event, Shutdown("forced"), Shutdown("forced"))
    assert isinstance(result, WorkerFailed)
    assert result.reason == Shutdown("forced")
    assert hooks(tmp_path) == ["on_start", "on_finish"]


@both
def test_a_permanent_worker_that_forces_its_end_is_restarted(worker: Any, tmp_path: Path) -> None:
    force = tmp_path / "on_finish"
    force.touch()
    tree = Supervisor("tree", Child(worker, args=(tmp_path, "force_finish"), id="w"))
    with tree.start() as running, running.events() as happened:
        running["w"].tell("leave")
        assert next_event(happened, ChildExited).reason == Shutdown("forced")
        next_event(happened, ChildStarted)
        force.unlink()
        assert running["w"].ask("there?") == "there?"
    assert hooks(tmp_path) == ["on_start", "on_finish", "on_start", "on_finish", "result"]


# ------------------------------------------------------------ in on_start
@both
@rejoins
def test_rejoin_in_on_start_is_a_successful_start_and_a_clean_end(worker: Any, what: str, tmp_path: Path) -> None:
    (tmp_path / "on_start").touch()
    with Supervisor("tree").start() as running:
        ref = running.start_child(Child(worker, args=(tmp_path, what), id="w", restart="transient"))
        assert (ref.join(15), ref.result(15)) == (Normal(), "the result")
    assert hooks(tmp_path) == ["on_start", "the rest of on_start", "on_finish", "result"]


@both
def test_s02_force_finish_in_on_start_is_a_start_failure_and_no_hook_runs(worker: Any, tmp_path: Path) -> None:
    (tmp_path / "on_start").touch()
    before = Kinds(tmp_path, worker(tmp_path, "force_finish").kind)
    tree = Supervisor("tree", before.child("a"), Child(worker, args=(tmp_path, "force_finish"), id="w"))
    with pytest.raises(ChildStartFailed) as caught:
        tree.start()
    assert (caught.value.path, caught.value.reason) == ("tree/w", Shutdown("forced"))
    assert hooks(tmp_path) == ["on_start"]
    assert before.notes() == ["start a", "stop a"]


@both
def test_s10_s18_s35_force_finish_in_on_start_fails_the_start_of_an_added_or_restarted_child(
    worker: Any, tmp_path: Path
) -> None:
    child = Child(worker, args=(tmp_path, "force_finish"), id="w")
    force = tmp_path / "on_start"
    with Supervisor("tree", max_restarts=math.inf).start() as running, running.events() as happened:
        force.touch()
        with pytest.raises(ChildStartFailed) as caught:
            running.start_child(child)
        assert (caught.value.path, caught.value.reason) == ("tree/w", Shutdown("forced"))
        assert statuses(running) == {}
        force.unlink()
        running.start_child(child)
        running.terminate_child("w")
        force.touch()
        with pytest.raises(ChildStartFailed):
            running.restart_child("w")
        assert not running["w"].is_alive()
        force.unlink()
        running.restart_child("w")
        force.touch()
        running["w"].tell("leave")
        next_event(happened, ChildExited)
        failures = [next_event(happened, ChildStartFailure) for _ in range(3)]
        assert {failure.reason for failure in failures} == {Shutdown("forced")}
        force.unlink()
        assert running["w"].ask("there?") == "there?"


class Reachable(Thread):
    """Lets the test call its methods from another thread, as a thread of its own could do."""

    living: ClassVar[list[Any]] = []

    def loop(self) -> None:
        self.living.append(self)
        self.rejoin()


class ReachableAndAsync(Reachable):
    async def before_loop(self) -> None: ...


@pytest.mark.parametrize("worker", [Reachable, ReachableAndAsync])
@pytest.mark.parametrize("how", ["rejoin", "skip_and_rejoin", "force_finish"])
def test_a_thread_worker_that_has_ended_accepts_finish_requests(worker: type[Reachable], how: str) -> None:
    with Supervisor("tree", Child(worker, id="w", restart="transient")).start() as running:
        assert running["w"].join(10) == Normal()
    getattr(worker.living.pop(), how)()
