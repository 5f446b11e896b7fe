"""Rule 57: a restarted worker knows its past and gets the last checkpoint."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

import pytest

from suitkaise import Child, Crashed, NotSerializable, Process, Recalled, Shutdown, Signaled, Supervisor, Thread
from suitkaise.workers.worker import Worker
from tests.end_to_end.kinds import wait_for_incarnation

pytestmark = pytest.mark.usefixtures("one_runtime_for_all")


class Remembers(Worker):
    """Makes checkpoints, and may die right after; answers what it knows of the incarnation before."""

    def on_receive(self, message: Any) -> Any:
        match message:
            case ("keep", value):
                self.checkpoint(value)
            case ("keep and die", value):
                self.checkpoint(value)
                if self.kind == "process":
                    os.kill(os.getpid(), signal.SIGKILL)
                raise OSError("dies")
            case "keep what cannot be sent":
                self.checkpoint(threading.Lock())
            case "leave":
                self.rejoin()
            case "change it":
                assert self.recalled is not None
                self.recalled.checkpoint.append("changed")
            case "what?":
                return self.recalled and self.recalled.checkpoint
            case "all":
                return self.recalled
        return None


class RemembersInAProcess(Remembers, Process):
    pass


class RemembersInAThread(Remembers, Thread):
    pass


class Counts(Process):
    """Goes on at the checkpoint of the incarnation before, a thousand steps in all; every hundredth step kills it."""

    restart = "transient"

    def on_start(self) -> None:
        self.n = self.recalled.checkpoint if self.recalled else 0

    def loop(self) -> None:
        self.n += 1
        self.checkpoint(self.n)
        if self.n % 100 == 0 and self.n < 1000:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.n == 1000:
            self.rejoin()

    def result(self) -> tuple[int, int]:
        return self.n, self.recalled.attempt if self.recalled else 0


@pytest.fixture(params=[RemembersInAProcess, RemembersInAThread], ids=["process", "thread"])
def worker(request: pytest.FixtureRequest) -> type[Remembers]:
    kind: type[Remembers] = request.param
    return kind


def test_s57_on_a_first_start_recalled_is_none(worker: type[Remembers]) -> None:
    with Supervisor("tree", Child(worker, id="w")).start() as running:
        assert running["w"].ask("all") is None


def test_s57_a_checkpoint_survives_a_kill_right_after_it(worker: type[Remembers]) -> None:
    with Supervisor("tree", Child(worker, id="w"), max_restarts=9).start() as running:
        for number in range(1, 4):
            running["w"].tell(("keep", "an older one"))
            running["w"].tell(("keep and die", {"number": number}))
            wait_for_incarnation(running, "w", number + 1)
            past = running["w"].ask("all")
            assert isinstance(past, Recalled)
            assert past.attempt == number
            assert isinstance(past.reason, Signaled if worker is RemembersInAProcess else Crashed)
            assert 0 <= past.down_for < 60
            assert past.checkpoint == {"number": number}


def test_s57_a_thousand_steps_with_kills_go_on_at_the_last_checkpoint() -> None:
    with Supervisor("tree", Counts, max_restarts=20).start() as running:
        assert running["counts"].result(30) == (1000, 9)


def test_s57_an_incarnation_without_a_checkpoint_keeps_the_one_before(worker: type[Remembers]) -> None:
    with Supervisor("tree", Child(worker, id="w"), max_restarts=9).start() as running:
        running["w"].tell(("keep and die", 7))
        wait_for_incarnation(running, "w", 2)
        running["w"].kill()
        wait_for_incarnation(running, "w", 3)
        assert running["w"].ask("what?") == 7


def test_s57_the_next_incarnation_gets_a_copy_of_the_checkpoint(worker: type[Remembers]) -> None:
    with Supervisor("tree", Child(worker, id="w"), max_restarts=9).start() as running:
        kept = [1, 2]
        running["w"].tell(("keep", kept))
        running["w"].tell(("keep and die", kept))
        wait_for_incarnation(running, "w", 2)
        running["w"].tell("change it")
        assert running["w"].ask("what?") == [1, 2]


def test_s57_a_checkpoint_that_cannot_be_pickled_is_refused_and_the_one_before_is_kept(worker: type[Remembers]) -> None:
    with Supervisor("tree", Child(worker, id="w"), max_restarts=9).start() as running:
        running["w"].tell(("keep", "good"))
        with pytest.raises(NotSerializable, match="checkpoint"):
            running["w"].ask("keep what cannot be sent")
        wait_for_incarnation(running, "w", 2)
        assert running["w"].ask("what?") == "good"


def test_s57_a_checkpoint_survives_terminate_child_and_recall_but_not_delete_child(worker: type[Remembers]) -> None:
    with Supervisor("tree", Child(worker, id="w")).start() as running:
        running["w"].ask(("keep", 1))
        running.recall("w")
        past = running["w"].ask("all")
        assert (past.attempt, past.reason, past.checkpoint) == (1, Shutdown(), 1)
        running.terminate_child("w")
        running.restart_child("w")
        assert running["w"].ask("what?") == 1
        running.terminate_child("w")
        running.delete_child("w")
        running.start_child(Child(worker, id="w"))
        assert running["w"].ask("all") is None


def test_s57_a_sibling_restarted_in_the_same_group_has_its_own_checkpoint(worker: type[Remembers]) -> None:
    children = Child(worker, id="a"), Child(worker, id="b")
    with Supervisor("tree", *children, strategy="one_for_all").start() as running:
        running["a"].ask(("keep", "a's"))
        running["b"].tell(("keep and die", "b's"))
        wait_for_incarnation(running, "b", 2)
        assert running["a"].ask("what?") == "a's"
        assert running["a"].ask("all").reason == Shutdown()
        assert running["b"].ask("what?") == "b's"


def test_s40_s57_a_restarted_supervisor_starts_children_without_checkpoints(worker: type[Remembers]) -> None:
    inner = Supervisor("inner", Child(worker, id="w"), max_restarts=0, restart="permanent")
    with Supervisor("tree", inner).start() as running:
        running["inner/w"].tell(("keep and die", 1))
        wait_for_incarnation(running, "inner/w", 2)
        assert running["inner/w"].ask("all") is None


def test_s57_a_worker_that_does_not_run_cannot_make_a_checkpoint() -> None:
    with pytest.raises(RuntimeError, match="for a running worker"):
        RemembersInAProcess().checkpoint(1)


@pytest.mark.parametrize("base", [Process, Thread])
def test_s57_the_last_checkpoint_is_the_default_until_there_is_one(base: type[Worker]) -> None:
    class Keeps(base):  # type: ignore[misc,valid-type]
        def on_start(self) -> None:
            self.at_start = self.last_checkpoint("none yet")

        def on_receive(self, message: Any) -> Any:
            self.checkpoint(message)
            return self.at_start, self.last_checkpoint()

    with Supervisor("app", Keeps).start() as running:
        ref = running["keeps"]
        assert ref.ask(None) == ("none yet", None)
        ref.recall()
        assert ref.ask([1]) == (None, [1])
        ref.recall()
        assert ref.ask(2) == ([1], 2)
