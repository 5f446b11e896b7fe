"""Rule 81: who asks a worker that comes up only after the asker is told at once."""

from __future__ import annotations

import time
from typing import Any

import pytest

from suitkaise import Child, ChildStartFailed, Process, Supervisor, Thread, WorkerDead
from suitkaise.engines.forked_process import ForkedProcess
from suitkaise.events import ChildStopError
from suitkaise.exits import Crashed
from suitkaise.runtime.runtime import current as current_runtime
from tests.end_to_end.kinds import next_event
from tests.support import eventually, in_background

pytestmark = pytest.mark.usefixtures("one_runtime_for_all")

LONG = 600.0  # a test that waits so long fails


class AsksAtTheEnd:
    def on_finish(self) -> None:
        self.whereis("tree/z").ask("bye", timeout=LONG)  # type: ignore[attr-defined]


class AsksAtTheStart:
    def on_start(self) -> None:
        self.whereis("tree/z").ask("hello", timeout=LONG)  # type: ignore[attr-defined]


class AsksInItsLoop:
    def loop(self) -> None:
        self.whereis("tree/z").ask("next?", timeout=LONG)  # type: ignore[attr-defined]


class JoinsAtTheEnd:
    def on_finish(self) -> None:
        self.whereis("tree/z").join(LONG)  # type: ignore[attr-defined]


class JoinsAtTheStart:
    def on_start(self) -> None:
        self.whereis("tree/z").result(LONG)  # type: ignore[attr-defined]


class JoinsInItsLoop:
    def loop(self) -> None:
        self.whereis("tree/z").join(LONG)  # type: ignore[attr-defined]


class Answers:
    def on_receive(self, message: Any) -> Any:
        return message


KINDS = {"process": Process, "thread": Thread}


def of(kind: str, mixin: type) -> Any:
    return type(mixin.__name__, (mixin, KINDS[kind]), {"__module__": __name__})


def asker_and(kind: str, asker: type, shutdown: Any = "infinity") -> Supervisor:
    """A tree with an asker, and after it the one that is asked."""
    return Supervisor("tree", Child(of(kind, asker), id="a", shutdown=shutdown), Child(of(kind, Answers), id="z"))


both = pytest.mark.parametrize("kind", KINDS)


def is_refused(reason: Any) -> bool:
    return isinstance(reason, Crashed) and isinstance(reason.error, WorkerDead)


@both
def test_s81_an_ask_for_a_sibling_that_was_stopped_before_fails_at_once(kind: str) -> None:
    tree = Supervisor(
        "tree", Child(of(kind, AsksAtTheEnd), id="a", shutdown="infinity"), Child(of(kind, Answers), id="z")
    )
    running = tree.start()
    with running.events() as events:
        running.stop(timeout=60)
        assert is_refused(next_event(events, ChildStopError).reason)


@both
@pytest.mark.parametrize("turn", range(5))
def test_s81_an_ask_that_waits_when_the_asker_is_stopped_fails_then(kind: str, turn: int) -> None:
    running = asker_and(kind, AsksInItsLoop).start()
    assert running["z"].ask("is it up?") == "is it up?"
    running.stop(timeout=50)


@both
def test_s81_a_start_that_asks_a_later_sibling_fails_at_once(kind: str) -> None:
    with pytest.raises(ChildStartFailed) as caught:
        Supervisor("tree", Child(of(kind, AsksAtTheStart), id="a"), Child(of(kind, Answers), id="z")).start()
    assert is_refused(caught.value.reason)


def test_s81_a_worker_below_a_nested_supervisor_is_told_as_well() -> None:
    nested = Supervisor("nested", Child(of("process", AsksAtTheStart), id="a"))
    with pytest.raises(ChildStartFailed) as caught:
        Supervisor("tree", nested, Child(of("process", Answers), id="z")).start()
    assert is_refused(caught.value.reason)


@both
def test_s81_a_group_is_restarted_although_a_member_asks_another_one_at_its_end(kind: str) -> None:
    tree = Supervisor(
        "tree",
        Child(of(kind, Answers), id="y"),
        Child(of(kind, AsksAtTheEnd), id="a", shutdown="infinity"),
        Child(of(kind, Answers), id="z"),
        strategy="one_for_all",
    )
    running = tree.start()
    running["y"].kill()
    eventually(lambda: (running["z"].incarnation, running["z"].status) == (2, "running"), timeout=60)
    running.stop(timeout=60)


def test_s81_another_asker_waits_for_the_next_incarnation() -> None:
    tree = Supervisor(
        "tree",
        Child(of("process", Answers), id="y"),
        Child(of("process", AsksInItsLoop), id="a", shutdown="infinity"),
        Child(of("process", Answers), id="z"),
        strategy="one_for_all",
        max_restarts=100,
    )
    with tree.start() as running:
        for _ in range(5):
            old = running["z"].incarnation
            running["y"].kill()
            answer = in_background(lambda: running["z"].ask("from outside", timeout=60))
            error = answer.exception(60)  # the incarnation before may have got it, and was stopped with the group
            assert error is None or "comes up only after" not in str(error)
            eventually(lambda old=old: running["z"].incarnation > old and running["z"].status == "running")  # type: ignore[misc]


@both
def test_s81_a_join_of_a_sibling_that_was_stopped_before_fails_at_once(kind: str) -> None:
    running = asker_and(kind, JoinsAtTheEnd).start()
    with running.events() as events:
        running.stop(timeout=60)
        assert is_refused(next_event(events, ChildStopError).reason)


@both
def test_s81_a_start_that_waits_for_the_result_of_a_later_sibling_fails_at_once(kind: str) -> None:
    with pytest.raises(ChildStartFailed) as caught:
        asker_and(kind, JoinsAtTheStart).start()
    assert is_refused(caught.value.reason)


def test_s81_a_worker_is_known_when_it_asks_however_late_its_announcement_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What a worker asks at once may be read before the connection on which it has announced itself."""
    resume = ForkedProcess.resume_reading
    with Supervisor("other").start():
        runtime = current_runtime()
        assert runtime is not None
        call_at = runtime.reactor.call_at

        def resume_late(process: ForkedProcess) -> None:
            call_at(time.monotonic() + 1.0, lambda: resume(process))

        monkeypatch.setattr(ForkedProcess, "resume_reading", resume_late)
        asker = Child(of("process", JoinsAtTheStart), id="a")
        with pytest.raises(ChildStartFailed) as caught:
            Supervisor("tree", asker, Child(of("process", Answers), id="z")).start()
    assert is_refused(caught.value.reason)


@both
def test_s81_a_join_that_waits_when_its_caller_is_stopped_fails_then(kind: str) -> None:
    running = asker_and(kind, JoinsInItsLoop).start()
    assert running["z"].ask("is it up?") == "is it up?"
    running.stop(timeout=50)


@both
def test_s81_a_join_waits_for_a_sibling_that_is_restarted_independently(kind: str) -> None:
    with asker_and(kind, JoinsInItsLoop, shutdown=5.0).start() as running:
        if kind == "process":
            running["z"].kill()
            eventually(lambda: (running["z"].incarnation, running["z"].status) == (2, "running"))
        assert (running["a"].status, running["a"].incarnation) == ("running", 1)


@both
def test_s81_a_worker_that_is_up_may_ask_for_one_that_starts_next(kind: str) -> None:
    for _ in range(5):
        tree = Supervisor(
            "tree", Child(of(kind, AsksInItsLoop), id="a", shutdown=5.0), Child(of(kind, Answers), id="z")
        )
        with tree.start() as running:
            eventually(lambda: running["a"].status == "running")
            assert running["a"].incarnation == 1
