"""`finish_reason`, and the reason that `rejoin` is given."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from suitkaise import Child, DeadlockError, DynamicSupervisor, Process, Supervisor, Thread, WorkerDead
from suitkaise.exits import Normal, Shutdown
from suitkaise.status import Status


class Tells(Thread):
    restart = "temporary"
    at_finish: Any = None

    def on_receive(self, message: Any) -> Any:
        if message == "rejoin":
            self.rejoin("enough")
        elif message == "end":
            self.rejoin()
        return self.finish_reason

    def on_finish(self) -> None:
        self.at_finish = self.finish_reason

    def result(self) -> Any:
        return self.at_finish, self.finish_reason


class TellsInAProcess(Process):
    restart = "temporary"
    at_finish: Any = None
    on_receive, on_finish, result = Tells.on_receive, Tells.on_finish, Tells.result


@pytest.mark.parametrize("kind", [Tells, TellsInAProcess])
@pytest.mark.parametrize("how, reason", [("rejoin", Shutdown("enough")), ("end", Normal()), ("terminate", Shutdown())])
def test_a_worker_knows_in_on_finish_and_in_result_why_it_finishes(kind: Any, how: str, reason: Any) -> None:
    with Supervisor("tree", DynamicSupervisor("jobs")).start() as running:
        ref = running.start_child(Child(kind, id="w"), under="jobs")
        assert ref.ask("hello") is None
        if how == "terminate":
            running.terminate_child("jobs/w")
        else:
            ref.tell(how)
        assert ref.join(15) == reason
        assert ref.result(15) == (reason, reason)


class LoopsUntil(Thread):
    restart = "temporary"

    def loop(self) -> None:
        self.rejoin("in a loop")


class LoopsUntilInAProcess(Process):
    restart = "temporary"
    loop = LoopsUntil.loop


@pytest.mark.parametrize("kind", [LoopsUntil, LoopsUntilInAProcess])
def test_rejoin_in_a_loop_ends_with_the_reason_that_it_was_given(kind: Any) -> None:
    with Supervisor("tree", DynamicSupervisor("jobs")).start() as running:
        assert running.start_child(Child(kind, id="w"), under="jobs").join(15) == Shutdown("in a loop")


class AsksItself(Thread):
    def on_receive(self, message: Any) -> Any:
        if message == "hello":
            return "hello"
        answer = self.ref.ask_future("hello") if message == "future" else self.ref.proxy().on_receive("hello")
        with pytest.raises(DeadlockError, match="asks itself"):
            answer.get()
        return "refused"


class AsksItselfInAProcess(Process):
    on_receive = AsksItself.on_receive


@pytest.mark.parametrize("kind", [AsksItself, AsksItselfInAProcess])
@pytest.mark.parametrize("how", ["future", "proxy"])
def test_waiting_for_an_answer_of_oneself_is_a_deadlock_error(kind: Any, how: str) -> None:
    with Supervisor("tree", Child(kind, id="w")).start() as running:
        assert running["w"].ask(how, timeout=15) == "refused"


handles = threading.Event()
handlers: list[threading.Thread] = []


class Waits(Thread):
    def on_receive(self, message: Any) -> Any:
        handlers.append(threading.current_thread())
        handles.set()
        self.wait(600)
        return "an answer of the dead"


def test_an_asker_is_told_at_once_when_the_thread_that_handles_its_message_is_abandoned() -> None:
    with Supervisor("tree", Child(Waits, id="w")).start() as running:
        answer = running["w"].ask_future("hello")
        assert handles.wait(15)
        running["w"].kill()
        with pytest.raises(WorkerDead, match="was abandoned"):
            answer.get(15)
        handlers[0].join(15)
        assert not handlers[0].is_alive()
        with pytest.raises(WorkerDead, match="was abandoned"):  # what the thread has returned since is dropped
            answer.get(0)


@pytest.mark.parametrize("how", ["why", "force"])
@pytest.mark.parametrize("restart", ["temporary", "transient"])
def test_a_worker_that_ends_by_itself_has_finished_whatever_its_reason_and_restart_type(how: str, restart: Any) -> None:
    class Job(Thread):
        def on_receive(self, message: str) -> None:
            self.force_finish() if message == "force" else self.rejoin(message)

    class Waits(Thread):
        def on_receive(self, message: str) -> None: ...

    with Supervisor("tree", Child(Job, restart=restart), Child(Waits, restart=restart)).start() as running:
        job, waits = running["job"], running["waits"]
        job.tell(how)
        job.join(15)
        running.terminate_child("waits")
        assert (job.status, waits.status) == (Status.FINISHED, Status.STOPPED)


class Explains(Process):
    def on_receive(self, why: Any) -> Any:
        try:
            self.rejoin(threading.Lock() if why == "a lock" else why)
        except TypeError as error:
            return str(error), self.last_loop
        return "finishes"


@pytest.mark.parametrize("why", ["a lock", 3, b"text", OSError("an error")], ids=repr)
def test_a_reason_that_is_no_text_is_refused_and_the_worker_goes_on(why: Any) -> None:
    with Supervisor("app", Explains).start() as running:
        error, finishing = running["explains"].ask(why, timeout=20.0)
        assert error.startswith("rejoin: why must be a text, not ")
        assert not finishing
        assert running["explains"].incarnation == 1
