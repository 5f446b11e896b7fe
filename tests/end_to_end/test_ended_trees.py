"""Requests to a tree that has ended, and its results, events and status."""

from __future__ import annotations

from threading import Event

import psutil
import pytest

from suitkaise import AskTimeout, Command, Process, RuntimeGone, Status, Supervisor, Thread, WorkerDead, WorkerFailed
from suitkaise.exits import Normal
from tests.sample_workers import Echo
from tests.support import in_background


class Answer(Process):
    restart = "transient"
    significant = True

    def loop(self) -> None:
        self.rejoin()

    def result(self) -> int:
        return 42


class Idle(Process):
    def loop(self) -> None:
        self.wait(60.0)


def ended_tree():  # type: ignore[no-untyped-def]
    running = Supervisor("app", Answer, Supervisor("rest"), auto_shutdown="any_significant").start()
    ref = running["answer"]
    running.wait(timeout=20.0)
    return running, ref


def test_the_result_and_reason_of_a_worker_outlive_its_tree() -> None:
    _, ref = ended_tree()
    assert ref.result(timeout=1.0) == 42
    assert ref.join(timeout=1.0) == Normal()
    assert ref.status is Status.FINISHED
    assert ref.pid is None
    assert not ref.is_alive()


def test_a_message_to_a_worker_of_an_ended_tree_is_refused() -> None:
    _, ref = ended_tree()
    with pytest.raises(RuntimeGone):
        ref.tell("too late")
    with pytest.raises(RuntimeGone):
        ref.ask("too late")


def test_the_result_of_a_worker_that_raises_in_result_is_that_error() -> None:
    class Endless(Process):
        def loop(self) -> None:
            self.wait(60.0)

        def result(self) -> None:
            raise LookupError("no result yet")

    with Supervisor("app", Endless).start() as running:
        ref = running["endless"]
    with pytest.raises(WorkerFailed, match="LookupError in result: no result yet"):
        ref.result(timeout=1.0)


def test_the_events_of_a_tree_end_with_it() -> None:
    with Supervisor("app", Idle).start() as running, running.events() as events:
        running.stop()
        kinds = [event.kind for event in events]
        assert kinds[-1] == "supervisor_stopped"
        assert list(running.events()) == []


def test_the_status_of_a_tree_can_be_read_after_its_end() -> None:
    running, _ = ended_tree()
    picture = running.status()
    assert [(one.path, one.status) for one in (picture, *picture.children)] == [
        ("app", Status.STOPPED),
        ("app/answer", Status.FINISHED),
        ("app/rest", Status.STOPPED),
    ]
    assert [one.pid for one in picture.children] == [None, None]


def test_a_tree_that_is_being_stopped_has_the_status_stopping() -> None:
    finishes, enough = Event(), Event()

    class Lingers(Thread):
        def on_finish(self) -> None:
            finishes.set()
            enough.wait(20.0)

    with Supervisor("app", Lingers).start() as running:
        assert running.status().status is Status.RUNNING
        stopping = in_background(running.stop)
        assert finishes.wait(20.0)
        picture = running.status()
        enough.set()
        stopping.result(20.0)
    assert (picture.status, picture.children[0].status) == (Status.STOPPING, Status.STOPPING)


def test_repeated_waits_leave_no_callbacks_behind() -> None:
    with Supervisor("app", Echo).start() as running:
        before = len(running._root.exited._done_callbacks)
        for _ in range(10):
            with pytest.raises(AskTimeout):
                running.wait(0.001)
        assert len(running._root.exited._done_callbacks) == before


def test_a_request_below_a_tree_that_has_ended_tells_that_the_tree_has_ended() -> None:
    with Supervisor("app", Supervisor("rest", Idle)).start() as running:
        assert running.task(abs, -1).get(20.0) == 1
    for request in (
        lambda: running.task(abs, -1),
        lambda: next(running.stream(abs, [-1])),
        lambda: running.terminate_child("rest/idle"),
        lambda: running.start_child(Idle, under="rest"),
        lambda: running.start_child(Idle),
        lambda: running.suspend("rest"),
        lambda: running.resume("rest"),
        lambda: running.suspend("rest/idle"),
    ):
        with pytest.raises(WorkerDead, match="supervisor 'app' has ended: shutdown"):
            request()


def test_a_child_that_an_ended_tree_refuses_starts_no_keeper() -> None:
    with Supervisor("app", Thread).start() as running:
        pass
    before = psutil.Process().children()
    for what in (Idle, Command("true"), Supervisor("below", Idle)):
        with pytest.raises(WorkerDead, match="supervisor 'app' has ended: shutdown"):
            running.start_child(what)
    assert psutil.Process().children() == before
